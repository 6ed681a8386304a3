"""The bundle's ``README.md``: what a person wants to know before serving it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genrec_export.report import Report
from genrec_runtime.manifest import Manifest


def card(manifest: Manifest, report: Report, facts: Mapping[str, Any]) -> str:
    """Model, data, protocol, metrics and parity in Markdown."""
    parts = [f"# {manifest.model.get('name', manifest.kind)}", _what(manifest)]
    for title, values in (("Settings", manifest.model.get("config", {})), *_sections(facts)):
        if values:
            parts.append(f"## {title}\n\n" + "\n".join([*_entries(values), *_by_cut_off(values)]))
    parts.append("## Parity with torch\n\n```\n" + report.table() + "\n```")
    if manifest.variants:
        parts.append("## Variants\n\n" + _variants(manifest))
    parts.append("## Use\n\n" + _use(manifest))
    return "\n\n".join(parts) + "\n"


def _what(manifest: Manifest) -> str:
    if manifest.semantics is None:
        return "A module: named arrays in, named arrays out."
    semantics = manifest.semantics
    return (
        f"Recommends from {semantics.num_items:,} items after the newest {semantics.max_seq_length} of a history, "
        f"lists of up to {semantics.k_max}."
    )


def _variants(manifest: Manifest) -> str:
    """What each costs and gains, as a table, and on what the speed was measured."""
    rows = ["| variant | of fp32's best items | further bytes | times as fast as fp32 |", "| --- | --- | --- | --- |"]
    for name, variant in manifest.variants.items():
        seen = manifest.measured[name]
        kept = f"{seen['overlap']:.5f} of {variant.k}, needed {variant.gate} ({seen['histories']} histories)"
        speed = ", ".join(f"{times:.2f} at batch {batch}" for batch, times in seen["speed"].items())
        rows.append(f"| {name} | {kept} | {seen['bytes']:,} | {speed} |")
    on = manifest.measured["on"]
    return (
        "\n".join(rows) + f"\n\nSpeed is a ratio of medians, measured while exporting on {on}; another machine differs."
    )


def _entries(values: Mapping[str, Any]) -> list[str]:
    """One list entry a value; what is not set is left out, and what is measured at a cut-off is in the table."""
    return [f"- {key}: {_shown(value)}" for key, value in values.items() if value is not None and "@" not in key]


def _by_cut_off(values: Mapping[str, Any]) -> list[str]:
    """The lines of a table of what is named as ``recall@10`` is: a row a metric, a column a cut-off; none where nothing is."""
    measured = {tuple(key.split("@", 1)): value for key, value in values.items() if "@" in key}
    names, cuts = dict.fromkeys(name for name, _ in measured), dict.fromkeys(cut for _, cut in measured)
    rows = [[name, *(_shown(measured[name, cut]) if (name, cut) in measured else "" for cut in cuts)] for name in names]
    lines = [["at", *cuts], ["---"] * (1 + len(cuts)), *rows]
    return ["", *(f"| {' | '.join(line)} |" for line in lines)] if rows else []


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(entry)}" for key, entry in value.items() if entry is not None)
    return str(value)


def _sections(facts: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(key.capitalize(), value) for key, value in facts.items() if isinstance(value, Mapping)]


def _use(manifest: Manifest) -> str:
    if manifest.kind == "module":
        names = ", ".join(f"{spec.name}=..." for spec in manifest.signature["module"].inputs)
        return f"```python\nfrom genrec_runtime import Module\n\noutputs = Module.load(FOLDER).run({names})\n```"
    return (
        "```python\nfrom genrec_runtime import Recommender\n\n"
        "answer = Recommender.load(FOLDER).recommend([[...]], k=10)\n```"
    )

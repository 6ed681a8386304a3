"""The bundle's ``README.md``: what a person wants to know before serving it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genrec.cards import sections
from genrec_export.report import Report
from genrec_runtime.manifest import FP32, Manifest


def card(manifest: Manifest, report: Report, facts: Mapping[str, Any]) -> str:
    """Model, data, protocol, metrics and parity in Markdown."""
    name = str(manifest.model.get("name", manifest.kind))
    parts = [f"# {name}", _what(manifest), *sections(name, manifest.model.get("config", {}), facts)]
    parts.append("## Parity with torch\n\n```\n" + report.table() + "\n```")
    if FP32 in manifest.measured:
        parts.append("## Speed\n\n" + _speed(manifest))
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


def _speed(manifest: Manifest) -> str:
    """How the bundle stands to torch, and on what that was measured."""
    return (
        "Times as fast as the trainer's own path in torch, raw ids in and raw ids out: "
        f"{_times(manifest.measured[FP32]['speed'])}. Ratios of medians, of runs that took turns while exporting, on "
        f"{manifest.measured['on']}; another machine differs."
    )


def _variants(manifest: Manifest) -> str:
    """What each costs and gains, as a table; speed as above, of the graph alone."""
    rows = ["| variant | of fp32's best items | further bytes | times as fast as fp32 |", "| --- | --- | --- | --- |"]
    for name, variant in manifest.variants.items():
        seen = manifest.measured[name]
        kept = f"{seen['overlap']:.5f} of {variant.k}, needed {variant.gate} ({seen['histories']} histories)"
        rows.append(f"| {name} | {kept} | {seen['bytes']:,} | {_times(seen['speed'])} |")
    return "\n".join(rows)


def _times(speed: Mapping[str, float]) -> str:
    """``1.50 at batch 1, 2.00 at batch 32``."""
    return ", ".join(f"{times:.2f} at batch {batch}" for batch, times in speed.items())


def _use(manifest: Manifest) -> str:
    if manifest.kind == "module":
        names = ", ".join(f"{spec.name}=..." for spec in manifest.signature["module"].inputs)
        return f"```python\nfrom genrec_runtime import Module\n\noutputs = Module.load(FOLDER).run({names})\n```"
    return (
        "```python\nfrom genrec_runtime import Recommender\n\n"
        "answer = Recommender.load(FOLDER).recommend([[...]], k=10)\n```"
    )

"""Model cards: what a trained model is, what it was measured on and how it stands, in Markdown.

One text for the run folder and for the bundle, which adds its proof and its use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

JUDGED = "ndcg@10"  # the metric that a model is held to the simple ones by
MOST_EPOCHS = 12  # of a training that are shown
LEFT_OUT = ("precision", "hit_rate", "map")  # of tables: with one target a user precision@k is recall@k / k, and so on
OWN_SECTIONS = ("seed", "fit", "epochs", "best_epoch", "test", "intervals", "baselines")


def facts_of(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What a card tells of a run, as JSON values; folders of the trainer's machine are left out.

    Args:
        config: the contents of the run's ``config.json``.
        metrics: those of its ``metrics.json``; empty where training has not ended.
    """
    facts: dict[str, Any] = {"seed": config.get("seed")}
    data, protocol = config.get("data"), config.get("protocol")
    if isinstance(data, dict):
        kept = {key: value for key, value in data.items() if key != "options"}
        facts["data"] = kept | {"source": Path(str(data.get("source"))).name}
    if isinstance(protocol, dict):
        facts["protocol"] = {key: value for key, value in protocol.items() if key not in ("source", "content_hash")}
    facts |= {name: metrics[name] for name in ("test", "intervals", "baselines", "best_epoch") if name in metrics}
    if metrics.get("epochs"):
        facts |= {"fit": config.get("fit"), "epochs": _thinned(metrics["epochs"], metrics.get("best_epoch"))}
    facts |= metrics.get("facts", {})
    return facts


def run_card(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """The ``README.md`` of a run folder; arguments as of ``facts_of``."""
    name, settings, items = config["model"], config["config"], config["data"]["items"]
    what = (
        f"Recommends from {items:,} items. Trained and measured by genrec; "
        "`genrec evaluate` measures it again, `genrec-export` makes of it what is served."
    )
    return "\n\n".join([f"# {name}", what, *sections(name, settings, facts_of(config, metrics))]) + "\n"


def sections(name: str, settings: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """What is told of a model, a text a section.

    Args:
        name: what it is called.
        settings: of the model.
        facts: JSON values; those of ``facts_of`` have their own places, any other mapping is a section of its own.
    """
    parts = [_section("Settings", entries(settings))]
    parts.append(_section("Training", _training(facts)))
    parts.append(_section("Accuracy", _accuracy(name, facts)))
    for key, value in facts.items():
        if isinstance(value, Mapping) and key not in OWN_SECTIONS:
            parts.append(_section(key.replace("_", " ").capitalize(), entries(value)))
    parts.append(_section("Limits", _limits(facts)))
    return [part for part in parts if part]


def entries(values: Mapping[str, Any]) -> list[str]:
    """One list entry a value, without what is not set."""
    return [f"- {key}: {_shown(value)}" for key, value in values.items() if value is not None]


def verdict(name: str, baselines: Mapping[str, Any]) -> str:
    """How the model stands to the best of some simple ones, in a sentence."""
    best = max(baselines, key=lambda other: baselines[other][JUDGED])
    mean, low, high = baselines[best]["difference"]
    gap = f"by {abs(mean):.4f} in NDCG@10, 95% interval of the difference {low:.4f} to {high:.4f}"
    if low > 0:
        return f"**{name} is better than {best}**, the best of the counted models, {gap}."
    if high < 0:
        return f"**{best}, which only counts, is better here** {gap}: {name} is not recommended for data like these."
    return f"**No difference from {best}**, which only counts, is shown: {gap}."


def _training(facts: Mapping[str, Any]) -> list[str]:
    lines = entries({"seed": facts.get("seed"), **(facts.get("fit") or {})})
    rows = facts.get("epochs")
    if not rows:
        return lines if facts.get("fit") else []
    head = list(dict.fromkeys(key for row in rows for key in row))
    table = [[_shown(row.get(key, "")) for key in head] for row in rows]
    return [*lines, f"- best epoch: {facts.get('best_epoch')}", "", *markdown([head, *table])]


def _accuracy(name: str, facts: Mapping[str, Any]) -> list[str]:
    test, baselines = facts.get("test"), facts.get("baselines")
    if not isinstance(test, Mapping):
        return []
    told = {key: value for key, value in test.items() if key.partition("@")[0] not in LEFT_OUT}
    lines = [*entries({key: value for key, value in test.items() if "@" not in key}), *by_cut_off(told)]
    intervals = facts.get("intervals") or {}
    lines += [
        "",
        *(f"95% interval over users of {key}: {low:.4f} to {high:.4f}" for key, (low, high) in intervals.items()),
    ]
    if not baselines:
        return lines
    shown = [key for key in next(iter(baselines.values())) if "@" in key]
    rows = [[other, *(_shown(values[key]) for key in shown)] for other, values in {name: test, **baselines}.items()]
    return [*lines, "", *markdown([["model", *shown], *rows]), "", verdict(name, baselines)]


def _limits(facts: Mapping[str, Any]) -> list[str]:
    if "protocol" not in facts:
        return []
    return [
        "- Figures hold for these data, this split and this protocol; with sampled negatives, without the filter of seen items "
        "or on other events they mean something else.",
        "- One training with one seed; intervals are over users, not over trainings.",
        "- Items that training did not have are not recommended; users without a known item get the most popular ones.",
    ]


def by_cut_off(values: Mapping[str, Any]) -> list[str]:
    """The lines of a table of what is named as ``recall@10`` is: a row a metric, a column a cut-off; none where nothing is."""
    measured = {tuple(key.split("@", 1)): value for key, value in values.items() if "@" in key}
    names, cuts = dict.fromkeys(name for name, _ in measured), dict.fromkeys(cut for _, cut in measured)
    rows = [[name, *(_shown(measured[name, cut]) if (name, cut) in measured else "" for cut in cuts)] for name in names]
    return ["", *markdown([["at", *cuts], *rows])] if rows else []


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, the first row of which is its head."""
    head, *body = rows
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *body)]


def _section(title: str, lines: list[str]) -> str:
    return f"## {title}\n\n" + "\n".join(lines) if lines else ""


def _thinned(rows: list[dict[str, Any]], best: int | None) -> list[dict[str, Any]]:
    """Some of the epochs, evenly chosen, the last and the best among them."""
    step = -(-len(rows) // MOST_EPOCHS)
    return [row for row in rows if row["epoch"] in (1, best, len(rows)) or row["epoch"] % step == 0]


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(entry)}" for key, entry in value.items() if entry is not None)
    if isinstance(value, list):
        return "; ".join(map(_shown, value)) or "none"
    return str(value)

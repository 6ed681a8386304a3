"""A comparison as a table: text for the terminal, CSV with every figure, LaTeX for a paper."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from genrec.results.comparison import Comparison, Difference, Estimate

CSV_COLUMNS = (
    *("metric", "model", "runs", "mean", "sd", "low", "high"),
    *("base", "difference", "difference_low", "difference_high", "differing_users", "p", "p_holm", "verdict"),
)
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def text_table(comparison: Comparison, leave_out: Sequence[str] = ()) -> str:
    """Means and differences in aligned columns, then what has to be said beside them.

    Args:
        comparison: what to show.
        leave_out: names before the "@" of metrics that are not shown unless they were tested.
    """
    metrics = [
        metric
        for metric in comparison.estimates
        if metric in comparison.tested or metric.partition("@")[0] not in leave_out
    ]
    means = [_heads(comparison)]
    means += [[metric, *map(_estimate, comparison.estimates[metric].values())] for metric in metrics]
    differences = [["", "model", "against", "difference", "p", "Holm's p", ""]]
    differences += [_row(one) for one in comparison.differences if one.metric in metrics]
    level = f"{comparison.confidence * 100:.4g}%"
    sd = " +- sd over runs" if comparison.over_seeds else ""
    tests = sum(one.p is not None for one in comparison.differences)
    return "\n".join(
        [
            f"{comparison.users:,} users; mean{sd} [{level} interval]",
            f"({comparison.method})",
            *_aligned(means),
            "",
            "differences, paired by user: model minus the one it stands against",
            *_aligned(differences),
            *([f"(Holm's p is corrected for {tests} test{'s' if tests > 1 else ''} and decides)"] if tests else []),
            "",
            *comparison.notes,
        ]
    ).rstrip()


def csv_table(comparison: Comparison) -> str:
    """A row for each metric and model; if a model is held against several others, a row for each of them.

    Numbers are written in full; what does not apply is empty. The columns are ``CSV_COLUMNS``.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for metric, models in comparison.estimates.items():
        for model, one in models.items():
            found = [other for other in comparison.differences if (other.metric, other.model) == (metric, model)]
            own = [metric, model, one.runs, one.mean, one.sd, one.low, one.high]
            writer.writerows([*own, *cells] for cells in [*map(_cells, found)] or [[""] * 8])
    return text.getvalue()


def latex_table(comparison: Comparison) -> str:
    """A table for the package booktabs: models as rows, the tested metrics as columns, the best value of each bold.

    A value has a dagger if the best one was not shown to differ from it, also where the two were never held against each
    other; so a best value that does not stand alone is seen. The caption says this.
    """
    heads = "".join(f" & {_escaped(metric)}" for metric in comparison.tested)
    rows = [
        _escaped(model) + "".join(f" & {_latex_cell(comparison, metric, model)}" for metric in comparison.tested)
        for model in comparison.models
    ]
    level, spread = f"{comparison.confidence * 100:.4g}", r" $\pm$ sd over runs" if comparison.over_seeds else ""
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{Mean{spread} with its {level}\% interval, {comparison.users} users. Bold: the best value; $^\dagger$: "
            r"not shown to differ from it (p after Holm's correction).}",
            r"\centering",
            rf"\begin{{tabular}}{{l{'r' * len(comparison.tested)}}}",
            r"\toprule",
            rf"{heads} \\",
            r"\midrule",
            *(rf"{row} \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex_cell(comparison: Comparison, metric: str, model: str) -> str:
    one = comparison.estimates[metric][model]
    highest = max(other.mean for other in comparison.estimates[metric].values())
    best = [name for name, other in comparison.estimates[metric].items() if other.mean == highest]
    sd = "" if one.sd is None else rf" $\pm$ {one.sd:.4f}"
    interval = _interval(one.low, one.high, ".4f")
    if model in best:
        return rf"\textbf{{{one.mean:.4f}}}{sd}{interval}"
    stands = any(
        {other.model, other.base} == {model, best[0]} and other.metric == metric and other.better == best[0]
        for other in comparison.differences
    )
    return f"{one.mean:.4f}" + ("" if stands else r"$^\dagger$") + sd + interval


def _heads(comparison: Comparison) -> list[str]:
    runs = {name: one.runs for name, one in comparison.estimates[comparison.tested[0]].items()}
    if not comparison.over_seeds:
        return ["", *runs]
    return ["", *(f"{name}, {count} run{'s' if count > 1 else ''}" for name, count in runs.items())]


def _estimate(one: Estimate) -> str:
    sd = "" if one.sd is None else f" +- {one.sd:.4f}"
    return f"{one.mean:.4f}{sd}{_interval(one.low, one.high, '.4f')}"


def _row(one: Difference) -> list[str]:
    difference = f"{one.mean:+.4f}{_interval(one.low, one.high, '+.4f')}"
    return [one.metric, one.model, one.base, difference, _p(one.p), _p(one.adjusted), one.verdict]


def _interval(low: float | None, high: float | None, form: str) -> str:
    return "" if low is None or high is None else f" [{low:{form}}, {high:{form}}]"


def _p(p: float | None) -> str:
    if p is None:
        return ""
    return "<0.0001" if p < 1e-4 else f"{p:.4f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _cells(one: Difference) -> list[object]:
    return [one.base, one.mean, one.low, one.high, one.differing, one.p, one.adjusted, one.verdict]


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)

"""Metrics as a table in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from genrec.cards import LEFT_OUT

Interval = tuple[float, float]

WHY = "one target a user: precision@k is recall@k / k, hit_rate@k is recall@k, map@k is mrr@k"


def print_table(
    columns: Mapping[str, Mapping[str, float]],
    cases: Sequence[int],
    intervals: Mapping[str, Interval] | None = None,
) -> None:
    """Metrics as rows but for those that follow from others; for the two paths of one model also their difference.

    Args:
        columns: names to metrics; where a column lacks one that another has stands a dash.
        cases: how many cases each column's means are over.
        intervals: of some of the first column's metrics.
    """
    intervals = intervals or {}
    names = list(columns)
    paired = names == ["torch", "bundle"]
    every = dict.fromkeys(metric for column in columns.values() for metric in column)
    shown = [metric for metric in every if metric.partition("@")[0] not in LEFT_OUT]
    width = max(map(len, shown)) + 2
    head = f"{'':<{width}}" + "".join(f"{name:>12}" for name in [*names, *(["difference"] if paired else [])])
    of_first = f" of {names[0]}" if len(names) > 1 else ""
    click.echo(head + (f"  95% interval{of_first}" if intervals else ""))
    for metric in shown:
        cells = [_cell(column.get(metric)) for column in columns.values()]
        if paired:
            cells.append(_cell(columns["bundle"][metric] - columns["torch"][metric]))
        interval = f"  {intervals[metric][0]:.6f} to {intervals[metric][1]:.6f}" if metric in intervals else ""
        click.echo(f"{metric:<{width}}" + "".join(cells) + interval)
    click.echo(f"{'cases':<{width}}" + "".join(f"{count:>12}" for count in cases))
    click.echo(f"({WHY})")


def _cell(value: float | None) -> str:
    return f"{'-':>12}" if value is None else f"{value:>12.6f}"

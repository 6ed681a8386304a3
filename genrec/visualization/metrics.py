"""Pictures of metrics of several models, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from genrec.visualization.canvas import Floats, head, legend_beside, line_style, model_name, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Point = float | tuple[float, float, float]
Table = dict[str, dict[int, Floats]]  # model name -> k -> (mean, low, high)
Look = dict[str, Any]
_IN_A_ROW = 3  # panels
_LINES = 7  # models up to which lines can be told apart
_STEP = 0.08  # from one model's points sideways to the next one's, where from one k to the next is 1


def metric_figure(
    results: Mapping[str, Mapping[str, Point]],
    metrics: Sequence[str] | None = None,
    title: str | None = None,
    bars: str = "bars: 95% intervals over users",
) -> Figure:
    """A picture of metrics at k, one panel a metric, each mean with its interval.

    Models are lines over k, spread sideways so that their bars stand apart. Where there is one k, or more than seven models,
    models are rows, the best first, with a panel for each metric and k. Scales do not begin at 0: read the numbers, not the
    heights.

    Args:
        results: by a model's name, its metrics by names such as "recall@10", each as ``(mean, low, high)`` or, where there is
            no interval, as the mean alone. A model may lack some.
        metrics: which to draw and in which order, without their k, such as "recall"; all when None.
        title: heading; "Metrics" when None.
        bars: what the intervals are, for the line at the foot; left out where nothing has one.

    Raises:
        ImportError: if matplotlib or seaborn is missing.
        ValueError: if there is nothing to draw, a name has no k, a number is not finite, or an interval ends before it
            begins.
    """
    tables = _tables(results, metrics)
    ks = sorted({k for table in tables.values() for points in table.values() for k in points})
    order = _best_first(next(iter(tables.values())), [model for model in results if _holds(tables, model)])
    looks = {model: line_style(i) for i, model in enumerate(results)}
    figure = new_figure()
    head(figure, title, "Metrics")
    (_draw_rows if len(ks) == 1 or len(order) > _LINES else _draw_lines)(figure, tables, ks, order, looks)
    if any(low < high for table in tables.values() for points in table.values() for _, low, high in points.values()):
        figure.supxlabel(bars, fontsize=8, color="#555555", parse_math=False)
    return figure


def _tables(results: Mapping[str, Mapping[str, Point]], metrics: Sequence[str] | None) -> dict[str, Table]:
    """By metric, then model, then k: the numbers (mean, low, high)."""
    found: dict[str, Table] = {}
    for model, result in results.items():
        for name, point in result.items():
            metric, at, k = name.rpartition("@")
            if not at or not metric or not k.isdecimal():
                raise ValueError(f"{model}: {name!r} must be a metric at a whole number k, such as 'recall@10'")
            found.setdefault(metric, {}).setdefault(model, {})[int(k)] = _numbers(f"{name} of {model}", point)
    unknown = [metric for metric in metrics or () if metric not in found]
    if unknown or not found or (metrics is not None and not metrics):
        wanted = f"metric {unknown[0]!r}" if unknown else "metric to draw"
        raise ValueError(f"there is no {wanted}; {len(results)} results hold {', '.join(found) or 'none'}")
    return {metric: found[metric] for metric in (found if metrics is None else metrics)}


def _numbers(name: str, point: Point) -> Floats:
    numbers = np.array(point if isinstance(point, Sequence) else (point, point, point), dtype=np.float64)
    if numbers.shape != (3,) or not np.isfinite(numbers).all() or numbers[1] > numbers[2]:
        raise ValueError(f"{name} must be a finite number, or three: mean, low and high; got {point}")
    return numbers


def _holds(tables: Mapping[str, Table], model: str) -> bool:
    return any(model in table for table in tables.values())


def _best_first(table: Table, models: Sequence[str]) -> list[str]:
    """By the mean at the largest k; those without one last, in the order given."""
    largest = max(k for points in table.values() for k in points)
    means = {model: points[largest][0] for model, points in table.items() if largest in points}
    return sorted(models, key=lambda model: -means.get(model, -math.inf))


def _draw_lines(
    figure: Figure, tables: Mapping[str, Table], ks: Sequence[int], order: Sequence[str], looks: Mapping[str, Look]
) -> None:
    columns = min(len(tables), _IN_A_ROW)
    rows = math.ceil(len(tables) / columns)
    figure.set_size_inches(max(3.4, 0.7 * len(ks) + 1.2) * columns + 2.2, 3.2 * rows + 0.6)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    models = [model for model in looks if model in order]
    sideways = {model: _STEP * (i - (len(models) - 1) / 2) for i, model in enumerate(models)}
    lines: dict[str, Line2D] = {}
    for axes, (metric, table) in zip(panels, tables.items(), strict=False):
        for model, points in table.items():
            x = np.array([ks.index(k) for k in sorted(points)]) + sideways[model]
            mean, low, high = np.stack([points[k] for k in sorted(points)]).T  # each (k,)
            (lines[model],) = axes.plot(x, mean, **looks[model])
            axes.vlines(x, low, high, color=looks[model]["color"], linewidth=1.5)
        axes.set(title=f"{metric}@k", xlabel="k, length of the list", xlim=(-0.5, len(ks) - 0.5))
        axes.set_xticks(range(len(ks)), [str(k) for k in ks])
        tidy(axes)
        axes.grid(visible=False, axis="x")
    for axes in panels[len(tables) :]:
        axes.remove()
    legend_beside(figure, [lines[model] for model in order], [model_name(model) for model in order])


def _draw_rows(
    figure: Figure, tables: Mapping[str, Table], ks: Sequence[int], order: Sequence[str], looks: Mapping[str, Look]
) -> None:
    """A panel for each metric, down, and each k, across; where there is one k, the metrics stand across."""
    shape = (1, len(tables)) if len(ks) == 1 else (len(tables), len(ks))
    figure.set_size_inches(2.7 * shape[1] + 2.4, (0.26 * len(order) + 0.7) * shape[0] + 0.8)
    panels = figure.subplots(*shape, squeeze=False, sharey=True).ravel()
    named = [(metric, k) for metric in tables for k in ks]
    for axes, (metric, k) in zip(panels, named, strict=True):
        for row, model in enumerate(order):
            if k in (points := tables[metric].get(model, {})):
                mean, low, high = points[k]
                axes.hlines(row, low, high, color=looks[model]["color"], linewidth=1.5)
                axes.plot(mean, row, **looks[model])
        axes.set(title=f"{metric}@{k}", ylim=(len(order) - 0.5, -0.5))
        axes.locator_params(axis="x", nbins=5)
        tidy(axes)
        axes.set_yticks(range(len(order)), [model_name(model) for model in order])
        for label in axes.get_yticklabels():
            label.set_parse_math(False)

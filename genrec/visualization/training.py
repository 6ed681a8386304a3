"""Pictures of a training's course: the loss, and what validation measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from genrec.visualization.canvas import COLOURS, Floats, head, legend_beside, line_style, model_name, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]
_LOSS = "train_loss"
_MARKED = 10  # markers a line carries at most


def training_curve_figure(rows: Rows, metric: str = "valid_ndcg@10", title: str | None = None) -> Figure:
    """A picture of a training's course: the loss, below it the validation's metric, and the best epoch marked in both.

    Args:
        rows: per epoch a mapping with "epoch", and "train_loss" and ``metric`` where they were measured; epochs where
            one is missing, None or not finite are left out of its curve.
        metric: the key whose highest value marks the best epoch, the earliest of equals.
        title: heading; "Training" when None.

    Raises:
        ImportError: if matplotlib or seaborn is missing.
        ValueError: if no row holds "train_loss", or none holds ``metric``, or an epoch has no number.
    """
    losses, values = _series(rows, _LOSS), _series(rows, metric)  # each (N, 2): epoch, value
    best = values[np.argmax(values[:, 1])]
    figure, upper, lower = _panels(metric, title)
    for axes, points in ((upper, losses), (lower, values)):
        axes.plot(*points.T, color=COLOURS[0], marker="o", markersize=3)
        axes.axvline(best[0], color=COLOURS[1], linestyle="--", linewidth=1)
    label = f"best: {best[1]:.4f} in epoch {best[0]:.0f}"
    lower.plot(*best, color=COLOURS[1], marker="o", markersize=8, linestyle="none", label=label)
    lower.legend(loc="best")
    _limit_epochs(lower, np.concatenate([losses, values]))
    return figure


def training_curves_figure(runs: Mapping[str, Rows], metric: str = "valid_ndcg@10", title: str | None = None) -> Figure:
    """A picture of several trainings: their losses, below them the validation's metric, and each best epoch marked.

    Losses of different models or settings are often not of one scale; the metric is. The legend is sorted by it.

    Args:
        runs: by a name the rows of each run, as in ``training_curve_figure``.
        metric: the key whose highest value marks a run's best epoch, the earliest of equals.
        title: heading; "Training" when None.

    Raises:
        ImportError: if matplotlib or seaborn is missing.
        ValueError: if there is no run, or a run has no row with "train_loss" or none with ``metric``; it is named.
    """
    if not runs:
        raise ValueError("there is no run to draw")
    series = {name: [_series(rows, key, f"{name}: ") for key in (_LOSS, metric)] for name, rows in runs.items()}
    figure, upper, lower = _panels(metric, title)
    entries = []
    for i, (name, (losses, values)) in enumerate(series.items()):
        look = line_style(i)
        for axes, points in ((upper, losses), (lower, values)):
            (line,) = axes.plot(*points.T, **look, markevery=math.ceil(len(points) / _MARKED))
        best = values[np.argmax(values[:, 1])]
        lower.plot(*best, **(look | {"markersize": 8, "markeredgecolor": "black", "zorder": 3}))
        entries.append((best[1], line, f"{model_name(name)}\n{best[1]:.4f} in epoch {best[0]:.0f}"))
    entries.sort(key=lambda entry: -entry[0])
    legend_beside(
        figure,
        [line for _, line, _ in entries],
        [label for *_, label in entries],
        f"best {_spoken(metric)} (large mark)",
    )
    _limit_epochs(lower, np.concatenate([points for pair in series.values() for points in pair]))
    return figure


def _panels(metric: str, title: str | None) -> tuple[Figure, Axes, Axes]:
    figure = new_figure()
    figure.set_size_inches(7.5, 5.5)
    head(figure, title, "Training")
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axes, name in ((upper, _LOSS), (lower, metric)):
        axes.set_ylabel(_spoken(name))
        tidy(axes)
    lower.set_xlabel("epoch", fontsize=9)
    return figure, upper, lower


def _limit_epochs(axes: Axes, points: Floats) -> None:
    axes.set_xlim(points[:, 0].min() - 0.5, points[:, 0].max() + 0.5)
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)


def _spoken(key: str) -> str:
    return key.replace("_", " ")


def _series(rows: Rows, key: str, whose: str = "") -> Floats:
    """(N, 2) epochs and values, of the rows that have one."""
    measured = [row for row in rows if row.get(key) is not None and math.isfinite(row[key])]
    if not measured:
        known = sorted({name for row in rows for name in row})
        raise ValueError(f"{whose}none of the {len(rows)} rows holds {key!r}; they hold {known}")
    if not all("epoch" in row for row in measured):
        raise ValueError(f"{whose}a row has {key!r} but no 'epoch'")
    return np.array([(row["epoch"], row[key]) for row in measured], dtype=np.float64)

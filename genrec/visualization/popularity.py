"""Pictures of what is recommended against how popular it was in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from genrec.visualization.canvas import DARK, Floats, head, legend_beside, line_style, model_name, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

_TENTHS = 10
_MARKED = 9  # markers on a line
_LEVEL = 32  # characters of the groups' labels that have room side by side
_TICKS = (0, 1, 5, 10, 20, 40, 60, 80, 100)  # per cent
_TRAINING: dict[str, Any] = {"color": DARK, "linewidth": 1.8, "linestyle": (0, (4, 1.5)), "zorder": 3}


def popularity_figure(popularity: Any, recommended: Mapping[str, Any], title: str | None = None) -> Figure:
    """A picture of whether models recommend what was popular more often than it was chosen.

    Items stand from the most popular in training to the least. Left: the share that the most popular n items have of all
    training events, and of all recommendations; a model above the training's line favours the popular. Right: the same
    items in ten groups, of which each holds about a tenth of the training events, and each group's share.

    Args:
        popularity: (V,) training events of each item.
        recommended: by a model's name, (V,) how often each item was recommended.
        title: heading; "What is recommended, by popularity in training" when None.

    Raises:
        ImportError: if matplotlib or seaborn is missing.
        ValueError: if there is no model, or counts are of another length, negative, not finite or all 0.
    """
    events = _counts("popularity", popularity)
    counts = {name: _counts(f"recommended[{name!r}]", values, len(events)) for name, values in recommended.items()}
    if not counts:
        raise ValueError("there is no model to draw: recommended is empty")
    order = np.argsort(-events, kind="stable")
    shares = {name: values[order] / values.sum() for name, values in counts.items()}
    trained = events[order] / events.sum()  # (V,)
    figure = new_figure()
    figure.set_size_inches(11, 4)
    head(figure, title, "What is recommended, by popularity in training")
    left, right = figure.subplots(1, 2)
    lines = _draw_cumulated(left, trained, shares)
    _draw_tenths(right, trained, shares)
    labels = [f"{model_name(name)}\n{np.count_nonzero(share):,} items" for name, share in shares.items()]
    legend_beside(
        figure, lines, [f"training events\n{np.count_nonzero(trained):,} items", *labels], "items that occur at all:"
    )
    return figure


def _counts(name: str, values: Any, size: int | None = None) -> Floats:
    counts = np.asarray(values, dtype=np.float64)
    if counts.ndim != 1 or not counts.size or (size is not None and len(counts) != size):
        wanted = "(V,)" if size is None else f"({size},) as popularity"
        raise ValueError(f"{name} must be of shape {wanted}, not {counts.shape}")
    if not np.isfinite(counts).all() or counts.min() < 0 or not counts.any():
        raise ValueError(f"{name} must hold counts: finite, none negative, and not all 0")
    return counts


def _draw_cumulated(axes: Axes, trained: Floats, shares: Mapping[str, Floats]) -> list[Line2D]:
    ranks = np.arange(1, len(trained) + 1)
    lines = axes.plot(ranks, 100 * np.cumsum(trained), **_TRAINING)
    marked = np.unique(np.geomspace(1, len(ranks), _MARKED).round().astype(int)) - 1
    for i, share in enumerate(shares.values()):
        lines += axes.plot(ranks, 100 * np.cumsum(share), **line_style(i), markevery=marked.tolist())
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_formatter("")
    axes.set(
        xlabel=f"n, of {len(ranks):,} items in all",
        ylabel="share of all (%)",
        title="share of the n most popular items",
        xlim=(0.9, 1.1 * len(ranks)),
        ylim=(0, 103),
    )
    tidy(axes)
    return lines


def _draw_tenths(axes: Axes, trained: Floats, shares: Mapping[str, Floats]) -> None:
    middle = np.cumsum(trained) - trained / 2  # (V,) of each item's part of all events
    groups = np.minimum((_TENTHS * middle).astype(int), _TENTHS - 1)
    present, groups = np.unique(groups, return_inverse=True)  # a very popular item leaves groups empty
    places = np.arange(len(present))
    heights = [100 * np.bincount(groups, share) for share in (trained, *shares.values())]
    for height, look in zip(heights, [_TRAINING, *map(line_style, range(len(shares)))], strict=True):
        axes.plot(places, height, **look)
    sizes = [f"{size:,}" for size in np.bincount(groups)]
    axes.set_xticks(places, sizes, rotation=45 if sum(map(len, sizes)) > _LEVEL else 0)
    axes.set_yscale("function", functions=(lambda y: np.sqrt(np.maximum(y, 0)), np.square))
    top = np.max(heights)
    axes.set_yticks([tick for tick in _TICKS if tick <= top])
    axes.set(
        xlabel="items in the group, most popular first",
        ylabel="share of all (%, square-root scale)",
        title="share of each tenth of the training events",
        ylim=(0, 1.08 * top),
    )
    tidy(axes)

"""Pictures of how evenly the codes of a quantiser are used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from genrec.metrics.items import entropy
from genrec.visualization.canvas import COLOURS, DARK, GREY, Floats, head, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_IN_A_ROW = 4  # panels


def codebook_figure(counts: Sequence[Any] | Any, title: str | None = None) -> Figure:
    """A picture of how often each code is used, one panel a level, the most used code first.

    Above each panel stand its perplexity (2 to the entropy in bits of the codes' shares: the number of codes that, evenly
    used, would carry as much) and the number of dead codes, which nothing uses; their part of the panel is grey.

    Args:
        counts: (levels, codes), or one (codes,) a level where levels differ in size: how many items use each code.
        title: heading; "Codebook use" when None.

    Raises:
        ImportError: if matplotlib or seaborn is missing.
        ValueError: if there is no level, or a level's counts are not (codes,), negative, not finite or all 0.
    """
    levels = [_level(i, level) for i, level in enumerate(counts, start=1)]
    if not levels:
        raise ValueError("there is no level to draw: counts is empty")
    columns = min(len(levels), _IN_A_ROW)
    rows = math.ceil(len(levels) / columns)
    figure = new_figure()
    figure.set_size_inches(3.0 * columns + 0.6, 2.7 * rows + 0.6)
    head(figure, title, "Codebook use")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    floor = 0.7 * min(1, *(level[level > 0].min() for level in levels))
    for i, (axes, level) in enumerate(zip(panels, levels, strict=False), start=1):
        _draw_level(axes, level, floor)
        dead = np.count_nonzero(level == 0)
        axes.set_title(
            f"level {i}: {len(level):,} codes, {dead:,} dead\nperplexity {2 ** entropy(level):,.1f}", fontsize=9
        )
    panels[0].set_ylim(floor, 1.4 * max(level.max() for level in levels))  # of all panels
    for axes in panels[len(levels) :]:
        axes.remove()
    figure.supxlabel("codes, most used first (grey: dead; dashed: even use)", fontsize=9)
    figure.supylabel("items that use the code (log scale)", fontsize=9)
    return figure


def _level(number: int, values: Any) -> Floats:
    counts = np.asarray(values, dtype=np.float64)
    if counts.ndim != 1 or not counts.size:
        raise ValueError(f"level {number} of counts must be of shape (codes,), not {counts.shape}")
    if not np.isfinite(counts).all() or counts.min() < 0 or not counts.any():
        raise ValueError(f"level {number} of counts must be finite, none negative, and not all 0")
    return counts


def _draw_level(axes: Axes, counts: Floats, floor: float) -> None:
    """``floor`` is where the logarithmic axis begins."""
    falling, used = np.sort(counts)[::-1], int(np.count_nonzero(counts))
    axes.stairs(falling[:used], np.arange(used + 1), baseline=floor, fill=True, color=COLOURS[0], linewidth=0)
    axes.axvspan(used, len(counts), color=GREY, linewidth=0)
    axes.axhline(counts.mean(), color=DARK, linestyle="--", linewidth=1)
    axes.set_xlim(0, len(counts))
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.yaxis.set_minor_formatter("")
    tidy(axes)

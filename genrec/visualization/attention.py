"""Pictures of attention maps, one panel a head, whichever path the weights come from."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from genrec.visualization.canvas import GREY, Floats, new_figure, save_figure, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Names = Sequence[object]
_LABEL_LENGTH = 24  # characters of a name that are shown
_LABEL_INCHES = 0.2  # from one label to the next at least
_ANNOTATED = 20  # names a side up to which cells carry their weight, where there is room
_SILENT_BACKENDS = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}  # they write files and show nothing


class AttentionVisualization:
    """Attention maps, shown or saved."""

    @staticmethod
    def plot_attention_heatmap(
        attention_weights: Any,
        input_tokens: Names,
        output_tokens: Names,
        save_path: str | os.PathLike[str] | None = None,
    ) -> None:
        """Saves a picture of attention weights, or shows it where no path is given; then closes it.

        Shown only where matplotlib has a backend with windows or notebook cells; elsewhere a warning says that it is
        not. ``attention_figure`` returns the picture instead.

        Args:
            attention_weights: (Lq, Lk), or (H, Lq, Lk) for one panel a head; an array or a tensor, gradients or not.
            input_tokens: Lk names of what is attended to.
            output_tokens: Lq names of what attends.
            save_path: file to write, in the format of its suffix; its folder must exist.

        Raises:
            ImportError: if matplotlib or seaborn is missing.
            ValueError: if the weights have other axes, or the names do not fit them.
        """
        figure = attention_figure(attention_weights, input_tokens, output_tokens)
        if save_path is not None:
            save_figure(figure, save_path)
            return
        from matplotlib import pyplot

        backend = pyplot.get_backend()
        if backend.lower() in _SILENT_BACKENDS:
            warnings.warn(f"matplotlib's backend {backend!r} shows nothing: pass save_path", stacklevel=2)
            return
        window = pyplot.figure(layout="constrained")
        try:
            _draw_attention(window, attention_weights, input_tokens, output_tokens, None)
            pyplot.show(block=True)  # returns when the window was closed, or its picture put into a notebook
        finally:
            pyplot.close(window)


def attention_figure(weights: Any, input_tokens: Names, output_tokens: Names, title: str | None = None) -> Figure:
    """A picture of attention weights; grey cells are masked: their weight is exactly 0, or no number.

    Args:
        weights: (Lq, Lk), or (H, Lq, Lk) for one panel a head; an array or a tensor, gradients or not.
        input_tokens: Lk names of what is attended to; long ones are cut, and of very many only some are written.
        output_tokens: Lq names of what attends.
        title: heading; "Attention weights" when None.

    Raises:
        ImportError: if matplotlib or seaborn is missing.
        ValueError: if the weights have other axes, or the names do not fit them.
    """
    figure = new_figure()
    _draw_attention(figure, weights, input_tokens, output_tokens, title)
    return figure


def _draw_attention(figure: Figure, weights: Any, input_tokens: Names, output_tokens: Names, title: str | None) -> None:
    from matplotlib.colors import PowerNorm
    from seaborn import heatmap

    heads = _heads(weights, len(input_tokens), len(output_tokens))  # (H, Lq, Lk)
    columns = min(len(heads), 2 if len(heads) <= 4 else 4)
    rows = math.ceil(len(heads) / columns)
    cell = min(0.45, 11 / (columns * heads.shape[2]), 14 / (rows * heads.shape[1]))  # inches
    height, width = (max(1.6, cell * count) for count in heads.shape[1:])
    figure.set_size_inches(3.0 + columns * (width + 0.15), 1.9 + rows * (height + 0.35))
    figure.suptitle("Attention weights" if title is None else title)
    shown = np.where(np.isfinite(heads) & (heads != 0), heads, np.nan)
    top = float(np.nanmax(shown, initial=0)) or 1.0
    panels = [figure.add_subplot(rows, columns, i + 1) for i in range(len(heads))]
    room = max(heads.shape[1:]) <= _ANNOTATED and min(width / heads.shape[2], height / heads.shape[1]) >= 0.3
    small = {"fontsize": 7}
    norm = PowerNorm(1 if room else 0.5, vmin=0, vmax=top)  # the many small weights of a large map would all look white
    for i, (axes, head) in enumerate(zip(panels, shown, strict=True)):
        heatmap(
            head, vmin=0, vmax=top, norm=norm, cmap="Blues", annot=room, fmt=".2f", annot_kws=small, cbar=False, ax=axes
        )
        axes.set_facecolor(GREY)
        axes.spines[:].set_visible(True)
        axes.set_title(f"head {i + 1}" if len(heads) > 1 else "", fontsize=10)
        _name_ticks(axes, "x", input_tokens if i + columns >= len(heads) else [""] * len(input_tokens), width)
        _name_ticks(axes, "y", output_tokens if i % columns == 0 else [""] * len(output_tokens), height)
    bar = figure.colorbar(panels[0].collections[0], ax=panels, fraction=0.05, pad=0.02, aspect=30, shrink=0.9)
    masked = " (grey: masked)" if np.isnan(shown).any() else ""
    bar.set_label(f"weight{'' if room else ', square-root scale'}{masked}", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    figure.supxlabel("input tokens (attended to)", fontsize=10)
    figure.supylabel("output tokens (attending)", fontsize=10)


def _heads(weights: Any, inputs: int, outputs: int) -> Floats:
    """The weights as (H, Lq, Lk), without importing the library that they come from."""
    plain = weights.detach().cpu().double() if hasattr(weights, "detach") else weights
    array = np.asarray(plain, dtype=np.float64)
    if array.ndim not in (2, 3) or not array.size:
        hint = "; choose one row of the batch, as in weights[0]" if array.ndim == 4 else ""
        raise ValueError(f"attention weights must be (Lq, Lk) or (H, Lq, Lk), not of shape {array.shape}{hint}")
    for name, count, axis in (("output_tokens", outputs, -2), ("input_tokens", inputs, -1)):
        if array.shape[axis] != count:
            raise ValueError(
                f"there are {count} {name} for weights of shape {array.shape}, which need {array.shape[axis]}"
            )
    return array.reshape(-1, outputs, inputs)


def _name_ticks(axes: Axes, along: Literal["x", "y"], names: Names, inches: float) -> None:
    """Writes names at their cells, or at every so many where there is no room for all."""
    step = math.ceil(_LABEL_INCHES * len(names) / inches)
    places = range(0, len(names), step)
    axis = axes.xaxis if along == "x" else axes.yaxis
    axis.set_ticks(
        [place + 0.5 for place in places], [short(names[place], _LABEL_LENGTH) for place in places], fontsize=8
    )
    for label in axis.get_ticklabels():
        label.set_parse_math(False)  # a price is no formula
        label.set(rotation=45 if along == "x" else 0, ha="right", rotation_mode="anchor")

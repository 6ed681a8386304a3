"""Pictures of attention maps and of a training's course. Matplotlib and seaborn are imported when a picture is asked for.

Figures are built without pyplot's global state, so that they work headless and in any thread, and nothing stays open.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
Names = Sequence[object]
_LABEL_LENGTH = 24  # characters of a name that are shown
_LABEL_INCHES = 0.2  # from one label to the next at least
_ANNOTATED = 20  # names a side up to which cells carry their weight, where there is room
_SILENT_BACKENDS = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}  # they write files and show nothing
_MASKED, _BLUE, _ORANGE = "#d9d9d9", "#2a6fb0", "#d9661f"


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


def training_curve_figure(
    rows: Sequence[Mapping[str, Any]], metric: str = "valid_ndcg@10", title: str | None = None
) -> Figure:
    """A picture of a training's course: the loss, below it the validation's metric, and the best epoch marked in both.

    Args:
        rows: per epoch a mapping with "epoch", and "train_loss" and ``metric`` where they were measured; epochs where
            one is missing, None or NaN are left out of its curve.
        metric: the key whose highest value marks the best epoch, the earliest of equals.
        title: heading; "Training" when None.

    Raises:
        ImportError: if matplotlib or seaborn is missing.
        ValueError: if no row holds "train_loss", or none holds ``metric``.
    """
    losses, values = _series(rows, "train_loss"), _series(rows, metric)  # each (N, 2): epoch, value
    best = values[np.argmax(values[:, 1])]
    figure = new_figure()
    figure.set_size_inches(7.5, 5.5)
    figure.suptitle("Training" if title is None else title)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axes, points, name in ((upper, losses, "train_loss"), (lower, values, metric)):
        axes.plot(*points.T, color=_BLUE, marker="o", markersize=3)
        axes.axvline(best[0], color=_ORANGE, linestyle="--", linewidth=1)
        axes.set_ylabel(name.replace("_", " "))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    label = f"best: {best[1]:.4f} in epoch {best[0]:.0f}"
    lower.plot(*best, color=_ORANGE, marker="o", markersize=8, linestyle="none", label=label)
    lower.legend(loc="best")
    lower.set_xlabel("epoch")
    epochs = np.concatenate([losses[:, 0], values[:, 0]])
    lower.set_xlim(epochs.min() - 0.5, epochs.max() + 0.5)
    lower.locator_params(axis="x", integer=True, min_n_ticks=1)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure whole, with all its labels, in the format of the path's suffix.

    Args:
        figure: what one of the functions here returned.
        path: file to write; its folder must exist.
    """
    figure.savefig(path, dpi=150, bbox_inches="tight")


def new_figure() -> Figure:
    """An empty figure that needs no screen.

    Raises:
        ImportError: if matplotlib or seaborn is missing.
    """
    try:
        import seaborn  # noqa: F401  # looked for here, so that both are asked for at once
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib and seaborn: pip install 'genrec[viz]'") from error
    return Figure(layout="constrained")


def _draw_attention(figure: Figure, weights: Any, input_tokens: Names, output_tokens: Names, title: str | None) -> None:
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
    for i, (axes, head) in enumerate(zip(panels, shown, strict=True)):
        room = max(head.shape) <= _ANNOTATED and min(width / head.shape[1], height / head.shape[0]) >= 0.3
        heatmap(
            head, vmin=0, vmax=top, cmap="Blues", annot=room, fmt=".2f", annot_kws={"fontsize": 7}, cbar=False, ax=axes
        )
        axes.set_facecolor(_MASKED)
        axes.spines[:].set_visible(True)
        axes.set_title(f"head {i + 1}" if len(heads) > 1 else "", fontsize=10)
        _name_ticks(axes, "x", input_tokens if i + columns >= len(heads) else [""] * len(input_tokens), width)
        _name_ticks(axes, "y", output_tokens if i % columns == 0 else [""] * len(output_tokens), height)
    bar = figure.colorbar(panels[0].collections[0], ax=panels, fraction=0.05, pad=0.02, aspect=30, shrink=0.9)
    bar.set_label("weight (grey: masked)" if np.isnan(shown).any() else "weight", fontsize=9)
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
    axis.set_ticks([place + 0.5 for place in places], [_short(names[place]) for place in places], fontsize=8)
    for label in axis.get_ticklabels():
        label.set_parse_math(False)  # a price is no formula
        label.set(rotation=45 if along == "x" else 0, ha="right", rotation_mode="anchor")


def _short(name: object) -> str:
    text = " ".join(str(name).split())
    return text if len(text) <= _LABEL_LENGTH else text[: _LABEL_LENGTH - 1].rstrip() + "…"


def _series(rows: Sequence[Mapping[str, Any]], key: str) -> Floats:
    points = [(row["epoch"], row[key]) for row in rows if row.get(key) is not None and not math.isnan(row[key])]
    if not points:
        known = sorted({name for row in rows for name in row})
        raise ValueError(f"none of the {len(rows)} rows holds {key!r}; they hold {known}")
    return np.array(points, dtype=np.float64)

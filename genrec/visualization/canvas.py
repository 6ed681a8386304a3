"""What all pictures share: a figure without a screen, its file, colours that everyone can tell apart, names cut to fit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
NAME_LENGTH = 36  # characters of a model's name that are shown
GREY, DARK = "#d9d9d9", "#333333"
# Okabe and Ito 2008 without its yellow, which is too pale for lines
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f4f24")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":", "-.")  # the first seven lines are solid, the next seven dashed, ...


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


def check_picture_path(path: str | os.PathLike[str]) -> None:
    """Finds out whether ``save_figure`` can write there, before time is spent on what is to be drawn.

    Raises:
        ImportError: if matplotlib or seaborn is missing.
        ValueError: if the folder does not exist, or the suffix names no format of pictures.
    """
    formats = new_figure().canvas.get_supported_filetypes()
    if not Path(path).parent.is_dir():
        raise ValueError(f"there is no folder {Path(path).parent} for the picture")
    if Path(path).suffix[1:].lower() not in formats:
        raise ValueError(f"the picture ({path}) must end with one of .{', .'.join(sorted(formats))}")


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure whole, with all its labels, in the format of the path's suffix.

    Args:
        figure: what one of the functions here returned.
        path: file to write; its folder must exist.

    Raises:
        OSError: if it cannot be written.
        ValueError: if the suffix names no format of pictures.
    """
    figure.savefig(path, dpi=150, bbox_inches="tight")


def line_style(i: int) -> dict[str, Any]:
    """How line ``i`` of a picture looks, from 0: no two of the first 28 alike, and seven alike in neither colour nor marker."""
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": DASHES[i // len(COLOURS) % len(DASHES)],
        "linewidth": 1.5,
        "markersize": 5,
        "markeredgecolor": "white",
        "markeredgewidth": 0.6,
    }


def tidy(axes: Axes) -> None:
    """A pale grid below the data, and no frame but the two axes."""
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.title.set_fontsize(10)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_fontsize(9)


def head(figure: Figure, title: str | None, otherwise: str) -> None:
    """The heading, at the left, where it stands above the panels whatever is beside them."""
    text = otherwise if title is None else title
    figure.suptitle(text, x=0.01, ha="left", fontsize=12, parse_math=False)


def legend_beside(figure: Figure, handles: Sequence[Artist], labels: Sequence[str], title: str | None = None) -> None:
    """A legend right of all panels, so that it covers no data; labels are written as they stand, never as formulas.

    Where it is higher than the figure, the figure is made as high.
    """
    legend = figure.legend(
        handles,
        [str(i) for i in range(len(labels))],
        title=title,
        loc="outside right upper",
        fontsize=8,
        title_fontsize=8,
        alignment="left",
        frameon=False,
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_parse_math(False)  # a price is no formula
        text.set_text(label)
    lines = sum(label.count("\n") + 1 for label in labels)
    figure.set_figheight(max(figure.get_figheight(), 0.14 * lines + 0.06 * len(labels) + 0.4))  # inches


def short(name: object, length: int, end: int = 0) -> str:
    """A name on one line in at most ``length`` characters, of which the last ``end`` ones are kept.

    >>> short("the quick brown fox", 10), short("sasrec-large-seed-1", 12, end=6)
    ('the quick…', 'sasre…seed-1')
    """
    text = " ".join(str(name).split())
    if len(text) <= length:
        return text
    return text[: length - 1 - end].rstrip() + "…" + text[len(text) - end :]


def model_name(name: object) -> str:
    """A model's name, cut in the middle: names of runs often differ at their ends."""
    return short(name, NAME_LENGTH, end=NAME_LENGTH // 2)

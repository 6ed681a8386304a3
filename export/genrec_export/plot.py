"""The parity report as a picture: the largest difference by batch and length, and torch's values against onnxruntime's."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from genrec.visualization import new_figure, save_figure
from genrec_export.report import Cell, Floats, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

LEAST = 1e-4  # shares of the tolerance below this have one colour
PANELS = 3  # a row
ANNOTATED = 20  # columns in a row of panels up to which all are named, and their cells carry numbers
CHARACTERS = 150  # of a line of the table
WIDTH = 12.5  # inches
FAILED, EMPTY, SAME, LINE = "#d9661f", "#d9d9d9", "#f3f7fb", "#444444"
TEXT: Any = {"va": "top", "family": "monospace", "fontsize": 8, "parse_math": False}  # how the table is written


def plot_report(report: Report, path: str | os.PathLike[str]) -> None:
    """Writes the picture of a report.

    Args:
        report: of an export that passed, or of one that failed.
        path: file to write, in the format of its suffix; its folder must exist.

    Raises:
        ImportError: if matplotlib or seaborn is missing.
        ValueError: if the report holds no comparison.
    """
    save_figure(report_figure(report), path)


def report_figure(report: Report) -> Figure:
    """The picture of a report: for each graph the largest difference of each size, below it values of both sides, and the table.

    A size is a batch, down, and a length, across, or where the graph has no length all its other free axes. A difference is shown
    as its share of what the tolerance allows.

    Raises:
        ImportError: if matplotlib or seaborn is missing.
        ValueError: if the report holds no comparison.
    """
    if not report.cells:
        raise ValueError("the report holds no comparison to draw")
    figure = new_figure()
    graphs: dict[str, list[Cell]] = {}
    for cell in report.cells:
        if cell.level == "graph":
            graphs.setdefault(cell.what, []).append(cell)
    text = _text(report)
    parts: list[tuple[float, Callable[[SubFigure], object]]] = [(0.4, lambda part: _draw_title(part, report))]
    if graphs:
        parts.append((0.9 + 2.4 * math.ceil(len(graphs) / PANELS), lambda part: _draw_graphs(part, graphs)))
    if report.pairs:
        parts.append((4.2, lambda part: _draw_values(part, report.sampled(), report.tolerance.atol)))
    parts.append((0.2 + 0.17 * len(text), lambda part: part.text(0.02, 0.95, "\n".join(text), **TEXT)))
    heights = [inches for inches, _ in parts]
    figure.set_size_inches(WIDTH, sum(heights))
    places = figure.subfigures(len(parts), 1, squeeze=False, height_ratios=heights)
    for place, (_, draw) in zip(places.flat, parts, strict=True):
        draw(place)
    return figure


def _draw_title(part: SubFigure, report: Report) -> None:
    failed, count = sum(not cell.passed for cell in report.cells), len(report.cells)
    verdict = f"different in {failed:,} of" if failed else f"equal in {count:,} of"
    colour = FAILED if failed else "black"
    part.text(
        0.5,
        0.5,
        f"Torch against onnxruntime: {verdict} {count:,} comparisons",
        ha="center",
        va="center",
        fontsize=13,
        color=colour,
    )


def _text(report: Report) -> list[str]:
    """The report's table, all levels in it, and where inside the model the two part."""
    lines = [*report.table().splitlines(), *([report.parting.text] if report.parting else [])]
    return [line if len(line) <= CHARACTERS else line[: CHARACTERS - 1] + "…" for line in lines]


def _draw_graphs(part: SubFigure, graphs: dict[str, list[Cell]]) -> None:
    """A heat map a graph, all of one scale of colours."""
    from matplotlib.colors import LogNorm
    from seaborn import color_palette, heatmap

    colours = color_palette("Blues", as_cmap=True).with_extremes(under=SAME, over=FAILED, bad=EMPTY)
    norm = LogNorm(LEAST, 1)
    columns = min(PANELS, len(graphs))
    rows = math.ceil(len(graphs) / columns)
    panels = part.subplots(rows, columns, squeeze=False)
    for axes in panels.flat[len(graphs) :]:
        axes.remove()
    for axes, (name, cells) in zip(panels.flat, graphs.items(), strict=False):
        shares, down, across, names = _by_size(cells)
        step = math.ceil(len(across) * columns / ANNOTATED)
        numbers = np.vectorize(_share, otypes=[object])(shares) if step == 1 else None
        shown = np.clip(shares, LEAST / 10, 10)  # neither 0 nor infinity has a logarithm
        heatmap(
            shown,
            norm=norm,
            cmap=colours,
            annot=numbers,
            fmt="",
            annot_kws={"fontsize": 8},
            cbar=False,
            linewidths=0.5,
            ax=axes,
            xticklabels=False,
            yticklabels=down,
        )
        worst = max(cell.excess for cell in cells)
        axes.set_title(f"{name}: {len(cells)} comparisons, worst {_share(worst)}", fontsize=10)
        axes.set_xlabel(names[1])
        axes.set_ylabel(names[0])
        axes.set_xticks(np.arange(0, len(across), step) + 0.5, across[::step])
        axes.tick_params(labelsize=8, rotation=0)
    drawn = panels.ravel()[: len(graphs)].tolist()
    bar = part.colorbar(drawn[0].collections[0], ax=drawn, extend="both", fraction=0.05, pad=0.02)
    bar.set_label("largest difference, as a share\nof what the tolerance allows", fontsize=9)
    bar.set_ticks([LEAST, 1e-3, 1e-2, 1e-1, 1], labels=["0.01%", "0.1%", "1%", "10%", "100%"], fontsize=8)


def _by_size(cells: Sequence[Cell]) -> tuple[Floats, list[str], list[str], tuple[str, str]]:
    """The largest share of the tolerance by size, NaN where no case has that size; names of rows, columns, and of both axes."""
    axes = list(dict.fromkeys(axis for cell in cells for axis in cell.sizes))
    down, across = axes[:1], ["length"] if "length" in axes[1:] else axes[1:]
    places = [tuple(tuple(cell.sizes[axis] for axis in side) for side in (down, across)) for cell in cells]
    rows, columns = (sorted({place[side] for place in places}) for side in (0, 1))
    shares = np.full((len(rows), len(columns)), np.nan)
    for (row, column), cell in zip(places, cells, strict=True):
        at = rows.index(row), columns.index(column)
        shares[at] = np.fmax(shares[at], cell.excess)
    labels = [[" × ".join(map(str, sizes)) for sizes in side] for side in (rows, columns)]
    names = [" × ".join(side).replace("_", " ") for side in (down, across)]
    return shares, labels[0], labels[1], (names[0], names[1] or "no other axis is free")


def _share(excess: float) -> str:
    """A share of the tolerance in few characters."""
    if math.isnan(excess):
        return ""
    if excess > 1:
        return "∞" if math.isinf(excess) else f"{excess:.3g}×"
    return "<0.1%" if 0 < excess < 0.001 else f"{excess:.1%}" if excess else "0"


def _draw_values(part: SubFigure, pairs: dict[str, Floats], atol: float) -> None:
    """On the left torch's values against onnxruntime's, on the right how far they are apart."""
    from seaborn import color_palette

    left, right = part.subplots(1, 2)
    colours = color_palette("viridis", len(pairs))
    for colour, (name, values) in zip(colours, pairs.items(), strict=True):
        left.scatter(*values.T, s=9, alpha=0.5, color=colour, linewidths=0, label=f"{name} ({len(values):,})")
    left.axline((0, 0), slope=1, color=LINE, linewidth=0.8, zorder=0, label="equal")
    left.set(xlabel="torch", ylabel="onnxruntime", title=f"{sum(map(len, pairs.values())):,} of the values compared")
    left.legend(fontsize=8, loc="upper left", edgecolor="none", framealpha=1)
    _draw_gaps(right, [np.abs(values[:, 1] - values[:, 0]) for values in pairs.values()], colours, atol)
    for axes in (left, right):
        axes.title.set_fontsize(10)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)


def _draw_gaps(axes: Axes, gaps: list[Floats], colours: Any, atol: float) -> None:
    """A histogram of differences over a logarithmic axis, on which those of 0 have no place."""
    every = np.concatenate(gaps)
    shown = [atol, *every[every > 0].tolist()]
    bins = np.geomspace(min(shown) / 2, max(shown) * 2, 40).tolist()
    axes.hist(gaps, bins=bins, stacked=True, color=colours)
    axes.axvline(atol, color=FAILED, linestyle="--", linewidth=1, label=f"{atol:g}, the least that is allowed in fp32")
    axes.set_xscale("log")
    axes.set(
        xlabel="|onnxruntime − torch|",
        ylabel="values",
        title=f"differences; {(every == 0).mean():.0%} of the values are equal to the last bit",
    )
    axes.margins(y=0.15)  # room for the legend
    axes.legend(fontsize=8, loc="upper left", edgecolor="none", framealpha=1)

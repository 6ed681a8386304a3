"""Codebook use: one panel a level, its sorted counts, perplexity and dead codes, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec.visualization import codebook_figure, save_figure

COUNTS = np.array([[2, 2, 2, 2], [0, 8, 0, 0], [1, 0, 4, 3]])


def test_each_level_shows_its_counts_from_the_most_used_code_on() -> None:
    figure = codebook_figure(COUNTS)
    assert len(figure.axes) == 3
    for axes, level in zip(figure.axes, COUNTS, strict=True):
        used = axes.patches[0].get_data()
        assert used.values.tolist() == sorted(level[level > 0].tolist(), reverse=True)
        assert used.edges.tolist() == list(range(len(used.values) + 1))
        assert axes.lines[0].get_ydata()[0] == 8 / 4  # even use
        assert axes.get_xlim() == (0, 4)
        assert axes.get_yscale() == "log"
        assert axes.get_ylim() == (0.7, 1.4 * 8)  # one scale for all, from below the least count to above the largest


def test_perplexity_and_dead_codes_are_named() -> None:
    third = 2 ** (1 / 8 * np.log2(8) + 4 / 8 * np.log2(8 / 4) + 3 / 8 * np.log2(8 / 3))
    assert [axes.get_title() for axes in codebook_figure(COUNTS).axes] == [
        "level 1: 4 codes, 0 dead\nperplexity 4.0",
        "level 2: 4 codes, 3 dead\nperplexity 1.0",
        f"level 3: 4 codes, 1 dead\nperplexity {third:.1f}",
    ]


def test_dead_codes_are_grey() -> None:
    panels = codebook_figure(COUNTS).axes
    grey = [axes.patches[1].get_extents().transformed(axes.transData.inverted()) for axes in panels]
    assert [round(box.width, 9) for box in grey] == [0, 3, 1]
    assert [round(box.x1, 9) for box in grey] == [4, 4, 4]


def test_levels_may_differ_in_size() -> None:
    figure = codebook_figure([[30, 10], [30, 30, 60]], title="RQ-VAE")
    assert [axes.get_xlim() for axes in figure.axes] == [(0, 2), (0, 3)]
    assert [axes.lines[0].get_ydata()[0] for axes in figure.axes] == [20, 40]
    assert figure.axes[0].get_ylim()[0] < 1  # so that a power of ten is labelled, whatever the counts
    assert figure.get_suptitle() == "RQ-VAE"


@pytest.mark.parametrize("levels", [1, 6])
def test_nothing_overlaps(levels: int, check_layout: Callable[[Any], None], tmp_path: Path) -> None:
    figure = codebook_figure(np.random.default_rng(0).integers(0, 99_999, (levels, 4096)))
    check_layout(figure)
    save_figure(figure, tmp_path / "codes.png")


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([], "there is no level to draw: counts is empty"),
        ([1, 2, 3], r"level 1 of counts must be of shape \(codes,\), not \(\)"),
        ([[1, 2], []], r"level 2 of counts must be of shape \(codes,\), not \(0,\)"),
        ([[1, -1]], "level 1 of counts must be finite, none negative, and not all 0"),
        ([[1, 2], [0, 0]], "level 2 of counts must be finite, none negative, and not all 0"),
        ([[1, float("nan")]], "level 1 of counts must be finite"),
    ],
)
def test_what_cannot_be_drawn_is_refused(counts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        codebook_figure(counts)

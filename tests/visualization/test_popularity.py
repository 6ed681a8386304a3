"""Popularity against what is recommended: shares worked by hand, groups of items, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec.visualization import popularity_figure, save_figure

EVENTS = [1, 4, 0, 3, 2]  # of 10; from the most popular: items 1, 3, 4, 0, 2
LISTS = {"head": [0, 6, 0, 2, 0], "tail": [1, 1, 1, 1, 1]}


def curves(axes: Any) -> list[list[float]]:
    return [line.get_ydata().tolist() for line in axes.lines]


def test_shares_are_summed_from_the_most_popular_item_on() -> None:
    left = popularity_figure(EVENTS, LISTS).axes[0]
    expected = [[40, 70, 90, 100, 100], [75, 100, 100, 100, 100], [20, 40, 60, 80, 100]]
    np.testing.assert_allclose(curves(left), expected, rtol=1e-12)  # float64 sums
    for line in left.lines:
        assert line.get_xdata().tolist() == [1, 2, 3, 4, 5]
    assert left.get_xscale() == "log"
    assert left.get_xlabel() == "n, of 5 items in all"


def test_groups_hold_about_a_tenth_of_the_training_events_each() -> None:
    popularity = [*[4] * 5, *[2] * 10, *[1] * 60]  # 20, 20 and 60 of 100 events
    recommended = [*[10] * 5, *[5] * 10, *[0] * 60]  # 50, 50 and 0 of 100
    right = popularity_figure(popularity, {"a": recommended}).axes[1]
    sizes = [int(label.get_text()) for label in right.get_xticklabels()]
    assert sum(sizes) == 75
    assert sizes[4:] == [10] * 6  # ten items of one event each are a tenth of 100
    training, model = curves(right)
    np.testing.assert_allclose([sum(training[:2]), sum(training[2:4])], [20, 20], atol=4)  # an item has up to 4 events
    np.testing.assert_allclose(training[4:], 10)
    np.testing.assert_allclose([sum(training), sum(model), sum(model[4:])], [100, 100, 0], atol=1e-9)


def test_an_item_of_half_of_all_events_leaves_no_empty_groups() -> None:
    right = popularity_figure([50, *[1] * 50], {"a": [0, *[1] * 50]}).axes[1]
    training, model = curves(right)
    assert [label.get_text() for label in right.get_xticklabels()] == ["1", *["10"] * 5]
    np.testing.assert_allclose(training, [50, *[10] * 5])
    np.testing.assert_allclose(model, [0, *[20] * 5])


def test_the_legend_says_how_many_items_each_recommends_at_all() -> None:
    figure = popularity_figure(EVENTS, LISTS, title="A title")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "training events\n4 items",
        "head\n2 items",
        "tail\n5 items",
    ]
    colours = [line.get_color() for line in figure.axes[0].lines]
    assert [handle.get_color() for handle in figure.legends[0].legend_handles] == colours
    assert [line.get_color() for line in figure.axes[1].lines] == colours
    assert figure.get_suptitle() == "A title"


@pytest.mark.parametrize(("items", "models"), [(1, 1), (7, 2), (12_000, 9), (200_000, 1)])
def test_nothing_overlaps(items: int, models: int, check_layout: Callable[[Any], None], tmp_path: Path) -> None:
    popularity = 1000 // np.arange(1, items + 1) + 100
    figure = popularity_figure(popularity, {f"{'long name ' * 9}$^${i}": popularity for i in range(models)})
    check_layout(figure)
    save_figure(figure, tmp_path / "popularity.png")


@pytest.mark.parametrize(
    ("popularity", "recommended", "message"),
    [
        ([1, 2], {}, "there is no model to draw: recommended is empty"),
        ([], {"a": []}, r"popularity must be of shape \(V,\), not \(0,\)"),
        ([[1, 2]], {"a": [1, 2]}, r"popularity must be of shape \(V,\), not \(1, 2\)"),
        ([1, 2], {"a": [1, 2, 3]}, r"recommended\['a'\] must be of shape \(2,\) as popularity, not \(3,\)"),
        ([1, -2], {"a": [1, 2]}, "popularity must hold counts: finite, none negative, and not all 0"),
        ([1, 2], {"a": [1, float("nan")]}, r"recommended\['a'\] must hold counts"),
        ([1, 2], {"a": [0, 0]}, r"recommended\['a'\] must hold counts"),
    ],
)
def test_what_cannot_be_drawn_is_refused(popularity: Any, recommended: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        popularity_figure(popularity, recommended)

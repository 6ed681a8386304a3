"""Our metrics of what is recommended, whoever to, against those of RecTools: where definitions agree, and where not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from genrec.metrics import RecommendationMetrics
from genrec.metrics.diversity import intra_list_diversity
from genrec.metrics.items import ItemCounts

pytestmark = pytest.mark.slow  # installs

EXACT = {"rtol": 0, "atol": 1e-9}  # float64, means of a few values in another order
Lists = list[list[int]]
Ask = Callable[..., dict[str, Any]]

POPULARITY = [0, 8, 4, 2, 1, 0, 5]  # of items 1..6; eight users met some
VECTORS = np.random.default_rng(8).normal(size=(len(POPULARITY), 3))
FULL = [[1, 2, 3], [4, 1, 5], [6, 5, 2], [3, 6, 1]]


@pytest.fixture(scope="module")
def ask_items(ask: Ask) -> Ask:
    """The means of RecTools of lists of item numbers, by metric."""

    def answered(predictions: Lists, ks: list[int]) -> dict[str, float]:
        found = ask(
            peer="RecTools on items", predictions=predictions, ks=ks, popularity=POPULARITY, vectors=VECTORS.tolist()
        )
        return {name: answer["mean"] for name, answer in found.items()}

    return answered


def counted(predictions: Lists, ks: list[int]) -> dict[str, float]:
    """Our means of the same."""
    counts = ItemCounts(ks, len(POPULARITY) - 1)
    counts.update(predictions)
    return counts.compute(popularity=POPULARITY)


def test_coverage_popularity_and_diversity_of_full_lists_are_as_rectools_has_them(ask_items: Ask) -> None:
    theirs, ours = ask_items(FULL, [1, 2, 3]), counted(FULL, [1, 2, 3])
    for k in (1, 2, 3):
        top = [row[:k] for row in FULL]
        found = [ours[f"coverage@{k}"], ours[f"average_popularity@{k}"], intra_list_diversity(top, VECTORS)]
        expected = [theirs[f"{name}@{k}"] for name in ("coverage", "average_popularity", "intra_list_diversity")]
        np.testing.assert_allclose(found, expected, **EXACT)
        assert RecommendationMetrics.coverage(top, len(POPULARITY) - 1) == theirs[f"coverage@{k}"]


def test_coverage_of_rectools_by_default_is_a_number_of_items(ask_items: Ask) -> None:
    assert ask_items(FULL, [2])["items@2"] == 6 * counted(FULL, [2])["coverage@2"]


def test_novelty_is_of_the_share_of_users_in_rectools_and_of_interactions_here(ask_items: Ask) -> None:
    theirs, ours = ask_items(FULL, [1, 3]), counted(FULL, [1, 3])
    more = math.log2(sum(POPULARITY) / max(POPULARITY))  # bits; the same for every item, so no order changes
    for k in (1, 3):
        assert ours[f"novelty@{k}"] == pytest.approx(theirs[f"novelty@{k}"] + more, abs=1e-9)


def test_popularity_of_ragged_lists_is_a_mean_of_lists_in_rectools_and_of_places_here(ask_items: Ask) -> None:
    predictions = [[1, 2, 3], [4]]
    assert ask_items(predictions, [3])["average_popularity@3"] == pytest.approx(((8 + 4 + 2) / 3 + 1) / 2, abs=1e-12)
    assert counted(predictions, [3])["average_popularity@3"] == (8 + 4 + 2 + 1) / 4


def test_a_list_without_a_pair_has_diversity_0_in_rectools_and_is_left_out_here(ask_items: Ask) -> None:
    alone = intra_list_diversity([[1, 2]], VECTORS)
    assert ask_items([[1, 2], [3]], [2])["intra_list_diversity@2"] == pytest.approx(alone / 2, abs=1e-12)
    assert intra_list_diversity([[1, 2], [3]], VECTORS) == pytest.approx(alone, abs=1e-12)


def test_a_repeated_item_is_at_no_distance_from_itself_in_rectools_and_counts_once_here(ask_items: Ask) -> None:
    pair = intra_list_diversity([[1, 2]], VECTORS)
    assert ask_items([[1, 2, 1]], [3])["intra_list_diversity@3"] == pytest.approx((pair + pair + 0) / 3, abs=1e-12)
    assert intra_list_diversity([[1, 2, 1]], VECTORS) == pytest.approx(pair, abs=1e-12)

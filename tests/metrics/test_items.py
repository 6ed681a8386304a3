"""ItemCounts: every value worked by hand, merged without loss, whatever the lists come in."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.histories import ItemIds, Ragged
from genrec.metrics.items import ItemCounts

LISTS = [[1, 2, 3], [1, 4, 2], [5, 1, 6]]
POPULARITY = [99, 8, 4, 2, 1, 1, 0, 0]  # of no item, then of items 1..7


def counted(lists: Any, ks: list[int], items: int | ItemIds = 7) -> ItemCounts:
    counts = ItemCounts(ks, items)
    counts.update(lists)
    return counts


def as_tensor(lists: list[list[int]]) -> Any:
    return pytest.importorskip("torch").tensor(lists)


# --- the definitions, by hand


def test_coverage_is_the_share_of_the_catalogue_among_the_best_k() -> None:
    found = counted(LISTS, [1, 2, 3]).compute()
    assert [found["coverage@1"], found["coverage@2"], found["coverage@3"]] == [2 / 7, 4 / 7, 6 / 7]


def test_gini_is_0_where_all_items_are_recommended_alike() -> None:
    assert counted([[1, 2], [3, 4]], [2], items=4).compute()["gini@2"] == 0.0


def test_gini_approaches_1_where_one_item_is_all_that_is_recommended() -> None:
    assert counted([[5], [5], [5]], [1]).compute()["gini@1"] == 6 / 7


def test_gini_counts_items_that_are_never_recommended() -> None:
    # counts 0, 1, 1, 1, 1, 2, 3 of n = 9, their weights 2 i - 7 - 1 from -6 up to 6
    expected = (-6 * 0 + -4 * 1 + -2 * 1 + 0 * 1 + 2 * 1 + 4 * 2 + 6 * 3) / (7 * 9)
    assert counted(LISTS, [3]).compute()["gini@3"] == expected


def test_gini_is_half_the_mean_difference_of_two_items_over_the_mean() -> None:
    counts = [0, 1, 1, 1, 1, 2, 3]
    difference = sum(abs(a - b) for a in counts for b in counts) / 7**2
    expected = difference / (2 * sum(counts) / 7)
    assert counted(LISTS, [3]).compute()["gini@3"] == pytest.approx(expected, rel=1e-15)  # rounding of the divisions


def test_entropy_is_in_bits() -> None:
    assert counted([[1, 2], [3, 4]], [2]).compute()["entropy@2"] == math.log2(4)
    assert counted([[1, 2], [1, 3]], [2]).compute()["entropy@2"] == 1 / 2 * 1 + 1 / 4 * 2 + 1 / 4 * 2


def test_entropy_of_one_item_alone_is_a_plain_zero() -> None:
    assert str(counted([[5], [5]], [1]).compute()["entropy@1"]) == "0.0"


def test_average_popularity_is_a_mean_over_places_not_over_users() -> None:
    found = counted([[1, 2, 3], [4]], [3]).compute(POPULARITY)
    assert found["average_popularity@3"] == (8 + 4 + 2 + 1) / 4


def test_novelty_is_the_mean_information_of_an_items_share() -> None:
    found = counted([[1, 2], [1, 3]], [2]).compute(POPULARITY)  # shares of 16: 1/2, 1/4, 1/2, 1/8
    assert found["novelty@2"] == (1 + 2 + 1 + 3) / 4


def test_novelty_takes_an_unseen_item_as_seen_once() -> None:
    popularity = np.array(POPULARITY)
    assert popularity[[4, 6]].tolist() == [1, 0]
    seen_once = counted([[4]], [1]).compute(popularity)["novelty@1"]
    assert counted([[6]], [1]).compute(popularity)["novelty@1"] == seen_once == math.log2(16)


def test_all_cut_offs_of_one_metric_come_before_the_next() -> None:
    names = ["coverage", "gini", "entropy"]
    assert [*counted(LISTS, [2, 1]).compute()] == [f"{name}@{k}" for name in names for k in (2, 1)]
    names += ["average_popularity", "novelty"]
    assert [*counted(LISTS, [2, 1]).compute(POPULARITY)] == [f"{name}@{k}" for name in names for k in (2, 1)]


def test_nothing_recommended_gives_zeros() -> None:
    assert set(ItemCounts([1, 5], 7).compute(POPULARITY).values()) == {0.0}
    assert set(counted([[], [0]], [5]).compute(POPULARITY).values()) == {0.0}
    assert set(counted(LISTS, [0]).compute(POPULARITY).values()) == {0.0}


# --- places, lists and ids


def test_places_beyond_a_list_do_not_count() -> None:
    ragged = counted([[1, 2, 3], [4], []], [1, 3])
    padded = counted(np.array([[1, 2, 3], [4, 0, 0], [0, 0, 0]]), [1, 3])
    assert ragged.state().tolist() == counted([[1, 2, 3], [4]], [1, 3]).state().tolist()
    assert padded.compute(POPULARITY) == ragged.compute(POPULARITY)


def test_a_repeated_item_counts_at_each_of_its_places() -> None:
    assert counted([[1, 1, 2, 2]], [4]).compute()["entropy@4"] == 1.0
    assert counted([[1, 1, 1, 2]], [4, 4]).compute()["gini@4"] == (4 * 1 + 6 * 3) / (7 * 4)


@pytest.mark.parametrize(
    "form",
    [
        list,
        lambda lists: tuple(map(tuple, lists)),
        np.array,
        lambda lists: np.array(lists, dtype=np.uint8),
        lambda lists: [np.array(row, dtype=np.int32) for row in lists],
        lambda lists: (row for row in lists),
        Ragged.from_rows,
        as_tensor,
    ],
    ids=["lists", "tuples", "array", "bytes", "arrays", "generator", "ragged", "tensor"],
)
def test_any_array_like_gives_one_answer(form: Callable[[list[list[int]]], Any]) -> None:
    found = counted(form(LISTS), [1, 3]).compute(POPULARITY)
    assert found == counted(LISTS, [1, 3]).compute(POPULARITY)
    assert found["coverage@3"] == 6 / 7


@pytest.mark.parametrize("raw", [["c", "a", "e", "b", "d"], [30, 10, 50, 20, 40]], ids=["texts", "numbers"])
def test_raw_ids_count_as_their_numbers(raw: list[Any]) -> None:
    ids = ItemIds(raw)
    named = [ids.raw(row) for row in LISTS[:2]]
    assert counted(named, [1, 3], ids).state().tolist() == counted(LISTS[:2], [1, 3], len(raw)).state().tolist()
    assert counted(np.array(named), [3], ids).compute()["coverage@3"] == 4 / 5


@pytest.mark.parametrize("num_items", [7, 5_000], ids=["few items", "many items"])
def test_counts_are_those_of_each_item_among_the_best_k(num_items: int) -> None:
    lists = np.random.default_rng(0).integers(1, num_items + 1, size=(50, 6))
    counts = counted(lists, [2, 5], num_items)  # more places than items, then far fewer
    for k in (2, 5):
        times = Counter(lists[:, :k].ravel().tolist())
        found = counts.compute()
        assert found[f"coverage@{k}"] == len(times) / num_items
        expected = -math.fsum(c / (50 * k) * math.log2(c / (50 * k)) for c in times.values())
        assert found[f"entropy@{k}"] == pytest.approx(expected, rel=1e-12)  # the order of the sum


# --- merging


@given(st.lists(st.lists(st.integers(0, 7), max_size=6), max_size=12), st.integers(0, 12))
def test_merging_equals_one_pass_exactly(lists: list[list[int]], cut: int) -> None:
    whole, left, right = counted(lists, [1, 4]), counted(lists[:cut], [1, 4]), counted(lists[cut:], [1, 4])
    summed = ItemCounts.from_state([4, 1], 7, left.state() + right.state())
    left.merge(right)
    assert left.compute(POPULARITY) == summed.compute(POPULARITY) == whole.compute(POPULARITY)


def test_a_state_is_a_copy() -> None:
    counts = counted(LISTS, [3])
    counts.state()[:] = 0
    assert counts.compute()["coverage@3"] == 6 / 7


# --- misuse


@pytest.mark.parametrize(
    ("ks", "items", "complaint"),
    [
        ([], 7, r"ks \(\[\]\) must hold at least one cut-off"),
        ([5, -1], 7, r"ks \(\[5, -1\]\) must hold at least one cut-off, and none below 0"),
        ([5], 0, r"items \(0\) must be at least 1"),
    ],
)
def test_wrong_settings_are_refused(ks: list[int], items: int, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        ItemCounts(ks, items)


@pytest.mark.parametrize(
    ("lists", "error", "complaint"),
    [
        ([[1, 8]], ValueError, "item numbers must lie in 1..7, or be 0 for none, got 1 to 8"),
        (np.array([[1, -1]]), ValueError, "got -1 to 1"),
        (np.array([[1, 2**64 - 1]], dtype=np.uint64), ValueError, "got 1 to 18446744073709551615"),
        ([["a"]], TypeError, "lists must hold item numbers 1..7, or 0 for none"),
        ([[1.0]], TypeError, "not float64"),
        ([{1, 2}], TypeError, "a set has no order"),
        ([3], TypeError, "must be a list of ids, got 3"),
    ],
)
def test_lists_that_do_not_fit_are_refused_and_not_counted(lists: Any, error: type[Exception], complaint: str) -> None:
    counts = ItemCounts([5], 7)
    with pytest.raises(error, match=complaint):
        counts.update(lists)
    assert not counts.state().any()


def test_a_raw_id_outside_the_catalogue_is_refused() -> None:
    with pytest.raises(ValueError, match="item id 'x' is not in the catalogue"):
        counted([["a"], ["b", "x"]], [5], ItemIds(["a", "b"]))


@pytest.mark.parametrize(
    ("popularity", "complaint"),
    [
        ([1, 2, 3], r"popularity must be of shape \(8,\), an entry for none and one an item, not \(3,\)"),
        ([0, 1, 1, 1, 1, 1, 1, -1], "popularity must be finite counts, not negative"),
        ([0, 1, 1, 1, 1, 1, 1, math.inf], "popularity must be finite"),
        ([5, 0, 0, 0, 0, 0, 0, 0], "not 0 for all items"),
    ],
)
def test_a_popularity_that_does_not_fit_is_refused(popularity: list[float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        counted(LISTS, [3]).compute(popularity)


def test_counts_of_others_are_refused() -> None:
    counts = ItemCounts([5], 7)
    with pytest.raises(ValueError, match=r"cannot merge counts at \[5\] of 8 items into counts at \[5\] of 7 items"):
        counts.merge(ItemCounts([5], 8))
    with pytest.raises(ValueError, match=r"cannot merge counts at \[6\] of 7 items"):
        counts.merge(ItemCounts([6], 7))
    with pytest.raises(ValueError, match=r"1 cut-offs and 7 items must be of shape \(1, 8\), not \(2, 8\)"):
        ItemCounts.from_state([5], 7, np.zeros((2, 8), np.int64))
    with pytest.raises(TypeError, match="state must hold int64, not float64"):
        ItemCounts.from_state([5], 7, np.zeros((1, 8)))  # type: ignore[arg-type]  # what it is about

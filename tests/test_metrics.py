"""RecommendationMetrics: definitions worked by hand, and the mends of the reference."""

import inspect
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.metrics import RecommendationMetrics, overlaps

Metric = Callable[..., float]
recall = RecommendationMetrics.recall_at_k
precision = RecommendationMetrics.precision_at_k
ndcg = RecommendationMetrics.ndcg_at_k
hit_rate = RecommendationMetrics.hit_rate_at_k
coverage = RecommendationMetrics.coverage
diversity = RecommendationMetrics.diversity
AT_K: list[Metric] = [recall, precision, ndcg, hit_rate]

PREDICTIONS = [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]
TARGETS = [[1, 3, 5], [7, 9]]


def gain(*ranks: int) -> float:
    return sum(1 / math.log2(rank + 1) for rank in ranks)


def naive_diversity(lists: list[list[int]]) -> float:
    pairs = [(set(a), set(b)) for a, b in itertools.combinations(lists, 2) if a or b]
    return sum(1 - len(a & b) / len(a | b) for a, b in pairs) / len(pairs) if pairs else 0.0


# --- the definitions, by hand


def test_the_documented_example() -> None:
    assert recall(PREDICTIONS, TARGETS, 5) == (3 / 3 + 2 / 2) / 2
    assert precision(PREDICTIONS, TARGETS, 5) == (3 / 5 + 2 / 5) / 2
    expected = (gain(1, 3, 5) / gain(1, 2, 3) + gain(2, 4) / gain(1, 2)) / 2
    assert ndcg(PREDICTIONS, TARGETS, 5) == pytest.approx(expected, rel=1e-15)
    assert hit_rate(PREDICTIONS, TARGETS, 5) == 1.0


def test_only_the_best_k_count() -> None:
    assert recall(PREDICTIONS, TARGETS, 2) == (1 / 3 + 1 / 2) / 2
    assert precision(PREDICTIONS, TARGETS, 2) == (1 / 2 + 1 / 2) / 2
    assert ndcg(PREDICTIONS, TARGETS, 2) == pytest.approx((gain(1) / gain(1, 2) + gain(2) / gain(1, 2)) / 2, rel=1e-15)
    assert hit_rate(PREDICTIONS, TARGETS, 1) == 1 / 2


def test_short_lists_are_divided_by_k_in_precision_and_by_their_ideal_in_ndcg() -> None:
    assert precision([[4]], [[4]], k=5) == 1 / 5
    assert ndcg([[4]], [[4, 8]], k=5) == pytest.approx(gain(1) / gain(1, 2), rel=1e-15)
    assert ndcg([[4]], [[4, 8]], k=1) == 1.0


def test_users_without_targets_are_left_out_except_in_precision() -> None:
    predictions, targets = [[1, 2], [3, 4]], [[1], []]
    assert recall(predictions, targets, 2) == 1 / 1
    assert ndcg(predictions, targets, 2) == 1 / 1
    assert hit_rate(predictions, targets, 2) == 1 / 1
    assert precision(predictions, targets, 2) == (1 / 2 + 0 / 2) / 2


@pytest.mark.parametrize("metric", AT_K)
@pytest.mark.parametrize(
    ("predictions", "targets", "k"), [([], [], 3), ([[]], [[1]], 3), ([[1]], [[]], 3), ([[1]], [[1]], 0)]
)
def test_nothing_to_count_gives_zero(metric: Metric, predictions: Any, targets: Any, k: int) -> None:
    result = metric(predictions, targets, k)
    assert result == 0.0
    assert type(result) is float


@pytest.mark.parametrize("metric", AT_K)
def test_the_reference_s_argument_names_are_kept(metric: Metric) -> None:
    assert list(inspect.signature(metric).parameters) == ["predictions", "targets", "k"]
    assert metric(predictions=[[1]], targets=[[1]], k=1) == 1.0


def test_coverage_counts_distinct_items_and_is_not_cut_off() -> None:
    assert coverage([[1, 2, 2], [2, 3]], total_items=6) == 3 / 6
    assert coverage([[1, 2], [3]], total_items=2) == 3 / 2
    assert coverage([], total_items=2) == 0 / 2


@pytest.mark.parametrize(
    ("ids", "dtype"),
    [([-128, 127, 127, 0], np.int8), ([-(2**63), 2**63 - 1, 0, 0], np.int64), ([2**64 - 1, 0, 0, 7], np.uint64)],
)
def test_coverage_of_arrays_takes_numbers_however_far_apart(ids: list[int], dtype: type) -> None:
    assert coverage(np.array([ids, ids], dtype=dtype), total_items=4) == 3 / 4


def test_diversity_is_the_mean_jaccard_distance() -> None:
    assert diversity([[1, 2], [2, 3], [4]]) == pytest.approx(((1 - 1 / 3) + 1 + 1) / 3, rel=1e-15)
    assert diversity([[1, 2], [2, 1]]) == 0.0
    assert diversity([[1, 1, 2], [1]]) == pytest.approx(1 - 1 / 2, rel=1e-15)


def test_diversity_leaves_out_pairs_of_empty_lists() -> None:
    assert diversity([[], []]) == 0.0
    assert diversity([[], [], [5]]) == (1 + 1) / 2
    assert diversity([[5]]) == 0.0
    assert diversity([]) == 0.0


lists_of_few = st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=7)


@given(st.data(), lists_of_few, st.integers(1, 8))
def test_metrics_equal_their_formulas(data: st.DataObject, predictions: list[list[int]], k: int) -> None:
    size = len(predictions)
    targets = data.draw(st.lists(st.lists(st.integers(0, 9), max_size=5), min_size=size, max_size=size))
    rows: list[tuple[float, ...]] = []
    precisions = []
    for top, relevant in zip(predictions, map(set, targets), strict=True):
        first_places = [i + 1 for i, one in enumerate(top[:k]) if one in relevant and one not in top[:i]]
        precisions.append(len(first_places) / k)
        if relevant:
            ideal = gain(*range(1, min(len(relevant), k) + 1))
            rows.append((len(first_places) / len(relevant), gain(*first_places) / ideal, float(bool(first_places))))
    means = [float(np.mean(column)) for column in zip(*rows, strict=True)] or [0.0] * 3
    ours = [metric(predictions, targets, k) for metric in (recall, ndcg, hit_rate, precision)]
    np.testing.assert_allclose(ours, [*means, float(np.mean(precisions)) if precisions else 0.0], rtol=1e-12)
    assert all(0 <= one <= 1 for one in ours)


# --- mends of the reference


def test_mend_19_a_repeated_prediction_gains_once_at_its_first_place() -> None:
    assert ndcg([[7, 7, 7]], [[7]], k=3) == 1.0
    assert ndcg([[3, 7, 7]], [[7]], k=3) == pytest.approx(gain(2) / gain(1), rel=1e-15)
    assert ndcg([[7, 7, 3]], [[7, 3]], k=3) == pytest.approx(gain(1, 3) / gain(1, 2), rel=1e-15)


def test_mend_19_a_repeated_target_counts_once() -> None:
    assert ndcg([[7, 3]], [[7, 7]], k=2) == 1.0
    assert recall([[7, 3]], [[7, 7]], k=2) == 1 / 1
    assert precision([[7, 3]], [[7, 7]], k=2) == 1 / 2


def as_tensor(rows: list[list[int]]) -> Any:
    return pytest.importorskip("torch").tensor(rows)


@pytest.mark.parametrize(
    "form",
    [
        np.array,
        lambda rows: np.array(rows, dtype=np.uint8),
        lambda rows: np.array(rows, dtype=">i4"),
        lambda rows: np.array(rows, dtype=object),
        lambda rows: np.asfortranarray(rows)[:, ::1],
        lambda rows: [np.array(row) for row in rows],
        lambda rows: [[np.int32(one) for one in row] for row in rows],
        lambda rows: tuple(tuple(row) for row in rows),
        lambda rows: iter(rows),
        as_tensor,
        lambda rows: list(as_tensor(rows)),
        lambda rows: [list(row) for row in as_tensor(rows)],
    ],
    ids=[
        "array",
        "uint8",
        "big-endian",
        "objects",
        "Fortran order",
        "arrays in a list",
        "numpy scalars in lists",
        "tuples",
        "iterator",
        "tensor",
        "tensors in a list",
        "scalar tensors in lists",
    ],
)
def test_mend_20_any_array_like_gives_what_lists_give(form: Callable[[list[list[int]]], Any]) -> None:
    predictions, targets = [[1, 2, 3], [6, 7, 8]], [[1, 3], [7, 9]]
    for metric in AT_K:
        expected = metric(predictions, targets, 2)
        assert expected > 0
        assert metric(form(predictions), form(targets), 2) == expected
        assert metric(form(predictions), targets, 2) == expected
        assert metric(predictions, form(targets), 2) == expected
    assert coverage(form(predictions), 12) == 6 / 12
    assert diversity(form([[1, 2], [1, 3]])) == 1 - 1 / 3


@pytest.mark.parametrize("ids", [["a", "b", "c"], [2**53, 2**53 + 1, 2**53 + 2], [-1, 2**64, 0], [(1, 2), None, "x"]])
def test_mend_20_ids_are_any_hashable_and_never_cast(ids: list[Any]) -> None:
    assert recall([[ids[0], ids[1]]], [[ids[1], ids[2]]], 2) == 1 / 2
    assert coverage([ids, ids], 3) == 1.0


def test_mend_20_wide_integers_of_different_signs_do_not_meet_as_floats() -> None:
    unsigned, signed = np.array([[2**53 + 1]], dtype=np.uint64), np.array([[2**53]], dtype=np.int64)
    assert recall(unsigned, signed, 1) == 0.0
    assert recall(unsigned, [[2**53 + 1]], 1) == 1.0


@pytest.mark.parametrize("metric", AT_K)
def test_mend_21_different_lengths_are_refused(metric: Metric) -> None:
    with pytest.raises(ValueError, match="predictions are of 2 users but targets of 1"):
        metric([[1], [2]], [[1]], 1)


@pytest.mark.parametrize("metric", AT_K)
def test_mend_21_a_k_below_zero_or_not_whole_is_refused(metric: Metric) -> None:
    with pytest.raises(ValueError, match=r"k \(-1\) must not be negative"):
        metric([[1]], [[1]], -1)
    with pytest.raises(TypeError, match="float"):
        metric([[1]], [[1]], 2.0)
    assert metric([[1]], [[1]], np.int64(1)) == 1.0


@pytest.mark.parametrize("total_items", [0, -3])
def test_mend_22_coverage_needs_a_catalogue(total_items: int) -> None:
    with pytest.raises(ValueError, match=rf"total_items \({total_items}\) must be at least 1"):
        coverage([[1]], total_items)


def test_mend_23_diversity_is_exact_at_thousands_of_lists() -> None:
    half = 1500  # pairs of one half are equal, pairs across share nothing: half * half of all pairs have distance 1
    lists = [[1, 2, 3]] * half + [[4, 5]] * half
    assert diversity(lists) == pytest.approx(half * half / math.comb(2 * half, 2), rel=1e-12)


def test_mend_23_diversity_with_common_and_rare_items_equals_the_formula() -> None:
    rng = np.random.default_rng(0)
    odds = 1 / np.arange(1, 41)
    lists = [rng.choice(40, rng.integers(0, 9), p=odds / odds.sum()).tolist() for _ in range(230)]
    assert 1 <= overlaps.Overlaps([set(row) for row in lists]).common < 40  # both ways of counting are taken
    assert diversity(lists) == pytest.approx(naive_diversity(lists), rel=1e-12)


@given(lists_of_few, st.integers(1, 8))
def test_mend_23_diversity_equals_the_formula_in_blocks_of_any_size(lists: list[list[int]], height: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlaps, "_PAIRS_A_BLOCK", 1)
        patch.setattr(overlaps, "_LISTS_A_BLOCK", height)
        assert diversity(lists) == pytest.approx(naive_diversity(lists), rel=1e-12)


# --- what is refused


@pytest.mark.parametrize("metric", [*AT_K, lambda predictions, _targets, _k: diversity(predictions)])
def test_rows_that_are_no_lists_are_refused(metric: Metric) -> None:
    with pytest.raises(TypeError, match=r"predictions\[1\] must be a list of ids, got 7"):
        metric([[1], 7], [[1], [1]], 1)
    with pytest.raises(TypeError, match=r"predictions\[0\] must be a list of ids, got 'abc'"):
        metric(["abc"], [["a"]], 1)
    with pytest.raises(ValueError, match=r"predictions must have two axes, users and places, not shape \(3,\)"):
        metric(np.arange(3), [[1]] * 3, 1)
    with pytest.raises(ValueError, match=r"predictions\[0\] must have one axis, not shape \(1, 2\)"):
        metric([np.ones((1, 2))], [[1]], 1)


def test_a_set_is_a_list_of_targets_but_no_ranking() -> None:
    assert recall([[1, 2]], [{1, 2}], 1) == 1 / 2
    assert diversity([{1}, {2}]) == 1.0
    with pytest.raises(TypeError, match=r"predictions\[0\] must go from best to worst, but a set has no order"):
        recall([{1, 2}], [[1]], 1)

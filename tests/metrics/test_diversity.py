"""Jaccard diversity, exact and sampled, personalization and intra-list diversity, against loops over all pairs."""

import itertools
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.histories import Ragged
from genrec.metrics import overlaps
from genrec.metrics.diversity import diversity_sample, intra_list_diversity, jaccard_diversity, personalization

Metric = Callable[..., float]
ROUNDING = 1e-12  # of sums over some thousand pairs, in another order
LISTS_OF_IDS = st.lists(st.lists(st.integers(0, 6), max_size=5), max_size=12)
VECTORS = np.array([[9, 9], [1, 0], [0, 1], [3, 0], [1, 1], [-2, 0], [0, 0]], dtype=np.float64)


def distances(lists: Sequence[Sequence[Hashable]]) -> list[float]:
    pairs = [(set(a), set(b)) for a, b in itertools.combinations(lists, 2) if a or b]
    return [1 - len(a & b) / len(a | b) for a, b in pairs]


def cosine_distances(lists: Sequence[Sequence[Hashable]]) -> list[float]:
    pairs = [(set(a), set(b)) for a, b in itertools.combinations(lists, 2) if a or b]
    return [1 - len(a & b) / math.sqrt(len(a) * len(b)) if a and b else 1.0 for a, b in pairs]


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def skewed(lists: int, places: int, items: int, seed: int = 0) -> list[list[int]]:
    """Lists of different lengths in which item 0 is the most common."""
    rng = np.random.default_rng(seed)
    return [
        (items * rng.random(length) ** 3).astype(int).tolist() for length in rng.integers(0, places + 1, size=lists)
    ]


def as_tensor(lists: list[list[int]]) -> Any:
    return pytest.importorskip("torch").tensor(lists)


def cut_from_more(lists: list[list[int]]) -> Ragged:
    whole = Ragged.from_rows([[6, 6, 1], *lists, [6]])
    return Ragged(whole.values, whole.offsets[1:-1])


# --- exact Jaccard diversity


def test_diversity_is_the_mean_jaccard_distance() -> None:
    assert jaccard_diversity([[1, 2], [2, 3], [4]]) == pytest.approx(((1 - 1 / 3) + 1 + 1) / 3, rel=1e-15)
    assert jaccard_diversity([[1, 2], [2, 1]]) == 0.0
    assert jaccard_diversity([[1, 1, 2], [1]]) == 1 - 1 / 2


@given(LISTS_OF_IDS, st.integers(1, 7), st.integers(1, 30))
def test_diversity_equals_the_formula_in_blocks_of_any_size(lists: list[list[int]], height: int, pairs: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlaps, "_LISTS_A_BLOCK", height)
        patch.setattr(overlaps, "_PAIRS_A_BLOCK", pairs)
        assert jaccard_diversity(lists) == pytest.approx(mean(distances(lists)), rel=ROUNDING)


def test_diversity_with_common_and_rare_items_equals_the_formula() -> None:
    lists = skewed(lists=160, places=9, items=40)
    assert 1 <= overlaps.Overlaps(lists).common < 40  # both ways of counting are taken
    assert jaccard_diversity(lists) == pytest.approx(mean(distances(lists)), rel=ROUNDING)


@pytest.mark.parametrize(
    "ids",
    [
        [10**15 * i for i in range(9)],
        [2**64 - 1 - i for i in range(9)],
        [-(2**63) + i for i in range(9)],
        [f"item {i}" for i in range(9)],
        [(i, str(i)) for i in range(9)],
        [2**70 + i for i in range(9)],
        [i / 8 for i in range(9)],
    ],
    ids=["sparse", "unsigned", "lowest", "texts", "tuples", "beyond 64 bits", "floats"],
)
def test_ids_of_any_kind_and_width_are_told_apart(ids: list[Hashable]) -> None:
    lists = [[ids[0], ids[1]], [ids[1], ids[2], ids[8]], [ids[3]], [ids[3], ids[0]], []]
    for metric, expected in ((jaccard_diversity, distances(lists)), (personalization, cosine_distances(lists))):
        assert metric(lists) == pytest.approx(mean(expected), rel=ROUNDING)


@pytest.mark.parametrize("dtype", [np.int8, np.uint64, np.int64])
def test_arrays_of_the_widest_range_are_told_apart(dtype: type) -> None:
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    lists = [[low, high], [high, low + 1], [high - 1, low]]
    assert jaccard_diversity(np.array(lists, dtype=dtype)) == pytest.approx((2 / 3 + 2 / 3 + 1) / 3, rel=1e-15)


def test_ids_too_far_apart_to_be_numbered_with_their_list_are_told_apart() -> None:
    assert jaccard_diversity([[0], [2**62], [0], [1]]) == 1 - 1 / 6  # 4 lists: 4 * 2**62 is beyond 64 bits


# --- sampled


@pytest.mark.parametrize("form", [list, Ragged.from_rows], ids=["lists", "ragged"])
def test_the_standard_error_of_a_sample_holds(form: Callable[[list[list[int]]], Any]) -> None:
    lists = skewed(lists=60, places=8, items=12)
    exact, sample, seeds = mean(distances(lists)), 200, 400
    found = [diversity_sample(form(lists), sample, seed) for seed in range(seeds)]

    true_error = float(np.std(distances(lists))) / math.sqrt(sample)
    mean_of_seeds = mean([one.value for one in found])
    # over the seeds: a mean is within 4 of its standard errors but once in 16,000 draws of the seeds
    assert mean_of_seeds == pytest.approx(exact, abs=4 * true_error / math.sqrt(seeds))
    # a standard deviation of n near normal draws is within 4 / sqrt(2 n) of the true one, as often
    assert np.std([one.value for one in found]) == pytest.approx(true_error, rel=4 / math.sqrt(2 * seeds))
    assert np.mean([one.standard_error for one in found]) == pytest.approx(true_error, rel=0.05)
    # 1.96 errors hold the exact value for 95 % of the seeds, and the count of those is binomial
    inside = sum(abs(one.value - exact) <= 1.96 * one.standard_error for one in found)
    assert inside / seeds == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / seeds))


def test_the_standard_error_of_two_draws_is_half_their_difference() -> None:
    lists = [[7, 3], [3, 5], [8, 9]]  # at distances 2/3, 1 and 1
    found = {diversity_sample(lists, sample=2, seed=seed) for seed in range(50)}
    assert sorted(found) == [
        pytest.approx((2 / 3, 0), abs=1e-15),
        pytest.approx(((1 + 2 / 3) / 2, (1 - 2 / 3) / 2), rel=1e-12),
        (1, 0),
    ]


def test_pairs_with_one_empty_list_are_drawn_as_often_as_others() -> None:
    lists = [[1, 2]] * 4 + [[]] * 5  # 6 pairs at distance 0, 20 at 1, 10 without
    found = [diversity_sample(lists, sample=25, seed=seed).value for seed in range(400)]
    error = math.sqrt(20 / 26 * 6 / 26 / (25 * 400))
    assert mean(found) == pytest.approx(20 / 26, abs=4 * error)


def test_no_list_is_paired_with_itself() -> None:
    lists = [[i] for i in range(5)]
    assert diversity_sample(lists, sample=9) == (1.0, 0.0)


def test_one_list_beside_empty_ones_is_at_distance_1() -> None:
    assert diversity_sample([[1], *[[]] * 6], sample=3) == (1.0, 0.0)


def test_a_sample_of_all_pairs_or_more_is_exact() -> None:
    lists = skewed(lists=20, places=6, items=9)
    pairs = len(distances(lists))
    exact = jaccard_diversity(lists)
    assert diversity_sample(lists, sample=pairs) == diversity_sample(lists, sample=10 * pairs) == (exact, 0.0)
    assert diversity_sample(lists, sample=pairs - 1).standard_error > 0


def test_a_seed_draws_the_same_pairs_again() -> None:
    lists = skewed(lists=60, places=8, items=12)
    first = diversity_sample(lists, sample=50, seed=3)
    assert first == diversity_sample(lists, sample=50, seed=3) != diversity_sample(lists, sample=50, seed=4)
    assert jaccard_diversity(lists, sample=50, seed=3) == first.value


@pytest.mark.parametrize("sample", [1, 0, -5])
def test_too_small_a_sample_is_refused(sample: int) -> None:
    with pytest.raises(ValueError, match=rf"sample \({sample}\) must be at least 2 pairs, or None for all"):
        jaccard_diversity([[1], [2]], sample=sample)


# --- personalization


def test_personalization_is_not_jaccard_diversity() -> None:
    half_shared = [[1, 2], [2, 3]]
    assert personalization(half_shared) == pytest.approx(1 / 2, rel=1e-15)
    assert jaccard_diversity(half_shared) == 1 - 1 / 3


@given(LISTS_OF_IDS)
def test_personalization_equals_the_mean_over_all_pairs(lists: list[list[int]]) -> None:
    assert personalization(lists) == pytest.approx(mean(cosine_distances(lists)), rel=ROUNDING, abs=1e-15)


def test_personalization_stays_within_its_bounds() -> None:
    for size in range(1, 60):  # rounding would lead beyond them
        lists = [list(range(size))] * 7
        assert 0 <= personalization(lists) < ROUNDING
        assert personalization([[place * 100 + i for i in range(size)] for place in range(7)]) == pytest.approx(1.0)


# --- of users' lists, whatever they come in


@pytest.mark.parametrize("metric", [jaccard_diversity, personalization])
def test_pairs_of_empty_lists_are_left_out(metric: Metric) -> None:
    assert metric([]) == metric([[5]]) == metric([[], []]) == 0.0
    assert metric([[], [], [5]]) == (1 + 1) / 2
    assert metric(np.zeros((3, 0), dtype=np.int64)) == 0.0


@pytest.mark.parametrize(
    "form",
    [
        lambda lists: tuple(map(tuple, lists)),
        np.array,
        lambda lists: np.array(lists, dtype=np.uint8),
        lambda lists: [np.array(row, dtype=np.int32) for row in lists],
        lambda lists: (row for row in lists),
        lambda lists: [set(row) for row in lists],
        Ragged.from_rows,
        cut_from_more,
        as_tensor,
    ],
    ids=["tuples", "array", "bytes", "arrays", "generator", "sets", "ragged", "part of a ragged", "tensor"],
)
def test_any_array_like_gives_one_answer(form: Callable[[list[list[int]]], Any]) -> None:
    lists = [[1, 2, 3], [3, 4, 5], [5, 1, 3], [4, 2, 2]]
    assert jaccard_diversity(form(lists)) == jaccard_diversity(lists)
    assert jaccard_diversity(form(lists), sample=4) == jaccard_diversity(lists, sample=4)
    assert personalization(form(lists)) == personalization(lists)
    assert intra_list_diversity(form(lists), VECTORS) == intra_list_diversity(lists, VECTORS)


@pytest.mark.parametrize("metric", [jaccard_diversity, personalization])
def test_what_is_no_list_of_lists_is_refused(metric: Metric) -> None:
    with pytest.raises(TypeError, match=r"lists\[0\] must be a list of ids, got 1"):
        metric([1, 2])
    with pytest.raises(ValueError, match=r"lists must have two axes, users and places, not shape \(2,\)"):
        metric(np.array([1, 2]))


# --- intra-list diversity


def naive_intra_list(lists: list[list[int]]) -> float:
    def distance(one: int, other: int) -> float:
        lengths = math.hypot(*VECTORS[one]) * math.hypot(*VECTORS[other])
        return 1 - float(VECTORS[one] @ VECTORS[other]) / lengths if lengths else 1.0

    rows = [sorted(set(row) - {0}) for row in lists]
    return mean([mean(list(itertools.starmap(distance, itertools.combinations(row, 2)))) for row in rows if row[1:]])


def test_intra_list_diversity_by_hand() -> None:
    right_angle, half_right_angle = 1, 1 - 1 / math.sqrt(2)
    expected = (right_angle + 2 * half_right_angle) / 3  # items 1, 2 and 4
    assert intra_list_diversity([[1, 2, 4]], VECTORS) == pytest.approx(expected, rel=1e-15)
    assert intra_list_diversity([[1, 3]], VECTORS) == 0.0
    assert intra_list_diversity([[1, 5]], VECTORS) == 2.0


@given(LISTS_OF_IDS, st.integers(1, 40))
def test_intra_list_diversity_equals_the_loop_in_blocks_of_any_size(lists: list[list[int]], numbers: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("genrec.metrics.diversity._NUMBERS_A_BLOCK", numbers)
        assert intra_list_diversity(lists, VECTORS) == pytest.approx(naive_intra_list(lists), rel=ROUNDING, abs=1e-15)


def test_a_zero_vector_is_at_distance_1() -> None:
    assert intra_list_diversity([[1, 6]], VECTORS) == 1.0


def test_equal_vectors_are_at_no_negative_distance() -> None:
    for vector in np.random.default_rng(0).normal(size=(50, 7)):  # rounding would lead below 0
        assert 0 <= intra_list_diversity([[1, 2, 3]], [vector] * 4) < ROUNDING


def test_lists_without_a_pair_are_left_out_of_the_mean_over_users() -> None:
    assert intra_list_diversity([[1, 2], [1], [], [3, 3], [2, 0]], VECTORS) == 1.0
    assert intra_list_diversity([[1], []], VECTORS) == 0.0


def test_vectors_of_single_precision_are_compared_in_double() -> None:
    rng = np.random.default_rng(0)
    vectors, lists = rng.normal(size=(11, 7)).astype(np.float32), rng.integers(1, 11, size=(30, 5))
    exact = intra_list_diversity(lists, vectors.astype(np.float64))
    assert intra_list_diversity(lists, vectors) == pytest.approx(exact, rel=ROUNDING)
    whole = np.array([[0, 0], [3, 4], [4, -3]])
    assert intra_list_diversity([[1, 2]], whole) == intra_list_diversity([[1, 2]], whole.tolist()) == 1.0


@pytest.mark.parametrize(
    ("vectors", "complaint"),
    [
        (np.zeros(3), r"item_vectors must be \(V \+ 1, D\), not of shape \(3,\)"),
        (np.zeros((0, 3)), r"not of shape \(0, 3\)"),
        (np.full((3, 2), math.inf), "item_vectors must be finite"),
        (VECTORS[:2], "item numbers must lie in 1..1, or be 0 for none, got 1 to 2"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(vectors: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        intra_list_diversity([[1, 2]], vectors)

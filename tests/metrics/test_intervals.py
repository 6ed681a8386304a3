"""Intervals and tests over users: held against formulas, against every outcome counted out, and by simulation."""

import math
from itertools import product
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from genrec.metrics import intervals
from genrec.metrics.intervals import bootstrap_interval, holm, paired_difference, sign_flip_test

Floats = NDArray[np.float64]


def ranked_values(users: int, seed: int, k: int = 10) -> Floats:
    """(2, U): recall and NDCG of targets at random ranks, as of one trained model."""
    ranks = np.random.default_rng(seed).geometric(0.07, users)
    return np.stack([ranks <= k, np.where(ranks <= k, 1 / np.log2(ranks + 1), 0)])


def bounds(share: float, trials: int, errors: float = 4) -> tuple[float, float]:
    """Where a share of independent trials lies but once in 16,000 times."""
    error = errors * math.sqrt(share * (1 - share) / trials)
    return share - error, share + error


# --- the bootstrap


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_an_interval_of_many_users_is_that_of_the_normal_formula(confidence: float) -> None:
    values = ranked_values(users=20_000, seed=1)
    low, high = bootstrap_interval(values, confidence)
    half = NormalDist().inv_cdf((1 + confidence) / 2) * values.std(axis=1) / math.sqrt(20_000)
    # the ends of 10,000 draws waver by some 2% of the half width, and skewness moves them by less at this size
    np.testing.assert_allclose(high - values.mean(axis=1), half, rtol=0.06)
    np.testing.assert_allclose(values.mean(axis=1) - low, half, rtol=0.06)


def test_three_users_give_the_interval_of_all_their_draws() -> None:
    values = np.array([0.0, 0.3, 1.0])
    means = np.array([np.mean(draw) for draw in product(values, repeat=3)])  # 27 equally likely draws
    low, high = bootstrap_interval(values, confidence=0.8)
    # 0.1 lies between 1/27 and 4/27, the shares of means below and up to its quantile: 13 errors of 10,000 draws apart
    expected = np.quantile(means, [0.1, 0.9], method="inverted_cdf")
    np.testing.assert_allclose([low, high], expected, rtol=1e-12)  # the same sums in another order


@pytest.mark.parametrize("users", [60, 400])
def test_an_interval_holds_the_true_mean_as_often_as_it_says(users: int) -> None:
    trials, truth = 400, 1 - 0.93**10
    hits = 0
    for trial in range(trials):
        low, high = bootstrap_interval(ranked_values(users, seed=1000 + trial)[0], 0.9, resamples=500, seed=trial)
        hits += bool(low <= truth <= high)
    low, high = bounds(0.9, trials)
    assert (
        low - 0.02 < hits / trials < high + 0.02
    )  # recall is a count: its steps of 1 / users shift the level a little


def test_many_metrics_are_measured_on_the_same_draws() -> None:
    recall = ranked_values(users=300, seed=2)[0]
    low, high = bootstrap_interval(np.stack([recall, recall / 10, 1 - recall]))
    np.testing.assert_allclose([low[1], high[1]], [low[0] / 10, high[0] / 10], rtol=1e-12)  # rounding of a tenth
    np.testing.assert_allclose([low[2], high[2]], [1 - high[0], 1 - low[0]], rtol=1e-12)


def test_users_left_out_do_not_count() -> None:
    values = ranked_values(users=5_000, seed=3)[1]
    low, high = bootstrap_interval(values)
    apart = np.insert(values, np.arange(0, 5_000, 2), np.nan)
    np.testing.assert_allclose(bootstrap_interval(apart), [low, high], atol=0.1 * (high - low))  # other draws


def test_a_draw_without_a_user_that_counts_is_passed_over() -> None:
    low, high = bootstrap_interval([0.5, 0.5, np.nan, np.nan, np.nan], resamples=200)  # (3/5)^5 = 8% of the draws
    assert (low, high) == (0.5, 0.5)


def test_the_seed_alone_decides() -> None:
    values = ranked_values(users=200, seed=4)
    gaps = values - ranked_values(users=200, seed=5)
    for measured in (bootstrap_interval, sign_flip_test):
        again = [np.array(measured(gaps, seed=seed)) for seed in (5, 5, 6)]
        assert (again[0] == again[1]).all()
        assert (again[0] != again[2]).any()


def test_blocks_and_the_grouping_of_equal_users_change_the_memory_and_not_the_law(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = ranked_values(users=2_000, seed=7)
    whole = bootstrap_interval(values)
    monkeypatch.setattr(intervals, "_BLOCK", 64)
    blocked = bootstrap_interval(values)
    np.testing.assert_array_equal(blocked, whole)  # one stream of draws, cut otherwise
    monkeypatch.undo()
    monkeypatch.setattr(intervals, "_distinct", lambda rows: (rows, np.ones(len(rows), dtype=np.int64)))
    single = bootstrap_interval(values, resamples=4_000)
    np.testing.assert_allclose(single, whole, atol=0.1 * float(np.max(whole[1] - whole[0])))  # other draws


def test_rows_whose_random_sums_collide_are_not_taken_for_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Constant:
        def random(self, size: int) -> Floats:
            return np.ones(size)

    rows = np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0]])  # all sum to 3
    with monkeypatch.context() as patch:
        patch.setattr(intervals.np.random, "default_rng", lambda seed: Constant())
        distinct, sizes = intervals._distinct(rows)
    assert (distinct.tolist(), sizes.tolist()) == (rows.tolist(), [1, 1, 1])
    distinct, sizes = intervals._distinct(rows)
    assert sorted(zip(distinct.tolist(), sizes.tolist(), strict=True)) == [([1.0, 2.0], 2), ([2.0, 1.0], 1)]


# --- the paired test


def test_a_model_does_not_differ_from_itself() -> None:
    values = ranked_values(users=500, seed=8)
    found = paired_difference(values, values)
    assert all((part == expected).all() for part, expected in zip(found, (0, 0, 0, 1), strict=True))


def test_turning_the_pair_around_turns_the_difference() -> None:
    a, b = ranked_values(users=700, seed=9), ranked_values(users=700, seed=10)
    there, back = paired_difference(a, b), paired_difference(b, a)
    np.testing.assert_allclose(there.mean, -back.mean, rtol=1e-12)
    np.testing.assert_allclose(there.low, -back.high, rtol=0.1)  # the draws are not mirrored
    assert (there.p == back.p).all()


@pytest.mark.parametrize(
    "differences",
    [[1.0, 1.0, 1.0, -1.0], [0.5, 0.25, 0.0, 0.25, 1.0], [0.1, 0.2, -0.3, 0.4]],
    ids=["one size", "several sizes and a zero", "sums that round"],
)
def test_the_p_value_is_the_share_of_all_signs_that_are_as_far_from_zero(differences: list[float]) -> None:
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in product([1, -1], repeat=len(differences))
    ]
    exact = np.mean([total >= abs(sum(differences)) - 1e-12 for total in sums])
    assert abs(sign_flip_test(differences) - exact) < 0.02  # four standard errors of 10,000 draws


def test_differences_that_cancel_have_a_p_value_of_one() -> None:
    assert sum([0.1, 0.2, -0.3]) != 0  # but for rounding
    assert sign_flip_test([0.1, 0.2, -0.3]) == 1


def test_the_p_value_of_many_users_is_that_of_the_normal_formula() -> None:
    a, b = ranked_values(users=20_000, seed=11)[1], ranked_values(users=20_000, seed=13)[1]
    gap = a - b
    for shift in (0.0, 0.005):
        z = abs((gap + shift).sum()) / math.sqrt(((gap + shift) ** 2).sum())
        assert (
            abs(sign_flip_test(gap + shift) - math.erfc(z / math.sqrt(2))) < 0.02
        )  # four standard errors of 10,000 draws


@pytest.mark.parametrize("metric", [0, 1], ids=["recall", "ndcg"])
def test_p_values_are_spread_evenly_where_models_are_alike(metric: int) -> None:
    trials = 400
    p_values = np.array(
        [
            sign_flip_test(
                ranked_values(200, trial)[metric] - ranked_values(200, trial + trials)[metric], resamples=200
            )
            for trial in range(trials)
        ]
    )
    for level in (0.05, 0.2, 0.5):
        low, high = bounds(level, trials)
        assert low - 0.03 < (p_values <= level).mean() < high  # never too often; a little less where values are counts


def test_a_gain_that_the_users_can_show_is_found_and_a_hair_is_not() -> None:
    rng = np.random.default_rng(12)
    base = rng.random(400)
    noise = rng.normal(0, 0.2, 400)
    error = 0.2 / math.sqrt(400)
    found = paired_difference([base + noise + 6 * error, base + noise - noise.mean() + 0.1 * error], [base, base])
    assert found.p[0] == 1 / 10_001  # the smallest there is: no random sign came near six errors
    assert found.low[0] > 0
    assert found.p[1] > 0.8
    assert found.low[1] < 0 < found.high[1]


def test_no_p_value_is_zero() -> None:
    assert sign_flip_test(np.ones(1_000), resamples=99) == 1 / 100


def test_numbers_come_out_for_one_metric_and_arrays_for_many() -> None:
    a, b = ranked_values(users=50, seed=14), ranked_values(users=50, seed=15)
    assert {np.shape(part) for part in paired_difference(a, b)} == {(2,)}
    assert {np.shape(part) for part in paired_difference(a[0], b[0])} == {()}
    assert paired_difference(a[0].tolist(), b[0].tolist()) == paired_difference(a[0], b[0])


# --- Holm


def test_holm_bounds_the_chance_of_any_false_finding_and_bonferroni_is_never_below_it() -> None:
    rng = np.random.default_rng(16)
    p_values = rng.random((2_000, 6))
    adjusted = np.array([holm(row) for row in p_values])
    low, high = bounds(0.05, 2_000)
    assert low - 0.01 < (adjusted.min(axis=1) <= 0.05).mean() < high  # 1 - (1 - 0.05 / 6)^6 = 0.049
    assert (adjusted <= np.minimum(6 * p_values, 1) + 1e-15).all()
    assert (adjusted >= p_values).all()


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [([], []), ([0.25], [0.25]), ([0.5, 0.5], [1.0, 1.0]), ([0.75, 0.75, 0.125], [1.0, 1.0, 0.375])],
)
def test_holm_at_its_edges(p_values: list[float], adjusted: list[float]) -> None:
    assert holm(p_values).tolist() == adjusted


# --- what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5],), "at least 2 of them, got 1"),
        (([0.5, np.nan],), "at least 2 of them, got 1"),
        (([],), "at least 2 of them, got 0"),
        (([[0.5, 0.5], [np.nan, np.nan]],), "at least 2 of them, got 0"),
        ((np.zeros((2, 3, 4)),), r"not shape \(2, 3, 4\)"),
        (([0.0, 1.0], 1.0), r"confidence \(1.0\) must lie between 0 and 1"),
        (([0.0, 1.0], 0.95, 0), r"resamples \(0\) must be at least 1"),
    ],
)
def test_an_interval_of_nothing_is_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(*arguments)  # type: ignore[arg-type]  # of any kind


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([0.0, 1.0], [0.0, 1.0, 1.0], r"not of shapes \(2,\) and \(3,\)"),
        ([0.0, 1.0, np.nan], [0.0, np.nan, np.nan], r"1 values are left out \(NaN\) of one"),
    ],
)
def test_pairs_that_are_none_are_refused(a: list[float], b: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_difference(a, b)


@pytest.mark.parametrize(
    ("p_values", "message"),
    [([0.5, 1.5], r"must lie in 0..1, got \[0.5, 1.5\]"), ([[0.5]], "one axis"), ([np.nan], "must lie in 0..1")],
)
def test_holm_refuses_what_is_no_p_value(p_values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        holm(p_values)


def test_signs_need_at_least_one_draw() -> None:
    with pytest.raises(ValueError, match=r"resamples \(0\)"):
        sign_flip_test([1.0, 2.0], resamples=0)

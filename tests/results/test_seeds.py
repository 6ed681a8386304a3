"""Comparing methods: the unit is the run, and both the seeds and the users could have been others."""

import json
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from genrec.metrics.intervals import holm
from genrec.results import Result
from genrec.results.comparison import EQUAL, NOT_SHOWN, NOT_TESTED
from genrec.results.seeds import compare_seeds, group_runs
from genrec.results.spread import spread
from genrec.results.student import critical_value, two_sided_p
from scored import PROTOCOL, drawn_ranks, scored

USERS = 2_000
Floats = NDArray[np.float64]


def run(model: str, skill: float, seed: int | None, luck: float = 0.5, **config: Any) -> Result:
    ranks = drawn_ranks(USERS, skill, seed=0 if seed is None else seed, luck=luck)
    return scored(f"{model}-{seed}", ranks, model=model, config={"width": 64, **config}, seed=seed)


def several(model: str, skill: float, seeds: range, **config: Any) -> list[Result]:
    return [run(model, skill, seed, **config) for seed in seeds]


@pytest.fixture(scope="module")
def rules() -> Result:
    """A counted baseline: no seed, no luck."""
    return run("rules", 0.0, None, luck=0.0)


# --- methods and their runs


def test_runs_that_differ_in_their_seed_alone_are_one_method(rules: Result) -> None:
    groups = group_runs([*several("sasrec", 0.2, range(3)), rules, run("sasrec", 0.2, 9)])
    assert {name: [one.name for one in runs] for name, runs in groups.items()} == {
        "sasrec": ["sasrec-0", "sasrec-1", "sasrec-2", "sasrec-9"],
        "rules": ["rules-None"],
    }


def test_settings_tell_methods_of_one_model_apart() -> None:
    groups = group_runs([run("sasrec", 0, 0, dropout=0.2), run("sasrec", 0, 1, dropout=0.5), run("hstu", 0, 0)])
    assert list(groups) == ["sasrec (dropout=0.2)", "sasrec (dropout=0.5)", "hstu"]


def test_the_settings_of_the_fit_count_but_not_the_device() -> None:
    fits: list[dict[str, Any]] = [
        {"lr": 0.1, "device": "cpu"},
        {"lr": 0.1, "device": "cuda"},
        {"lr": 0.2, "device": "cpu"},
    ]
    ranks = drawn_ranks(5, 0, 0)
    runs = [scored(f"run {i}", ranks, model="sasrec", config={}, seed=i, fit=fit) for i, fit in enumerate(fits)]
    groups = group_runs(runs)
    assert list(groups) == ["sasrec (fit.lr=0.1)", "sasrec (fit.lr=0.2)"]
    assert list(map(len, groups.values())) == [2, 1]


def test_results_without_a_model_are_one_method_if_they_have_one_name() -> None:
    ranks = drawn_ranks(5, 0, 0)
    files = [("theirs", "a.csv"), ("others", "b.csv"), ("theirs", "c.csv")]
    groups = group_runs([scored(name, ranks, model=None, config={}, predictions=file) for name, file in files])
    assert {name: len(runs) for name, runs in groups.items()} == {"theirs": 2, "others": 1}


def test_settings_read_from_json_are_those_that_were_written() -> None:
    fresh = run("sasrec", 0, 0, sizes=(1, 2))
    details = json.loads(json.dumps(fresh.details))
    read = Result("read", fresh.metrics, fresh.users, fresh.values, PROTOCOL, details | {"seed": 1})
    assert list(group_runs([fresh, read])) == ["sasrec"]


# --- what is said


def test_five_seeds_against_a_counted_baseline(rules: Result) -> None:
    found = compare_seeds(group_runs([rules, *several("sasrec", 0.4, range(5))]))
    assert found.models == ("rules", "sasrec")
    assert found.over_seeds
    means = [one.metrics["ndcg@10"] for one in several("sasrec", 0.4, range(5))]
    estimate = found.estimates["ndcg@10"]["sasrec"]
    assert (estimate.runs, found.estimates["ndcg@10"]["rules"].runs) == (5, 1)
    assert math.isclose(estimate.mean, sum(means) / 5)
    assert estimate.sd is not None
    assert math.isclose(estimate.sd, math.sqrt(sum((one - sum(means) / 5) ** 2 for one in means) / (5 - 1)))
    assert found.estimates["ndcg@10"]["rules"].sd is None
    assert {one.verdict for one in found.differences if one.p is not None} == {"sasrec is better"}
    assert found.notes == ("rules is one run without a seed: taken to have no randomness in training.",)


def test_methods_that_are_alike_show_no_difference() -> None:
    groups = {"a": several("a", 0.2, range(5)), "b": several("b", 0.2, range(5, 10))}
    assert {one.verdict for one in compare_seeds(groups).differences} == {NOT_SHOWN, NOT_TESTED}


def test_one_seed_tells_nothing_and_is_not_tested(rules: Result) -> None:
    one_seed = run("sasrec", 0.4, 3)
    found = compare_seeds(group_runs([rules, one_seed, *several("hstu", 0.4, range(4))]), all_pairs=True)
    assert (
        "sasrec has one seed (3), which tells nothing about the method: shown for that run, not tested." in found.notes
    )
    for one in found.differences:
        untold = "sasrec" in (one.model, one.base)
        assert (one.low is None) == untold
        assert (one.p is None) == (untold or one.metric not in found.tested)
        assert (one.verdict == NOT_TESTED) == (one.p is None)
    assert found.estimates["ndcg@10"]["sasrec"].mean == pytest.approx(one_seed.metrics["ndcg@10"], rel=1e-12)


def test_holm_corrects_over_all_pairs_and_metrics(rules: Result) -> None:
    groups = group_runs([rules, *several("sasrec", 0.05, range(3)), *several("hstu", 0.1, range(3))])
    found = [one for one in compare_seeds(groups, all_pairs=True).differences if one.p is not None]
    assert len(found) == 3 * 2
    assert [one.adjusted for one in found] == holm([one.p for one in found if one.p is not None]).tolist()


def test_equal_runs_of_a_counted_model_are_no_difference_from_one_of_them(rules: Result) -> None:
    again = [run("rules again", 0.0, seed, luck=0.0) for seed in range(5)]
    found = compare_seeds({"once": [rules], "often": again})
    for one in found.differences:
        assert (one.mean, one.differing) == (0, 0)
        assert one.verdict == (EQUAL if one.metric in found.tested else NOT_TESTED)


def test_users_left_out_count_for_none(rules: Result) -> None:
    runs = [rules, *several("sasrec", 0.4, range(3))]
    values = [{name: column.copy() for name, column in one.values.items()} for one in runs]
    for one in values:
        one["ndcg@10"][: USERS // 2] = np.nan
    half = [
        Result(one.name, one.metrics, one.users, own, PROTOCOL, one.details)
        for one, own in zip(runs, values, strict=True)
    ]
    found = compare_seeds(group_runs(half)).estimates["ndcg@10"]["rules"]
    kept = rules.values["ndcg@10"][USERS // 2 :]
    assert found.mean == pytest.approx(kept.mean(), rel=1e-12)
    half_width = critical_value(0.95, len(kept) - 1) * kept.std(ddof=1) / math.sqrt(len(kept))
    assert found.high == pytest.approx(kept.mean() + half_width, rel=1e-12)


def test_a_metric_of_all_lists_has_a_mean_over_runs_and_no_interval(rules: Result) -> None:
    runs = several("sasrec", 0.4, range(2))
    runs[1].metrics["coverage@10"] = 0.75
    estimate = compare_seeds({"rules": [rules], "sasrec": runs}).estimates["coverage@10"]["sasrec"]
    assert (estimate.mean, estimate.runs, estimate.low) == ((0.25 + 0.75) / 2, 2, None)
    assert estimate.sd == pytest.approx(math.sqrt(2 * 0.25**2 / (2 - 1)))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"sasrec": [(0, 0.1), (1, 0.1)]}, "at least 2 methods, got 1: sasrec"),
        ({"sasrec": [(0, 0.1), (1, 0.1), (1, 0.1)], "hstu": [(0, 0.1)]}, "sasrec has seed 1 twice"),
    ],
)
def test_groups_that_cannot_be_compared_are_refused(groups: dict[str, list[tuple[int, float]]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare_seeds({name: [run(name, skill, seed) for seed, skill in runs] for name, runs in groups.items()})


def test_a_confidence_out_of_range_is_refused(rules: Result) -> None:
    with pytest.raises(ValueError, match=r"confidence \(95\)"):
        compare_seeds({"a": [rules], "b": [rules]}, confidence=95)


# --- the spread


def crossed(rng: np.random.Generator, shape: tuple[int, int], of_runs: float, of_users: float, rest: float) -> Floats:
    """(S, n) values of mean 0 whose runs, users and the rest vary so much."""
    runs, users = rng.normal(0, of_runs, (shape[0], 1)), rng.normal(0, of_users, shape[1])
    return runs + users + rng.normal(0, rest, shape)


@pytest.mark.parametrize(
    ("runs", "of_runs", "of_users", "rest"),
    [
        ((5, 5), 0.2, 0.5, 1.0),
        ((5, 5), 0.0, 0.5, 1.0),
        ((3, 5), 0.05, 0.5, 1.0),
        ((5, 1), 0.2, 0.5, 1.0),
        ((1, 1), 0, 1.0, 0.5),
    ],
    ids=["seeds matter", "seeds do not matter", "few seeds", "against a counted model", "two counted models"],
)
def test_the_level_holds_whatever_varies(runs: tuple[int, int], of_runs: float, of_users: float, rest: float) -> None:
    rng = np.random.default_rng(1)
    trials = 1_000
    p_values = []
    for _ in range(trials):
        first = crossed(rng, (runs[0], 150), of_runs * (runs[0] > 1), of_users, rest)
        second = crossed(rng, (runs[1], 150), of_runs * (runs[1] > 1), 0, rest)
        p_values.append(spread(first, second).p())
    error = 4 * math.sqrt(0.05 * 0.95 / trials)  # a share that is right lies beyond once in 16,000 times
    assert (
        0.05 - error - 0.01 < np.mean(np.array(p_values) <= 0.05) < 0.05 + error + 0.01
    )  # Satterthwaite's is no exact level


def test_forgetting_the_seeds_or_the_users_would_break_the_level() -> None:
    """Why the unit is the run and the users count as well: each simple interval misses one of the two."""
    rng = np.random.default_rng(2)
    missed = {"seeds": 0, "users": 0, "spread": 0}
    for _ in range(300):
        seeds_matter = crossed(rng, (5, 200), of_runs=0.3, of_users=0.5, rest=1.0)
        users_matter = crossed(rng, (5, 200), of_runs=0.0, of_users=3.0, rest=0.1)
        over_users = seeds_matter.mean(axis=0)
        missed["seeds"] += abs(over_users.mean()) > 1.96 * over_users.std(ddof=1) / math.sqrt(200)
        over_runs = users_matter.mean(axis=1)
        missed["users"] += abs(over_runs.mean()) > critical_value(0.95, 4) * over_runs.std(ddof=1) / math.sqrt(5)
        missed["spread"] += (spread(seeds_matter).p() < 0.05) + (spread(users_matter).p() < 0.05)
    assert missed["seeds"] > 90
    assert missed["users"] > 150
    assert missed["spread"] < 60  # of 600; 30 are due


def test_the_error_is_that_of_the_mean_squares() -> None:
    """Of the textbook's table for two crossed random effects: (MS_users + MS_runs - MS_rest) / (S n)."""
    values = crossed(np.random.default_rng(5), (3, 20), of_runs=0.3, of_users=1.0, rest=0.5)
    by_user, by_run, mean = values.mean(axis=0), values.mean(axis=1), values.mean()
    ms_users = 3 * ((by_user - mean) ** 2).sum() / (20 - 1)
    ms_runs = 20 * ((by_run - mean) ** 2).sum() / (3 - 1)
    ms_rest = ((values - by_user - by_run[:, None] + mean) ** 2).sum() / ((3 - 1) * (20 - 1))
    assert spread(values).error ** 2 == pytest.approx((ms_users + ms_runs - ms_rest) / (3 * 20), rel=1e-12)


def test_a_single_run_has_the_t_interval_over_users() -> None:
    values = np.random.default_rng(3).random((1, 40))
    found = spread(values)
    assert found.df == pytest.approx(39)
    assert found.error == pytest.approx(values.std(ddof=1) / math.sqrt(40))


def test_the_interval_holds_its_middle_and_zero_just_when_p_is_above_the_rest() -> None:
    rng = np.random.default_rng(4)
    for shift in (0.0, 0.1, 0.3, 2.0):
        found = spread(rng.normal(shift, 1, (4, 60)), rng.normal(0, 1, (3, 60)))
        low, high = found.interval(0.9)
        assert (low < 0 < high) == (found.p() > 0.1)
        assert low + high == pytest.approx(2 * found.mean)
        assert found.df >= 2  # never fewer than those of the method with the fewest runs


def test_runs_without_any_variance_decide_by_their_mean() -> None:
    same = np.full((3, 4), 0.5)
    assert spread(same).interval(0.95) == (0.5, 0.5)
    assert (spread(same, same).p(), spread(same, same / 2).p()) == (1.0, 0.0)


def test_one_user_has_no_interval() -> None:
    with pytest.raises(ValueError, match="at least 2 of them, got 1"):
        spread(np.array([[0.5], [0.25]]))


# --- Student's t


@pytest.mark.parametrize("t", [0.0, 0.01, 0.5, 1.0, 3.0, 50.0])
def test_the_tail_of_t_is_that_of_the_closed_forms(t: float) -> None:
    assert two_sided_p(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), abs=1e-14)
    assert two_sided_p(t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), abs=1e-14)
    assert two_sided_p(-t, 4) == pytest.approx(1 - (t / math.sqrt(4 + t * t)) * (1 + 2 / (4 + t * t)), abs=1e-14)
    normal = math.erfc(t / math.sqrt(2))  # nears it as 1 / df
    assert two_sided_p(t, 1e6) == pytest.approx(normal, abs=1e-6)


@pytest.mark.parametrize("df", [1, 2.5, 4, 30, 1e6])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_the_critical_value_leaves_its_tail(df: float, confidence: float) -> None:
    assert two_sided_p(critical_value(confidence, df), df) == pytest.approx(1 - confidence, rel=1e-9)


def test_the_critical_values_of_the_tables() -> None:
    assert critical_value(0.95, 1) == pytest.approx(math.tan(0.95 * math.pi / 2), rel=1e-12)
    assert critical_value(0.95, 2) == pytest.approx(math.sqrt(2 * 0.95**2 / (1 - 0.95**2)), rel=1e-12)
    assert two_sided_p(math.inf, 3) == 0

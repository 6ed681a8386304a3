"""Comparing trained models: paired by user, only what was measured alike, and no more said than the numbers show."""

import math
from typing import Any

import numpy as np
import pytest

from genrec.metrics.intervals import bootstrap_interval, holm, paired_difference
from genrec.results import Result
from genrec.results.comparison import EQUAL, NOT_SHOWN, NOT_TESTED, Comparison, Difference, compare, judge
from scored import PROTOCOL, drawn_ranks, scored

USERS = 3_000


@pytest.fixture(scope="module")
def three() -> list[Result]:
    """A base, a model that is clearly better, and one that is as good."""
    return [
        scored("base", drawn_ranks(USERS, 0.0, seed=1)),
        scored("better", drawn_ranks(USERS, 0.4, seed=2)),
        scored("alike", drawn_ranks(USERS, 0.0, seed=3)),
    ]


@pytest.fixture(scope="module")
def comparison(three: list[Result]) -> Comparison:
    return compare(three)


def shuffled(result: Result, seed: int) -> Result:
    order = np.random.default_rng(seed).permutation(len(result.users))
    values = {name: column[order] for name, column in result.values.items()}
    return Result(result.name, result.metrics, result.users[order], values, result.protocol, result.details)


def find(comparison: Comparison, metric: str, model: str, base: str = "base") -> Difference:
    (found,) = [one for one in comparison.differences if (one.metric, one.model, one.base) == (metric, model, base)]
    return found


# --- what is said


def test_a_gain_stands_and_chance_does_not(comparison: Comparison) -> None:
    for metric in ("ndcg@10", "recall@10"):
        assert find(comparison, metric, "better").verdict == "better is better"
        assert find(comparison, metric, "alike").verdict == NOT_SHOWN


def test_a_base_that_wins_is_named(three: list[Result]) -> None:
    assert find(compare([three[1], three[0]], resamples=999), "ndcg@10", "base", "better").verdict == "better is better"


def test_a_model_against_itself_is_no_difference(three: list[Result]) -> None:
    found = compare([three[1], shuffled(three[1], seed=4)])
    assert found.models == ("better", "better (2)")
    for one in found.differences:
        assert (one.mean, one.low, one.high, one.differing) == (0, 0, 0, 0)
        assert one.verdict == (EQUAL if one.metric in found.tested else NOT_TESTED)
        assert one.p in (1, None)


def test_every_metric_has_an_interval_and_only_the_named_ones_are_tested(
    three: list[Result], comparison: Comparison
) -> None:
    assert list(comparison.estimates) == [
        "ndcg@10",
        "recall@10",
        "recall@5",
        "ndcg@5",
        "mrr@5",
        "mrr@10",
        "coverage@10",
    ]
    for one in comparison.differences:
        assert one.low is not None
        assert one.high is not None
        assert one.low < one.mean < one.high
        assert ((one.p is None), (one.adjusted is None)) == (one.metric not in comparison.tested,) * 2
    metrics = list(comparison.estimates)[:-1]
    for result in three:
        ends = np.stack(bootstrap_interval(np.stack([result.values[metric] for metric in metrics])), axis=1)
        found = [comparison.estimates[metric][result.name] for metric in metrics]
        assert [one.mean for one in found] == [result.metrics[metric] for metric in metrics]
        assert [[one.low, one.high] for one in found] == ends.tolist()
    assert comparison.estimates["coverage@10"]["base"].low is None


def test_differences_are_those_of_the_paired_test_corrected_over_all_tests(
    three: list[Result], comparison: Comparison
) -> None:
    tested = [one for one in comparison.differences if one.p is not None]
    assert len(tested) == 2 * 2  # comparisons x metrics
    assert [one.adjusted for one in tested] == holm([one.p for one in tested if one.p is not None]).tolist()
    for one in tested:
        model = next(result for result in three if result.name == one.model)
        expected = paired_difference(model.values[one.metric], three[0].values[one.metric])
        assert (one.mean, one.p) == (expected.mean, expected.p)
        assert one.differing == (model.values[one.metric] != three[0].values[one.metric]).sum()


def test_the_more_is_tested_the_more_a_difference_must_show() -> None:
    found = [Difference("m", f"model{i}", "base", 0.1, 0.01, 0.2, 9, p) for i, p in enumerate((0.02, 0.03, 0.04))]
    assert [one.better for one in judge(found[:1], 0.95)] == ["model0"]  # 0.02 x 1
    assert [one.better for one in judge(found, 0.95)] == [None] * 3  # 0.02 x 3 = 0.06, then not less
    assert [one.better for one in judge(found, 0.9)] == ["model0", "model1", "model2"]  # 0.06 is below 0.1


def test_the_first_is_the_base_of_all_unless_all_pairs_are_wanted(three: list[Result]) -> None:
    assert {(one.base, one.model) for one in compare(three, resamples=9).differences} == {
        ("base", "better"),
        ("base", "alike"),
    }
    pairs = {(one.base, one.model) for one in compare(three, resamples=9, all_pairs=True).differences}
    assert pairs == {("base", "better"), ("base", "alike"), ("better", "alike")}


def test_one_run_a_model_is_said_to_tell_nothing_of_the_method(comparison: Comparison) -> None:
    (note,) = comparison.notes
    assert "these 3 trained models" in note
    assert "it tells nothing" in note


def test_the_interval_is_as_wide_as_its_confidence(three: list[Result]) -> None:
    widths = [
        (one.high or math.nan) - (one.low or math.nan)
        for confidence in (0.9, 0.95, 0.99)
        for one in [find(compare(three[:2], confidence=confidence, resamples=999), "ndcg@10", "better")]
    ]
    assert widths == sorted(widths)


# --- how users are paired


@pytest.mark.parametrize("texts", [False, True], ids=["whole numbers", "texts"])
def test_the_order_of_users_does_not_matter(three: list[Result], texts: bool) -> None:
    users = np.random.default_rng(5).permutation(USERS) * 7
    ids = np.array([f"user {one}" for one in users], dtype=object) if texts else users
    named = [Result(one.name, one.metrics, ids, one.values, one.protocol, one.details) for one in three]
    mixed = [named[0], shuffled(named[1], seed=6), shuffled(named[2], seed=7)]
    for found, expected in zip(
        compare(mixed, resamples=99).differences, compare(three, resamples=99).differences, strict=True
    ):
        assert found == expected


def test_users_left_out_of_both_count_for_none() -> None:
    a, b = scored("a", drawn_ranks(100, 0, 1)), scored("b", drawn_ranks(100, 0, 2))
    for one in (a, b):
        one.values["ndcg@10"][:40] = np.nan
        one.metrics["ndcg@10"] = float(np.nanmean(one.values["ndcg@10"]))
    found = find(compare([a, b]), "ndcg@10", "b", "a")
    assert math.isclose(found.mean, b.metrics["ndcg@10"] - a.metrics["ndcg@10"])
    assert found.differing <= 60


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "stated"),
    [
        ({"split": "temporal"}, "split is 'leave_one_out' and 'temporal'"),
        (
            {"cutoffs": {"valid_from": 3, "test_from": 9}},
            "cutoffs.valid_from is None and 3; cutoffs.test_from is None and 9",
        ),
        ({"target": "the first event"}, "target is 'the last event' and 'the first event'"),
        ({"seen_filter": None}, "seen_filter is 'the whole history' and None"),
        ({"counts": {"users": 3000, "test_cases": 12}}, "counts.test_cases is 3000 and 12"),
        (
            {"content_hash": "b2" * 32, "filters": {"k_core": 3}, "split": "temporal"},
            f"content_hash is '{'a1' * 32}' and '{'b2' * 32}'; split is 'leave_one_out' and 'temporal'; "
            "filters.k_core is 5 and 3",
        ),
    ],
    ids=["split", "cut-offs", "target", "seen filter", "counts", "data and split"],
)
def test_another_data_or_protocol_is_refused_with_both_values(changes: dict[str, Any], stated: str) -> None:
    other = scored("theirs", drawn_ranks(50, 0, 2), protocol=PROTOCOL | changes)
    with pytest.raises(ValueError, match="not measured alike") as refused:
        compare([scored("ours", drawn_ranks(50, 0, 1)), other])
    assert str(refused.value) == f"ours and theirs were not measured alike: {stated}"


def test_a_part_that_only_one_protocol_states_is_refused() -> None:
    short = {name: value for name, value in PROTOCOL.items() if name != "ranking"}
    with pytest.raises(ValueError, match="ranking is 'all items' and None"):
        compare([scored("a", drawn_ranks(50, 0, 1)), scored("b", drawn_ranks(50, 0, 2), protocol=short)])


def test_another_path_to_the_same_events_is_no_other_protocol() -> None:
    moved = PROTOCOL | {
        "source": "copy.csv",
        "filters": {},
        "precision": "float16",
    }  # the hash says that they are equal
    compare([scored("a", drawn_ranks(50, 0, 1)), scored("b", drawn_ranks(50, 0, 2), protocol=moved)])


@pytest.mark.parametrize(
    ("users", "counts"),
    [
        (np.arange(2, 52), "a has 2 that b has not, b has 2 that a has not, 48 are in both"),
        (np.arange(45), "a has 5 that b has not, b has 0 that a has not, 45 are in both"),
        (np.array([str(one) for one in range(50)], dtype=object), "a has 50 that b has not, b has 50"),
    ],
    ids=["shifted", "fewer", "texts against numbers"],
)
def test_other_users_are_refused_with_their_counts(users: Any, counts: str) -> None:
    other = scored("b", drawn_ranks(len(users), 0, 2), users=users)
    with pytest.raises(ValueError, match=f"a and b are not of the same users: {counts}"):
        compare([scored("a", drawn_ranks(50, 0, 1)), other])


def test_users_that_only_one_result_leaves_out_are_refused() -> None:
    a, b = scored("a", drawn_ranks(50, 0, 1)), scored("b", drawn_ranks(50, 0, 2))
    b.values["mrr@5"][3:5] = np.nan
    with pytest.raises(ValueError, match="a and b leave other users out of mrr@5: 2 count for one only"):
        compare([a, b])


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["ndcg@20"], "values by user of ndcg@20; they share recall@5, ndcg@5"),
        (["coverage@10"], "values by user of coverage@10"),
        (["ndcg@5", "ndcg@5"], "named twice: ndcg@5, ndcg@5"),
        ([], "no metric to test"),
    ],
)
def test_a_metric_that_cannot_be_tested_is_refused(three: list[Result], metrics: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare(three, metrics)


def test_one_result_is_no_comparison(three: list[Result]) -> None:
    with pytest.raises(ValueError, match="at least 2 results, got 1"):
        compare(three[:1])

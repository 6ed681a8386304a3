"""Our metrics against those of ranx and RecTools, in an environment of their own: where definitions agree, and where not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from genrec.histories import Ragged
from genrec.metrics import RecommendationMetrics, evaluate

pytestmark = pytest.mark.slow  # installs, and compiles ranx

EXACT = {"rtol": 0, "atol": 1e-9}  # float64 sums of at most 60 values up to 1, in another order
Lists = list[list[Any]]
Ask = Callable[..., dict[str, Any]]


def lists_of(rng: np.random.Generator, lengths: NDArray[Any], catalogue: int) -> Lists:
    """Distinct items 1..catalogue a list, as ranx and RecTools expect them."""
    return [(rng.permutation(catalogue)[:length] + 1).tolist() for length in lengths]


def fitting(seed: int, longest: int, most_targets: int, catalogue: int) -> tuple[Lists, Lists]:
    """Lists of 0..longest items and 1..most_targets targets, for 37 users: all that is defined alike."""
    rng = np.random.default_rng(seed)
    lengths, targets = rng.integers(0, longest + 1, 37), rng.integers(1, most_targets + 1, 37)
    return lists_of(rng, lengths, catalogue), lists_of(rng, targets, catalogue)


def renamed(lists: Lists, name: Callable[[int], Any]) -> Lists:
    return [[name(one) for one in row] for row in lists]


def anything(seed: int) -> tuple[Lists, Lists]:
    """A fitting case of whatever sizes the seed draws."""
    longest, most_targets, spare = np.random.default_rng(seed).integers(1, [50, 30, 100])
    return fitting(seed, longest, most_targets, catalogue=max(longest, most_targets) + spare)


KS = [1, 3, 5, 12, 60]  # below, between and beyond the lengths
CASES = {
    "ragged lists": fitting(1, longest=13, most_targets=7, catalogue=23),
    "one target a user": fitting(2, longest=13, most_targets=1, catalogue=17),
    "more targets than places": fitting(3, longest=6, most_targets=29, catalogue=31),
    "hardly a hit": fitting(4, longest=11, most_targets=5, catalogue=997),
    "the whole catalogue": (lists_of(np.random.default_rng(5), np.full(37, 19), 19), fitting(6, 1, 19, 19)[1]),
    "targets beyond the list": ([list(range(1, 51))] * 3, [[51], [50, 51, 52], [49, 99]]),
    "lists that could not be better": ([[1, 2, 3], [9], [4, 5]], [[3, 2, 1], [9], [5, 4, 6, 8]]),
    "lists that could not be worse": ([[1, 2, 3], [], [4]], [[4, 5], [6], [5]]),
    "ids up to 2**53": tuple(renamed(part, lambda one: 2**53 - one) for part in fitting(7, 13, 7, 23)),
    **{f"sizes drawn by {seed}": anything(seed) for seed in range(11, 17)},
}
ALWAYS, TARGETS_FIT, TARGETS_FILL = "always", "no more targets than k", "no fewer targets than k"
HELD = {ALWAYS: lambda targets, k: targets > 0, TARGETS_FIT: np.less_equal, TARGETS_FILL: np.greater_equal}
ALIKE = [(name, name, ALWAYS) for name in ("recall", "precision", "ndcg", "hit_rate", "mrr")]
AGREEMENTS = {  # theirs, ours, and for which users they are the same
    "ranx": [*ALIKE, ("ndcg_burges", "ndcg", ALWAYS), ("map", "map", TARGETS_FIT)],
    "RecTools": [
        *ALIKE,
        ("map", "map", TARGETS_FIT),
        ("map_by_k", "map", TARGETS_FILL),
        ("ndcg_by_k", "ndcg", TARGETS_FILL),
        ("r_precision", "recall", TARGETS_FIT),
        ("r_precision", "precision", TARGETS_FILL),
    ],
}


@pytest.mark.parametrize("peer", AGREEMENTS)
@pytest.mark.parametrize("case", CASES)
def test_every_user_and_the_mean_are_as_the_peer_has_them(ask: Ask, case: str, peer: str) -> None:
    predictions, targets = CASES[case]
    theirs = ask(peer=peer, predictions=predictions, targets=targets, ks=KS)
    require_agreement(theirs, peer, predictions, targets)
    require_agreement(theirs, peer, Ragged.from_rows(predictions), Ragged.from_rows(targets))


@pytest.mark.parametrize("peer", ["ranx by name", "RecTools"])
@pytest.mark.parametrize("case", ["ragged lists", "more targets than places", "hardly a hit"])
def test_ids_of_text_are_as_the_peer_has_them(ask: Ask, case: str, peer: str) -> None:
    predictions, targets = (renamed(part, lambda one: f"é {one}") for part in CASES[case])
    theirs = ask(peer=peer, predictions=predictions, targets=targets, ks=KS)
    require_agreement(theirs, peer.partition(" ")[0], predictions, targets)


def require_agreement(theirs: dict[str, Any], peer: str, predictions: Any, targets: Any) -> None:
    """Holds ``evaluate`` and the static methods to a peer's answers."""
    each, means = evaluate(predictions, targets, KS, per_user=True), evaluate(predictions, targets, KS)
    relevant = np.array([len(row) for row in (targets.rows() if isinstance(targets, Ragged) else targets)])
    for name, own, held in AGREEMENTS[peer]:
        for k in KS:
            answer, said = theirs[f"{name}@{k}"], f"{name}@{k} of {peer}"
            where = HELD[held](relevant, k)
            np.testing.assert_allclose(
                each[f"{own}@{k}"][where], np.array(answer["users"])[where], **EXACT, err_msg=said
            )
            if where.all():
                single = getattr(RecommendationMetrics, f"{own}_at_k")(predictions, targets, k)
                np.testing.assert_allclose([means[f"{own}@{k}"], single], answer["mean"], **EXACT, err_msg=said)


def test_the_cases_try_every_agreement_on_users_who_differ() -> None:
    for k in KS[:-1]:
        relevant = np.array([len(row) for _, targets in CASES.values() for row in targets])
        assert (relevant < k).any() or k == 1
        assert (relevant > k).any()
    assert max(len(row) for predictions, _ in CASES.values() for row in predictions) < KS[-1]


def both(ask: Ask, peer: str, metric: str, predictions: Lists, targets: Lists) -> tuple[float, float]:
    """The peer's mean, and ours of the metric before the underscores and the at sign: "map_by_k@3" is our "map@3"."""
    name, _, k = metric.partition("@")
    theirs = ask(peer=peer, predictions=predictions, targets=targets, ks=[int(k)])[metric]["mean"]
    own = f"{name.removesuffix('_by_k').removesuffix('_burges')}@{k}"
    return theirs, evaluate(predictions, targets, [int(k)])[own]


@pytest.mark.parametrize("peer", ["ranx", "RecTools"])
def test_map_of_more_targets_than_k_is_divided_by_all_of_them_there_and_by_k_here(ask: Ask, peer: str) -> None:
    theirs, ours = both(ask, peer, "map@1", [[1]], [[1, 2]])
    assert theirs == 1 / 2
    assert ours == 1 / 1


def test_map_divided_by_k_counts_the_targets_that_a_user_does_not_have(ask: Ask) -> None:
    theirs, ours = both(ask, "RecTools", "map_by_k@4", [[1, 2, 3, 4]], [[1]])
    assert theirs == 1 / 4
    assert ours == 1 / 1


def test_ndcg_of_rectools_by_default_asks_for_k_hits_of_a_user_with_fewer_targets(ask: Ask) -> None:
    theirs, ours = both(ask, "RecTools", "ndcg_by_k@2", [[1, 2]], [[1]])
    assert theirs == pytest.approx(1 / (1 + 1 / math.log2(3)), abs=1e-15)
    assert ours == 1


@pytest.mark.parametrize("metric", ["recall", "ndcg", "hit_rate", "mrr", "map"])
def test_a_user_without_targets_counts_0_in_ranx_and_is_left_out_here_as_in_rectools(ask: Ask, metric: str) -> None:
    predictions, targets = [[7, 3], [5, 6]], [[7], []]
    theirs, ours = both(ask, "ranx", f"{metric}@2", predictions, targets)
    assert theirs == 1 / 2
    assert ours == 1
    assert both(ask, "RecTools", f"{metric}@2", predictions, targets) == (1, 1)


@pytest.mark.parametrize("metric", ["recall", "ndcg", "hit_rate", "mrr"])
def test_users_without_targets_have_no_value_of_their_own_here_as_in_rectools(ask: Ask, metric: str) -> None:
    predictions, targets = CASES["ragged lists"]
    some = [row if user % 3 else [] for user, row in enumerate(targets)]
    theirs = ask(peer="RecTools", predictions=predictions, targets=some, ks=[3])[f"{metric}@3"]["users"]
    ours = evaluate(predictions, some, [3], per_user=True)[f"{metric}@3"]
    assert np.isnan(ours[::3]).all()
    np.testing.assert_allclose(ours, theirs, **EXACT)


def test_a_user_without_targets_counts_0_in_precision_here_as_in_ranx_and_is_left_out_in_rectools(ask: Ask) -> None:
    predictions, targets = [[7, 3], [5, 6]], [[7], []]
    assert both(ask, "RecTools", "precision@2", predictions, targets) == (1 / 2, (1 / 2 + 0) / 2)
    assert both(ask, "ranx", "precision@2", predictions, targets) == ((1 / 2 + 0) / 2, (1 / 2 + 0) / 2)


@pytest.mark.parametrize(
    ("metric", "theirs", "ours"),
    [
        ("recall", 2 / 1, 1 / 1),
        ("precision", 2 / 3, 1 / 3),
        ("ndcg", 1 + 1 / math.log2(3), 1),
        ("map", (1 / 1 + 2 / 2) / 1, 1 / 1),
        ("hit_rate", 1, 1),
        ("mrr", 1, 1),
    ],
)
def test_a_repeated_prediction_gains_again_in_ranx_and_once_here(
    ask: Ask, metric: str, theirs: float, ours: float
) -> None:
    found = both(ask, "ranx", f"{metric}@3", [[7, 7, 3]], [[7]])
    assert found == pytest.approx((theirs, ours), abs=1e-15)


@pytest.mark.parametrize(
    ("metric", "theirs", "ours"),
    [
        ("recall", 2 / 3, 1 / 2),
        ("precision", 2 / 3, 1 / 3),
        ("ndcg", (1 + 1 / math.log2(3)) / (1 + 1 / math.log2(3) + 1 / 2), 1 / (1 + 1 / math.log2(3))),
        ("map", (1 / 1 + 2 / 2) / 3, (1 / 1) / 2),
    ],
)
def test_a_repeated_prediction_is_another_target_too_in_rectools(
    ask: Ask, metric: str, theirs: float, ours: float
) -> None:
    found = both(ask, "RecTools", f"{metric}@3", [[7, 7, 3]], [[7, 9]])
    assert found == pytest.approx((theirs, ours), abs=1e-15)


@pytest.mark.parametrize(
    ("metric", "theirs", "ours"),
    [
        ("recall", 1 / 2, 1),
        ("ndcg", 1 / (1 + 1 / math.log2(3)), 1),
        ("map", (1 / 1) / 2, 1),
        ("precision", 1 / 2, 1 / 2),
    ],
)
def test_a_repeated_target_is_to_be_found_twice_in_ranx_and_once_here(
    ask: Ask, metric: str, theirs: float, ours: float
) -> None:
    found = both(ask, "ranx", f"{metric}@2", [[7, 3]], [[7, 7]])
    assert found == pytest.approx((theirs, ours), abs=1e-15)


@pytest.mark.parametrize(
    ("metric", "theirs", "ours"),
    [
        ("recall", 2 / 3, 1 / 2),
        ("precision", 2 / 2, 1 / 2),
        ("ndcg", 2 / (1 + 1 / math.log2(3)), 1 / (1 + 1 / math.log2(3))),
    ],
)
def test_a_repeated_target_is_found_twice_at_one_place_in_rectools(
    ask: Ask, metric: str, theirs: float, ours: float
) -> None:
    found = both(ask, "RecTools", f"{metric}@2", [[7, 3]], [[7, 7, 9]])
    assert found == pytest.approx((theirs, ours), abs=1e-15)


def test_ids_beyond_2_to_the_53_are_one_in_ranx_and_two_here_and_in_rectools(ask: Ask) -> None:
    predictions, targets = [[2**53 + 1]], [[2**53]]
    assert both(ask, "ranx", "recall@1", predictions, targets) == (1, 0)
    assert both(ask, "RecTools", "recall@1", predictions, targets) == (0, 0)


@pytest.mark.parametrize("metric", ["recall", "precision", "ndcg", "hit_rate", "mrr", "map"])
def test_k_of_0_is_the_whole_list_in_ranx_and_gives_0_here(ask: Ask, metric: str) -> None:
    theirs, ours = both(ask, "ranx", f"{metric}@0", [[7]], [[7]])
    assert theirs == 1
    assert ours == 0


@pytest.mark.parametrize("metric", ["precision", "ndcg"])
def test_k_of_0_is_no_number_in_rectools_and_gives_0_here(ask: Ask, metric: str) -> None:
    theirs, ours = both(ask, "RecTools", f"{metric}@0", [[7]], [[7]])
    assert math.isnan(theirs)
    assert ours == 0

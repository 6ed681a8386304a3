from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec_runtime import InputError, Recommender
from tiny import ITEMS, Tiny

CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # float32: other batch sizes add up in another order


def brute_force(
    served: Recommender, histories: list[list[Any]], k: int, hidden: list[set[Any]], pools: list[list[Any]]
) -> list[list[Any]]:
    """The best of each pool by score(), highest first and the lower id among equals, without what is hidden."""
    lists = []
    for history, without, pool in zip(histories, hidden, pools, strict=True):
        items = sorted(set(pool) - without)
        scores = served.score([history], [items])[0]
        lists.append([items[i] for i in np.lexsort((np.arange(len(items)), -scores))[:k]])
    return lists


def seen(histories: list[list[Any]]) -> list[set[Any]]:
    return [set(history) for history in histories]


def assert_close(a: Any, b: Any) -> None:
    assert len(a) == len(b)
    for row_a, row_b in zip(a, b, strict=True):
        np.testing.assert_allclose(row_a, row_b, **CLOSE)


def test_fault_35_what_was_seen_is_left_out_unless_it_is_asked_for(tiny: Tiny, served: Recommender) -> None:
    histories = tiny.histories[:9]
    every = [list(ITEMS)] * 9
    assert served.recommend(histories, k=20).items == brute_force(served, histories, 20, seen(histories), every)
    again = served.recommend(histories, k=20, exclude_seen=False)
    assert again.items == brute_force(served, histories, 20, [set()] * 9, every)
    assert again.items != served.recommend(histories, k=20).items


def test_exclude_leaves_out_further_items(tiny: Tiny, served: Recommender) -> None:
    histories = tiny.histories[:3]
    exclude: list[list[Any]] = [ITEMS[:20], [], ["item 30", "unknown", "item 30", 8]]
    hidden = [a | set(b) for a, b in zip(seen(histories), exclude, strict=True)]
    every = [list(ITEMS)] * 3
    assert served.recommend(histories, k=15, exclude=exclude).items == brute_force(served, histories, 15, hidden, every)
    hidden = [set(row) for row in exclude]
    assert served.recommend(histories, k=15, exclude=exclude, exclude_seen=False).items == brute_force(
        served, histories, 15, hidden, every
    )


def test_fault_36_with_everything_excluded_nothing_is_recommended(served: Recommender) -> None:
    answer = served.recommend([["item 01"], [], ["?"]], exclude=[ITEMS, ITEMS, ITEMS])
    assert answer.items == [[], [], []]
    assert [scores.tolist() for scores in answer.scores] == [[], [], []]


def test_available_is_all_that_anybody_gets(tiny: Tiny, served: Recommender) -> None:
    histories = [*tiny.histories[:5], [], ["?"]]
    available = ["item 04", "item 30", "item 11", "unknown", "item 36", "item 04"]
    answer = served.recommend(histories, k=20, available=available)
    known = [*available[:3], available[4]]
    assert answer.items[:5] == brute_force(served, histories[:5], 20, seen(histories[:5]), [known] * 5)
    assert answer.items[5:] == [["item 36", "item 30", "item 11", "item 04"]] * 2  # the tiny catalogue's cold start
    assert served.recommend(histories, available=[]).lengths.tolist() == [0] * 7
    assert (
        served.recommend(histories, available=np.array(known)).items
        == served.recommend(histories, available=known).items
    )


def test_fault_37_candidates_are_ranked_each_once_and_unknown_ones_dropped(tiny: Tiny, served: Recommender) -> None:
    random = np.random.default_rng(8)
    histories = tiny.histories[:14]
    candidates: list[list[Any]] = [[ITEMS[i] for i in random.integers(0, 37, n)] for n in range(14)]
    candidates[5] += ["unknown", candidates[5][0], 7]
    answer = served.recommend(histories, k=10, candidates=candidates)
    known = [[item for item in row if item in ITEMS] for row in candidates]
    assert answer.items == brute_force(served, histories, 10, seen(histories), known)
    for history, items, scores in zip(histories, answer.items, answer.scores, strict=True):
        np.testing.assert_allclose(served.score([history], [items])[0], scores, **CLOSE)
    assert answer.items[0] == []  # no candidate, no recommendation


def test_all_items_as_candidates_give_what_no_candidates_give(tiny: Tiny, served: Recommender) -> None:
    whole = served.recommend(tiny.histories, k=20)
    ranked = served.recommend(tiny.histories, k=20, candidates=[ITEMS] * len(tiny.histories))
    assert ranked.items == whole.items
    assert_close(ranked.scores, whole.scores)


def test_candidates_exclude_and_available_hold_together(tiny: Tiny, served: Recommender) -> None:
    histories = [*tiny.histories[:3], []]
    answer = served.recommend(
        histories,
        k=30,
        candidates=[ITEMS[:30]] * 4,
        exclude=[ITEMS[:10]] * 4,
        available=ITEMS[5:25],
        exclude_seen=False,
    )
    assert answer.items[:3] == brute_force(served, histories[:3], 30, [set(ITEMS[:10])] * 3, [ITEMS[10:25]] * 3)
    assert answer.items[3] == ITEMS[10:25][::-1]


def test_candidates_may_be_asked_for_more_than_k_max(served: Recommender) -> None:
    answer = served.recommend([["item 01"], []], k=30, candidates=[ITEMS, ITEMS])
    assert answer.lengths.tolist() == [30, 30]
    with pytest.raises(InputError, match=r"k \(30\) is above this bundle's 20; export with --k-max 30"):
        served.recommend([["item 01"]], k=30)


def test_equal_scores_go_to_the_lower_id(numbers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recommender = Recommender.load(numbers, device="cpu", threads=1)

    def all_equal(graph: str, inputs: dict[str, np.ndarray], deadline: float | None) -> dict[str, np.ndarray]:
        return {"scores": np.zeros(inputs["candidates"].shape, np.float32)}

    monkeypatch.setattr(recommender._search, "_run", all_equal)
    pool = [100, 5, -7, 77, 0]
    assert recommender.recommend([[3]], k=4, candidates=[pool]).items == [[-7, 0, 5, 77]]

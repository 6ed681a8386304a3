"""Rows parted, run and put together again, over an engine that answers by arithmetic."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from genrec.histories import Catalogue, ItemIds, Ragged
from genrec_runtime import batches, buckets
from genrec_runtime.errors import InferenceError
from genrec_runtime.histories import Histories
from genrec_runtime.manifest import Semantics
from genrec_runtime.search import Search

ITEMS, LIMIT = 23, 40
EVERYTHING = np.arange(ITEMS + 1) > 0


class Arithmetic:
    """An engine whose item scores and states are sums over a history; it keeps the shapes of its windows, and the newest items.

    Args:
        memory: so many rows at once it can answer.
        on_gpu: what it says of itself.
    """

    def __init__(self, memory: int = 10**9, *, on_gpu: bool = False) -> None:
        self.memory, self.on_gpu = memory, on_gpu
        self.windows: list[tuple[int, int]] = []
        self.newest: list[int] = []
        self.error = InferenceError("no memory", code="out_of_memory")

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        yield

    def run(self, graph: str, inputs: dict[str, np.ndarray], deadline: float | None = None) -> dict[str, np.ndarray]:
        ids = inputs["item_ids"]
        self.windows.append((int(ids.shape[0]), int(ids.shape[1])))
        self.newest += ids[:, -1].tolist()
        if len(ids) > self.memory:
            raise self.error
        state = ids.sum(axis=1, keepdims=True)  # (B, 1)
        if graph == "encode":
            return {"states": np.concatenate([state, (ids > 0).sum(axis=1, keepdims=True)], 1).astype(np.float32)}
        if graph == "score":
            return {"scores": (state * 100 + inputs["candidates"]).astype(np.float32)}
        scores = (state * np.arange(ITEMS + 1) % 101).astype(np.float32)  # (B, V + 1)
        scores[:, ~inputs["available"]] = -np.inf
        np.put_along_axis(scores, inputs["exclude"], -np.inf, axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :9]
        return {"items": best, "scores": np.take_along_axis(scores, best, 1)}


def searching(engine: Arithmetic, window: Any = "bucketed") -> Search:
    catalogue = Catalogue(ItemIds(range(ITEMS)), np.arange(1, ITEMS + 1))
    semantics = Semantics(0, ITEMS, LIMIT, "left", "keep_newest", window, 9, "lowest_index", "logit", None)
    running: Any = engine
    return Search(running, catalogue, semantics)


def ragged(seed: int, rows: int, longest: int) -> Ragged:
    random = np.random.default_rng(seed)
    return Ragged.from_rows([random.integers(1, ITEMS + 1, random.integers(1, longest)) for _ in range(rows)])


def listed(lists: Any) -> Any:
    return [(items.tolist(), scores.tolist()) for items, scores in lists]


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs cost nothing, so that every window gets its own; and they take 7 rows at most."""
    monkeypatch.setattr(buckets, "SLOTS_A_RUN", 0)
    monkeypatch.setattr(buckets, "ITEMS_A_SLOT", 10**9)
    monkeypatch.setattr(batches, "ROWS", 7)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("on_gpu", [False, True])
def test_answers_stand_in_the_order_of_the_rows_however_they_are_grouped(eager: None, seed: int, on_gpu: bool) -> None:
    items, pools, excluded = ragged(seed, 60, 60), ragged(seed + 100, 60, 9), ragged(seed + 200, 60, 5)
    histories = Histories(items)
    rows = np.sort(np.random.default_rng(seed).choice(60, 45, replace=False))
    engine = Arithmetic(on_gpu=on_gpu)
    search = searching(engine)
    best = listed(search.best(histories, rows, excluded, EVERYTHING, 5, None))
    ranked = listed(search.rank(histories, rows, pools, excluded, EVERYTHING, 5, None))
    scores, states = search.scores(histories, rows, pools), search.states(histories, rows, 2)
    assert len(set(engine.windows)) > 3
    for place, row in enumerate(rows.tolist()):
        alone = np.array([row])
        assert listed(search.best(histories, alone, excluded, EVERYTHING, 5, None)) == [best[place]]
        assert listed(search.rank(histories, alone, pools, excluded, EVERYTHING, 5, None)) == [ranked[place]]
        newest = items.row(row)[-LIMIT:]
        assert scores[place].tolist() == (newest.sum() * 100 + pools.row(row)).tolist()
        assert states[place].tolist() == [newest.sum(), len(newest)]


def test_runs_hold_rows_of_one_window_where_runs_are_cheap(eager: None) -> None:
    engine = Arithmetic()
    lengths = [1, 40, 3, 33, 17, 8, 9, 2, 40, 16]
    histories = Histories(Ragged.from_rows([[1] * n for n in lengths]))
    searching(engine).states(histories, np.arange(10), 2)
    # 7 rows a run, the longest first: 40, 40, 33 | 17 | 16, 9, and 8; then 3, 2, 1
    assert engine.windows == [(3, 40), (1, 32), (2, 16), (1, 8), (3, 8)]


def test_on_a_gpu_only_full_runs_part_the_rows(eager: None) -> None:
    engine = Arithmetic(on_gpu=True)
    histories = Histories(Ragged.from_rows([[1] * n for n in [1, 40, 3, 33, 17, 8, 9, 2, 40, 16]]))
    searching(engine).states(histories, np.arange(10), 2)
    assert engine.windows == [(7, 40), (3, 8)]


@pytest.mark.parametrize("on_gpu", [False, True])
def test_a_fixed_window_is_always_whole_and_rows_keep_their_order(eager: None, on_gpu: bool) -> None:
    engine = Arithmetic(on_gpu=on_gpu)
    histories = Histories(Ragged.from_rows([[n] * n for n in range(1, 11)]))
    states = searching(engine, "fixed").states(histories, np.arange(10), 2)
    assert engine.windows == [(7, LIMIT), (3, LIMIT)]
    assert engine.newest == list(range(1, 11))
    assert states.tolist() == [[n * n, n] for n in range(1, 11)]


def test_rows_that_find_no_memory_are_tried_again_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Arithmetic(memory=3)
    histories = Histories(Ragged.from_rows([[n] for n in range(1, 6)]))
    states = searching(engine).states(histories, np.arange(5), 2)
    assert [rows for rows, _ in engine.windows] == [5, 2, 3]
    assert states[:, 0].tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("rows", "tried"), [(5, [5, 2, 3]), (2, [2, 1]), (1, [1])])
def test_halves_that_find_no_memory_either_are_an_error(rows: int, tried: list[int]) -> None:
    engine = Arithmetic(memory=2 if rows > 2 else 0)
    histories = Ragged.from_rows([[1]] * rows)
    with pytest.raises(InferenceError, match="no memory") as caught:
        searching(engine).best(Histories(histories), np.arange(rows), histories, EVERYTHING, 5, None)
    assert caught.value is engine.error
    assert [count for count, _ in engine.windows] == tried


def test_another_failure_is_not_tried_again() -> None:
    engine = Arithmetic(memory=2)
    engine.error = InferenceError("lost its GPU", code="device_lost")
    with pytest.raises(InferenceError, match="lost its GPU"):
        searching(engine).states(Histories(Ragged.from_rows([[1]] * 5)), np.arange(5), 2)
    assert len(engine.windows) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_never_an_answer(monkeypatch: pytest.MonkeyPatch, bad: float) -> None:
    engine = Arithmetic()
    monkeypatch.setattr(
        engine, "run", lambda graph, inputs, deadline=None: {"scores": np.array([[1.0, bad]], np.float32)}
    )
    with pytest.raises(InferenceError, match="graph 'score' gave scores that are no numbers") as caught:
        searching(engine).scores(Histories(Ragged.from_rows([[1]])), np.arange(1), Ragged.from_rows([[1, 2]]))
    assert caught.value.code == "non_finite_scores"


def test_a_list_ends_where_nothing_more_may_be_recommended() -> None:
    histories = Ragged.from_rows([[2, 3]])
    few = np.isin(np.arange(ITEMS + 1), [2, 5, 11])
    [(items, scores)] = searching(Arithmetic()).best(Histories(histories), np.arange(1), histories, few, 9, None)
    # a history of sum 5 gives item i the score 5 * i % 101; item 2 is excluded
    assert list(zip(items.tolist(), scores.tolist(), strict=True)) == [(11, 55 % 101), (5, 25 % 101)]

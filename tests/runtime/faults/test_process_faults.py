"""Threads, the end, and copies: rows 90, 91, 94 and 95 of the catalogue of faults."""

import contextlib
import copy
import itertools
import multiprocessing
import pickle
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calls import ROWS, Gate, answer, in_threads
from genrec_runtime import BundleCorrupt, BundleNotFound, Module, Recommender
from genrec_runtime.errors import Closed
from tiny import ITEMS, Tiny

# --- threads


def test_fault_90_thirty_two_threads_answer_as_one_does(tiny: Tiny, recommender: Recommender) -> None:
    serial = Recommender.load(tiny.path, device="cpu", threads=1)
    mine = [ROWS[user:] + ROWS[:user] for user in range(32)]

    def ask(of: Recommender, rows: Any) -> Any:
        scores = of.score(rows[:4], [ITEMS[:3]] * 4)
        chosen = of.recommend(rows[:4], candidates=[ITEMS[:9]] * 4, deadline=time.monotonic() + 60)
        return answer(of, rows), [row.tolist() for row in scores], of.encode(rows[:4]).tolist(), chosen.items

    expected = [ask(serial, rows) for rows in mine]
    start = threading.Barrier(32)

    def work(user: int) -> None:
        start.wait(60)
        for _ in range(5):
            assert ask(recommender, mine[user]) == expected[user]  # to the bit: the same shapes, one thread a run

    with in_threads(*(lambda user=user: work(user) for user in range(32))):
        pass


def test_fault_90_what_is_available_changes_between_calls_never_within_one(recommender: Recommender) -> None:
    """Fewer items are available than a list is long, so one that mixed two sets would show it."""
    sets = ITEMS[:12], ITEMS[12:24]
    recommender.set_available(sets[0])
    expected = [sorted(half) for half in sets]
    seen, done = set(), threading.Event()

    def change() -> None:
        end = time.monotonic() + 60
        for turn in itertools.count():
            recommender.set_available(sets[turn % 2])
            time.sleep(0.001)
            if (turn > 300 and seen == {0, 1}) or time.monotonic() > end:
                break
        done.set()

    def ask() -> None:
        while not done.is_set():
            lists = recommender.recommend(ROWS * 20, k=20, exclude_seen=False).items  # 800 rows: two runs and more
            sets_seen = {expected.index(sorted(items)) for items in lists}
            assert len(sets_seen) == 1
            seen.update(sets_seen)

    with in_threads(change, ask, ask, ask):
        pass
    assert seen == {0, 1}


# --- ends


def test_fault_91_closing_waits_for_the_calls_under_way_to_their_last_run(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ROWS * 30  # 1200: several runs
    expected = answer(recommender, rows)
    gate, answers = Gate(recommender, monkeypatch), []
    closing = threading.Thread(target=recommender.close)
    with in_threads(lambda: answers.append(answer(recommender, rows))):
        assert gate.entered.wait(60)
        closing.start()
        while not recommender._engine._closed:
            time.sleep(0.001)
        with pytest.raises(Closed):
            recommender.recommend(ROWS)
        assert closing.is_alive()
        gate.open.set()
    closing.join(60)
    assert not closing.is_alive()
    assert answers == [expected]
    assert gate.runs > 2
    assert recommender._engine._sessions == {}


def test_fault_91_after_the_end_every_call_is_refused_and_another_close_does_nothing(recommender: Recommender) -> None:
    stream = recommender.recommend_iter(iter(ROWS), batch_size=1)
    next(stream)
    with recommender:
        pass
    recommender.close()
    for call in (
        lambda: recommender.recommend(ROWS),
        lambda: recommender.recommend([[]]),  # also where the model is not asked
        lambda: recommender.recommend([["item 01"]], candidates=[[]]),
        lambda: recommender.score([["item 01"]], [["item 02"]]),
        lambda: recommender.score([[]], [["item 02"]]),
        lambda: recommender.encode(ROWS),
        lambda: recommender.similar(["item 01"]),
        lambda: recommender.item_vectors(),
        lambda: next(stream),
        recommender.warmup,
        recommender.selftest,
    ):
        with pytest.raises(Closed, match="this was closed; load the bundle again") as caught:
            call()
        assert caught.value.code == "closed"


def test_fault_91_a_closed_module_is_refused(features: Path) -> None:
    module = Module.load(features, device="cpu", threads=1)
    module.close()
    with pytest.raises(Closed):
        module.run(item_ids=[[1]], mask=[[1]], features=np.zeros((1, 3), np.float32))


def test_fault_91_many_who_close_at_once_all_come_back(recommender: Recommender) -> None:
    def call() -> None:
        with contextlib.suppress(Closed):
            while answer(recommender):
                pass

    with in_threads(call, call, *[recommender.close] * 8):
        pass


# --- copies


def load_and_answer(pickled: bytes) -> Any:
    """In another process."""
    return answer(pickle.loads(pickled))


def test_fault_94_a_pickle_opens_the_bundle_again(tiny: Tiny) -> None:
    first = Recommender.load(tiny.path, device="cpu", threads=1, dedicated=True)
    pickled = pickle.dumps(first)
    assert len(pickled) < 2000  # where it is, not what it holds
    second = pickle.loads(pickled)
    assert second._engine is not first._engine
    assert (second.digest, second.path, second._engine.options) == (first.digest, first.path, first._engine.options)
    assert answer(second) == answer(first)
    first.close()
    assert answer(second)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
@pytest.mark.parametrize("available", [None, ITEMS[3:8], []], ids=["all", "some", "none"])
def test_fault_94_what_is_available_travels_with_a_copy(
    recommender: Recommender, again: Callable[[Recommender], Recommender], available: list[str] | None
) -> None:
    recommender.set_available(available)
    other = again(recommender)
    assert other.available == available
    assert answer(other) == answer(recommender)
    other.set_available(ITEMS[:1])
    assert recommender.available == available


def test_fault_94_a_module_is_copied(features: Path) -> None:
    module = Module.load(features, device="cpu", threads=1)
    inputs = {"item_ids": [[1, 2]], "mask": [[1, 0]], "features": np.array([[1, 2, 3]], np.float32)}
    assert {name: value.tolist() for name, value in copy.deepcopy(module).run(**inputs).items()} == {
        "kept": [[1, 0]],
        "doubled": [[2, 4, 6]],
    }


def test_fault_94_a_spawned_process_serves_the_same(recommender: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    recommender.set_available(ITEMS[:20])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply_async(load_and_answer, (pickle.dumps(recommender),)).get(120) == answer(recommender)


def flip_weights(folder: Path, other: Path) -> None:
    content = bytearray((folder / "weights.bin").read_bytes())
    content[100] ^= 1
    (folder / "weights.bin").write_bytes(content)


def replace(folder: Path, other: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(other, folder)


def remove(folder: Path, other: Path) -> None:
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("change", "kind", "message", "code"),
    [
        (flip_weights, BundleCorrupt, r"weights\.bin was changed: its sha256 is", "bundle_corrupt"),
        (replace, BundleCorrupt, "manifest.json has sha256:.*, expected sha256:", "bundle_digest"),
        (remove, BundleNotFound, "there is no bundle at", "bundle_not_found"),
    ],
)
def test_fault_95_a_bundle_that_was_changed_since_is_not_opened_by_a_pickle(
    copied: Path, numbers: Path, change: Callable[[Path, Path], None], kind: type[Exception], message: str, code: str
) -> None:
    recommender = Recommender.load(copied, device="cpu", threads=1)
    pickled, expected = pickle.dumps(recommender), answer(recommender)
    change(copied, numbers)
    with pytest.raises(kind, match=message) as caught:
        pickle.loads(pickled)
    assert caught.value.code == code
    assert answer(recommender) == expected

"""The queue in front of a recommender, with answers that are plain sums: who gets what, when, and what becomes of the rest."""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

from calls import in_threads
from genrec_runtime.errors import Closed, DeadlineExceeded
from genrec_runtime.serve.batcher import Batch, Batcher, Overloaded

Make = Callable[..., Batcher[int, int]]


class Doubling:
    """Answers a number with twice it, once the gate is open; refuses negative ones, and with 13 the whole batch."""

    def __init__(self) -> None:
        self.gate, self.entered = threading.Event(), threading.Semaphore(0)
        self.batches: list[list[int]] = []
        self.gate.set()

    def __call__(self, numbers: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(numbers))
        self.entered.release()
        assert self.gate.wait(30)
        if 13 in numbers:
            raise ArithmeticError(f"13 among {len(numbers)}")
        return [ValueError(f"{number} is negative") if number < 0 else 2 * number for number in numbers]


@pytest.fixture
def doubling() -> Doubling:
    return Doubling()


@pytest.fixture
def make(doubling: Doubling) -> Iterator[Make]:
    made: list[Batcher[int, int]] = []

    def make(**options: Any) -> Batcher[int, int]:
        made.append(Batcher(doubling, **{"max_rows": 4, "max_wait": 0.0, "max_queue": 100, **options}))
        return made[-1]

    yield make
    doubling.gate.set()
    for batcher in made:
        batcher.close(10)


def held(batcher: Batcher[int, int], doubling: Doubling) -> Future[int]:
    """A request that keeps the thread busy until the gate opens."""
    doubling.gate.clear()
    future = batcher.submit(1)
    assert doubling.entered.acquire(timeout=10)
    return future


# --- who gets what


def test_what_waits_is_answered_together_in_order_and_each_gets_its_own(make: Make, doubling: Doubling) -> None:
    batcher = make()
    first = held(batcher, doubling)
    others = [batcher.submit(number) for number in range(10, 17) if number != 13]
    doubling.gate.set()
    assert first.result(10) == 2
    assert [future.result(10) for future in others] == [20, 22, 24, 28, 30, 32]
    assert doubling.batches == [[1], [10, 11, 12, 14], [15, 16]]


@pytest.mark.parametrize("threads", [1, 3])
def test_many_callers_each_get_their_own_answer(make: Make, doubling: Doubling, threads: int) -> None:
    batcher = make(threads=threads, max_wait=0.002, max_rows=7, max_queue=1000)

    def call(seed: int) -> None:
        drawn = random.Random(seed)
        for _ in range(50):
            number, rows, key = 100 + drawn.randrange(10**6), drawn.choice([1, 1, 2, 9]), drawn.choice("ab")
            assert batcher.submit(number, rows=rows, key=key).result(30) == 2 * number

    with in_threads(*[lambda seed=seed: call(seed) for seed in range(16)]):
        pass
    assert batcher.queued == 0
    assert sum(map(len, doubling.batches)) == 16 * 50


def test_only_requests_of_one_key_go_together_and_the_oldest_goes_first(make: Make, doubling: Doubling) -> None:
    batcher = make(max_rows=3)
    held(batcher, doubling)
    futures = [batcher.submit(number, key=number % 2) for number in (20, 31, 22, 33, 24, 26)]
    doubling.gate.set()
    assert [future.result(10) for future in futures] == [40, 62, 44, 66, 48, 52]
    assert doubling.batches == [[1], [20, 22, 24], [31, 33], [26]]


def test_rows_fill_a_batch_and_a_larger_request_is_one_by_itself(make: Make, doubling: Doubling) -> None:
    batcher = make(max_rows=4)
    held(batcher, doubling)
    futures = [batcher.submit(number, rows=rows) for number, rows in [(10, 2), (11, 3), (12, 1), (14, 9), (15, 1)]]
    doubling.gate.set()
    assert [future.result(10) for future in futures] == [20, 22, 24, 28, 30]
    assert doubling.batches == [[1], [10], [11, 12], [14], [15]]


# --- when


def test_an_idle_thread_waits_for_others_no_longer_than_it_may(make: Make, doubling: Doubling) -> None:
    batcher = make(max_wait=0.2)
    start = time.monotonic()
    futures = [batcher.submit(number) for number in (10, 11)]
    assert [future.result(10) for future in futures] == [20, 22]
    assert time.monotonic() - start >= 0.2
    assert doubling.batches == [[10, 11]]


def test_a_full_batch_waits_for_nobody(make: Make, doubling: Doubling) -> None:
    batcher = make(max_wait=3600.0, max_rows=3)
    futures = [batcher.submit(number) for number in (10, 11, 12)]
    assert [future.result(10) for future in futures] == [20, 22, 24]
    assert doubling.batches == [[10, 11, 12]]


def test_fault_98_after_its_deadline_nothing_is_computed_for_a_request(make: Make, doubling: Doubling) -> None:
    batcher = make()
    held(batcher, doubling)
    late, early = (batcher.submit(number, deadline=time.monotonic() + left) for number, left in ((10, 0.01), (11, 60)))
    time.sleep(0.02)
    doubling.gate.set()
    with pytest.raises(DeadlineExceeded, match="while the request waited in the queue"):
        late.result(10)
    assert early.result(10) == 22
    assert doubling.batches == [[1], [11]]


# --- errors


def test_fault_100_an_error_in_an_answers_place_reaches_its_caller_alone(make: Make, doubling: Doubling) -> None:
    batcher = make()
    held(batcher, doubling)
    good, bad = batcher.submit(10), batcher.submit(-3)
    doubling.gate.set()
    assert good.result(10) == 20
    with pytest.raises(ValueError, match="-3 is negative"):
        bad.result(10)


@pytest.mark.parametrize("place", range(7))
def test_fault_100_a_batch_that_fails_is_halved_until_only_the_guilty_fails(
    make: Make, doubling: Doubling, place: int
) -> None:
    batcher = make(max_rows=7)
    held(batcher, doubling)
    numbers = [20, 21, 22, 23, 24, 25]
    numbers.insert(place, 13)
    futures = [batcher.submit(number) for number in numbers]
    doubling.gate.set()
    for number, future in zip(numbers, futures, strict=True):
        if number == 13:
            with pytest.raises(ArithmeticError, match="13 among 1"):
                future.result(10)
        else:
            assert future.result(10) == 2 * number
    assert len(doubling.batches) <= 1 + 1 + 2 * 3  # the first, the whole, and both halves of three levels


def test_an_error_that_speaks_against_all_is_tried_once(make: Make, doubling: Doubling) -> None:
    batcher = make(is_fatal=lambda error: isinstance(error, ArithmeticError))
    held(batcher, doubling)
    futures = [batcher.submit(number) for number in (10, 13, 11)]
    doubling.gate.set()
    for future in futures:
        with pytest.raises(ArithmeticError, match="13 among 3"):
            future.result(10)
    assert doubling.batches == [[1], [10, 13, 11]]
    assert batcher.submit(14).result(10) == 28


def test_a_wrong_number_of_answers_is_an_error_of_the_request(make: Make) -> None:
    batcher: Batcher[int, int] = Batcher(lambda numbers: [], max_rows=4, max_wait=0.0, max_queue=9)
    with pytest.raises(RuntimeError, match="1 requests got 0 answers"):
        batcher.submit(10).result(10)
    batcher.close(10)


def test_a_fault_of_ours_ends_neither_the_thread_nor_the_wait(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    batcher = make()

    def fail(*_: Any) -> None:
        raise SystemExit("ours")

    monkeypatch.setattr(batcher, "_run", fail)
    with pytest.raises(RuntimeError, match=r"the batch failed: SystemExit\('ours'\)"):
        batcher.submit(10).result(10)
    monkeypatch.undo()
    assert batcher.submit(10).result(10) == 20
    assert "a batch failed" in caplog.text


def test_who_is_told_of_batches_may_fail(make: Make, doubling: Doubling, caplog: pytest.LogCaptureFixture) -> None:
    told: list[Batch] = []

    def tell(batch: Batch) -> None:
        told.append(batch)
        raise KeyError("told")

    batcher = make(on_batch=tell, max_rows=5)
    held(batcher, doubling)
    futures = [batcher.submit(10, rows=2), batcher.submit(11)]
    doubling.gate.set()
    assert [future.result(10) for future in futures] == [20, 22]
    assert batcher.submit(12).result(10) == 24
    batcher.close(10)
    assert [(batch.requests, batch.rows) for batch in told] == [(1, 1), (2, 3), (1, 1)]
    assert all(batch.waited >= 0 and batch.seconds > 0 for batch in told)
    assert "on_batch failed" in caplog.text


# --- bounds


def test_fault_99_a_full_queue_refuses_at_once_and_says_when_to_come_back(make: Make, doubling: Doubling) -> None:
    batcher = make(max_queue=5)
    held(batcher, doubling)
    futures = [batcher.submit(10, rows=3), batcher.submit(11, rows=2)]
    assert batcher.queued == 5
    with pytest.raises(Overloaded, match="5 rows wait already; try again in 1 s") as caught:
        batcher.submit(12)
    assert (caught.value.code, caught.value.retry_after) == ("overloaded", 1)
    doubling.gate.set()
    assert [future.result(10) for future in futures] == [20, 22]
    assert batcher.submit(12).result(10) == 24


def test_fault_96_a_cancelled_request_gives_its_place_back_and_disturbs_no_other(
    make: Make, doubling: Doubling
) -> None:
    batcher = make(max_queue=3)
    held(batcher, doubling)
    futures = [batcher.submit(number) for number in (10, 11, 12)]
    assert futures[1].cancel()
    assert batcher.queued == 2
    last = batcher.submit(14)
    doubling.gate.set()
    assert [future.result(10) for future in (futures[0], futures[2], last)] == [20, 24, 28]
    with pytest.raises(CancelledError):
        futures[1].result(10)
    assert doubling.batches == [[1], [10, 12, 14]]


def test_fault_96_a_cancelled_task_cancels_its_request(make: Make, doubling: Doubling) -> None:
    batcher = make()
    held(batcher, doubling)

    async def ask() -> int:
        one, two = (asyncio.ensure_future(asyncio.wrap_future(batcher.submit(number))) for number in (10, 11))
        one.cancel()
        await asyncio.sleep(0)
        assert batcher.queued == 1
        doubling.gate.set()
        return await two

    assert asyncio.run(ask()) == 22
    assert doubling.batches == [[1], [11]]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"max_rows": 0}, r"max_rows \(0\)"),
        ({"max_queue": 0}, r"max_queue \(0\)"),
        ({"threads": 0}, r"threads \(0\)"),
        ({"max_wait": -1.0}, r"max_wait \(-1.0\)"),
        ({"max_wait": float("nan")}, r"max_wait \(nan\)"),
    ],
)
def test_a_number_out_of_range_is_refused(make: Make, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make(**options)


def test_a_request_without_rows_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match=r"rows \(0\) must be at least 1"):
        make().submit(10, rows=0)


# --- the end


def test_closing_answers_what_waits_and_refuses_what_comes(make: Make, doubling: Doubling) -> None:
    batcher = make(max_wait=3600.0)
    futures = [batcher.submit(number) for number in (10, 11)]
    assert batcher.close(10)
    assert [future.result(0) for future in futures] == [20, 22]
    with pytest.raises(Closed, match="the service ends"):
        batcher.submit(12)
    assert batcher.close(10)


def test_what_cannot_be_answered_in_time_is_told_so(make: Make, doubling: Doubling) -> None:
    batcher = make()
    running = held(batcher, doubling)
    waiting = batcher.submit(10)
    assert not batcher.close(0.01)
    for future in (running, waiting):
        with pytest.raises(Closed, match="before this request was answered"):
            future.result(0)
    assert batcher.queued == 0
    doubling.gate.set()
    assert batcher.close(10)  # the thread got over it


def test_no_thread_is_left(make: Make) -> None:
    before = threading.active_count()
    batcher = make(threads=3)
    assert threading.active_count() == before + 3
    batcher.close(10)
    assert threading.active_count() == before

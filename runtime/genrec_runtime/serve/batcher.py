"""Micro-batches: what arrives one by one is answered together. Knows nothing of models, nor of HTTP."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from genrec_runtime.errors import Closed, DeadlineExceeded, GenrecError

Q = TypeVar("Q")
A = TypeVar("A")
_log = logging.getLogger(__name__)


class Overloaded(GenrecError):
    """The queue is full.

    Args:
        queued: rows that wait.
        retry_after: seconds after which they are likely answered.
    """

    code = "overloaded"

    def __init__(self, queued: int, retry_after: int) -> None:
        super().__init__(f"{queued} rows wait already; try again in {retry_after} s")
        self.retry_after = retry_after


@dataclass(frozen=True)
class Batch:
    """What became of a batch.

    Attributes:
        requests: how many it held.
        rows: their rows.
        waited: seconds that the oldest of them had waited.
        seconds: that it took to answer.
    """

    requests: int
    rows: int
    waited: float
    seconds: float


@dataclass(eq=False, slots=True)
class _Job(Generic[Q, A]):
    query: Q
    rows: int
    key: Hashable
    deadline: float | None
    future: Future[A] = field(default_factory=Future)
    entered: float = field(default_factory=time.monotonic)


class Batcher(Generic[Q, A]):
    """Gathers requests in a bounded queue and answers them in batches, in threads of its own.

    A batch is begun when its rows are enough, or when the oldest request has waited long enough; while all threads are busy,
    the next one gathers. Within a key the order is kept, and the oldest request of all is always in the next batch.

    Args:
        answer: the answers to some requests of one key, one for each, in order; an exception in an answer's place is raised
            to that caller alone. If it raises, the batch is halved until only the guilty fail.
        max_rows: rows a batch; a request that has more by itself is a batch of its own.
        max_wait: seconds that a request may wait for others while a thread is idle.
        max_queue: rows that may wait.
        threads: batches that may be under way at once.
        is_fatal: whether an error speaks against every request, so that halving were in vain.
        on_batch: is told of every batch, by the thread that answered it.

    Raises:
        ValueError: if a number is out of its range.
    """

    def __init__(
        self,
        answer: Callable[[list[Q]], Sequence[A | Exception]],
        *,
        max_rows: int,
        max_wait: float,
        max_queue: int,
        threads: int = 1,
        is_fatal: Callable[[Exception], bool] = lambda error: False,
        on_batch: Callable[[Batch], object] = lambda batch: None,
    ) -> None:
        if min(max_rows, max_queue, threads) < 1 or not 0 <= max_wait <= threading.TIMEOUT_MAX:
            raise ValueError(
                f"max_rows ({max_rows}), max_queue ({max_queue}) and threads ({threads}) must be at least 1, "
                f"max_wait ({max_wait}) seconds"
            )
        self._answer, self._is_fatal, self._on_batch = answer, is_fatal, on_batch
        self._max_rows, self._max_wait, self._max_queue = max_rows, max_wait, max_queue
        self._changed = threading.Condition()
        self._queue: deque[_Job[Q, A]] = deque()
        self._running: set[_Job[Q, A]] = set()
        self._rows = 0
        self._seconds_a_row = 0.0
        self._is_closing = False
        self._threads = [
            threading.Thread(target=self._work, name=f"genrec-batch-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def queued(self) -> int:
        """Rows that wait."""
        return self._rows

    def submit(self, query: Q, *, rows: int = 1, key: Hashable = None, deadline: float | None = None) -> Future[A]:
        """Puts a request in the queue.

        Args:
            query: the request.
            rows: how much of a batch it takes, at least 1.
            key: only requests of equal keys are answered together.
            deadline: an instant of ``time.monotonic()`` after which no work is begun for it.

        Returns:
            What will hold the answer, or the request's own error. Cancelling it gives its place in the queue back.

        Raises:
            ValueError: if ``rows`` is below 1.
            Overloaded: if the queue is full.
            Closed: if the batcher was closed.
        """
        if rows < 1:
            raise ValueError(f"rows ({rows}) must be at least 1")
        job: _Job[Q, A] = _Job(query, rows, key, deadline)
        with self._changed:
            if self._is_closing:
                raise Closed("no more requests are taken: the service ends")
            if self._rows + rows > self._max_queue:
                raise Overloaded(self._rows, min(60, 1 + math.floor(self._rows * self._seconds_a_row)))
            self._queue.append(job)
            self._rows += rows
            if len(self._queue) == 1 or self._rows >= self._max_rows:  # else somebody waits for just that already
                self._changed.notify()
        job.future.add_done_callback(lambda future: self._forget(job) if future.cancelled() else None)
        return job.future

    def close(self, timeout: float) -> bool:
        """Takes no more requests and answers those that it has; what is unanswered in the end gets ``Closed``.

        Args:
            timeout: seconds that this may take.

        Returns:
            Whether everything was answered, and all threads have ended.
        """
        end = time.monotonic() + timeout
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        with self._changed:
            left = [*self._queue, *self._running]
            self._queue.clear()
            self._rows = 0
            self._changed.notify_all()
        for job in left:
            _settle(job, Closed("the service ended before this request was answered"))
        return not left and not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while jobs := self._next():
            try:
                if live := [job for job in jobs if self._is_wanted(job)]:
                    self._run(live)
            except BaseException as error:  # of our own making: the thread must live on, and nobody wait for ever
                _log.exception("a batch failed")
                for job in jobs:
                    _settle(job, RuntimeError(f"the batch failed: {error!r}"))
            with self._changed:
                self._running.difference_update(jobs)

    def _next(self) -> list[_Job[Q, A]]:
        """The jobs of the next batch, once it is time; none at the end."""
        with self._changed:
            while True:
                if not self._queue:
                    if self._is_closing:
                        return []
                    self._changed.wait()
                    continue
                left = self._queue[0].entered + self._max_wait - time.monotonic()
                if left <= 0 or self._rows >= self._max_rows or self._is_closing:
                    return self._take()
                self._changed.wait(left)

    def _take(self) -> list[_Job[Q, A]]:
        """The oldest job and those that go with it."""
        taken: list[_Job[Q, A]] = []
        others: list[_Job[Q, A]] = []
        rows, key = 0, self._queue[0].key
        while self._queue and rows < self._max_rows:
            job = self._queue.popleft()
            if job.key != key:
                others.append(job)
                continue
            if taken and rows + job.rows > self._max_rows:
                others.append(job)
                break
            taken.append(job)
            rows += job.rows
        self._queue.extendleft(reversed(others))
        self._rows -= rows
        self._running.update(taken)
        if self._queue:
            self._changed.notify()
        return taken

    def _is_wanted(self, job: _Job[Q, A]) -> bool:
        """Whether somebody waits for a job that is about to be run."""
        if job.future.done():
            return False
        if job.deadline is not None and time.monotonic() >= job.deadline:
            _settle(job, DeadlineExceeded("the deadline passed while the request waited in the queue"))
            return False
        return job.future.set_running_or_notify_cancel()

    def _run(self, jobs: list[_Job[Q, A]]) -> None:
        start, rows = time.monotonic(), sum(job.rows for job in jobs)
        for job, outcome in zip(jobs, self._outcomes([job.query for job in jobs]), strict=True):
            _settle(job, outcome)
        seconds = time.monotonic() - start
        self._seconds_a_row += 0.1 * (seconds / rows - self._seconds_a_row)
        try:
            self._on_batch(Batch(len(jobs), rows, start - jobs[0].entered, seconds))
        except Exception:
            _log.exception("on_batch failed")

    def _outcomes(self, queries: list[Q]) -> list[A | Exception]:
        """An answer or an error for each, of which only the guilty have one."""
        try:
            outcomes = list(self._answer(queries))
            if len(outcomes) != len(queries):
                raise RuntimeError(f"{len(queries)} requests got {len(outcomes)} answers")
            return outcomes
        except Exception as error:
            if len(queries) == 1 or self._is_fatal(error):
                return [error] * len(queries)
        half = len(queries) // 2
        return self._outcomes(queries[:half]) + self._outcomes(queries[half:])

    def _forget(self, job: _Job[Q, A]) -> None:
        """Gives the place of a cancelled job back, unless its batch was formed already."""
        with self._changed, contextlib.suppress(ValueError):
            self._queue.remove(job)
            self._rows -= job.rows


def _settle(job: _Job[Any, Any], outcome: Any) -> None:
    with contextlib.suppress(InvalidStateError):  # cancelled, or closed meanwhile
        if isinstance(outcome, Exception):
            job.future.set_exception(outcome)
        else:
            job.future.set_result(outcome)

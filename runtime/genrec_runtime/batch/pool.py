"""Processes that work on parts: one that dies is noticed, its part done again; none outlives the one that started them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Generic, TypeVar

from genrec_runtime.errors import GenrecError

T = TypeVar("T")
R = TypeVar("R")

TRIES = 3  # of a part whose process dies
PATIENCE = 5.0  # seconds that a process has to end when it is told to


def in_processes(work: Callable[[T], R], parts: Sequence[T], processes: int, threads: int) -> Generator[R, None, None]:
    """The results of ``work`` on every part, in the order in which they come.

    Args:
        work: what each process does, picklable; its effects must bear being repeated.
        parts: what it is given, picklable.
        processes: how many at a time, started anew (spawn).
        threads: of each, for the libraries that are told by the environment.

    Raises:
        GenrecError: if a part's process died ``TRIES`` times.
        Exception: what ``work`` raises.
    """
    waiting, died = deque(range(len(parts))), Counter[int]()
    workers: list[_Worker[T, R]] = []
    try:
        while waiting or workers:
            while waiting and len(workers) < processes:
                workers.append(_Worker(work, threads))
                workers[-1].give(waiting[0], parts[waiting.popleft()])
            for connection in wait([worker.connection for worker in workers]):
                worker = next(worker for worker in workers if worker.connection is connection)
                try:
                    result = worker.connection.recv()
                except (EOFError, OSError):  # also in the middle of a message
                    workers.remove(worker)
                    worker.process.join()
                    died[worker.number] += 1
                    if died[worker.number] == TRIES:
                        raise _hopeless(worker) from None
                    waiting.appendleft(worker.number)
                    continue
                if isinstance(result, BaseException):
                    raise result
                if waiting:
                    worker.give(waiting[0], parts[waiting.popleft()])
                else:
                    workers.remove(worker)
                    worker.end()
                yield result
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.end()


class _Worker(Generic[T, R]):
    """A process and the part that it has."""

    def __init__(self, work: Callable[[T], R], threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work, threads), daemon=True)
        self.process.start()
        theirs.close()  # else its end would never be seen
        self.number = -1

    def give(self, number: int, part: T) -> None:
        self.number = number
        with contextlib.suppress(OSError):  # it is dead, which the next look finds
            self.connection.send(part)

    def end(self) -> None:
        self.connection.close()
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _serve(connection: Connection, work: Callable[[T], R], threads: int) -> None:
    """What a process does: parts in, results out, until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all: who started this one ends it
    os.environ.setdefault("POLARS_MAX_THREADS", str(threads))
    warnings.showwarning = lambda message, *_, **__: _say(f"warning: {' '.join(str(message).split())}")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            part = connection.recv()
        except EOFError:
            return
        try:
            connection.send(work(part))
        except Exception as error:
            connection.send(_portable(error))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """An error that can be pickled, whatever libraries the other side has loaded."""
    if isinstance(error, (GenrecError, OSError, ImportError)):
        return error
    return GenrecError(f"{type(error).__name__}: {error}")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _hopeless(worker: _Worker[T, R]) -> GenrecError:
    code = worker.process.exitcode or 0
    how = f"signal {-code}, {signal.strsignal(-code)}" if code < 0 else f"exit code {code}"
    hint = "; perhaps memory ran out: try fewer processes or smaller parts" if code == -signal.SIGKILL else ""
    return GenrecError(f"the process at part {worker.number} died {TRIES} times ({how}){hint}", code="worker_died")

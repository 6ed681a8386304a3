"""Calls of the tiny recommender, in threads, and a way to hold them up in the middle."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from genrec_runtime import Recommender
from tiny import ITEMS

ROWS = [[ITEMS[(7 * user + 3 * step) % 37] for step in range(user % 9)] for user in range(40)]


def answer(recommender: Recommender, rows: Sequence[Any] = ROWS, **options: Any) -> Any:
    found = recommender.recommend(rows, k=5, **options)
    return found.items, [scores.tolist() for scores in found.scores], found.status


class Gate:
    """Holds runs up inside the engine until it is opened."""

    def __init__(self, recommender: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.open, self.runs = threading.Event(), threading.Event(), 0
        execute = recommender._engine._execute

        def wait(*arguments: Any) -> Any:
            self.runs += 1
            self.entered.set()
            assert self.open.wait(60)
            return execute(*arguments)

        monkeypatch.setattr(recommender._engine, "_execute", wait)


@contextlib.contextmanager
def in_threads(*targets: Callable[[], Any]) -> Iterator[None]:
    """Runs functions at once, each in a thread, to their end; what one of them raises is raised here."""
    errors: list[BaseException] = []

    def run(target: Callable[[], Any]) -> None:
        try:
            target()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    if errors:
        raise errors[0]

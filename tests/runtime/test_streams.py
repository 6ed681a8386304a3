"""Cutting a stream into batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from genrec_runtime.streams import batched


def failing(rows: int, error: BaseException) -> Iterator[int]:
    yield from range(rows)
    raise error


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 7])
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_every_row_comes_once_in_order_and_all_batches_but_the_last_are_full(rows: int, size: int) -> None:
    batches = list(batched(iter(range(rows)), size))
    assert [row for batch in batches for row in batch] == list(range(rows))
    assert [len(batch) for batch in batches] == [size] * (rows // size) + [rows % size] * (rows % size > 0)


def test_an_endless_stream_is_read_a_batch_at_a_time() -> None:
    taken: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            taken.append(len(taken))
            yield taken[-1]

    batches = batched(endless(), 3)
    assert taken == []
    assert next(batches) == [0, 1, 2]
    assert next(batches) == [3, 4, 5]
    assert len(taken) == 6


@pytest.mark.parametrize(("rows", "before"), [(0, []), (2, [[0, 1]]), (3, [[0, 1], [2]])])
def test_what_a_failing_stream_gave_comes_before_its_own_error(rows: int, before: list[list[int]]) -> None:
    error = OSError("the file ended in the middle of a line")
    batches, seen = batched(failing(rows, error), 2), []
    with pytest.raises(OSError, match="in the middle of a line") as caught:
        seen.extend(iter(lambda: next(batches), None))
    assert caught.value is error
    assert seen == before


def test_an_interrupt_is_not_held_back() -> None:
    batches = batched(failing(3, KeyboardInterrupt()), 2)
    assert next(batches) == [0, 1]
    with pytest.raises(KeyboardInterrupt):
        next(batches)


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "2", None])
def test_a_size_that_no_batch_can_have_is_refused(size: Any) -> None:
    with pytest.raises(ValueError, match=r"batch_size \(.*\) must be a whole number of at least 1"):
        next(batched([1, 2, 3], size))

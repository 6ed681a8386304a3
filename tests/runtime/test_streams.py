"""Cutting a stream into batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from genrec_runtime.errors import InputError
from genrec_runtime.streams import batched, batches_of


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


# --- streams beside one another


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_streams_are_cut_at_the_same_places(size: int) -> None:
    streams = {"histories": iter("abcde"), "users": iter(range(5))}
    found = list(batches_of(streams, size))
    assert [row for batch in found for row in batch["histories"]] == list("abcde")
    assert [row for batch in found for row in batch["users"]] == list(range(5))
    assert [len(batch["users"]) for batch in found] == [len(batch["histories"]) for batch in found]
    assert [batch["histories"] for batch in batches_of({"histories": "abcde"}, size)] == [b["histories"] for b in found]


def test_what_came_before_a_failing_stream_is_whole() -> None:
    error = OSError("the file of users ended")
    batches = batches_of({"histories": iter("abcde"), "users": failing(3, error)}, 2)
    assert [next(batches), next(batches)] == [
        {"histories": ["a", "b"], "users": [0, 1]},
        {"histories": ["c"], "users": [2]},
    ]
    with pytest.raises(OSError, match="of users ended") as caught:
        next(batches)
    assert caught.value is error


@pytest.mark.parametrize("users", [0, 2, 4])
def test_a_stream_that_ends_first_is_named(users: int) -> None:
    first, other = ("users", "histories") if users < 3 else ("histories", "users")
    batches, seen = batches_of({"histories": "abc", "users": range(users)}, 2), []
    with pytest.raises(InputError, match=f"^{first} ends after {min(users, 3)} rows, and {other} goes on") as caught:
        seen.extend(batches)
    assert (caught.value.code, caught.value.field) == ("row_count", first)


def test_streams_without_rows_give_no_batch() -> None:
    assert list(batches_of({"histories": [], "users": []}, 2)) == []

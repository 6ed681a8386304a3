"""Cutting streams into batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from genrec_runtime.errors import InputError

T = TypeVar("T")
_END = object()


def batches_of(streams: Mapping[str, Iterable[Any]], size: int) -> Iterator[dict[str, Any]]:
    """Batches of streams that run beside one another: for each stream's name a list; see ``batched``.

    Raises:
        ValueError: if ``size`` is no whole number of at least 1.
        InputError: where one stream ends before another, after the batch of what came before.

    >>> list(batches_of({"histories": "abc", "users": [1, 2, 3]}, 2))
    [{'histories': ['a', 'b'], 'users': [1, 2]}, {'histories': ['c'], 'users': [3]}]
    """
    if len(streams) == 1:
        [(name, rows)] = streams.items()
        for batch in batched(rows, size):
            yield {name: batch}
        return
    for together in batched(_together(streams), size):
        yield dict(zip(streams, map(list, zip(*together, strict=True)), strict=True))


def batched(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` rows, the last one shorter; where the stream fails, what it gave so far comes before its error.

    Raises:
        ValueError: if ``size`` is no whole number of at least 1.

    >>> list(batched(iter("abcde"), 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    if type(size) is not int or size < 1:
        raise ValueError(f"batch_size ({size!r}) must be a whole number of at least 1")
    batch: list[T] = []
    failure = None
    stream = iter(rows)
    while failure is None:
        try:
            batch.append(next(stream))
        except StopIteration:
            break
        except Exception as error:
            failure = error
        else:
            if len(batch) == size:
                yield batch
                batch = []
    if batch:
        yield batch
    if failure is not None:
        raise failure


def _together(streams: Mapping[str, Iterable[Any]]) -> Iterator[tuple[Any, ...]]:
    for count, row in enumerate(itertools.zip_longest(*streams.values(), fillvalue=_END)):
        ended = [name for name, value in zip(streams, row, strict=True) if value is _END]
        if ended:
            going_on = next(name for name in streams if name not in ended)
            message = f"{ended[0]} ends after {count} rows, and {going_on} goes on; pass one entry for each history"
            raise InputError(message, code="row_count", field=ended[0], value=count)
        yield row

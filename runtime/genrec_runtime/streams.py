"""Cutting a stream into batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


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

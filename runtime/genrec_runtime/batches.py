"""Cutting a call into runs of bounded memory, and rows of item indices as sets."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from genrec.histories import Ints, Ragged

ROWS = 512  # rows a run at most
CELLS = 1 << 20  # entries of one padded input a run
SCORES = 1 << 26  # scores (rows times catalogue) a run: 256 MiB, and a few times that while the best are looked for

SHORT = 256  # values of a row: sorting out so few that occur twice takes longer than using them twice


def rows_a_run(num_items: int) -> int:
    """How many rows may be scored against the whole catalogue at once.

    >>> rows_a_run(1_000), rows_a_run(2**20)
    (512, 64)
    """
    return max(1, min(ROWS, SCORES // num_items))


def chunks(rows: Ints, widths: Ints, most: int) -> Iterator[Ints]:
    """Parts of ``rows``, at most ``most`` each, and fewer where the widest of them, padded, would take too much memory.

    Args:
        rows: row numbers.
        widths: int64 (B,), the padded input's width of each row of the call.
        most: rows a part.

    >>> [part.tolist() for part in chunks(np.arange(4), np.array([1, CELLS, 1, 1]), 3)]
    [[0], [1], [2], [3]]
    """
    for start in range(0, len(rows), most):
        part = rows[start : start + most]
        step = max(1, CELLS // max(1, int(widths[part].max())))
        for first in range(0, len(part), step):
            yield part[first : first + step]


def take(ragged: Ragged, rows: Ints) -> Ragged:
    """The chosen rows, whole."""
    if len(rows) == len(ragged) and (len(rows) == 1 or np.array_equal(rows, np.arange(len(rows)))):
        return ragged
    return ragged.slices(rows, np.zeros(len(rows), np.int64), ragged.lengths[rows])


def union(*parts: Ragged) -> Ragged:
    """Row by row the distinct values of all parts, ascending.

    Args:
        parts: item numbers, all of as many rows; the largest number times the rows must fit int64.

    >>> union(Ragged.from_rows([[3, 1, 3], []]), Ragged.from_rows([[2], [5]])).values.tolist()
    [1, 2, 3, 5]
    """
    span = 1 + max(int(part.values.max(initial=0)) for part in parts)
    bases = np.arange(len(parts[0]) + 1) * span  # one sort of row * span + value sorts rows and their values
    keys = [np.repeat(bases[:-1], part.lengths) for part in parts]
    for part, of_part in zip(parts, keys, strict=True):
        of_part += part.values
    joined = keys[0] if len(keys) == 1 else np.concatenate(keys)
    joined.sort()
    first = np.ones(len(joined), dtype=np.bool_)
    np.not_equal(joined[1:], joined[:-1], out=first[1:])
    distinct = joined[first]
    return Ragged(distinct % span, np.searchsorted(distinct, bases))


def joined(parts: list[Ragged], rows: int) -> Ragged:
    """What all parts hold, row by row; a value may occur twice, but no row is much longer than it need be.

    Args:
        parts: item numbers, each of ``rows`` rows.
        rows: how many there are, where there is no part.

    >>> joined([], 2).lengths.tolist()
    [0, 0]
    """
    if not parts:
        return Ragged(np.zeros(0, np.int64), np.zeros(rows + 1, np.int64))
    return parts[0] if len(parts) == 1 and parts[0].lengths.max(initial=0) <= SHORT else union(*parts)

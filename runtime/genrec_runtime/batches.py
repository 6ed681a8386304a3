"""Cutting a call into runs of bounded memory, and rows of item indices as sets."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from genrec.histories import Ints, Ragged, offsets_of

ROWS = 512  # rows a run at most
CELLS = 1 << 20  # entries of one padded input a run
SCORES = 1 << 26  # scores (rows times catalogue) a run


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
    return ragged.slices(rows, np.zeros(len(rows), np.int64), ragged.lengths[rows])


def union(*parts: Ragged) -> Ragged:
    """Row by row the distinct values of all parts, ascending.

    >>> union(Ragged.from_rows([[3, 1, 3], []]), Ragged.from_rows([[2], [5]])).values.tolist()
    [1, 2, 3, 5]
    """
    count = len(parts[0])
    rows = np.concatenate([np.repeat(np.arange(count), part.lengths) for part in parts])
    values = np.concatenate([part.values for part in parts])
    order = np.lexsort((values, rows))
    rows, values = rows[order], values[order]
    first = np.ones(len(values), dtype=np.bool_)
    first[1:] = (rows[1:] != rows[:-1]) | (values[1:] != values[:-1])
    return Ragged(values[first], offsets_of(np.bincount(rows[first], minlength=count)))

"""Which list holds which item, and how many items each two lists share: what diversity is computed from, at any scale."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Hashable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec.histories import Ragged
from genrec.metrics.lists import Lists, as_rows

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Rows = NDArray[np.integer[Any]] | Ragged | Sequence[Collection[Hashable]]
_PAIRS_A_BLOCK = 1 << 17  # 1 MB of counts, which a core's cache holds
_LISTS_A_BLOCK = 64  # at least so many lists go through a matrix product together
_MOST_COMMON = 1024  # items at most that go through matrix products: 4 bytes an item and list


def plain_rows(lists: Lists, name: str) -> Rows:
    """Lists with which no more can be wrong: whole numbers in a matrix or a ``Ragged`` as they are, any others in Python lists.

    Raises:
        TypeError: if a user's ids are no list.
        ValueError: if an array has not two axes.
    """
    if isinstance(lists, Ragged):
        return lists
    if hasattr(lists, "__array__"):
        matrix = np.asarray(lists)
        if matrix.ndim == 2 and matrix.dtype.kind in "iu":
            return matrix
    return as_rows(lists, name)


class Incidence:
    """The distinct items of lists as an inverted index: the lists of the first item, then those of the next.

    Args:
        rows: as ``plain_rows`` gives them; the order within a list does not matter.

    Attributes:
        lists: int64 (E,), the list of each entry; the entries of an item side by side, their lists ascending.
        first: int64 (I,), where in ``lists`` the entries of each item begin.
        sizes: int64 (B,), how many distinct items each list holds.
    """

    def __init__(self, rows: Rows) -> None:
        numbers, lengths = _numbered(rows)
        count = max(len(lengths), 1)
        keys = numbers * count + np.repeat(np.arange(len(lengths)), lengths)
        keys.sort()
        items, self.lists = np.divmod(keys[_begins(keys)], count)
        self.first: Ints = np.flatnonzero(_begins(items))
        self.sizes: Ints = np.bincount(self.lists, minlength=len(lengths))


class Overlaps:
    """The similarity of all pairs of lists, from how many items they share.

    Rare items are counted through the inverted index: each entry of a list meets the entries of its item in the lists
    before. The few items that a twelfth of all lists hold would meet too many, and go through a matrix product.

    Args:
        rows: as of ``Incidence``.

    Attributes:
        common: how many items go through the matrix product.
    """

    def __init__(self, rows: Rows) -> None:
        index = Incidence(rows)
        self._sizes: Floats = np.maximum(index.sizes, 1).astype(np.float64)  # empty lists share nothing: any size does
        holders = np.diff(index.first, append=len(index.lists))  # lists that hold each item
        common = np.argsort(-holders, kind="stable")[:_MOST_COMMON]
        common = common[holders[common] > max(len(self._sizes) / 12, 64)]
        self.common = len(common)
        column = np.full(len(holders), -1)
        column[common] = np.arange(len(common))
        columns = np.repeat(column, holders)
        rare = columns < 0
        self._dense = np.zeros((len(self._sizes), len(common)), dtype=np.float32)  # (B, common)
        self._dense[index.lists[~rare], columns[~rare]] = 1

        self._index = index.lists[rare]
        holders = holders[column < 0]
        first = np.repeat(np.cumsum(holders) - holders, holders)
        order = np.argsort(self._index, kind="stable")  # entries by list
        self._first = first[order]  # where in the index the item of each entry begins
        self._earlier = (np.arange(len(first)) - first)[order]  # how many lists before an entry's own hold its item
        self._lists = self._index[order]
        self._bounds = np.searchsorted(self._lists, np.arange(len(self._sizes) + 1))

    def summed_similarity(self) -> float:
        """The sum of |A and B| / |A or B| over all pairs of lists; a pair of empty lists adds nothing."""
        total, count = 0.0, len(self._sizes)
        for top in range(0, count, _LISTS_A_BLOCK):
            bottom = min(top + _LISTS_A_BLOCK, count)
            product = self._dense[top:bottom] @ self._dense[:bottom].T  # (bottom - top, bottom)
            height = max(_PAIRS_A_BLOCK // bottom, 1)
            for start in range(top, bottom, height):
                end = min(start + height, bottom)
                total += self._similarity(start, end, product[start - top : end - top, :end])
        return total

    def _similarity(self, start: int, end: int, product: NDArray[np.float32]) -> float:
        """The summed similarity of each of the lists start..end to the lists before it."""
        shared: NDArray[Any] = self._shared(start, end)  # (end - start, end)
        if self.common:
            shared = shared + np.tril(product, k=start - 1)
        either = self._sizes[start:end, None] + self._sizes[:end]
        either -= shared
        return float(np.divide(shared, either, out=either).sum())

    def _shared(self, start: int, end: int) -> Ints:
        """How many rare items each of the lists start..end shares with each list before it: (end - start, end)."""
        entries = slice(self._bounds[start], self._bounds[end])
        met = self._earlier[entries]
        gaps = self._first[entries] - (np.cumsum(met) - met)  # from a run in the result to the same in the index
        places = np.repeat(gaps, met)
        places += np.arange(len(places))
        others = self._index[places]
        others += np.repeat((self._lists[entries] - start) * end, met)
        return np.bincount(others, minlength=(end - start) * end).reshape(-1, end)


def _numbered(rows: Rows) -> tuple[Ints, Ints]:
    """Whole numbers from 0 for the ids of all lists in turn, one for each distinct id, and each list's length."""
    flat: NDArray[Any]
    if isinstance(rows, np.ndarray):
        flat, lengths = rows.ravel(), np.full(len(rows), rows.shape[1])
    elif isinstance(rows, Ragged):
        flat, lengths = rows.values[rows.offsets[0] : rows.offsets[-1]], rows.lengths
    else:
        flat = _as_integers(list(chain.from_iterable(rows)))
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    if not flat.size:
        return np.zeros(0, np.int64), lengths
    if (int(flat.max()) - int(flat.min())) * len(lengths) >= 1 << 62:
        flat = np.unique(flat, return_inverse=True)[1].reshape(-1)
    return flat.astype(np.int64) - flat.min().astype(np.int64), lengths


def _as_integers(ids: list[Any]) -> Ints:
    """The ids themselves where all are whole numbers of 64 bits, else their numbers in the order met."""
    try:
        return np.frombuffer(array("q", ids), dtype=np.int64)
    except (TypeError, OverflowError):
        numbers: dict[Hashable, int] = {}
        return np.array([numbers.setdefault(one, len(numbers)) for one in ids], dtype=np.int64)


def _begins(ascending: Ints) -> NDArray[np.bool_]:
    """Whether each value differs from the one before."""
    changed: NDArray[np.bool_] = np.diff(ascending, prepend=-1) != 0
    return changed

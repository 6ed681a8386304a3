"""How many items each two of many lists share, in blocks that fit the memory; what diversity is computed from."""

from __future__ import annotations

from collections.abc import Hashable, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_PAIRS_A_BLOCK = 1 << 17  # some 10 MB; more where that would be too few lists for a quick matrix product
_LISTS_A_BLOCK = 32
_MOST_COMMON = 512  # items at most that go through matrix products: 4 bytes an item and list


class Overlaps:
    """An index of lists by their items.

    Rare items are counted through an inverted index: each entry of a list meets the entries of its item in the lists
    before. The few items that an eighth of all lists hold would meet too many, and go through a matrix product.

    Args:
        sets: per list its distinct items.

    Attributes:
        sizes: int64 (B,), how many items each list holds.
        common: how many items go through the matrix product.
    """

    def __init__(self, sets: Sequence[Set[Hashable]]) -> None:
        numbers: dict[Hashable, int] = {}
        items = np.array([numbers.setdefault(one, len(numbers)) for row in sets for one in row], dtype=np.int64)
        self.sizes: Ints = np.array([len(row) for row in sets], dtype=np.int64)
        lists = np.repeat(np.arange(len(sets)), self.sizes)

        holders = np.bincount(items)  # lists that hold each item
        common = np.argsort(-holders, kind="stable")[:_MOST_COMMON]
        common = common[holders[common] > max(len(sets) / 8, 64)]
        self.common = len(common)
        column = np.full(len(holders), -1)
        column[common] = np.arange(len(common))
        rare = column[items] < 0
        self._dense = np.zeros((len(sets), len(common)), dtype=np.float32)
        self._dense[lists[~rare], column[items[~rare]]] = 1

        items, self._lists = items[rare], lists[rare]
        order = np.argsort(items, kind="stable")  # the entries of an item side by side, lists ascending
        self._index = self._lists[order]
        self._first = np.searchsorted(items[order], items)  # where in the index the item of each entry begins
        self._earlier = np.empty(len(items), dtype=np.int64)  # how many lists before an entry's own hold its item
        self._earlier[order] = np.arange(len(items)) - self._first[order]

    def summed_similarity(self) -> float:
        """The sum of |A and B| / |A or B| over all pairs of lists; a pair of empty lists adds nothing."""
        total, height = 0.0, max(_LISTS_A_BLOCK, _PAIRS_A_BLOCK // max(len(self.sizes), 1))
        for start in range(0, len(self.sizes), height):
            end = min(start + height, len(self.sizes))
            shared = self._shared(start, end)
            either = self.sizes[start:end, None] + self.sizes[:end] - shared
            total += float(np.divide(shared, either, out=np.zeros(either.shape), where=either > 0).sum())
        return total

    def _shared(self, start: int, end: int) -> NDArray[Any]:
        """How many items each of the lists start..end shares with each list before it: (end - start, end), else 0."""
        entries = slice(*np.searchsorted(self._lists, [start, end]))
        met = self._earlier[entries]
        gaps = self._first[entries] - (np.cumsum(met) - met)  # from a run in the result to the same in the index
        others = self._index[np.repeat(gaps, met) + np.arange(met.sum())]
        own = np.repeat(self._lists[entries] - start, met)
        shared: NDArray[Any] = np.bincount(own * end + others, minlength=(end - start) * end).reshape(-1, end)
        if self.common:
            shared = shared + np.tril(self._dense[start:end] @ self._dense[:end].T, k=start - 1)
        return shared

"""What is recommended, whoever to: how much of the catalogue, how evenly, how popular, from one histogram of items."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from itertools import chain, pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genrec.histories import ItemIds
from genrec.metrics.lists import Lists, as_rows

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_SPARSE = 8  # up to this many times fewer places than items, a histogram of its own costs less than adding one by one


class ItemCounts:
    """How often each item was recommended among the best k, batch by batch: coverage, evenness, popularity and novelty.

    Only whole numbers are kept, 8 bytes an item and cut-off, so that merged counts equal those of one pass exactly. A
    place beyond the end of a list does not count, and an item that a list repeats counts at each of its places.

    Args:
        ks: cut-offs, each at least 0, in any order; a repeated one counts once.
        items: the catalogue. Its size V, and lists hold item numbers 1..V, with 0 where there is no item; or its
            numbering, and lists hold raw ids and nothing else. Of a filled-up matrix of raw ids, pass the numbers:
            ``ItemIds.index`` gives 0 for what it does not know.

    Attributes:
        ks: the cut-offs, as given.
        num_items: V, all of them, recommended or not.

    Raises:
        TypeError: if a cut-off is no whole number.
        ValueError: if there is no cut-off, one is negative, or V is below 1.

    Items 1, 2 and 1, 3 to two users, of a catalogue of four, and once more with raw ids:

    >>> counts = ItemCounts([1, 2], 4)
    >>> counts.update([[1, 2], [1, 3]])
    >>> counts.compute()["coverage@1"], counts.compute()["coverage@2"]
    (0.25, 0.75)
    >>> named = ItemCounts([1, 2], ItemIds(["a", "b", "c", "d"]))
    >>> named.update([["a", "b"], ["a", "c"]])
    >>> named.compute() == counts.compute()
    True
    """

    def __init__(self, ks: Iterable[int], items: int | ItemIds) -> None:
        self.ks = list(dict.fromkeys(map(operator.index, ks)))
        self.num_items = len(items) if isinstance(items, ItemIds) else operator.index(items)
        if not self.ks or min(self.ks) < 0:
            raise ValueError(f"ks ({self.ks}) must hold at least one cut-off, and none below 0")
        if self.num_items < 1:
            raise ValueError(f"items ({items}) must be at least 1")
        self._items = items
        self._cuts = sorted(self.ks)
        shape = len(self.ks), self.num_items + 1  # counts are of the places from one cut-off to the next
        self._counts: Ints = np.zeros(shape, dtype=np.int64)

    def update(self, predictions: Lists) -> None:
        """Adds the lists of some users.

        Args:
            predictions: per user, items from best to worst: (B, K) whole numbers, or any lists.

        Raises:
            TypeError: if a user's items are no list, unordered, or no whole numbers where those are asked for.
            ValueError: if a number lies outside 0..V, or a raw id is not in the catalogue.
        """
        matrix = item_matrix(predictions, self._items, self._cuts[-1])
        for counts, (start, end) in zip(self._counts, pairwise([0, *self._cuts]), strict=True):
            places = matrix[:, start:end].ravel()
            if places.size * _SPARSE < self.num_items:
                np.add.at(counts, places, 1)
            else:
                counts += np.bincount(places, minlength=len(counts))
        self._counts[:, 0] = 0

    def merge(self, other: ItemCounts) -> None:
        """Adds the counts of another, from another batch or process.

        Raises:
            ValueError: if it has other cut-offs or another catalogue's size.
        """
        if (other._cuts, other.num_items) != (self._cuts, self.num_items):
            raise ValueError(
                f"cannot merge counts at {other._cuts} of {other.num_items} items "
                f"into counts at {self._cuts} of {self.num_items} items"
            )
        self._counts += other._counts

    def state(self) -> Ints:
        """All that was counted, int64 (len(ks), V + 1): the elementwise sum of states is the state of the merged counts."""
        return self._counts.copy()

    @classmethod
    def from_state(cls, ks: Iterable[int], items: int | ItemIds, state: Ints) -> ItemCounts:
        """The inverse of ``state``, with the same cut-offs and catalogue; also of a sum of states.

        Raises:
            TypeError: if ``state`` does not hold int64.
            ValueError: if its shape is that of other cut-offs or another catalogue.
        """
        counts = cls(ks, items)
        if state.dtype != np.int64:
            raise TypeError(f"state must hold int64, not {state.dtype}")
        if state.shape != counts._counts.shape:
            raise ValueError(
                f"the state of {len(counts.ks)} cut-offs and {counts.num_items} items must be of shape "
                f"{counts._counts.shape}, not {state.shape}"
            )
        counts._counts += state
        return counts

    def compute(self, popularity: ArrayLike | None = None) -> dict[str, float]:
        """The metrics at every cut-off, all of one metric before the next; 0.0 where nothing was recommended.

        With c(i) the times that item i stands among the best k of a list, n their sum, and p(i) = c(i) / n:

        - ``coverage@k``: the share of the catalogue's V items that have c(i) > 0.
        - ``gini@k``: sum over i of (2 i - V - 1) c(i), c ascending, divided by V n: 0 where all items are recommended
          alike, (V - 1) / V where one alone is. Items never recommended are part of it. Shani and Gunawardana 2011
          divide by V - 1 in the place of V.
        - ``entropy@k``: minus the sum of p(i) log2 p(i), in bits: 0 for one item alone, log2 V for all alike.
        - ``average_popularity@k``: the mean of an item's popularity over the n places.
        - ``novelty@k``: the mean over the n places of -log2 of an item's share of all popularity, in bits: the expected
          free discovery of Vargas and Castells 2011, without discount and relevance. An item without popularity has the
          share of one with 1, as if one user had met it.

        Args:
            popularity: (V + 1,), how often each item occurs in training, entry 0 not used, as ``Split.popularity()``
                gives it; None leaves out the last two metrics.

        Raises:
            ValueError: if ``popularity`` is not (V + 1,), has a negative or infinite entry, or is 0 for all items.

        Item 1 twice, items 2 and 3 once, item 4 never; with 8, 4, 2 and 2 occurrences in training, shares of 1/2, 1/4,
        1/8 and 1/8:

        >>> counts = ItemCounts([2], 4)
        >>> counts.update([[1, 2], [1, 3]])
        >>> found = counts.compute(popularity=[0, 8, 4, 2, 2])
        >>> found["coverage@2"] == 3 / 4
        True
        >>> found["gini@2"] == (-3 * 0 + -1 * 1 + 1 * 1 + 3 * 2) / (4 * 4)
        True
        >>> found["entropy@2"] == 1 / 2 * 1 + 1 / 4 * 2 + 1 / 4 * 2
        True
        >>> found["average_popularity@2"] == (8 + 4 + 8 + 2) / 4
        True
        >>> found["novelty@2"] == (1 + 2 + 1 + 3) / 4
        True
        """
        metrics = {"coverage": _coverage, "gini": _gini, "entropy": entropy}
        totals = dict(zip(self._cuts, np.cumsum(self._counts[:, 1:], axis=0), strict=True))  # (V,) each
        found = {f"{name}@{k}": metric(totals[k]) for name, metric in metrics.items() for k in self.ks}
        if popularity is not None:
            known = _checked_popularity(popularity, self.num_items)
            weights = {"average_popularity": known, "novelty": -np.log2(np.where(known > 0, known, 1) / known.sum())}
            for name, weight in weights.items():
                found |= {f"{name}@{k}": _mean(weight, totals[k]) for k in self.ks}
        return found


def item_matrix(lists: Lists, items: int | ItemIds, depth: int | None = None) -> Ints:
    """The first places of lists as item numbers 1..V, with 0 after the end of a list: int64 (B, K).

    Args:
        lists: per user, item numbers 1..V or 0 for none; raw ids where ``items`` is a numbering.
        items: V, or the numbering of the catalogue.
        depth: how many places of each list to keep, all when None.

    Raises:
        TypeError: if a user's items are no list, unordered where ``depth`` is given, or no whole numbers.
        ValueError: if a number lies outside 0..V, or a raw id is not in the catalogue.
    """
    matrix = np.asarray(lists) if hasattr(lists, "__array__") else None
    if matrix is not None and matrix.ndim == 2 and matrix.dtype.kind in "iu":
        places = matrix[:, :depth]
        return _numbers(places.ravel(), items).reshape(places.shape)
    rows = [row[:depth] for row in as_rows(lists, "lists", ordered=depth is not None)]
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    filled = np.arange(lengths.max(initial=0)) < lengths[:, None]  # (B, K)
    numbers = np.zeros(filled.shape, dtype=np.int64)
    numbers[filled] = _numbers(list(chain.from_iterable(rows)), items)
    return numbers


def _numbers(ids: NDArray[Any] | list[Any], items: int | ItemIds) -> Ints:
    if isinstance(items, ItemIds):
        numbers = items.index(ids)
        if not numbers.all():
            raise ValueError(f"item id {ids[int(np.argmin(numbers))]!r} is not in the catalogue")
        return numbers
    array = np.asarray(ids)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"lists must hold item numbers 1..{items}, or 0 for none, not {array.dtype}")
    if array.size and not (array.min() >= 0 and array.max() <= items):
        raise ValueError(f"item numbers must lie in 1..{items}, or be 0 for none, got {array.min()} to {array.max()}")
    return array.astype(np.int64, copy=False)


def _coverage(counts: Ints) -> float:
    return int(np.count_nonzero(counts)) / len(counts)


def _gini(counts: Ints) -> float:
    found = np.sort(counts[counts > 0])
    ranks = np.arange(len(counts) - len(found), len(counts)) + 1
    return int((2 * ranks - len(counts) - 1) @ found) / (len(counts) * max(int(found.sum()), 1))


def entropy(counts: NDArray[Any]) -> float:
    """Shannon entropy in bits of what was counted, 0 where nothing was; 2 to its power is the perplexity.

    >>> entropy(np.array([2, 0, 1, 1])) == 1 / 2 * 1 + 1 / 4 * 2 + 1 / 4 * 2
    True
    """
    found = counts[counts > 0]
    share = found / found.sum()
    return abs(float(share @ np.log2(share)))  # abs: no -0.0


def _mean(values: Floats, counts: Ints) -> float:
    return float(values @ counts) / max(int(counts.sum()), 1)


def _checked_popularity(popularity: ArrayLike, num_items: int) -> Floats:
    known = np.asarray(popularity, dtype=np.float64)
    if known.shape != (num_items + 1,):
        raise ValueError(
            f"popularity must be of shape ({num_items + 1},), an entry for none and one an item, not {known.shape}"
        )
    known = known[1:]
    if not (np.isfinite(known).all() and (known >= 0).all() and known.any()):
        raise ValueError("popularity must be finite counts, not negative, and not 0 for all items")
    return known

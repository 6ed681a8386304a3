"""Ranking metrics: the same numbers for the trained model and for the served one.

Every list metric averages over users. ``RankCounts`` is the streaming form for one target a user, as in the evaluation
of the next item.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from genrec.metrics.overlaps import Overlaps


class SupportsArray(Protocol):
    """What numpy can read: its own arrays, tensors of any library on the CPU, data frames."""

    def __array__(self) -> NDArray[Any]: ...


Lists = SupportsArray | Iterable[Iterable[Hashable] | SupportsArray]
Ints = NDArray[np.int64]


class RecommendationMetrics:
    """Metrics of recommended lists, each a mean over users.

    Lists are ragged or 2-D and come as lists, tuples, arrays or CPU tensors; ids are whatever can be hashed. An id that
    a list repeats counts once, at its first place, and the places of the others stay as the user saw them.
    """

    @staticmethod
    def recall_at_k(predictions: Lists, targets: Lists, k: int) -> float:
        """Mean share of a user's distinct targets among the best ``k`` predictions, over users who have a target.

        Args:
            predictions: per user, item ids from best to worst.
            targets: per user, the relevant item ids in any order; users with none are left out of the mean.
            k: how many of the best predictions count; 0 gives 0.0.

        Raises:
            TypeError: if a user's ids are no list, or unordered in ``predictions``.
            ValueError: if the two differ in length, or ``k`` is negative.

        One of two targets found, then the only one, (1/2 + 1/1) / 2:

        >>> RecommendationMetrics.recall_at_k([[7, 3], [5, 6]], [[3, 9], [5]], k=2)
        0.75
        """
        users, k = _users(predictions, targets, k)
        return _mean([len(relevant.intersection(top[:k])) / len(relevant) for top, relevant in users if relevant])

    @staticmethod
    def precision_at_k(predictions: Lists, targets: Lists, k: int) -> float:
        """Mean number of distinct targets among the best ``k`` predictions, divided by ``k``, over all users.

        The divisor is ``k`` for lists that are shorter too. A user without targets counts 0, unlike in the other
        metrics.

        Args:
            predictions: per user, item ids from best to worst.
            targets: per user, the relevant item ids in any order.
            k: how many of the best predictions count; 0 gives 0.0.

        Raises:
            TypeError: if a user's ids are no list, or unordered in ``predictions``.
            ValueError: if the two differ in length, or ``k`` is negative.

        One hit in two places, then one in a list of one, (1/2 + 1/2) / 2:

        >>> RecommendationMetrics.precision_at_k([[7, 3], [5]], [[3, 9], [5]], k=2)
        0.5
        """
        users, k = _users(predictions, targets, k)
        return _mean([len(relevant.intersection(top[:k])) / k for top, relevant in users]) if k else 0.0

    @staticmethod
    def ndcg_at_k(predictions: Lists, targets: Lists, k: int) -> float:
        """Mean normalised discounted cumulative gain over users who have a target.

        Binary relevance, discount ``1 / log2(rank + 1)`` with ranks from 1 (Jarvelin and Kekalainen 2002, with the
        discount from the first rank on). The ideal list holds ``min(distinct targets, k)`` hits, so a user with fewer
        targets than ``k`` can still score 1.

        Args:
            predictions: per user, item ids from best to worst.
            targets: per user, the relevant item ids in any order; users with none are left out of the mean.
            k: how many of the best predictions count; 0 gives 0.0.

        Raises:
            TypeError: if a user's ids are no list, or unordered in ``predictions``.
            ValueError: if the two differ in length, or ``k`` is negative.

        The only target at rank 3, so 1 / log2(4) of an ideal 1 / log2(2):

        >>> RecommendationMetrics.ndcg_at_k([[7, 3, 5]], [[5]], k=3)
        0.5
        """
        users, k = _users(predictions, targets, k)
        return _mean([_ndcg(top[:k], relevant, k) for top, relevant in users if relevant]) if k else 0.0

    @staticmethod
    def hit_rate_at_k(predictions: Lists, targets: Lists, k: int) -> float:
        """Share of users with at least one target among their best ``k`` predictions, of the users who have a target.

        Args:
            predictions: per user, item ids from best to worst.
            targets: per user, the relevant item ids in any order; users with none are left out.
            k: how many of the best predictions count; 0 gives 0.0.

        Raises:
            TypeError: if a user's ids are no list, or unordered in ``predictions``.
            ValueError: if the two differ in length, or ``k`` is negative.

        The first user is hit, the second is not, the third has no target:

        >>> RecommendationMetrics.hit_rate_at_k([[7, 3], [5, 6], [1]], [[3, 9], [8], []], k=2)
        0.5
        """
        users, k = _users(predictions, targets, k)
        return _mean([float(not relevant.isdisjoint(top[:k])) for top, relevant in users if relevant])

    @staticmethod
    def coverage(predictions: Lists, total_items: int) -> float:
        """Number of distinct recommended ids, divided by the size of the catalogue; not cut off at 1.

        Args:
            predictions: per user, item ids.
            total_items: how many items the catalogue holds.

        Raises:
            TypeError: if a user's ids are no list.
            ValueError: if ``total_items`` is below 1.

        Items 3, 5 and 7 of 12:

        >>> RecommendationMetrics.coverage([[7, 3], [5, 3]], total_items=12)
        0.25
        """
        if total_items < 1:
            raise ValueError(f"total_items ({total_items}) must be at least 1")
        return len(set[Hashable]().union(*_rows(predictions, "predictions"))) / total_items

    @staticmethod
    def diversity(predictions: Lists) -> float:
        """Mean Jaccard distance, ``1 - |A and B| / |A or B|``, of the pairs of lists; high when lists differ.

        Two empty lists have no distance, and their pair is left out. Exact for any number of lists; the time grows with
        the square of that number, but in compiled code. With no pair left the answer is 0.0.

        Args:
            predictions: per user, item ids in any order.

        Raises:
            TypeError: if a user's ids are no list.

        Distances 1 - 1/3 (share item 3), 1 - 0/4 and 1 - 0/4:

        >>> round(RecommendationMetrics.diversity([[7, 3], [3, 5], [8, 9]]), 6) == round((2 / 3 + 1 + 1) / 3, 6)
        True
        """
        sets = [set(row) for row in _rows(predictions, "predictions")]
        empty = sum(not one for one in sets)
        pairs = math.comb(len(sets), 2) - math.comb(empty, 2)
        return 1.0 - Overlaps(sets).summed_similarity() / pairs if pairs else 0.0


class RankCounts:
    """Counts of the rank that each user's one target got: recall, NDCG and MRR at any cut-off, batch by batch.

    Only whole numbers are kept, so that merged counts equal those of one pass exactly. With one target a user, recall
    is the hit rate as well.

    Args:
        max_rank: the worst rank K that is told apart; all beyond are misses.

    Attributes:
        counts: int64 (K + 1,), cases at ranks 1..K, then the misses.

    Raises:
        ValueError: if ``max_rank`` is below 1.

    Targets at ranks 1 and 3, and one that was missed:

    >>> ranks = RankCounts(max_rank=10)
    >>> ranks.update([1, 3, 11])
    >>> ranks.compute([3])["ndcg@3"] == (1 / 1 + 1 / 2 + 0) / 3
    True
    """

    def __init__(self, max_rank: int) -> None:
        if max_rank < 1:
            raise ValueError(f"max_rank ({max_rank}) must be at least 1")
        self.max_rank = operator.index(max_rank)
        self.counts: Ints = np.zeros(self.max_rank + 1, dtype=np.int64)

    def __len__(self) -> int:
        return int(self.counts.sum())

    def update(self, ranks: SupportsArray | Sequence[int]) -> None:
        """Adds cases by their target's rank.

        Args:
            ranks: whole numbers of any shape, from 1 for the best; any beyond ``max_rank`` is a miss.

        Raises:
            TypeError: if ranks are no whole numbers.
            ValueError: if a rank is below 1.
        """
        array = np.asarray(ranks).ravel()
        if not array.size:
            return
        if array.dtype.kind not in "iu":
            raise TypeError(f"ranks must be whole numbers, not {array.dtype}")
        if array.min() < 1:
            raise ValueError(f"ranks count from 1, got {array.min()}")
        miss = self.max_rank + 1
        places = np.minimum(array.astype(np.uint64), np.uint64(miss)).astype(np.int64) - 1
        self.counts += np.bincount(places, minlength=miss)

    def merge(self, other: RankCounts) -> None:
        """Adds the cases of another, from another batch or process.

        Raises:
            ValueError: if it tells another number of ranks apart.
        """
        if other.max_rank != self.max_rank:
            raise ValueError(f"cannot merge counts to rank {other.max_rank} into counts to rank {self.max_rank}")
        self.counts += other.counts

    def compute(self, ks: Iterable[int]) -> dict[str, float]:
        """Means over all cases, 0.0 where there are none.

        Args:
            ks: cut-offs, each from 1 to ``max_rank``.

        Returns:
            ``recall@k``, ``ndcg@k`` and ``mrr@k`` for each k.

        Raises:
            ValueError: if a cut-off lies outside 1..``max_rank``.
        """
        cases = max(len(self), 1)
        ranks = np.arange(1, self.max_rank + 1)
        metrics = {}
        for k in map(operator.index, ks):
            if not 1 <= k <= self.max_rank:
                raise ValueError(f"k ({k}) must lie in 1..{self.max_rank}, the ranks that are told apart")
            hits = self.counts[:k]
            metrics[f"recall@{k}"] = int(hits.sum()) / cases
            metrics[f"ndcg@{k}"] = math.fsum(hits / np.log2(ranks[:k] + 1)) / cases
            metrics[f"mrr@{k}"] = math.fsum(hits / ranks[:k]) / cases
        return metrics


def list_ranks(predictions: Lists, targets: SupportsArray | Iterable[Hashable], max_rank: int) -> Ints:
    """The rank of each user's one target in that user's list, as ``RankCounts.update`` takes it.

    Args:
        predictions: per user, item ids from best to worst; ragged, or (B, K) with any fill that is no target.
        targets: one id a user.
        max_rank: the worst rank told apart; a target beyond it, or absent, gets ``max_rank + 1``.

    Returns:
        int64 (B,), in 1..``max_rank + 1``.

    Raises:
        TypeError: if a user's ids are no list, or unordered.
        ValueError: if the two differ in length, or ``max_rank`` is below 1.

    >>> list_ranks([[7, 3], [5], []], [3, 5, 9], max_rank=10).tolist()
    [2, 1, 11]
    """
    if max_rank < 1:
        raise ValueError(f"max_rank ({max_rank}) must be at least 1")
    wanted = np.asarray(targets) if hasattr(targets, "__array__") else list(targets)
    if isinstance(wanted, np.ndarray) and wanted.ndim != 1:
        raise ValueError(f"targets must have one axis, one id a user, not shape {wanted.shape}")
    if hasattr(predictions, "__array__") and isinstance(wanted, np.ndarray):
        matrix = np.asarray(predictions)
        if matrix.ndim == 2 and matrix.dtype.kind in "iu" and wanted.dtype.kind in "iu":
            _same_length(matrix, wanted)
            return _matrix_ranks(matrix[:, :max_rank], wanted, max_rank + 1)
    rows = _rows(predictions, "predictions", ordered=True)
    ids = wanted.tolist() if isinstance(wanted, np.ndarray) else _plain(wanted)
    _same_length(rows, ids)
    tops = [row[:max_rank] for row in rows]
    ranks = [top.index(one) + 1 if one in top else max_rank + 1 for top, one in zip(tops, ids, strict=True)]
    return np.array(ranks, dtype=np.int64)


def _matrix_ranks(predictions: NDArray[Any], targets: NDArray[Any], absent: int) -> Ints:
    match = predictions == targets[:, None]  # (B, K)
    first = match.argmax(axis=1) if match.shape[1] else np.zeros(len(match), dtype=np.int64)
    return np.where(match.any(axis=1), first + 1, absent).astype(np.int64)


def _users(predictions: Lists, targets: Lists, k: int) -> tuple[list[tuple[list[Hashable], set[Hashable]]], int]:
    """Per user the ranked ids and the distinct targets, and ``k`` as a plain int; all that can be wrong is refused."""
    k = operator.index(k)
    if k < 0:
        raise ValueError(f"k ({k}) must not be negative")
    ranked, relevant = _rows(predictions, "predictions", ordered=True), _rows(targets, "targets")
    _same_length(ranked, relevant)
    return [(top, set(row)) for top, row in zip(ranked, relevant, strict=True)], k


def _same_length(predictions: Any, targets: Any) -> None:
    if len(predictions) != len(targets):
        raise ValueError(f"predictions are of {len(predictions)} users but targets of {len(targets)}")


def _rows(lists: Lists, name: str, ordered: bool = False) -> list[list[Hashable]]:
    """One list of plain ids a user; whole numbers of arrays become Python's own, whatever their width."""
    if hasattr(lists, "__array__"):
        array = np.asarray(lists)
        if array.ndim != 2 and array.dtype != object:
            raise ValueError(f"{name} must have two axes, users and places, not shape {array.shape}")
        lists = list(array) if array.dtype == object else array.tolist()
    return [
        row if type(row) is list and not (row and hasattr(row[0], "__array__")) else _row(row, f"{name}[{i}]", ordered)
        for i, row in enumerate(lists)
    ]


def _row(row: Any, name: str, ordered: bool) -> list[Hashable]:
    if hasattr(row, "__array__"):
        row = np.asarray(row)
        if row.ndim != 1:
            raise ValueError(f"{name} must have one axis, not shape {row.shape}")
        return list(row.tolist())
    if isinstance(row, (str, bytes)) or not isinstance(row, Iterable):
        raise TypeError(f"{name} must be a list of ids, got {row!r}")
    if ordered and isinstance(row, (set, frozenset)):
        raise TypeError(f"{name} must go from best to worst, but a set has no order")
    return _plain(list(row))


def _plain(ids: list[Any]) -> list[Hashable]:
    """Takes ids out of scalar tensors, which hash by identity and would equal nothing."""
    return [np.asarray(one).item() for one in ids] if ids and hasattr(ids[0], "__array__") else ids


def _mean(scores: list[float]) -> float:
    return math.fsum(scores) / len(scores) if scores else 0.0


def _ndcg(top: list[Hashable], relevant: set[Hashable], k: int) -> float:
    gain = math.fsum(1 / math.log2(top.index(hit) + 2) for hit in relevant.intersection(top))
    return gain / _ideal_gain(min(len(relevant), k))


@lru_cache(maxsize=1024)
def _ideal_gain(hits: int) -> float:
    return math.fsum(1 / math.log2(rank + 1) for rank in range(1, hits + 1))

"""``RecommendationMetrics``: each metric by itself, with the names and keywords of the reference."""

from __future__ import annotations

import math
import operator
from collections.abc import Hashable, Iterable
from functools import lru_cache

import numpy as np

from genrec.histories import Ragged
from genrec.metrics.diversity import jaccard_diversity
from genrec.metrics.lists import Lists, as_rows, check_same_length
from genrec.metrics.overlaps import plain_rows
from genrec.metrics.ranking import evaluate

Row = list[Hashable]


class RecommendationMetrics:
    """Metrics of recommended lists, each a mean over users.

    Lists are ragged or 2-D and come as lists, tuples, arrays or CPU tensors; ids are whatever can be hashed. An id that
    a list repeats counts once, at its first place, and the places of the others stay as the user saw them. Ids that are
    scalar tensors must be so in every list.
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
        if _in_arrays(predictions):
            return evaluate(predictions, targets, [k])[f"recall@{k}"]
        users = _users(predictions, targets, k)
        return _mean([len((want := set(row)).intersection(top[:k])) / len(want) for top, row in users if row])

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
        if _in_arrays(predictions):
            return evaluate(predictions, targets, [k])[f"precision@{k}"]
        users = _users(predictions, targets, k)
        return _mean([len(set(row).intersection(top[:k])) / k for top, row in users]) if k else 0.0

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
        if _in_arrays(predictions):
            return evaluate(predictions, targets, [k])[f"ndcg@{k}"]
        users = _users(predictions, targets, k)
        return _mean([_ndcg(top[:k], row, k) for top, row in users if row])

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
        if _in_arrays(predictions):
            return evaluate(predictions, targets, [k])[f"hit_rate@{k}"]
        users = _users(predictions, targets, k)
        return _mean([not set(row).isdisjoint(top[:k]) for top, row in users if row])

    @staticmethod
    def mrr_at_k(predictions: Lists, targets: Lists, k: int) -> float:
        """Mean reciprocal rank of the first target among the best ``k`` predictions, over users who have a target.

        Ranks count from 1; a user without a target among the ``k`` adds 0 (Voorhees 1999).

        Args:
            predictions: per user, item ids from best to worst.
            targets: per user, the relevant item ids in any order; users with none are left out of the mean.
            k: how many of the best predictions count; 0 gives 0.0.

        Raises:
            TypeError: if a user's ids are no list, or unordered in ``predictions``.
            ValueError: if the two differ in length, or ``k`` is negative.

        The first target at rank 2, and none within 3, (1/2 + 0) / 2:

        >>> RecommendationMetrics.mrr_at_k([[7, 3, 9], [5, 6, 4, 8]], [[9, 3], [8]], k=3)
        0.25
        """
        if _in_arrays(predictions):
            return evaluate(predictions, targets, [k])[f"mrr@{k}"]
        users = _users(predictions, targets, k)
        return _mean([
            1 / (min(map(top.index, found)) + 1) if (found := set(row).intersection(top[:k])) else 0.0
            for top, row in users if row
        ])  # fmt: skip

    @staticmethod
    def map_at_k(predictions: Lists, targets: Lists, k: int) -> float:
        """Mean average precision among the best ``k`` predictions, over users who have a target.

        A user's average precision is the sum of the precision at the rank of each target found, divided by
        ``min(k, distinct targets)``, so that a list which begins with as many targets as it can scores 1. Others divide
        by all the targets, or by those found.

        Args:
            predictions: per user, item ids from best to worst.
            targets: per user, the relevant item ids in any order; users with none are left out of the mean.
            k: how many of the best predictions count; 0 gives 0.0.

        Raises:
            TypeError: if a user's ids are no list, or unordered in ``predictions``.
            ValueError: if the two differ in length, or ``k`` is negative.

        Two of three targets, at ranks 2 and 4 of 4, (1/2 + 2/4) / 3:

        >>> RecommendationMetrics.map_at_k([[7, 3, 5, 9]], [[3, 9, 1]], k=4) == (1 / 2 + 2 / 4) / 3
        True
        """
        if _in_arrays(predictions):
            return evaluate(predictions, targets, [k])[f"map@{k}"]
        users = _users(predictions, targets, k)
        return _mean([
            _summed_precision(top, found) / min(len(want), k)
            if (found := (want := set(row)).intersection(top[:k])) else 0.0
            for top, row in users if row
        ])  # fmt: skip

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
        return _distinct(predictions) / total_items

    @staticmethod
    def diversity(predictions: Lists, sample: int | None = None, seed: int = 0) -> float:
        """Mean Jaccard distance, ``1 - |A and B| / |A or B|``, of the pairs of users' lists; high when lists differ.

        Two empty lists have no distance, and their pair is left out. With no pair left the answer is 0.0.

        Args:
            predictions: per user, item ids in any order.
            sample: None for the exact mean, whose time grows with the square of the number of lists, or how many pairs
                to draw; ``diversity_sample`` gives the standard error as well.
            seed: of the draw.

        Raises:
            TypeError: if a user's ids are no list.
            ValueError: if ``sample`` is below 2.

        Distances 1 - 1/3 (share item 3), 1 - 0/4 and 1 - 0/4:

        >>> math.isclose(RecommendationMetrics.diversity([[7, 3], [3, 5], [8, 9]]), (2 / 3 + 1 + 1) / 3)
        True
        """
        return jaccard_diversity(plain_rows(predictions, "predictions"), sample, seed)


def _in_arrays(predictions: Lists) -> bool:
    """Whether the one pass over arrays is quicker than sets: it is for all but Python's own lists."""
    if isinstance(predictions, (list, tuple)):
        return bool(predictions) and hasattr(predictions[0], "__array__")
    return isinstance(predictions, Ragged) or hasattr(predictions, "__array__")


def _users(predictions: Lists, targets: Lists, k: int) -> Iterable[tuple[Row, Row]]:
    """Each user's ranked ids and targets; all that can be wrong is refused."""
    if operator.index(k) < 0:
        raise ValueError(f"k ({k}) must not be negative")
    tops, wants = as_rows(predictions, "predictions", ordered=True), as_rows(targets, "targets")
    check_same_length(tops, wants)
    return zip(tops, wants, strict=True)


def _mean(scores: list[float]) -> float:
    return math.fsum(scores) / len(scores) if scores else 0.0


def _ndcg(top: Row, row: Row, k: int) -> float:
    if len(row) == 1:  # as in leave-one-out: to look for it is quicker than to hash all that is not it
        return 1 / math.log2(top.index(row[0]) + 2) if row[0] in top else 0.0
    wanted = set(row)
    found = wanted.intersection(top)
    if not found:
        return 0.0
    return math.fsum([1 / math.log2(top.index(hit) + 2) for hit in found]) / _ideal_gain(min(len(wanted), k))


@lru_cache(maxsize=1024)
def _ideal_gain(hits: int) -> float:
    return math.fsum(1 / math.log2(rank + 1) for rank in range(1, hits + 1))


def _summed_precision(top: Row, found: set[Hashable]) -> float:
    return math.fsum(nth / (place + 1) for nth, place in enumerate(sorted(map(top.index, found)), start=1))


def _distinct(predictions: Lists) -> int:
    whole = np.asarray(predictions) if hasattr(predictions, "__array__") else np.zeros(0)
    if whole.ndim != 2 or whole.dtype.kind not in "iu" or not whole.size:
        return len(set[Hashable]().union(*as_rows(predictions, "predictions")))
    above = (whole - whole.min()).view(f"u{whole.itemsize}")  # as unsigned, no difference is too wide
    most = int(above.max())
    if most > 8 * whole.size:
        return np.unique(above).size
    seen = np.zeros(most + 1, dtype=np.bool_)
    seen[above] = True
    return int(np.count_nonzero(seen))

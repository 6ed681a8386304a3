"""Recall, precision, NDCG, hit rate, MRR and MAP of many users in one pass: at once, or batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import starmap
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

from genrec.metrics.hits import HitFinder, Hits
from genrec.metrics.lists import Lists, SupportsArray, paired_blocks
from genrec.metrics.scores import Floats, Scorer

Ints = NDArray[np.int64]
_FRACTION = 62  # binary digits after the point: every value from 2**-9 to 1 is kept exactly
_LIMB = 31  # of these digits in the lower of two limbs: 2**32 users fit the sums of either


@overload
def evaluate(
    predictions: Lists, targets: Lists, ks: Iterable[int], per_user: Literal[False] = False
) -> dict[str, float]: ...
@overload
def evaluate(predictions: Lists, targets: Lists, ks: Iterable[int], per_user: Literal[True]) -> dict[str, Floats]: ...
def evaluate(
    predictions: Lists, targets: Lists, ks: Iterable[int], per_user: bool = False
) -> dict[str, float] | dict[str, Floats]:
    """Six metrics at every cut-off in one pass, each as ``RecommendationMetrics`` defines it.

    Lists come as anything that ``RecommendationMetrics`` takes, and as a ``Ragged``; whole numbers in arrays are the
    quickest. A generator may yield users' lists or batches of them (2-D arrays, ``Ragged``, lists of lists) and is read
    batch by batch; predictions and targets may be cut differently.

    Args:
        predictions: per user, item ids from best to worst.
        targets: per user, the relevant item ids in any order.
        ks: cut-offs, each at least 0, in any order.
        per_user: whether to return each user's values instead of their means.

    Returns:
        ``recall@k``, ``precision@k``, ``ndcg@k``, ``hit_rate@k``, ``mrr@k`` and ``map@k``, all k of one metric before
        the next: a mean, or float64 (U,) in the users' order. A user without targets has 0 in precision and NaN in the
        others, and is left out of their means.

    Raises:
        TypeError: if a user's ids are no list, or unordered in ``predictions``, or a cut-off is no whole number.
        ValueError: if the two are of different numbers of users, or a cut-off is negative, or there is none.

    The only target at rank 3 of 4, of no use at 2:

    >>> metrics = evaluate([[7, 3, 5, 9]], [[5]], ks=[2, 4])
    >>> metrics["ndcg@2"], metrics["ndcg@4"], metrics["precision@4"], metrics["mrr@4"] == 1 / 3
    (0.0, 0.5, 0.25, True)
    >>> evaluate([[7, 3], [5, 6]], [[3, 9], []], ks=[2], per_user=True)["recall@2"].tolist()
    [0.5, nan]
    """
    if not per_user:
        means = MetricAccumulator(ks)
        means.update(predictions, targets)
        return means.compute()
    scorer = Scorer(ks)
    counted = [row for name, row in scorer.rows.items() if not name.startswith("precision")]
    values = [np.empty((len(scorer.rows), 0))]
    for hits in _hits(predictions, targets, scorer.depth):
        values.append(scorer(hits))
        values[-1][np.ix_(counted, hits.relevant == 0)] = np.nan
    scores = np.concatenate(values, axis=1)
    return {name: scores[row] for name, row in scorer.rows.items()}


class MetricAccumulator:
    """The means of ``evaluate``, batch by batch, whatever the batches, their order, or the process that saw them.

    Only whole numbers are kept: each user's value in steps of 2**-62, added up without rounding. So the merged state
    equals that of one pass, bit for bit.

    Args:
        ks: cut-offs, each at least 0, in any order.

    Raises:
        TypeError: if a cut-off is no whole number.
        ValueError: if one is negative, or there is none.

    A hit at rank 2 in one batch, a miss in the next:

    >>> metrics = MetricAccumulator(ks=[5])
    >>> metrics.update([[7, 3]], [[3]])
    >>> metrics.update([[7, 3]], [[4]])
    >>> metrics.compute()["mrr@5"]
    0.25
    """

    def __init__(self, ks: Iterable[int]) -> None:
        self._scorer = Scorer(ks)
        self._state: Ints = np.zeros(2 + 2 * len(self._scorer.rows), dtype=np.int64)

    def __len__(self) -> int:
        return int(self._state[0])

    def update(self, predictions: Lists, targets: Lists) -> None:
        """Adds users; takes what ``evaluate`` takes, generators too, and adds nobody where that raises.

        Args:
            predictions: per user, item ids from best to worst.
            targets: per user, the relevant item ids in any order.

        Raises:
            TypeError: if a user's ids are no list, or unordered in ``predictions``.
            ValueError: if the two are of different numbers of users.
        """
        added = np.zeros_like(self._state)
        for hits in _hits(predictions, targets, self._scorer.depth):
            if (hits.relevant == 1).all():
                added += self._sums_of_ranks(hits.places + 1, len(hits.relevant))
            else:
                high, low = _limbs(self._scorer(hits))
                users = [len(hits.relevant), np.count_nonzero(hits.relevant)]
                added += np.concatenate([users, high.sum(axis=1), low.sum(axis=1)])
        self._state += added

    def update_ranks(self, ranks: SupportsArray | Sequence[int]) -> None:
        """Adds users with one target each, by the rank that it got.

        Args:
            ranks: whole numbers of any shape, from 1 for the best; any beyond the largest cut-off is a miss.

        Raises:
            TypeError: if ranks are no whole numbers.
            ValueError: if a rank is below 1.

        >>> metrics = MetricAccumulator(ks=[3])
        >>> metrics.update_ranks([1, 3, 99])
        >>> metrics.compute()["ndcg@3"] == (1 / 1 + 1 / 2 + 0) / 3
        True
        """
        array = np.asarray(ranks).ravel()
        if not array.size:
            return
        if array.dtype.kind not in "iu":
            raise TypeError(f"ranks must be whole numbers, not {array.dtype}")
        if array.min() < 1:
            raise ValueError(f"ranks count from 1, got {array.min()}")
        found = array[array <= self._scorer.depth].astype(np.int64)
        self._state += self._sums_of_ranks(found, array.size)

    def merge(self, other: MetricAccumulator) -> None:
        """Adds the users of another, from another batch or process.

        Raises:
            ValueError: if it has other cut-offs.
        """
        ours, theirs = self._scorer.cuts.tolist(), other._scorer.cuts.tolist()
        if ours != theirs:
            raise ValueError(f"cannot merge metrics at {theirs} into metrics at {ours}")
        self._state += other._state

    def compute(self) -> dict[str, float]:
        """Means over all users so far, 0.0 where there are none; the names are those of ``evaluate``."""
        users, with_targets = self._state[:2].tolist()
        high, low = self._state[2:].reshape(2, -1).tolist()
        means = {}
        for name, row in self._scorer.rows.items():
            count = users if name.startswith("precision") else with_targets
            means[name] = ((high[row] << _LIMB) + low[row]) / (count << _FRACTION) if count else 0.0
        return means

    def state(self) -> Ints:
        """All that was counted, as int64 of one axis; the sum of several states is that of the accumulators merged."""
        return self._state.copy()

    @classmethod
    def from_state(cls, ks: Iterable[int], state: SupportsArray | Sequence[int]) -> MetricAccumulator:
        """The accumulator of a state, or of a sum of states.

        Args:
            ks: the cut-offs it was counted with.
            state: from ``state``.

        Raises:
            TypeError: if ``state`` does not hold int64.
            ValueError: if it has another shape than these cut-offs need.

        >>> one = MetricAccumulator([5])
        >>> one.update_ranks([2])
        >>> MetricAccumulator.from_state([5], one.state() + one.state()).compute()["mrr@5"]
        0.5
        """
        restored, array = cls(ks), np.asarray(state)
        if array.dtype != np.int64:
            raise TypeError(f"state must hold int64, not {array.dtype}")
        if array.shape != restored._state.shape:
            raise ValueError(f"state must have shape {restored._state.shape} for these ks, not {array.shape}")
        restored._state = array.copy()
        return restored

    def _sums_of_ranks(self, found: Ints, users: int) -> Ints:
        """The state of users with one target each, the found ones at these ranks."""
        ranks, times = np.unique(found, return_counts=True)
        each = np.arange(len(ranks))
        high, low = _limbs(self._scorer(Hits(each, ranks - 1, np.ones_like(each))))
        return np.concatenate([[users, users], high @ times, low @ times])


def _hits(predictions: Lists, targets: Lists, depth: int) -> Iterator[Hits]:
    return starmap(HitFinder(depth), paired_blocks(predictions, targets))


def _limbs(values: Floats) -> tuple[Ints, Ints]:
    """Values in 0..1 as whole numbers of 2**-62, cut into two limbs."""
    whole = (values * 2.0**_FRACTION).astype(np.int64)
    return whole >> _LIMB, whole & ((1 << _LIMB) - 1)

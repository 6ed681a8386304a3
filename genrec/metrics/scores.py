"""Recall, precision, NDCG, hit rate, MRR and MAP of each user at every cut-off, from the places of the hits."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec.histories import offsets_of
from genrec.metrics.hits import Hits

METRICS = ("recall", "precision", "ndcg", "hit_rate", "mrr", "map")
Floats = NDArray[np.float64]


class Scorer:
    """Every metric of each user at every cut-off; the definitions are those of ``RecommendationMetrics``.

    Args:
        ks: cut-offs, each at least 0, in any order; a repeated one counts once.

    Attributes:
        cuts: int64 (S,), the cut-offs, rising.
        depth: the largest cut-off.
        rows: which row of a call's answer is "recall@5"; all k of one metric before the next, each k as ``ks`` has it.

    Raises:
        TypeError: if a cut-off is no whole number.
        ValueError: if one is negative, or there is none.
    """

    def __init__(self, ks: Iterable[int]) -> None:
        asked = dict.fromkeys(map(operator.index, ks))
        rising = sorted(asked)
        if not rising:
            raise ValueError("ks must hold at least one cut-off")
        if rising[0] < 0:
            raise ValueError(f"k ({rising[0]}) must not be negative")
        self.cuts = np.array(rising, dtype=np.int64)
        self.depth = rising[-1]
        self.rows = {
            f"{metric}@{k}": i * len(rising) + rising.index(k) for i, metric in enumerate(METRICS) for k in asked
        }

    def __call__(self, hits: Hits) -> Floats:
        """Scores users; what one gets does not depend on the others in the call.

        Returns:
            (M * S, U), 0 throughout for a user without targets.
        """
        shape = (len(self.cuts), len(hits.relevant))
        cells = np.searchsorted(self.cuts, hits.places, side="right") * shape[1] + hits.users  # in (S, U)

        def up_to_each_cut(cells: NDArray[Any], gains: NDArray[Any] | None = None) -> NDArray[Any]:
            return np.bincount(cells, gains, math.prod(shape)).reshape(shape).cumsum(axis=0)

        earlier = offsets_of(np.bincount(hits.users, minlength=shape[1]))[hits.users]  # hits of users before
        nth = np.arange(1, len(hits.users) + 1) - earlier  # of the user's hits
        rank = hits.places + 1
        first = nth == 1
        relevant = np.maximum(hits.relevant, 1)
        ideal = np.minimum(relevant, self.cuts[:, None])  # (S, U) hits
        found = up_to_each_cut(cells)

        scores = np.empty((len(METRICS), *shape))
        scores[0] = found / relevant
        scores[1] = found / np.maximum(self.cuts, 1)[:, None]
        scores[2] = up_to_each_cut(cells, _discounts(rank)) / self._ideal_gains(ideal)
        scores[3] = found > 0
        scores[4] = up_to_each_cut(cells[first], 1 / rank[first])
        scores[5] = up_to_each_cut(cells, nth / rank) / np.maximum(ideal, 1)
        return scores.reshape(len(self.rows), shape[1])

    def _ideal_gains(self, hits: NDArray[np.int64]) -> Floats:
        """The gain of so many hits at the first ranks, added up in the order of a user's own: equal lists divide to 1."""
        most = int(hits.max(initial=0))
        gains = np.ones(most + 1)  # no hits gain nothing, and divide it
        total = 0.0
        for start, end in pairwise([0, *np.minimum(self.cuts, most)]):
            if end > start:
                gains[start + 1 : end + 1] = total + np.cumsum(_discounts(np.arange(start, end) + 1))
                total = gains[end]
        return gains[hits]


def _discounts(ranks: NDArray[np.int64]) -> Floats:
    """``1 / log2(rank + 1)``, always the same number for a rank."""
    return _discount_table(int(ranks.max(initial=1)).bit_length())[ranks]


@lru_cache(maxsize=64)
def _discount_table(bits: int) -> Floats:
    return np.array([math.nan, *(1 / math.log2(rank + 1) for rank in range(1, 1 << bits))])

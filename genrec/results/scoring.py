"""The numbers of a run of ours and of a file of any code base, by one code: means, values by user, and what all lists show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from genrec.data import Cases, Split
from genrec.histories import Ints
from genrec.metrics.items import ItemCounts
from genrec.metrics.ranking import MetricAccumulator, evaluate

Floats = NDArray[np.float64]
Scores = tuple[dict[str, float], dict[str, Floats]]

KS = (5, 10, 20)
RANKING = {  # part of the protocol of every score, ours and others'
    "ranking": "all items of the catalogue",
    "seen_filter": "every item of the whole history is left out; a target that is in the history counts as missed",
}
TIES = "higher score first, then lower item index"


def check_cut_offs(ks: Sequence[int]) -> None:
    """Refuses cut-offs that no list can have.

    Raises:
        ValueError: if one is below 1, or there is none.
    """
    if not ks or min(ks) < 1:
        raise ValueError(f"ks ({', '.join(map(str, ks))}) must be cut-offs, one or more, each at least 1")


def score_ranks(ranks: Ints, items: ItemCounts, split: Split, ks: Sequence[int]) -> Scores:
    """Means and values by user from the rank of each user's one target, and from the best lists.

    Args:
        ranks: int64 (n,), from 1; all beyond the largest cut-off are alike.
        items: what the best lists of the same users hold, at the same cut-offs.
        split: whose training says how popular an item is.
        ks: cut-offs, each at least 1.

    Returns:
        Names such as ``recall@10`` or ``coverage@10`` to numbers, and the former alone to float64 (n,).
    """
    means = MetricAccumulator(ks)
    means.update_ranks(ranks)
    places = np.arange(1, max(ks) + 2)  # (K + 1,): every rank that is told apart
    lists = np.broadcast_to(places[:-1], (len(places), max(ks)))
    by_rank = evaluate(lists, places[:, None], ks, per_user=True)
    chosen = np.minimum(ranks, len(places)) - 1
    values = {name: column[chosen] for name, column in by_rank.items()}
    return means.compute() | items.compute(split.popularity()), values


def score_lists(lists: Ints, split: Split, cases: Cases, ks: Sequence[int]) -> Scores:
    """As ``score_ranks``, from the lists alone.

    Args:
        lists: int64 (n, K), item numbers from best to worst, 0 for none; K is the largest cut-off.
        split: where targets and popularity come from.
        cases: whose lists they are.
        ks: cut-offs, each at least 1.
    """
    targets = split.targets(cases)[:, None]
    items = ItemCounts(ks, len(split.data.items))
    items.update(lists)
    return evaluate(lists, targets, ks) | items.compute(split.popularity()), evaluate(lists, targets, ks, per_user=True)

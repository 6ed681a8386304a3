"""The embedded data set: a made-up shop whose best possible score is known.

A shopper follows two interests in turn. Each interest walks a cycle of categories, so the category of the next purchase
follows from the purchase two steps back, not from the last one: popularity and a Markov chain see next to nothing,
a sequence model sees nearly all. With probability 1 - p a purchase is anything in the shop. Nobody buys a thing twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genrec.data.interactions import Interactions
from genrec.data.sequences import SequenceData
from genrec.data.splits import Cases, Split, leave_one_out
from genrec.histories import PAD, Ints, Ragged

CATEGORIES = (
    *("Trail shoe", "Wool sock", "Rain jacket", "Day pack", "Water bottle", "Camp stove", "Tent", "Sleeping bag"),
    *("Head lamp", "Climbing rope", "Chalk bag", "Road bike", "Bike light", "Cycling glove", "Swim goggle", "Wet suit"),
    *("Paddle", "Yoga mat", "Kettlebell", "Running watch"),
)
OPENING = 1_672_531_200  # 2023-01-01T00:00:00Z, the day the shop opened
DAY = 86_400

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ceiling:
    """The best score that any predictor can expect on given cases.

    Args:
        k: length of the lists.
        cases: how many cases the means are over.
        recall: expected Recall@k.
        ndcg: expected NDCG@k.
        recall_error: standard error of a measured Recall@k around ``recall``: the luck in which targets came.
        ndcg_error: the same for NDCG@k.
    """

    k: int
    cases: int
    recall: float
    ndcg: float
    recall_error: float
    ndcg_error: float


@dataclass(frozen=True, eq=False)
class Shop:
    """The embedded data set with what only its maker knows.

    Args:
        interactions: the events as if read from a file.
        data: the same as sequences, with titles.
        category: int64 (V + 1,), each item number's category, -1 for padding.
        successor: int64 (C,), the category that follows each category.
        odds: how many times likelier an item of the expected category is than another.
        lag: how many steps back the event lies that decides.
    """

    interactions: Interactions
    data: SequenceData
    category: Ints
    successor: Ints
    odds: float
    lag: int

    def next_item(self, histories: Ragged) -> Floats:
        """The true probability of every item as each history's next event; 0 for padding and for items already bought.

        Args:
            histories: B whole histories.

        Returns:
            (B, V + 1), each row sums to 1.
        """
        rows = np.repeat(np.arange(len(histories)), histories.lengths)
        unseen = np.ones((len(histories), len(self.category)), dtype=bool)  # (B, V + 1)
        unseen[:, PAD] = False
        unseen[rows, histories.values] = False
        deciding = histories.pad(self.lag)[:, 0]  # (B,) the event lag steps back, 0 if there is none
        expected = np.where(deciding == PAD, -2, self.successor[self.category[deciding]])
        weights = np.where(self.category == expected[:, None], self.odds, 1.0) * unseen
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))

    def ceiling(self, split: Split | None = None, k: int = 10) -> Ceiling:
        """The best possible Recall@k and NDCG@k on the test cases, the history's items left out of the ranking.

        A predictor that knows the shop ranks by ``next_item``. Given the histories, its target stands at rank r with
        the r-th largest probability, so the expected score is a plain sum, without drawing anything. A model's measured
        score may exceed it by luck, by a standard error or two.

        Args:
            split: a split of this shop's data; leave-one-out when None.
            k: length of the lists.

        Raises:
            ValueError: if the split is of other data.

        >>> shop = make_shop(users=50)
        >>> 0.7 < shop.ceiling().recall < 0.9
        True
        """
        split, cases = self._cases(split)
        best = -np.sort(-self.next_item(split.histories(cases)), axis=1)[:, :k]  # (n, k)
        gains = 1 / np.log2(np.arange(2, best.shape[1] + 2))
        recall, ndcg = best.sum(axis=1), best @ gains  # (n,)
        recall_var, ndcg_var = recall * (1 - recall), best @ gains**2 - ndcg**2  # of one case around its expectation
        size = len(cases)
        return Ceiling(
            k,
            size,
            float(recall.mean()),
            float(ndcg.mean()),
            float(np.sqrt(recall_var.sum()) / size),
            float(np.sqrt(ndcg_var.sum()) / size),
        )

    def oracle_ranks(self, split: Split | None = None) -> Ints:
        """int64 (n,): the rank from 1 that the predictor who knows the shop gave each test target, ties by item number.

        Raises:
            ValueError: if the split is of other data.
        """
        split, cases = self._cases(split)
        order = np.argsort(-self.next_item(split.histories(cases)), axis=1, kind="stable")
        ranks: Ints = np.argmax(order == split.targets(cases)[:, None], axis=1).astype(np.int64) + 1
        return ranks

    def _cases(self, split: Split | None) -> tuple[Split, Cases]:
        split = leave_one_out(self.data) if split is None else split
        if split.data.content_hash != self.data.content_hash:
            raise ValueError("split must be of this shop's own data; events were left out or come from elsewhere")
        return split, split.test


def make_shop(
    *,
    users: int = 3000,
    items: int = 200,
    categories: int = 20,
    p: float = 0.8,
    lag: int = 2,
    events: tuple[int, int] = (20, 30),
    seed: int = 0,
) -> Shop:
    """Makes the embedded data set; equal arguments give equal data.

    Items that nobody bought, which a few dozen users may leave, are not in the catalogue; the ceiling then stands for
    the items that were sold.

    Args:
        users: number of shoppers.
        items: number V of items, a multiple of ``categories``.
        categories: number of categories, at most 20.
        p: probability that a purchase follows the category graph; otherwise it is any item.
        lag: how many events back the purchase lies whose category decides.
        events: fewest and most purchases of a shopper.
        seed: of the random numbers.

    Raises:
        ValueError: if an argument is out of range.

    >>> "Trail shoe 7" in make_shop(users=50).data.titles
    True
    """
    _check(users, items, categories, p, lag, events)
    rng = np.random.default_rng(seed)
    category = np.concatenate([[-1], rng.permutation(np.arange(items) % categories)])
    cycle = rng.permutation(categories)
    successor = np.empty(categories, dtype=np.int64)
    successor[cycle] = np.roll(cycle, -1)
    odds = 1 + categories * p / (1 - p)  # p / (V / C) + (1 - p) / V against (1 - p) / V
    picks = _walk(rng, users, category, successor, odds, lag, events[1])  # (U, longest)
    gaps = rng.integers(DAY // 24, 4 * DAY, picks.shape)
    times = OPENING + rng.integers(0, 300 * DAY, (users, 1)) + np.cumsum(gaps, axis=1)
    kept = np.arange(events[1]) < rng.integers(events[0], events[1] + 1, (users, 1))  # (U, longest)
    buyers = np.broadcast_to(np.arange(1, users + 1)[:, None], picks.shape)
    codes = np.array([f"SKU{number:0{len(str(items))}d}" for number in range(items + 1)])
    interactions = Interactions.from_arrays(buyers[kept], codes[picks[kept]], times[kept], source="quickstart")
    data = SequenceData.from_interactions(interactions, dict(zip(codes[1:].tolist(), _titles(category), strict=True)))
    sold = np.unique(np.append(picks[kept], PAD))  # codes and numbers have one order, without gaps if all are sold
    return Shop(interactions, data, category[sold], successor, odds, lag)


def _walk(
    rng: np.random.Generator, users: int, category: Ints, successor: Ints, odds: float, lag: int, length: int
) -> Ints:
    """(U, length) item numbers, each drawn from what ``Shop.next_item`` says: same weights, one step at a time."""
    picks = np.zeros((users, length), dtype=np.int64)
    unseen = np.ones((users, len(category)), dtype=bool)  # (U, V + 1)
    unseen[:, PAD] = False
    for step in range(length):
        expected = successor[category[picks[:, step - lag]]] if step >= lag else np.full(users, -2)
        weights = np.where(category == expected[:, None], odds, 1.0) * unseen
        sums = np.cumsum(weights, axis=1)
        picks[:, step] = (sums <= rng.random((users, 1)) * sums[:, -1:]).sum(axis=1)
        unseen[np.arange(users), picks[:, step]] = False
    return picks


def _titles(category: Ints) -> list[str]:
    counts = dict.fromkeys(category.tolist(), 0)
    titles = []
    for kind in category[1:].tolist():
        counts[kind] += 1
        titles.append(f"{CATEGORIES[kind]} {counts[kind]}")
    return titles


def _check(users: int, items: int, categories: int, p: float, lag: int, events: tuple[int, int]) -> None:
    if users < 2:
        raise ValueError(f"users ({users}) must be at least 2")
    if not 2 <= categories <= len(CATEGORIES):
        raise ValueError(f"categories ({categories}) must lie in 2..{len(CATEGORIES)}")
    if items < categories or items % categories:
        raise ValueError(f"items ({items}) must be a multiple of categories ({categories})")
    if not 0 <= p < 1:
        raise ValueError(f"p ({p}) must be at least 0 and less than 1")
    if lag < 1:
        raise ValueError(f"lag ({lag}) must be at least 1")
    if not 1 <= events[0] <= events[1] < items:
        raise ValueError(f"events {events} must rise from at least 1 to less than items ({items})")

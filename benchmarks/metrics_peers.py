"""What the metrics are measured against: the reference's definitions, ranx, RecTools, torchmetrics; and what all of them rank.

Each peer is given the workload in the form that it is quickest with, made before the clock starts. Other packages are
imported where a peer is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec.histories import Ragged, offsets_of

METRICS = ("recall", "precision", "ndcg", "hit_rate")  # that all peers have
MOST_TARGETS = 20
FOUND = 0.2  # the share of targets that are taken from the user's own list
Means = dict[str, float]
Lists = list[list[int]]


@dataclass(frozen=True)
class Workload:
    """Lists of distinct items and 1..20 distinct targets a user, both drawn evenly from the catalogue.

    Args:
        predictions: (U, K) ids from 1, best first.
        targets: of U users.
    """

    predictions: NDArray[np.int64]
    targets: Ragged

    @classmethod
    def drawn(cls, users: int, items: int, length: int, seed: int = 0) -> Workload:
        """Draws a workload; a seed draws the same each time.

        Raises:
            ValueError: if so few items would have to be drawn again and again until a list's are distinct.
        """
        if items < 25 * length:
            raise ValueError(f"items ({items}) must be at least 25 times the length of lists ({length})")
        rng = np.random.default_rng(seed)
        predictions = _distinct_rows(lambda rows: rng.integers(1, items + 1, (len(rows), length)), users)

        def wanted(rows: NDArray[np.int64]) -> NDArray[np.int64]:
            shape = len(rows), MOST_TARGETS
            own = predictions[rows[:, None], rng.integers(0, length, shape)]
            return np.where(rng.random(shape) < FOUND, own, rng.integers(1, items + 1, shape))

        lengths = rng.integers(1, MOST_TARGETS + 1, users)
        kept = np.arange(MOST_TARGETS) < lengths[:, None]  # (U, 20)
        return cls(predictions, Ragged(_distinct_rows(wanted, users)[kept], offsets_of(lengths)))

    @cached_property
    def lists(self) -> tuple[Lists, Lists]:
        """Both as Python's own lists."""
        return self.predictions.tolist(), [row.tolist() for row in self.targets.rows()]

    def first(self, users: int) -> Workload:
        """The first users alone."""
        offsets = self.targets.offsets[: users + 1]
        return Workload(self.predictions[:users], Ragged(self.targets.values[: offsets[-1]], offsets))


def _distinct_rows(draw: Callable[[NDArray[np.int64]], NDArray[np.int64]], count: int) -> NDArray[np.int64]:
    """Draws rows, and those with a repeated entry anew until there are none."""
    again = np.arange(count)
    rows = draw(again)
    while len(again):
        ordered = np.sort(rows[again], axis=1)
        again = again[(ordered[:, 1:] == ordered[:, :-1]).any(axis=1)]
        rows[again] = draw(again)
    return rows


class Reference:
    """The reference's published definitions, with the same work for each user; one pass a metric and cut-off."""

    @staticmethod
    def recall_at_k(predictions: Lists, targets: Lists, k: int) -> float:
        shares = []
        for top, want in zip(predictions, targets, strict=True):
            if want:
                wanted = set(want)
                shares.append(len(set(top[:k]) & wanted) / len(wanted))
        return float(np.mean(shares)) if shares else 0.0

    @staticmethod
    def precision_at_k(predictions: Lists, targets: Lists, k: int) -> float:
        shares = [len(set(top[:k]) & set(want)) / k for top, want in zip(predictions, targets, strict=True) if k]
        return float(np.mean(shares)) if shares else 0.0

    @staticmethod
    def ndcg_at_k(predictions: Lists, targets: Lists, k: int) -> float:
        gains = []
        for top, want in zip(predictions, targets, strict=True):
            if want:
                gain = 0.0
                for place, item in enumerate(top[:k]):
                    if item in want:
                        gain += 1 / np.log2(place + 2)
                ideal = sum(1 / np.log2(place + 2) for place in range(min(len(want), k)))
                gains.append(gain / ideal if ideal > 0 else 0)
        return float(np.mean(gains)) if gains else 0.0

    @staticmethod
    def hit_rate_at_k(predictions: Lists, targets: Lists, k: int) -> float:
        hits = users = 0
        for top, want in zip(predictions, targets, strict=True):
            if want:
                hits += len(set(top[:k]) & set(want)) > 0
                users += 1
        return hits / users if users else 0.0

    @staticmethod
    def coverage(predictions: Lists, total_items: int) -> float:
        met: set[int] = set()
        for top in predictions:
            met.update(top)
        return len(met) / total_items

    @staticmethod
    def diversity(predictions: Lists) -> float:
        distances = []
        for i in range(len(predictions)):
            for j in range(i + 1, len(predictions)):
                one, other = set(predictions[i]), set(predictions[j])
                if len(one | other) > 0:
                    distances.append(1 - len(one & other) / len(one | other))
        return float(np.mean(distances)) if distances else 0.0


@dataclass(frozen=True)
class Peer:
    """Another way to the same means.

    Args:
        call: gives them, "recall@5" and so on.
        users: how many of the workload's first users it is given.
        tolerance: how far its means may lie from ours.
    """

    call: Callable[[], Means]
    users: int
    tolerance: float = 1e-9  # float64, sums in another order


def peers_of(work: Workload, ks: Sequence[int], subset: int) -> dict[str, Peer]:
    """Every peer by name.

    Args:
        work: what they score.
        ks: at which cut-offs.
        subset: how many users those get that are too slow for all, or whose containers are too large.
    """
    from numba import config

    users = len(work.predictions)
    subset = min(subset, users)
    few = work.first(subset)
    tables = ranx_tables(work)
    return {
        "the reference, on lists": Peer(partial(reference, *work.lists, ks), users),
        "ranx, on arrays, 1 thread": Peer(partial(ranx, *tables, ks, 1), users),
        f"ranx, on arrays, {config.NUMBA_NUM_THREADS} threads (its default)": Peer(
            partial(ranx, *tables, ks, config.NUMBA_NUM_THREADS), users
        ),
        f"ranx, on Qrels and Run, 1 thread, {subset:,} users, scaled": Peer(
            partial(ranx, *ranx_containers(few), ks, 1), subset
        ),
        "RecTools, on data frames": Peer(partial(rectools, *rectools_frames(work), ks), users),
        f"torchmetrics, on tensors, 1 thread, {subset:,} users, scaled": Peer(
            partial(torchmetrics, *torchmetrics_tensors(few), ks),
            subset,
            tolerance=1e-5,  # float32
        ),
    }


def reference(predictions: Lists, targets: Lists, ks: Sequence[int]) -> Means:
    """Every metric at every cut-off, a call each."""
    return {f"{name}@{k}": getattr(Reference, f"{name}_at_k")(predictions, targets, k) for name in METRICS for k in ks}


def ranx_tables(work: Workload) -> tuple[Any, Any]:
    """Targets as (id, 1), predictions as (id, score), in float64: what ranx makes of its own containers in each call."""
    from numba.typed import List

    users, length = work.predictions.shape
    run = np.empty((users, length, 2))
    run[:, :, 0], run[:, :, 1] = work.predictions, np.arange(length, 0, -1)
    ones = np.ones(MOST_TARGETS)
    return List([np.column_stack([row, ones[: len(row)]]) for row in work.targets.rows()]), run


def ranx_containers(work: Workload) -> tuple[Any, Any]:
    """``Qrels`` and ``Run``, which hold text."""
    from ranx import Qrels, Run

    predictions, targets = work.lists
    qrels = {f"{user:09}": dict.fromkeys(map(str, row), 1) for user, row in enumerate(targets)}
    scores = range(work.predictions.shape[1], 0, -1)
    run = {f"{user:09}": dict(zip(map(str, row), scores, strict=True)) for user, row in enumerate(predictions)}
    return Qrels(qrels), Run(run)


def ranx(qrels: Any, run: Any, ks: Sequence[int], threads: int) -> Means:
    from ranx import evaluate

    names = [f"{name}@{k}" for name in METRICS for k in ks]
    means: Means = evaluate(qrels, run, names, threads=threads, save_results_in_run=False)
    return means


def rectools_frames(work: Workload) -> tuple[Any, Any]:
    import pandas as pd
    from rectools import Columns

    users, length = work.predictions.shape
    every, ranks = np.arange(users), np.arange(1, length + 1)
    predictions = {
        Columns.User: np.repeat(every, length),
        Columns.Item: work.predictions.ravel(),
        Columns.Rank: np.tile(ranks, users),
    }
    targets = {Columns.User: np.repeat(every, work.targets.lengths), Columns.Item: work.targets.values}
    return pd.DataFrame(predictions), pd.DataFrame(targets)


def rectools(predictions: Any, targets: Any, ks: Sequence[int]) -> Means:
    from rectools.metrics import NDCG, HitRate, Precision, Recall, calc_metrics

    kinds = (Recall, Precision, partial(NDCG, divide_by_achievable=True), HitRate)
    asked = {f"{name}@{k}": kind(k=k) for name, kind in zip(METRICS, kinds, strict=True) for k in ks}
    means: Means = calc_metrics(asked, predictions, targets)
    return means


def torchmetrics_tensors(work: Workload) -> tuple[Any, Any, Any]:
    """Scores, whether each is of a target, and whose it is; targets that a list lacks follow with the score 0."""
    import torch

    torch.set_num_threads(1)
    users, length = work.predictions.shape
    owners = np.repeat(np.arange(users), work.targets.lengths)
    width = int(max(work.predictions.max(), work.targets.values.max())) + 1
    wanted = owners * width + work.targets.values
    listed = (np.arange(users)[:, None] * width + work.predictions).ravel()
    missed = ~np.isin(wanted, listed)
    scores = np.concatenate(
        [np.tile(np.arange(length, 0, -1, dtype=np.float32) / length, users), np.zeros(missed.sum())]
    )
    hits = np.concatenate([np.isin(listed, wanted), np.ones(missed.sum(), np.bool_)])
    whose = np.concatenate([np.repeat(np.arange(users), length), owners[missed]])
    return torch.from_numpy(scores.astype(np.float32)), torch.from_numpy(hits), torch.from_numpy(whose)


def torchmetrics(scores: Any, hits: Any, whose: Any, ks: Sequence[int]) -> Means:
    from torchmetrics import retrieval

    kinds = (
        retrieval.RetrievalRecall,
        retrieval.RetrievalPrecision,
        retrieval.RetrievalNormalizedDCG,
        retrieval.RetrievalHitRate,
    )
    means = {}
    for name, kind in zip(METRICS, kinds, strict=True):
        for k in ks:
            metric = kind(top_k=k)
            metric.update(scores, hits, indexes=whose)
            means[f"{name}@{k}"] = float(metric.compute())
    return means

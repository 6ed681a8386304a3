"""Results made up for tests: each user's one target at a given rank."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec.results import Result

PROTOCOL: dict[str, Any] = {
    "content_hash": "a1" * 32,
    "split": "leave_one_out",
    "cutoffs": None,
    "history": "all events before the target",
    "target": "the last event",
    "ranking": "all items",
    "seen_filter": "the whole history",
    "source": "events.csv",
    "filters": {"k_core": 5},
    "counts": {"users": 3000, "test_cases": 3000},
}


def scored(
    name: str,
    ranks: NDArray[np.int64],
    *,
    users: NDArray[Any] | None = None,
    protocol: dict[str, Any] | None = None,
    **details: Any,
) -> Result:
    """A result with recall, NDCG and MRR at 5 and 10, and a coverage without values by user."""
    values = {}
    for k in (5, 10):
        hit = ranks <= k
        gains = {"recall": np.ones(len(ranks)), "ndcg": 1 / np.log2(ranks + 1), "mrr": 1 / ranks}
        values |= {f"{metric}@{k}": np.where(hit, gain, 0.0) for metric, gain in gains.items()}
    metrics = {metric: float(column.mean()) for metric, column in values.items()} | {"coverage@10": 0.25}
    users = np.arange(len(ranks)) if users is None else users
    return Result(name, metrics, users, values, PROTOCOL if protocol is None else protocol, details)


def drawn_ranks(users: int, skill: float, seed: int, luck: float = 0.5) -> NDArray[np.int64]:
    """Ranks that hang on how hard a user is, the same for all, on a model's skill and, for each seed, on luck.

    Args:
        users: how many.
        skill: how much smaller the ranks are, as a logarithm.
        seed: of the luck.
        luck: how much of it there is; 0 for the same ranks whatever the seed.
    """
    hard = np.random.default_rng(0).normal(2.5, 1.5, users)
    chance = np.random.default_rng([1, seed]).normal(0, luck, users)
    return np.maximum(np.exp(hard + chance - skill).astype(np.int64), 1)

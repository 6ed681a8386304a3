"""Scoring a model on a split: every item of the catalogue ranked, the whole history filtered, ranks kept as integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genrec.data import Cases, Split
from genrec.histories import Ints, RawId
from genrec.metrics import RankCounts, list_ranks
from genrec.modules import catalogue_scores, mask_scores, target_ranks
from genrec.training.batches import Batch, case_batches
from genrec.training.contract import device_of, recommender
from genrec.training.processes import rank_and_world, sum_over_processes

KS = (5, 10, 20)

PROTOCOL = {
    "ranking": "all items of the catalogue",
    "seen_filter": "every item of the whole history is left out; a target that is in the history counts as missed",
    "ties": "higher score first, then lower item index",
    "precision": "scores in float32",
    "validation": "after every epoch; the epoch with the highest NDCG@10 is kept",
    "test": "scored once, after the best epoch was restored",
}


@dataclass(frozen=True)
class Evaluation:
    """What a model scored on some cases.

    Args:
        metrics: ``recall@k``, ``ndcg@k`` and ``mrr@k`` for each k.
        cases: how many predictions the means are over.
        targets_in_history: cases whose target the user had before; the filter makes them misses.
    """

    metrics: dict[str, float]
    cases: int
    targets_in_history: int

    def to_json(self) -> dict[str, Any]:
        """One flat mapping."""
        return {**self.metrics, "cases": self.cases, "targets_in_history": self.targets_in_history}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Evaluation:
        """The inverse of ``to_json``."""
        metrics = {name: value for name, value in content.items() if "@" in name}
        return cls(metrics, content["cases"], content["targets_in_history"])


def evaluate(
    model: nn.Module, split: Split, cases: Cases | None = None, *, ks: Sequence[int] = KS, batch_size: int = 256
) -> Evaluation:
    """Scores a model on the device it is on; in a process group the cases are shared out and every process gets the result.

    Args:
        model: one of the zoo's interface.
        split: where histories and targets come from.
        cases: which; the test cases when None.
        ks: cut-offs, each at least 1.
        batch_size: histories scored at once.

    Returns:
        The same numbers whatever the number of processes: only counts of ranks are added up.

    Raises:
        TypeError: if the model lacks a part of the interface.
        ValueError: if a cut-off is below 1.
    """
    cases = split.test if cases is None else cases
    counts = _rank_counts(model, split, cases, max(ks), batch_size)
    return Evaluation(counts.compute(ks), len(cases), targets_in_history(split, cases))


def evaluate_lists(
    recommend: Callable[[list[list[RawId]], int], Sequence[Sequence[RawId]]],
    split: Split,
    cases: Cases | None = None,
    *,
    ks: Sequence[int] = KS,
) -> Evaluation:
    """Scores whatever recommends raw ids, such as a served bundle, by the lists it gives.

    Args:
        recommend: takes raw histories and a length k, returns as many lists of at most k raw ids, best first.
        split: where histories and targets come from.
        cases: which; the test cases when None.
        ks: cut-offs, each at least 1.

    Raises:
        ValueError: if a cut-off is below 1, or there are not as many lists as histories.
    """
    cases = split.test if cases is None else cases
    raw = np.array(split.data.items.all(), dtype=object)
    histories = [raw[row - 1].tolist() for row in split.histories(cases).rows()]
    counts = RankCounts(max(ks))
    counts.update(list_ranks(recommend(histories, max(ks)), raw[split.targets(cases) - 1].tolist(), max(ks)))
    return Evaluation(counts.compute(ks), len(cases), targets_in_history(split, cases))


@torch.inference_mode()
def _rank_counts(model: nn.Module, split: Split, cases: Cases, max_rank: int, batch_size: int) -> RankCounts:
    max_seq_length, device = recommender(model).max_seq_length, device_of(model)
    counts = RankCounts(max_rank)
    was_training = model.training
    model.eval()
    try:
        for batch in case_batches(split, cases, batch_size, max_seq_length, *rank_and_world()):
            counts.update(_ranks(model, {name: part.to(device) for name, part in batch.items()}).cpu())
    finally:
        model.train(was_training)
    counts.counts = sum_over_processes(counts.counts, device)
    return counts


def _ranks(model: nn.Module, batch: Batch) -> Tensor:
    scores = mask_scores(catalogue_scores(model, batch["item_ids"]), batch["exclude"])  # (B, V + 1)
    return target_ranks(scores, batch["targets"])


def targets_in_history(split: Split, cases: Cases) -> int:
    """How many cases ask for an item that the user had before."""
    histories, targets = split.histories(cases), split.targets(cases)
    owners = np.repeat(np.arange(len(cases)), histories.lengths)
    repeated: Ints = np.unique(owners[histories.values == targets[owners]])
    return len(repeated)

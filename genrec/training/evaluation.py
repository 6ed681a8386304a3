"""Scoring a model on a split: every item of the catalogue ranked, the whole history filtered, ranks kept as integers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genrec.data import Cases, Split
from genrec.histories import Ints, Ragged, RawId
from genrec.metrics.items import ItemCounts
from genrec.metrics.ranking import MetricAccumulator
from genrec.modules import catalogue_scores, mask_scores, target_ranks, top_k
from genrec.results import Result
from genrec.results.scoring import KS, RANKING, TIES, Floats, Scores, check_cut_offs, score_lists, score_ranks
from genrec.training.batches import case_batches
from genrec.training.contract import device_of, recommender
from genrec.training.inputs import FurtherInputs
from genrec.training.processes import rank_and_world, sum_over_processes

PROTOCOL = {
    **RANKING,
    "ties": TIES,
    "precision": "scores in float32",
    "validation": "after every epoch, on all its cases or valid_cases of them; the epoch with the highest NDCG@10 is kept",
    "test": "scored once, after the best epoch was restored",
}


@dataclass(frozen=True)
class Evaluation:
    """What a model scored on some cases.

    Args:
        metrics: ``recall@k``, ``precision@k``, ``ndcg@k``, ``hit_rate@k``, ``mrr@k`` and ``map@k`` for each k; of a full
            evaluation also ``coverage@k``, ``gini@k``, ``entropy@k``, ``average_popularity@k`` and ``novelty@k``.
        cases: how many predictions the means are over.
        targets_in_history: cases whose target the user had before; the filter makes them misses.
        values: of a full evaluation, each case's value in the metrics that are means: float64 (cases,), in their order.
    """

    metrics: dict[str, float]
    cases: int
    targets_in_history: int
    values: dict[str, Floats] = field(default_factory=dict, compare=False, repr=False)

    def to_json(self) -> dict[str, Any]:
        """One flat mapping, without the values by case."""
        return {**self.metrics, "cases": self.cases, "targets_in_history": self.targets_in_history}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Evaluation:
        """The inverse of ``to_json``."""
        metrics = {name: value for name, value in content.items() if "@" in name}
        return cls(metrics, content["cases"], content["targets_in_history"])

    def result(self, name: str, split: Split, details: Mapping[str, Any]) -> Result:
        """A full evaluation of the test cases as files and comparisons take it.

        Args:
            name: what tables call it.
            split: whose test cases were scored.
            details: what was scored: ``model``, ``config``, ``seed``.

        Raises:
            ValueError: if the evaluation is not full, or not of as many cases as the test has.
        """
        if not self.values:
            raise ValueError("a result needs the values by case; evaluate with full=True")
        users = split.data.user_ids[split.test.users]
        return Result(name, self.metrics, users, self.values, split.protocol() | PROTOCOL, dict(details))


def evaluate(
    model: nn.Module,
    split: Split,
    cases: Cases | None = None,
    *,
    ks: Sequence[int] = KS,
    batch_size: int = 256,
    full: bool = False,
) -> Evaluation:
    """Scores a model on the device it is on; in a process group the cases are shared out and every process gets the result.

    Args:
        model: one of the zoo's interface.
        split: where histories and targets come from.
        cases: which; the test cases when None.
        ks: cut-offs, each at least 1.
        batch_size: histories scored at once.
        full: make the best lists, too, not only the targets' ranks, for what all lists show together; and keep each
            case's values.

    Returns:
        The same numbers whatever the number of processes: only whole numbers are added up.

    Raises:
        TypeError: if the model lacks a part of the interface.
        ValueError: if a cut-off is below 1.
    """
    check_cut_offs(ks)
    cases = split.test if cases is None else cases
    if full:
        return _evaluation(_full_scores(model, split, cases, ks, batch_size), split, cases)
    means = MetricAccumulator(ks)
    ranks = [found for _, _, found in _scored_batches(model, split, cases, batch_size)]
    means.update_ranks(np.concatenate([np.zeros(0, dtype=np.int64), *ranks]))
    state = sum_over_processes(means.state(), device_of(model))
    return _evaluation((MetricAccumulator.from_state(ks, state).compute(), {}), split, cases)


def evaluate_lists(
    recommend: Callable[..., Sequence[Sequence[RawId]]],
    split: Split,
    cases: Cases | None = None,
    *,
    ks: Sequence[int] = KS,
    reads: Collection[str] = (),
) -> Evaluation:
    """Scores whatever recommends raw ids, such as a served bundle, by the lists it gives; a full evaluation.

    Args:
        recommend: takes raw histories and a length k, returns as many lists of at most k raw ids, best first; what it
            ``reads`` comes by keyword.
        split: where histories and targets come from.
        cases: which; the test cases when None.
        ks: cut-offs, each at least 1; an id that the split does not know takes its place and is no item.
        reads: what else it takes, of ``timestamps``, per history a list of seconds, and ``users``, the raw ids.

    Raises:
        ValueError: if a cut-off is below 1, times are read and unknown, or there are not as many lists as histories.
    """
    check_cut_offs(ks)
    cases = split.test if cases is None else cases
    requests = raw_requests(split, cases, reads)
    rows = recommend(requests.pop("histories"), max(ks), **requests)
    if len(rows) != len(cases):
        raise ValueError(f"recommend gave {len(rows)} lists for {len(cases)} histories")
    lists = Ragged.from_rows([split.data.items.index(row[: max(ks)]) for row in rows]).pad(max(ks), side="right")
    return _evaluation(score_lists(lists, split, cases, ks), split, cases)


def raw_requests(split: Split, cases: Cases, reads: Collection[str] = ()) -> dict[str, Any]:
    """The cases as callers of a served model pass them.

    Args:
        split: where the cases come from.
        cases: which.
        reads: what the model reads beside histories.

    Returns:
        ``histories``, lists of raw ids; of ``timestamps``, lists of seconds, and ``users``, raw ids, what is read.

    Raises:
        ValueError: if times are read and unknown.
    """
    raw = np.array(split.data.items.all(), dtype=object)
    inputs: dict[str, Any] = {"histories": [raw[row - 1].tolist() for row in split.histories(cases).rows()]}
    if "timestamps" in reads:
        times = split.history_times(cases)
        if times is None:
            raise ValueError(f"the model reads the times of events, and {split.data.source} has none")
        inputs["timestamps"] = [row.tolist() for row in times.rows()]
    if "users" in reads:
        inputs["users"] = split.data.user_ids[cases.users].tolist()
    return inputs


def _evaluation(scores: Scores, split: Split, cases: Cases) -> Evaluation:
    metrics, values = scores
    return Evaluation(metrics, len(cases), targets_in_history(split, cases), values)


def _full_scores(model: nn.Module, split: Split, cases: Cases, ks: Sequence[int], batch_size: int) -> Scores:
    num_items, device = len(split.data.items), device_of(model)
    ranks, items = np.zeros(len(cases), dtype=np.int64), ItemCounts(ks, num_items)
    for index, scores, found in _scored_batches(model, split, cases, batch_size):
        ranks[index] = found  # the others are those of the other processes
        items.update(_best(scores, min(max(ks), num_items)))
    counts = sum_over_processes(items.state(), device)
    items = ItemCounts.from_state(ks, num_items, counts)
    return score_ranks(sum_over_processes(ranks, device), items, split, ks)


@torch.inference_mode()
def _scored_batches(
    model: nn.Module, split: Split, cases: Cases, batch_size: int
) -> Iterator[tuple[Ints, Tensor, Ints]]:
    """This process's batches: which cases (B,), their masked scores (B, V + 1), and the ranks of their targets (B,)."""
    max_seq_length, device = recommender(model).max_seq_length, device_of(model)
    was_training = model.training
    model.eval()
    try:
        further = FurtherInputs.of(model, split)
        for batch in case_batches(split, cases, batch_size, max_seq_length, *rank_and_world(), further):
            index = batch.pop("cases").numpy()
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            targets = batch.pop("targets")
            scores = mask_scores(catalogue_scores(model, **batch), batch["exclude"])  # (B, V + 1)
            yield index, scores, target_ranks(scores, targets).cpu().numpy()
    finally:
        model.train(was_training)


@torch.inference_mode()
def _best(scores: Tensor, k: int) -> Ints:
    """The k best item numbers (B, k), 0 where only excluded ones are left."""
    indices, values = top_k(scores, k)
    best: Ints = indices.masked_fill(values == float("-inf"), 0).cpu().numpy()
    return best


def sample_cases(cases: Cases, count: int, seed: int) -> Cases:
    """``count`` of the cases, drawn without replacement, in their order; all where there are no more, or ``count`` is 0."""
    if not count or count >= len(cases):
        return cases
    chosen = np.sort(np.random.default_rng([seed, count]).choice(len(cases), count, replace=False))
    return Cases(cases.users[chosen], cases.ends[chosen])


def targets_in_history(split: Split, cases: Cases) -> int:
    """How many cases ask for an item that the user had before."""
    histories, targets = split.histories(cases), split.targets(cases)
    owners = np.repeat(np.arange(len(cases)), histories.lengths)
    repeated: Ints = np.unique(owners[histories.values == targets[owners]])
    return len(repeated)

"""Batches for training and for scoring, cut from flat arrays without a Python loop over rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genrec.data import Cases, Split
from genrec.histories import PAD, Ints, Ragged
from genrec.training.inputs import NOTHING, FurtherInputs

Batch = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Windows:
    """The training events cut so that every event but each user's first is a target exactly once.

    Windows of a user follow one another from the newest event back; each holds its inputs and, one step later, their targets,
    so that a window's oldest event is the next one's newest target.

    Args:
        events: the users' training histories.
        users: int64 (W,), the row of ``events`` that a window lies in.
        starts: int64 (W,), position of its first input in that row.
        ends: int64 (W,), one past the position of its last target.
        times: the seconds of ``events``, for models that read them.
        tokens: int64 (U,), of each row's user, for models that read them.
    """

    events: Ragged
    users: Ints
    starts: Ints
    ends: Ints
    times: Ragged | None = None
    tokens: Ints | None = None

    @classmethod
    def cut(
        cls, events: Ragged, max_seq_length: int, times: Ragged | None = None, tokens: Ints | None = None
    ) -> Windows:
        """Windows of at most ``max_seq_length`` inputs; the other arguments are kept as they are.

        >>> windows = Windows.cut(Ragged.from_rows([[5, 6, 7, 8], [9]]), max_seq_length=2)
        >>> [windows.batch(np.array([i]))["targets"].tolist() for i in range(len(windows))]
        [[[7, 8]], [[6]]]
        """
        targets = np.maximum(events.lengths - 1, 0)
        counts = -(-targets // max_seq_length)  # rounded up
        users = np.repeat(np.arange(len(events)), counts)
        steps_back = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
        ends = events.lengths[users] - steps_back * max_seq_length
        return cls(events, users, np.maximum(ends - max_seq_length - 1, 0), ends, times, tokens)

    def __len__(self) -> int:
        return len(self.users)

    @property
    def lengths(self) -> Ints:
        """int64 (W,): inputs of each window."""
        return self.ends - self.starts - 1

    def batch(self, index: Ints) -> Batch:
        """Some windows, left-padded to the longest of them.

        Args:
            index: int64 (B,), which windows.

        Returns:
            ``item_ids`` int64 (B, L) and ``targets`` int64 (B, L), the event after each slot; 0 in both where there is none.
            With ``times``, ``timestamps`` int64 (B, L); with ``tokens``, ``users`` int64 (B,).
        """
        users, starts, ends = self.users[index], self.starts[index], self.ends[index]
        padded = self.events.slices(users, starts, ends).pad()  # (B, L + 1)
        item_ids = padded[:, :-1]
        batch = {"item_ids": item_ids.copy(), "targets": np.where(item_ids == PAD, PAD, padded[:, 1:])}
        if self.times is not None:
            batch["timestamps"] = self.times.slices(users, starts, ends - 1).pad(item_ids.shape[1])
        if self.tokens is not None:
            batch["users"] = self.tokens[users]
        return {name: torch.from_numpy(values) for name, values in batch.items()}


def epoch_order(lengths: Ints, batch_size: int, seed: int, epoch: int, rank: int = 0, world: int = 1) -> list[Ints]:
    """Which windows each step of an epoch trains on: windows of like length together, the steps in random order.

    Steps hold equally many targets, not windows: the loss is a mean over a step's targets, and each target of a step of
    short windows would else count many times as much (SASRec on Amazon Beauty: Recall@10 .080 that way, .093 this way).
    Every process draws the same order and takes its share of each step's windows, so all make the same number of steps,
    and together they see every window once.

    Args:
        lengths: int64 (W,), targets of each window.
        batch_size: windows a step on average, over all processes together.
        seed: of the run.
        epoch: counted from 0; each has its own order.
        rank: this process, 0..``world`` - 1.
        world: how many processes there are.

    Returns:
        A list of int64 arrays, one a step, none empty.

    Raises:
        ValueError: if there are fewer windows than processes.
    """
    if len(lengths) < world:
        raise ValueError(f"{len(lengths)} training windows cannot be shared by {world} processes; start fewer")
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    order = order[np.argsort(lengths[order], kind="stable")]
    before, steps = np.cumsum(lengths[order]) - lengths[order], -(-len(order) // batch_size)
    cuts = np.searchsorted(before, lengths.sum() * np.arange(1, steps) / steps)
    parts = _at_least(world, np.split(order, cuts))
    return [parts[i][rank::world] for i in random.permutation(len(parts))]


def _at_least(size: int, parts: list[Ints]) -> list[Ints]:
    """The parts, those of fewer than ``size`` windows joined with the next, the last one with the one before."""
    joined: list[Ints] = []
    waiting = np.zeros(0, dtype=np.int64)
    for part in parts:
        waiting = np.concatenate([waiting, part])
        if len(waiting) >= size:
            joined.append(waiting)
            waiting = waiting[:0]
    joined[-1] = np.concatenate([joined[-1], waiting])
    return joined


def case_batches(
    split: Split,
    cases: Cases,
    batch_size: int,
    max_seq_length: int,
    rank: int = 0,
    world: int = 1,
    further: FurtherInputs = NOTHING,
) -> Iterator[Batch]:
    """The cases to score, long histories together; every process takes whole batches, so that sums round the same.

    Args:
        split: where the cases come from.
        cases: which to score.
        batch_size: histories a batch.
        max_seq_length: how many of the newest events the model sees.
        rank: this process, 0..``world`` - 1.
        world: how many processes there are.
        further: what the model reads beside the items.

    Yields:
        ``cases`` int64 (B,), which they are; ``item_ids`` int64 (B, L), left-padded; ``exclude`` int64 (B, E), the whole
        histories; ``targets`` int64 (B,); and what ``further`` adds.
    """
    order = np.argsort(cases.ends, kind="stable")
    for start in range(rank * batch_size, len(order), world * batch_size):
        index = order[start : start + batch_size]
        part = Cases(cases.users[index], cases.ends[index])
        exclude = split.histories(part).pad()
        item_ids = exclude[:, -max_seq_length:].copy()
        yield {
            "cases": torch.from_numpy(index),
            "item_ids": torch.from_numpy(item_ids),
            "exclude": torch.from_numpy(exclude),
            "targets": torch.from_numpy(split.targets(part)),
            **further.of_cases(split, part, item_ids.shape[1]),
        }

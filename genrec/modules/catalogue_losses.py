"""Losses of the next item: exact over the whole catalogue, or estimated from a sample of it, for catalogues of any size."""

import math
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from genrec.histories import Ragged
from genrec.modules._checks import check_sizes

ItemLoss = Literal["cross_entropy", "sampled_softmax", "gbce"]
Negatives = Literal["uniform", "popularity"]

LOGITS_AT_ONCE = 1 << 22  # 16 MiB of float32; beyond that, chunks take half the time of one matrix on a CPU
_LEAST_ROWS = 64  # fewer would read the table, and write its gradient, too often for too little work


class NextItemLoss(nn.Module):
    """A loss of the next item, chosen by its name; draws the negatives where it needs some.

    Args:
        num_items: items V of the catalogue.
        loss: "cross_entropy" over the whole catalogue, "sampled_softmax" or "gbce", both over a sample of it.
        num_negatives: size of the sample, drawn with repeats for each call and shared by all of its targets.
        negatives: what the sample is drawn by: "uniform", or "popularity" for "sampled_softmax", which needs ``prepare``.
        popularity_power: an item of n events is drawn in proportion to ``(n + 1) ** popularity_power``; at least 0, which
            is uniform. The 1 lets every item be drawn, without which the estimate would be biased.
        gbce_t: calibration t of "gbce", in [0, 1].

    Raises:
        ValueError: if a size is below 1, a word is unknown, ``negatives`` does not go with ``loss``, or a number lies outside
            its range.
    """

    cumulative: Tensor  # float64 (V + 1,): how probable a draw of an item of this number or a lower one is
    shares: Tensor  # float32 (V + 1,): how probable a draw of this item is, 0 for padding

    def __init__(
        self,
        num_items: int,
        loss: ItemLoss = "cross_entropy",
        *,
        num_negatives: int = 1024,
        negatives: Negatives = "uniform",
        popularity_power: float = 0.75,
        gbce_t: float = 0.75,
    ) -> None:
        super().__init__()
        check_sizes(num_items=num_items, num_negatives=num_negatives)
        if loss not in ("cross_entropy", "sampled_softmax", "gbce"):
            raise ValueError(f"loss ({loss!r}) must be 'cross_entropy', 'sampled_softmax' or 'gbce'")
        if negatives not in ("uniform", "popularity"):
            raise ValueError(f"negatives ({negatives!r}) must be 'uniform' or 'popularity'")
        if negatives == "popularity" and loss != "sampled_softmax":
            raise ValueError(f"negatives 'popularity' belongs to loss 'sampled_softmax', not to {loss!r}")
        if not (0 <= popularity_power < math.inf and 0 <= gbce_t <= 1):
            raise ValueError(f"popularity_power ({popularity_power}) must be at least 0, gbce_t ({gbce_t}) in [0, 1]")
        self.num_items = num_items
        self.loss = loss
        self.num_negatives = num_negatives
        self.negatives = negatives
        self.popularity_power = popularity_power
        self.gbce_t = gbce_t
        self.register_buffer("cumulative", torch.zeros(0, dtype=torch.float64), persistent=False)
        self.register_buffer("shares", torch.zeros(0), persistent=False)

    def prepare(self, histories: Ragged) -> None:
        """Counts the events of training for negatives by popularity; does nothing for others.

        The counts are not among the weights: a process that goes on with a training prepares anew.

        Args:
            histories: the users' training events, item numbers 1..V.
        """
        if self.negatives == "uniform":
            return
        counts = np.bincount(histories.values, minlength=self.num_items + 1)  # (V + 1,)
        weights = (counts + 1.0) ** self.popularity_power
        weights[0] = 0  # padding is never drawn
        sums = weights.cumsum()
        self.cumulative = torch.from_numpy(sums / sums[-1]).to(self.cumulative.device)
        self.shares = torch.from_numpy(weights / sums[-1]).to(self.shares)

    def forward(self, states: Tensor, table: Tensor, targets: Tensor) -> Tensor:
        """The mean loss.

        Args:
            states: (N, D), what the model knows of a user before the target.
            table: (V + 1, D), item vectors; row 0 is padding's.
            targets: int64 (N,), item indices 1..V.

        Returns:
            A scalar; 0 where N is 0.

        Raises:
            RuntimeError: if negatives by popularity were not prepared.
        """
        if self.loss == "cross_entropy":
            return next_item_cross_entropy(states, table, targets)
        drawn = self._draw(states.device)
        if self.loss == "gbce":
            return gbce(states, table, targets, drawn, self.gbce_t)
        return sampled_softmax(states, table, targets, drawn, self.shares if self.negatives == "popularity" else None)

    def _draw(self, device: torch.device) -> Tensor:
        """Negatives, int64 (S,)."""
        if self.negatives == "uniform":
            return torch.randint(1, self.num_items + 1, (self.num_negatives,), device=device)
        if not len(self.shares):
            raise RuntimeError("negatives by popularity need the counts of training: call prepare(histories) first")
        places = torch.rand(self.num_negatives, dtype=torch.float64, device=device)  # in [0, 1)
        return torch.searchsorted(self.cumulative, places, right=True)


def next_item_cross_entropy(states: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy of the next item over the whole catalogue; padding is no candidate.

    Where there would be more than ``LOGITS_AT_ONCE`` logits, they are made a chunk of positions at a time, each of at most so
    many (or of 64 positions, where those are more), and the gradient along with them: the loss is the same but for
    rounding, and memory beside it that of the table's gradient and one chunk. Chunks are computed in the table's
    precision, under autocast too.

    Args:
        states: (N, D), what the model knows of a user before the target.
        table: (V + 1, D), item vectors; row 0 is padding's.
        targets: int64 (N,), item indices 1..V.

    Returns:
        A scalar; 0 where N is 0.
    """
    items = len(table) - 1
    if len(states) * items <= LOGITS_AT_ONCE:
        total = F.cross_entropy(states @ table[1:].T, targets - 1, reduction="sum")
    else:
        rows = max(LOGITS_AT_ONCE // items, _LEAST_ROWS)
        total = _ChunkedCrossEntropy.apply(states.to(table.dtype), table, targets, rows)  # type: ignore[no-untyped-call]
    return total / max(len(targets), 1)


def sampled_softmax(
    states: Tensor, table: Tensor, targets: Tensor, negatives: Tensor, shares: Tensor | None = None
) -> Tensor:
    """``next_item_cross_entropy`` estimated from a sample of negatives that all targets share.

    The sample stands for the V - 1 other items: with M of it left for a target t (itself and padding do not count), the logit of
    a negative j that a draw gives with probability q_j gets ``log((1 - q_t) / (M q_j))`` added, so that the sum in the softmax
    is an unbiased estimate (Bengio and Senecal 2008; as "logQ correction", Yi et al. 2019), and with every item as a negative, as
    often as its q says, the loss is the full one. The target's own logit is exact, so it is left as it is, where Yi et al.
    correct it too. For negatives out of the batch hand in ``targets`` again, and the shares of items among all targets.

    Args:
        states: (N, D).
        table: (V + 1, D), item vectors; row 0 is padding's.
        targets: int64 (N,), item indices 1..V.
        negatives: int64 (S,), drawn independently; 0 counts as none.
        shares: (V + 1,), the probability q of each item to be drawn, 0 for padding and above 0 for what was drawn; None where
            draws are uniform over 1..V.

    Returns:
        A scalar; 0 where N is 0.
    """
    positive, sampled, kept = _sampled_logits(states, table, targets, negatives)
    if shares is None:
        correction: Tensor | float = math.log(max(len(table) - 2, 1))
    else:
        sampled = sampled - shares[negatives].log()
        correction = torch.log1p(-shares[targets]).unsqueeze(1)  # (N, 1)
    correction = correction - kept.sum(dim=1, keepdim=True).clamp(min=1).log()  # (N, 1)
    logits = torch.cat([positive, (sampled + correction).masked_fill(~kept, float("-inf"))], dim=1)
    return -logits.log_softmax(dim=1)[:, 0].sum() / max(len(targets), 1)


def gbce(states: Tensor, table: Tensor, targets: Tensor, negatives: Tensor, t: float = 0.75) -> Tensor:
    """Generalised binary cross-entropy (gBCE; Petrov and Macdonald 2023) over negatives that all targets share.

    For a target of score s and its k negatives of scores s_j (itself and padding do not count)::

        loss = -(beta * log sigmoid(s) + sum_j log(1 - sigmoid(s_j))) / (k + 1)
        beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha) = 1 - t * (1 - alpha),    alpha = k / (V - 1)

    An item that comes next with probability p is a positive with probability p and a negative with about alpha * (1 - p), so the
    best sigmoid is beta * p / (beta * p + alpha * (1 - p)): p itself for t = 1, where beta = alpha, and for t = 0, plain
    binary cross-entropy, the more too high the smaller the sample. No sigmoid is rounded before its logarithm is taken:
    ``-log sigmoid(s) = softplus(-s)`` bears scores of any size.

    Args:
        states: (N, D).
        table: (V + 1, D), item vectors; row 0 is padding's.
        targets: int64 (N,), item indices 1..V.
        negatives: int64 (S,), drawn uniformly from 1..V; 0 counts as none.
        t: calibration, 0 (none) to 1 (full); the authors' recipe takes .75 with 256 negatives.

    Returns:
        A scalar; 0 where N is 0.
    """
    positive, sampled, kept = _sampled_logits(states, table, targets, negatives)
    count = kept.sum(dim=1)  # (N,)
    beta = 1 - t * (1 - count / max(len(table) - 2, 1))
    loss = beta * F.softplus(-positive.squeeze(1)) + F.softplus(sampled).masked_fill(~kept, 0.0).sum(dim=1)  # (N,)
    return (loss / (count + 1)).sum() / max(len(targets), 1)


def _sampled_logits(states: Tensor, table: Tensor, targets: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of the targets (N, 1) and of the negatives (N, S), and which of those count: bool (N, S)."""
    positive = (states * table[targets]).sum(dim=1, keepdim=True)  # (N, 1)
    kept = (negatives != targets.unsqueeze(1)) & (negatives != 0)  # (N, S)
    return positive, states @ table[negatives].T, kept


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The summed cross entropy, its gradient computed on the way, while a chunk's logits are at hand."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, table: Tensor, targets: Tensor, rows: int) -> Tensor:
        items = table[1:]  # (V, D)
        chosen = targets.unsqueeze(1) - 1  # (N, 1)
        by_states, by_table = torch.empty_like(states), torch.zeros_like(table)
        room = states.new_empty(min(rows, len(states)), len(items))  # (C, V), each chunk's in turn
        total = states.new_zeros(())
        with torch.autocast(states.device.type, enabled=False):
            for start in range(0, len(states), rows):
                part = slice(start, start + rows)
                logits = torch.mm(states[part], items.T, out=room[: len(states[part])])
                total += _to_gradient(logits, chosen[part])
                by_states[part] = logits @ items
                by_table[1:].addmm_(logits.T, states[part])
        ctx.save_for_backward(by_states, by_table)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_total: Tensor) -> tuple[Tensor, Tensor, None, None]:
        by_states, by_table = ctx.saved_tensors
        return by_states * by_total, by_table * by_total, None, None


def _to_gradient(logits: Tensor, chosen: Tensor) -> Tensor:
    """The summed cross entropy of logits (C, V), which become its gradient: the softmax, less 1 at the chosen (C, 1)."""
    own = logits.gather(1, chosen)  # (C, 1)
    highest = logits.amax(dim=1, keepdim=True)
    sums = logits.sub_(highest).exp_().sum(dim=1, keepdim=True)  # (C, 1)
    logits.div_(sums).scatter_add_(1, chosen, torch.full_like(own, -1.0))
    return (sums.log() + highest - own).sum()

"""The graphs that are served: modules from item indices to item indices, built around any encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genrec_export.histories import NOTHING, Reads

BLOCK = 64  # items a block in the block-max top-k
FEW = 8  # up to this many times K * BLOCK scores, looking at each is faster than going by blocks (benchmarks/results/graphs.md)


class Serving(nn.Module):
    """A recommender as it is served: item indices 1..V in and out, whatever numbering the model itself uses.

    A row of nothing but padding has the state zero, whatever the model makes of it: the runtime answers it without the model,
    and what would be NaN must not spoil the rows beside it.

    Each graph takes what the model reads of histories, ``item_ids`` int64 (B, L), 0 where there is padding, and then, in this
    order, those of ``timestamps`` int64 (B, L), ``request_time`` int64 (B,) and ``users`` int64 (B,) that are in ``reads``.

    Args:
        encode: item numbers of the model (B, L), and by keyword what else it reads -> states (B, D).
        table: (V + 1, D) item vectors in the order of the catalogue, row 0 unused; None where ``head`` scores.
        head: states (B, D) -> scores (B, columns); None for the dot product with ``table``.
        to_model: int64 (V + 1,), the model's number of each item of the catalogue, padding's at 0; None if they agree.
        to_column: int64 (V + 1,), the head's column of each item, any at 0; None if they agree.
        k: K, the length of a list, at most V; constant in the graph.
        reads: what the encoder reads beside the items.
    """

    def __init__(
        self,
        encode: nn.Module,
        table: Tensor | None,
        head: nn.Module | None,
        to_model: Tensor | None,
        to_column: Tensor | None,
        k: int,
        reads: Reads = NOTHING,
    ) -> None:
        super().__init__()
        self.reads = reads
        self.encoder = encode
        self.head = head
        self.table = table if table is None or isinstance(table, nn.Parameter) else nn.Buffer(table)
        self.to_model = None if to_model is None else nn.Buffer(to_model)
        self.to_column = None if to_column is None else nn.Buffer(to_column)
        self.wide = None if table is None or not by_blocks(len(table), k) else nn.Buffer(whole_blocks(table.detach()))
        rows = self.table if self.wide is None else self.wide
        self.inverse_norms = None if rows is None else nn.Buffer(_inverse_norms(rows.detach()))
        self.k = k

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """All graphs at once, for tracing: of histories, ``exclude``, ``available``, ``candidates``, and where there is a table
        ``item``."""
        read, (exclude, available, candidates, *item) = self._parted(inputs)
        states = self.encode(*read)
        of_users = (*self._best(states, exclude, available), self._candidate_scores(states, candidates), states)
        return (*of_users, self.vectors(item[0]), *self.similar(item[0], available)) if item else of_users

    def recommend(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The whole call in one graph, so that only indices and K scores leave it.

        Args:
            inputs: of histories, then ``exclude`` int64 (B, E), items not to be recommended, 0 where a row has fewer, E may be 0;
                and ``available`` bool (V + 1,), False for items that nobody may be recommended, entry 0 ignored.

        Returns:
            items int64 (B, K) and scores (B, K), best first, the lower index first among equals; -inf marks what is none.
        """
        read, (exclude, available) = self._parted(inputs)
        return self._best(self.encode(*read), exclude, available)

    def score(self, *inputs: Tensor) -> Tensor:
        """The scores of given items: of histories, and ``candidates`` int64 (B, C) -> (B, C)."""
        read, (candidates,) = self._parted(inputs)
        return self._candidate_scores(self.encode(*read), candidates)

    def sample_scores(self, *read: Tensor) -> Tensor:
        """What is compared to see whether padding moves scores, those of all items: of histories -> (B, columns)."""
        return self.scores(self.encode(*read))[:, 1:]

    def vectors(self, item: Tensor) -> Tensor:
        """The vectors of items: (B,) -> (B, D)."""
        assert self.table is not None
        return F.embedding(item, self.table)

    def similar(self, item: Tensor, available: Tensor) -> tuple[Tensor, Tensor]:
        """The items with the highest cosine to given ones, themselves left out: (B,), (V + 1,) -> (B, K), (B, K)."""
        assert self.table is not None
        assert self.inverse_norms is not None
        vectors = F.embedding(item, self.table) * self.inverse_norms.index_select(0, item).unsqueeze(1)  # (B, D)
        cosines = self.scores(vectors) * self.inverse_norms
        return top_k(mask(cosines, item.unsqueeze(1), available), self.k)

    def encode(self, item_ids: Tensor, *read: Tensor) -> Tensor:
        """The state of each user: of histories -> (B, D), zeros where there is nothing but padding."""
        dead, filled = fill_dead(item_ids)
        numbers = filled if self.to_model is None else F.embedding(filled, self.to_model.unsqueeze(1)).squeeze(2)
        states: Tensor = self.encoder(numbers, **self.reads.named(read))
        return torch.where(dead, 0.0, states)

    def scores(self, states: Tensor) -> Tensor:
        """Every item's score: (B, D) -> (B, columns), column 0 and those beyond V meaningless."""
        if self.head is None:
            assert self.table is not None
            return F.linear(states, self.table if self.wide is None else self.wide)
        scores: Tensor = self.head(states)
        return scores if self.to_column is None else scores.index_select(1, self.to_column)

    def _parted(self, inputs: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """What is read of histories, and the inputs that follow."""
        read = 1 + len(self.reads.names)
        return inputs[:read], inputs[read:]

    def _best(self, states: Tensor, exclude: Tensor, available: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.scores(states)
        if self.head is not None:  # it may give anything for padding and for what is not available, NaN too
            scores = torch.where(offered(available, scores.shape[1]), scores, 0.0)
        return top_k(mask(scores, exclude, available), self.k)

    def _candidate_scores(self, states: Tensor, candidates: Tensor) -> Tensor:
        if self.head is not None:
            return self.scores(states).gather(1, candidates)
        assert self.table is not None
        return (F.embedding(candidates, self.table) @ states.unsqueeze(2)).squeeze(2)


def fill_dead(item_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of nothing but padding, bool (B, 1), and the histories (B, L) with item 1 in all slots of those rows.

    Attention then has something to look at.
    """
    dead = item_ids.amax(dim=1, keepdim=True) == 0
    return dead, torch.where(dead, 1, item_ids)


def mask(scores: Tensor, exclude: Tensor, available: Tensor) -> Tensor:
    """The finite scores (B, columns), -inf for what is no item, for what a row excludes and for what nobody may be recommended.

    onnxruntime adds and scatters in place; a choice between scores and -inf would make three passes over them all.
    """
    return (scores + bias(available, scores.shape[1])).scatter(1, exclude, float("-inf"))


def bias(available: Tensor, columns: int) -> Tensor:
    """What to add to the scores: float32 (columns,), 0 for items that may be recommended, -inf for all else."""
    return torch.where(offered(available, columns), 0.0, float("-inf"))


def offered(available: Tensor, columns: int) -> Tensor:
    """``available`` (V + 1,) without padding, which has column 0, and without columns beyond V: bool (columns,)."""
    return F.pad(available[1:], (1, columns - available.shape[0]))


def by_blocks(columns: int, k: int) -> bool:
    """Whether ``top_k`` of so many scores goes by blocks."""
    return columns > FEW * k * BLOCK


def whole_blocks(table: Tensor) -> Tensor:
    """A table (R, D) with rows of zeros that fill its last block, so that nobody need pad all scores: (columns, D)."""
    return F.pad(table, (0, 0, 0, -len(table) % BLOCK))


def _inverse_norms(table: Tensor) -> Tensor:
    """1 / length of each row, 0 for rows that point nowhere: (V + 1, D) -> (V + 1,)."""
    lengths = table.double().norm(dim=1)  # squares of float32 may leave its range
    return torch.where(lengths > 0, 1 / lengths, 0.0).clamp(max=torch.finfo(table.dtype).max).to(table.dtype)


def top_k(scores: Tensor, k: int, scales: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k best of each row; exact, with ties to the lower index wherever TopK breaks them so, as onnxruntime's does.

    A large catalogue is cut into blocks: the k blocks with the highest maxima hold the k best items, and of blocks that tie the
    earlier ones do. Putting the chosen blocks back into their order keeps ties by index.

    Args:
        scores: (B, columns).
        k: K, at most V.
        scales: positive, by which each block's scores are to be multiplied first, (columns / 64,); None for 1. Only where it
            goes by whole blocks.

    Returns:
        int64 (B, K) and (B, K).
    """
    if not by_blocks(scores.shape[1], k):
        values, indices = scores.topk(k, dim=1)
        return indices, values
    if scores.shape[1] % BLOCK:
        scores = F.pad(scores, (0, -scores.shape[1] % BLOCK), value=float("-inf"))
    grid = scores.view(-1, scores.shape[1] // BLOCK, BLOCK)  # (B, blocks, 64)
    peaks = grid.amax(dim=2) if scales is None else grid.amax(dim=2) * scales  # (B, blocks)
    best = peaks.topk(k, dim=1).indices  # (B, K)
    chosen = best.topk(k, dim=1, largest=False).values  # the same blocks, in the catalogue's order
    members = chosen.unsqueeze(2) * BLOCK + torch.arange(BLOCK, device=scores.device)  # (B, K, 64)
    kept = scores.gather(1, members.flatten(1))  # (B, K * 64)
    if scales is not None:
        kept = (kept.view(-1, k, BLOCK) * F.embedding(chosen, scales.unsqueeze(1))).flatten(1)
    values, places = kept.topk(k, dim=1)
    return members.flatten(1).gather(1, places), values

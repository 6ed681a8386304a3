"""The graphs that are served: modules from item indices to item indices, built around any encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BLOCK = 64  # items a block in the block-max top-k


class Serving(nn.Module):
    """A recommender as it is served: item indices 1..V in and out, whatever numbering the model itself uses.

    A row of nothing but padding has the state zero, whatever the model makes of it: the runtime answers it without the model,
    and what would be NaN must not spoil the rows beside it.

    Args:
        encode: item numbers of the model (B, L) -> states (B, D).
        table: (V + 1, D) item vectors in the order of the catalogue, row 0 unused; None where ``head`` scores.
        head: states (B, D) -> scores (B, columns); None for the dot product with ``table``.
        to_model: int64 (V + 1,), the model's number of each item of the catalogue, padding's at 0; None if they agree.
        to_column: int64 (V + 1,), the head's column of each item, any at 0; None if they agree.
        k: K, the length of a list, at most V; constant in the graph.
    """

    def __init__(
        self,
        encode: nn.Module,
        table: Tensor | None,
        head: nn.Module | None,
        to_model: Tensor | None,
        to_column: Tensor | None,
        k: int,
    ) -> None:
        super().__init__()
        self.encoder = encode
        self.head = head
        self.table = table if table is None or isinstance(table, nn.Parameter) else nn.Buffer(table)
        self.to_model = None if to_model is None else nn.Buffer(to_model)
        self.to_column = None if to_column is None else nn.Buffer(to_column)
        self.k = k

    def forward(self, item_ids: Tensor, exclude: Tensor, available: Tensor, candidates: Tensor) -> tuple[Tensor, ...]:
        """All graphs at once, for tracing: ``recommend``'s two outputs, ``score``'s and ``encode``'s."""
        states = self.encode(item_ids)
        return (*self._best(states, exclude, available), self._candidate_scores(states, candidates), states)

    def recommend(self, item_ids: Tensor, exclude: Tensor, available: Tensor) -> tuple[Tensor, Tensor]:
        """The whole call in one graph, so that only indices and K scores leave it.

        Args:
            item_ids: int64 (B, L), 0 where there is padding.
            exclude: int64 (B, E), items not to be recommended, 0 where a row has fewer; E may be 0.
            available: bool (V + 1,), False for items that nobody may be recommended; entry 0 is ignored.

        Returns:
            items int64 (B, K) and scores (B, K), best first, the lower index first among equals; -inf marks what is none.
        """
        return self._best(self.encode(item_ids), exclude, available)

    def score(self, item_ids: Tensor, candidates: Tensor) -> Tensor:
        """The scores of given items: (B, L), (B, C) -> (B, C)."""
        return self._candidate_scores(self.encode(item_ids), candidates)

    def encode(self, item_ids: Tensor) -> Tensor:
        """The state of each user: (B, L) -> (B, D), zeros where there is nothing but padding."""
        dead = item_ids.amax(dim=1, keepdim=True) == 0  # (B, 1)
        filled = torch.where(dead, 1, item_ids)  # so that attention has something to look at
        numbers = filled if self.to_model is None else F.embedding(filled, self.to_model.unsqueeze(1)).squeeze(2)
        states: Tensor = self.encoder(numbers)
        return torch.where(dead, 0.0, states)

    def scores(self, states: Tensor) -> Tensor:
        """Every item's score: (B, D) -> (B, V + 1), column 0 meaningless."""
        if self.head is None:
            assert self.table is not None
            return F.linear(states, self.table)
        scores: Tensor = self.head(states)
        return scores if self.to_column is None else scores.index_select(1, self.to_column)

    def _best(self, states: Tensor, exclude: Tensor, available: Tensor) -> tuple[Tensor, Tensor]:
        return top_k(mask(self.scores(states), exclude, available), self.k)

    def _candidate_scores(self, states: Tensor, candidates: Tensor) -> Tensor:
        if self.head is not None:
            return self.scores(states).gather(1, candidates)
        assert self.table is not None
        return (F.embedding(candidates, self.table) @ states.unsqueeze(2)).squeeze(2)


def mask(scores: Tensor, exclude: Tensor, available: Tensor) -> Tensor:
    """The scores (B, V + 1), -inf for padding, for what a row excludes and for what nobody may be recommended."""
    scores = torch.where(available, scores, float("-inf"))
    padding = torch.zeros_like(scores[:, :1], dtype=torch.int64)  # (B, 1)
    return scores.scatter(1, torch.cat([padding, exclude], dim=1), float("-inf"))


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of each row; exact, with ties to the lower index wherever TopK breaks them so, as onnxruntime's does.

    A large catalogue is cut into blocks: the k blocks with the highest maxima hold the k best items, and of blocks that tie the
    earlier ones do. Putting the chosen blocks back into their order keeps ties by index.

    Args:
        scores: (B, V + 1).
        k: K, at most V.

    Returns:
        int64 (B, K) and (B, K).
    """
    width = scores.shape[1]
    if width <= 2 * k * BLOCK:
        values, indices = scores.topk(k, dim=1)
        return indices, values
    blocks = -(-width // BLOCK)
    padded = F.pad(scores, (0, blocks * BLOCK - width), value=float("-inf"))
    grid = padded.view(-1, blocks, BLOCK)  # (B, blocks, 64)
    best = grid.amax(dim=2).topk(k, dim=1).indices  # (B, K)
    chosen = best.topk(k, dim=1, largest=False).values  # the same blocks, in the catalogue's order
    kept = grid.gather(1, chosen.unsqueeze(2).expand(-1, -1, BLOCK)).flatten(1)  # (B, K * 64)
    values, places = kept.topk(k, dim=1)
    indices = chosen.gather(1, places // BLOCK) * BLOCK + places % BLOCK
    return indices, values

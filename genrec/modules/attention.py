"""Multi-head attention (Vaswani et al. 2017, section 3.2) that shows its weights."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genrec.modules._checks import check_dropout, check_heads


class MultiHeadAttention(nn.Module):
    """Lets each query gather from the values, by how its key matches.

    Args:
        embedding_dim: width D of queries, keys, values and output; ``num_heads`` must divide it.
        num_heads: heads H, each of width D/H.
        dropout: rate in [0, 1) at which weights are dropped in training.
        need_weights: return the weights; False returns None for them and takes torch's fused path, which never holds
            them.

    Raises:
        ValueError: if the heads do not divide the width, a size is below 1, or ``dropout`` lies outside [0, 1).

    >>> attention = MultiHeadAttention(embedding_dim=6, num_heads=2)
    >>> output, weights = attention(torch.rand(4, 3, 6), torch.rand(4, 5, 6), torch.rand(4, 5, 6))
    >>> output.shape, weights.shape
    (torch.Size([4, 3, 6]), torch.Size([4, 2, 3, 5]))
    """

    def __init__(self, embedding_dim: int, num_heads: int, dropout: float = 0.1, *, need_weights: bool = True) -> None:
        super().__init__()
        check_heads(embedding_dim, num_heads)
        check_dropout(dropout)
        self.arguments: dict[str, Any] = {
            "embedding_dim": embedding_dim,
            "num_heads": num_heads,
            "dropout": dropout,
            "need_weights": need_weights,
        }
        self.embedding_dim = embedding_dim
        self.num_heads = num_heads
        self.head_dim = embedding_dim // num_heads
        self.scale = math.sqrt(self.head_dim)
        self.need_weights = need_weights

        self.w_q = nn.Linear(embedding_dim, embedding_dim)
        self.w_k = nn.Linear(embedding_dim, embedding_dim)
        self.w_v = nn.Linear(embedding_dim, embedding_dim)
        self.w_o = nn.Linear(embedding_dim, embedding_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Attends; a query that may see no key gathers nothing, and its output is the bias of ``w_o``.

        Args:
            query: (B, Lq, D).
            key: (B, Lk, D).
            value: (B, Lk, D).
            mask: of any dtype, not zero where a query may see a key, 0 where it may not: (B, Lq, Lk), or (B, Lk) for
                padding alike for all queries, or (Lq, Lk) for all rows. A square case, B equal to Lq, is read as (B,
                Lk); (1, Lq, Lk) says otherwise. None: every query sees every key.

        Returns:
            The output (B, Lq, D), and the weights (B, H, Lq, Lk) before dropout, None without ``need_weights``. Rows
            of weights sum to 1, or are zero where no key may be seen.

        Raises:
            ValueError: if the shapes do not fit.
        """
        self._check(query, key, value)
        q, k, v = self._split(self.w_q(query)), self._split(self.w_k(key)), self._split(self.w_v(value))
        visible = None if mask is None else _by_head(mask, query, key)  # (B or 1, 1, Lq or 1, Lk)
        if self.need_weights:
            gathered, weights = self._explicit(q, k, v, visible)
        else:
            gathered, weights = self._fused(q, k, v, visible), None
        return self.w_o(gathered.transpose(1, 2).flatten(2)), weights  # (B, Lq, D)

    def _explicit(self, q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None) -> tuple[Tensor, Tensor]:
        scores = q @ k.transpose(-2, -1) / self.scale  # (B, H, Lq, Lk)
        if visible is None:
            weights = scores.softmax(dim=-1)
        else:  # the second fill matters where every key is hidden: the softmax is uniform there
            hidden = ~visible
            weights = scores.masked_fill(hidden, torch.finfo(scores.dtype).min).softmax(dim=-1).masked_fill(hidden, 0.0)
        return self.dropout(weights) @ v, weights

    def _fused(self, q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None) -> Tensor:
        rate = self.dropout.p if self.training else 0.0
        if visible is None:
            return F.scaled_dot_product_attention(q, k, v, dropout_p=rate)
        dead = ~visible.any(dim=-1, keepdim=True)  # (B or 1, 1, Lq or 1, 1): sees all below, so as not to be NaN
        allowed = (visible | dead).expand(q.shape[0], 1, q.shape[2], k.shape[2])
        return F.scaled_dot_product_attention(q, k, v, allowed, dropout_p=rate).masked_fill(dead, 0.0)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.num_heads, self.head_dim).transpose(1, 2)  # (B, H, L, D/H)

    def _check(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        if torch.compiler.is_exporting():
            return
        shapes = f"query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}"
        if key.shape != value.shape:
            raise ValueError(f"key and value must have one shape, got {shapes}")
        if query.dim() != 3 or key.dim() != 3 or query.shape[0] != key.shape[0]:
            raise ValueError(f"query, key and value must be (batch, length, width) of one batch, got {shapes}")
        if query.shape[2] != self.embedding_dim or key.shape[2] != self.embedding_dim:
            raise ValueError(f"the last axis must be embedding_dim ({self.embedding_dim}), got {shapes}")


def _by_head(mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """The mask as bool, True where a key may be seen, with axes (batch, head, query, key), each whole or 1."""
    batch, queries, keys = query.shape[0], query.shape[1], key.shape[1]
    visible = mask != 0
    if mask.dim() == 3 and (
        torch.compiler.is_exporting() or mask.shape in ((batch, queries, keys), (1, queries, keys))
    ):
        return visible.unsqueeze(1)
    if mask.shape == (batch, keys):
        return visible[:, None, None, :]
    if mask.shape == (queries, keys):
        return visible[None, None]
    raise ValueError(
        f"mask must be (batch, queries, keys) = {(batch, queries, keys)}, ({batch}, {keys}) or ({queries}, {keys}), "
        f"got {tuple(mask.shape)}"
    )

"""The layers of a transformer encoder, on torch's fused attention; weights have torch.nn.TransformerEncoder's names."""

import math
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Activation = Literal["relu", "gelu"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


class SelfAttention(nn.Module):
    """Scaled dot product attention of some slots over all slots of the same sequence.

    Args:
        embedding_dim: width D.
        num_heads: heads H, which share the width.
        dropout: rate at which attention weights are dropped in training.
    """

    def __init__(self, embedding_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embedding_dim, embedding_dim))  # query, key, value
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embedding_dim))
        self.out_proj = nn.Linear(embedding_dim, embedding_dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, queries: Tensor, x: Tensor, visible: Tensor | None) -> Tensor:
        """Attends.

        Args:
            queries: (B, Q, D), the slots that look.
            x: (B, L, D), the slots looked at.
            visible: bool (B, 1, Q, L), True where a slot may be seen; None where all may.

        Returns:
            (B, Q, D).
        """
        q, k, v = self._project(queries, x)
        attended = F.scaled_dot_product_attention(q, k, v, visible, dropout_p=self.dropout if self.training else 0.0)
        joined: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))  # (B, Q, D)
        return joined

    def weights(self, x: Tensor, visible: Tensor | None) -> Tensor:
        """What every slot pays to every other, rows summing to 1: (B, H, L, L)."""
        q, k, _ = self._project(x, x)
        scores: Tensor = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (B, H, L, L)
        if visible is not None:
            scores = scores.masked_fill(~visible, float("-inf"))
        return scores.softmax(dim=-1)

    def _project(self, queries: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        width = x.shape[-1]
        q = F.linear(queries, self.in_proj_weight[:width], self.in_proj_bias[:width])  # (B, Q, D)
        kv = F.linear(x, self.in_proj_weight[width:], self.in_proj_bias[width:])  # (B, L, 2D)
        k, v = kv.chunk(2, dim=-1)
        return self._split(q), self._split(k), self._split(v)

    def _split(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        return x.view(batch, length, self.num_heads, width // self.num_heads).transpose(1, 2)  # (B, H, L, D/H)


class EncoderLayer(nn.Module):
    """Attention, then a feed-forward network, each added to its input and normalised.

    Args:
        embedding_dim: width D.
        num_heads: heads H.
        attn_dim: width of the feed-forward network's middle.
        dropout: rate after attention, inside and after the feed-forward network, and on attention weights.
        activation: "relu" or "gelu" (the exact one).
        norm_first: normalise the input of each part (True) or the sum after it (False, as in the paper).
    """

    def __init__(
        self,
        embedding_dim: int,
        num_heads: int,
        attn_dim: int,
        dropout: float = 0.1,
        *,
        activation: Activation = "relu",
        norm_first: bool = False,
    ) -> None:
        super().__init__()
        self.self_attn = SelfAttention(embedding_dim, num_heads, dropout)
        self.linear1 = nn.Linear(embedding_dim, attn_dim)
        self.linear2 = nn.Linear(attn_dim, embedding_dim)
        self.norm1 = nn.LayerNorm(embedding_dim)
        self.norm2 = nn.LayerNorm(embedding_dim)
        self.dropout = nn.Dropout(dropout)
        self.activation = ACTIVATIONS[activation]
        self.norm_first = norm_first

    def forward(self, x: Tensor, visible: Tensor | None, *, newest: bool = False) -> Tensor:
        """Transforms every slot, or the last one alone.

        Args:
            x: (B, L, D).
            visible: bool (B, 1, L, L), or (B, 1, 1, L) with ``newest``: True where a slot may be seen; None for all.
            newest: compute the last slot only; the others are still looked at.

        Returns:
            (B, L, D), or (B, 1, D) with ``newest``.
        """
        seen = self.attention_input(x)
        asking, kept = (seen[:, -1:], x[:, -1:]) if newest else (seen, x)
        attended: Tensor = kept + self.dropout(self.self_attn(asking, seen, visible))
        out: Tensor
        if self.norm_first:
            out = attended + self._feed_forward(self.norm2(attended))
        else:
            attended = self.norm1(attended)
            out = self.norm2(attended + self._feed_forward(attended))
        return out

    def attention_input(self, x: Tensor) -> Tensor:
        """What attention sees of ``x``: the normalised slots when the norm comes first. (B, L, D) -> (B, L, D)."""
        seen: Tensor = self.norm1(x) if self.norm_first else x
        return seen

    def _feed_forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.linear2(self.dropout(self.activation(self.linear1(x)))))
        return out


class EncoderStack(nn.Module):
    """Layers one after the other, and a norm at the end where one is wanted.

    Args:
        layers: the layers, first to last.
        norm: the final norm, or None.
    """

    def __init__(self, layers: list[EncoderLayer], norm: nn.LayerNorm | None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = norm

    def forward(self, x: Tensor, visible: Tensor | None, *, newest: bool = False) -> Tensor:
        """Runs all layers, the last one for the last slot only with ``newest``: (B, L, D) -> (B, L or 1, D)."""
        *before, last = self.layers
        for layer in before:
            x = layer(x, visible)
        if newest and visible is not None:
            visible = visible[:, :, -1:]  # (B, 1, 1, L)
        encoded: Tensor = last(x, visible, newest=newest)
        if self.norm is not None:
            encoded = self.norm(encoded)
        return encoded

    def inputs(self, x: Tensor, visible: Tensor | None) -> Iterator[tuple[EncoderLayer, Tensor]]:
        """Each layer with its input (B, L, D)."""
        for layer in self.layers:
            assert isinstance(layer, EncoderLayer)
            yield layer, x
            x = layer(x, visible)


def visible_slots(real: Tensor, *, causal: bool) -> Tensor:
    """Which slot sees which: real ones, with ``causal`` none that is later, and always itself.

    That a slot sees itself changes nothing for a real one, and keeps a padded one from seeing nothing, which would
    give NaN.

    Args:
        real: bool (B, L), True where a token is real.
        causal: hide later slots.

    Returns:
        bool (B, 1, L, L), True where the row's slot may see the column's.

    >>> visible_slots(torch.tensor([[False, True, True]]), causal=True)[0, 0].int().tolist()
    [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    """
    slot = torch.arange(real.shape[1], device=real.device)
    visible = real.unsqueeze(1)  # (B, 1, L)
    if causal:
        visible = visible & (slot.unsqueeze(1) >= slot)  # (B, L, L)
    return (visible | (slot.unsqueeze(1) == slot)).unsqueeze(1)

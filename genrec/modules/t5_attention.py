"""T5's attention (Raffel et al. 2020, section 2.1): no biases, no division by the root of the width, a bias by distance."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genrec.modules._checks import check_dropout, check_sizes

KeysValues = tuple[Tensor, Tensor]  # both (B, H, L, head_dim)


class RelativeBias(nn.Module):
    """A learned number for each head and each bucket of distances, to be added to attention's scores.

    Half of a direction's buckets hold one distance each, the others reach up to ``max_distance`` by equal factors, and what lies
    further shares the last. The limits are found in whole numbers, so that no engine's logarithm can move one.

    Args:
        num_heads: heads H.
        bidirectional: half of the buckets are for keys after the query; False gives all to keys before it, and those after it
            share the bucket of distance 0.
        num_buckets: buckets, a multiple of 4.
        max_distance: from which distance on all share a bucket; more than ``num_buckets`` / 2.

    Raises:
        ValueError: if a number is out of range.

    >>> RelativeBias(3, bidirectional=False)(torch.arange(2), torch.arange(5)).shape
    torch.Size([3, 2, 5])
    """

    buckets: Tensor

    def __init__(self, num_heads: int, *, bidirectional: bool, num_buckets: int = 32, max_distance: int = 128) -> None:
        super().__init__()
        check_sizes(num_heads=num_heads, num_buckets=num_buckets)
        if num_buckets % 4 or max_distance <= num_buckets // 2:
            raise ValueError(
                f"num_buckets ({num_buckets}) must be a multiple of 4, and max_distance ({max_distance}) more than its half"
            )
        self.max_distance = max_distance
        each = num_buckets // 2 if bidirectional else num_buckets
        before = [_bucket(distance, each, max_distance) for distance in range(max_distance + 1)]
        after = [each + bucket if bidirectional else 0 for bucket in before[1:]]
        self.register_buffer("buckets", torch.tensor(before[::-1] + after), persistent=False)  # (2 max_distance + 1,)
        self.table = nn.Embedding(num_buckets, num_heads)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """The bias of every pair.

        Args:
            queries: int64 (Lq,), positions.
            keys: int64 (Lk,), positions.

        Returns:
            (H, Lq, Lk).
        """
        distance = (keys - queries.unsqueeze(1)).clamp(-self.max_distance, self.max_distance)  # (Lq, Lk)
        by_distance = self.table(self.buckets)  # (2 max_distance + 1, H)
        return F.embedding(distance + self.max_distance, by_distance).permute(2, 0, 1)


class T5Attention(nn.Module):
    """Lets queries gather from values whose keys and values may have been computed before.

    Args:
        embedding_dim: width D of what comes in and goes out.
        num_heads: heads H.
        head_dim: width of a head; H times it need not be D.
        dropout: rate in [0, 1) at which weights are dropped in training.

    Raises:
        ValueError: if a size is below 1, or ``dropout`` lies outside [0, 1).
    """

    def __init__(self, embedding_dim: int, num_heads: int, head_dim: int, dropout: float) -> None:
        super().__init__()
        check_sizes(embedding_dim=embedding_dim, num_heads=num_heads, head_dim=head_dim)
        check_dropout(dropout)
        self.num_heads = num_heads
        self.head_dim = head_dim
        inner = num_heads * head_dim
        self.w_q = nn.Linear(embedding_dim, inner, bias=False)
        self.w_k = nn.Linear(embedding_dim, inner, bias=False)
        self.w_v = nn.Linear(embedding_dim, inner, bias=False)
        self.w_o = nn.Linear(inner, embedding_dim, bias=False)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.w_q.weight, std=(embedding_dim * head_dim) ** -0.5)  # stands for the missing division
        nn.init.normal_(self.w_k.weight, std=embedding_dim**-0.5)
        nn.init.normal_(self.w_v.weight, std=embedding_dim**-0.5)
        nn.init.normal_(self.w_o.weight, std=inner**-0.5)

    def memory(self, x: Tensor) -> KeysValues:
        """What can be looked at: (B, L, D) -> keys and values, both (B, H, L, head_dim)."""
        return self._split(self.w_k(x)), self._split(self.w_v(x))

    def forward(self, x: Tensor, memory: KeysValues, bias: Tensor) -> Tensor:
        """Attends.

        Args:
            x: (B, Q, D), what looks.
            memory: of L slots.
            bias: added to the scores, the lowest float where a slot may not be seen; axes (B, H, Q, L), each whole or 1.

        Returns:
            (B, Q, D).
        """
        keys, values = memory
        scores = self._split(self.w_q(x)) @ keys.transpose(2, 3) + bias  # (B, H, Q, L)
        gathered = self.dropout(scores.softmax(dim=-1)) @ values  # (B, H, Q, head_dim)
        out: Tensor = self.w_o(gathered.transpose(1, 2).flatten(2))  # (B, Q, D)
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.num_heads, self.head_dim).transpose(1, 2)  # (B, H, L, head_dim)


def lowest_where(hidden: Tensor) -> Tensor:
    """A bias that hides: bool -> float32 of the same shape, the lowest finite number where ``hidden`` is True, else 0."""
    return torch.zeros_like(hidden, dtype=torch.float32).masked_fill(hidden, torch.finfo(torch.float32).min)


def _bucket(distance: int, buckets: int, max_distance: int) -> int:
    """T5's ``half + floor(log(distance / half) / log(max_distance / half) * (buckets - half))``, at most the last bucket."""
    half = buckets // 2
    if distance < half:
        return distance
    wide = buckets - half
    reached = (
        step for step in range(wide) if distance**wide * half**step >= max_distance**step * half**wide
    )  # all to the power of `wide`, as whole numbers
    return half + max(reached)

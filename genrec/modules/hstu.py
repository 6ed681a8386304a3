"""The hierarchical sequential transduction unit (Zhai et al. 2024): attention without a softmax, biased by distance and by time.

After the public research code: SiLU of the biased products divided by the constant longest length, no scaling by the width, no
feed-forward network, no norm at the end. Times are compared as whole numbers, so that torch and an exported graph find the same
buckets. Positions are counted from the newest slot, which left padding does not move.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genrec.modules._checks import check_dropout, check_length, check_sizes
from genrec.modules.positions import LearnedPositions

NUM_BUCKETS = 128  # of time, beside the one for gaps below 2 seconds; 20 years reach bucket 67
BUCKET_STEP = 0.301  # in natural logarithms: each bucket is 1.35 times as long as the one before
NORM_EPS = 1e-6


class HSTULayer(nn.Module):
    """One unit: what a slot gathers from those it sees, gated by itself, and added to it.

    Args:
        embedding_dim: width D of the slots.
        num_heads: heads H, each with a width of its own.
        head_dim: width of a head's queries, keys, values and gates.
        dropout: rate on what is gathered.
        max_seq_length: longest sequence N; the attention is divided by it.
        timed: learn a bias by the time between two slots as well.
    """

    def __init__(
        self, embedding_dim: int, num_heads: int, head_dim: int, dropout: float, max_seq_length: int, *, timed: bool
    ) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.max_seq_length = num_heads, head_dim, max_seq_length
        inner = num_heads * head_dim
        self.gate_and_query = nn.Linear(embedding_dim, 2 * inner, bias=False)
        self.value_and_key = nn.Linear(embedding_dim, 2 * inner, bias=False)
        self.norm = nn.LayerNorm(embedding_dim, NORM_EPS, elementwise_affine=False)
        self.gathered_norm = nn.LayerNorm(inner, NORM_EPS, elementwise_affine=False)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(inner, embedding_dim)
        self.by_distance = nn.Parameter(torch.empty(max_seq_length).normal_(std=0.02))
        self.by_time = nn.Parameter(torch.empty(NUM_BUCKETS + 1).normal_(std=0.02)) if timed else None

    def forward(
        self, x: Tensor, seen: Tensor, distances: Tensor, buckets: Tensor | None, *, newest: bool = False
    ) -> Tensor:
        """Transforms every slot, or the last one alone.

        Args:
            x: (B, L, D).
            seen: float (B, Q, L), 1 where a slot is seen, 0 where it is not; Q is L, or 1 with ``newest``.
            distances: int64 (Q, L), how many slots earlier a seen one stands.
            buckets: int64 (B, Q, L), of the time between them; None without a time bias.
            newest: compute the last slot only; the others are still looked at.

        Returns:
            (B, Q, D).
        """
        normed = self.norm(x)
        asking, kept = (normed[:, -1:], x[:, -1:]) if newest else (normed, x)
        gate, query = F.silu(self.gate_and_query(asking)).chunk(2, dim=-1)  # (B, Q, H * head)
        value, key = F.silu(self.value_and_key(normed)).chunk(2, dim=-1)  # (B, L, H * head)
        products = self._split(query) @ self._split(key).transpose(2, 3)  # (B, H, Q, L)
        bias = F.embedding(distances, self.by_distance.unsqueeze(1)).squeeze(2)  # (Q, L)
        if self.by_time is not None and buckets is not None:
            bias = bias + F.embedding(buckets, self.by_time.unsqueeze(1)).squeeze(3)  # (B, Q, L)
            bias = bias.unsqueeze(1)
        weights = F.silu(products + bias) / self.max_seq_length * seen.unsqueeze(1)  # (B, H, Q, L)
        gathered = (weights @ self._split(value)).transpose(1, 2).flatten(2)  # (B, Q, H * head)
        out: Tensor = kept + self.output(self.dropout(gate * self.gathered_norm(gathered)))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.num_heads, self.head_dim).transpose(1, 2)  # (B, H, L, head)


class HSTUEncoder(nn.Module):
    """Turns sequences of ids, and the times of their events, into sequences of vectors; a slot sees itself and earlier ones.

    A slot's own time is that of the request it answers: of its event by default, in training as in serving.

    Args:
        vocab_size: number of ids V; id 0 is padding.
        embedding_dim: width D.
        num_heads: heads H.
        num_layers: units.
        head_dim: width of a head.
        dropout: rate on embeddings and in each unit.
        max_seq_length: longest sequence accepted, in slots.
        timed: use times; without, ``timestamps`` are not looked at.

    Raises:
        ValueError: if a size is below 1, or ``dropout`` lies outside [0, 1).

    >>> encoder = HSTUEncoder(vocab_size=9, embedding_dim=6, num_heads=2, num_layers=1, head_dim=3, timed=False)
    >>> encoder(torch.tensor([[0, 4, 7]])).shape
    torch.Size([1, 3, 6])
    """

    boundaries: Tensor

    def __init__(
        self,
        vocab_size: int,
        embedding_dim: int,
        num_heads: int,
        num_layers: int,
        head_dim: int,
        dropout: float = 0.2,
        max_seq_length: int = 50,
        *,
        timed: bool = True,
    ) -> None:
        super().__init__()
        check_sizes(
            vocab_size=vocab_size,
            embedding_dim=embedding_dim,
            num_heads=num_heads,
            num_layers=num_layers,
            head_dim=head_dim,
            max_seq_length=max_seq_length,
        )
        check_dropout(dropout)
        self.timed, self.max_seq_length = timed, max_seq_length
        self.embedding = nn.Embedding(vocab_size, embedding_dim, padding_idx=0)
        self.positions = LearnedPositions(embedding_dim, max_seq_length)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            HSTULayer(embedding_dim, num_heads, head_dim, dropout, max_seq_length, timed=timed)
            for _ in range(num_layers)
        )
        self.register_buffer("boundaries", bucket_boundaries())

    def forward(self, item_ids: Tensor, timestamps: Tensor | None = None) -> Tensor:
        """Encodes every slot.

        Args:
            item_ids: int64 (B, L), left-padded with 0.
            timestamps: int64 (B, L), seconds; of padding any.

        Returns:
            (B, L, D); of padding it means nothing.

        Raises:
            ValueError: if L exceeds ``max_seq_length``, or times are needed and not given.
        """
        x, context = self._embed(item_ids, timestamps), self._context(item_ids, timestamps, None)
        for layer in self.layers:
            x = layer(x, *context)
        return x

    def newest(self, item_ids: Tensor, timestamps: Tensor | None = None, request_time: Tensor | None = None) -> Tensor:
        """Encodes the last slot: ``forward(...)[:, -1]`` for less work, as the last unit computes that slot only.

        Args:
            item_ids: int64 (B, L), left-padded with 0.
            timestamps: int64 (B, L), seconds.
            request_time: int64 (B,), when the answer is wanted; the newest event's time when None.

        Returns:
            (B, D).

        Raises:
            ValueError: as ``forward``.
        """
        x = self._embed(item_ids, timestamps)
        seen, distances, buckets = self._context(item_ids, timestamps, request_time)
        *before, last = self.layers
        for layer in before:
            x = layer(x, seen, distances, buckets)
        encoded: Tensor = last(
            x, seen[:, -1:], distances[-1:], None if buckets is None else buckets[:, -1:], newest=True
        )
        return encoded.squeeze(1)

    def _embed(self, item_ids: Tensor, timestamps: Tensor | None) -> Tensor:
        """The first unit's input (B, L, D), zero at padding."""
        if not torch.compiler.is_exporting():
            check_length(item_ids, self.max_seq_length)
            if self.timed and timestamps is None:
                raise ValueError("timestamps are needed: this encoder was built with timed=True")
        x = self.positions(self.embedding(item_ids) * math.sqrt(self.embedding.embedding_dim))
        embedded: Tensor = self.dropout(x) * (item_ids != 0).unsqueeze(2)
        return embedded

    def _context(
        self, item_ids: Tensor, timestamps: Tensor | None, request_time: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Which slots are seen, how far they are, and how long ago: (B, L, L), (L, L) and (B, L, L), None without times."""
        slots = torch.arange(item_ids.shape[1], device=item_ids.device)
        distances = slots.unsqueeze(1) - slots  # (L, L)
        seen = (item_ids != 0).unsqueeze(1) & (distances >= 0)  # (B, L, L)
        buckets = None
        if self.timed and timestamps is not None:
            newest = timestamps[:, -1] if request_time is None else request_time  # (B,)
            asked = torch.cat([timestamps[:, :-1], newest.unsqueeze(1)], dim=1)  # (B, L)
            gaps = (asked.unsqueeze(2) - timestamps.unsqueeze(1)).clamp(min=1)  # (B, L, L), of what is later 1
            buckets = torch.bucketize(gaps, self.boundaries, right=True)
        return seen.to(self.embedding.weight.dtype), distances.clamp(min=0), buckets


def bucket_boundaries() -> Tensor:
    """The shortest gap in seconds of each bucket from 1 on, int64 (NUM_BUCKETS,): bucket ``floor(ln(gap) / 0.301)``.

    >>> bucket_boundaries()[:5].tolist()  # exp(.301) = 1.35, exp(.602) = 1.83: both 2; exp(.903) = 2.47, exp(1.204) = 3.33
    [2, 2, 3, 4, 5]
    """
    return torch.tensor([math.ceil(math.exp(BUCKET_STEP * bucket)) for bucket in range(1, NUM_BUCKETS + 1)])

"""What tells a transformer the place of a token: fixed waves (Vaswani et al. 2017, section 3.5), or a learned table."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from genrec.modules._checks import check_length, check_sizes


class PositionalEncoding(nn.Module):
    """Adds to each embedding a fixed wave of its position, counted from the first slot.

    Width 2i holds ``sin(position / 10000^(2i/D))``, width 2i + 1 the cosine of the same angle. The table is computed,
    neither learned nor saved: weights saved with one ``max_seq_length`` open with any other.

    Args:
        embedding_dim: width D of the embeddings; an odd one ends on a sine.
        max_seq_length: longest sequence accepted, in slots.

    Raises:
        ValueError: if a size is below 1.

    >>> PositionalEncoding(2)(torch.zeros(1, 3, 2))[0, 0].tolist()  # sin 0, cos 0
    [0.0, 1.0]
    """

    pe: Tensor

    def __init__(self, embedding_dim: int, max_seq_length: int = 5000) -> None:
        super().__init__()
        check_sizes(embedding_dim=embedding_dim, max_seq_length=max_seq_length)
        self.arguments = {"embedding_dim": embedding_dim, "max_seq_length": max_seq_length}
        self.max_seq_length = max_seq_length

        position = torch.arange(max_seq_length, dtype=torch.float32).unsqueeze(1)  # (L, 1)
        even = torch.arange(0, embedding_dim, 2, dtype=torch.float32)  # (ceil(D/2),)
        angle = position * torch.exp(even * (-math.log(10_000.0) / embedding_dim))  # (L, ceil(D/2))
        waves = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)  # (L, 2 ceil(D/2))
        self.register_buffer("pe", waves[:, :embedding_dim].unsqueeze(0), persistent=False)  # (1, L, D)
        self.register_load_state_dict_pre_hook(_drop_saved_table)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def forward(self, x: Tensor) -> Tensor:
        """The embeddings with the waves added.

        Args:
            x: (B, L, D).

        Returns:
            (B, L, D).

        Raises:
            ValueError: if L exceeds ``max_seq_length``.
        """
        check_length(x, self.max_seq_length)
        return x + self.pe[:, : x.shape[1]]


class LearnedPositions(nn.Module):
    """Adds to each embedding a learned vector of its position, counted from the last slot.

    Slot j of L gets table row ``max_seq_length - L + j``: the newest slot always gets the last row, so a left-padded
    history keeps its positions however wide it is padded.

    Args:
        embedding_dim: width D of the embeddings.
        max_seq_length: longest sequence accepted, in slots; the table's rows.

    Raises:
        ValueError: if a size is below 1.

    >>> positions = LearnedPositions(4, max_seq_length=10)
    >>> short, long = positions(torch.zeros(1, 2, 4)), positions(torch.zeros(1, 10, 4))
    >>> torch.equal(short, long[:, -2:])
    True
    """

    def __init__(self, embedding_dim: int, max_seq_length: int) -> None:
        super().__init__()
        check_sizes(embedding_dim=embedding_dim, max_seq_length=max_seq_length)
        self.arguments = {"embedding_dim": embedding_dim, "max_seq_length": max_seq_length}
        self.max_seq_length = max_seq_length
        self.embedding = nn.Embedding(max_seq_length, embedding_dim)

    def forward(self, x: Tensor) -> Tensor:
        """The embeddings with their positions' vectors added.

        Args:
            x: (B, L, D).

        Returns:
            (B, L, D).

        Raises:
            ValueError: if L exceeds ``max_seq_length``.
        """
        check_length(x, self.max_seq_length)
        return x + self.embedding.weight[self.max_seq_length - x.shape[1] :]


def _drop_saved_table(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Forgets a table found in older weights: ours is computed."""
    state_dict.pop(prefix + "pe", None)

"""Checks that several constructors share; each message holds the caller's argument name and value."""

from torch import Tensor, compiler


def check_sizes(**sizes: int) -> None:
    """Raises ValueError unless every size, named as the caller names it, is at least 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} ({size}) must be at least 1")


def check_heads(embedding_dim: int, num_heads: int) -> None:
    """Raises ValueError unless the heads divide the width."""
    check_sizes(embedding_dim=embedding_dim, num_heads=num_heads)
    if embedding_dim % num_heads:
        raise ValueError(f"embedding_dim ({embedding_dim}) must be a multiple of num_heads ({num_heads})")


def check_dropout(dropout: float) -> None:
    """Raises ValueError unless the rate lies in [0, 1)."""
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout ({dropout}) must lie in [0, 1)")


def check_length(x: Tensor, max_seq_length: int) -> None:
    """Raises ValueError if the second axis of ``x`` is too long.

    Silent while a graph is exported: there the length is a symbol, and a comparison would narrow it.
    """
    if not compiler.is_exporting() and x.shape[1] > max_seq_length:
        raise ValueError(f"the sequence has {x.shape[1]} slots, more than max_seq_length ({max_seq_length})")

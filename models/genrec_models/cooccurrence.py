"""Vectors of items out of who chose them together, for data that come with nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from genrec.histories import Ragged
from genrec_models.item_vectors import Floats

WINDOW = 5  # events: farther apart, two items of a history say less of each other than of the user
SMOOTHING = 0.75  # exponent of the partner's frequency, without which rare partners count too much
OVERSAMPLING = 16  # directions more than wanted, and
POWER_ITERATIONS = 4  # rounds of multiplication, so that the sampled subspace holds the largest singular vectors


def cooccurrence_vectors(histories: Ragged, num_items: int, width: int = 64, seed: int = 0) -> Floats:
    """Vectors of items that are near each other where the same items come near both.

    The positive pointwise mutual information of items at most 5 events apart, a pair weighing 1 / distance, is decomposed
    by a truncated SVD into ``U S V'``; the vectors are the rows of ``U S^(1/2)``, made of length 1 (Levy, Goldberg and
    Dagan 2015: smoothing .75, exponent 1/2). An item that never occurs beside another, of which nothing is known,
    gets a random vector of length 1, so that such items do not all get one code.

    Args:
        histories: what is learnt from, oldest first, item numbers in 1..``num_items``: those of training, nothing else.
        num_items: items V.
        width: of the vectors, less where there are fewer than ``width`` items.
        seed: of the random directions that the SVD starts with, and of the vectors of unknown items.

    Returns:
        float32 (V, width), the vector of item 1 first.

    Raises:
        ValueError: if ``width`` is below 1, or no item occurs beside another.
    """
    if width < 1:
        raise ValueError(f"width ({width}) must be at least 1")
    generator = torch.Generator().manual_seed(seed)
    vectors, strengths = _truncated_svd(_mutual_information(histories, num_items), min(width, num_items), generator)
    vectors = vectors * strengths.sqrt()  # (V, W)
    lengths = vectors.norm(dim=1, keepdim=True)  # (V, 1)
    unknown = lengths.squeeze(1) < 1e-6 * lengths.max()
    vectors[unknown] = torch.randn(int(unknown.sum()), vectors.shape[1], generator=generator, dtype=vectors.dtype)
    unit: Floats = (vectors / vectors.norm(dim=1, keepdim=True)).to(torch.float32).numpy()
    return unit


def _mutual_information(histories: Ragged, num_items: int) -> Tensor:
    """Sparse float64 (V, V): the positive mutual information of an item (row) and its smoothed neighbour (column)."""
    owners, items = np.repeat(np.arange(len(histories)), histories.lengths), histories.values - 1
    rows, columns, weights = [], [], []
    for distance in range(1, WINDOW + 1):
        same = owners[:-distance] == owners[distance:]
        one, other = items[:-distance][same], items[distance:][same]
        rows += [one, other]
        columns += [other, one]
        weights.append(np.full(2 * len(one), 1 / distance))
    counts = _sparse(np.stack([np.concatenate(rows), np.concatenate(columns)]), np.concatenate(weights), num_items)
    if not counts._nnz():
        raise ValueError("no history has two events to learn from, so items cannot be told apart by their neighbours")
    (row, column), weight = counts.indices(), counts.values()
    frequency = torch.zeros(num_items, dtype=torch.float64).index_add_(0, row, weight)  # (V,)
    partner = frequency**SMOOTHING / (frequency**SMOOTHING).sum()
    information = (weight / (frequency[row] * partner[column])).log()
    kept = information > 0
    return _sparse(counts.indices()[:, kept], information[kept], num_items)


def _sparse(indices: Any, values: Any, size: int) -> Tensor:
    entries = torch.as_tensor(indices), torch.as_tensor(values, dtype=torch.float64)
    return torch.sparse_coo_tensor(*entries, (size, size), check_invariants=False).coalesce()


def _truncated_svd(matrix: Tensor, rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The largest singular values and left singular vectors by random projection (Halko et al. 2011, algorithms 4.4 and 5.1).

    Args:
        matrix: sparse float64 (N, N).
        rank: how many R, at most N.
        generator: of the projection.

    Returns:
        (N, R) vectors, and (R,) values, falling.
    """
    transposed = matrix.t().coalesce()
    start = torch.randn(len(matrix), min(rank + OVERSAMPLING, len(matrix)), generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(matrix @ start).Q  # (N, R + 16)
    for _ in range(POWER_ITERATIONS):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(transposed @ basis).Q).Q
    left, values, _ = torch.linalg.svd((transposed @ basis).T, full_matrices=False)
    return (basis @ left)[:, :rank], values[:rank]

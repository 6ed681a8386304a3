"""K-means, and the nearest of some codes."""

import torch
from torch import Tensor

POINTS_A_CODE = 256  # k-means needs this many vectors a code at most: more hardly move the centres


def nearest_code(vectors: Tensor, codebook: Tensor) -> Tensor:
    """The code at the smallest Euclidean distance; of equal ones the first.

    Found as the smallest ``|e|^2 / 2 - v . e``, which differs from half the squared distance by what is the same for all codes.

    Args:
        vectors: (B, D).
        codebook: (K, D).

    Returns:
        int64 (B,).

    >>> nearest_code(torch.tensor([[0.9, 0.2]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]])).tolist()
    [1]
    """
    return (codebook.square().sum(dim=1) / 2 - vectors @ codebook.T).argmin(dim=1)


def kmeans(points: Tensor, num_codes: int, generator: torch.Generator, iterations: int = 20) -> Tensor:
    """Centres by Lloyd's algorithm, started by k-means++ (Arthur and Vassilvitskii 2007).

    A centre that loses all its points moves to the point that is farthest from its own centre.

    Args:
        points: (N, D).
        num_codes: centres K, at most N.
        generator: of the first centres.
        iterations: of Lloyd's algorithm.

    Returns:
        (K, D).

    Raises:
        ValueError: if there are fewer points than centres.
    """
    if len(points) < num_codes:
        raise ValueError(f"num_codes ({num_codes}) must be at most the number of vectors, {len(points)}")
    centres = _spread(points, num_codes, generator)
    for _ in range(iterations):
        index = nearest_code(points, centres)  # (N,)
        counts = torch.bincount(index, minlength=num_codes)  # (K,)
        sums = torch.zeros_like(centres).index_add_(0, index, points)
        distance = (points - centres[index]).square().sum(dim=1)  # (N,)
        empty = counts == 0
        centres = sums / counts.clamp(min=1).unsqueeze(1)
        centres[empty] = points[distance.topk(int(empty.sum())).indices]
    return centres


def _spread(points: Tensor, num_codes: int, generator: torch.Generator) -> Tensor:
    """First centres: points drawn by their squared distance to the nearest centre so far."""
    lengths = points.square().sum(dim=1)  # (N,)
    chosen = torch.randint(len(points), (1,), generator=generator)
    nearest = torch.full_like(lengths, torch.inf)  # (N,)
    while len(chosen) < num_codes:
        newest = chosen[-1]
        distance = (lengths - 2 * points @ points[newest] + lengths[newest]).clamp(min=0)
        nearest = torch.minimum(nearest, distance)
        weights = nearest if nearest.max() > 0 else torch.ones_like(nearest)
        chosen = torch.cat([chosen, torch.multinomial(weights, 1, generator=generator)])
    return points[chosen]


def sample(vectors: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """At most ``size`` of the vectors (N, D), drawn without replacement where there are more."""
    return vectors if len(vectors) <= size else vectors[torch.randperm(len(vectors), generator=generator)[:size]]

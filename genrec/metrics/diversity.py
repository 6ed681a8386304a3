"""How unlike the recommended lists are: users' lists to each other, and the items within one list."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genrec.histories import Ragged
from genrec.metrics.items import item_matrix
from genrec.metrics.lists import Lists
from genrec.metrics.overlaps import Incidence, Overlaps, Rows, plain_rows

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_NUMBERS_A_BLOCK = 1 << 20  # of item vectors: 8 MB


class DiversityEstimate(NamedTuple):
    """Diversity measured on some of the pairs.

    Args:
        value: the mean distance of the pairs drawn, in 0..1.
        standard_error: the standard deviation of ``value`` over seeds, estimated from the spread of the distances.
    """

    value: float
    standard_error: float


def jaccard_diversity(lists: Lists, sample: int | None = None, seed: int = 0) -> float:
    """Mean Jaccard distance, ``1 - |A and B| / |A or B|``, of the pairs of lists; high when users' lists differ.

    Two empty lists have no distance, and their pair is left out. With no pair left the answer is 0.0. The exact mean is
    over all pairs, so its time grows with the square of the number of lists, in compiled code.

    Args:
        lists: per user, item ids in any order; a repeated one counts once.
        sample: None for the exact mean, or how many pairs to draw, as ``diversity_sample`` does.
        seed: of the draw.

    Raises:
        TypeError: if a user's ids are no list.
        ValueError: if ``sample`` is below 2.

    Distances 1 - 1/3 (item 3 is shared by lists that hold 3 items together), 1 - 0/4 and 1 - 0/4:

    >>> math.isclose(jaccard_diversity([[7, 3], [3, 5], [8, 9]]), (2 / 3 + 1 + 1) / 3)
    True
    """
    if sample is not None:
        return diversity_sample(lists, sample, seed).value
    rows = plain_rows(lists, "lists")
    return _exact(rows, _pairs(_lengths(rows)))


def diversity_sample(lists: Lists, sample: int, seed: int = 0) -> DiversityEstimate:
    """Estimates ``jaccard_diversity`` without bias from pairs drawn uniformly, with replacement, of those with a distance.

    Where there are no more pairs than ``sample``, the exact mean is returned with the error 0.0. An error of 0.0 from a
    small sample of many pairs says only that none of those drawn overlapped.

    Args:
        lists: per user, item ids in any order; a repeated one counts once.
        sample: how many pairs to draw, at least 2; the error falls with its square root.
        seed: of the draw; the same seed draws the same pairs.

    Raises:
        TypeError: if a user's ids are no list.
        ValueError: if ``sample`` is below 2.

    Three pairs at the distances 2/3, 1 and 1; three are all, two are drawn:

    >>> math.isclose(diversity_sample([[7, 3], [3, 5], [8, 9]], sample=3).value, (2 / 3 + 1 + 1) / 3)
    True
    >>> diversity_sample([[7, 3], [3, 5], [8, 9]], sample=2, seed=1) in [(1, 0), (2 / 3, 0), (5 / 6, 1 / 6)]
    True
    """
    if sample < 2:
        raise ValueError(f"sample ({sample}) must be at least 2 pairs, or None for all")
    rows = plain_rows(lists, "lists")
    lengths = _lengths(rows)
    pairs = _pairs(lengths)
    if pairs <= sample:
        return DiversityEstimate(_exact(rows, pairs), 0.0)
    distances = _drawn_distances(rows, lengths, sample, np.random.default_rng(seed))
    return DiversityEstimate(float(distances.mean()), float(distances.std(ddof=1)) / math.sqrt(sample))


def personalization(lists: Lists) -> float:
    """One minus the mean cosine similarity, ``|A and B| / sqrt(|A| |B|)``, of the pairs of users' lists.

    Each list is the binary vector of its items. This is not ``jaccard_diversity``, though both are 0 for equal lists and 1
    for lists without a common item: of two lists of k items that share half, the distances are 1/2 here and 2/3 there. Two
    empty lists have no similarity, and their pair is left out; an empty list and another are at 1. With no pair left the
    answer is 0.0.

    Exact, in time and memory that grow with the number of entries, not of pairs: the sum over all pairs is half of
    ``|sum of the users' unit vectors| ** 2`` less each user's own 1.

    Args:
        lists: per user, item ids in any order; a repeated one counts once.

    Raises:
        TypeError: if a user's ids are no list.

    Similarities 1/2 (item 3 of two and two), 0 and 0:

    >>> math.isclose(personalization([[7, 3], [3, 5], [8, 9]]), 1 - (1 / 2 + 0 + 0) / 3)
    True
    """
    index = Incidence(plain_rows(lists, "lists"))
    pairs = _pairs(index.sizes)
    if not pairs:
        return 0.0
    weights = 1 / np.sqrt(index.sizes[index.lists])  # (E,), what each entry adds to its user's unit vector
    summed = np.add.reduceat(weights, index.first)  # (I,), the sum of the unit vectors
    similarity = (float(summed @ summed) - np.count_nonzero(index.sizes)) / 2
    return min(max(1 - similarity / pairs, 0.0), 1.0)


def intra_list_diversity(lists: Lists, item_vectors: ArrayLike) -> float:
    """Mean over users of the mean cosine distance, in 0..2, of the pairs of items in a user's list.

    Smyth and McClave 2001 with the cosine; high when lists hold unlike items. Lists of fewer than two distinct items have
    no pair and are left out of the mean, which is 0.0 with none left. A zero vector is at distance 1 from every other.

    Args:
        lists: per user, item numbers 1..V in any order, 0 where there is no item; a repeated one counts once.
        item_vectors: (V + 1, D), row i of item i; row 0 is not used. As a trained model's ``item_vectors()``.

    Raises:
        TypeError: if a user's items are no list, or no whole numbers.
        ValueError: if vectors are not (V + 1, D) or not finite, or a number lies outside 0..V.

    Orthogonal items 1 and 2 are at distance 1, items 1 and 3 at 0, items 2 and 3 at 1; the second list has no pair:

    >>> vectors = [[0, 0], [1, 0], [0, 1], [2, 0]]
    >>> math.isclose(intra_list_diversity([[1, 2, 3], [3]], vectors), (1 + 0 + 1) / 3)
    True
    """
    vectors = _finite_vectors(item_vectors)
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    scale = np.divide(1, lengths, out=np.zeros(len(lengths)), where=lengths > 0)
    items = item_matrix(lists, len(vectors) - 1)
    height = max(_NUMBERS_A_BLOCK // max(items.shape[1] * vectors.shape[1], 1), 1)
    blocks = [_list_distances(items[start : start + height], vectors, scale) for start in range(0, len(items), height)]
    distances = np.concatenate([*blocks, np.zeros(0)])
    return float(distances.mean()) if len(distances) else 0.0


def _list_distances(items: Ints, vectors: NDArray[np.floating], scale: Floats) -> Floats:
    """The mean distance within each list that has a pair of items."""
    items = np.sort(items, axis=1)  # (B, K)
    items[:, 1:][items[:, 1:] == items[:, :-1]] = 0
    count = np.count_nonzero(items, axis=1)
    items, count = items[count > 1], count[count > 1]
    units = vectors[items] * (scale[items] * (items > 0))[:, :, None]  # (B, K, D)
    summed = units.sum(axis=1)  # (B, D)
    similarity = np.einsum("bd,bd->b", summed, summed) - np.einsum("bkd,bkd->b", units, units)
    distances: Floats = np.maximum(1 - similarity / (count * (count - 1)), 0.0)
    return distances


def _finite_vectors(item_vectors: ArrayLike) -> NDArray[np.floating]:
    vectors = np.asarray(item_vectors)
    if vectors.dtype.kind not in "f":
        vectors = vectors.astype(np.float64)
    if vectors.ndim != 2 or not len(vectors):
        raise ValueError(f"item_vectors must be (V + 1, D), not of shape {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise ValueError("item_vectors must be finite")
    return vectors


def _lengths(rows: Rows) -> Ints:
    if isinstance(rows, np.ndarray):
        return np.full(len(rows), rows.shape[1])
    return rows.lengths if isinstance(rows, Ragged) else np.fromiter(map(len, rows), np.int64, len(rows))


def _pairs(lengths: Ints) -> int:
    """How many pairs of lists have a distance: all but those of two empty lists."""
    return math.comb(len(lengths), 2) - math.comb(int(np.count_nonzero(lengths == 0)), 2)


def _exact(rows: Rows, pairs: int) -> float:
    return 1.0 - Overlaps(rows).summed_similarity() / pairs if pairs else 0.0


def _drawn_distances(rows: Rows, lengths: Ints, sample: int, rng: np.random.Generator) -> Floats:
    """The distances of pairs drawn uniformly of those with a distance; those with an empty list come first, at 1."""
    filled = np.flatnonzero(lengths)
    beside_empty = len(filled) * (len(lengths) - len(filled))
    others = sample - int(rng.binomial(sample, beside_empty / _pairs(lengths)))
    first = rng.integers(len(filled), size=others)
    second = rng.integers(len(filled) - 1, size=others)
    second += second >= first
    distances = np.ones(sample)
    for i, pair in enumerate(zip(filled[first].tolist(), filled[second].tolist(), strict=True), start=sample - others):
        one, other = (set(_row(rows, place)) for place in pair)
        shared = len(one & other)
        distances[i] = 1 - shared / (len(one) + len(other) - shared)
    return distances


def _row(rows: Rows, place: int) -> Collection[Hashable]:
    if isinstance(rows, np.ndarray):
        row: list[Hashable] = rows[place].tolist()
        return row
    return rows.row(place).tolist() if isinstance(rows, Ragged) else rows[place]

"""When two answers are the same: the one rule for parity at export, golden replay, and comparing devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec_runtime.manifest import Tolerance

RANKED = ("recommend", "similar")  # graphs that give items, best first, and their scores


@dataclass(frozen=True)
class Difference:
    """How far two answers are apart.

    Attributes:
        error: the largest |a - b| over entries finite in both; inf where one is finite and the other not.
        excess: the largest |a - b| over what the tolerance allows; at most 1 means the same.
        row: the row where ``excess`` is reached, -1 where there are no entries.
    """

    error: float
    excess: float
    row: int

    @property
    def same(self) -> bool:
        """Whether the two agree within the tolerance."""
        return self.excess <= 1.0


def compare_values(a: NDArray[Any], b: NDArray[Any], tolerance: Tolerance) -> Difference:
    """Compares two arrays row by row: ``|a - b| <= atol + rtol * max|finite b of the row|``.

    Entries that are not finite must be equal: -inf with -inf; a NaN equals nothing. Integers must be equal.

    Args:
        a: (B, ...) the answer under test.
        b: (B, ...) the reference.

    Raises:
        ValueError: if the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"the shapes {a.shape} and {b.shape} differ")
    if a.size == 0:
        return Difference(0.0, 0.0, -1)
    rows_a = a.reshape(len(a), -1).astype(np.float64)
    rows_b = b.reshape(len(b), -1).astype(np.float64)
    finite = np.isfinite(rows_a) & np.isfinite(rows_b)
    with np.errstate(invalid="ignore"):
        gap = np.where(finite, np.abs(rows_a - rows_b), np.where(rows_a == rows_b, 0.0, np.inf))
    scale = np.abs(np.where(np.isfinite(rows_b), rows_b, 0.0)).max(axis=1)
    allowed = tolerance.atol + tolerance.rtol * scale if np.issubdtype(b.dtype, np.floating) else np.zeros(len(a))
    worst = gap.max(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = np.where(worst == 0.0, 0.0, worst / allowed)
    row = int(excess.argmax())
    return Difference(float(worst.max()), float(excess[row]), row)


def compare_lists(
    items_a: NDArray[Any], scores_a: NDArray[Any], items_b: NDArray[Any], scores_b: NDArray[Any], tolerance: Tolerance
) -> Difference:
    """Compares two top-k answers: scores place by place, and items wherever a gap in the scores settles their order.

    An item that only one list has must score within the tolerance of the other list's last score; an item of both must
    have the same score in both. Entries scored -inf are no answer and are left out.

    Args:
        items_a: integers (B, K), the answer under test; ``scores_a`` its scores (B, K), best first.
        items_b: integers (B, K), the reference; ``scores_b`` its scores.
    """
    values = compare_values(scores_a, scores_b, tolerance)
    worst = values
    for row in range(len(items_b)):
        a = {i: s for i, s in zip(items_a[row].tolist(), scores_a[row].tolist(), strict=True) if s > -np.inf}
        b = {i: s for i, s in zip(items_b[row].tolist(), scores_b[row].tolist(), strict=True) if s > -np.inf}
        if len(a) != np.sum(scores_a[row] > -np.inf):
            return Difference(np.inf, np.inf, row)  # an item twice in one list
        if a == b:
            continue
        scale = max(map(abs, b.values()), default=0.0)
        last_a, last_b = min(a.values(), default=np.inf), min(b.values(), default=np.inf)
        gap = max(
            max((abs(a[i] - b[i]) for i in a.keys() & b.keys()), default=0.0),
            max((abs(a[i] - last_b) for i in a.keys() - b.keys()), default=0.0),
            max((abs(b[i] - last_a) for i in b.keys() - a.keys()), default=0.0),
        )
        allowed = tolerance.atol + tolerance.rtol * scale
        excess = gap / allowed if allowed else np.inf if gap else 0.0
        if excess > worst.excess:
            worst = Difference(max(values.error, gap), excess, row)
    return worst


def compare_outputs(
    graph: str, found: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]], tolerance: Tolerance
) -> Difference:
    """Compares what a graph gave: lists of items by ``compare_lists``, any other output by output.

    Args:
        graph: the graph's name.
        found: the outputs under test, by name.
        expected: the reference, by name; each must be in ``found``.
        tolerance: how far scores may differ.
    """
    if graph in RANKED:
        return compare_lists(found["items"], found["scores"], expected["items"], expected["scores"], tolerance)
    differences = [compare_values(found[name], expected[name], tolerance) for name in expected]
    return max(differences, key=lambda difference: difference.excess)

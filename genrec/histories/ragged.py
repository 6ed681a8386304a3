"""Rows of different lengths in flat arrays: truncating and padding. The only code that does this, for training as for serving."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

import numpy as np
from numpy.typing import NDArray

PAD = 0

Ints = NDArray[np.int64]
Side = Literal["left", "right"]


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of different lengths in two flat arrays; row ``i`` is ``values[offsets[i]:offsets[i + 1]]``.

    Args:
        values: int64 (N,), all rows one after the other.
        offsets: int64 (B + 1,), from 0 to N, never falling.
    """

    values: Ints
    offsets: Ints

    @classmethod
    def from_rows(cls, rows: Iterable[Sequence[int] | Ints]) -> Ragged:
        """Joins rows, each a list or an array of whole numbers.

        Raises:
            TypeError: if a row holds anything else, or a number that does not fit int64.
            ValueError: if a row has another number of axes than one.

        >>> Ragged.from_rows([[7, 3], [], [5]]).offsets.tolist()
        [0, 2, 2, 3]
        """
        arrays = [row if _is_plain(row) else whole_numbers(row, f"row {i}") for i, row in enumerate(rows)]
        values = np.concatenate(arrays) if arrays else np.zeros(0, np.int64)
        return cls(values, offsets_of(list(map(len, arrays))))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @functools.cached_property
    def lengths(self) -> Ints:
        """int64 (B,), read-only: how many values each row has."""
        lengths = self.offsets[1:] - self.offsets[:-1]
        lengths.setflags(write=False)
        return lengths

    def row(self, i: int) -> Ints:
        """The values of row ``i``, a view."""
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def rows(self) -> list[Ints]:
        """All rows, as views."""
        return [self.row(i) for i in range(len(self))]

    def slices(self, rows: Ints, starts: Ints, ends: Ints) -> Ragged:
        """For each i the values from ``starts[i]`` up to ``ends[i]`` (positions inside the row) of row ``rows[i]``."""
        lengths = ends - starts
        offsets = offsets_of(lengths)
        first = self.offsets[rows] + starts - offsets[:-1]
        return Ragged(self.values[np.repeat(first, lengths) + np.arange(offsets[-1])], offsets)

    def newest(self, length: int) -> Ragged:
        """Each row's last ``length`` values at most: truncation keeps the newest.

        Raises:
            ValueError: if ``length`` is negative.

        >>> Ragged.from_rows([[1, 2, 3], [4]]).newest(2).values.tolist()
        [2, 3, 4]
        """
        if length < 0:
            raise ValueError(f"length ({length}) must not be negative")
        lengths = self.lengths
        return self.slices(np.arange(len(self)), np.maximum(lengths - length, 0), lengths)

    def pad(self, length: int | None = None, side: Side = "left") -> Ints:
        """A matrix of the rows, the newest kept where a row is too long, zeros where it is too short.

        Args:
            length: width L of the result; the longest row's when None.
            side: where the zeros stand; "left" puts the newest value of every row into the last column.

        Returns:
            int64 (B, L).

        Raises:
            ValueError: if ``length`` is negative, or ``side`` is another word.

        >>> Ragged.from_rows([[1, 2, 3], [4]]).pad(2).tolist()
        [[2, 3], [0, 4]]
        """
        if side not in ("left", "right"):
            raise ValueError(f"side ({side!r}) must be 'left' or 'right'")
        width = int(self.lengths.max(initial=0)) if length is None else length
        if width < 0:
            raise ValueError(f"length ({length}) must not be negative")
        if len(self) == 1:  # as most requests are: quicker than by the places of all
            padded = np.full((1, width), PAD, dtype=np.int64)
            row = self.row(0)[max(0, int(self.lengths[0]) - width) :]
            padded[0, slice(width - len(row), width) if side == "left" else slice(len(row))] = row
            return padded
        starts, ends = self.offsets[:-1, None], self.offsets[1:, None]  # (B, 1)
        newest = ends - width
        first = newest if side == "left" else np.maximum(newest, starts)
        places = first + np.arange(width)  # (B, L), in the flat values
        real = places >= starts if side == "left" else places < ends
        if not len(self.values):
            return np.full(real.shape, PAD, dtype=np.int64)
        return np.where(real, self.values.take(places, mode="clip"), PAD)


def offsets_of(lengths: Sequence[int] | NDArray[Any]) -> Ints:
    """Row offsets from row lengths: 0, then the running sum.

    >>> offsets_of(np.array([2, 0, 1])).tolist()
    [0, 2, 2, 3]
    """
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _is_plain(values: Sequence[int] | Ints) -> TypeGuard[Ints]:
    return type(values) is np.ndarray and values.dtype == np.int64 and values.ndim == 1


def whole_numbers(values: Sequence[int] | Ints, name: str) -> Ints:
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name} must have one axis, not shape {array.shape}")
    if not array.size:
        return np.zeros(0, dtype=np.int64)
    if array.dtype.kind not in "iu" or (array.dtype == np.uint64 and array.max() >= 2**63):
        raise TypeError(f"{name} must hold whole numbers of 64 bits, got {array.dtype}: {array[:5].tolist()}")
    return array.astype(np.int64, copy=False)

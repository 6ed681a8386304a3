"""The numbering of a catalogue: raw ids sorted and numbered from 1."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from genrec.histories.ragged import Ints, whole_numbers

RawId = int | str


class ItemIds:
    """The numbering of a catalogue: raw ids sorted (ints by value, strings by code point) and numbered 1..V.

    Args:
        raw: the V distinct raw ids in any order, all ints (within int64) or all strings.

    Raises:
        TypeError: if ids are neither ints nor strings, or both kinds occur; the first offender is named.
        ValueError: if an id occurs twice, an int does not fit int64, or there is none.
    """

    def __init__(self, raw: Iterable[Any]) -> None:
        numbers = (
            isinstance(raw, np.ndarray) and raw.ndim == 1 and raw.dtype.kind in "iu"
        )  # millions, not made into objects
        values: Any = raw if numbers else raw.tolist() if isinstance(raw, np.ndarray) else list(raw)
        if not len(values):
            raise ValueError("a catalogue needs at least one item")
        self.kind = "int" if numbers else _one_kind(values)
        self._ints = _distinct_ints(values) if self.kind == "int" else None
        self._texts: list[str] = _distinct_texts(values) if self.kind == "str" else []
        self._base, self._table = (0, None) if self._ints is None else _table_of(self._ints)
        self._index = {value: i for i, value in enumerate(self._texts, start=1)}

    def __len__(self) -> int:
        return len(self._texts) if self._ints is None else len(self._ints)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ItemIds) and self.kind == other.kind and self.all() == other.all()

    __hash__ = None  # type: ignore[assignment]  # equal by content, too large to hash

    def index(self, raw: Sequence[Any] | NDArray[Any]) -> Ints:
        """The numbers of raw ids, 0 where one is unknown; an id of the catalogue's other kind is unknown too.

        Args:
            raw: a flat list or a 1-D array of ints or strings.

        Returns:
            int64, as long as ``raw``.

        Raises:
            NotAnId: if an entry is neither an int nor a string (a bool, a float, None); its place is named.

        >>> ItemIds([30, 10, 20]).index([10, 99, 30]).tolist()
        [1, 0, 3]
        """
        if isinstance(raw, np.ndarray) and raw.dtype.kind in "iu":
            return self._index_ints(raw)
        values = raw.tolist() if isinstance(raw, np.ndarray) else raw
        if self._ints is None:
            return self._index_texts(values)
        kinds = set(map(type, values))
        if kinds == {int}:
            try:
                return self._index_ints(np.array(values, dtype=np.int64))
            except OverflowError:  # an int beyond 64 bits cannot be in the catalogue
                pass
        if not kinds <= {int, str}:
            values = _as_raw_ids(values)
        fits = np.array([type(value) is int and -(2**63) <= value < 2**63 for value in values], dtype=np.bool_)
        numbers = [value if fit else 0 for value, fit in zip(values, fits.tolist(), strict=True)]
        return np.where(fits, self._index_ints(np.array(numbers, dtype=np.int64)), 0)

    def raw(self, indices: Sequence[int] | Ints) -> list[RawId]:
        """The raw ids of numbers in 1..V, as they were in training.

        Raises:
            IndexError: if a number lies outside 1..V.
            TypeError: if one is no whole number.

        >>> ItemIds(["b", "a"]).raw([2, 1])
        ['b', 'a']
        """
        numbers = whole_numbers(indices, "item numbers")
        if numbers.size and not (numbers.min() >= 1 and numbers.max() <= len(self)):
            raise IndexError(f"item numbers must lie in 1..{len(self)}, got {numbers.min()} to {numbers.max()}")
        if self._ints is not None:
            found: list[RawId] = self._ints[numbers - 1].tolist()
            return found
        return [self._texts[number - 1] for number in numbers.tolist()]

    def all(self) -> list[RawId]:
        """Every raw id, in the order of the numbers 1..V."""
        return list(self._texts) if self._ints is None else self._ints.tolist()

    def _index_texts(self, values: Sequence[Any]) -> Ints:
        def find(values: Sequence[Any]) -> Ints:
            return np.fromiter(map(self._index.get, values, itertools.repeat(0)), dtype=np.int64, count=len(values))

        try:
            found = find(values)
            if np.count_nonzero(found) == len(found):  # then all are texts: one pass is enough
                return found
        except Exception:  # what has no hash is no id
            pass
        return find(values if set(map(type, values)) <= {int, str} else _as_raw_ids(values))

    def _index_ints(self, values: NDArray[Any]) -> Ints:
        if self._ints is None:
            return np.zeros(len(values), dtype=np.int64)
        wanted = values.astype(
            np.int64, copy=False
        )  # unsigned ones would be searched as floats; too large ones turn negative
        if self._table is not None:
            found = self._table.take(wanted - self._base, mode="clip").astype(np.int64)
        else:
            found = np.searchsorted(self._ints[:-1], wanted)  # the last id's place for all that lie above it
            is_found = self._ints[found] == wanted
            found += 1
            found *= is_found
        return np.where(values < 2**63, found, 0) if values.dtype.kind == "u" else found


class NotAnId(TypeError):
    """What stands for an item id is neither an int nor a string.

    Args:
        value: what it is.
        place: where it stands in its list, from 0.
    """

    def __init__(self, value: Any, place: int) -> None:
        super().__init__(value, place)
        self.value, self.place = value, place

    def __str__(self) -> str:
        kind = type(self.value).__name__
        return f"an item id must be an int or a string, got {self.value!r} ({kind}, place {self.place})"


def _table_of(ids: Ints) -> tuple[int, NDArray[np.int32] | None]:
    """A table from ``id - base`` to an id's number, zeros at both ends: ten times as fast as a search.

    None where it would take more than 32 bytes an id.
    """
    base, span = int(ids[0]) - 1, int(ids[-1]) - int(ids[0]) + 1
    if span > 8 * len(ids) or base < -(2**63):
        return 0, None
    table = np.zeros(span + 2, dtype=np.int32)
    table[ids - base] = np.arange(1, len(ids) + 1)
    return base, table


def _distinct_ints(values: Sequence[int] | NDArray[Any]) -> Ints:
    """Sorted, none of them twice, in an array of their own."""
    low, high = (np.min, np.max) if isinstance(values, np.ndarray) else (min, max)
    least, most = int(low(values)), int(high(values))
    if least < -(2**63) or most >= 2**63:
        raise ValueError(f"integer item ids must fit 64 bits, got {least} to {most}")
    ints = np.sort(np.array(values, dtype=np.int64))
    again = np.flatnonzero(ints[1:] == ints[:-1])
    if len(again):
        raise ValueError(f"item id {int(ints[again[0]])!r} occurs twice")
    return ints


def _distinct_texts(values: list[str]) -> list[str]:
    """Sorted, none of them twice."""
    values = sorted(values)
    if len(set(values)) < len(values):
        twice = next(after for before, after in itertools.pairwise(values) if before == after)
        raise ValueError(f"item id {twice!r} occurs twice")
    return values


def _one_kind(values: list[Any]) -> Literal["int", "str"]:
    kinds = set(map(type, values))
    if kinds == {int} or kinds == {str}:
        return "int" if kinds == {int} else "str"
    for i, value in enumerate(values):
        values[i] = _as_raw_id(value, i)
        if type(values[i]) is not type(values[0]):
            raise TypeError(f"item ids must be all ints or all strings: {values[0]!r} and {values[i]!r} (place {i})")
    return "int" if type(values[0]) is int else "str"


def _as_raw_ids(values: Sequence[Any]) -> list[RawId]:
    return [_as_raw_id(value, i) for i, value in enumerate(values)]


def _as_raw_id(value: Any, place: int) -> RawId:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, str, np.integer)):
        raise NotAnId(value, place)
    if isinstance(value, str):
        return str.__str__(value)  # a text enum's own str() is not its text
    return operator.index(value)

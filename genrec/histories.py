"""Catalogues and histories: numbering, truncating, padding. The only code that does this, for training as for serving.

Items are numbered 1..V in the order of their sorted raw ids; 0 is padding. A history is a user's items, oldest first.
"""

from __future__ import annotations

import functools
import io
import itertools
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

import numpy as np
from numpy.typing import NDArray

PAD = 0

Ints = NDArray[np.int64]
RawId = int | str
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
        arrays = [row if _is_plain(row) else _whole_numbers(row, f"row {i}") for i, row in enumerate(rows)]
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
        numbers = _whole_numbers(indices, "item numbers")
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


@dataclass(frozen=True, eq=False)
class Catalogue:
    """What is kept of the items in a run folder and in a bundle alike.

    Args:
        items: the numbering.
        cold_start: int64 (V,), every item number once, by training popularity, for users without a history.
        titles: V readable titles in the order of the numbers, or None.

    Raises:
        ValueError: if ``cold_start`` is no permutation of 1..V, or ``titles`` are not V.
    """

    items: ItemIds
    cold_start: Ints
    titles: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not np.array_equal(np.sort(self.cold_start), np.arange(1, len(self.items) + 1)):
            raise ValueError(f"cold_start must hold each of the numbers 1..{len(self.items)} once")
        if self.titles is not None and len(self.titles) != len(self.items):
            raise ValueError(f"there are {len(self.titles)} titles for {len(self.items)} items")

    def title(self, index: int) -> str:
        """A readable name of item ``index``: its title, or its raw id where there are none.

        Raises:
            IndexError: if ``index`` lies outside 1..V.
        """
        raw = self.items.raw([index])[0]
        return self.titles[index - 1] if self.titles else str(raw)

    def files(self) -> dict[str, bytes]:
        """File names to contents: ``items.npy`` or ``items.utf8`` and offsets, titles likewise, ``cold_start.npy``."""
        raw = self.items.all()
        files = {"cold_start.npy": _npy(np.asarray(self.cold_start, dtype=np.int64))}
        if self.items.kind == "int":
            files["items.npy"] = _npy(np.array(raw, dtype=np.int64))
        else:
            files |= _text_files("items", [str(value) for value in raw])
        return files | (_text_files("titles", self.titles) if self.titles is not None else {})

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Catalogue:
        """The inverse of ``files``; nothing is unpickled.

        Raises:
            ValueError: if a file is missing, damaged, or the ids are not sorted.
        """
        raw = _read_ints(files, "items.npy") if "items.npy" in files else _read_text(files, "items")
        items = ItemIds(raw)
        if items._texts != raw if items._ints is None else not np.array_equal(items._ints, raw):
            raise ValueError("the item ids of the catalogue are not sorted")
        titled = any(name.startswith("titles.") for name in files)
        titles = tuple(_read_text(files, "titles")) if titled else None
        return cls(items, _read_ints(files, "cold_start.npy"), titles)


def read_npy(files: Mapping[str, bytes], name: str) -> NDArray[Any]:
    """One ``.npy`` file out of a mapping of names to contents, refusing pickles.

    Raises:
        ValueError: if it is missing or no plain array.
    """
    if name not in files:
        raise ValueError(f"{name} is missing")
    stream = io.BytesIO(files[name])
    try:
        array = np.lib.format.read_array(stream, allow_pickle=False)
    except Exception as error:  # a damaged header fails in many ways, from the tokenizer to the memory
        raise ValueError(f"{name} is not a plain array file: {error}") from error
    if stream.read(1):
        raise ValueError(f"{name} is not a plain array file: more follows its values")
    return np.asarray(array)


def _read_ints(files: Mapping[str, bytes], name: str) -> Ints:
    array = read_npy(files, name)
    if array.dtype != np.int64 or array.ndim != 1:
        raise ValueError(f"{name} must be int64 of one axis, not {array.dtype} of {array.ndim}")
    return array


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _text_files(name: str, texts: Sequence[str]) -> dict[str, bytes]:
    encoded = [text.encode() for text in texts]
    offsets = offsets_of(np.array([len(text) for text in encoded], dtype=np.int64))
    return {f"{name}.utf8": b"".join(encoded), f"{name}.offsets.npy": _npy(offsets)}


def _read_text(files: Mapping[str, bytes], name: str) -> list[str]:
    if f"{name}.utf8" not in files:
        raise ValueError(f"{name}.utf8 is missing")
    blob, bounds = files[f"{name}.utf8"], _read_ints(files, f"{name}.offsets.npy").tolist()
    if not bounds or bounds[0] != 0 or bounds[-1] != len(blob) or bounds != sorted(bounds):
        raise ValueError(f"{name}.offsets.npy does not fit {name}.utf8")
    try:
        return [blob[start:end].decode() for start, end in itertools.pairwise(bounds)]
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}.utf8 is no text, or {name}.offsets.npy cuts its letters: {error}") from error


def _is_plain(values: Sequence[int] | Ints) -> TypeGuard[Ints]:
    return type(values) is np.ndarray and values.dtype == np.int64 and values.ndim == 1


def _whole_numbers(values: Sequence[int] | Ints, name: str) -> Ints:
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name} must have one axis, not shape {array.shape}")
    if not array.size:
        return np.zeros(0, dtype=np.int64)
    if array.dtype.kind not in "iu" or (array.dtype == np.uint64 and array.max() >= 2**63):
        raise TypeError(f"{name} must hold whole numbers of 64 bits, got {array.dtype}: {array[:5].tolist()}")
    return array.astype(np.int64, copy=False)


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

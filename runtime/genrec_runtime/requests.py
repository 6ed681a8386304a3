"""From what a caller passes to item indices: rows of raw ids, checked before anything else sees them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genrec.histories import Ints, ItemIds, NotAnId, Ragged, offsets_of
from genrec_runtime.errors import InputError, Unsupported, short
from genrec_runtime.manifest import Semantics

MOST = 1 << 27  # ids and rows of an argument, entries of an array: more are refused before they take memory
BLOCK = 1 << 18  # ids that are held as Python objects at a time

OnUnknown = Literal["drop", "error"]
Row = tuple[Any, ...] | NDArray[Any]
_NEARLY_ALL = 0.9


@dataclass(frozen=True, eq=False)
class Numbered:
    """Rows of raw ids as item indices.

    Attributes:
        known: the indices of the ids that the catalogue has, in the rows' order.
        given: int64 (B,), how many ids each row had before unknown ones were dropped.
        stranger: the first id that the catalogue lacks, None where it has all.
    """

    known: Ragged
    given: Ints
    stranger: Any = None

    @property
    def unknown(self) -> int:
        """How many ids were dropped, over all rows."""
        return 0 if self.stranger is None else int(self.given.sum()) - len(self.known.values)


def number_rows(items: ItemIds, rows: Any, field: str, on_unknown: OnUnknown) -> Numbered:
    """Numbers rows of raw ids. They are copied first, so that a caller may change them during the call.

    This takes at most 40 bytes of memory an id and a row, and far less for short rows.

    Args:
        items: the catalogue's numbering.
        rows: a list or tuple of rows, each a list, a tuple or a 1-D array of ids; or a 2-D array.
        field: the argument's name, for errors.
        on_unknown: "drop" leaves out ids that the catalogue lacks; "error" refuses them.

    Raises:
        InputError: if the rows are no rows, or have more than ``MOST`` ids; if an entry is neither an int nor a string; if
            an id is unknown and ``on_unknown`` is "error".
    """
    if not isinstance(on_unknown, str) or on_unknown not in ("drop", "error"):
        message = f"on_unknown ({short(on_unknown)}) must be 'drop' or 'error'"
        raise InputError(message, code="on_unknown", field="on_unknown", value=on_unknown)
    numbers, lengths, count, stranger = [], [], 0, None
    for block in _blocks(rows, field):
        index = _number(items, block, field)
        if stranger is None and np.count_nonzero(index) < len(index):
            if on_unknown == "error":
                raise _unknown(block, index, field)
            stranger = block.entry(int(np.argmin(index)))[2]
        numbers.append(index)
        lengths += block.lengths
        count += len(index) + len(block.lengths)
        _check_size(count, field)
    given = np.array(lengths, dtype=np.int64)
    offsets = offsets_of(given)
    index = numbers[0] if len(numbers) == 1 else np.concatenate([np.zeros(0, np.int64), *numbers])
    if stranger is None:
        return Numbered(Ragged(index, offsets), given)
    known = index > 0
    return Numbered(Ragged(index[known], offsets_of(known)[offsets]), given, stranger)


def number_list(items: ItemIds, values: Any, field: str, on_unknown: OnUnknown = "drop") -> Ints:
    """Numbers one flat list of raw ids; "drop" leaves out those that the catalogue lacks, "error" refuses them.

    Raises:
        InputError: if it is no flat list, or an entry is neither an int nor a string; if an id is unknown and ``on_unknown``
            is "error".
    """
    flat = _row(values, field)
    block = Block(None, flat, [len(flat)])
    index = _number(items, block, field)
    if on_unknown == "error" and not index.all():
        raise _unknown(block, index, field)
    return index[index > 0]


def warn_if_foreign(items: ItemIds, numbered: Numbered, stacklevel: int) -> bool:
    """Warns where nearly all ids are unknown: most often ids of another type, or of another catalogue.

    Args:
        items: the catalogue's numbering.
        numbered: the histories of a call.
        stacklevel: as of ``warnings.warn``, seen from the caller of this function.

    Returns:
        Whether it warned.
    """
    if numbered.stranger is None:
        return False
    total = int(numbered.given.sum())
    if total < 10 or numbered.unknown < _NEARLY_ALL * total:
        return False
    ours = items.raw([1])[0]
    warnings.warn(
        f"{numbered.unknown} of {total} item ids are unknown to the bundle: got {type(numbered.stranger).__name__} "
        f"like {short(numbered.stranger)}, the bundle has {type(ours).__name__} like {short(ours)}",
        UserWarning,
        stacklevel=stacklevel + 1,
    )
    return True


def list_length(k: Any, semantics: Semantics, *, limited: bool) -> int:
    """How long the lists may become.

    Args:
        k: what was asked for.
        semantics: of the bundle.
        limited: whether the graph with its constant ``k_max`` answers.

    Raises:
        InputError: if ``k`` is no whole number, below 1, or more than the graph gives.
    """
    if isinstance(k, (bool, np.bool_)) or not isinstance(k, (int, np.integer)) or k < 1:
        raise InputError(f"k ({short(k)}) must be a whole number of at least 1", code="k", field="k", value=k)
    if limited and semantics.k_max < min(k, semantics.num_items):
        message = f"k ({short(k)}) is above this bundle's {semantics.k_max}; export with --k-max {short(k)}"
        raise InputError(message, code="k", field="k", value=k)
    return min(int(k), semantics.num_items)


def flag(value: Any, name: str) -> bool:
    """``value`` as a bool; a string such as "no" would count as true.

    Raises:
        InputError: if it is none.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"{name} ({short(value)}) must be True or False", code="flag", field=name, value=value)
    return bool(value)


def refuse(capabilities: Sequence[str], arguments: dict[str, Any]) -> None:
    """Refuses the arguments that this model has no use for.

    Raises:
        Unsupported: naming the argument.
    """
    for name, value in arguments.items():
        if value is not None and name not in capabilities:
            raise Unsupported(f"this model takes no {name}; it offers {', '.join(capabilities) or 'nothing more'}")


def as_array(value: Any, field: str, row: int | None = None) -> NDArray[Any]:
    """A plain array of its own memory, in this machine's byte order.

    Args:
        value: an array, nested lists, or anything with ``__array__``.
        field: the argument's name, for errors.
        row: the number of the row that it is, if it is one.

    Raises:
        InputError: if numpy cannot make one (rows of unequal length, a tensor on a GPU), entries are masked, or there are more
            than ``MOST``.
    """
    if isinstance(value, (np.ma.MaskedArray, np.matrix)):
        raise _misshapen(f"is a {type(value).__name__}; pass a plain array", field, row, value)
    try:
        array: NDArray[Any] = np.asarray(value)  # copied below, in a second step: torch's __array__ knows no copy=
    except Exception as error:  # __array__ is the caller's code: torch raises TypeError for a CUDA tensor, and more
        reason = " ".join(str(error).split())[:200]
        raise _misshapen(f"cannot be read as an array: {reason}", field, row, value) from error
    _check_size(array.size + (len(array) if array.ndim else 0), field)
    array = np.array(array, order="C")
    return array.astype(array.dtype.newbyteorder("="), copy=False) if array.dtype.kind in "biuf" else array


class Block(NamedTuple):
    """Some rows of raw ids, one after the other.

    Attributes:
        first: the number of the first row, None where the block is one list and no row.
        values: the ids.
        lengths: how many ids each row has.
    """

    first: int | None
    values: list[Any] | Row
    lengths: list[int]

    def entry(self, place: int) -> tuple[int | None, int, Any]:
        """The number of an id's row, its place in the row, and the id as Python has it."""
        ends = np.cumsum(self.lengths)
        row = int(np.searchsorted(ends, place, side="right"))
        value = self.values[place]
        inside = place - int(ends[row]) + self.lengths[row]
        number = None if self.first is None else self.first + row
        return number, inside, value.item() if isinstance(value, np.generic) else value


def _blocks(rows: Any, field: str) -> Iterator[Block]:
    """The ids of all rows, copied, some rows at a time."""
    rows = _rows(rows, field)
    if isinstance(rows, np.ndarray):
        step = max(1, BLOCK // max(1, rows.shape[1]))
        for first in range(0, len(rows), step):
            part = rows[first : first + step]
            yield Block(first, part.reshape(-1), [part.shape[1]] * len(part))
        return
    if rows and all(type(row) is np.ndarray and row.ndim == 1 and row.dtype.kind == "i" for row in rows):
        sizes = list(map(len, rows))
        _check_size(sum(sizes) + len(sizes), field)
        yield Block(0, np.concatenate(rows), sizes)
        return
    first = 0
    values: list[Any] = []
    lengths: list[int] = []
    for i, row in enumerate(rows):
        if len(values) >= BLOCK:
            yield Block(first, values, lengths)
            first, values, lengths = i, [], []
        before = len(values)
        ids = row if type(row) is list or type(row) is tuple else _row(row, field, i)
        values.extend(ids.tolist() if isinstance(ids, np.ndarray) else ids)
        lengths.append(len(values) - before)
    if lengths:
        yield Block(first, values, lengths)


def _rows(rows: Any, field: str) -> Sequence[Any] | NDArray[Any]:
    """Rows as a sequence of them, or as an array of two axes that is the caller's no longer."""
    if isinstance(rows, (list, tuple)):
        return rows
    if not hasattr(type(rows), "__array__"):
        hint = "; recommend_iter takes a stream" if hasattr(type(rows), "__next__") else ""
        raise _misshapen(f"must be a list of rows of item ids, got {type(rows).__name__}{hint}", field, None, rows)
    array = as_array(rows, field)
    if array.ndim == 1 and array.dtype == object:
        return list(array)
    if array.ndim != 2:
        hint = f"; for one row pass [{field}]" if array.ndim == 1 else ""
        raise _misshapen(f"must be rows of item ids, got an array of {array.ndim} axes{hint}", field, None, rows)
    if array.size:
        _check_type(array[0], field, 0)
    return array


def _row(row: Any, field: str, number: int | None = None) -> Row:
    """The ids of one row, or of an argument that is one list."""
    if isinstance(row, (list, tuple)):
        return tuple(row)
    if hasattr(type(row), "__array__") and not isinstance(row, np.generic):
        array = as_array(row, field, number)
        if array.ndim != 1:
            raise _misshapen(f"must be a list of item ids, got an array of {array.ndim} axes", field, number, row)
        if array.size:
            _check_type(array, field, number)
        return array
    is_id = number is not None and isinstance(row, (str, int, np.generic))
    hint = f"; for one row pass [{field}]" if is_id else ""
    raise _misshapen(f"must be a list of item ids, got {short(row)}{hint}", field, number, row)


def _check_type(row: NDArray[Any], field: str, number: int | None) -> None:
    if row.dtype.kind not in "iuOUT":
        fault = f"must hold ints or strings, got {row.dtype} {short(row[0])}; pass ids as they were in training"
        raise InputError(f"{_name(field, number)} {fault}", code="id_type", row=number, field=field, value=row[0])


def _check_size(count: int, field: str) -> None:
    if count > MOST:
        message = f"{field} has at least {count:,} entries, {MOST:,} are taken at most; pass fewer rows a call"
        raise InputError(message, code="too_large", field=field, value=count)


def _number(items: ItemIds, block: Block, field: str) -> Ints:
    """The indices of a block's ids."""
    try:
        return items.index(block.values)
    except NotAnId as error:
        row, place, value = block.entry(error.place)
        fault = f"an item id must be an int or a string, got {short(value)} ({type(value).__name__}, place {place})"
        message = f"{_name(field, row)}: {fault}; pass ids as they were in training"
        raise InputError(message, code="id_type", row=row, field=field, value=value) from None


def _unknown(block: Block, index: Ints, field: str) -> InputError:
    row, _, stranger = block.entry(int(np.argmin(index)))
    message = f"{_name(field, row)} holds {short(stranger)}, which the catalogue does not have"
    return InputError(message, code="unknown_item", row=row, field=field, value=stranger)


def _misshapen(fault: str, field: str, row: int | None, value: Any) -> InputError:
    return InputError(f"{_name(field, row)} {fault}", code="shape", row=row, field=field, value=value)


def _name(field: str, row: int | None) -> str:
    return field if row is None else f"{field}[{row}]"

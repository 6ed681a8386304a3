"""Rows of values from whatever a caller passes, lists, tuples or arrays: copied, and refused by their place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genrec_runtime.errors import InputError, short

MOST = 1 << 27  # values and rows of an argument, entries of an array: more are refused before they take memory
BLOCK = 1 << 18  # values that are held as Python objects at a time

Row = tuple[Any, ...] | NDArray[Any]


class Sort(NamedTuple):
    """What the rows of an argument hold.

    Attributes:
        noun: what its values are, in words.
        letters: numpy's letters of the dtypes of arrays that can hold them.
        wanted: what a value must be, in words.
        hint: what to do about another.
        code: of the error about an array of others.
    """

    noun: str
    letters: str
    wanted: str
    hint: str
    code: str


IDS = Sort("item ids", "iuOUT", "ints or strings", "pass ids as they were in training", code="id_type")


class Block(NamedTuple):
    """Some rows of values, one after the other.

    Attributes:
        first: the number of the first row, None where the block is one list and no row.
        values: the values.
        lengths: how many values each row has.
    """

    first: int | None
    values: list[Any] | Row
    lengths: list[int]

    def entry(self, place: int) -> tuple[int | None, int, Any]:
        """The number of a value's row, its place in the row, and the value as Python has it."""
        ends = np.cumsum(self.lengths)
        row = int(np.searchsorted(ends, place, side="right"))
        value = self.values[place]
        inside = place - int(ends[row]) + self.lengths[row]
        number = None if self.first is None else self.first + row
        return number, inside, value.item() if isinstance(value, np.generic) else value


def blocks(rows: Any, field: str, sort: Sort = IDS) -> Iterator[Block]:
    """The values of all rows, copied, some rows at a time.

    Args:
        rows: a list or tuple of rows, each a list, a tuple or a 1-D array; or a 2-D array.
        field: the argument's name, for errors.
        sort: what the rows hold.

    Raises:
        InputError: if the rows are no rows, have more than ``MOST`` values, or an array cannot hold such values. Values of
            lists are not looked at.
    """
    rows = _rows(rows, field, sort)
    if isinstance(rows, np.ndarray):
        step = max(1, BLOCK // max(1, rows.shape[1]))
        for first in range(0, len(rows), step):
            part = rows[first : first + step]
            yield Block(first, part.reshape(-1), [part.shape[1]] * len(part))
    elif rows and all(type(row) is np.ndarray and row.ndim == 1 and row.dtype.kind == "i" for row in rows):
        sizes = list(map(len, rows))
        _check_size(sum(sizes) + len(sizes), field)
        yield Block(0, np.concatenate(rows), sizes)
    else:
        yield from _blocks(rows, field, sort)


def flat(values: Any, field: str, sort: Sort = IDS) -> Block:
    """The values of an argument that is one list, copied; errors as ``blocks``."""
    row = _row(values, field, sort)
    return Block(None, row, [len(row)])


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


def named(field: str, row: int | None) -> str:
    """An argument, or a row of it, as errors call it."""
    return field if row is None else f"{field}[{row}]"


def _blocks(rows: Sequence[Any], field: str, sort: Sort) -> Iterator[Block]:
    """Blocks of a sequence of rows of any kind."""
    first = count = 0
    values: list[Any] = []
    lengths: list[int] = []
    for i, row in enumerate(rows):
        if len(values) >= BLOCK:
            yield Block(first, values, lengths)
            count += len(values) + len(lengths)
            _check_size(count, field)
            first, values, lengths = i, [], []
        before = len(values)
        listed = row if type(row) is list or type(row) is tuple else _row(row, field, sort, i)
        values.extend(listed.tolist() if isinstance(listed, np.ndarray) else listed)
        lengths.append(len(values) - before)
    _check_size(count + len(values) + len(lengths), field)
    if lengths:
        yield Block(first, values, lengths)


def _rows(rows: Any, field: str, sort: Sort) -> Sequence[Any] | NDArray[Any]:
    """Rows as a sequence of them, or as an array of two axes that is the caller's no longer."""
    if isinstance(rows, (list, tuple)):
        return rows
    if not hasattr(type(rows), "__array__"):
        hint = "; recommend_iter takes a stream" if hasattr(type(rows), "__next__") else ""
        raise _misshapen(f"must be a list of rows of {sort.noun}, got {type(rows).__name__}{hint}", field, None, rows)
    array = as_array(rows, field)
    if array.ndim == 1 and array.dtype == object:
        return list(array)
    if array.ndim != 2:
        hint = f"; for one row pass [{field}]" if array.ndim == 1 else ""
        raise _misshapen(f"must be rows of {sort.noun}, got an array of {array.ndim} axes{hint}", field, None, rows)
    if array.size:
        _check_type(array[0], field, sort, 0)
    return array


def _row(row: Any, field: str, sort: Sort, number: int | None = None) -> Row:
    """The values of one row, or of an argument that is one list."""
    if isinstance(row, (list, tuple)):
        return tuple(row)
    if hasattr(type(row), "__array__") and not isinstance(row, np.generic):
        array = as_array(row, field, number)
        if array.ndim != 1:
            raise _misshapen(f"must be a list of {sort.noun}, got an array of {array.ndim} axes", field, number, row)
        if array.size:
            _check_type(array, field, sort, number)
        return array
    is_value = number is not None and isinstance(row, (str, int, np.generic))
    hint = f"; for one row pass [{field}]" if is_value else ""
    raise _misshapen(f"must be a list of {sort.noun}, got {short(row)}{hint}", field, number, row)


def _check_type(row: NDArray[Any], field: str, sort: Sort, number: int | None) -> None:
    if row.dtype.kind not in sort.letters:
        fault = f"must hold {sort.wanted}, got {row.dtype} {short(row[0])}; {sort.hint}"
        raise InputError(f"{named(field, number)} {fault}", code=sort.code, row=number, field=field, value=row[0])


def _check_size(count: int, field: str) -> None:
    if count > MOST:
        message = f"{field} has at least {count:,} entries, {MOST:,} are taken at most; pass fewer rows a call"
        raise InputError(message, code="too_large", field=field, value=count)


def _misshapen(fault: str, field: str, row: int | None, value: Any) -> InputError:
    return InputError(f"{named(field, row)} {fault}", code="shape", row=row, field=field, value=value)

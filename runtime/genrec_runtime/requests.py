"""From what a caller passes to item indices: rows of raw ids, checked before anything else sees them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from genrec.histories import Ints, ItemIds, Ragged, offsets_of
from genrec_runtime.errors import InputError, Unsupported
from genrec_runtime.manifest import Semantics

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
        return int(self.given.sum() - self.known.lengths.sum())


def number_rows(items: ItemIds, rows: Any, field: str, on_unknown: OnUnknown) -> Numbered:
    """Numbers rows of raw ids. They are copied first, so that a caller may change them during the call.

    Args:
        items: the catalogue's numbering.
        rows: a list or tuple of rows, each a list, a tuple or a 1-D array of ids; or a 2-D array.
        field: the argument's name, for errors.
        on_unknown: "drop" leaves out ids that the catalogue lacks; "error" refuses them.

    Raises:
        InputError: if the rows are no rows, an entry is neither an int nor a string, or an id is unknown and
            ``on_unknown`` is "error".
    """
    if on_unknown not in ("drop", "error"):
        raise InputError(f"on_unknown ({on_unknown!r}) must be 'drop' or 'error'", code="on_unknown")
    entries = [_row(row, f"{field}[{i}]", field) for i, row in enumerate(_rows(rows, field))]
    given = np.fromiter(map(len, entries), dtype=np.int64, count=len(entries))
    index = _number(items, entries, field)
    found = index > 0
    stranger = None
    if not found.all():
        row, stranger = _entry(entries, given, int(np.argmin(found)))
        if on_unknown == "error":
            message = f"{field}[{row}] holds {_short(stranger)}, which the catalogue does not have"
            raise InputError(message, code="unknown_item")
    kept = np.bincount(np.repeat(np.arange(len(given)), given)[found], minlength=len(given))
    return Numbered(Ragged(index[found], offsets_of(kept)), given, stranger)


def number_list(items: ItemIds, values: Any, field: str) -> Ints:
    """Numbers one flat list of raw ids, those that the catalogue lacks left out.

    Raises:
        InputError: if it is no flat list, or an entry is neither an int nor a string.
    """
    index = _number(items, [_row(values, field)], field, single=True)
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
    total = int(numbered.given.sum())
    if total < 10 or numbered.unknown < _NEARLY_ALL * total:
        return False
    ours = items.raw([1])[0]
    warnings.warn(
        f"{numbered.unknown} of {total} item ids are unknown to the bundle: got {type(numbered.stranger).__name__} "
        f"like {_short(numbered.stranger)}, the bundle has {type(ours).__name__} like {_short(ours)}",
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
        raise InputError(f"k ({_short(k)}) must be a whole number of at least 1", code="k")
    if limited and semantics.k_max < min(k, semantics.num_items):
        raise InputError(f"k ({k}) is above this bundle's {semantics.k_max}; export with --k-max {k}", code="k")
    return min(int(k), semantics.num_items)


def flag(value: Any, name: str) -> bool:
    """``value`` as a bool; a string such as "no" would count as true.

    Raises:
        InputError: if it is none.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"{name} ({_short(value)}) must be True or False", code="flag")
    return bool(value)


def refuse(capabilities: Sequence[str], arguments: dict[str, Any]) -> None:
    """Refuses the arguments that this model has no use for.

    Raises:
        Unsupported: naming the argument.
    """
    for name, value in arguments.items():
        if value is not None and name not in capabilities:
            raise Unsupported(f"this model takes no {name}; it offers {', '.join(capabilities) or 'nothing more'}")


def as_array(value: Any, field: str) -> NDArray[Any]:
    """A plain array of its own memory, in this machine's byte order.

    Raises:
        InputError: if numpy cannot make one (rows of unequal length, a tensor on a GPU), or entries are masked.
    """
    if isinstance(value, (np.ma.MaskedArray, np.matrix)):
        raise InputError(f"{field} is a {type(value).__name__}; pass a plain array", code="shape")
    try:
        array: NDArray[Any] = np.array(np.asarray(value), order="C")  # in two steps: torch's __array__ knows no copy=
    except Exception as error:  # __array__ is the caller's code: torch raises TypeError for a CUDA tensor, and more
        raise InputError(f"{field} cannot be read as an array: {_line(error)}", code="shape") from error
    return array.astype(array.dtype.newbyteorder("="), copy=False) if array.dtype.kind in "biuf" else array


def _rows(rows: Any, field: str) -> Sequence[Any]:
    if isinstance(rows, (list, tuple)):
        return rows
    if not hasattr(rows, "__array__"):
        raise InputError(f"{field} must be a list of rows of item ids, got {type(rows).__name__}", code="shape")
    array = as_array(rows, field)
    if array.ndim == 2 or (array.ndim == 1 and array.dtype == object):
        return list(array)
    hint = f"; for one row pass [{field}]" if array.ndim == 1 else ""
    raise InputError(f"{field} must be rows of item ids, got an array of {array.ndim} axes{hint}", code="shape")


def _row(row: Any, name: str, rows: str = "") -> Row:
    """One row's ids; ``rows`` is the name of the argument that holds it, if any."""
    if isinstance(row, (list, tuple)):
        return tuple(row)
    if hasattr(row, "__array__") and not isinstance(row, np.generic):
        array = as_array(row, name)
        if array.ndim != 1:
            raise InputError(f"{name} must be a list of item ids, got an array of {array.ndim} axes", code="shape")
        if array.size and array.dtype.kind not in "iuOUT":
            raise InputError(f"{name} must hold ints or strings, got {array.dtype} {_short(array[0])}", code="id_type")
        return array if array.size else ()
    hint = f"; for one row pass [{rows}]" if rows and isinstance(row, (str, int, np.generic)) else ""
    raise InputError(f"{name} must be a list of item ids, got {_short(row)}{hint}", code="shape")


def _number(items: ItemIds, entries: list[Row], field: str, *, single: bool = False) -> Ints:
    """Indices of all entries of all rows, one after the other."""
    try:
        if entries and all(isinstance(row, np.ndarray) and row.dtype.kind == "i" for row in entries):
            return items.index(np.concatenate([np.asarray(row, dtype=np.int64) for row in entries]))
        flat: list[Any] = []
        for row in entries:
            flat.extend(row.tolist() if isinstance(row, np.ndarray) else row)
        return items.index(flat)
    except TypeError:
        for i, row in enumerate(entries):  # the error again, with its row
            try:
                items.index(row)
            except TypeError as error:
                name = field if single else f"{field}[{i}]"
                raise InputError(f"{name}: {_line(error)}", code="id_type") from None
        raise


def _entry(entries: list[Row], given: Ints, place: int) -> tuple[int, Any]:
    """The row of an entry, counted over all rows, and the entry as Python has it."""
    row = int(np.searchsorted(np.cumsum(given), place, side="right"))
    value = entries[row][place - int(given[:row].sum())]
    return row, value.item() if isinstance(value, np.generic) else value


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]

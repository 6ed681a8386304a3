"""From what a caller passes to item indices: rows of raw ids, checked before anything else sees them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from genrec.histories import Ints, ItemIds, Ragged, offsets_of
from genrec_runtime.errors import InputError, Unsupported

OnUnknown = Literal["drop", "error"]
_NEARLY_ALL = 0.9


@dataclass(frozen=True, eq=False)
class Numbered:
    """Rows of raw ids as item indices.

    Attributes:
        known: the indices of the ids that the catalogue has, in the rows' order.
        given: int64 (B,), how many ids each row had before unknown ones were dropped.
    """

    known: Ragged
    given: Ints

    @property
    def unknown(self) -> int:
        """How many ids were dropped, over all rows."""
        return int(self.given.sum() - self.known.lengths.sum())


def number_rows(items: ItemIds, rows: Any, field: str, on_unknown: OnUnknown) -> Numbered:
    """Numbers rows of raw ids.

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
    entries = [_row(row, field, i) for i, row in enumerate(_rows(rows, field))]
    given = np.fromiter(map(len, entries), dtype=np.int64, count=len(entries))
    offsets = offsets_of(given)
    index = _number(items, entries, field)
    found = index > 0
    if on_unknown == "error" and not found.all():
        place = int(np.argmin(found))
        row = int(np.searchsorted(offsets, place, side="right") - 1)
        value = entries[row][place - int(offsets[row])]
        raise InputError(f"{field}[{row}] holds {value!r}, which the catalogue does not have", code="unknown_item")
    kept = np.bincount(np.repeat(np.arange(len(given)), given)[found], minlength=len(given))
    return Numbered(Ragged(index[found], offsets_of(kept)), given)


def warn_if_foreign(items: ItemIds, numbered: Numbered, rows: Any) -> bool:
    """Warns where nearly all ids are unknown: most often ids of another type, or of another catalogue."""
    total = int(numbered.given.sum())
    if total < 10 or numbered.unknown < _NEARLY_ALL * total:
        return False
    example = next(value for row in rows for value in row)
    ours = items.raw([1])[0]
    warnings.warn(
        f"{numbered.unknown} of {total} item ids are unknown to the bundle: "
        f"got {type(example).__name__} {example!r}, the bundle has {type(ours).__name__} like {ours!r}",
        UserWarning,
        stacklevel=3,
    )
    return True


def whole_number(value: Any, name: str, low: int) -> int:
    """``value`` as an int of at least ``low``; bools, floats and strings are refused.

    Raises:
        InputError: if it is no whole number, or too small.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < low:
        raise InputError(f"{name} ({value!r}) must be a whole number of at least {low}", code=name)
    return int(value)


def refuse(capabilities: Sequence[str], arguments: dict[str, Any]) -> None:
    """Refuses the arguments that this model has no use for.

    Raises:
        Unsupported: naming the argument.
    """
    for name, value in arguments.items():
        if value is not None and name not in capabilities:
            raise Unsupported(f"this model takes no {name}; it offers {', '.join(capabilities) or 'nothing more'}")


def _rows(rows: Any, field: str) -> Sequence[Any]:
    if hasattr(rows, "__array__") and not isinstance(rows, (list, tuple)):
        rows = np.asarray(rows)
        if rows.ndim == 1 and rows.dtype == object:
            return list(rows)
        if rows.ndim != 2:
            hint = f"; for one row pass [{field}]" if rows.ndim == 1 else ""
            raise InputError(f"{field} must be rows of item ids, got an array of {rows.ndim} axes{hint}", code="shape")
        return list(rows)
    if not isinstance(rows, (list, tuple)):
        kind = type(rows).__name__
        raise InputError(f"{field} must be a list of rows of item ids, got {kind}", code="shape")
    return rows


def _row(row: Any, field: str, i: int) -> Sequence[Any] | NDArray[Any]:
    if isinstance(row, (list, tuple)):
        return row
    if hasattr(row, "__array__") and not isinstance(row, (np.generic, str, bytes)):
        row = np.asarray(row)
        if row.ndim == 1:
            array: NDArray[Any] = row.astype(row.dtype.newbyteorder("="))
            return array
    one = isinstance(row, (str, int, np.generic)) or not isinstance(row, Sized)
    hint = f"; for one row pass [{field}]" if one else ""
    raise InputError(f"{field}[{i}] must be a row of item ids, got {row!r:.60}{hint}", code="shape")


def _number(items: ItemIds, entries: list[Sequence[Any] | NDArray[Any]], field: str) -> Ints:
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
                raise InputError(f"{field}[{i}]: {error}", code="id_type") from None
        raise

"""From what a caller passes to item indices: rows of raw ids, checked before anything else sees them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from genrec.histories import Ints, ItemIds, NotAnId, Ragged, offsets_of
from genrec_runtime.errors import InputError, Unsupported, short
from genrec_runtime.manifest import Semantics
from genrec_runtime.rows import Block, blocks, flat, named

OnUnknown = Literal["drop", "error"]
_NEARLY_ALL = 0.9


@dataclass(frozen=True, eq=False)
class Numbered:
    """Rows of raw ids as item indices.

    Attributes:
        known: the indices of the ids that the catalogue has, in the rows' order.
        given: int64 (B,), how many ids each row had before unknown ones were dropped.
        stranger: the first id that the catalogue lacks, None where it has all.
        kept: bool, as long as all given ids one after the other: true where one is known; None where all are.
    """

    known: Ragged
    given: Ints
    stranger: Any = None
    kept: NDArray[np.bool_] | None = None

    @property
    def unknown(self) -> int:
        """How many ids were dropped, over all rows."""
        return 0 if self.stranger is None else int(self.given.sum()) - len(self.known.values)

    def keep(self, beside: Ragged) -> Ragged:
        """Of values that stand beside the given ids, those beside the known ones."""
        return beside if self.kept is None else Ragged(beside.values[self.kept], self.known.offsets)


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
    numbers, lengths, stranger = [], [], None
    for block in blocks(rows, field):
        index = _number(items, block, field)
        if stranger is None and np.count_nonzero(index) < len(index):
            if on_unknown == "error":
                raise _unknown(block, index, field)
            stranger = block.entry(int(np.argmin(index)))[2]
        numbers.append(index)
        lengths += block.lengths
    given = np.array(lengths, dtype=np.int64)
    offsets = offsets_of(given)
    index = numbers[0] if len(numbers) == 1 else np.concatenate([np.zeros(0, np.int64), *numbers])
    if stranger is None:
        return Numbered(Ragged(index, offsets), given)
    known = index > 0
    return Numbered(Ragged(index[known], offsets_of(known)[offsets]), given, stranger, known)


def number_list(items: ItemIds, values: Any, field: str, on_unknown: OnUnknown = "drop") -> Ints:
    """Numbers one flat list of raw ids; "drop" leaves out those that the catalogue lacks, "error" refuses them.

    Raises:
        InputError: if it is no flat list, or an entry is neither an int nor a string; if an id is unknown and ``on_unknown``
            is "error".
    """
    block = flat(values, field)
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


def refuse(capabilities: Sequence[str], arguments: Mapping[str, Any]) -> None:
    """Refuses the arguments that this model has no use for.

    Raises:
        Unsupported: naming the argument.
    """
    for name, value in arguments.items():
        if value is not None and name not in capabilities:
            raise Unsupported(f"this model takes no {name}; it offers {', '.join(capabilities) or 'nothing more'}")


def _number(items: ItemIds, block: Block, field: str) -> Ints:
    """The indices of a block's ids."""
    try:
        return items.index(block.values)
    except NotAnId as error:
        row, place, value = block.entry(error.place)
        fault = f"an item id must be an int or a string, got {short(value)} ({type(value).__name__}, place {place})"
        message = f"{named(field, row)}: {fault}; pass ids as they were in training"
        raise InputError(message, code="id_type", row=row, field=field, value=value) from None


def _unknown(block: Block, index: Ints, field: str) -> InputError:
    row, _, stranger = block.entry(int(np.argmin(index)))
    message = f"{named(field, row)} holds {short(stranger)}, which the catalogue does not have"
    return InputError(message, code="unknown_item", row=row, field=field, value=stranger)

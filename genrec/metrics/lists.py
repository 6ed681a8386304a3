"""Takes users' lists apart, whatever they come in: arrays, tensors, lists, tuples, generators, streams of batches.

Inside, some users' lists are a ``Block``: a 2-D array, a ``Ragged``, or a list of rows, each a list or a 1-D array. No id
is ever cast to a type that could make two of them equal.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import lru_cache
from itertools import groupby, islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from genrec.histories import Ragged, offsets_of

BLOCK_USERS = 2048


class SupportsArray(Protocol):
    """What numpy can read: its own arrays, tensors of any library on the CPU, data frames."""

    def __array__(self) -> NDArray[Any]: ...


Lists = SupportsArray | Ragged | Iterable[Iterable[Hashable] | SupportsArray]
Block = NDArray[Any] | Ragged | list[Any]


def paired_blocks(predictions: Lists, targets: Lists) -> Iterator[tuple[Block, Block]]:
    """Cuts predictions and targets into blocks of the same users, at most ``BLOCK_USERS``, reading no further ahead.

    An iterable other than a list, a tuple or an array may yield rows or batches of rows: a ``Ragged``, a 2-D array, a
    list whose first entry can be no id. The two may be cut into batches differently.

    Raises:
        TypeError: if a user's ids are no list, or unordered in ``predictions``.
        ValueError: if the two are of different numbers of users, or an array has a wrong number of axes.
    """
    predictions, targets = _whole(predictions, "predictions"), _whole(targets, "targets")
    if all(isinstance(lists, (np.ndarray, Ragged, list, tuple)) for lists in (predictions, targets)):
        check_same_length(predictions, targets)
    tops, wants = _blocks(predictions, "predictions", ordered=True), _blocks(targets, "targets")
    top: Block = []
    want: Block = []
    users = 0
    while True:
        top = top if len(top) else next(tops, [])
        want = want if len(want) else next(wants, [])
        both = min(len(top), len(want))
        if not both:
            break
        yield _cut(top, 0, both), _cut(want, 0, both)
        top, want = _cut(top, both, len(top)), _cut(want, both, len(want))
        users += both
    if len(top) or len(want):
        short, long = ("targets", "predictions") if len(top) else ("predictions", "targets")
        raise ValueError(f"{short} end after {users} users but {long} go on")


def check_same_length(predictions: Any, targets: Any) -> None:
    """Refuses predictions and targets of different numbers of users.

    Raises:
        ValueError: if they are.
    """
    if len(predictions) != len(targets):
        raise ValueError(f"predictions are of {len(predictions)} users but targets of {len(targets)}")


def as_rows(lists: Lists, name: str, ordered: bool = False) -> list[list[Hashable]]:
    """One list of plain ids a user; whole numbers of arrays become Python's own, whatever their width.

    Args:
        lists: of all users; an iterable may yield batches, as for ``paired_blocks``.
        name: what a complaint calls them.
        ordered: whether a set is refused.

    Raises:
        TypeError: if a user's ids are no list, or unordered where ``ordered``.
        ValueError: if an array has a wrong number of axes.
    """
    if type(lists) is list and set(map(type, lists)) == {list}:
        first = next((row[0] for row in lists if row), None)
        if not hasattr(first, "__array__"):  # no scalar tensor: a look at each row's would cost a fifth of a metric
            return lists
    return [row for block in _blocks(_whole(lists, name), name, ordered) for row in rows_of(block)]


def rows_of(block: Block) -> list[list[Hashable]]:
    """A block's rows as lists of plain ids."""
    if isinstance(block, np.ndarray):
        rows: list[list[Hashable]] = block.tolist()
        return rows
    return [
        row if type(row) is list and not (row and hasattr(row[0], "__array__")) else _plain(row)
        for row in (block.rows() if isinstance(block, Ragged) else block)
    ]


def _plain(ids: list[Any] | NDArray[Any]) -> list[Hashable]:
    """Takes ids out of an array, and out of scalar tensors, which hash by identity and would equal nothing."""
    listed: list[Any] = ids.tolist() if isinstance(ids, np.ndarray) else ids
    return [np.asarray(one).item() for one in listed] if listed and hasattr(listed[0], "__array__") else listed


def whole_numbers(predictions: Block, targets: Block, depth: int) -> tuple[Ragged, Ragged] | None:
    """Both blocks as int64 numbers that are equal where the ids are, or None where that cannot be.

    Args:
        predictions: of some users.
        targets: of the same users.
        depth: how many of the best predictions to keep.
    """
    want = _flat(targets)
    top = None if want is None else _flat(_best(predictions, depth))
    if top is None or want is None:
        return None
    unsigned = all(values.dtype.kind == "u" and values.dtype.itemsize == 8 for values, _ in (top, want))
    tops, wants = _as_int64(top[0], unsigned), _as_int64(want[0], unsigned)
    if tops is None or wants is None:
        return None
    return Ragged(tops, offsets_of(top[1])), Ragged(wants, offsets_of(want[1]))


def _whole(lists: Lists, name: str) -> Any:
    """Arrays of any library as numpy's, arrays of objects as lists; anything else as it is."""
    if not hasattr(lists, "__array__"):
        return lists
    whole = np.asarray(lists)
    if whole.ndim != 2 and (whole.ndim == 0 or whole.dtype != object):
        raise ValueError(f"{name} must have two axes, users and places, not shape {whole.shape}")
    return list(whole) if whole.dtype == object else whole


def _blocks(lists: Any, name: str, ordered: bool = False) -> Iterator[Block]:
    users = 0
    for block in _cuts(lists, name):
        yield _tidy(block, name, users, ordered) if isinstance(block, list) else block
        users += len(block)


def _tidy(rows: list[Any], name: str, first: int, ordered: bool) -> Block:
    kinds = set(map(type, rows))
    if kinds == {list} or (kinds == {np.ndarray} and all(row.ndim == 1 for row in rows)):
        return rows
    return [_row(row, f"{name}[{i}]", ordered) for i, row in enumerate(rows, first)]


def _cuts(lists: Any, name: str) -> Iterator[Block]:
    if isinstance(lists, (np.ndarray, Ragged, list, tuple)):
        for start in range(0, len(lists), BLOCK_USERS):
            yield _cut(lists, start, start + BLOCK_USERS)
        return
    for batches, group in groupby(lists, _is_batch):
        if batches:
            for batch in group:
                yield from _cuts(_whole(batch, name), name)
        else:
            while rows := list(islice(group, BLOCK_USERS)):
                yield rows


def _cut(block: Any, start: int, end: int) -> Block:
    if isinstance(block, Ragged):
        return Ragged(block.values, block.offsets[start : end + 1])
    cut: Block = list(block[start:end]) if isinstance(block, tuple) else block[start:end]
    return cut


def _is_batch(one: Any) -> bool:
    """Whether an entry of a stream holds many users' rows, not one's; a tuple may be an id."""
    if isinstance(one, Ragged):
        return True
    if hasattr(one, "__array__"):
        return np.ndim(one) != 1
    first: Any = one[0] if isinstance(one, (list, tuple)) and one else None
    return isinstance(first, (list, set, frozenset)) or (hasattr(first, "__array__") and np.ndim(first) > 0)


def _row(row: Any, name: str, ordered: bool) -> list[Any] | NDArray[Any]:
    if hasattr(row, "__array__"):
        ids: NDArray[Any] = np.asarray(row)
        if ids.ndim != 1:
            raise ValueError(f"{name} must have one axis, not shape {ids.shape}")
        return ids
    if isinstance(row, (str, bytes)) or not isinstance(row, Iterable):
        raise TypeError(f"{name} must be a list of ids, got {row!r}")
    if ordered and isinstance(row, (set, frozenset)):
        raise TypeError(f"{name} must go from best to worst, but a set has no order")
    return list(row)


def _best(block: Block, depth: int) -> Block:
    if isinstance(block, np.ndarray):
        return block[:, :depth]
    if isinstance(block, Ragged):
        lengths = np.minimum(block.lengths, depth)
        whole = len(lengths) == 0 or int(block.lengths.max()) <= depth
        return block if whole else block.slices(np.arange(len(block)), np.zeros_like(lengths), lengths)
    return [row[:depth] for row in block] if max(map(len, block)) > depth else block


def _flat(block: Block) -> tuple[NDArray[Any], Any] | None:
    """Whole numbers one after the other, with the rows' lengths; None where ids are none, or wider than 64 bits."""
    if isinstance(block, np.ndarray):
        return (block.ravel(), np.full(len(block), block.shape[1])) if block.dtype.kind in "iu" else None
    if isinstance(block, Ragged):
        return block.values[block.offsets[0] : block.offsets[-1]], block.lengths
    kinds = set(map(type, block))
    values = _packed(block) if kinds == {list} else _concatenated(block) if kinds == {np.ndarray} else None
    return None if values is None else (values, list(map(len, block)))


def _concatenated(rows: list[NDArray[Any]]) -> NDArray[Any] | None:
    filled = [row for row in rows if len(row)]  # an empty row is of float64, if nobody took care
    kinds = {row.dtype for row in filled}
    if len(kinds) > 1 or any(kind.kind not in "iu" for kind in kinds):
        return None
    return np.concatenate(filled) if filled else np.zeros(0, dtype=np.int64)


def _packed(rows: list[list[Any]]) -> NDArray[np.int64] | None:
    """As ``np.fromiter`` but twice as fast, and it casts nothing; None where an id is no whole number, or wider."""
    try:
        return np.frombuffer(b"".join([_packer(len(row))(*row) for row in rows]), dtype=np.int64)
    except (struct.error, TypeError):
        return None


@lru_cache(maxsize=4096)
def _packer(length: int) -> Callable[..., bytes]:
    return struct.Struct(f"{length}q").pack


def _as_int64(values: NDArray[Any], unsigned: bool) -> NDArray[np.int64] | None:
    """The numbers themselves, or all of 64 unsigned bits by their bits; None where they do not fit."""
    if unsigned:
        return values.astype(np.uint64, copy=False).view(np.int64)
    if values.dtype.kind == "u" and values.size and values.max() >= 2**63:
        return None
    return values.astype(np.int64, copy=False)

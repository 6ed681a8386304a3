"""The histories of a call as a model reads them: known items, and beside them times and users, for models that use these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec.histories import Ints, Ragged, RawId, offsets_of, user_indices
from genrec_runtime.checks import TIME_LIMIT
from genrec_runtime.errors import InputError, short
from genrec_runtime.manifest import Signature
from genrec_runtime.requests import Numbered
from genrec_runtime.rows import Block, Sort, blocks, flat

TIMES = Sort("times", "iuO", "whole numbers", "pass whole seconds", code="time_type")
USERS = Sort("user ids", "iuOUT", "ints or strings", "pass ids as they were in training", code="user_type")


@dataclass(frozen=True, eq=False)
class Histories:
    """The histories of a call; what a model does not read is None.

    Attributes:
        items: the indices of each row's known items, oldest first.
        times: seconds, of these items; rows as long as those of ``items``.
        request_time: int64 (B,), seconds; the newest of ``times`` where the caller names none.
        users: int64 (B,), tokens of users, 0 where nobody is known.
    """

    items: Ragged
    times: Ragged | None = None
    request_time: Ints | None = None
    users: Ints | None = None


def read_histories(numbered: Numbered, signature: Signature, given: Mapping[str, Any]) -> Histories:
    """What a model reads of a call.

    Args:
        numbered: the call's histories.
        signature: of a graph that takes histories.
        given: ``timestamps``, ``request_time`` and ``users`` as the caller passed them, None where not.

    Raises:
        InputError: if one that the model reads is needed and absent, or is not usable.
    """
    read = [spec.name for spec in signature.inputs]
    times = request_time = users = None
    if "timestamps" in read:
        times = numbered.keep(read_times(given["timestamps"], numbered.given))
        if "request_time" in read:
            request_time = read_request_time(given["request_time"], times)
    if "users" in read:
        users = read_users(given["users"], len(numbered.given), signature.inputs[read.index("users")].high or 0)
    return Histories(numbered.known, times, request_time, users)


def read_times(rows: Any, given: Ints) -> Ragged:
    """The times of all given ids, unknown ones too.

    Args:
        rows: per history whole seconds, each not before the one before it; or a 2-D array.
        given: int64 (B,), how many ids each history has.

    Raises:
        InputError: if there are none, other numbers of them, or what is no time; if a row's times fall.
    """
    if rows is None:
        message = (
            "this model reads when events were: pass timestamps, per history the times of its items in whole seconds"
        )
        raise InputError(message, code="no_timestamps", field="timestamps")
    parts, lengths = [np.zeros(0, np.int64)], []
    for block in blocks(rows, "timestamps", TIMES):
        parts.append(_seconds(block, "timestamps"))
        lengths += block.lengths
    _check_count(len(lengths), len(given), "timestamps")
    counts = np.array(lengths, dtype=np.int64)
    if not np.array_equal(counts, given):
        row = int(np.argmax(counts != given))
        message = f"timestamps[{row}] has {counts[row]} times for the {given[row]} ids of histories[{row}]"
        raise InputError(message, code="time_count", row=row, field="timestamps", value=counts[row])
    times = Ragged(parts[1] if len(parts) == 2 else np.concatenate(parts), offsets_of(counts))
    _check_order(times)
    return times


def read_request_time(moments: Any, times: Ragged) -> Ints:
    """When the answers are wanted, int64 (B,): what is given, or the newest of a row's times, 0 where it has none.

    Args:
        moments: a whole number of seconds or None for each row; None for none.
        times: of the known items.

    Raises:
        InputError: if there are not as many as rows, or one is no time.
    """
    newest = np.zeros(len(times), np.int64)
    timed = times.lengths > 0
    newest[timed] = times.values[times.offsets[1:][timed] - 1]
    if moments is None:
        return newest
    block = flat(moments, "request_time", TIMES)
    _check_count(len(block.values), len(times), "request_time")
    if isinstance(block.values, np.ndarray) and block.values.dtype.kind != "O":
        return _seconds(block, "request_time")
    absent = np.array([moment is None for moment in block.values], dtype=np.bool_)
    filled = [0 if moment is None else moment for moment in block.values]
    return np.where(absent, newest, _seconds(Block(None, filled, block.lengths), "request_time"))


def read_users(users: Any, rows: int, num_users: int) -> Ints:
    """The tokens of users, int64 (B,).

    Args:
        users: a raw id or None for each row; None for nobody.
        rows: B.
        num_users: how many tokens the model has.

    Raises:
        InputError: if there are not as many as rows, or one is no id.
    """
    if users is None:
        return np.zeros(rows, np.int64)
    values = flat(users, "users", USERS).values
    _check_count(len(values), rows, "users")
    listed = values.tolist() if isinstance(values, np.ndarray) else values
    if not set(map(type, listed)) <= {int, str, type(None)}:
        listed = [_user(user, row) for row, user in enumerate(listed)]
    try:
        return user_indices(listed, num_users)
    except ValueError:  # half a surrogate pair, or an int that Python does not write
        row = next(row for row, user in enumerate(listed) if not _is_text(user))
        message = f"users[{row}] is {short(listed[row])}, which has no text in UTF-8; {USERS.hint}"
        raise InputError(message, code="user_type", row=row, field="users", value=listed[row]) from None


def _seconds(block: Block, field: str) -> Ints:
    """The values of a block as whole seconds."""
    values = block.values
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        near = not values.size or (int(values.min()) >= -TIME_LIMIT and int(values.max()) <= TIME_LIMIT)
        seconds = values.astype(np.int64, copy=False)
    else:
        listed = values.tolist() if isinstance(values, np.ndarray) else values
        if not set(map(type, listed)) <= {int}:
            listed = [_whole(value, block, place, field) for place, value in enumerate(listed)]
        try:
            seconds = np.array(listed, dtype=np.int64)
            near = not seconds.size or (int(seconds.min()) >= -TIME_LIMIT and int(seconds.max()) <= TIME_LIMIT)
        except OverflowError:
            near = False
    if not near:
        raise _too_far(block, field)
    return seconds


def _whole(value: Any, block: Block, place: int, field: str) -> int:
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    row, name = _place(block, place, field)
    message = f"{name} is {short(value)} ({type(value).__name__}); a time must be a whole number: {TIMES.hint}"
    raise InputError(message, code="time_type", row=row, field=field, value=value)


def _user(value: Any, row: int) -> RawId | None:
    if value is None or (isinstance(value, (int, np.integer)) and not isinstance(value, bool)):
        return value if value is None else int(value)
    if isinstance(value, str):
        return str.__str__(value)  # a text enum's own str() is not its text
    fault = (
        f"is {short(value)} ({type(value).__name__}); a user's id must be an int or a string, or None for nobody known"
    )
    raise InputError(f"users[{row}] {fault}", code="user_type", row=row, field="users", value=value)


def _is_text(user: RawId | None) -> bool:
    try:
        str(user).encode()
    except ValueError:
        return False
    return True


def _too_far(block: Block, field: str) -> InputError:
    place = next(place for place, value in enumerate(block.values) if not -TIME_LIMIT <= int(value) <= TIME_LIMIT)
    row, name = _place(block, place, field)
    value = block.entry(place)[2]
    message = f"{name} is {short(value)}, beyond {TIME_LIMIT:,} seconds; pass seconds, not milliseconds"
    return InputError(message, code="time_range", row=row, field=field, value=value)


def _place(block: Block, place: int, field: str) -> tuple[int, str]:
    """The number of a value's row, and what errors call the value."""
    row, inside, _ = block.entry(place)
    return (inside, f"{field}[{inside}]") if row is None else (row, f"{field}[{row}][{inside}]")


def _check_count(found: int, rows: int, field: str) -> None:
    if found != rows:
        message = f"{field} has {found} rows for {rows} histories"
        raise InputError(message, code="row_count", field=field, value=found)


def _check_order(times: Ragged) -> None:
    """Within a row no time may lie before the one before it."""
    falls: NDArray[np.bool_] = times.values[1:] < times.values[:-1]
    begins = times.offsets[1:-1]
    falls[begins[(begins > 0) & (begins < len(times.values))] - 1] = False  # from one row to the next
    if not falls.any():
        return
    place = int(np.argmax(falls)) + 1
    row = int(np.searchsorted(times.offsets, place, side="right")) - 1
    inside, (before, value) = place - int(times.offsets[row]), times.values[place - 1 : place + 1].tolist()
    message = (
        f"timestamps[{row}][{inside}] is {value}, before the {before} of the item before it; pass the oldest first"
    )
    raise InputError(message, code="time_order", row=row, field="timestamps", value=value)

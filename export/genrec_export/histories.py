"""What an export asks about: histories with the times of their events and their users, raw and as numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from genrec.histories import Ints, ItemIds, Ragged, RawId, Side, user_indices
from genrec_export.report import Arrays
from genrec_runtime.batches import take
from genrec_runtime.checks import FURTHER, TIME_LIMIT
from genrec_runtime.histories import read_times, read_users
from genrec_runtime.manifest import TensorSpec

GAPS = (0, 0, 1, 2, 90, 3600, 86_400, 30 * 86_400, 3 * 365 * 86_400)  # seconds between made-up events

T = TypeVar("T")


@dataclass(frozen=True)
class Reads:
    """What a model reads beside the items of histories.

    Attributes:
        names: of "timestamps", "request_time" and "users", in this order.
        num_users: users' tokens are 1..num_users, and 0 for nobody known; 0 where no users are read.
    """

    names: tuple[str, ...] = ()
    num_users: int = 0

    def named(self, values: Sequence[T]) -> dict[str, T]:
        """Values of these, by name."""
        return dict(zip(self.names, values, strict=True))

    def specs(self, length: str | int) -> tuple[TensorSpec, ...]:
        """The inputs of a graph that they are, for histories whose axis is ``length``."""
        seconds = (-TIME_LIMIT, TIME_LIMIT)
        offered = (
            TensorSpec("timestamps", "int64", ("batch", length), *seconds),
            TensorSpec("request_time", "int64", ("batch",), *seconds),
            TensorSpec("users", "int64", ("batch",), 0, self.num_users),
        )
        return tuple(spec for spec in offered if spec.name in self.names)

    @classmethod
    def of(cls, specs: Iterable[TensorSpec]) -> Reads:
        """What a graph with these inputs reads."""
        found = {spec.name: spec for spec in specs if spec.name in FURTHER}
        users = found.get("users")
        return cls(tuple(found), 0 if users is None else users.high or 0)

    def imagine(self, items: Ragged, random: np.random.Generator) -> Requests:
        """Histories that nobody had, with made-up times and users.

        Times never fall, some are equal, gaps reach from none to years; some answers are wanted at once, others later; some
        users are nobody known.
        """
        times = wanted = users = None
        if "timestamps" in self.names:
            times = _rising(items, random)
        if times is not None and "request_time" in self.names:
            wanted = _newest(times) + random.choice(GAPS, len(items))
        if "users" in self.names:
            users = random.integers(0, self.num_users, len(items), endpoint=True) * (np.arange(len(items)) % 3 > 0)
        return Requests(items, times, wanted, users)


NOTHING = Reads()


@dataclass(frozen=True, eq=False)
class Requests:
    """Histories as item indices, and beside them what a model reads; the rest is None.

    Attributes:
        items: oldest first.
        timestamps: seconds, one for each of the items.
        request_time: int64 (B,), seconds: when each answer is wanted.
        users: int64 (B,), tokens.
    """

    items: Ragged
    timestamps: Ragged | None = None
    request_time: Ints | None = None
    users: Ints | None = None

    def __len__(self) -> int:
        return len(self.items)

    def take(self, rows: Ints) -> Requests:
        """The chosen rows, whole."""
        return Requests(
            take(self.items, rows),
            None if self.timestamps is None else take(self.timestamps, rows),
            None if self.request_time is None else self.request_time[rows],
            None if self.users is None else self.users[rows],
        )

    def inputs(self, length: int, side: Side) -> Arrays:
        """The newest ``length`` events as a graph takes them, in the order of its inputs."""
        found = {
            "item_ids": self.items.pad(length, side),
            "timestamps": None if self.timestamps is None else self.timestamps.pad(length, side),
            "request_time": self.request_time,
            "users": self.users,
        }
        return {name: values for name, values in found.items() if values is not None}


@dataclass(frozen=True)
class History:
    """One raw history.

    Attributes:
        items: raw ids, oldest first.
        times: seconds, one for each of the items; empty where none are known.
        user: raw id, None for nobody known.
        request_time: seconds: when the answer is wanted.
        implied: whether that is what is meant where nobody says when, the time of the newest item that the catalogue has.
    """

    items: list[RawId]
    times: list[int]
    user: RawId | None = None
    request_time: int = 0
    implied: bool = True

    def line(self, reads: Reads) -> str:
        """The line of JSON that asks the runtime about it: a list of ids, or an object where more is read."""
        if not reads.names:
            return json.dumps(self.items)
        said: dict[str, Any] = {"history": self.items}
        if "timestamps" in reads.names:
            said["timestamps"] = self.times
        if "request_time" in reads.names and not self.implied:
            said["request_time"] = self.request_time
        if "users" in reads.names and self.user is not None:
            said["user"] = self.user
        return json.dumps(said)

    def known(self, items: ItemIds) -> History:
        """The history without the ids that the catalogue lacks, and without their times."""
        kept = items.index(self.items) > 0
        times = [time for time, keep in zip(self.times, kept, strict=True) if keep] if self.times else []
        return History([item for item, keep in zip(self.items, kept, strict=True) if keep], times, self.user)


def raw_histories(
    histories: Sequence[Sequence[RawId]],
    timestamps: Sequence[Sequence[int]] | None,
    users: Sequence[RawId | None] | None,
) -> list[History]:
    """Histories with their times and users; arguments as those of ``export_recommender``.

    Raises:
        ValueError: if rows or times are too many or too few, a time is no whole number of seconds, falls or lies too far, or a
            user's id is neither an int nor a string.
    """
    rows = [[_plain(item) for item in history] for history in histories]
    lengths = np.array(list(map(len, rows)), np.int64)
    times = [[]] * len(rows) if timestamps is None else [row.tolist() for row in read_times(timestamps, lengths).rows()]
    if users is not None:
        read_users(users, len(rows), 1)
    known = [None] * len(rows) if users is None else [_plain(user) for user in users]
    return [History(*row) for row in zip(rows, times, known, strict=True)]


def numbered(items: ItemIds, histories: Sequence[History], reads: Reads) -> Requests:
    """Raw histories as the model sees them: known items, their times, users' tokens."""
    known = [history.known(items) for history in histories]
    rows = Ragged.from_rows([items.index(history.items) for history in known])
    times = wanted = users = None
    if "timestamps" in reads.names:
        times = Ragged.from_rows([history.times for history in known])
    if "request_time" in reads.names:
        wanted = np.array([history.request_time for history in histories], np.int64)
    if "users" in reads.names:
        users = user_indices([history.user for history in histories], reads.num_users)
    return Requests(rows, times, wanted, users)


def keywords(reads: Reads, histories: Sequence[History]) -> dict[str, list[Any]]:
    """What ``reference`` is told of some histories beside their items."""
    offered: dict[str, list[Any]] = {
        "timestamps": [history.times for history in histories],
        "request_time": [history.request_time for history in histories],
        "users": [history.user for history in histories],
    }
    return {name: offered[name] for name in reads.names}


def _rising(items: Ragged, random: np.random.Generator) -> Ragged:
    """Times for rows of items."""
    since = np.concatenate([[0], np.cumsum(random.choice(GAPS, len(items.values)))])  # the first event of all
    begins = random.integers(-(10**9), 2 * 10**9, len(items)) - since[items.offsets[:-1]]
    return Ragged(np.minimum(np.repeat(begins, items.lengths) + since[:-1], TIME_LIMIT // 2), items.offsets)


def _newest(times: Ragged) -> Ints:
    """int64 (B,): the last time of each row, 0 where a row has none."""
    last = np.concatenate([times.values, [0]])[times.offsets[1:] - 1]
    newest: Ints = np.where(times.lengths > 0, last, 0)
    return newest


def _plain(value: Any) -> Any:
    """An entry of an array as Python's own, as JSON and references know it."""
    return value.item() if isinstance(value, np.generic) else value

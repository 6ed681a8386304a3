"""Which events train, and which are predicted: leave-one-out and global temporal splits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

from genrec.data.arrays import array_table
from genrec.data.columns import MICROSECONDS, as_times
from genrec.data.errors import DataError
from genrec.data.sequences import SequenceData
from genrec.histories import Catalogue, Ints, Ragged

Moment = int | str | date  # a datetime is a date; without a zone it is UTC
MIN_EVENTS = 3  # leave-one-out: one event to learn from, one to validate, one to test
HISTORY = "all of the user's events before the target, oldest first, events of one time in the order of the file"
TARGETS = {
    "leave_one_out": "test: the user's last event; validation: the one before it; users with fewer than 3 events "
    "only train",
    "temporal": "test: the user's first event at or after test_from; validation: the first one from valid_from up to "
    "test_from; users without an earlier event are left out",
}


@dataclass(frozen=True, eq=False)
class Cases:
    """Predictions to make: from ``events[:end]`` of a user, predict ``events[end]``.

    Args:
        users: int64 (n,), rows of the data's events, rising.
        ends: int64 (n,), at least 1.
    """

    users: Ints
    ends: Ints

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True, eq=False)
class Split:
    """One way to part the data in what is learnt from and what is predicted.

    Args:
        data: the data.
        train_ends: int64 (U,); training sees ``events[:train_end]`` of each user.
        valid: the validation cases.
        test: the test cases; their histories include the events of validation.
        name: ``"leave_one_out"`` or ``"temporal"``.
        cutoffs: ``(valid_from, test_from)`` in seconds for a temporal split.
    """

    data: SequenceData
    train_ends: Ints
    valid: Cases
    test: Cases
    name: str
    cutoffs: tuple[int, int] | None = None

    def histories(self, cases: Cases) -> Ragged:
        """The cases' whole histories, n rows of item numbers, oldest first."""
        return self.data.events.slices(cases.users, np.zeros_like(cases.ends), cases.ends)

    def history_times(self, cases: Cases) -> Ragged | None:
        """The seconds of each event of ``histories``; None where times are unknown."""
        times = self.data.event_times
        return None if times is None else times.slices(cases.users, np.zeros_like(cases.ends), cases.ends)

    def targets(self, cases: Cases) -> Ints:
        """int64 (n,): the item number that each case asks for."""
        targets: Ints = self.data.events.values[self.data.events.offsets[cases.users] + cases.ends]
        return targets

    def train_histories(self) -> Ragged:
        """What training sees: U rows, a row may be empty."""
        return self._heads(self.data.events)

    def train_times(self) -> Ragged | None:
        """The seconds of each event of ``train_histories``; None where times are unknown."""
        times = self.data.event_times
        return None if times is None else self._heads(times)

    def test_starts(self) -> Ints:
        """int64 (U,): how many events of each user come before the window of the test."""
        starts = self.data.events.lengths.copy()
        if self.cutoffs is not None:
            return _counts_before(self.data, self.cutoffs[1])
        starts[self.test.users] = self.test.ends
        return starts

    def popularity(self) -> Ints:
        """int64 (V + 1,): how often each item number occurs in training; entry 0 is 0."""
        counts: Ints = np.bincount(self.train_histories().values, minlength=len(self.data.items) + 1).astype(np.int64)
        return counts

    def catalogue(self) -> Catalogue:
        """What serving keeps of the items; for users without a history by training popularity, ties by number."""
        order = np.argsort(-self.popularity()[1:], kind="stable") + 1
        return Catalogue(self.data.items, order.astype(np.int64), self.data.titles)

    def _heads(self, rows: Ragged) -> Ragged:
        users = np.arange(len(self.train_ends))
        return rows.slices(users, np.zeros_like(self.train_ends), self.train_ends)

    def protocol(self) -> dict[str, Any]:
        """What a score measured on this split means, as JSON values."""
        return {
            "split": self.name,
            "cutoffs": self.cutoffs and dict(zip(("valid_from", "test_from"), self.cutoffs, strict=True)),
            "history": HISTORY,
            "target": TARGETS[self.name],
            "ranking": "all items of the catalogue but those of the history; equal scores: the lower item number first",
            "source": self.data.source,
            "filters": self.data.filters,
            "content_hash": self.data.content_hash,
            "counts": {
                "users": len(self.data.user_ids),
                "items": len(self.data.items),
                "events": len(self.data.events.values),
                "train_events": int(self.train_ends.sum()),
                "valid_cases": len(self.valid),
                "test_cases": len(self.test),
            },
        }


def leave_one_out(data: SequenceData) -> Split:
    """Each user's last event is the test, the one before it the validation, the rest trains.

    Users with fewer than three events only train.

    Raises:
        DataError: if no user has three events.
    """
    lengths = data.events.lengths
    users = np.flatnonzero(lengths >= MIN_EVENTS)
    if not len(users):
        raise DataError(f"{data.source}: no user has {MIN_EVENTS} events, so there is nothing to test on")
    ends = lengths[users]
    train_ends = lengths.copy()
    train_ends[users] -= 2
    return Split(data, train_ends, Cases(users, ends - 2), Cases(users, ends - 1), "leave_one_out")


def temporal_split(data: SequenceData, valid_from: Moment, test_from: Moment) -> Split:
    """Trains on what happened before one moment, validates up to a second one and tests after it, for all users alike.

    A user's case is the first event of a window, and its history everything before it; users without a history
    have no case.

    Args:
        data: the data; its times must be those of one clock.
        valid_from: where validation begins, in seconds since 1970, as an ISO date or datetime, or a datetime.
        test_from: where the test begins.

    Raises:
        DataError: if times are unknown, a moment cannot be read, they do not rise, or training, validation or test
            would be empty.
    """
    moments = array_table({"valid_from": [valid_from], "test_from": [test_from]}, "temporal split")
    first, second = (int(as_times(moments, name)[0]) // MICROSECONDS for name in ("valid_from", "test_from"))
    if first >= second:
        raise DataError(f"temporal split: valid_from ({valid_from}) must be before test_from ({test_from})")
    train_ends, test_starts = _counts_before(data, first), _counts_before(data, second)
    lengths = data.events.lengths
    valid = np.flatnonzero((train_ends > 0) & (train_ends < test_starts))
    test = np.flatnonzero((test_starts > 0) & (test_starts < lengths))
    for name, size in (("training", train_ends.sum()), ("validation", len(valid)), ("test", len(test))):
        if not size:
            raise DataError(
                f"{data.source}: nothing to use for {name} with valid_from={valid_from} and test_from={test_from}; "
                f"the events lie between {_span(data)}"
            )
    cases = Cases(valid, train_ends[valid]), Cases(test, test_starts[test])
    return Split(data, train_ends, *cases, "temporal", (first, second))


def _counts_before(data: SequenceData, second: int) -> Ints:
    """int64 (U,): how many of each user's events are earlier than a moment."""
    if data.times is None:
        raise DataError(f"{data.source}: the events have no times, so they cannot be split by time")
    before = np.concatenate([[0], np.cumsum(data.times < second)])
    counts: Ints = before[data.events.offsets[1:]] - before[data.events.offsets[:-1]]
    return counts


def _span(data: SequenceData) -> str:
    assert data.times is not None
    ends = np.array([data.times.min(), data.times.max()], dtype="datetime64[s]")
    return f"{ends[0]} and {ends[1]} UTC"

"""Splits, worked out by hand."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from genrec.data import Cases, DataError, Interactions, SequenceData, Split, leave_one_out, temporal_split, write_split

# user 1: four events, 2: three, 3: two, 4: one; the time runs in days
EVENTS = [
    *[(1, "a", 1), (1, "b", 2), (1, "c", 5), (1, "d", 8)],
    *[(2, "b", 2), (2, "c", 6), (2, "a", 9)],
    *[(3, "c", 3), (3, "b", 4)],
    *[(4, "d", 7)],
]
DAY = 86_400


def data_of(events: list[tuple[Any, ...]] = EVENTS, *, timed: bool = True) -> SequenceData:
    users, items, days = zip(*events, strict=True)
    times = [day * DAY for day in days] if timed else None
    return SequenceData.from_interactions(Interactions.from_arrays(users, items, times), {"a": "Apple"})


def cases_of(split: Split, cases: Cases) -> dict[int, tuple[str, str]]:
    """User to (history, target), each item a letter."""
    items = split.data.items
    told = zip(cases.users, split.histories(cases).rows(), split.targets(cases), strict=True)
    return {
        int(split.data.user_ids[user]): ("".join(map(str, items.raw(history))), str(items.raw([target])[0]))
        for user, history, target in told
    }


def training(split: Split) -> list[str]:
    return ["".join(map(str, split.data.items.raw(row))) for row in split.train_histories().rows()]


def test_leave_one_out() -> None:
    split = leave_one_out(data_of())
    assert training(split) == ["ab", "b", "cb", "d"]
    assert cases_of(split, split.valid) == {1: ("ab", "c"), 2: ("b", "c")}
    assert cases_of(split, split.test) == {1: ("abc", "d"), 2: ("bc", "a")}
    assert split.popularity().tolist() == [0, 1, 3, 1, 1]
    catalogue = split.catalogue()
    assert catalogue.cold_start.tolist() == [2, 1, 3, 4]
    assert catalogue.titles == ("Apple", "b", "c", "d")


def test_temporal_split() -> None:
    split = temporal_split(data_of(), 5 * DAY, 7 * DAY)
    assert training(split) == ["ab", "b", "cb", ""]
    assert cases_of(split, split.valid) == {1: ("ab", "c"), 2: ("b", "c")}
    assert cases_of(split, split.test) == {1: ("abc", "d"), 2: ("bc", "a")}  # user 4 has no history


def test_a_temporal_window_tests_its_first_event_only() -> None:
    split = temporal_split(data_of(), 2 * DAY, 4 * DAY)
    assert training(split) == ["a", "", "", ""]
    assert cases_of(split, split.valid) == {1: ("a", "b")}
    assert cases_of(split, split.test) == {1: ("ab", "c"), 2: ("b", "c"), 3: ("c", "b")}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("1970-01-06", "1970-01-08T00:00:00Z"),
        (date(1970, 1, 6), datetime(1970, 1, 8)),
        (5 * DAY, datetime(1970, 1, 8, tzinfo=UTC)),
    ],
)
def test_moments_may_be_dates(first: Any, second: Any) -> None:
    assert temporal_split(data_of(), first, second).cutoffs == (5 * DAY, 7 * DAY)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (5, 5, r"valid_from \(5\) must be before test_from \(5\)"),
        ("soon", 5, r"column 'valid_from': 'soon' is no time"),
        (0, 5, "nothing to use for training .*between 1970-01-02T00:00:00 and 1970-01-10T00:00:00 UTC"),
        (6 * DAY + 1, 7 * DAY, "nothing to use for validation"),
        (5 * DAY, 10 * DAY, "nothing to use for test"),
    ],
)
def test_faulty_moments_are_refused(first: Any, second: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        temporal_split(data_of(), first, second)


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(DataError, match="arrays: no user has 3 events"):
        leave_one_out(data_of(EVENTS[5:]))
    with pytest.raises(DataError, match="the events have no times"):
        temporal_split(data_of(timed=False), 1, 2)


def test_the_protocol_tells_what_a_score_means() -> None:
    protocol = temporal_split(data_of(), 5 * DAY, 7 * DAY).protocol()
    assert json.loads(json.dumps(protocol)) == protocol
    assert protocol["cutoffs"] == {"valid_from": 5 * DAY, "test_from": 7 * DAY}
    assert protocol["filters"] == {"events_read": 10}
    assert protocol["counts"] == {
        "users": 4,
        "items": 4,
        "events": 10,
        "train_events": 5,
        "valid_cases": 2,
        "test_cases": 2,
    }
    assert leave_one_out(data_of()).protocol()["cutoffs"] is None


@pytest.mark.parametrize("timed", [True, False], ids=["with times", "without times"])
def test_a_written_split_can_be_read_back(tmp_path: Path, timed: bool) -> None:
    split = leave_one_out(data_of(timed=timed))
    write_split(split, tmp_path / "new" / "split")
    parts = [pl.read_parquet(tmp_path / "new" / "split" / f"{name}.parquet") for name in ("train", "valid", "test")]
    columns = ["user", "item", "time"] if timed else ["user", "item"]
    assert [part.columns for part in parts] == [columns, [*columns, "target"], [*columns, "target"]]
    assert parts[0].select("user", "item").rows() == [(1, "a"), (1, "b"), (2, "b"), (3, "c"), (3, "b"), (4, "d")]
    assert parts[1].select("user", "item", "target").rows() == [(1, "c", True), (2, "c", True)]
    assert parts[2].select("user", "item", "target").rows() == [(1, "d", True), (2, "a", True)]
    if timed:
        assert parts[2]["time"].to_list() == [8 * DAY, 9 * DAY]
    protocol = json.loads((tmp_path / "new" / "split" / "protocol.json").read_text())
    assert protocol["content_hash"] == split.data.content_hash
    assert protocol["rows"] == {"train.parquet": 6, "valid.parquet": 2, "test.parquet": 2}
    assert "before the target" in protocol["history"]
    assert "the user's last event" in protocol["target"]


def test_a_written_temporal_split_keeps_every_event_in_its_window(tmp_path: Path) -> None:
    split = temporal_split(data_of(), 2 * DAY, 6 * DAY)
    write_split(split, tmp_path)
    valid, test = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("valid", "test"))
    assert pl.read_parquet(tmp_path / "train.parquet")["item"].to_list() == ["a"]
    assert valid.drop("time").rows() == [
        *[(1, "b", True), (1, "c", False), (2, "b", False)],  # user 2 has no history before day 2
        *[(3, "c", False), (3, "b", False)],
    ]
    assert test.drop("time").rows() == [(1, "d", True), (2, "c", True), (2, "a", False), (4, "d", False)]


def test_string_users_are_written_as_they_were(tmp_path: Path) -> None:
    events = [(f"u{user}", int(item, 16), day) for user, item, day in EVENTS]
    users, items, days = zip(*events, strict=True)
    write_split(leave_one_out(SequenceData.from_interactions(Interactions.from_arrays(users, items, days))), tmp_path)
    assert pl.read_parquet(tmp_path / "test.parquet").rows() == [("u1", 13, 8, True), ("u2", 10, 9, True)]

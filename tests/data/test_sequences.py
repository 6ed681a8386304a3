"""Grouping by user: order, numbering, and the hash over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.data import DataError, Interactions, SequenceData, load_data
from genrec.histories import ItemIds, Ragged


def grouped(users: Any, items: Any, times: Any = None) -> SequenceData:
    return SequenceData.from_interactions(Interactions.from_arrays(users, items, times))


def rows(data: SequenceData) -> dict[Any, list[Any]]:
    return {user: data.items.raw(row) for user, row in zip(data.user_ids.tolist(), data.events.rows(), strict=True)}


def test_users_and_items_are_sorted_and_events_go_by_time() -> None:
    data = grouped([20, 3, 20, 3, 20], ["b", "Z", "é", "b", "a"], [9, 1, 5, 0, 7])
    assert data.user_ids.tolist() == [3, 20]
    assert data.items.all() == ["Z", "a", "b", "é"]  # by code point
    assert rows(data) == {3: ["b", "Z"], 20: ["é", "a", "b"]}
    assert data.times is not None
    assert data.times.tolist() == [0, 1, 5, 7, 9]


def test_string_users_are_kept_as_they_are() -> None:
    data = grouped(["u10", "u9", "U1", "u9"], [4, 5, 4, 4], [0, 1, 2, 3])
    assert data.user_ids.tolist() == ["U1", "u10", "u9"]
    assert rows(data) == {"U1": [4], "u10": [4], "u9": [5, 4]}


def test_without_times_the_order_is_that_of_the_rows() -> None:
    data = grouped([2, 1, 2, 1, 2], [30, 10, 20, 30, 10])
    assert rows(data) == {1: [10, 30], 2: [30, 20, 10]}
    assert data.times is None


def test_events_within_a_second_keep_their_order() -> None:
    data = grouped([1, 1, 2], [8, 9, 8], [5.75, 5.25, 1.0])
    assert rows(data)[1] == [9, 8]
    assert data.times is not None
    assert data.times.tolist() == [5, 5, 1]


@pytest.mark.parametrize("name", ["e.csv", "e.parquet"])
def test_ties_keep_the_order_of_the_file(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(3)
    size = 5000  # large enough for polars to sort in parallel
    frame = pl.DataFrame(
        {"user": rng.integers(0, 40, size), "item": np.arange(size) * 7 % size, "time": rng.integers(0, 4, size)}
    )
    if name.endswith(".csv"):
        frame.write_csv(tmp_path / name)
    else:
        frame.write_parquet(tmp_path / name)
    expected: dict[Any, list[Any]] = {}
    for user, item, _ in sorted(frame.rows(), key=lambda row: row[2]):  # Python's sort is stable
        expected.setdefault(user, []).append(item)
    assert rows(load_data(tmp_path / name)) == expected


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcé"), st.integers(-9, 9), st.integers(0, 3)), min_size=2, max_size=40).filter(
        lambda events: len({user for user, *_ in events}) > 1 and len({item for _, item, _ in events}) > 1
    )
)
def test_grouping_agrees_with_a_dictionary(events: list[tuple[str, int, int]]) -> None:
    users, items, times = zip(*events, strict=True)
    expected: dict[Any, list[Any]] = {}
    for user, item, _ in sorted(events, key=lambda event: event[2]):
        expected.setdefault(user, []).append(item)
    assert rows(grouped(users, items, times)) == expected


@pytest.mark.parametrize(
    ("users", "items", "message"),
    [
        (
            [5, 5],
            [1, 2],
            r"arrays: all events have the same user, 5; .*at least two users \(is user_col the right column\?\)",
        ),
        ([5, 6], ["a", "a"], r"all events have the same item, 'a'"),
    ],
)
def test_one_user_or_one_item_is_refused(users: Any, items: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        grouped(users, items)


def test_parts_that_do_not_fit_are_refused() -> None:
    items, users, events = ItemIds([1, 2]), np.array([1, 2]), Ragged.from_rows([[1], [2, 1]])
    for arguments, message in (
        ((items, users[:1], events), "there are 1 user_ids for 2 rows of events"),
        ((items, users, Ragged.from_rows([[1], [3]])), r"events must lie in 1\.\.2, got 1 to 3"),
        ((items, users, events, np.zeros(2, np.int64)), "there are 2 times for 3 events"),
        ((items, users, events, None, ("one",)), "there are 1 titles for 2 items"),
    ):
        with pytest.raises(ValueError, match=message):
            SequenceData(*arguments)  # type: ignore[arg-type]  # wrong on purpose


USERS, ITEMS, TIMES = [1, 1, 2, 2], ["a", "b", "b", "ab"], [1, 2, 3, 4]


def test_the_hash_is_of_the_content() -> None:
    one = grouped(USERS, ITEMS, TIMES)
    shuffled = grouped(USERS[::-1], ITEMS[::-1], TIMES[::-1])
    assert one.content_hash == shuffled.content_hash
    assert len(one.content_hash) == 64
    titled = SequenceData(one.items, one.user_ids, one.events, one.times, ("x", "y", "z"), "elsewhere", {"k_core": 1})
    assert titled.content_hash == one.content_hash


@pytest.mark.parametrize(
    ("users", "items", "times"),
    [
        ([1, 1, 3, 3], ITEMS, TIMES),
        (["1", "1", "2", "2"], ITEMS, TIMES),
        (USERS, ["a", "b", "b", "ac"], TIMES),
        (USERS, ["a", "b", "b", "aa"], TIMES),
        (USERS, ["b", "a", "b", "ab"], TIMES),
        (USERS, ITEMS, [1, 2, 3, 5]),
        (USERS, ITEMS, None),
        ([1, 2, 2, 2], ITEMS, TIMES),
        (USERS, [1, 3, 3, 2], TIMES),
    ],
    ids=["user", "users' type", "item", "item's order", "order", "time", "no times", "whose", "items' type"],
)
def test_any_change_shows_in_the_hash(users: Any, items: Any, times: Any) -> None:
    assert grouped(users, items, times).content_hash != grouped(USERS, ITEMS, TIMES).content_hash

"""Filters: repeats and k-core."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.data import DataError, Interactions

Events = list[tuple[int, int]]


def events_of(interactions: Interactions) -> Events:
    return [(user, item) for user, item, *_ in interactions.frame.rows()]


def test_dedup_keeps_the_earliest_of_each_user_and_item() -> None:
    users, items, times = [1, 1, 2, 1, 1], ["a", "b", "a", "a", "b"], [5, 7, 6, 3, 9]
    events = Interactions.from_arrays(users, items, times)
    first = events.dedup("first")
    assert first.frame.rows() == [(1, "b", 7_000_000), (2, "a", 6_000_000), (1, "a", 3_000_000)]
    assert first.filters == {"events_read": 5, "dedup": "first"}
    assert events.dedup("none").frame.equals(events.frame)
    with pytest.raises(ValueError, match=r"dedup \('last'\) must be 'first' or 'none'"):
        events.dedup("last")  # type: ignore[arg-type]  # wrong on purpose


def test_dedup_of_events_without_times_keeps_the_first_row() -> None:
    events = Interactions.from_arrays([1, 1, 2, 1], [8, 9, 8, 8]).dedup()
    assert events_of(events) == [(1, 8), (1, 9), (2, 8)]


def slow_core(events: Events, n: int) -> Events:
    while True:
        users, items = Counter(user for user, _ in events), Counter(item for _, item in events)
        kept = [(user, item) for user, item in events if users[user] >= n and items[item] >= n]
        if kept == events:
            return kept
        events = kept


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(-3, 3)), min_size=1, max_size=60), st.integers(0, 5))
def test_k_core_agrees_with_a_slow_loop(events: Events, n: int) -> None:
    interactions = Interactions.from_arrays(*zip(*events, strict=True))
    expected = slow_core(events, n)
    if expected:
        assert events_of(interactions.k_core(n)) == expected
        return
    lower = next(m for m in range(n - 1, 0, -1) if slow_core(events, m))
    with pytest.raises(DataError, match=f"the highest that leaves any is k_core={lower}$"):
        interactions.k_core(n)


def test_an_empty_k_core_tells_how_much_there_was() -> None:
    events = Interactions.from_arrays([1, 1, 2, 2, 3], [7, 8, 7, 8, 9])
    assert events.k_core(2).filters == {"events_read": 5, "k_core": 2}
    message = r"arrays: k_core=50 leaves none of 5 events \(3 users, 3 items\); the highest that leaves any is k_core=2"
    with pytest.raises(DataError, match=message):
        events.k_core(50)
    with pytest.raises(ValueError, match=r"k_core \(-1\) must not be negative"):
        events.k_core(-1)

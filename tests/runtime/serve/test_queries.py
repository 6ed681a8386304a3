"""Requests of many kinds answered by one call, each as it would be answered alone; and those that come in between two bundles."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec_runtime import InputError, Recommender, Unsupported
from genrec_runtime.serve.queries import Answer, Query, answer, check, weight, with_text_ids
from timed import ITEMS as TIMED_ITEMS
from timed import write_timed
from tiny import ITEMS, Tiny
from versions import write_versions

ids = st.sampled_from([*ITEMS, "nobody's"])
rows = st.lists(st.lists(ids, max_size=9), min_size=0, max_size=3)


@st.composite
def queries(draw: st.DrawFn, exclude_seen: Any, has_candidates: bool) -> Query:
    histories = draw(rows)
    beside = st.lists(st.lists(ids, max_size=5), min_size=len(histories), max_size=len(histories))
    return Query(
        histories,
        k=draw(st.none() | st.integers(1, 20)),
        exclude=draw(st.none() | beside),
        candidates=draw(beside) if has_candidates else None,
        exclude_seen=exclude_seen,
        titles=draw(st.booleans()),
    )


def alone(served: Recommender, query: Query) -> Any:
    arguments = {name: getattr(query, name) for name in ("k", "exclude", "candidates", "exclude_seen", "timestamps")}
    further = {name: getattr(query, name) for name in ("users", "request_time")}
    found = served.recommend(query.histories, **arguments, **further)
    return found.items, [scores.tolist() for scores in found.scores], found.status, found.unknown_items


def seen(found: Any) -> Any:
    assert isinstance(found, Answer)
    return found.items, found.scores, found.status, sum(found.unknown)


def same(found: Any, expected: Any) -> None:
    """Scores of a batch and of a row alone differ by float32's order of adding up."""
    items, scores, status, unknown = found
    assert (items, status, unknown) == (expected[0], expected[2], expected[3])
    for row, other in zip(scores, expected[1], strict=True):
        assert row == pytest.approx(other, rel=1e-5, abs=1e-5)


@given(st.data(), st.sampled_from([None, True, False]), st.booleans())
def test_queries_of_one_key_are_answered_as_each_alone(
    served: Recommender, data: st.DataObject, exclude_seen: Any, has_candidates: bool
) -> None:
    drawn = data.draw(st.lists(queries(exclude_seen, has_candidates), min_size=1, max_size=5))
    checked = [check(served, query) for query in drawn]
    assert len({one.key for one in checked}) == 1
    for query, found in zip(drawn, answer(served, checked), strict=True):
        same(seen(found), alone(served, query))
        titles = [[f"Title of {item}" for item in listed] for listed in found.items] if query.titles else None
        assert found.titles == titles


def test_times_and_users_stay_with_their_rows(tmp_path: Path) -> None:
    reader = Recommender.load(write_timed(tmp_path / "bundle"), device="cpu", threads=1)
    drawn = [
        Query([TIMED_ITEMS[:2], TIMED_ITEMS[3:6]], timestamps=[[10, 500], [1, 2, 3]], users=["ann", None], k=3),
        Query([[TIMED_ITEMS[7]]], timestamps=[[5]], request_time=[900], k=4),
        Query([["unknown", TIMED_ITEMS[1]]], timestamps=[[5, 70]], request_time=[None], users=[5]),
    ]
    checked = [check(reader, query) for query in drawn]
    assert len({one.key for one in checked}) == 1
    for query, found in zip(drawn, answer(reader, checked), strict=True):
        same(seen(found), alone(reader, query))


@pytest.mark.parametrize(
    ("query", "code"),
    [
        (Query([["item 1"]]), "no_timestamps"),
        (Query([["item 1"]], timestamps=[[1, 2]]), "time_count"),
        (Query([["item 1", "item 2"]], timestamps=[[2, 1]]), "time_order"),
        (Query([["item 1"]], timestamps=[[1.5]]), "time_type"),
        (Query([["item 1"]], timestamps=[[10**12]]), "time_range"),
        (Query([["item 1"]], timestamps=[[1]], users=[1.5]), "user_type"),
        (Query([["item 1"]], timestamps=[[1]], users=["a", "b"]), "row_count"),
    ],
)
def test_fault_100_what_recommend_would_refuse_is_refused_before_it_is_queued(
    tmp_path: Path, query: Query, code: str
) -> None:
    reader = Recommender.load(write_timed(tmp_path / "bundle"), device="cpu", threads=1)
    with pytest.raises(InputError) as caught:
        check(reader, query)
    assert caught.value.code == code
    with pytest.raises(InputError) as again:
        reader.recommend(query.histories, timestamps=query.timestamps, users=query.users)
    assert str(again.value) == str(caught.value)


def test_what_differs_between_calls_is_in_the_key_and_k_is_not(served: Recommender) -> None:
    def key(**fields: Any) -> Any:
        return check(served, Query([["item 03"]], **fields)).key

    assert key(k=3) == key(k=7) == key(exclude=[["item 01"]]) == key(titles=True)
    others = [key(), key(exclude_seen=False), key(exclude_seen=True), key(candidates=[[]]), key(on_unknown="drop")]
    assert len(set(others)) == 5


def test_a_bundle_without_score_takes_no_candidates(served: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = {"recommend": served.manifest.graphs["recommend"]}
    monkeypatch.setattr(served, "manifest", dataclasses.replace(served.manifest, graphs=graphs))
    with pytest.raises(Unsupported, match="no graph 'score'"):
        check(served, Query([[]], candidates=[[]]))


def test_after_a_swap_each_query_is_checked_by_the_bundle_that_answers(
    tiny: Tiny, numbers: Path, served: Recommender
) -> None:
    """The new bundle has ints for ids, and lists of 11 at most: of these queries it can answer the last alone."""
    other = Recommender.load(numbers, device="cpu", threads=1)
    drawn = [Query([["item 03"]], on_unknown="error"), Query([["item 03", "item 05"], []], on_unknown="error", k=2)]
    refused, also = answer(other, [check(served, query) for query in drawn])
    assert isinstance(refused, InputError)
    assert isinstance(also, InputError)
    found = answer(other, [check(served, Query([["item 03", "item 05"], []], k=15))])[0]
    assert isinstance(found, Answer)
    assert (found.version, found.k, found.unknown) == (other.manifest.version, 11, [2, 0])
    assert found.status == ["all_unknown", "cold_start"]


def test_answers_of_two_versions_name_theirs(tiny: Tiny, tmp_path: Path, reseal: Callable[..., None]) -> None:
    write_versions(tiny.path, tmp_path / "store", 2, reseal)
    one, two = (Recommender.load(path, device="cpu", threads=1) for path in sorted((tmp_path / "store").iterdir()))
    checked = check(one, Query([["item 03"]]))
    found, other = (answer(recommender, [checked])[0] for recommender in (one, two))
    assert isinstance(found, Answer)
    assert isinstance(other, Answer)
    assert (found.version, other.version) == (one.manifest.version, two.manifest.version)
    assert found.scores != other.scores


def test_long_rows_count_as_several() -> None:
    short, long = ["item 03"] * 1023, ["item 03"] * (3 * 1024 + 5)
    assert weight(Query([short, []])) == 2
    assert weight(Query([long, []])) == 2 + 3
    assert weight(Query([[], []], exclude=[long, short], candidates=[[], long])) == 2 + 3 + 3


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("12", 12), ("-7", -7), (str(2**62), 2**62), ("+3", "+3"), ("1.0", "1.0"), ("", ""), ("-", "-"), (5, 5),
     ("٣", "٣"), ("9" * 30, "9" * 30)],
)  # fmt: skip
def test_texts_are_read_as_the_integers_that_they_are(given: Any, wanted: Any) -> None:
    assert with_text_ids(Query([[given]], exclude=[[given]]), "int").histories == [[wanted]]
    assert with_text_ids(Query([[given]]), "str").histories == [[given]]

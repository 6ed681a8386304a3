"""Streams and what is told of them: rows 46 to 48 of the catalogue of faults."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from calls import ROWS, answer
from genrec_runtime import InputError, Recommendations, Recommender


def test_fault_46_a_generator_belongs_to_recommend_iter(recommender: Recommender) -> None:
    with pytest.raises(InputError, match="got generator; recommend_iter takes a stream") as caught:
        recommender.recommend(row for row in ROWS)
    assert caught.value.code == "shape"
    answers = list(recommender.recommend_iter((row for row in ROWS), k=5, batch_size=7))
    assert [len(batch) for batch in answers] == [7, 7, 7, 7, 7, 5]
    assert [items for batch in answers for items in batch.items] == recommender.recommend(ROWS, k=5).items


def test_fault_46_a_stream_is_read_no_further_than_it_is_answered(recommender: Recommender) -> None:
    read = []

    def endless() -> Iterator[list[str]]:
        while True:
            read.append(None)
            yield ["item 01"]

    stream = recommender.recommend_iter(endless(), batch_size=3)
    assert read == []
    for batches in (1, 2, 3):
        assert len(next(stream)) == 3
        assert len(read) == 3 * batches


def broken(rows: Sequence[Any], error: Exception) -> Iterator[Any]:
    yield from rows
    raise error


def collect(stream: Iterator[Recommendations], found: list[Any]) -> None:
    for batch in stream:
        found.extend(batch.items)


@pytest.mark.parametrize("count", [0, 3, 6, 7])
def test_fault_47_what_came_before_a_streams_failure_is_answered_and_its_own_error_raised(
    recommender: Recommender, count: int
) -> None:
    error, found = OSError("the disk is gone"), []
    stream = recommender.recommend_iter(broken(ROWS[:count], error), k=5, batch_size=3)
    with pytest.raises(OSError, match="the disk is gone") as caught:
        collect(stream, found)
    assert caught.value is error
    assert found == recommender.recommend(ROWS[:count], k=5).items
    assert recommender._engine._calls == 0


def test_fault_47_a_bad_row_of_a_stream_is_named_by_its_place(recommender: Recommender) -> None:
    stream = recommender.recommend_iter(iter([*ROWS[:8], [1.5]]), batch_size=3)
    assert len(next(stream)) + len(next(stream)) == 6
    with pytest.raises(InputError, match=r"histories\[2\]") as caught:
        next(stream)
    assert caught.value.__notes__ == ["rows are counted from row 6 of the stream"]
    assert answer(recommender)


def test_fault_48_what_progress_raises_comes_through_and_nothing_is_held(recommender: Recommender) -> None:
    done: list[int] = []

    def progress(rows: int) -> None:
        done.append(rows)
        if rows == 6:
            raise RuntimeError("enough")

    found: list[Any] = []
    stream = recommender.recommend_iter(iter(ROWS), k=5, batch_size=3, progress=progress)
    with pytest.raises(RuntimeError, match="enough"):
        collect(stream, found)
    assert done == [3, 6]
    assert found == recommender.recommend(ROWS[:6], k=5).items
    assert list(stream) == []
    assert recommender._engine._calls == 0
    recommender.close()

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.histories import Ragged
from genrec_runtime import batches
from genrec_runtime.batches import chunks, rows_a_run, take, union

ROWS = st.lists(st.lists(st.integers(0, 5), max_size=6), max_size=6)


@settings(deadline=None)
@given(ROWS, st.data())
def test_a_union_has_each_rows_distinct_values_in_order(rows: list[list[int]], data: st.DataObject) -> None:
    more = data.draw(st.lists(st.lists(st.integers(0, 5)), min_size=len(rows), max_size=len(rows)))
    joined = union(Ragged.from_rows(rows), Ragged.from_rows(more))
    assert [row.tolist() for row in joined.rows()] == [sorted({*a, *b}) for a, b in zip(rows, more, strict=True)]
    assert [row.tolist() for row in union(Ragged.from_rows(rows)).rows()] == [sorted(set(row)) for row in rows]


def test_rows_are_taken_whole_in_any_order() -> None:
    ragged = Ragged.from_rows([[1, 2], [], [3]])
    assert [row.tolist() for row in take(ragged, np.array([2, 0])).rows()] == [[3], [1, 2]]
    assert [row.tolist() for row in take(ragged, np.array([1, 2, 0])).rows()] == [[], [3], [1, 2]]
    assert [row.tolist() for row in take(ragged, np.arange(3)).rows()] == [[1, 2], [], [3]]
    assert len(take(ragged, np.zeros(0, np.int64))) == 0


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 7))
def test_chunks_hold_every_row_once_and_stay_within_bounds(widths: list[int], most: int) -> None:
    rows = np.arange(len(widths))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "CELLS", 12)
        parts = list(chunks(rows, np.array(widths, dtype=np.int64), most))
    assert [row for part in parts for row in part.tolist()] == rows.tolist()
    for part in parts:
        assert 1 <= len(part) <= most
        assert len(part) == 1 or len(part) * max(widths[row] for row in part) <= 12


def test_a_huge_catalogue_is_scored_for_fewer_rows_at_once() -> None:
    assert [rows_a_run(items) for items in (1, 2**17, 2**18, 10**9)] == [512, 512, 256, 1]

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from batch_folders import write
from genrec_runtime import InputError
from genrec_runtime.batch.tables import count_rows, footer_hash, lists, read_rows, values_of


@pytest.mark.parametrize("lengths", [[2, 0, 3], [0, 0, 5], [5, 0, 0], [1, 1, 3], []])
def test_a_column_of_lists_is_cut_where_its_rows_end(lengths: list[int]) -> None:
    values = list("abcde")[: sum(lengths)]
    column = lists("name", pl.Series(values, dtype=pl.String), np.array(lengths, dtype=np.int64))
    ends = np.cumsum(lengths).tolist()
    assert column.to_list() == [values[end - length : end] for end, length in zip(ends, lengths, strict=True)]
    assert (column.name, column.dtype) == ("name", pl.List(pl.String))


@pytest.mark.parametrize("group", [4, 7, 100], ids=["groups of 4", "groups of 7", "one group"])
def test_any_rows_are_read_whatever_the_row_groups(tmp_path: Path, group: int) -> None:
    rows = [[f"item {row}"] * (row % 4) for row in range(19)]
    pl.DataFrame({"history": rows, "other": range(19)}).write_parquet(tmp_path / "f.parquet", row_group_size=group)
    assert count_rows(tmp_path / "f.parquet") == 19
    for start, stop in ((0, 19), (3, 4), (6, 13), (18, 19), (5, 5)):
        frame = read_rows(tmp_path / "f.parquet", start, stop, ["history"])
        assert frame["history"].to_list() == rows[start:stop]
        assert frame.columns == ["history"]


def test_rows_beyond_the_end_are_an_error(tmp_path: Path) -> None:
    file = write(tmp_path / "f.parquet", [["item 01"]] * 3)
    with pytest.raises(InputError, match="it has 3 rows, not 5 or more"):
        read_rows(file, 1, 5, ["history"])


def test_damaged_pages_are_an_error_that_names_the_rows(tmp_path: Path) -> None:
    file = write(tmp_path / "f.parquet", [[f"item {row}"] for row in range(50)])
    blob = bytearray(file.read_bytes())
    blob[4:200] = b"\xff" * 196
    file.write_bytes(blob)
    with pytest.raises(InputError, match=r"f\.parquet cannot be read: rows 0 to 50"):
        read_rows(file, 0, 50, ["user", "history"])


MOMENTS = [1_999, 2_000, None, -1]  # milliseconds


@pytest.mark.parametrize("dtype", [pl.Datetime("ms"), pl.Datetime("us", "Asia/Kathmandu")], ids=["UTC", "Kathmandu"])
def test_dates_are_whole_seconds_rounded_down(dtype: pl.DataType) -> None:
    alone = pl.Series(MOMENTS, dtype=pl.Int64).cast(pl.Datetime("ms", "UTC"))
    alone = (
        alone.dt.replace_time_zone(None) if dtype == pl.Datetime("ms") else alone.dt.convert_time_zone(dtype.time_zone)
    )
    assert values_of(alone) == [1, 2, None, -1]
    assert values_of(alone.implode()) == values_of(alone.reshape((1, 4))) == [[1, 2, None, -1]]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (pl.Series(["a", None, "b"], dtype=pl.Categorical), ["a", None, "b"]),
        (pl.Series([["a", None], None], dtype=pl.List(pl.Categorical)), [["a", None], None]),
        (pl.Series([["a", "b"]], dtype=pl.Array(pl.String, 2)), [["a", "b"]]),
        (pl.Series([[3, 1]], dtype=pl.Array(pl.UInt8, 2)), [[3, 1]]),
        (pl.Series([None, None], dtype=pl.Null), [None, None]),
    ],
    ids=["categories", "lists of them", "arrays", "arrays of ints", "nothing"],
)
def test_values_are_pythons_own(column: pl.Series, values: list[object]) -> None:
    assert values_of(column) == values


def test_a_footer_tells_files_apart(tmp_path: Path) -> None:
    one, two = (write(tmp_path / f"{n}.parquet", [["item 01"]] * n) for n in (3, 4))
    assert footer_hash(one) != footer_hash(two)

"""Files and arrays: what is read, what is refused and in which words."""

from __future__ import annotations

import gzip
import re
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from genrec.data import DataError, Interactions, load_data, load_titles

ROWS = [(7, "b", 10), (3, "a", 5), (7, "a", 20)]
CSV = b"user,item,time\n7,b,10\n3,a,5\n7,a,20\n"


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["e.csv", "e.tsv", "e.csv.gz", "e.tsv.gz", "e.parquet", "E.CSV"])
def test_all_kinds_of_files_hold_the_same_events(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    content = CSV.replace(b",", b"\t") if ".tsv" in name else CSV
    if name.endswith(".parquet"):
        pl.DataFrame(ROWS, schema=["user", "item", "time"], orient="row").write_parquet(path)
    else:
        write(path, gzip.compress(content) if name.endswith(".gz") else content)
    events = Interactions.read(path)
    assert events.frame.rows() == [(user, item, time * 1_000_000) for user, item, time in ROWS]
    assert events.filters == {"events_read": 3}


@pytest.mark.parametrize(
    "header",
    [
        "userId,movieId,rating,timestamp",
        "customer,stock_code,invoice,time",
        "user_id,item_id,price,date",
        "CustomerID,StockCode,Quantity,InvoiceDate",
        "visitorid,itemid,event,timestamp",
    ],
)
def test_common_column_names_are_found(tmp_path: Path, header: str) -> None:
    path = write(tmp_path / "e.csv", f"{header}\n1,2,3,4\n".encode())
    assert Interactions.read(path).frame.rows() == [(1, 2, 4_000_000)]


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", b"who,what,when,user\n1,x,4,zzz\n")
    events = Interactions.read(path, user_col="who", item_col="what", time_col="when")
    assert events.frame.rows() == [(1, "x", 4_000_000)]


@pytest.mark.parametrize(
    ("written", "raw"),
    [
        (["1", "23", "-4"], [1, 23, -4]),
        (["00123", "45", "6"], ["00123", "45", "6"]),
        (["A1", "2", "3"], ["A1", "2", "3"]),
        (["1.0", "2", "3"], ["1.0", "2", "3"]),
        (["9223372036854775808", "1", "2"], ["9223372036854775808", "1", "2"]),
        (["-0", "+1", " 2"], ["-0", "+1", " 2"]),
        (["NA", "1", "null"], ["NA", "1", "null"]),
        (["é", "日本", "1"], ["é", "日本", "1"]),
        (['"a,b"', '"say ""x"""', '"two\nlines"'], ["a,b", 'say "x"', "two\nlines"]),
    ],
)
def test_raw_ids_come_back_as_they_were_written(tmp_path: Path, written: list[str], raw: list[Any]) -> None:
    lines = "".join(f"{value},{value},{i}\n" for i, value in enumerate(written))
    frame = Interactions.read(write(tmp_path / "e.csv", f"user,item,time\n{lines}".encode())).frame
    assert frame["user"].to_list() == frame["item"].to_list() == raw


def test_the_type_of_a_parquet_column_stays(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": ["1", "2"], "item": pl.Series([1, 2], dtype=pl.UInt8), "time": [1, 2]})
    frame.write_parquet(tmp_path / "e.parquet")
    assert Interactions.read(tmp_path / "e.parquet").frame.rows() == [("1", 1, 1_000_000), ("2", 2, 2_000_000)]


NOON = 1_709_208_000  # 2024-02-29T12:00:00Z


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1709208000", NOON),
        ("-1", -1),
        ("1709208000.25", NOON + 0.25),
        ("1.7e9", 1_700_000_000),
        ("2024-02-29", NOON - 12 * 3600),
        ("2024-02-29T12:00:00", NOON),
        ("2024-02-29 12:00", NOON),
        ("2024-02-29T12:00:00Z", NOON),
        ("2024-02-29T12:00:00.5+02:00", NOON - 7200 + 0.5),
        ("2024-02-29 12:00:00-0530", NOON + 5.5 * 3600),
    ],
)
def test_times_in_text(tmp_path: Path, text: str, seconds: float) -> None:
    path = write(tmp_path / "e.csv", f"user,item,time\n1,2,{text}\n".encode())
    assert Interactions.read(path).frame["time"].to_list() == [round(seconds * 1e6)]


@pytest.mark.parametrize(
    ("times", "seconds"),
    [
        ([NOON, NOON + 1], NOON),
        ([float(NOON), NOON + 0.5], NOON),
        (np.array([NOON, NOON + 1], dtype=np.int32), NOON),
        (np.array(["2024-02-29T12", "2024-03-01"], dtype="datetime64[s]"), NOON),
        (np.array(["2024-02-29T12", "2024-03-01"], dtype="datetime64[ns]"), NOON),
        ([datetime(2024, 2, 29, 12), datetime(2024, 3, 1)], NOON),
        ([datetime(2024, 2, 29, 12, tzinfo=UTC), datetime(2024, 3, 1)], NOON),
        ([datetime(2024, 2, 29, 14, tzinfo=timezone(timedelta(hours=2)))] * 2, NOON),
        ([date(2024, 2, 29), date(2024, 3, 1)], NOON - 12 * 3600),
        (["2024-02-29T12:00:00", "2024-03-01"], NOON),
        (pl.Series([datetime(2024, 2, 29, 13)] * 2).dt.replace_time_zone("Europe/Berlin"), NOON),
        (pl.Series([date(2024, 2, 29)] * 2), NOON - 12 * 3600),
        (pl.Series([NOON, NOON], dtype=pl.UInt64), NOON),
    ],
)
def test_times_in_arrays(times: Any, seconds: int) -> None:
    assert Interactions.from_arrays([1, 2], [1, 2], times).frame["time"][0] == seconds * 1_000_000


def test_arrays_of_any_make_are_taken() -> None:
    expected = [(1, "x"), (2, "y")]
    for users in ([1, 2], (1, 2), np.array([1, 2], np.int16), np.array([1, 2], object), pl.Series([1, 2]), range(1, 3)):
        for items in (["x", "y"], np.array(["x", "y"]), np.array(["x", "y"], object), pl.Series(["x", "y"])):
            assert Interactions.from_arrays(users, items).frame.rows() == expected
    assert Interactions.from_arrays([np.int64(1), 2], [np.str_("x"), "y"]).frame.rows() == expected


TEXT_FAULTS = {
    "empty": ("e.csv", b"", "e.csv: the file is empty"),
    "blank": ("e.csv", b"\n\n", "e.csv: the file is empty"),
    "empty gzip": ("e.csv.gz", gzip.compress(b""), "e.csv.gz: the file is empty"),
    "no rows": ("e.csv", b"user,item,time\n", "e.csv: has columns but no rows"),
    "no user": ("e.csv", b"a,item,time\n1,2,3\n", "no user column found; name it with user_col (--user-col); "),
    "columns listed": ("e.csv", b"a,item,time\n1,2,3\n", "the columns are 'a', 'item', 'time'"),
    "no header": ("e.tsv", b"196\t242\t3\t881\n", "the columns are '196', '242', '3', '881'"),
    "two users": (
        "e.csv",
        b"user,customer,item,time\n1,2,3,4\n",
        "several columns may be the user ('user', 'customer')",
    ),
    "column twice": ("e.csv", b"user,item,time,item\n1,2,3,4\n", "line 1: the column name 'item' occurs 2 times"),
    "null id": ("e.csv", b"user,item,time\n1,2,3\n1,,3\n", "e.csv, line 3, column 'item': the id is missing"),
    "quoted null": ("e.csv", b'user,item,time\n"",2,3\n', "line 2, column 'user': the id is missing"),
    "short row": ("e.csv", b"user,item,time\n1,2,3\n1\n", "line 3, column 'item': the id is missing"),
    "hollow row": ("e.csv", b"user,item,time\n1,2,3\n\n,,\n", "line 4, column 'user': the id is missing"),
    "after breaks": ("e.csv", b'user,item,time\n"a\nb",2,3\n\nc,,3\n', "line 5, column 'item': the id is missing"),
    "no time": ("e.csv", b"user,item,time\n1,2,\n", "line 2, column 'time': the time is missing"),
    "time": (
        "e.csv",
        b"user,item,time\n1,2,3\n1,3,soon\n",
        "line 3, column 'time': 'soon' is no time; expected seconds",
    ),
    "mixed times": ("e.csv", b"user,item,time\n1,2,2024-01-01\n1,3,2024-01-02\n1,4,5\n", "line 4, column 'time': '5'"),
    "no such day": ("e.csv", b"user,item,time\n1,2,2023-02-29\n", "'2023-02-29' is no time"),
    "nan": ("e.csv", b"user,item,time\n1,2,3\n1,2,nan\n", "line 3, column 'time': nan is no time"),
    "milliseconds": ("e.csv", b"user,item,time\n1,2,1709208000000\n", "(milliseconds? divide by 1000)"),
    "not utf-8": ("e.csv", b"user,item,time\n1,2,3\n1,caf\xe9,4\n", "e.csv, line 3: byte 0xe9 is not UTF-8"),
    "header not utf-8": ("e.csv", b"us\xe9r,item,time\n1,2,3\n", "e.csv, line 1: byte 0xe9 is not UTF-8"),
    "utf-16": ("e.csv", "user,item,time\n1,2,3\n".encode("utf-16"), "is not UTF-8; save the file as UTF-8"),
    "long row": ("e.csv", b"user,item,time\n1,2,3\n1,2,3,4\n", "e.csv, line 3: 4 fields under a header of 3"),
    "open quote": ("e.csv", b'user,item,time\n1,"2,3\n', "e.csv: not readable as text in columns, a quote may be open"),
    "cut gzip": ("e.csv.gz", gzip.compress(CSV * 99, mtime=0)[:-12], "e.csv.gz: cannot be read, it may be cut off"),
    "damaged gzip": ("e.csv.gz", gzip.compress(CSV)[:12] + b"x" * 40, "e.csv.gz: cannot be read"),
    "no gzip": ("e.csv.gz", CSV, "e.csv.gz: cannot be read"),
    "kind": (
        "e.json",
        b"{}",
        "e.json: unknown kind of file '.json'; expected .csv, .tsv, .csv.gz, .tsv.gz or .parquet",
    ),
    "no parquet": ("e.parquet", b"hello world", "e.parquet: not a readable Parquet file"),
    "empty parquet": ("e.parquet", b"", "e.parquet: the file is empty"),
}


@pytest.mark.parametrize("fault", TEXT_FAULTS)
def test_a_faulty_file_is_named_with_its_row_and_column(tmp_path: Path, fault: str) -> None:
    name, content, message = TEXT_FAULTS[fault]
    path = write(tmp_path / name, content)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        Interactions.read(path)
    assert str(caught.value).startswith(str(path))


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", b"\nuser,item,time\r\n7,b,10\r\n\r\n3,a,5\r\n\r\n\r\n")
    assert Interactions.read(path).frame.height == 2


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    assert Interactions.read(write(tmp_path / "e.csv", b"\xef\xbb\xbf" + CSV)).frame.height == 3


def test_missing_files_and_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        Interactions.read(tmp_path / "e.csv")
    with pytest.raises(DataError, match="no such file, and no data set's name \\(quickstart, movielens-100k"):
        load_data("movielens-9k")
    with pytest.raises(DataError, match="is a folder"):
        Interactions.read(tmp_path)


def test_a_named_column_must_exist_and_have_one_role(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", CSV)
    with pytest.raises(
        DataError, match=re.escape("no column 'buyer' (user_col); the columns are 'user', 'item', 'time'")
    ):
        Interactions.read(path, user_col="buyer")
    with pytest.raises(DataError, match="one column is named twice: user 'item', item 'item'"):
        Interactions.read(path, user_col="item")


PARQUET_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "float ids": ({"user": [1.0], "item": [1], "time": [1]}, "column 'user': ids must be ints or strings, not Float64"),
    "bool ids": ({"user": [1], "item": [True], "time": [1]}, "column 'item': ids must be ints or strings, not Boolean"),
    "null id": ({"user": [1, None], "item": [1, 1], "time": [1, 1]}, "row 2, column 'user': the id is missing"),
    "empty id": ({"user": ["a", ""], "item": [1, 1], "time": [1, 1]}, "row 2, column 'user': the id is missing"),
    "huge id": (
        {"user": [2**63], "item": [1], "time": [1]},
        "row 1, column 'user': the id 9223372036854775808 does not",
    ),
    "null time": (
        {"user": [1], "item": [1], "time": pl.Series([None], dtype=pl.Int64)},
        "row 1, column 'time': the time is",
    ),
    "infinite": ({"user": [1], "item": [1], "time": [float("inf")]}, "row 1, column 'time': inf is no time"),
    "time of day": ({"user": [1], "item": [1], "time": [timedelta(1)]}, "column 'time': Duration"),
    "no rows": ({"user": pl.Series([], dtype=pl.Int64), "item": [], "time": []}, "has columns but no rows"),
}


@pytest.mark.parametrize("fault", PARQUET_FAULTS)
def test_a_faulty_parquet_file_is_named_with_its_row_and_column(tmp_path: Path, fault: str) -> None:
    columns, message = PARQUET_FAULTS[fault]
    pl.DataFrame(columns).write_parquet(tmp_path / "e.parquet")
    with pytest.raises(DataError, match=re.escape(message)):
        Interactions.read(tmp_path / "e.parquet")


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    pl.DataFrame({"user": range(999), "item": range(999), "time": range(999)}).write_parquet(path)
    content = path.read_bytes()
    for damaged in (content[:-20], content[: len(content) // 2], content[:8] + b"\xff" * 60 + content[68:]):
        with pytest.raises(DataError, match=r"e\.parquet: not a readable Parquet file"):
            Interactions.read(write(path, damaged))


ARRAY_FAULTS: dict[str, tuple[Any, Any, Any, str]] = {
    "mixed": ([1, 2], [7, "x"], None, "arrays, items: mixes types: 7 (int, place 0) and 'x' (str, place 1)"),
    "mixed object array": (np.array([1, "a"], object), [1, 2], None, "arrays, users: mixes types: 1 (int, place 0)"),
    "mixed series": (pl.Series([1, "a"], dtype=pl.Object), [1, 2], None, "arrays, users: mixes types"),
    "bool": ([True, 2], [1, 2], None, "arrays, users, place 0: cannot take True (bool)"),
    "bytes": ([b"a", b"b"], [1, 2], None, "arrays, users, place 0: cannot take b'a' (bytes)"),
    "float": ([1.5, 2], [1, 2], None, "arrays, column 'users': ids must be ints or strings, not Float64"),
    "null": ([1, None], [1, 2], None, "arrays, place 1 (from 0), column 'users': the id is missing"),
    "lengths": ([1, 2], [1], None, "arrays: lengths differ: users 2, items 1"),
    "axes": ([1, 2], np.ones((2, 2), int), None, "arrays: items must be flat, got 2 axes"),
    "nothing": ([], [], None, "arrays: no events"),
    "huge": ([2**70, 1], [1, 2], None, f"column 'users': the id {2**70} does not fit 64 bits"),
    "mixed times": ([1, 2], [1, 2], [3, "x"], "arrays, times: mixes types"),
    "not a time": ([1, 2], [1, 2], [np.datetime64("NaT"), np.datetime64("2024")], "arrays"),
}


@pytest.mark.parametrize("fault", ARRAY_FAULTS)
def test_faulty_arrays_are_refused(fault: str) -> None:
    users, items, times, message = ARRAY_FAULTS[fault]
    with pytest.raises(DataError, match=re.escape(message)):
        Interactions.from_arrays(users, items, times)


RATED = b"user,item,rating,time\n1,a,5,1\n1,b,2.5,2\n2,a,4,3\n2,c,1,4\n"


def test_low_ratings_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", RATED)
    assert Interactions.read(path).frame.height == 4
    events = Interactions.read(path, min_rating=2.5)
    assert events.frame["item"].to_list() == ["a", "b", "a"]
    assert events.filters == {"events_read": 4, "min_rating": 2.5}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (RATED, "min_rating=9 leaves none of 4 events; the highest is 5"),
        (RATED.replace(b"rating", b"liking"), "no rating column found; name it with rating_col (--rating-col)"),
        (RATED.replace(b"2.5", b"good"), "line 3, column 'rating': 'good' is no number"),
        (RATED.replace(b"2.5", b""), "line 3, column 'rating': the rating is missing"),
    ],
)
def test_faulty_ratings_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        Interactions.read(write(tmp_path / "e.csv", content), min_rating=9)


def test_titles_are_found_by_raw_id(tmp_path: Path) -> None:
    path = write(tmp_path / "items.csv", b"item,title,price\na,Apple,1\nb,,2\na,Avocado,3\n")
    assert load_titles(path) == {"a": "Apple"}
    data = load_data(write(tmp_path / "e.csv", CSV), items=path)
    assert data.titles == ("Apple", "b")


def test_titles_are_found_when_only_one_file_has_ids_like_a1(tmp_path: Path) -> None:
    titles = write(tmp_path / "items.csv", b"sku,name\n1,One\n2,Two\n")
    events = write(tmp_path / "e.csv", b"user,sku,time\n7,1,10\n3,2,5\n3,A1,6\n")
    assert load_data(events, items=titles).titles == ("One", "Two", "A1")


def test_titles_of_other_items_are_refused(tmp_path: Path) -> None:
    titles = write(tmp_path / "items.csv", b"item,title\nx,One\n")
    with pytest.raises(
        DataError, match="none of the 2 items has a title; items are like 'a', titles are for ids like 'x'"
    ):
        load_data(write(tmp_path / "e.csv", CSV), items=titles)


def test_the_titles_columns_can_be_named(tmp_path: Path) -> None:
    titles = write(tmp_path / "items.tsv", b"code\tlabel\na\tApple\n")
    assert load_titles(titles, item_col="code", title_col="label") == {"a": "Apple"}
    with pytest.raises(DataError, match=re.escape("no title column found; name it with title_col (--title-col)")):
        load_titles(titles, item_col="code")

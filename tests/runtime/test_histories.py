"""Reading times and users: what becomes of each form that they may have, and what is refused, by its place."""

import datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.histories import ItemIds, Ragged, user_index
from genrec_runtime import InputError, rows
from genrec_runtime.checks import TIME_LIMIT
from genrec_runtime.histories import read_request_time, read_times, read_users
from genrec_runtime.requests import number_rows

GIVEN = np.array([3, 0, 2])
TIMES = [[5, 5, 8], [], [-4, 2]]


class Word(str):
    def __str__(self) -> str:
        return "another text"


def as_object(values: list[Any]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


# --- times


@pytest.mark.parametrize(
    "times",
    [
        pytest.param(TIMES, id="lists"),
        pytest.param(tuple(map(tuple, TIMES)), id="tuples"),
        pytest.param([np.array(row, np.int64) for row in TIMES], id="arrays"),
        pytest.param([np.array(row, np.int8) for row in TIMES], id="narrow arrays"),
        pytest.param([as_object(row) for row in TIMES], id="arrays of objects"),
        pytest.param([[np.int32(time) for time in row] for row in TIMES], id="numpy's numbers in lists"),
        pytest.param(as_object(TIMES), id="an array of lists"),
        pytest.param([[5, np.uint8(5), 8], np.zeros(0), (-4, 2)], id="rows of several kinds"),
    ],
)
def test_times_are_read_row_by_row(times: Any) -> None:
    read = read_times(times, GIVEN)
    assert [row.tolist() for row in read.rows()] == TIMES
    assert read.values.dtype == np.int64


def test_times_of_equal_histories_may_be_a_matrix_and_of_none_an_empty_list() -> None:
    matrix = np.array([[1, 2], [3, 3], [9, 10]], np.uint32)
    assert [row.tolist() for row in read_times(matrix, np.array([2, 2, 2])).rows()] == matrix.tolist()
    assert read_times([], np.zeros(0, np.int64)).lengths.tolist() == []
    assert read_times(np.zeros((4, 0)), np.zeros(4, np.int64)).lengths.tolist() == [0] * 4


def test_what_is_read_is_the_callers_no_longer() -> None:
    row = np.array([1, 2])
    read = read_times(row[None], np.array([2]))
    row[:] = 7
    assert read.values.tolist() == [1, 2]


def test_the_ends_of_the_range_are_times() -> None:
    assert read_times([[-TIME_LIMIT, TIME_LIMIT]], np.array([2])).values.tolist() == [-(10**11), 10**11]


TOO_FAR = r"beyond 100,000,000,000 seconds; pass seconds, not milliseconds$"
WHOLE = r"a time must be a whole number: pass whole seconds$"


@pytest.mark.parametrize(
    ("times", "code", "row", "value", "message"),
    [
        pytest.param(
            None, "no_timestamps", None, None, "this model reads when events were: pass timestamps", id="fault_44 none"
        ),
        pytest.param(TIMES[:2], "row_count", None, 2, "timestamps has 2 rows for 3 histories", id="a row less"),
        pytest.param([*TIMES, []], "row_count", None, 4, "timestamps has 4 rows for 3 histories", id="a row more"),
        pytest.param(
            [[5, 5, 8], [], [2]], "time_count", 2, 1, r"\[2\] has 1 times for the 2 ids of histories\[2\]", id="less"
        ),
        pytest.param([[5, 5, 8], [1], [2]], "time_count", 1, 1, r"\[1\] has 1 times for the 0 ids", id="the first"),
        pytest.param(
            [[5, 8, 7], [], [1, 2]],
            "time_order",
            0,
            7,
            r"\[0\]\[2\] is 7, before the 8 of the item",
            id="fault_44 falls",
        ),
        pytest.param(
            [[5, 5, 8], [], [2, -4]], "time_order", 2, -4, r"\[2\]\[1\] is -4, before the 2", id="fault_44 falls last"
        ),
        pytest.param(
            [[5, 5, 8], [], [2, 1.0]],
            "time_type",
            2,
            1.0,
            rf"^timestamps\[2\]\[1\] is 1.0 \(float\); {WHOLE}",
            id="fault_44 float",
        ),
        pytest.param(
            [[True, 5, 8], [], [2, 3]], "time_type", 0, True, rf"\[0\]\[0\] is True \(bool\); {WHOLE}", id="a bool"
        ),
        pytest.param(
            [[np.True_, 5, 8], [], [2, 3]], "time_type", 0, True, r"\[0\]\[0\] is np.True_ \(bool", id="numpy's bool"
        ),
        pytest.param([["5", 5, 8], [], [2, 3]], "time_type", 0, "5", r"\[0\]\[0\] is '5' \(str\)", id="a string"),
        pytest.param([[5, None, 8], [], [2, 3]], "time_type", 0, None, r"\[0\]\[1\] is None \(NoneType\)", id="None"),
        pytest.param(
            [[5, 5, 8], [], np.array([2.0, 3])],
            "time_type",
            2,
            2.0,
            r"\[2\] must hold whole numbers, got float64 np.float64\(2.0\); pass whole",
            id="fault_44 a float array",
        ),
        pytest.param(
            [[5, 5, 8], [], np.array([1, 2], "M8[s]")],
            "time_type",
            2,
            datetime.datetime(1970, 1, 1, 0, 0, 1),
            "got datetime64",
            id="fault_44 dates",
        ),
        pytest.param([[5, 5, 8], [], np.array([False, True])], "time_type", 2, False, "got bool", id="bools"),
        pytest.param(
            [[5, 5, 8], [], [2, TIME_LIMIT + 1]],
            "time_range",
            2,
            10**11 + 1,
            rf"\[2\]\[1\] is 100000000001, {TOO_FAR}",
            id="fault_44 too late",
        ),
        pytest.param(
            [[-(10**11) - 1, 5, 8], [], [2, 3]], "time_range", 0, -(10**11) - 1, TOO_FAR, id="fault_44 too early"
        ),
        pytest.param(
            [[5, 5, 10**30], [], [2, 3]],
            "time_range",
            0,
            10**30,
            rf"\[0\]\[2\] is 10{{30}}, {TOO_FAR}",
            id="beyond 64 bits",
        ),
        pytest.param([[5, 5, 8], [], np.array([2, 2**63], np.uint64)], "time_range", 2, 2**63, TOO_FAR, id="unsigned"),
        pytest.param(
            [5, 8],
            "shape",
            0,
            5,
            r"timestamps\[0\] must be a list of times, got 5; for one row pass \[timestamps\]",
            id="flat",
        ),
        pytest.param(5, "shape", None, 5, "timestamps must be a list of rows of times, got int", id="a number"),
        pytest.param(
            [[5, 5, 8], None, [2, 3]],
            "shape",
            1,
            None,
            r"timestamps\[1\] must be a list of times, got None",
            id="no row",
        ),
        pytest.param(
            np.zeros((1, 1, 1), int),
            "shape",
            None,
            "array([[[0]]])",
            "rows of times, got an array of 3 axes",
            id="three axes",
        ),
    ],
)
def test_times_that_cannot_be_read_are_refused_with_their_place(
    times: Any, code: str, row: int | None, value: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_times(times, GIVEN)
    error = caught.value
    if isinstance(value, datetime.datetime):
        value = repr(value)
    assert (error.code, error.field, error.row, error.value) == (code, "timestamps", row, value)
    assert "\n" not in str(error)


def test_the_row_of_a_fault_is_counted_over_all_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "BLOCK", 3)
    times: list[list[Any]] = [[3, 5], [0], [], [3, 3, 3, 3], [], [5], [5, 6], [0]]
    given = np.array(list(map(len, times)))
    assert [row.tolist() for row in read_times(times, given).rows()] == times
    for number in np.flatnonzero(given).tolist():
        for bad, code in ((2.5, "time_type"), (10**12, "time_range")):
            spoilt = [[*row[:-1], bad] if i == number else row for i, row in enumerate(times)]
            with pytest.raises(InputError, match=rf"^timestamps\[{number}\]\[{given[number] - 1}\] is") as caught:
                read_times(spoilt, given)
            assert (caught.value.row, caught.value.code) == (number, code)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(-5, 5), max_size=4), max_size=6))
def test_times_may_fall_from_one_row_to_the_next_and_within_none(times: list[list[int]]) -> None:
    given = np.array(list(map(len, times)), np.int64)
    falling = [i for i, row in enumerate(times) if row != sorted(row)]
    if not falling:
        assert [row.tolist() for row in read_times(times, given).rows()] == times
        return
    with pytest.raises(InputError, match="before the") as caught:
        read_times(times, given)
    assert caught.value.row == falling[0]


def test_the_times_of_unknown_ids_are_dropped_with_them() -> None:
    numbered = number_rows(ItemIds(["a", "b"]), [["?", "a", "b"], [], ["b", 7], ["?"]], "histories", "drop")
    kept = numbered.keep(read_times([[1, 2, 3], [], [4, 5], [6]], numbered.given))
    assert [row.tolist() for row in kept.rows()] == [[2, 3], [], [4], []]
    whole = number_rows(ItemIds(["a", "b"]), [["b", "a"]], "histories", "drop")
    assert whole.keep(read_times([[1, 2]], whole.given)).values.tolist() == [1, 2]


# --- the time of the request

NEWEST = Ragged.from_rows([[5, 5, 8], [], [-4, 2]])


@pytest.mark.parametrize(
    ("moments", "read"),
    [
        pytest.param(None, [8, 0, 2], id="the newest times"),
        pytest.param([9, 10, 11], [9, 10, 11], id="a list"),
        pytest.param(np.array([9, 10, 11], np.int16), [9, 10, 11], id="an array"),
        pytest.param((None, 10, np.int64(11)), [8, 10, 11], id="None for the newest"),
        pytest.param(as_object([9, None, None]), [9, 0, 2], id="an array of objects"),
        pytest.param([7, 0, -100], [7, 0, -100], id="before the newest"),  # clocks differ; it is the model's to mind
    ],
)
def test_the_time_of_the_request_is_what_is_given_or_the_newest(moments: Any, read: list[int]) -> None:
    found = read_request_time(moments, NEWEST)
    assert (found.tolist(), found.dtype) == (read, np.int64)


@pytest.mark.parametrize(
    ("moments", "code", "row", "value", "message"),
    [
        ([9, 9], "row_count", None, 2, "request_time has 2 rows for 3 histories"),
        ([9, 9.5, 9], "time_type", 1, 9.5, rf"^request_time\[1\] is 9.5 \(float\); {WHOLE}"),
        ([None, None, False], "time_type", 2, False, r"^request_time\[2\] is False \(bool\)"),
        (np.array([1.0, 2, 3]), "time_type", None, 1.0, "^request_time must hold whole numbers, got float64"),
        ([None, 10**12, 9], "time_range", 1, 10**12, rf"^request_time\[1\] is 1000000000000, {TOO_FAR}"),
        (np.array([1, 2, -(10**12)]), "time_range", 2, -(10**12), r"^request_time\[2\] is -1000000000000, beyond"),
        (1_700_000_000, "shape", None, 1_700_000_000, "request_time must be a list of times, got 1700000000$"),
        ("now", "shape", None, "now", "request_time must be a list of times, got 'now'$"),
    ],
)
def test_a_time_of_the_request_that_is_none_is_refused_with_its_row(
    moments: Any, code: str, row: int | None, value: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_request_time(moments, NEWEST)
    assert (caught.value.code, caught.value.row, caught.value.value) == (code, row, value)


# --- users


@pytest.mark.parametrize(
    "users",
    [
        ["a", 5, None],
        ("a", np.int64(5), None),
        as_object(["a", 5, None]),
        [np.str_("a"), np.uint8(5), None],
        [Word("a"), 5, None],
    ],
    ids=["a list", "a tuple", "an array of objects", "numpy's own", "a text with a str of its own"],
)
def test_users_become_the_tokens_of_training(users: Any) -> None:
    expected = [user_index("a", 1000), user_index(5, 1000), 0]
    assert read_users(users, 3, 1000).tolist() == expected
    assert read_users(np.array(["a", "5", "5"]), 3, 1000).tolist() == [expected[0], expected[1], expected[1]]


def test_nobody_is_known_where_no_users_are_given() -> None:
    assert read_users(None, 3, 1000).tolist() == [0, 0, 0]
    assert read_users([], 0, 1000).tolist() == []


@pytest.mark.parametrize(
    ("users", "code", "row", "value", "message"),
    [
        (["a", "b"], "row_count", None, 2, "users has 2 rows for 3 histories"),
        (
            ["a", 1.0, "b"],
            "user_type",
            1,
            1.0,
            r"^users\[1\] is 1.0 \(float\); a user's id must be an int or a string, or None",
        ),
        (["a", "b", True], "user_type", 2, True, r"^users\[2\] is True \(bool\)"),
        ([b"a", "b", "c"], "user_type", 0, "b'a'", r"^users\[0\] is b'a' \(bytes\)"),
        (["a", ["b"], "c"], "user_type", 1, "['b']", r"^users\[1\] is \['b'\] \(list\)"),
        (np.array([1.0, np.nan, 3]), "user_type", None, 1.0, "^users must hold ints or strings, got float64"),
        (["a", "\ud800", "c"], "user_type", 1, "\ud800", r"^users\[1\] is '\\ud800', which has no text in UTF-8"),
        pytest.param(
            ["a", "b", 10**5000],
            "user_type",
            2,
            10**5000,
            r"^users\[2\] is <int>, which has no text in UTF-8",
            id="an int that Python does not print",
        ),
        ("abc", "shape", None, "abc", "users must be a list of user ids, got 'abc'$"),
        (np.array([["a", "b", "c"]]), "shape", None, "array([['a', 'b', 'c']], dtype='<U1')", "array of 2 axes"),
    ],
)
def test_a_user_that_is_none_is_refused_with_the_row(
    users: Any, code: str, row: int | None, value: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_users(users, 3, 1000)
    assert (caught.value.code, caught.value.row, caught.value.value) == (code, row, value)
    assert caught.value.field == "users"

"""Rows 1 to 27 and 45 of the list of faults, for raw ids: what cannot be read is refused by its place, all else is numbered."""

import enum
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.histories import ItemIds
from genrec_runtime import InputError, Recommender
from genrec_runtime import rows as reading
from genrec_runtime.requests import number_list, number_rows
from genrec_runtime.rows import as_array
from tiny import ITEMS

WORDS = ItemIds(["a", "b", "c"])  # 1, 2, 3
NUMBERS = ItemIds([-7, 0, 3, 5, 2**62])  # 1, 2, 3, 4, 5
GRID = np.array([[3, 5], [0, -7]])


class Code(enum.Enum):
    A = "a"


class Word(str):
    def __str__(self) -> str:
        return "another text"


class OnAGpu:
    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


class Tensor:
    """What an array of another library looks like."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.array(self.values)


def read_only(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


def object_rows() -> np.ndarray:
    rows = np.empty(2, dtype=object)
    rows[:] = [np.array([3, 5]), [0, -7]]
    return rows


@pytest.mark.parametrize(
    ("items", "rows", "expected"),
    [
        pytest.param(NUMBERS, [[3, 9], [9]], [[3], []], id="fault_01 an id of no item is dropped"),
        pytest.param(NUMBERS, [[-1, -7]], [[1]], id="fault_02 a negative id is an id like another"),
        pytest.param(NUMBERS, [[-(2**63), 3]], [[3]], id="fault_03 the smallest int64"),
        pytest.param(NUMBERS, [[0, 3, 0]], [[2, 3, 2]], id="fault_04 zero is an id like another"),
        pytest.param(NUMBERS, GRID.astype(np.int32), [[3, 4], [2, 1]], id="fault_05 int32"),
        pytest.param(NUMBERS, [np.int8([3]), np.int16([5, 0])], [[3], [4, 2]], id="fault_05 rows of several widths"),
        pytest.param(NUMBERS, np.array([[3, 5]], np.uint64), [[3, 4]], id="fault_06 uint64"),
        pytest.param(NUMBERS, np.array([[3, 2**63 + 5]], np.uint64), [[3]], id="fault_06 uint64 beyond int64"),
        pytest.param(NUMBERS, np.array([[3, 2**64 - 7]], ">u8"), [[3]], id="fault_06 beyond int64, big-endian"),
        pytest.param(NUMBERS, [np.uint64([2**63 + 5]), np.int64([3])], [[], [3]], id="fault_06 uint64 beside int64"),
        pytest.param(NUMBERS, np.array([[3, 5]], np.uint8), [[3, 4]], id="fault_06 uint8"),
        pytest.param(NUMBERS, [[2**62, 2**63, 2**64, -(2**70)]], [[5]], id="fault_10 ints beyond 64 bits"),
        pytest.param(NUMBERS, [[10**5000, 3]], [[3]], id="fault_10 an int that Python does not print"),
        pytest.param(NUMBERS, [[np.int16(3), 5]], [[3, 4]], id="fault_10 numpy's ints among Python's"),
        pytest.param(WORDS, [["c", "a"], ["b"]], [[3, 1], [2]], id="fault_11 strings"),
        pytest.param(WORDS, np.array([["c", "a"], ["b", "zz"]]), [[3, 1], [2]], id="fault_11 an array of strings"),
        pytest.param(WORDS, [[np.str_("c"), Word("a")]], [[3, 1]], id="fault_11 kinds of str"),
        pytest.param(WORDS, [["a", 3]], [[1]], id="fault_11 an int among strings is unknown"),
        pytest.param(NUMBERS, [["3", 3]], [[3]], id="fault_11 a string among ints is unknown"),
        pytest.param(WORDS, [[3, 5], np.array([3])], [[], []], id="fault_11 ints to a catalogue of strings"),
        pytest.param(NUMBERS, object_rows(), [[3, 4], [2, 1]], id="fault_13 an object array of rows"),
        pytest.param(NUMBERS, GRID.astype(object), [[3, 4], [2, 1]], id="fault_13 an object matrix of ints"),
        pytest.param(NUMBERS, [np.array([3, 5], dtype=object)], [[3, 4]], id="fault_13 an object row of ints"),
        pytest.param(NUMBERS, [[3], (5, 0), np.array([-7])], [[3], [4, 2], [1]], id="fault_14 rows of every kind"),
        pytest.param(NUMBERS, (), [], id="fault_15 no rows"),
        pytest.param(NUMBERS, np.zeros((0, 4), np.int64), [], id="fault_15 an array of no rows"),
        pytest.param(NUMBERS, [[], ()], [[], []], id="fault_16 empty rows"),
        pytest.param(NUMBERS, [np.array([]), [3]], [[], [3]], id="fault_16 an empty array is float64, yet a row"),
        pytest.param(NUMBERS, [np.int64([]), np.int64([3])], [[], [3]], id="fault_16 an empty array of ints"),
        pytest.param(NUMBERS, np.zeros((2, 0)), [[], []], id="fault_16 an array of empty rows"),
        pytest.param(NUMBERS, [[3, 3, 3]], [[3, 3, 3]], id="fault_22 an item several times"),
        pytest.param(NUMBERS, np.asfortranarray(GRID), [[3, 4], [2, 1]], id="fault_23 Fortran order"),
        pytest.param(NUMBERS, np.repeat(GRID, 2, 1)[:, ::2], [[3, 4], [2, 1]], id="fault_23 strided"),
        pytest.param(NUMBERS, GRID[::-1, ::-1], [[1, 2], [4, 3]], id="fault_23 reversed views"),
        pytest.param(NUMBERS, list(GRID[:, ::-1]), [[4, 3], [1, 2]], id="fault_23 rows that are reversed views"),
        pytest.param(NUMBERS, GRID.astype(">i8"), [[3, 4], [2, 1]], id="fault_24 big-endian matrix"),
        pytest.param(NUMBERS, [np.array([3, 5], ">i4")], [[3, 4]], id="fault_24 big-endian row"),
        pytest.param(WORDS, np.array([["c"]], ">U1"), [[3]], id="fault_24 big-endian strings"),
        pytest.param(NUMBERS, read_only(GRID.copy()), [[3, 4], [2, 1]], id="fault_25 read-only"),
        pytest.param(NUMBERS, Tensor([[3, 5]]), [[3, 4]], id="fault_45 a tensor of another library"),
        pytest.param(NUMBERS, [Tensor([3, 5]), [0]], [[3, 4], [2]], id="fault_45 a row of another library"),
    ],
)
def test_rows_that_can_be_read_are_numbered(items: ItemIds, rows: Any, expected: list[list[int]]) -> None:
    numbered = number_rows(items, rows, "histories", "drop")
    assert [row.tolist() for row in numbered.known.rows()] == expected


NO_ROW = None
PLACE_1 = r"histories\[1\]: an item id must be an int or a string, got"


@pytest.mark.parametrize(
    ("rows", "code", "row", "value", "message"),
    [
        pytest.param(np.array([[True]]), "id_type", 0, True, r"\[0\] must hold ints .* got bool", id="fault_07 bools"),
        pytest.param([[3], [5, True]], "id_type", 1, True, PLACE_1 + r" True \(bool, place 1\)", id="fault_07 a bool"),
        pytest.param([[np.True_]], "id_type", 0, True, r"histories\[0\]", id="fault_07 numpy's bool"),
        pytest.param(np.array([[3.0]]), "id_type", 0, 3.0, "got float64 np.float64.3.0", id="fault_08 whole floats"),
        pytest.param([[3], [5], [0, 3.7]], "id_type", 2, 3.7, r"got 3.7 \(float, place 1\)", id="fault_08 a float"),
        pytest.param(np.array([[np.inf]]), "id_type", 0, np.inf, "got float64", id="fault_09 inf in an array"),
        pytest.param([[3, float("inf")]], "id_type", 0, np.inf, "got inf", id="fault_09 inf"),
        pytest.param([[3, None]], "id_type", 0, None, "got None", id="fault_12 None"),
        pytest.param(np.array([[3], [None]]), "id_type", 1, None, "got None", id="fault_13 None in an object array"),
        pytest.param(np.array([[3, 2.5]], dtype=object), "id_type", 0, 2.5, "got 2.5", id="fault_13 a float as object"),
        pytest.param([[], [[3]]], "id_type", 1, "[3]", r"got \[3\] \(list, place 0\)", id="fault_13 a list in a row"),
        pytest.param([[Code.A]], "id_type", 0, "<Code.A: 'a'>", "got <Code.A", id="fault_13 another enumeration"),
        pytest.param([[b"a"]], "id_type", 0, "b'a'", "got b'a'", id="fault_11 bytes"),
        pytest.param(np.array([[b"a"]]), "id_type", 0, "b'a'", "got |S1", id="fault_11 an array of bytes"),
        pytest.param(
            np.array([["2020"]], "M8[Y]"),
            "id_type",
            0,
            "datetime.date(2020, 1, 1)",
            "got datetime64",
            id="fault_13 dates",
        ),
        pytest.param(np.zeros((1, 1), "i8,i8"), "id_type", 0, "(0, 0)", "must hold ints", id="fault_13 records"),
        pytest.param([3, 5], "shape", 0, 3, r"got 3; for one row pass \[histories\]", id="fault_20 a flat list"),
        pytest.param([[3], 5], "shape", 1, 5, r"histories\[1\] must be a list", id="fault_20 an id among rows"),
        pytest.param(np.array([3]), "shape", NO_ROW, "array([3])", r"1 axes; .* \[hist", id="fault_20 a flat array"),
        pytest.param(["a"], "shape", 0, "a", r"got 'a'; for one row pass \[histories\]", id="fault_20 flat strings"),
        pytest.param(np.array(["a"], dtype=object), "shape", 0, "a", "for one row pass", id="fault_20 a column"),
        pytest.param(np.int64(3), "shape", NO_ROW, 3, "0 axes", id="fault_20 a number"),
        pytest.param("abc", "shape", NO_ROW, "abc", "list of rows of item ids, got str", id="fault_11 a string"),
        pytest.param(None, "shape", NO_ROW, None, "got NoneType", id="fault_12 no rows at all"),
        pytest.param({"a": 1}, "shape", NO_ROW, "{'a': 1}", "got dict", id="fault_13 a dictionary"),
        pytest.param(
            [{3}], "shape", 0, "{3}", r"histories\[0\] must be a list of item ids, got \{3\}$", id="fault_13 a set"
        ),
        pytest.param(
            np.zeros((1, 1, 1), int), "shape", NO_ROW, "array([[[0]]])", "array of 3 axes", id="fault_21 three axes"
        ),
        pytest.param(
            [GRID[:1]], "shape", 0, "array([[3, 5]])", r"\[0\] .* array of 2 axes", id="fault_21 two in a row"
        ),
    ],
)
def test_rows_that_cannot_be_read_are_refused_with_their_place(
    rows: Any, code: str, row: int | None, value: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        number_rows(NUMBERS, rows, "histories", "drop")
    error = caught.value
    assert (error.code, error.field, error.row, error.value) == (code, "histories", row, value)
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("rows", "row", "message"),
    [
        pytest.param([[float("nan")]], 0, "got nan", id="fault_09 NaN in a list"),
        pytest.param(np.array([[np.nan]]), 0, "got float64", id="fault_09 NaN in an array"),
        pytest.param(np.ma.masked_equal(GRID, 3), None, "is a MaskedArray; pass a plain array", id="fault_27 masked"),
        pytest.param([[3], np.ma.masked_equal([3], 3)], 1, r"\[1\] is a MaskedArray", id="fault_27 a masked row"),
        pytest.param(OnAGpu(), None, "cannot be read as an array: can't convert cuda:0", id="fault_45 a CUDA tensor"),
        pytest.param([OnAGpu()], 0, r"histories\[0\] cannot be read", id="fault_45 a CUDA tensor as a row"),
        pytest.param((row for row in [[3]]), None, "rows of item ids, got generator", id="fault_46 a generator"),
        pytest.param([(i for i in [3])], 0, r"histories\[0\] must be a list of .*generator", id="fault_46 a row of it"),
    ],
)
def test_what_else_cannot_be_read_is_refused(rows: Any, row: int | None, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        number_rows(NUMBERS, rows, "histories", "drop")
    assert (caught.value.field, caught.value.row) == ("histories", row)


def test_the_row_of_a_fault_is_counted_over_all_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BLOCK", 3)
    rows: list[list[Any]] = [[3, 5], [0], [], [3, 3, 3, 3], [], [5], [5, 3], [0]]
    assert [row.tolist() for row in number_rows(NUMBERS, rows, "exclude", "drop").known.rows()] == [
        NUMBERS.index(row).tolist() for row in rows
    ]
    for bad, code in ((2.5, "id_type"), (99, "unknown_item")):
        for number in range(len(rows)):
            spoilt = [[*row, bad] if i == number else row for i, row in enumerate(rows)]
            with pytest.raises(InputError, match=rf"^exclude\[{number}\]") as caught:
                number_rows(NUMBERS, spoilt, "exclude", "error")
            assert (caught.value.row, caught.value.value, caught.value.code) == (number, bad, code)
    matrix = np.repeat(GRID, 4, 0)
    matrix[6, 1] = 99
    with pytest.raises(InputError, match=r"^exclude\[6\] holds 99"):
        number_rows(NUMBERS, matrix, "exclude", "error")


# --- 19: size


@pytest.mark.parametrize("form", ["a list", "an array", "strings"])
def test_fault_19_ten_million_items_take_bounded_memory(form: str) -> None:
    count = 10**6 if form == "strings" else 10**7
    row: Any = {
        "a list": [3, 5] * (count // 2),
        "an array": np.tile([3, 5], count // 2),
        "strings": ["3", "c"] * (count // 2),
    }
    rows = [row[form]]
    items = WORDS if form == "strings" else NUMBERS
    tracemalloc.start()
    try:
        numbered = number_rows(items, rows, "histories", "drop")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert numbered.given.tolist() == [count]
    assert peak < 40 * (count + 1)  # what number_rows states


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([np.broadcast_to(np.int64(3), 2**40)], id="fault_19 one history without end"),
        pytest.param(np.broadcast_to(np.int64(3), (2**20, 2**20)), id="fault_19 a matrix that takes no memory"),
        pytest.param(np.broadcast_to(np.int64(3), (2**40, 0)), id="fault_19 rows without end"),
        pytest.param(Tensor(np.broadcast_to(np.int64(3), 2**40)).values, id="fault_19 a flat array"),
    ],
)
def test_what_is_too_large_is_refused_before_it_takes_memory(rows: Any) -> None:
    with pytest.raises(InputError, match="entries, 134,217,728 are taken at most; pass fewer rows a call") as caught:
        number_rows(NUMBERS, rows, "histories", "drop")
    assert caught.value.code == "too_large"
    assert caught.value.value > 2**40 - 1  # counted from the shape, not row by row
    with pytest.raises(InputError, match="134,217,728 are taken at most"):
        as_array(np.broadcast_to(np.float32(0), (2**20, 2**20)), "features")


@pytest.mark.parametrize("rows", [[[3] * 4] * 3, [np.array([3] * 4)] * 3, np.full((3, 4), 3), [[]] * 15])
def test_fault_19_the_cap_counts_rows_and_ids(rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BLOCK", 3)  # it counts on from block to block
    monkeypatch.setattr(reading, "MOST", 15)
    assert len(number_rows(NUMBERS, rows, "histories", "drop").given) == len(rows)
    monkeypatch.setattr(reading, "MOST", 14)
    with pytest.raises(InputError, match="histories has at least 15 entries, 14 are taken at most"):
        number_rows(NUMBERS, rows, "histories", "drop")


def test_fault_19_long_histories_reach_the_graph_cut(served: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[dict[str, tuple[int, ...]]] = []
    run = served._engine.run

    def spy(graph: str, inputs: dict[str, np.ndarray], *more: Any) -> Any:
        shapes.append({name: array.shape for name, array in inputs.items()})
        return run(graph, inputs, *more)

    monkeypatch.setattr(served._engine, "run", spy)
    assert served.recommend([ITEMS[:30] * 1000]).lengths.tolist() == [7]  # 37 items, 30 of them seen
    assert shapes == [{"item_ids": (1, 6), "exclude": (1, 30), "available": (38,)}]


# --- 23 and 24: layout


@settings(deadline=None)
@given(st.data())
def test_fault_23_fault_24_strides_and_byte_order_never_matter(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["i1", "<i2", ">i2", "<i4", ">i4", "<i8", ">i8", "u1", ">u2", "<u4", ">u8"]))
    shape = data.draw(st.tuples(st.integers(0, 4), st.integers(0, 6)))
    whole = np.array(data.draw(st.lists(st.sampled_from([0, 3, 5, 9]), min_size=24, max_size=24)), dtype=dtype)
    matrix = whole[: shape[0] * shape[1]].reshape(shape, order=data.draw(st.sampled_from("CF")))
    steps = st.sampled_from([1, 2, 3, -1, -2])
    view = matrix[:: data.draw(steps), :: data.draw(steps)]
    view = view.T if data.draw(st.booleans()) else view
    before = view.tolist()
    expected = [NUMBERS.index(row).tolist() for row in before]
    expected = [[number for number in row if number] for row in expected]
    for rows in (view, list(view), before):
        assert [row.tolist() for row in number_rows(NUMBERS, rows, "histories", "drop").known.rows()] == expected
    assert view.tolist() == before


# --- 25 and 26: whose memory it is


class Meddling(ItemIds):
    """Numbers ids after somebody has changed what the caller passed."""

    def __init__(self, raw: Any, meddle: Callable[[], None]) -> None:
        super().__init__(raw)
        self.meddle = meddle

    def index(self, raw: Any) -> Any:
        thread = threading.Thread(target=self.meddle)
        thread.start()
        thread.join()
        return super().index(raw)


@pytest.mark.parametrize(
    ("rows", "meddle"),
    [
        pytest.param(GRID.copy(), lambda rows: rows.fill(5), id="fault_26 a matrix"),
        pytest.param(list(GRID.copy()), lambda rows: rows[0].fill(5), id="fault_26 arrays"),
        pytest.param(GRID.astype(object), lambda rows: rows.fill(5), id="fault_26 an object matrix"),
        pytest.param(
            [np.array([3, 5], dtype=object), [0, -7]], lambda rows: rows[0].fill(5), id="fault_26 object rows"
        ),
        pytest.param(GRID.tolist(), lambda rows: rows[1].clear(), id="fault_26 lists"),
        pytest.param(GRID.tolist(), lambda rows: rows.clear(), id="fault_26 the list of rows"),
    ],
)
def test_rows_are_copied_before_anything_looks_at_them(rows: Any, meddle: Callable[[Any], None]) -> None:
    items = Meddling(NUMBERS.all(), lambda: meddle(rows))
    numbered = number_rows(items, rows, "histories", "error")
    assert [row.tolist() for row in numbered.known.rows()] == [[3, 4], [2, 1]]


def test_fault_26_a_flat_array_is_copied_too() -> None:
    values = np.array([3, 5])
    assert number_list(Meddling(NUMBERS.all(), lambda: values.fill(0)), values, "available").tolist() == [3, 4]


def test_fault_25_the_callers_rows_are_not_changed() -> None:
    rows = [np.array([3, 5], dtype=object), [0, 99], GRID[0].copy()]
    number_rows(NUMBERS, rows, "histories", "drop")
    assert [list(row) for row in rows] == [[3, 5], [0, 99], [3, 5]]


# --- 27 and 45: other containers


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_fault_27_a_matrix_is_refused() -> None:
    with pytest.raises(InputError, match="is a matrix; pass a plain array"):
        number_rows(NUMBERS, np.asmatrix(GRID), "histories", "drop")


def test_fault_27_a_memmap_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", GRID)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    for rows in (mapped, list(mapped)):
        assert number_rows(NUMBERS, rows, "histories", "drop").known.values.tolist() == [3, 4, 2, 1]


def test_fault_45_tables_and_tensors_are_read_without_being_imported() -> None:
    torch = pytest.importorskip("torch")
    pandas = pytest.importorskip("pandas")
    polars = pytest.importorskip("polars")
    pyarrow = pytest.importorskip("pyarrow")
    for rows in (
        torch.from_numpy(GRID),
        list(torch.from_numpy(GRID)),
        pandas.DataFrame(GRID),
        pandas.Series(GRID.tolist()),
        polars.DataFrame(GRID),
        pyarrow.array(GRID.tolist()),
        [pyarrow.array([3, 5]), pandas.Series([0, -7])],
    ):
        assert number_rows(NUMBERS, rows, "histories", "drop").known.values.tolist() == [3, 4, 2, 1]
    for rows in (pandas.DataFrame({"id": ["a", "b"]}), [pandas.Series(["a"], dtype="string"), polars.Series(["b"])]):
        assert number_rows(WORDS, rows, "histories", "drop").known.values.tolist() == [1, 2]

import enum
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec.histories import ItemIds
from genrec_runtime import InputError, Unsupported
from genrec_runtime.manifest import Semantics
from genrec_runtime.requests import flag, list_length, number_list, number_rows, refuse, warn_if_foreign

WORDS = ItemIds(["a", "b", "c"])  # 1, 2, 3
NUMBERS = ItemIds([-7, 0, 3, 5, 2**62])  # 1, 2, 3, 4, 5
GRID = np.array([[3, 5], [0, -7]])
SEMANTICS = Semantics(0, 30, 6, "left", "keep_newest", "bucketed", 20, "lowest_index", "logit", None)


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
        pytest.param(NUMBERS, [[3, 9], [9]], [[3], []], id="01 an id of no item is dropped"),
        pytest.param(NUMBERS, [[-1, -7]], [[1]], id="02 a negative id is an id like another"),
        pytest.param(NUMBERS, [[-(2**63), 3]], [[3]], id="03 the smallest int64"),
        pytest.param(NUMBERS, [[0, 3, 0]], [[2, 3, 2]], id="04 zero is an id like another"),
        pytest.param(NUMBERS, GRID.astype(np.int32), [[3, 4], [2, 1]], id="05 int32"),
        pytest.param(NUMBERS, np.array([[3, 5]], np.uint64), [[3, 4]], id="06 uint64"),
        pytest.param(NUMBERS, np.array([[3, 2**63 + 5]], np.uint64), [[3]], id="06 uint64 beyond int64"),
        pytest.param(NUMBERS, np.array([[3, 5]], np.uint8), [[3, 4]], id="06 uint8"),
        pytest.param(NUMBERS, [[2**62, 2**63, 2**64, -(2**70)]], [[5]], id="10 ints beyond 64 bits"),
        pytest.param(NUMBERS, [[np.int16(3), 5]], [[3, 4]], id="10 numpy's ints among Python's"),
        pytest.param(WORDS, [["c", "a"], ["b"]], [[3, 1], [2]], id="11 strings"),
        pytest.param(WORDS, np.array([["c", "a"], ["b", "zz"]]), [[3, 1], [2]], id="11 an array of strings"),
        pytest.param(WORDS, [[np.str_("c"), Word("a")]], [[3, 1]], id="11 kinds of str"),
        pytest.param(WORDS, [["a", 3]], [[1]], id="11 an int among strings is unknown"),
        pytest.param(NUMBERS, [["3", 3]], [[3]], id="11 a string among ints is unknown"),
        pytest.param(WORDS, [[3, 5], np.array([3])], [[], []], id="11 ints to a catalogue of strings"),
        pytest.param(NUMBERS, object_rows(), [[3, 4], [2, 1]], id="13 an object array of rows"),
        pytest.param(NUMBERS, GRID.astype(object), [[3, 4], [2, 1]], id="13 an object matrix of ints"),
        pytest.param(NUMBERS, [np.array([3, 5], dtype=object)], [[3, 4]], id="13 an object row of ints"),
        pytest.param(NUMBERS, [[3], (5, 0), np.array([-7])], [[3], [4, 2], [1]], id="14 ragged rows of every kind"),
        pytest.param(NUMBERS, (), [], id="15 no rows"),
        pytest.param(NUMBERS, np.zeros((0, 4), np.int64), [], id="15 an array of no rows"),
        pytest.param(NUMBERS, [[], ()], [[], []], id="16 empty rows"),
        pytest.param(NUMBERS, [np.array([]), [3]], [[], [3]], id="16 an empty array is float64, yet a row"),
        pytest.param(NUMBERS, np.zeros((2, 0)), [[], []], id="16 an array of empty rows"),
        pytest.param(NUMBERS, [[3, 3, 3]], [[3, 3, 3]], id="22 an item several times"),
        pytest.param(NUMBERS, np.asfortranarray(GRID), [[3, 4], [2, 1]], id="23 Fortran order"),
        pytest.param(NUMBERS, np.repeat(GRID, 2, 1)[:, ::2], [[3, 4], [2, 1]], id="23 strided"),
        pytest.param(NUMBERS, GRID[::-1, ::-1], [[1, 2], [4, 3]], id="23 reversed views"),
        pytest.param(NUMBERS, GRID.astype(">i8"), [[3, 4], [2, 1]], id="24 big-endian matrix"),
        pytest.param(NUMBERS, [np.array([3, 5], ">i4")], [[3, 4]], id="24 big-endian row"),
        pytest.param(WORDS, np.array([["c"]], ">U1"), [[3]], id="24 big-endian strings"),
        pytest.param(NUMBERS, read_only(GRID.copy()), [[3, 4], [2, 1]], id="25 read-only"),
        pytest.param(NUMBERS, Tensor([[3, 5]]), [[3, 4]], id="45 a tensor of another library"),
        pytest.param(NUMBERS, [Tensor([3, 5]), [0]], [[3, 4], [2]], id="45 a row of another library"),
    ],
)
def test_rows_that_can_be_read_are_numbered(items: ItemIds, rows: Any, expected: list[list[int]]) -> None:
    numbered = number_rows(items, rows, "histories", "drop")
    assert [row.tolist() for row in numbered.known.rows()] == expected


@pytest.mark.parametrize(
    ("rows", "code", "message"),
    [
        pytest.param(np.array([[True, False]]), "id_type", r"histories\[0\] must hold ints .* got bool", id="07 bools"),
        pytest.param([[3], [5, True]], "id_type", r"histories\[1\]: .* got True \(bool, place 1\)", id="07 a bool"),
        pytest.param([[np.True_]], "id_type", r"histories\[0\]", id="07 numpy's bool"),
        pytest.param(np.array([[3.0]]), "id_type", r"got float64 np.float64\(3.0\)", id="08 whole floats"),
        pytest.param([[3, 3.7]], "id_type", r"got 3.7 \(float, place 1\)", id="08 a float"),
        pytest.param(np.array([[np.nan]]), "id_type", "got float64", id="09 NaN in an array"),
        pytest.param([[float("nan")]], "id_type", "got nan", id="09 NaN in a list"),
        pytest.param([[3, float("inf")]], "id_type", "got inf", id="09 inf"),
        pytest.param([[3, None]], "id_type", "got None", id="12 None"),
        pytest.param(np.array([[3, None]]), "id_type", "got None", id="13 None in an object array"),
        pytest.param(np.array([[3, 2.5]], dtype=object), "id_type", "got 2.5", id="13 a float in an object array"),
        pytest.param([[[3]]], "id_type", r"got \[3\]", id="13 a list inside a row"),
        pytest.param([[Code.A]], "id_type", "got <Code.A", id="13 an enumeration that is no string"),
        pytest.param([[b"a"]], "id_type", "got b'a'", id="11 bytes"),
        pytest.param(np.array([[b"a"]]), "id_type", "got |S1", id="11 an array of bytes"),
        pytest.param(np.array([["2020-01-01"]], "M8[ns]"), "id_type", "datetime64", id="13 dates are no ints"),
        pytest.param(np.zeros((1, 1), "i8,i8"), "id_type", "must hold ints", id="13 records"),
        pytest.param([3, 5], "shape", r"got 3; for one row pass \[histories\]", id="20 a flat list"),
        pytest.param(np.array([3, 5]), "shape", r"1 axes; for one row pass \[histories\]", id="20 a flat array"),
        pytest.param(["a", "b"], "shape", r"got 'a'; for one row pass \[histories\]", id="20 a flat list of strings"),
        pytest.param(np.array(["a", "b"], dtype=object), "shape", "for one row pass", id="20 a column of strings"),
        pytest.param(np.int64(3), "shape", "0 axes", id="20 a number"),
        pytest.param("abc", "shape", "list of rows of item ids, got str", id="11 a string"),
        pytest.param(None, "shape", "got NoneType", id="12 no rows at all"),
        pytest.param({"a": 1}, "shape", "got dict", id="13 a dictionary"),
        pytest.param([{3, 5}], "shape", r"histories\[0\] must be a list of item ids, got \{3, 5\}$", id="13 a set"),
        pytest.param(np.zeros((2, 3, 4), np.int64), "shape", "array of 3 axes", id="21 three axes"),
        pytest.param([GRID], "shape", r"histories\[0\] .* array of 2 axes", id="21 a row of two axes"),
        pytest.param(np.ma.masked_equal(GRID, 3), "shape", "is a MaskedArray; pass a plain array", id="27 masked"),
        pytest.param([np.ma.masked_equal([3, 5], 3)], "shape", "is a MaskedArray", id="27 a masked row"),
        pytest.param(OnAGpu(), "shape", "cannot be read as an array: can't convert cuda:0", id="45 a CUDA tensor"),
        pytest.param([OnAGpu()], "shape", r"histories\[0\] cannot be read", id="45 a CUDA tensor as a row"),
        pytest.param((row for row in [[3]]), "shape", "list of rows of item ids, got generator", id="46 a generator"),
        pytest.param([(i for i in [3])], "shape", r"histories\[0\] must be a list of .*generator", id="46 a row of it"),
    ],
)
def test_rows_that_cannot_be_read_are_refused_with_their_place(rows: Any, code: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        number_rows(NUMBERS, rows, "histories", "drop")
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_27_a_matrix_is_refused() -> None:
    with pytest.raises(InputError, match="is a matrix; pass a plain array"):
        number_rows(NUMBERS, np.asmatrix(GRID), "histories", "drop")


def test_27_a_memmap_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", GRID)
    numbered = number_rows(NUMBERS, np.load(tmp_path / "rows.npy", mmap_mode="r"), "histories", "drop")
    assert numbered.known.values.tolist() == [3, 4, 2, 1]


def test_45_tables_and_tensors_are_read_without_being_imported() -> None:
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


def test_25_the_callers_arrays_are_not_changed_and_26_not_shared() -> None:
    given = np.array([3, 5], dtype=object)
    rows = [given, [0]]
    numbered = number_rows(NUMBERS, rows, "histories", "drop")
    given[0] = 0
    assert numbered.known.values.tolist() == [3, 4, 2]
    assert rows[1] == [0]


def test_an_unknown_id_is_named_where_it_is_an_error() -> None:
    rows = [[3], [], np.array([5, 99, 98])]
    with pytest.raises(InputError, match=r"^histories\[2\] holds 99, which the catalogue does not have$") as caught:
        number_rows(NUMBERS, rows, "histories", "error")
    assert caught.value.code == "unknown_item"
    with pytest.raises(InputError, match=r"holds 'x{56}\.\.\."):
        number_rows(WORDS, [["x" * 10_000]], "histories", "error")


@pytest.mark.parametrize("value", ["Drop", "", None, True])
def test_on_unknown_is_one_of_two_words(value: Any) -> None:
    with pytest.raises(InputError, match="must be 'drop' or 'error'"):
        number_rows(NUMBERS, [[3]], "histories", value)


def test_dropped_ids_are_counted() -> None:
    numbered = number_rows(NUMBERS, [[3, 8], [9], []], "histories", "drop")
    assert (numbered.unknown, numbered.stranger) == (2, 8)
    assert numbered.given.tolist() == [2, 1, 0]
    assert number_rows(NUMBERS, [[3]], "histories", "drop").stranger is None


def test_a_flat_list_is_numbered_without_its_unknown_ids() -> None:
    assert number_list(NUMBERS, [5, 99, 3], "available").tolist() == [4, 3]
    assert number_list(NUMBERS, np.array([5]), "available").tolist() == [4]
    assert number_list(NUMBERS, [], "available").tolist() == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[3]], r"^available: an item id must be an int or a string, got \[3\]"),
        (np.array([[3]]), "^available must be a list of item ids, got an array of 2 axes$"),
        ({3, 5}, r"^available must be a list of item ids, got \{3, 5\}$"),
        ("3", "^available must be a list of item ids, got '3'$"),
    ],
    ids=["rows", "a matrix", "a set", "a string"],
)
def test_what_is_no_flat_list_is_refused(values: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        number_list(NUMBERS, values, "available")


def test_nearly_all_ids_unknown_is_warned_of_with_an_example_of_each_side() -> None:
    rows: list[list[Any]] = [["a", "b", *range(100, 120)]]
    message = r"^20 of 22 item ids are unknown to the bundle: got int like 100, the bundle has str like 'a'$"
    with pytest.warns(UserWarning, match=message) as caught:
        assert warn_if_foreign(WORDS, number_rows(WORDS, rows, "histories", "drop"), stacklevel=1)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("rows", [[["a"] * 3 + ["x"] * 17], [["x"] * 9], []], ids=["85 %", "few ids", "none"])
def test_some_unknown_ids_are_normal(rows: list[list[str]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not warn_if_foreign(WORDS, number_rows(WORDS, rows, "histories", "drop"), stacklevel=1)


@pytest.mark.parametrize(
    "k",
    [
        pytest.param(0, id="28 zero"),
        pytest.param(-1, id="29 negative"),
        pytest.param(True, id="33 a bool"),
        pytest.param(np.True_, id="33 numpy's bool"),
        pytest.param(10.0, id="33 a float"),
        pytest.param("10", id="33 a string"),
        pytest.param([5, 5], id="34 one a row"),
    ],
)
def test_k_must_be_a_whole_number_of_at_least_one(k: Any) -> None:
    for limited in (True, False):
        with pytest.raises(InputError, match=r"k \(.*\) must be a whole number of at least 1") as caught:
            list_length(k, SEMANTICS, limited=limited)
        assert caught.value.code == "k"


@pytest.mark.parametrize("k", [21, 2**31, 2**32 + 3, 2**62, 10**30], ids=["21", "31 2**31", "31", "32", "32 huge"])
def test_k_above_what_the_graph_gives_names_the_remedy(k: int) -> None:
    with pytest.raises(InputError, match=rf"k \({k}\) is above this bundle's 20; export with --k-max {k}"):
        list_length(k, SEMANTICS, limited=True)


def test_30_k_above_the_catalogue_gives_the_catalogue() -> None:
    whole = Semantics(0, 30, 6, "left", "keep_newest", "bucketed", 30, "lowest_index", "logit", None)
    assert [list_length(k, whole, limited=True) for k in (1, 30, 31, 2**32 + 3, 2**62)] == [1, 30, 30, 30, 30]
    assert [list_length(k, SEMANTICS, limited=False) for k in (20, 21, 2**62)] == [20, 21, 30]
    assert list_length(np.int64(10), SEMANTICS, limited=True) == 10


@pytest.mark.parametrize("value", ["no", 0, None, np.array([True])])
def test_a_flag_is_a_bool(value: Any) -> None:
    with pytest.raises(InputError, match=r"exclude_seen \(.*\) must be True or False"):
        flag(value, "exclude_seen")
    assert flag(np.True_, "exclude_seen") is True


def test_an_argument_that_the_model_does_not_take_is_refused_by_name() -> None:
    refuse(["users"], {"users": [1], "timestamps": None})
    with pytest.raises(Unsupported, match="takes no timestamps; it offers users"):
        refuse(["users"], {"timestamps": [[1]]})

"""Numbering, truncating, padding, and the files of a catalogue."""

import enum
import io
import pickle
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.histories import Catalogue, ItemIds, Ragged, offsets_of, read_npy

INT64_MAX = 2**63 - 1
int64s = st.integers(-(2**63), INT64_MAX)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)  # whatever can be written as UTF-8
rows_of_ints = st.lists(st.lists(int64s, max_size=6), max_size=6)


def catalogue(raw: list[Any], titles: tuple[str, ...] | None = None) -> Catalogue:
    return Catalogue(ItemIds(raw), np.arange(len(raw), 0, -1), titles)


def npy(array: Any, **settings: bool) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **settings)
    return buffer.getvalue()


# --- Ragged


@given(rows_of_ints)
def test_rows_come_back_as_they_were(rows: list[list[int]]) -> None:
    ragged = Ragged.from_rows(rows)
    assert [row.tolist() for row in ragged.rows()] == rows
    assert len(ragged) == len(rows)
    assert ragged.lengths.tolist() == [len(row) for row in rows]
    assert ragged.values.dtype == ragged.offsets.dtype == np.int64
    assert ragged.offsets[0] == 0
    assert ragged.offsets[-1] == sum(map(len, rows))


def test_rows_may_be_arrays_of_any_whole_type_or_a_generator() -> None:
    rows: list[Any] = [
        np.array([1, 2], dtype=np.uint8),
        np.array([3], dtype=">i4"),
        np.array([INT64_MAX], dtype=np.uint64),
        (),
    ]
    assert [row.tolist() for row in Ragged.from_rows(iter(rows)).rows()] == [[1, 2], [3], [INT64_MAX], []]


@pytest.mark.parametrize(
    "row", [[1, 2.5], np.array([1.0]), [True], ["7"], [None], [2**63], np.array([2**63], np.uint64), [2**64]]
)
def test_rows_of_anything_else_are_refused_and_never_rounded(row: Any) -> None:
    with pytest.raises(TypeError, match="row 1 must hold whole numbers of 64 bits"):
        Ragged.from_rows([[1], row])


def test_rows_of_more_axes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"row 0 must have one axis, not shape \(1, 2\)"):
        Ragged.from_rows([np.ones((1, 2), np.int64)])


@given(rows_of_ints, st.data())
def test_slices_are_those_of_the_rows(rows: list[list[int]], data: st.DataObject) -> None:
    picks = data.draw(st.lists(st.sampled_from(range(len(rows))))) if rows else []
    bounds = [sorted(data.draw(st.tuples(*[st.integers(0, len(rows[i]))] * 2))) for i in picks]
    starts, ends = (np.array([bound[side] for bound in bounds], dtype=np.int64) for side in (0, 1))
    sliced = Ragged.from_rows(rows).slices(np.array(picks, dtype=np.int64), starts, ends)
    expected = [rows[i][start:end] for i, (start, end) in zip(picks, bounds, strict=True)]
    assert [row.tolist() for row in sliced.rows()] == expected


@given(rows_of_ints, st.integers(0, 8))
def test_truncation_keeps_the_newest(rows: list[list[int]], length: int) -> None:
    kept = [row.tolist() for row in Ragged.from_rows(rows).newest(length).rows()]
    assert kept == [row[max(len(row) - length, 0) :] for row in rows]


@given(rows_of_ints, st.one_of(st.none(), st.integers(0, 8)))
def test_padding_puts_zeros_on_its_side(rows: list[list[int]], length: int | None) -> None:
    ragged = Ragged.from_rows(rows)
    width = max(map(len, rows), default=0) if length is None else length
    kept = [row[max(len(row) - width, 0) :] for row in rows]
    left, right = ragged.pad(length), ragged.pad(length, side="right")
    assert left.shape == right.shape == (len(rows), width)
    assert left.dtype == right.dtype == np.int64
    assert left.tolist() == [[0] * (width - len(row)) + row for row in kept]
    assert right.tolist() == [row + [0] * (width - len(row)) for row in kept]


def test_padding_by_hand() -> None:
    ragged = Ragged.from_rows([[1, 2, 3], [], [4]])
    assert ragged.pad(2).tolist() == [[2, 3], [0, 0], [0, 4]]
    assert ragged.pad(2, side="right").tolist() == [[2, 3], [0, 0], [4, 0]]


def test_padding_does_not_touch_the_values() -> None:
    ragged = Ragged.from_rows([[1, 2, 3]])
    ragged.pad(3)[0, 0] = 9
    assert ragged.values.tolist() == [1, 2, 3]


def test_an_unknown_side_and_a_negative_length_are_refused() -> None:
    ragged = Ragged.from_rows([[1]])
    with pytest.raises(ValueError, match=r"side \('top'\) must be 'left' or 'right'"):
        ragged.pad(2, side="top")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match=r"length \(-1\) must not be negative"):
        ragged.pad(-1)
    with pytest.raises(ValueError, match=r"length \(-1\) must not be negative"):
        ragged.newest(-1)


def test_offsets_are_the_running_sum() -> None:
    assert offsets_of(np.array([], dtype=np.int64)).tolist() == [0]
    assert offsets_of(np.array([3, 0, 2])).tolist() == [0, 3, 3, 5]


# --- ItemIds


@given(st.one_of(st.lists(int64s, min_size=1, unique=True), st.lists(texts, min_size=1, unique=True)))
def test_numbers_follow_the_sorted_raw_ids(raw: list[Any]) -> None:
    items = ItemIds(raw)
    assert items.all() == sorted(raw)
    assert len(items) == len(raw)
    numbers = items.index(raw)
    assert numbers.dtype == np.int64
    assert numbers.tolist() == [sorted(raw).index(one) + 1 for one in raw]
    assert items.raw(numbers) == raw
    assert items == ItemIds(raw[::-1])
    np.testing.assert_array_equal(items.index(np.array(raw, dtype=object)), numbers)


@given(st.lists(int64s, min_size=1, unique=True), st.lists(st.integers(-(2**70), 2**70)))
def test_any_int_is_found_or_unknown(raw: list[int], asked: list[int]) -> None:
    items = ItemIds(raw)
    expected = [sorted(raw).index(one) + 1 if one in raw else 0 for one in [*asked, *raw]]
    assert items.index([*asked, *raw]).tolist() == expected


@given(st.lists(int64s, min_size=1, max_size=4, unique=True), st.data())
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", ">i4", "uint32", "int64", ">i8", "uint64", ">u8"])
def test_arrays_of_any_width_and_sign_are_found_exactly(dtype: str, raw: list[int], data: st.DataObject) -> None:
    limits = np.iinfo(dtype)
    values = st.one_of(st.sampled_from(raw), st.integers(int(limits.min), int(limits.max)))
    asked = [one for one in data.draw(st.lists(values)) if limits.min <= one <= limits.max]
    expected = [sorted(raw).index(one) + 1 if one in raw else 0 for one in asked]
    assert ItemIds(raw).index(np.array(asked, dtype=dtype)).tolist() == expected


def test_unsigned_ids_beyond_the_precision_of_floats_are_told_apart() -> None:
    raw = [2**60 + i for i in range(9)]
    assert ItemIds(raw).index(np.array(raw, dtype=np.uint64)).tolist() == list(range(1, 10))
    for dtype in ("<u8", ">u8"):
        assert ItemIds([-1, 5]).index(np.array([2**64 - 1, 5], dtype=dtype)).tolist() == [0, 2]


def test_ids_of_the_other_kind_are_unknown() -> None:
    assert ItemIds([1, 2]).index(["1", 2, "x"]).tolist() == [0, 2, 0]
    assert ItemIds(["1", "2"]).index([1, "2"]).tolist() == [0, 2]
    assert ItemIds(["1", "2"]).index(np.array([1, 2])).tolist() == [0, 0]
    assert ItemIds([1, 2]).index(np.array(["1", "2"])).tolist() == [0, 0]


class Number(enum.IntEnum):
    SEVEN = 7


class Word(str, enum.Enum):  # noqa: UP042  # whose str() is "Word.A", not its text
    A = "a"


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        (np.array([3, 1], dtype=np.uint16), [1, 3]),
        ([np.int32(3), 1], [1, 3]),
        (np.array(["b", "a"]), ["a", "b"]),
        ([np.str_("b"), "a"], ["a", "b"]),
        (("b", "a"), ["a", "b"]),
        (iter([2, 1]), [1, 2]),
        ([Number.SEVEN, 5], [5, 7]),
        ([Word.A, "b"], ["a", "b"]),
    ],
)
def test_raw_ids_become_plain_python_values(raw: Any, plain: list[Any]) -> None:
    items = ItemIds(raw)
    assert items.all() == plain
    assert {type(one) for one in items.all()} <= {int, str}
    assert items.kind == ("int" if isinstance(plain[0], int) else "str")


def test_numpy_and_enum_values_are_found() -> None:
    assert ItemIds([5, 7]).index([np.int8(5), Number.SEVEN, np.uint64(2**64 - 1)]).tolist() == [1, 2, 0]
    assert ItemIds(["a", "b"]).index([np.str_("b"), Word.A]).tolist() == [2, 1]
    assert ItemIds(["a", "b"]).index(np.array(["b", "c"])).tolist() == [2, 0]


def test_strings_are_sorted_by_code_point_and_told_apart_by_it() -> None:
    composed, decomposed = "\u00e9", "e\u0301"
    raw = ["b", "B", "10", "9", "", composed, decomposed, "\U0001f600", "\uffff", "a\x00"]
    items = ItemIds(raw)
    assert items.all() == ["", "10", "9", "B", "a\x00", "b", decomposed, composed, "\uffff", "\U0001f600"]
    assert items.index(["a", "a\x00"]).tolist() == [0, 5]


@pytest.mark.parametrize("bad", [True, np.bool_(False), 1.0, np.float64(2), None, b"a", (1,), [1]])
def test_ids_of_other_types_are_refused_with_their_place(bad: Any) -> None:
    with pytest.raises(TypeError, match=r"an item id must be an int or a string, got .*place 1\)"):
        ItemIds([5, bad])
    for items in (ItemIds([5]), ItemIds(["5"])):
        with pytest.raises(TypeError, match=r"an item id must be an int or a string, got .*place 1\)"):
            items.index([5, bad])


@pytest.mark.parametrize("array", [np.array([True]), np.array([1.0]), np.array([b"a"])])
def test_arrays_of_other_types_are_refused(array: Any) -> None:
    with pytest.raises(TypeError, match="an item id must be an int or a string"):
        ItemIds(array)
    with pytest.raises(TypeError, match="an item id must be an int or a string"):
        ItemIds([1]).index(array)


def test_mixed_kinds_are_refused() -> None:
    with pytest.raises(TypeError, match=r"item ids must be all ints or all strings: 1 and 'a' \(place 2\)"):
        ItemIds([1, 2, "a"])


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([], "a catalogue needs at least one item"),
        ([3, 1, 3], "item id 3 occurs twice"),
        (["a", "a"], "item id 'a' occurs twice"),
        ([1, 2**63], f"integer item ids must fit 64 bits, got 1 to {2**63}"),
        ([-(2**63) - 1], "integer item ids must fit 64 bits"),
    ],
)
def test_catalogues_that_cannot_be_numbered_are_refused(raw: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ItemIds(raw)


def test_the_given_list_is_left_as_it_was() -> None:
    raw = [3, 1, 2]
    items = ItemIds(raw)
    assert raw == [3, 1, 2]
    items.all().append(9)
    assert items.all() == [1, 2, 3]


@pytest.mark.parametrize("number", [0, 3, -1])
def test_numbers_outside_the_catalogue_are_refused(number: int) -> None:
    with pytest.raises(IndexError, match=r"item numbers must lie in 1..2, got"):
        ItemIds(["a", "b"]).raw([1, number])


def test_numbers_that_are_not_whole_are_refused() -> None:
    with pytest.raises(TypeError, match="item numbers must hold whole numbers"):
        ItemIds(["a", "b"]).raw([1.7])  # type: ignore[list-item]  # wrong on purpose
    assert ItemIds(["a", "b"]).raw([]) == []


def test_catalogues_are_equal_by_content_and_cannot_be_hashed() -> None:
    assert ItemIds([1, 2]) == ItemIds([2, 1])
    assert ItemIds([1, 2]) != ItemIds(["1", "2"])
    assert ItemIds([1]) != [1]
    with pytest.raises(TypeError, match="unhashable"):
        hash(ItemIds([1]))


def test_an_empty_request_gives_no_numbers() -> None:
    for items in (ItemIds([1]), ItemIds(["a"])):
        nothings: list[Any] = [[], np.array([]), np.array([], dtype=np.int64)]
        for nothing in nothings:
            numbers = items.index(nothing)
            assert numbers.shape == (0,)
            assert numbers.dtype == np.int64


# --- Catalogue


@given(
    st.one_of(
        st.lists(int64s, min_size=1, max_size=6, unique=True), st.lists(texts, min_size=1, max_size=6, unique=True)
    ),
    st.data(),
)
def test_a_catalogue_comes_back_from_its_files(raw: list[Any], data: st.DataObject) -> None:
    count = len(raw)
    titles = data.draw(st.one_of(st.none(), st.lists(texts, min_size=count, max_size=count).map(tuple)))
    order = np.array(data.draw(st.permutations(range(1, count + 1))))
    files = Catalogue(ItemIds(raw), order, titles).files()
    opened = Catalogue.from_files(files)
    assert opened.items == ItemIds(raw)
    assert opened.items.kind == ItemIds(raw).kind
    assert opened.cold_start.tolist() == order.tolist()
    assert opened.titles == titles
    assert opened.files() == files
    assert all(isinstance(content, bytes) for content in files.values())


def test_the_file_names_are_those_of_the_design() -> None:
    assert sorted(catalogue([1, 2]).files()) == ["cold_start.npy", "items.npy"]
    assert sorted(catalogue(["a"], titles=("A",)).files()) == [
        "cold_start.npy",
        "items.offsets.npy",
        "items.utf8",
        "titles.offsets.npy",
        "titles.utf8",
    ]


def test_a_cold_start_list_of_narrow_ints_is_written_wide() -> None:
    narrow = Catalogue(ItemIds([1, 2]), np.array([2, 1], dtype=np.int16))
    assert Catalogue.from_files(narrow.files()).cold_start.dtype == np.int64


@pytest.mark.parametrize("order", [[1], [1, 2, 2], [0, 1, 2], [1, 2, 4], [1.5, 2, 3], [[1, 2, 3]], []])
def test_a_cold_start_list_that_is_no_permutation_is_refused(order: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"cold_start must hold each of the numbers 1..3 once"):
        Catalogue(ItemIds([1, 2, 3]), np.array(order))


def test_too_few_titles_are_refused() -> None:
    with pytest.raises(ValueError, match="there are 1 titles for 2 items"):
        catalogue([1, 2], titles=("A",))


def test_titles_stand_by_number_and_fall_back_to_the_raw_id() -> None:
    assert [catalogue([20, 10], titles=("ten", "twenty")).title(i) for i in (1, 2)] == ["ten", "twenty"]
    assert [catalogue([20, 10]).title(i) for i in (1, 2)] == ["10", "20"]


@pytest.mark.parametrize("titles", [None, ("A", "B")])
@pytest.mark.parametrize("index", [0, -1, 3])
def test_the_title_of_no_item_is_refused(titles: tuple[str, ...] | None, index: int) -> None:
    with pytest.raises(IndexError, match=r"item numbers must lie in 1..2"):
        catalogue([1, 2], titles).title(index)


class Boom:
    def __reduce__(self) -> Any:
        return pytest.fail, ("a file was unpickled",)


PICKLES = {
    "a pickle": pickle.dumps(Boom()),
    "an object array": npy(np.array([Boom()], dtype=object), allow_pickle=True),
}


@pytest.mark.parametrize("content", PICKLES.values(), ids=PICKLES)
@pytest.mark.parametrize("name", ["items.npy", "cold_start.npy", "titles.offsets.npy"])
def test_pickles_are_refused_and_never_run(name: str, content: bytes) -> None:
    files = catalogue([1, 2], titles=("A", "B")).files() | {name: content}
    with pytest.raises(ValueError, match=f"{name} is not a plain array file"):
        Catalogue.from_files(files)


def archive() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.arange(3))
    return buffer.getvalue()


DAMAGED = {
    "empty": b"",
    "text": b"1\n2\n",
    "cut in the header": npy(np.arange(2))[:50],
    "cut in the values": npy(np.arange(2))[:-1],
    "more than its values": npy(np.arange(2)) + b"x",
    "an archive": archive(),
    "a broken archive": b"PK\x03\x04" + bytes(50),
    "a header without end": npy(np.arange(2))[:10] + b"{'descr': (((" + bytes(105),
    "a shape beyond all memory": npy(np.arange(2)).replace(
        b"'shape': (2,), }         ", b"'shape': (9000000000000,),}"
    ),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("name", ["items.npy", "cold_start.npy"])
def test_damaged_arrays_are_refused_by_name(name: str, content: bytes) -> None:
    with pytest.raises(ValueError, match=f"{name} is not a plain array file"):
        Catalogue.from_files(catalogue([1, 2]).files() | {name: content})


def test_the_samples_of_damage_are_what_they_say() -> None:
    assert zipfile.is_zipfile(io.BytesIO(DAMAGED["an archive"]))
    assert b"9000000000000" in DAMAGED["a shape beyond all memory"]


@pytest.mark.parametrize("name", sorted(catalogue(["a"], ("A",)).files()))
def test_a_missing_file_is_named(name: str) -> None:
    files = catalogue(["a", "b"], ("A", "B")).files()
    del files[name]
    with pytest.raises(ValueError, match=f"{name} is missing"):
        Catalogue.from_files(files)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"items.npy": npy(np.array([2, 1]))}, "the item ids of the catalogue are not sorted"),
        ({"items.npy": npy(np.array([1, 1]))}, "item id 1 occurs twice"),
        ({"items.npy": npy(np.array([], np.int64))}, "a catalogue needs at least one item"),
        ({"items.npy": npy(np.array([1, 2], np.int32))}, "items.npy must be int64 of one axis, not int32 of 1"),
        ({"items.npy": npy(np.array([[1, 2]]))}, "items.npy must be int64 of one axis, not int64 of 2"),
        ({"items.npy": npy(np.array([1, 2, 3]))}, "cold_start must hold each of the numbers 1..3 once"),
        ({"cold_start.npy": npy(np.array([1.5, 2.5]))}, "cold_start.npy must be int64 of one axis, not float64 of 1"),
        ({"cold_start.npy": npy(np.int64(1))}, "cold_start.npy must be int64 of one axis, not int64 of 0"),
        ({"cold_start.npy": npy(np.array([1, 1]))}, "cold_start must hold each of the numbers 1..2 once"),
        ({"titles.utf8": b"AB", "titles.offsets.npy": npy(np.array([0, 2]))}, "there are 1 titles for 2 items"),
    ],
)
def test_files_that_contradict_each_other_are_refused(changes: dict[str, bytes], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Catalogue.from_files(catalogue([1, 2]).files() | changes)


@pytest.mark.parametrize(
    "offsets", [[], [0], [1, 3, 5], [0, 4, 3, 5], [0, 2], [0, 2, 6], [0, -1, 5], [[0, 2], [2, 5]], [0.0, 2.0, 5.0]]
)
def test_offsets_that_do_not_fit_the_text_are_refused(offsets: list[Any]) -> None:
    files = catalogue(["ab", "cde"]).files()
    assert files["items.utf8"] == b"abcde"
    array = np.array(offsets) if offsets else np.array([], np.int64)
    with pytest.raises(ValueError, match=r"items.offsets.npy (does not fit items.utf8|must be int64 of one axis)"):
        Catalogue.from_files(files | {"items.offsets.npy": npy(array)})


def test_text_that_is_no_utf8_is_refused_by_name() -> None:
    files = catalogue(["ab", "cde"]).files()
    with pytest.raises(ValueError, match=r"items\.utf8 is no text"):
        Catalogue.from_files(files | {"items.utf8": b"ab\xff\xfee"})
    files = catalogue(["é", "ê"]).files()
    with pytest.raises(ValueError, match=r"items\.offsets\.npy cuts its letters"):
        Catalogue.from_files(files | {"items.offsets.npy": npy(np.array([0, 1, 4]))})


@given(st.data())
def test_any_changed_byte_is_refused_or_gives_a_whole_catalogue(data: st.DataObject) -> None:
    files = catalogue(["ab", "cde"], titles=("A", "B")).files()
    name = data.draw(st.sampled_from(sorted(files)))
    content = bytearray(files[name])
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        opened = Catalogue.from_files(files | {name: bytes(content)})
    except ValueError:
        return
    assert len(opened.items) == len(opened.cold_start) == len(opened.titles or ()) == 2
    assert opened.items.all() == sorted(opened.items.all())


def test_an_array_is_read_whatever_its_type() -> None:
    for array in (np.arange(3, dtype=">i4"), np.zeros((2, 0), np.float32), np.array(["a", "bc"])):
        np.testing.assert_array_equal(read_npy({"x.npy": npy(array)}, "x.npy"), array)
    with pytest.raises(ValueError, match=r"x.npy is missing"):
        read_npy({}, "x.npy")

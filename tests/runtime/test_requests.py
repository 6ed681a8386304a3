import warnings
from typing import Any

import numpy as np
import pytest

from genrec.histories import ItemIds
from genrec_runtime import InputError, Unsupported
from genrec_runtime.manifest import Semantics
from genrec_runtime.requests import flag, number_list, number_rows, refuse, warn_if_foreign

WORDS = ItemIds(["a", "b", "c"])  # 1, 2, 3
NUMBERS = ItemIds([-7, 0, 3, 5, 2**62])  # 1, 2, 3, 4, 5
GRID = np.array([[3, 5], [0, -7]])
SEMANTICS = Semantics(0, 30, 6, "left", "keep_newest", "bucketed", 20, "lowest_index", "logit", None)


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


@pytest.mark.parametrize("value", ["no", 0, None, np.array([True])])
def test_a_flag_is_a_bool(value: Any) -> None:
    with pytest.raises(InputError, match=r"exclude_seen \(.*\) must be True or False"):
        flag(value, "exclude_seen")
    assert flag(np.True_, "exclude_seen") is True


def test_an_argument_that_the_model_does_not_take_is_refused_by_name() -> None:
    refuse(["users"], {"users": [1], "timestamps": None})
    with pytest.raises(Unsupported, match="takes no timestamps; it offers users"):
        refuse(["users"], {"timestamps": [[1]]})

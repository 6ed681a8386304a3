import ast
import copy
import inspect
import pickle
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import genrec_runtime
from genrec_runtime import errors

PACKAGE = Path(inspect.getfile(genrec_runtime)).parent
PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
CLASSES = {
    name: kind
    for name, kind in vars(errors).items()
    if getattr(kind, "__module__", "") == errors.__name__ and inspect.isclass(kind)
}


def codes_raised() -> set[str]:
    """Every code that the package gives an error, read from its source."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "code":
                passed_on = ast.Name | ast.Attribute
                assert isinstance(node.value, ast.Constant | passed_on), f"{path}:{node.value.lineno}"
                if isinstance(node.value, ast.Constant):
                    found.add(node.value.value)
    return found | {kind.code for kind in CLASSES.values()}


def documented() -> list[tuple[str, str]]:
    """The code and the class of each row of the page's tables."""
    return re.findall(r"^\| `(\w+)` \| `(\w+)` \|", PAGE.read_text(), flags=re.MULTILINE)


def test_the_page_has_every_code_once_and_no_other() -> None:
    codes = [code for code, _ in documented()]
    assert sorted(codes) == sorted(codes_raised())


def test_the_page_has_every_class_and_no_other() -> None:
    assert {name for _, name in documented()} == set(CLASSES)
    tree = PAGE.read_text().split("```")[1]
    assert set(re.findall(r"^(?:.*── )?(\w+)", tree.strip(), flags=re.MULTILINE)) == set(CLASSES)


def test_each_class_is_public_and_has_the_code_that_the_page_gives_it() -> None:
    for code, name in documented():
        assert name in genrec_runtime.__all__
        if code in {kind.code for kind in CLASSES.values()}:
            assert CLASSES[name].code == code


def test_a_finer_code_belongs_to_one_error_and_the_class_keeps_its_own() -> None:
    assert errors.InputError("x").code == "input"
    assert errors.InputError("x", code="k").code == "k"
    assert errors.InputError.code == "input"
    assert str(errors.InputError("x", code="k")) == "x"


@pytest.mark.parametrize("kind", CLASSES.values())
def test_every_error_of_ours_is_a_genrec_error(kind: type[errors.GenrecError]) -> None:
    assert issubclass(kind, errors.GenrecError)
    assert issubclass(kind, ValueError) == (kind is errors.InputError)


@pytest.mark.parametrize(
    "send", [lambda error: pickle.loads(pickle.dumps(error)), copy.deepcopy], ids=["pickle", "copy"]
)
@pytest.mark.parametrize("kind", CLASSES.values())
def test_errors_travel_between_processes(kind: type[errors.GenrecError], send: Callable[[Exception], Any]) -> None:
    for error in (kind("what was wrong"), kind("what was wrong", code="finer")):
        error.add_note("seen by the sender")
        arrived = send(error)
        assert type(arrived) is kind
        assert (str(arrived), arrived.code) == ("what was wrong", error.code)
        assert arrived.__notes__ == ["seen by the sender"]
    if kind is errors.InputError:
        arrived = send(errors.InputError("x", code="k", row=3, field="histories", value=2.5))
        assert (arrived.code, arrived.row, arrived.field, arrived.value) == ("k", 3, "histories", 2.5)


class Shy:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (7, 7),
        ("text", "text"),
        (None, None),
        (True, True),
        (np.int8(7), 7),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("text"), "text"),
        (np.array([1, 2]), "array([1, 2])"),
        ([1] * 99, "[" + "1, " * 18 + "1,..."),
        (Shy(), "<Shy>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_errors_value_is_plain_and_can_be_sent(given: Any, kept: Any) -> None:
    error = errors.InputError("x", value=given)
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived.value) in (int, float, bool, str, type(None))
    assert arrived.value == kept
    assert (error.row, error.field) == (None, None)


def test_an_error_of_what_cannot_be_sent_can_be_sent() -> None:
    error = errors.InputError("x", value=threading.Lock())
    assert re.fullmatch("<unlocked .*", pickle.loads(pickle.dumps(error)).value)


def test_a_value_is_shown_on_one_short_line() -> None:
    assert errors.short("a\nb") == r"'a\nb'"
    assert errors.short(np.zeros((2, 2))) == "array([[0., 0.], [0., 0.]])"
    assert errors.short(10**5000) == "<int>"
    assert errors.short("x" * 99) == "'" + "x" * 56 + "..."

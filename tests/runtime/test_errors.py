import ast
import inspect
import re
from pathlib import Path

import pytest

import genrec_runtime
from genrec_runtime import errors

PACKAGE = Path(inspect.getfile(genrec_runtime)).parent
PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
CLASSES = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind)}


def codes_raised() -> set[str]:
    """Every code that the package gives an error, read from its source."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "code":
                assert isinstance(node.value, ast.Constant | ast.Name), f"{path}:{node.value.lineno}"
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
    assert set(re.findall(r"[A-Z]\w+Error|Unsupported|DeviceUnavailable|Bundle\w+", tree)) - {"ValueError"} == set(
        CLASSES
    )


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

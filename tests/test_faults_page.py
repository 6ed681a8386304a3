"""docs/faults.md is held to the code and to the tests: numbers, errors, and a test for every fault that is said to be built."""

import ast
import functools
import re
from pathlib import Path
from typing import NamedTuple

from genrec_export import ExportError

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
PARTS = {"A. Requests": range(1, 50), "B. Bundle": range(50, 81), "C. Process, device, deployment": range(81, 121)}
STATUS = ("built",)
PLAIN = {
    f"`{kind.__name__}`"
    for kind in (ExportError, KeyboardInterrupt, TypeError, ValueError, RuntimeWarning, UserWarning)
}


class Fault(NamedTuple):
    """A row of the page."""

    number: int
    fault: str
    done: str
    raised: str
    status: str


def read_rows(text: str) -> list[Fault]:
    """The rows of a page's tables."""
    cells = (line.strip().strip("|").split("|") for line in text.splitlines() if re.match(r"\| \d", line))
    return [Fault(int(number), *(cell.strip() for cell in rest)) for number, *rest in cells]


def read_numbers(source: str) -> set[int]:
    """The faults that a test file names, in its tests' names and in ids of their parameters; prose does not count."""
    prose, said = set(), []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            said.append(node.name)
        elif isinstance(node, ast.Expr):
            prose.add(node.value)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in prose:
            said.append(node.value)
    return {int(number) for text in said for number in re.findall(r"(?:^|_)fault_(\d+)", text)}


PAGE = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
FAULTS = read_rows(PAGE)


@functools.cache
def files_by_number() -> dict[int, list[str]]:
    """By fault the test files that name it."""
    found: dict[int, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        if path != Path(__file__).resolve():
            for number in read_numbers(path.read_text(encoding="utf-8")):
                found.setdefault(number, []).append(str(path.relative_to(ROOT)))
    return found


def test_every_number_stands_once_and_in_its_part() -> None:
    found = {part.partition("\n")[0]: read_rows(part) for part in PAGE.split("\n## ")[1:]}
    assert {title: [fault.number for fault in rows] for title, rows in found.items()} == {
        title: list(numbers) for title, numbers in PARTS.items()
    }


def test_every_row_says_what_happens_and_where_it_stands() -> None:
    unfinished = [f.number for f in FAULTS if not f.fault.endswith(".") or not f.done.endswith(".")]
    assert unfinished == []
    assert {f.status for f in FAULTS} == set(STATUS)


def test_every_error_named_exists_and_has_the_class_that_the_errors_page_gives_it() -> None:
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    documented = {f"`{name}` `{code}`" for code, name in re.findall(r"^\| `(\w+)` \| `(\w+)` \|", text, re.MULTILINE)}
    named = {error: fault.number for fault in FAULTS for error in fault.raised.split("; ") if error}
    assert {error: number for error, number in named.items() if error not in documented | PLAIN} == {}


def test_every_fault_that_is_built_has_a_test_of_its_number() -> None:
    missing = [fault.number for fault in FAULTS if fault.status == "built" and fault.number not in files_by_number()]
    assert missing == []


def test_no_fault_that_has_a_test_is_said_not_to_be_built() -> None:
    assert {
        f.number: files_by_number()[f.number] for f in FAULTS if f.status != "built" and f.number in files_by_number()
    } == {}


def test_no_test_names_a_fault_that_is_not_on_the_page() -> None:
    assert {
        number: files for number, files in files_by_number().items() if number not in {f.number for f in FAULTS}
    } == {}


def test_numbers_are_read_from_names_and_ids_and_not_from_prose() -> None:
    source = '''
"""fault_1"""
CASES = {"fault_07 raw ids": 1}  # fault_2
@pytest.mark.parametrize("x", [pytest.param(1, id="fault_100")], ids=["fault_8", "default_9"])
def test_fault_053_bits(x):
    """fault_3"""
    def test_inner(): ...
def helper_fault_4(): "fault_5"
def test_default_6(): ...
'''
    assert read_numbers(source) == {7, 100, 8, 53}

"""The list of mends names tests that exist, for every mend from 1 to 27 in order."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROW = re.compile(r"^\| (\d+) \|.*\| ([^|]+) \|$", re.MULTILINE)
NAME = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows() -> list[tuple[int, list[tuple[str, str]]]]:
    """Each mend's number with the tests named for it, as (file, function)."""
    text = (ROOT / "docs" / "spec-mends.md").read_text(encoding="utf-8")
    return [(int(number), NAME.findall(named)) for number, named in ROW.findall(text)]


def functions(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_mend_is_listed_in_order_and_names_a_test() -> None:
    listed = rows()
    assert [number for number, _ in listed] == list(range(1, 27 + 1))
    assert [number for number, named in listed if not named] == []


def test_every_named_test_exists_and_bears_its_mends_number() -> None:
    for number, named in rows():
        for file, name in named:
            assert name in functions(file), f"{file}::{name}"
            assert name.startswith(f"test_mend_{number:02}_"), f"{file}::{name}"


def test_every_test_of_a_mend_in_the_files_is_of_a_listed_mend() -> None:
    listed = {number for number, _ in rows()}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for name in functions(str(path.relative_to(ROOT))):
            if found := re.match(r"test_mend_(\d+)_", name):
                assert int(found[1]) in listed, f"{path.name}::{name}"

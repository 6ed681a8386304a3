"""docs/security.md is held to the code: its codes, limits, operators, and the faults that it leans on."""

import importlib
import re

import pytest

from format_page import ROOT
from genrec_runtime.graphcheck import MICROSOFT, OPERATORS

PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def rows(title: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    part = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    return [line.strip("|").split("|") for line in part.splitlines() if line.startswith("|")][2:]


@pytest.mark.parametrize("row", rows("Limits"), ids=lambda row: row[2].strip())
def test_a_limit_is_the_one_that_the_code_keeps(row: list[str]) -> None:
    module, _, name = row[2].strip(" `").partition(".")
    stated = int(re.sub(r"\D", "", row[1]))
    assert getattr(importlib.import_module(f"genrec_runtime.{module}"), name) == stated


def test_every_code_is_an_error_of_ours() -> None:
    documented = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "errors.md").read_text(encoding="utf-8"), re.MULTILINE)
    named = {code for row in rows("What is defended") for code in re.findall(r"`(\w+)`", row[2])}
    assert named
    assert named <= set(documented)


def test_every_fault_has_tests_of_its_number() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    held = {int(number) for number in re.findall(r"fault_(\d+)", sources)}
    named = {int(number) for row in rows("What is defended") for number in re.findall(r"\d+", row[3])}
    assert named <= set(range(50, 81))
    assert named <= held


def test_the_operators_of_one_variant_are_named() -> None:
    part = PAGE.split("## Operators\n")[1].split("\n## ")[0]
    assert {MICROSOFT, *OPERATORS[MICROSOFT]} <= set(re.findall(r"`([\w.]+)`", part))


@pytest.mark.parametrize("path", sorted({*re.findall(r"\((\w+\.md)", PAGE), *re.findall(r"`(tests/[\w/.]+)`", PAGE)}))
def test_what_the_page_points_to_is_there(path: str) -> None:
    assert (ROOT / path if path.startswith("tests/") else ROOT / "docs" / path).exists()

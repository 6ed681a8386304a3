"""docs/format.md, taken apart for the tests that hold it to the code, and manifests made by its words."""

import json
import re
from pathlib import Path
from typing import Any

from frozen.second_reader import bundle_id, content_id

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
FROZEN = ROOT / "tests" / "frozen" / "1.0"


def section(title: str) -> str:
    """What stands under a heading, up to the next."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#{{1,3}} |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/format.md has no heading {title!r}"
    return found[1]


def table(title: str, first: str) -> list[dict[str, str]]:
    """The rows of the section's table whose first column is called ``first``, each by column."""
    found = re.search(rf"^\| {re.escape(first)} \|(?:.*\|\n)+", section(title), re.MULTILINE)
    assert found, f"docs/format.md has no table of {first!r} under {title!r}"
    head, _, *rows = ([cell.strip() for cell in line[1:-1].split("|")] for line in found[0].splitlines())
    return [dict(zip(head, row, strict=True)) for row in rows]


def blocks(title: str) -> list[str]:
    """The fenced blocks of a section."""
    return re.findall(r"^```\w*\n(.*?)^```", section(title), re.MULTILINE | re.DOTALL)


def with_variant(bundle: Path) -> dict[str, Any]:
    """A bundle's manifest as JSON values, to be changed, with a variant that needs nothing but the card."""
    data = json.loads((bundle / "manifest.json").read_bytes())
    data["variants"] = {"half": {"files": ["README.md"], "tolerance": {"atol": 0, "rtol": 0.5}, "k": 3, "gate": 0.5}}
    return data


def at(data: Any, place: tuple[str | int, ...]) -> Any:
    """A part of JSON values."""
    for step in place:
        data = data[step]
    return data


def sealed(data: dict[str, Any]) -> bytes:
    """A manifest's bytes, with the ids that the page asks for."""
    named = {**data, "content_id": content_id(data)}
    return json.dumps({**named, "bundle_id": bundle_id(named)}).encode()

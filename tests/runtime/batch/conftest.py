"""Jobs over the tiny bundle."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch_folders import ROWS, write
from genrec.histories import RawId
from genrec_runtime.batch import Ask, Columns, Plan, Summary, plan, run
from tiny import ITEMS, Tiny, make_histories


@pytest.fixture(scope="session")
def histories() -> list[list[RawId]]:
    """Histories of 1 to 9 items, an empty one, and one that the bundle does not know."""
    rows = make_histories(ITEMS, ROWS, 9)
    rows[4], rows[11] = [], ["nothing of ours"]
    return rows


@pytest.fixture
def source(histories: list[list[RawId]], tmp_path: Path) -> Path:
    """The histories as Parquet, each with a user, in row groups of 10."""
    return write(tmp_path / "in.parquet", histories)


@pytest.fixture
def prepare(tiny: Tiny, source: Path, tmp_path: Path) -> Callable[..., Plan]:
    """Plans a job of the tiny bundle in parts of 5 rows; keywords are columns or what is asked, ``source``, ``out``."""

    def prepare(**chosen: Any) -> Plan:
        asked = {name: chosen.pop(name) for name in list(chosen) if name in Ask.__dataclass_fields__}
        named = {name: chosen.pop(name) for name in list(chosen) if name in Columns.__dataclass_fields__}
        options = {"bundle": tiny.path, "source": source, "out": tmp_path / "out", "part_rows": 5, **chosen}
        return plan(**options, columns=Columns(**named), ask=Ask(**{"device": "cpu", **asked}))

    return prepare


@pytest.fixture
def do(prepare: Callable[..., Plan]) -> Callable[..., Summary]:
    """Plans and runs it, with one thread."""

    def do(max_bad: float = 0.001, **chosen: Any) -> Summary:
        return run(prepare(**chosen), threads=1, max_bad=max_bad)

    return do

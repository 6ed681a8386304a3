"""Input of an offline job, and ways to look at what it left."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

ROWS = 23


def write(path: Path, histories: Sequence[Any], **columns: Any) -> Path:
    """A Parquet file of histories, users and further columns."""
    users = [f"user {row}" for row in range(len(histories))]
    frame = pl.DataFrame({"user": users, "history": histories, **columns})
    frame.write_parquet(path, row_group_size=10)
    return path


def answers(out: Path) -> pl.DataFrame:
    """All parts of a job, in order."""
    return pl.concat([pl.read_parquet(path) for path in sorted((out / "parts").glob("*.parquet"))])


def quarantine(out: Path) -> list[dict[str, Any]]:
    """The rows set aside, in order."""
    files = sorted((out / "quarantine").glob("*"))
    return [json.loads(line) for path in files for line in path.read_text(encoding="utf-8").splitlines()]


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a job's folder and its bytes."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}

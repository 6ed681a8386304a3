"""Files that appear whole or not at all, and JSON without what JSON does not know."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn


def beside(path: Path) -> Path:
    """Where a file is written before it takes its name by ``os.replace``."""
    return path.with_name(f".{path.name}.part")


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file that no reader ever sees half of."""
    part = beside(path)
    part.write_bytes(content)
    os.replace(part, path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes an object as JSON.

    Raises:
        ValueError: if a number is not finite.
    """
    write_whole(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Reads an object.

    Raises:
        ValueError: if it is no JSON, holds NaN or Infinity, or is no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except ValueError as error:  # of JSON and of UTF-8 alike
        raise ValueError(f"{path} is not readable as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold an object, not {type(content).__name__}")
    return content


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")

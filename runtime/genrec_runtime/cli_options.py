"""What the commands share: their arguments and options, and reading rows of raw ids."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
VARIANT = click.option(
    "--variant", default="fp32", show_default=True, help="A cheaper form that the bundle has: fp16, int8."
)
BUNDLE = click.argument("bundle", type=click.Path(path_type=Path))
STORE = click.argument("store", type=click.Path(path_type=Path))


def read_file(file: Path) -> list[list[Any]]:
    """The rows of a file of JSON lines, a list of raw ids each; blank lines left out, "-" is standard input.

    Raises:
        click.UsageError: if a line is no JSON list; the message names it.
        OSError: if the file cannot be read.
    """
    with click.open_file(str(file), encoding="utf-8") as lines:
        return [_json_row(line, number) for number, line in enumerate(lines, start=1) if line.strip()]


def read_ids(kind: str, texts: Sequence[str]) -> list[Any]:
    """Raw ids from a command line: where ``kind`` is "int", whole numbers as numbers; other text is an unknown item there."""
    return [_number(text) for text in texts] if kind == "int" else list(texts)


def whole_numbers(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """An option's whole numbers with commas between them.

    Raises:
        click.BadParameter: if it has others.
    """
    try:
        return None if text is None else tuple(int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} must be whole numbers with commas between them") from None


def _json_row(line: str, number: int) -> list[Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"line {number} is no JSON: {error}") from error
    if not isinstance(row, list):
        raise click.UsageError(f"line {number} must be a JSON list of item ids, got {line.strip():.60}")
    return row


def _number(text: str) -> int | str:
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,19}", text) else text

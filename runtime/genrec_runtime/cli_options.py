"""What the commands share: their arguments and options, and reading rows of raw ids."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
VARIANT = click.option(
    "--variant", default="fp32", show_default=True, help="A cheaper form that the bundle has: fp16, int8."
)
BUNDLE = click.argument("bundle", type=click.Path(path_type=Path))
STORE = click.argument("store", type=click.Path(path_type=Path))
MEMBERS = {  # of a JSON object that asks for one row: the arguments of ``recommend``
    "history": "histories",
    "timestamps": "timestamps",
    "request_time": "request_time",
    "user": "users",
}


def read_requests(file: Path) -> dict[str, list[Any]]:
    """Arguments of ``Recommender.recommend`` from a file of JSON lines, each a list of raw ids or an object; blank
    lines are left out, "-" is standard input.

    An object has a ``history``, and may have ``timestamps``, ``request_time`` and ``user``. An argument that no line has is
    left out; in lines that lack it, it is None, and the times of an empty history are none.

    Raises:
        click.UsageError: if a line is neither; the message names it.
        OSError: if the file cannot be read.
    """
    lines = [_request(row, number) for number, row in _json_lines(file)]
    asked = {name: [line.get(member) for line in lines] for member, name in MEMBERS.items()}
    asked["timestamps"] = [line.get("timestamps", None if line["history"] else []) for line in lines]
    named = {"history"}.union(*lines)
    return {name: asked[name] for member, name in MEMBERS.items() if member in named}


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


def _json_lines(file: Path) -> Iterator[tuple[int, Any]]:
    """The value of each line that is not blank, and the line's number."""
    with click.open_file(str(file), encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise click.UsageError(f"line {number} is no JSON: {error}") from error


def _request(row: Any, number: int) -> dict[str, Any]:
    """One line as the members of an object."""
    request = {"history": row} if isinstance(row, list) else row
    if not isinstance(request, dict) or not isinstance(request.get("history"), list):
        raise _misuse(number, row, 'must be a JSON list of item ids, or an object with such a list as "history"')
    unknown = request.keys() - MEMBERS
    if unknown:
        raise _misuse(number, row, f"has {', '.join(sorted(unknown))}; an object may have {', '.join(MEMBERS)}")
    return request


def _misuse(number: int, row: Any, fault: str) -> click.UsageError:
    return click.UsageError(f"line {number} {fault}, got {json.dumps(row):.60}")


def _number(text: str) -> int | str:
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,19}", text) else text

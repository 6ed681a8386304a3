"""``/v1/recommend``: raw ids in, raw ids and scores out, as JSON objects."""

from __future__ import annotations

import dataclasses
from typing import Any

from genrec_runtime.errors import short
from genrec_runtime.serve.queries import Answer, Query, with_text_ids
from genrec_runtime.serve.refusals import Refusal

ONE = {  # a field of a request for one user: the field of a query
    "history": "histories",
    "exclude": "exclude",
    "candidates": "candidates",
    "timestamps": "timestamps",
    "request_time": "request_time",
    "user": "users",
}
MANY = {"histories", "exclude", "candidates", "timestamps", "request_time", "users"}
OPTIONS = {"k", "exclude_seen", "on_unknown", "titles"}
BOOLS = ("titles", "text_ids", "exclude_seen")
LISTS = ("histories", "exclude", "candidates", "timestamps")


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request.

    Attributes:
        query: what it asks.
        is_one: whether it is for one user, and its answer no list of rows.
        text_ids: whether ids are texts on the way, whatever they are in the catalogue.
        timeout: seconds after which its sender waits no longer.
    """

    query: Query
    is_one: bool
    text_ids: bool
    timeout: float


def read(body: dict[str, Any], kind: str, timeout: float) -> Asked:
    """A request from its body.

    Args:
        body: a JSON object.
        kind: of the catalogue's ids, "int" or "str".
        timeout: seconds, at most and by default.

    Raises:
        Refusal: 400 if a field is unknown or of a wrong kind. What ids and options are, the recommender looks at.
    """
    is_one = "history" in body
    if is_one == ("histories" in body):
        raise _bad("give either history, of one user, or histories, a list of them")
    known = {*(ONE if is_one else MANY), *OPTIONS, "text_ids", "timeout_ms"}
    for name in body:
        if name not in known:
            raise _bad(f"{name[:60]!r} is unknown; the fields are {', '.join(sorted(known))}")
    for name in BOOLS:
        if name in body and not isinstance(body[name], bool):
            raise _bad(f"{name} ({short(body[name])}) must be true or false")
    names = ONE.items() if is_one else ((name, name) for name in MANY)
    fields = {field: body[name] for name, field in names if body.get(name) is not None}
    if is_one:
        fields = {name: [value] for name, value in fields.items()}
    for name in fields.keys() & LISTS:
        _check_rows(fields[name], name)
    query = Query(**fields, **{name: body[name] for name in OPTIONS & body.keys()})
    text_ids = body.get("text_ids", False)
    return Asked(with_text_ids(query, kind) if text_ids else query, is_one, text_ids, _timeout(body, timeout))


def write(asked: Asked, answer: Answer) -> dict[str, Any]:
    """The body of an answer."""
    rows: list[dict[str, Any]] = [
        {"items": items, "scores": scores, "status": status, "unknown_items": unknown}
        for items, scores, status, unknown in zip(
            answer.items, answer.scores, answer.status, answer.unknown, strict=True
        )
    ]
    if asked.text_ids:
        for row in rows:
            row["items"] = list(map(str, row["items"]))
    for row, titles in zip(rows, answer.titles or (), strict=False):
        row["titles"] = titles
    return {**rows[0], "version": answer.version} if asked.is_one else {"rows": rows, "version": answer.version}


def _check_rows(rows: Any, name: str) -> None:
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise _bad(f"{name} ({short(rows)}) must be a list of lists, or a list for one user")


def _timeout(body: dict[str, Any], most: float) -> float:
    wanted = body.get("timeout_ms")
    if wanted is None:
        return most
    if isinstance(wanted, bool) or not isinstance(wanted, (int, float)) or not wanted > 0:
        raise _bad(f"timeout_ms ({short(wanted)}) must be milliseconds above 0")
    return min(most * 1000, wanted) / 1000


def _bad(message: str) -> Refusal:
    return Refusal(400, "field", message)

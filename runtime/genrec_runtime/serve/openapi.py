"""The description of ``/v1`` and of the service's own addresses, after OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

from genrec import __version__

Schema = dict[str, Any]


def _list(items: Schema, says: str = "") -> Schema:
    return {"type": "array", "items": items, **({"description": says} if says else {})}


def _of(kind: str | list[str], says: str, **more: Any) -> Schema:
    return {"type": kind, "description": says, **more}


ID: Schema = {"type": ["string", "integer"], "description": "An item's id, as it was in training."}
SECONDS: Schema = {"type": "integer", "description": "Whole seconds."}
OPTIONS: Schema = {
    "k": _of("integer", "How many items; the bundle's default if absent.", minimum=1),
    "exclude_seen": _of("boolean", "Leave out what the history holds; the bundle's default if absent."),
    "on_unknown": _of("string", "What becomes of ids that the catalogue lacks.", enum=["drop", "error"]),
    "titles": _of("boolean", "Also give the items' titles.", default=False),
    "text_ids": _of("boolean", "Ids are texts on the way, even where they are integers: JavaScript.", default=False),
    "timeout_ms": _of("number", "Milliseconds after which nobody waits for the answer.", exclusiveMinimum=0),
}
ONE: Schema = {
    "type": "object",
    "required": ["history"],
    "additionalProperties": False,
    "properties": {
        "history": _list(ID, "What the user took, oldest first; may be empty."),
        "exclude": _list(ID, "Further items not to be recommended."),
        "candidates": _list(ID, "The items to choose from, instead of all."),
        "timestamps": _list(SECONDS, "When each item of the history was taken, for models that read it."),
        "request_time": _of("integer", "When the answer is wanted, in seconds, for models that read it."),
        "user": _of(["string", "integer"], "The user's id, for models that read it."),
        **OPTIONS,
    },
    "example": {"history": ["85123A", "71053"], "k": 5, "titles": True},
}
MANY: Schema = {
    "type": "object",
    "required": ["histories"],
    "additionalProperties": False,
    "properties": {
        "histories": _list(_list(ID), "A history a user."),
        "exclude": _list(_list(ID), "A list a user."),
        "candidates": _list(_list(ID), "A list a user."),
        "timestamps": _list(_list(SECONDS), "A list a user."),
        "request_time": _list(SECONDS, "A time a user."),
        "users": _list({"type": ["string", "integer", "null"]}, "An id a user."),
        **OPTIONS,
    },
    "example": {"histories": [["85123A"], []], "k": 5},
}
ROW: Schema = {
    "items": _list(ID, "Best first; fewer than k where no more may be recommended."),
    "scores": _list({"type": "number"}, "One an item."),
    "status": _of(
        "string",
        "Whether the model answered, or the most popular items did because the history is empty, or unknown.",
        enum=["model", "cold_start", "all_unknown"],
    ),
    "unknown_items": _of("integer", "How many ids of the history the catalogue lacks."),
    "titles": _list({"type": "string"}, "One an item, where asked for."),
}
VERSION: Schema = _of("string", "Of the bundle that answered.")
ANSWER: Schema = {"type": "object", "properties": {**ROW, "version": VERSION}}
ANSWERS: Schema = {
    "type": "object",
    "properties": {"rows": _list({"type": "object", "properties": ROW}, "One a history."), "version": VERSION},
}
ERROR: Schema = {
    "type": "object",
    "required": ["error", "code"],
    "properties": {
        "error": _of("string", "What was wrong, and what to do."),
        "code": _of("string", "Stable between releases."),
    },
}
FAILURES = {
    "400": "The request is not usable; the message says which field.",
    "408": "The body came too slowly.",
    "413": "The body, or the number of rows, is too large.",
    "415": "The body is compressed.",
    "429": "The queue is full; Retry-After has the seconds.",
    "500": "The model failed.",
    "503": "The service is not ready, or ends, or has too many connections.",
    "504": "The deadline passed.",
}


def _content(*schemas: Schema) -> Schema:
    schema = schemas[0] if len(schemas) == 1 else {"oneOf": list(schemas)}
    return {"application/json": {"schema": schema}}


def _get(summary: str, answer: str) -> Schema:
    return {"get": {"summary": summary, "responses": {"200": {"description": answer}}}}


DESCRIPTION: Schema = {
    "openapi": "3.1.0",
    "info": {
        "title": "genrec",
        "version": __version__,
        "description": "Recommendations from an exported bundle. The Open Inference Protocol is served beside it, at /v2.",
    },
    "paths": {
        "/v1/recommend": {
            "post": {
                "summary": "The best items for one user, or for several.",
                "requestBody": {"required": True, "content": _content(ONE, MANY)},
                "responses": {
                    "200": {"description": "The recommendations.", "content": _content(ANSWER, ANSWERS)},
                    **{status: {"description": says, "content": _content(ERROR)} for status, says in FAILURES.items()},
                },
            }
        },
        "/v1/items": {
            "get": {
                "summary": "Items whose title or id holds a text.",
                "parameters": [{"name": "query", "in": "query", "schema": {"type": "string"}}],
                "responses": {"200": {"description": "At most 20 items, ids as texts, with titles."}},
            }
        },
        "/v2/health/live": _get("Whether the process is of use.", "It is; 503 if it must be started anew."),
        "/v2/health/ready": _get("Whether requests are welcome.", "They are; 503 if not."),
        "/v2": _get("The server, after the Open Inference Protocol.", "Its name and version."),
        "/v2/models/{name}": _get("The model, after the Open Inference Protocol.", "Its inputs and outputs."),
        "/v2/models/{name}/infer": {
            "post": {
                "summary": "Inference after the Open Inference Protocol, with tensors as JSON.",
                "responses": {"200": {"description": "The tensors items, scores, counts."}},
            }
        },
        "/metrics": _get("Metrics for Prometheus.", "Its text format."),
    },
}

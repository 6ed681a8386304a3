"""What can go wrong at export."""

from __future__ import annotations


class ExportError(Exception):
    """The model was not exported, and nothing was published; the message says why."""


def root_cause(error: BaseException) -> str:
    """The first line of the error that began it, with its type."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"

"""What can go wrong at export."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genrec_export.report import Report


class ExportError(Exception):
    """The model was not exported, and nothing was published; the message says why.

    Attributes:
        report: the comparisons made until then, None where there were none.
    """

    report: Report | None = None


def root_cause(error: BaseException) -> str:
    """The first line of the error that began it, with its type."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"

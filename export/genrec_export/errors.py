"""What can go wrong at export."""

from __future__ import annotations


class ExportError(Exception):
    """The model was not exported, and nothing was published; the message says why."""

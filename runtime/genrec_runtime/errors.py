"""The runtime's errors: one tree, each with a stable code."""

from __future__ import annotations

from typing import Any

import numpy as np


def short(value: Any) -> str:
    """A value as a message shows it: its ``repr`` on one line, at most 60 letters.

    >>> short(["a"]), short("x" * 99)[-6:]
    ("['a']", 'xxx...')
    """
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a caller's own repr, or an int of too many digits
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 60 else text[:57] + "..."


class GenrecError(Exception):
    """Whatever the runtime can raise on purpose; ``code`` is stable between releases.

    Args:
        message: what was wrong, with the value, and what to do.
        code: a finer code than the class's own.
    """

    code = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class InputError(GenrecError, ValueError):
    """A request that cannot be answered as it stands.

    Args:
        message: what was wrong, with the value, and what to do.
        code: a finer code than the class's own.
        row: the row at fault, from 0, where one is.
        field: the argument, input or option at fault.
        value: what was refused: numbers, texts and None as they are; of anything else its ``short`` text, for errors travel
            between processes and outlive requests.
    """

    code = "input"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        row: int | None = None,
        field: str | None = None,
        value: Any = None,
    ) -> None:
        super().__init__(message, code=code)
        self.row, self.field = row, field
        value = value.item() if isinstance(value, np.generic) else value
        self.value = value if value is None or type(value) in (bool, int, float, str) else short(value)


class Unsupported(GenrecError):
    """The bundle does not offer what was asked; ``inspect`` lists what it does."""

    code = "unsupported"


class DeviceUnavailable(GenrecError):
    """The device asked for could not be started."""

    code = "device_unavailable"


class InferenceError(GenrecError):
    """onnxruntime failed, or gave scores that are no numbers."""

    code = "inference"


class DeadlineExceeded(GenrecError):
    """The call's deadline passed before its answer was there."""

    code = "deadline_exceeded"


class Closed(GenrecError):
    """The recommender, module or engine was closed."""

    code = "closed"


class ForkedProcessError(GenrecError):
    """It was loaded before this process was forked; onnxruntime's threads do not live on in a fork."""

    code = "forked_process"


class BundleError(GenrecError):
    """The bundle cannot be used."""

    code = "bundle"


class BundleNotFound(BundleError):
    """There is no bundle at the path."""

    code = "bundle_not_found"


class BundleCorrupt(BundleError):
    """A file is missing, changed, or does not fit the manifest."""

    code = "bundle_corrupt"


class BundleVersionError(BundleError):
    """The bundle's format is newer or older than this runtime reads."""

    code = "bundle_version"

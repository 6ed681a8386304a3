"""The runtime's errors: one tree, each with a stable code."""

from __future__ import annotations


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
    """A request that cannot be answered as it stands."""

    code = "input"


class Unsupported(GenrecError):
    """The bundle does not offer what was asked; ``inspect`` lists what it does."""

    code = "unsupported"


class DeviceUnavailable(GenrecError):
    """The device asked for could not be started."""

    code = "device_unavailable"


class InferenceError(GenrecError):
    """onnxruntime failed, or gave scores that are no numbers."""

    code = "inference"


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

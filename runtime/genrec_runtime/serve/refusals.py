"""What is wrong with a request before a recommender sees it, and the HTTP status of every error."""

from __future__ import annotations

from genrec_runtime.errors import (
    Closed,
    DeadlineExceeded,
    GenrecError,
    InferenceError,
    InputError,
    Unsupported,
)
from genrec_runtime.serve.batcher import Overloaded
from genrec_runtime.serve.service import NotReady

UNREAD = (408, 413, 415, 503)  # a refusal's status where the request's body was not read to its end
STATUS: dict[type[GenrecError], int] = {
    InputError: 400,
    Unsupported: 400,
    Overloaded: 429,
    NotReady: 503,
    Closed: 503,
    DeadlineExceeded: 504,
    InferenceError: 500,
}


class Refusal(GenrecError):
    """A request that is not even looked at by a recommender.

    Args:
        status: of HTTP.
        code: as of ``GenrecError``.
        message: what was wrong, with the value, and what to do.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message, code=code)
        self.status = status


def status_of(error: GenrecError) -> int:
    """The HTTP status of an error.

    >>> status_of(DeadlineExceeded("late")), status_of(Refusal(413, "body_too_large", "..."))
    (504, 413)
    """
    if isinstance(error, Refusal):
        return error.status
    if isinstance(error, InputError) and error.code == "too_large":
        return 413
    if isinstance(error, InferenceError) and error.code == "device_lost":
        return 503
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)


def headers_of(error: GenrecError) -> dict[str, str]:
    """When to come back, where that helps; and the end of the connection where the rest of the request was not read.

    >>> headers_of(NotReady("..."))
    {'Retry-After': '1'}
    """
    if isinstance(error, Overloaded):
        return {"Retry-After": str(error.retry_after)}
    later = {"Retry-After": "1"} if status_of(error) == 503 else {}
    return later | ({"Connection": "close"} if isinstance(error, Refusal) and error.status in UNREAD else {})

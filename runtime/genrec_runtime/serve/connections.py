"""Limits on connections whose client is slow, or sends headers without end; uvicorn has none of its own."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

MOST_HEAD = 1 << 16  # bytes of a request line and its headers


class Bounded(AutoHTTPProtocol):  # type: ignore[valid-type, misc]  # uvicorn chooses which of its two it is
    """A connection that is ended when a request's headers go on for too long."""

    _head = 0

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        super().data_received(data)
        if not is_waiting(self):
            self._head = 0
            return
        self._head += len(data)
        if self._head > MOST_HEAD and not self.transport.is_closing():
            self.send_400_response(f"A request's headers may have {MOST_HEAD} bytes.")


class Patience:
    """Ends connections that for too long neither bring a whole request's headers nor take their answer.

    Args:
        seconds: how long they may.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._silent: dict[Any, tuple[Any, float]] = {}  # by connection: its last request, and since when there is none

    def look(self, connections: Iterable[Any]) -> None:
        """Ends those of uvicorn's connections whose time is over; to be called from time to time."""
        now, silent = time.monotonic(), {}
        for connection in filter(is_waiting, connections):
            last, since = self._silent.get(connection, (None, now))
            since = since if last is connection.cycle else now
            if now - since > self._seconds:
                connection.transport.abort()
            else:
                silent[connection] = connection.cycle, since
        self._silent = silent


def is_waiting(connection: Any) -> bool:
    """Whether no request of a connection is being answered."""
    return connection.cycle is None or bool(connection.cycle.response_complete)

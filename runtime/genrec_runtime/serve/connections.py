"""Connections: how many there may be, how slow their clients, how long their headers, and few writes."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import resource
import socket
import struct
import sys
import time
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from genrec_runtime.serve.app import SPARE

MOST_HEAD = 1 << 16  # bytes of a request line and its headers
SPARES = 64  # connections beyond the most that may be, for whoever asks after the service's health
FILES = 256  # that a process may need open besides its connections
SO_ATTACH_FILTER = 26  # of Linux; Python has no name for it
NO_SYN = (  # a packet filter: instruction, places to go on if so and if not, its number
    (0x30, 0, 0, 13),  # the flags of a TCP header
    (0x45, 0, 1, 0x02),  # is SYN among them?
    (0x06, 0, 0, 0),  # nothing of the packet is let through
    (0x06, 0, 0, 0xFFFFFFFF),  # all
)


class Bounded(AutoHTTPProtocol):  # type: ignore[valid-type, misc]  # uvicorn chooses which of its two it is
    """A connection that knows whether it is one too many, and is ended when a request's headers go on for too long.

    Args:
        arguments: uvicorn's.
        most: connections at a time. So many keep their places. The next ``SPARES`` tell the application that they are spare,
            and those beyond are closed unheard.
    """

    _head = 0

    def __init__(self, *arguments: Any, most: int, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._most, self.is_spare = most, False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It was let in."""
        super().connection_made(Whole(transport))
        if len(self.connections) > self._most:
            self._find_place()

    def _find_place(self) -> None:
        self.is_spare = sum(not connection.is_spare for connection in self.connections) > self._most
        self.app_state: dict[str, Any] = {**self.app_state, SPARE: self.is_spare}
        if len(self.connections) > self._most + SPARES:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        super().data_received(data)
        if not is_waiting(self):
            self._head = 0
            return
        self._head += len(data)
        if self._head > MOST_HEAD and not self.transport.is_closing():
            self.send_400_response(f"A request's headers may have {MOST_HEAD} bytes.")


class Whole:
    """A transport that sends what is written in one turn of the event loop at once: uvicorn writes head and body by themselves.

    Args:
        transport: that sends; all but writing and closing is left to it.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._parts: list[bytes] = []
        self._loop = asyncio.get_running_loop()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Sends it soon."""
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        """Sends what was written, then closes."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            parts, self._parts = self._parts, []
            self._transport.write(b"".join(parts))


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


def deafen(listener: socket.socket) -> None:
    """Makes the kernel let nobody else in at a listening socket; who was let in can be accepted still.

    Closing it alone would reset connections that the kernel had made and nobody had accepted. Whoever comes later tries again by
    itself, within a second or so. Where the kernel has no such filter, nothing changes.
    """
    if sys.platform != "linux":
        return
    filters = b"".join(struct.pack("=HBBI", *instruction) for instruction in NO_SYN)
    kept = ctypes.create_string_buffer(filters)
    with contextlib.suppress(OSError):
        listener.setsockopt(
            socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(NO_SYN), ctypes.addressof(kept))
        )


def allow_files(connections: int) -> bool:
    """Raises this process's limit on open files, as far as it may, to what so many connections take.

    Returns:
        Whether it is enough.
    """
    wanted = connections + SPARES + FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft in range(wanted):  # an unlimited one is negative
        soft = wanted if hard not in range(wanted) else hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft not in range(wanted)


def is_new(connection: Any) -> bool:
    """Whether a connection has brought no request yet."""
    return connection.cycle is None


def is_waiting(connection: Any) -> bool:
    """Whether no request of a connection is being answered."""
    return is_new(connection) or bool(connection.cycle.response_complete)

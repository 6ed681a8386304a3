"""The process: its socket, its signals, its end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import uvicorn

from genrec_runtime.serve.app import build
from genrec_runtime.serve.connections import Bounded, Patience, allow_files, deafen, is_new
from genrec_runtime.serve.metrics import Metrics
from genrec_runtime.serve.observed import AccessLog, JsonLines
from genrec_runtime.serve.service import Service
from genrec_runtime.serve.settings import Settings

LAST_HANDSHAKES = 0.2  # seconds in which a connection that was begun may still be made
LAST_WORDS = 1.0  # seconds in which one that was made may still send its first request
_log = logging.getLogger(__name__)


def run(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT: then it is no longer ready, takes no more, answers what it took, and ends.

    A second signal ends it at once. SIGHUP makes it look for another bundle and availability at once.

    Returns:
        The exit code: 0, or 1 if the bundle could not be served.

    Raises:
        OSError: if the address cannot be listened on.
    """
    listener = listen(settings.host, settings.port)
    _log_as_json()
    log = AccessLog(sys.stdout if settings.access_log else None)
    metrics = Metrics()
    service = Service(settings, metrics)
    server = Server(service, build(service, metrics, log), log)
    if not allow_files(settings.max_connections):
        _log.warning("%d connections need more open files than ulimit -n allows", settings.max_connections)
    host, port = listener.getsockname()[:2]
    with server.hears_signals():
        _log.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
        loading = threading.Thread(target=server.load, name="genrec-load", daemon=True)
        loading.start()
        server.run(sockets=[listener])
        is_done = not loading.is_alive() and service.close(timeout=0.5)
        _log.info("ended, %s", "all requests answered" if is_done else "with requests unanswered")
    if not is_done:
        _exit(server.code)  # a thread still computes, and would be waited for
    return server.code


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        OSError: if the port is taken, or the address is not this machine's.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)  # now: two may bind one port, as long as neither listens
    except OSError as error:
        listener.close()
        hint = "; another process has it, take another --port" if error.errno == errno.EADDRINUSE else ""
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}{hint}") from error
    return listener


class Server(uvicorn.Server):
    """uvicorn with our own end, and with limits on clients that are slow.

    Args:
        service: behind the application.
        app: the application.
        log: to be written from time to time.

    Attributes:
        code: the process's exit code.
    """

    def __init__(self, service: Service, app: Any, log: AccessLog) -> None:
        settings, metrics = service.settings, service.metrics
        config = uvicorn.Config(
            app,
            http=functools.partial(Bounded, most=settings.max_connections),  # type: ignore[arg-type]  # what makes a protocol is enough
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=int(settings.drain) + 1,
        )
        super().__init__(config)
        self._service, self._settings, self._access = service, settings, log
        self._ending: float | None = None
        self._patience = Patience(settings.slow)
        metrics.max_connections.set(settings.max_connections)
        metrics.connections.set_function(lambda: len(self.server_state.connections))
        self.code = 0

    def load(self) -> None:
        """Starts the service; if that fails, the process ends."""
        try:
            self._service.start()
        except Exception as error:
            _log.critical("the bundle cannot be served: %s", error)
            self.code = 1
            self.should_exit = True
        else:
            _log.info("version %s is ready", self._service.recommender.manifest.version)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: uvicorn's own raises the signal again at the end, so that the process does not end with 0."""
        yield

    @contextlib.contextmanager
    def hears_signals(self) -> Iterator[None]:
        """Within the block SIGTERM and SIGINT end the service in order, the second at once, and SIGHUP makes it look."""
        wanted = {signal.SIGTERM: self._end, signal.SIGINT: self._end, signal.SIGHUP: self._look}
        before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        self._access.flush()
        if self._ending is not None and time.monotonic() - self._ending >= self._settings.linger:
            self.should_exit = True
        if counter % 10 == 0:
            self._patience.look(list(self.server_state.connections))
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answers what was taken, for at most ``drain`` seconds; what is unanswered then gets 503."""
        self._service.refuse_new()
        loop = asyncio.get_running_loop()
        late = loop.call_later(self._settings.drain, self._service.give_up)
        try:
            await self._hear_last(sockets or [])
            await super().shutdown(sockets)
        finally:
            late.cancel()
            self._access.flush()

    async def _hear_last(self, sockets: list[socket.socket]) -> None:
        """Stops listening without losing whom the kernel has let in already: uvicorn would close these unheard."""
        for listener in sockets:
            deafen(listener)
        await asyncio.sleep(LAST_HANDSHAKES)
        for server in self.servers:
            server.close()
        end = time.monotonic() + min(LAST_WORDS, self._settings.drain)
        while time.monotonic() < end and any(map(is_new, self.server_state.connections)):
            await asyncio.sleep(LAST_WORDS / 50)

    def _end(self, number: int, frame: FrameType | None) -> None:
        if self._ending is not None:
            _exit(1)
        self._ending = time.monotonic()
        self._service.refuse_new()

    def _look(self, number: int, frame: FrameType | None) -> None:
        self._service.look()


def _exit(code: int) -> None:
    """The end without waiting for anybody."""
    with contextlib.suppress(Exception):  # a signal may have come in the middle of a line
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _log_as_json() -> None:
    """Whatever is logged goes to standard error, a line of JSON each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.getLogger().handlers = [handler]
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("genrec_runtime").setLevel(logging.INFO)
    logging.captureWarnings(True)

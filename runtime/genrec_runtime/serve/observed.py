"""Around the application: every request is timed, counted, logged as a JSON line, and given an id."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import re
import secrets
import time
from typing import Any, TextIO

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genrec_runtime.serve.metrics import Metrics
from genrec_runtime.serve.service import Service

REQUEST_ID = re.compile(rb"[!-~]{1,128}")
GONE = 499  # what is logged where the client did not wait; nobody receives it
UNEXPECTED = b'{"error":"the service failed; its log has the reason","code":"internal"}'
TIME = "%Y-%m-%dT%H:%M:%SZ"
PROCESS = secrets.token_hex(6).encode()
_numbers = itertools.count(1)
_log = logging.getLogger(__name__)


class Observed:
    """An ASGI application around another.

    Args:
        app: the application.
        service: whose end is announced to clients that would keep their connection.
        metrics: where requests are counted.
        log: where they are logged.
    """

    def __init__(self, app: ASGIApp, service: Service, metrics: Metrics, log: AccessLog) -> None:
        self._app, self._service, self._metrics, self._log = app, service, metrics, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, request_id, status = time.monotonic(), _request_id(scope), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
                if self._service.state == "ending":
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except ClientDisconnect:
            status = GONE
        except Exception:
            _log.exception("%s %s failed, request %s", scope["method"], scope["path"], request_id.decode())
            if not status:
                await _fail(sending)
        finally:
            self._count(scope, status, time.monotonic() - start, request_id.decode())

    def _count(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        endpoint = getattr(scope.get("endpoint"), "__name__", "none")
        self._metrics.requests.labels(endpoint, str(status)).inc()
        self._metrics.seconds.labels(endpoint).observe(seconds)
        self._log.add(
            {
                "request_id": request_id,
                "client": (scope.get("client") or ("", 0))[0],
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "seconds": round(seconds, 6),
                "rows": scope.get("genrec.rows", 0),
            }
        )


class AccessLog:
    """A line of JSON for each request, written some at a time: every write lets another thread have Python's lock.

    Args:
        stream: where lines go; None for nowhere.
        most: lines that are held before they are written, unless ``flush`` is called sooner.
    """

    def __init__(self, stream: TextIO | None, most: int = 500) -> None:
        self._stream, self._most = stream, most
        self._lines: list[str] = []

    def add(self, fields: dict[str, Any]) -> None:
        """Logs a request, with the time (UTC)."""
        if self._stream is None:
            return
        self._lines.append(json.dumps({"time": time.strftime(TIME, time.gmtime()), **fields}))
        if len(self._lines) >= self._most:
            self.flush()

    def flush(self) -> None:
        """Writes the lines that are held; where nobody reads any more they are lost."""
        lines, self._lines = self._lines, []
        if lines and self._stream is not None:
            with contextlib.suppress(OSError, ValueError):
                self._stream.write("\n".join(lines) + "\n")
                self._stream.flush()


class JsonLines(logging.Formatter):
    """A log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": time.strftime(TIME, time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _request_id(scope: Scope) -> bytes:
    """What the client calls its request, if that may stand in a header and a log; else an id that nobody else gives."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            return bytes(value)
    return b"%s-%x" % (PROCESS, next(_numbers))


async def _fail(send: Send) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(UNEXPECTED)).encode())]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": UNEXPECTED})

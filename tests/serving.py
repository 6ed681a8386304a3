"""Services on loopback for tests: in a thread of this process, or as a process of its own; and what it takes to ask them."""

from __future__ import annotations

import contextlib
import gc
import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from genrec_runtime.options import Options
from genrec_runtime.serve.app import build
from genrec_runtime.serve.metrics import Metrics
from genrec_runtime.serve.observed import AccessLog
from genrec_runtime.serve.server import Server, listen
from genrec_runtime.serve.service import Service
from genrec_runtime.serve.settings import Settings

ON_CPU = Options("cpu", 1)
COMMAND = """
import sys
sys.argv[0] = "genrec-runtime"
from genrec.starting import runtime
runtime()
"""


class Reply(NamedTuple):
    """An HTTP answer; ``headers`` by their names in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body's values."""
        return json.loads(self.body)


class Client:
    """A connection that is kept, as long as the service keeps it."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """One request; a body that is no bytes is sent as JSON."""
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        self._connection.request(method, path, content, {name.replace("_", "-"): v for name, v in headers.items()})
        found = self._connection.getresponse()
        return Reply(found.status, {name.lower(): v for name, v in found.getheaders()}, found.read())

    def recommend(self, **fields: Any) -> Reply:
        """``POST /v1/recommend``."""
        return self.ask("POST", "/v1/recommend", fields)

    def close(self) -> None:
        """The connection's end."""
        self._connection.close()


@dataclass(frozen=True)
class Running:
    """A service in a thread of this process."""

    port: int
    service: Service
    server: Server

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """One request on a connection of its own."""
        return _once(self.port, lambda client: client.ask(method, path, body, **headers))

    def recommend(self, **fields: Any) -> Reply:
        """``POST /v1/recommend`` on a connection of its own."""
        return _once(self.port, lambda client: client.recommend(**fields))

    def metric(self, name: str) -> float:
        """The present value of a metric, as ``/metrics`` has it."""
        return metric(self.ask("GET", "/metrics").body.decode(), name)


@contextlib.contextmanager
def running(bundle: Path, *, starts: bool = True, **options: Any) -> Iterator[Running]:
    """Serves a bundle until the end of the block; ``options`` are those of ``Settings``."""
    settings = Settings(bundle, **{"options": ON_CPU, "port": 0, "linger": 0.0, "interval": 3600.0, **options})
    metrics = Metrics()
    service = Service(settings, metrics)
    log = AccessLog(None)
    server = Server(service, build(service, metrics, log), log)
    listener = listen(settings.host, 0)
    port = listener.getsockname()[1]
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        if starts:
            service.start()
        yield Running(port, service, server)
    finally:
        server.should_exit = True
        thread.join(60)
        service.close(10)
        gc.unfreeze()  # this process lives on
    assert not thread.is_alive()


@dataclass(frozen=True)
class Process:
    """A service that is a process of its own."""

    child: subprocess.Popen[bytes]
    port: int
    log: Path
    complaints: Path

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """One request on a connection of its own."""
        return _once(self.port, lambda client: client.ask(method, path, body, **headers))

    def events(self) -> str:
        """What it wrote to standard error so far."""
        return self.complaints.read_text()

    def accesses(self) -> list[dict[str, Any]]:
        """The requests that it logged so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextlib.contextmanager
def process(bundle: Path, scratch: Path, *arguments: str, ready: bool = True, **environment: str) -> Iterator[Process]:
    """Runs ``genrec-runtime serve`` until the end of the block, then kills it if it still runs."""
    with command(bundle, scratch, *arguments, **environment) as (child, log, complaints):
        found = until(lambda: re.search(r"listening on http://[^ ]+:(\d+)", complaints.read_text()), child)
        served = Process(child, int(found[1]), log, complaints)
        if ready:
            until(lambda: served.ask("GET", "/v2/health/ready").status == 200, child)
        yield served


@contextlib.contextmanager
def command(
    bundle: Path, scratch: Path, *arguments: str, **environment: str
) -> Iterator[tuple[subprocess.Popen[bytes], Path, Path]]:
    """The bare process, and the files of its standard output and error."""
    log, complaints = scratch / "log", scratch / "complaints"
    line = [sys.executable, "-c", COMMAND, "serve", str(bundle), "--device", "cpu", "--threads", "1", "--port", "0"]
    env = {**child_environment(), **environment}
    with log.open("wb") as out, complaints.open("wb") as err:
        child = subprocess.Popen([*line, *arguments], stdout=out, stderr=err, env=env)
    try:
        yield child, log, complaints
    finally:
        child.kill()
        child.wait()


def child_environment() -> dict[str, str]:
    """That of a process which imports what this one does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def until(what: Callable[[], Any], child: subprocess.Popen[bytes] | None = None) -> Any:
    """Waits until ``what`` gives something; while ``child`` runs, if there is one."""
    end = time.monotonic() + 60
    while not (found := what()):
        assert time.monotonic() < end, "it did not come"
        assert child is None or child.poll() is None, f"the service ended with {child.poll()}"
        time.sleep(0.02)
    return found


def metric(text: str, name: str) -> float:
    """The value of a metric in Prometheus's text format; ``name`` with its labels."""
    values = [line.rpartition(" ")[2] for line in text.splitlines() if line.rpartition(" ")[0] == name]
    assert len(values) == 1, f"{name} is there {len(values)} times"
    return float(values[0])


def _once(port: int, work: Callable[[Client], Reply]) -> Reply:
    client = Client(port)
    try:
        return work(client)
    finally:
        client.close()

"""Servers as processes of their own for serving.py: started, watched, asked, and ended with all that they started."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from load import GRACE, Plan, Report

HERE = Path(__file__).parent
START = 120.0  # seconds until the first answer, at most
END = 15.0  # seconds after SIGTERM in which a server may end by itself
ORPHANS = 1.0  # seconds after its end in which what it started may end
EVERY = 0.25  # seconds between looks at a server's memory
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "PYTHONWARNINGS": "ignore"}


@dataclass(frozen=True)
class Peer:
    """A server that can be started.

    Attributes:
        name: as tables call it.
        command: starts it; "{port}" stands for the port.
        path: what requests are posted to.
        has_metrics: whether it counts batches as genrec does, at ``/metrics``.
    """

    name: str
    command: Sequence[str]
    path: str
    has_metrics: bool = False


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        peer: what was started.
        child: its first process, whose session all others belong to.
        port: on loopback.
        work: file of what it is asked.
    """

    peer: Peer
    child: subprocess.Popen[bytes]
    port: int
    work: Path

    def load(self, clients: int, seconds: float, *, rate: float | None = None, bad: float = 0.0, seed: int = 0) -> Run:
        """Loads it from a process of its own, and looks at its memory meanwhile.

        Args:
            clients: connections.
            seconds: that are measured.
            rate: requests that are due in a second; None for a closed loop.
            bad: share of bad requests.
            seed: of what is random.
        """
        plan = Plan(str(self.work), self.port, self.peer.path, clients, seconds, rate=rate, bad=bad, seed=seed)
        batches, cpu = self._batches(), sum(session_of(self.child.pid).values())
        with watched(self.child.pid) as memory:
            report = ask(plan)
        cpu = sum(session_of(self.child.pid).values()) - cpu
        number, rows = (after - before for after, before in zip(self._batches(), batches, strict=True))
        answers = sum(report.outcomes.values())
        return Run(report, memory, rows / number if number else math.nan, cpu / answers if answers else math.nan)

    def _batches(self) -> tuple[float, float]:
        """Batches, and rows in them, since the start."""
        if not self.peer.has_metrics:
            return 0.0, 0.0
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=GRACE)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        values = dict(line.rsplit(" ", 1) for line in lines if line.startswith("genrec_batch_rows_"))
        return float(values["genrec_batch_rows_count"]), float(values["genrec_batch_rows_sum"])


@dataclass(frozen=True)
class Run:
    """A load and what it did to its server.

    Attributes:
        report: what the load saw.
        memory: bytes of the server's processes that lay in memory, every ``EVERY`` seconds.
        batch: mean rows of its batches; NaN if it does not tell.
        cpu: seconds of CPU that its processes took for an answer, at the mean.
    """

    report: Report
    memory: list[int]
    batch: float
    cpu: float

    @property
    def resident(self) -> float:
        """Bytes in the last quarter of the time, at the median."""
        return statistics.median(self.memory[-(len(self.memory) // 4 or 1) :])

    @property
    def growth(self) -> float:
        """How much more that is than in the second quarter, as a share of it."""
        quarter = len(self.memory) // 4 or 1
        return self.resident / statistics.median(self.memory[quarter : 2 * quarter] or self.memory) - 1


@contextlib.contextmanager
def served(peer: Peer, work: Path) -> Iterator[Server]:
    """Starts a server in a session of its own, waits for its first answer, and ends the whole session after the block.

    Raises:
        SystemExit: if it does not answer in time, with the end of what it wrote.
    """
    port = free_port()
    command = [part.replace("{port}", str(port)) for part in peer.command]
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            child = subprocess.Popen(
                command, stdout=stdout, stderr=stderr, env={**os.environ, **QUIET}, cwd=folder, start_new_session=True
            )
        try:
            server = Server(peer, child, port, work)
            if not _answers(server):
                raise SystemExit(f"{peer.name} gave no answer: {err.read_text(errors='replace')[-2000:]}")
            yield server
        finally:
            end(child)


def ask(plan: Plan) -> Report:
    """What a load in a process of its own saw.

    Raises:
        SystemExit: if that process fails.
    """
    command = [sys.executable, str(HERE / "load.py")]
    limit = plan.warmup + plan.seconds + 2 * GRACE
    done = subprocess.run(command, input=json.dumps(asdict(plan)), capture_output=True, text=True, timeout=limit)
    if done.returncode:
        raise SystemExit(f"the load failed: {done.stderr[-2000:]}")
    return Report(**json.loads(done.stdout))


def end(child: subprocess.Popen[bytes]) -> int:
    """Ends a process that leads a session, and whatever else is in that session.

    Returns:
        How many processes had to be killed: those that SIGTERM to the first did not end.
    """
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(END)
    limit = time.monotonic() + ORPHANS
    while session_of(child.pid) and time.monotonic() < limit:
        time.sleep(0.05)
    killed: set[int] = set()
    limit = time.monotonic() + END
    while (left := session_of(child.pid)) and time.monotonic() < limit:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed.update(left)
        child.poll()
        time.sleep(0.05)
    child.wait(END)
    return len(killed)


def session_of(leader: int) -> dict[int, float]:
    """The processes of a session that live, and the CPU seconds that each has taken."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()  # from the state on; see proc(5)
                if int(fields[3]) == leader and fields[0] not in "ZX":
                    found[int(entry.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def resident(leader: int) -> int:
    """Bytes of a session's processes that lie in memory; what several share counts for each."""
    pages = 0
    for pid in session_of(leader):
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def watched(leader: int) -> Iterator[list[int]]:
    """A list that grows by a session's resident bytes every ``EVERY`` seconds, until the end of the block."""
    seen = [resident(leader)]
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(EVERY):
            seen.append(resident(leader))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        thread.join()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _answers(server: Server) -> bool:
    """Waits for the first answer, and says whether it came."""
    body = json.loads(server.work.read_text())["bodies"][0].encode()
    limit = time.monotonic() + START
    while time.monotonic() < limit and server.child.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=END)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("POST", server.peer.path, body, {"Content-Type": "application/json"})
            if connection.getresponse().status == 200:
                return True
        time.sleep(0.1)
    return False

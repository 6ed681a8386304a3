"""Load on one server from a process of its own: closed or open loop, every answer held to the one that is right.

    python benchmarks/load.py < plan.json > report.json

Closed loop: each client asks again when its answer has come. Open loop: requests are due at random instants (Poisson), whatever
the server does, and a latency counts from the instant when the request was due, not from when it was sent; else a server that
stalls would be asked less just then. Needs the standard library alone, and takes uvloop where there is one. Used by serving.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from load_work import RIGHT, Work, quantile

GRACE = 20.0  # seconds that the last answers may take
EXAMPLES = 3  # of each fault that are told
PLANNED = ("refused", "overloaded")  # a bad request that got its 400; an answer 429


@dataclass(frozen=True)
class Plan:
    """One run.

    Attributes:
        work: file of a ``Work``, as JSON.
        port: of the server on loopback.
        path: what requests are posted to.
        clients: connections. Each asks for histories of its own.
        seconds: that are measured, after ``warmup`` seconds in which answers are checked only.
        rate: requests that are due in a second, all clients together; None for a closed loop.
        bad: share of the requests that are bad.
        seed: of the instants, and of which requests are bad.
    """

    work: str
    port: int
    path: str
    clients: int
    seconds: float
    warmup: float = 1.0
    rate: float | None = None
    bad: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Report:
    """What became of a run. Times are seconds.

    Attributes:
        outcomes: how many requests ended how, warm-up and end included: those of ``RIGHT`` and ``PLANNED``, and faults:
            "mixed up" (another request's answer), "wrong", "accepted" (a bad request that was answered otherwise than with
            400), "status N", "broken" (no whole answer came), "unanswered".
        examples: a few of each fault, in words.
        throughput: right answers a second within the measured seconds.
        p50: the latency that half of the right answers did not exceed.
        p99: likewise 99 of 100.
        kept_up: share of the requests due in the measured seconds that were also answered rightly in them.
        late: from when a request of an open loop was due until it was sent, at the median: the load's own lag, up to a
            millisecond; more only where all clients were waiting for answers.
        cpu: the load's own CPU time in shares of one core.
    """

    outcomes: dict[str, int]
    examples: dict[str, list[str]]
    throughput: float
    p50: float
    p99: float
    kept_up: float
    late: float
    cpu: float

    @property
    def faults(self) -> dict[str, int]:
        """The outcomes that must not be."""
        return {name: count for name, count in self.outcomes.items() if name not in (*RIGHT, *PLANNED)}


class Connection(asyncio.Protocol):
    """HTTP/1.1 as far as it is needed: one request at a time, answers with a Content-Length."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes, float]] | None = None
        self._received = b""
        self.is_closed = False

    @classmethod
    async def to(cls, port: int) -> Connection:
        """A connection to a port of loopback."""
        _, connection = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The server is there."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class is none by name

    def connection_lost(self, exc: Exception | None) -> None:
        """The server is gone."""
        self.is_closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError(f"the server closed the connection: {exc}"))

    def data_received(self, data: bytes) -> None:
        """Some of an answer."""
        self._received += data
        head, there, body = self._received.partition(b"\r\n\r\n")
        if not there or self._answer is None or self._answer.done():
            return
        length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        if not length.strip().isdigit():
            self._answer.set_exception(ConnectionError(f"an answer without a length: {head[:200]!r}"))
        elif len(body) >= int(length):
            self._answer.set_result((int(head[9:12]), body, time.perf_counter()))

    async def ask(self, request: bytes) -> tuple[int, bytes, float]:
        """Status and body of an answer, and the instant when all of it was there.

        Raises:
            ConnectionError: if none comes.
        """
        assert self._transport is not None
        if self.is_closed:
            raise ConnectionError("the server closed the connection")
        self._received = b""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """The connection's end."""
        if self._transport is not None:
            self._transport.close()


class Load:
    """A run: its clients, and what they have seen so far.

    Args:
        plan: what to do.
        work: what to ask.

    Raises:
        ValueError: if there are fewer requests than clients: some would ask the same.
    """

    def __init__(self, plan: Plan, work: Work) -> None:
        if plan.clients > len(work.bodies):
            raise ValueError(
                f"clients ({plan.clients}) must be at most as many as different requests ({len(work.bodies)})"
            )
        self._plan, self._work = plan, work
        self._requests, self._bad = (
            [_request(plan.path, body) for body in bodies] for bodies in (work.bodies, work.bad)
        )
        self._random = random.Random(plan.seed)
        self._begin = self._end = 0.0
        self._due: Iterator[float] | None = None
        self._outcomes: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}
        self._latencies: list[float] = []
        self._late: list[float] = []
        self._asked = self._in_time = self._kept_up = 0

    async def run(self) -> Report:
        """Asks, and waits for the last answers."""
        cpu, start = time.process_time(), time.perf_counter()
        self._begin = start + self._plan.warmup
        self._end = self._begin + self._plan.seconds
        if self._plan.rate is not None:
            gaps = (self._random.expovariate(self._plan.rate) for _ in itertools.count())
            self._due = itertools.accumulate(gaps, initial=start)
        clients = [asyncio.create_task(self._client(number)) for number in range(self._plan.clients)]
        done, late = await asyncio.wait(clients, timeout=self._plan.warmup + self._plan.seconds + GRACE)
        for client in done:
            client.result()
        for client in late:
            client.cancel()
            self._fault("unanswered", f"nothing came in {GRACE:g} s")
        await asyncio.sleep(0.01)  # connections are closed by the loop
        return self._report((time.process_time() - cpu) / (time.perf_counter() - start))

    def _report(self, cpu: float) -> Report:
        latencies = sorted(self._latencies)
        return Report(
            dict(self._outcomes),
            self._examples,
            throughput=self._in_time / self._plan.seconds,
            p50=quantile(latencies, 0.5),
            p99=quantile(latencies, 0.99),
            kept_up=self._kept_up / max(1, self._asked),
            late=quantile(sorted(self._late), 0.5),
            cpu=cpu,
        )

    async def _client(self, number: int) -> None:
        """One connection, made anew when it breaks; its histories are every ``clients``-th."""
        connection = None
        places = itertools.cycle(range(number, len(self._requests), self._plan.clients))
        try:
            while (due := await self._turn()) < self._end:
                try:
                    connection = connection or await Connection.to(self._plan.port)
                    await self._ask(connection, next(places), due)
                except OSError as error:
                    self._fault("broken", str(error))
                    if connection is not None:
                        connection.close()
                    connection = None
                    await asyncio.sleep(0.01)
        finally:
            if connection is not None:
                connection.close()

    async def _turn(self) -> float:
        """Waits until the next request is due, and gives that instant."""
        if self._due is None:
            return time.perf_counter()
        due = next(self._due)
        while due < self._end and (left := due - time.perf_counter()) > 0:
            await asyncio.sleep(left + 0.0005)  # loops round to milliseconds; never too early
        return due

    async def _ask(self, connection: Connection, place: int, due: float) -> None:
        is_bad = self._random.random() < self._plan.bad
        request = self._random.choice(self._bad) if is_bad else self._requests[place]
        is_measured = due >= self._begin and not is_bad
        self._asked += is_measured
        if is_measured and self._due is not None:
            self._late.append(time.perf_counter() - due)
        status, body, instant = await connection.ask(request)
        if is_bad and status == 400:
            self._outcomes["refused"] += 1
        elif is_bad:
            self._fault("accepted", f"{status} {body[:200]!r} for {request[-200:]!r}")
        elif status == 200:
            kind, example = self._work.judge(place, body)
            if kind not in RIGHT:
                self._fault(kind, example)
                return
            self._outcomes[kind] += 1
            self._in_time += self._begin <= instant <= self._end
            if is_measured:
                self._latencies.append(instant - due)
                self._kept_up += instant <= self._end
        elif status == 429:
            self._outcomes["overloaded"] += 1
        else:
            self._fault(f"status {status}", repr(body[:200]))

    def _fault(self, kind: str, example: str) -> None:
        self._outcomes[kind] += 1
        if len(seen := self._examples.setdefault(kind, [])) < EXAMPLES:
            seen.append(example)


def _request(path: str, body: str) -> bytes:
    content = body.encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def run(plan: Plan) -> Report:
    """Does what a plan says, in this process."""
    load = Load(plan, Work.read(Path(plan.work)))
    gc.freeze()  # what was read stays; it need not be looked at again and again
    factory = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(load.run())


def main() -> None:
    json.dump(asdict(run(Plan(**json.load(sys.stdin)))), sys.stdout)


if __name__ == "__main__":
    main()

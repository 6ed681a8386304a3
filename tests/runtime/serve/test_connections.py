"""A server with as many connections as it takes: it turns newcomers away, tells its health, and closes what is beyond."""

import asyncio
import contextlib
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from genrec_runtime.serve import connections
from genrec_runtime.serve.app import HEALTH
from genrec_runtime.serve.connections import Whole, deafen
from serving import Client, Running, child_environment, running, until
from tiny import Tiny

MOST, SPARES = 3, 4


@pytest.fixture
def service(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr(connections, "SPARES", SPARES)
    with running(tiny.path, max_connections=MOST) as service:
        yield service


@contextlib.contextmanager
def clients(service: Running, count: int) -> Iterator[list[Client]]:
    """Clients that have asked once, and stay connected."""
    found = [Client(service.port) for _ in range(count)]
    try:
        assert [client.ask("GET", "/v2").status for client in found] == [200] * count
        yield found
    finally:
        for client in found:
            client.close()


@contextlib.contextmanager
def silent(service: Running, count: int) -> Iterator[list[socket.socket]]:
    """Connections that ask nothing."""
    with contextlib.ExitStack() as stack:
        before = len(service.server.server_state.connections)
        address = ("127.0.0.1", service.port)
        yield [stack.enter_context(socket.create_connection(address, timeout=30)) for _ in range(count)]
        assert before <= MOST + SPARES


def test_one_too_many_is_told_so_and_when_to_come_back(service: Running) -> None:
    with clients(service, MOST):
        reply = service.recommend(history=["item 03"])
        assert (reply.status, reply.json["code"]) == (503, "too_many_connections")
        assert (reply.headers["retry-after"], reply.headers["connection"]) == ("1", "close")
        assert reply.headers["x-request-id"]
        assert service.metric('genrec_refused_requests_total{code="too_many_connections"}') == 1
        assert service.metric('genrec_requests_total{code="503",endpoint="none"}') == 1


@pytest.mark.parametrize("path", HEALTH)
def test_a_full_service_is_not_a_dead_one(service: Running, path: str) -> None:
    with clients(service, MOST):
        assert [service.ask("GET", path).status for _ in range(SPARES + 3)] == [200] * (SPARES + 3)


def test_who_asks_after_its_health_keeps_the_connection(service: Running) -> None:
    with clients(service, MOST):
        probe = Client(service.port)
        assert [probe.ask("GET", HEALTH[0]).status for _ in range(3)] == [200] * 3
        assert "connection" not in probe.ask("GET", HEALTH[0]).headers
        probe.close()


def test_who_was_there_before_is_served_on(service: Running) -> None:
    with clients(service, MOST) as early, silent(service, SPARES):
        until(lambda: len(service.server.server_state.connections) == MOST + SPARES)
        for client in early:
            assert client.recommend(history=["item 03"]).status == 200


def test_what_is_beyond_the_spare_ones_is_closed_unheard(service: Running) -> None:
    with clients(service, MOST) as early, silent(service, SPARES):
        until(lambda: len(service.server.server_state.connections) == MOST + SPARES)
        with silent(service, 1) as (late,), contextlib.suppress(ConnectionResetError):
            assert late.recv(1) == b""
        assert early[0].ask("GET", "/v2").status == 200


def test_a_place_that_is_given_back_is_free_though_spare_connections_stay(service: Running) -> None:
    with clients(service, MOST) as early:
        probe = Client(service.port)
        assert probe.ask("GET", HEALTH[0]).status == 200
        early.pop().close()
        until(lambda: len(service.server.server_state.connections) == MOST)  # the probe is one of them
        late = Client(service.port)
        assert late.recommend(history=["item 03"]).status == 200
        assert service.recommend(history=["item 03"]).status == 503
        late.close()
        probe.close()


def test_the_metrics_tell_how_many_there_are_and_may_be(service: Running) -> None:
    with clients(service, 2):
        assert service.metric("genrec_connections") == 2 + 1  # the one that asks
        assert service.metric("genrec_max_connections") == MOST


class Transport:
    """Keeps what is done with it."""

    def __init__(self) -> None:
        self.done: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.done.append(data)

    def close(self) -> None:
        self.done.append("closed")

    def is_closing(self) -> bool:
        return "closed" in self.done


def test_what_is_written_in_one_turn_is_sent_at_once() -> None:
    async def write(transport: Transport) -> None:
        whole = Whole(transport)
        whole.write(b"head ")
        whole.write(b"body")
        assert transport.done == []
        await asyncio.sleep(0)
        whole.write(b"next")
        await asyncio.sleep(0)
        assert not whole.is_closing()
        whole.write(b"last")
        whole.close()
        assert whole.is_closing()
        await asyncio.sleep(0)

    transport = Transport()
    asyncio.run(write(transport))
    assert transport.done == [b"head body", b"next", b"last", "closed"]


def test_as_many_files_may_be_open_as_the_connections_take() -> None:
    code = """
import resource
from genrec_runtime.serve.connections import FILES, SPARES, allow_files
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 1000))
print(allow_files(400), resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 400 - SPARES - FILES)
print(allow_files(10), resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 400 - SPARES - FILES)
print(allow_files(1000), resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] not in range(1000)
    done = subprocess.run(
        [sys.executable, "-c", code], env=child_environment(), capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines() == ["True 0", "True 0", "False (1000, 1000)"], done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the filter is Linux's")
@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_fault_101_who_was_let_in_is_accepted_and_who_comes_later_is_refused(family: int, host: str) -> None:
    try:
        listener = socket.create_server((host, 0), family=family)
    except OSError as error:
        pytest.skip(f"this machine has no {host}: {error}")
    address = listener.getsockname()[:2]
    with listener, socket.create_connection(address, timeout=10) as early:
        deafen(listener)
        with pytest.raises(TimeoutError):
            socket.create_connection(address, timeout=0.2)
        listener.settimeout(10)
        accepted, _ = listener.accept()
        listener.settimeout(0)
        with accepted:
            with pytest.raises(BlockingIOError):
                listener.accept()
            early.sendall(b"heard")
            accepted.settimeout(10)
            assert accepted.recv(5) == b"heard"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=10)

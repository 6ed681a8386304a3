"""What a service does when its model fails, loses its device, or is asked by many at once."""

import os
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from calls import Gate
from genrec.histories import ItemIds
from genrec_runtime import InferenceError, InputError, Recommender
from genrec_runtime.serve import server
from genrec_runtime.serve.availability import AvailabilityFile
from genrec_runtime.serve.settings import Settings
from genrec_runtime.store import point_current_to
from serving import Client, Running, running, until
from tiny import ITEMS, Tiny
from versions import write_versions


@pytest.fixture
def service(tiny: Tiny) -> Iterator[Running]:
    with running(tiny.path, max_batch=8, timeout=60.0) as service:
        yield service


class Callers:
    """Requests that are sent at once, each by a thread; their replies by their numbers."""

    def __init__(self, service: Running, bodies: list[dict[str, Any]]) -> None:
        self.replies: dict[int, Any] = {}
        self._service = service
        self._threads = [threading.Thread(target=self._ask, args=pair) for pair in enumerate(bodies)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int, body: dict[str, Any]) -> None:
        self.replies[number] = self._service.recommend(**body)

    def wait(self) -> dict[int, Any]:
        for thread in self._threads:
            thread.join(60)
        return self.replies


def fail_for(item: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lets every call fail that holds an item; gives the rows of the calls."""
    calls: list[int] = []
    recommend = Recommender.recommend

    def failing(recommender: Recommender, histories: Any, **options: Any) -> Any:
        calls.append(len(histories))
        if any(item in history for history in histories):
            raise error
        return recommend(recommender, histories, **options)

    monkeypatch.setattr(Recommender, "recommend", failing)
    return calls


def together(service: Running, monkeypatch: pytest.MonkeyPatch, bodies: list[dict[str, Any]]) -> dict[int, Any]:
    """Sends requests so that they wait together: they are one batch."""
    gate = Gate(service.service.recommender, monkeypatch)
    first = Callers(service, [{"history": [ITEMS[0]]}])
    assert gate.entered.wait(30)
    callers = Callers(service, bodies)
    until(lambda: service.metric("genrec_queue_rows") == len(bodies))
    gate.open.set()
    assert first.wait()[0].status == 200
    return callers.wait()


def test_fault_100_of_a_batch_whose_run_fails_only_the_guilty_gets_500(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = InferenceError("scores that are no numbers", code="non_finite_scores")
    calls = fail_for("item 05", broken, monkeypatch)
    replies = together(service, monkeypatch, [{"history": [ITEMS[number]]} for number in range(2, 10)])
    assert [replies[number].status for number in range(8)] == [200, 200, 200, 500, 200, 200, 200, 200]
    assert replies[3].json == {"error": "scores that are no numbers", "code": "non_finite_scores"}
    assert calls[:2] == [1, 8]
    assert service.ask("GET", "/v2/health/ready").status == 200


def test_fault_100_bad_requests_are_refused_while_the_good_ones_still_wait(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(service.service.recommender, monkeypatch)
    good = Callers(service, [{"history": [ITEMS[0]]}])
    assert gate.entered.wait(30)
    bad = Callers(service, [{"history": [number + 0.5], "timeout_ms": 20_000} for number in range(6)]).wait()
    assert {reply.status for reply in bad.values()} == {400}
    assert good.replies == {}
    gate.open.set()
    assert good.wait()[0].status == 200
    assert gate.runs == 1


def test_fault_101_who_was_let_in_before_the_end_is_still_heard(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LAST_WORDS", 2.0)
    with running(tiny.path) as service, socket.create_connection(("127.0.0.1", service.port), timeout=30) as early:
        until(lambda: service.server.server_state.connections)
        service.server.should_exit = True
        until(lambda: service.service.state == "ending")
        time.sleep(0.3)
        with pytest.raises(ConnectionRefusedError):
            service.ask("GET", "/v2")
        early.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert early.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel cannot be told")
def test_fault_101_before_it_stops_listening_nobody_else_is_let_in(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LAST_HANDSHAKES", 2.0)
    with running(tiny.path) as service:
        service.server.should_exit = True
        until(lambda: service.service.state == "ending")
        time.sleep(0.2)
        with pytest.raises(TimeoutError):
            socket.create_connection(("127.0.0.1", service.port), timeout=0.2)


def test_an_error_that_nobody_foresaw_is_500_and_says_nothing_of_the_inside(
    service: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fail_for("item 05", ZeroDivisionError("secret"), monkeypatch)
    reply = service.recommend(history=["item 05"])
    assert (reply.status, reply.json["code"]) == (500, "internal")
    assert b"secret" not in reply.body
    assert "secret" in caplog.text
    assert service.recommend(history=["item 06"]).status == 200


def test_fault_88_a_lost_device_makes_the_service_ask_for_a_new_process(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fail_for("item 05", InferenceError("CUDA failure", code="device_lost"), monkeypatch)
    replies = together(service, monkeypatch, [{"history": [ITEMS[number]]} for number in (4, 5, 6)])
    assert {reply.status for reply in replies.values()} == {503}
    assert calls == [1, 3]  # not tried again
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert service.ask("GET", path).status == 503
    reply = service.recommend(history=["item 06"])
    assert (reply.status, reply.json["code"]) == (503, "not_ready")
    assert "has to be started anew" in reply.json["error"]


def load(service: Running, served: Recommender, callers: int, turns: int) -> None:
    """Callers that check each of their answers against what ``recommend`` gives for it alone; a tenth of the requests is bad."""
    drawn = random.Random(5)
    histories = [[drawn.choice(ITEMS) for _ in range(drawn.randrange(9))] for _ in range(200)]
    found = served.recommend(histories, k=20)
    wrong: list[Any] = []

    def call(seed: int) -> None:
        mine, client = random.Random(seed), Client(service.port)
        for _ in range(turns):
            row, k = mine.randrange(200), mine.randint(1, 20)
            if mine.random() < 0.1:
                body = mine.choice([{"history": [3.5]}, {"history": [], "k": 0}, {"histories": [[]], "x": 1}, {}])
                if client.recommend(**body).status != 400:
                    wrong.append(body)
                continue
            reply = client.recommend(history=histories[row], k=k)
            expected = (200, found.items[row][:k])
            if (reply.status, reply.json.get("items")) != expected or reply.json["scores"] != pytest.approx(
                found.scores[row][:k].tolist(), rel=1e-5, abs=1e-5
            ):
                wrong.append((row, k, reply))
        client.close()

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert wrong == []
    assert service.metric("genrec_queue_rows") == 0


def test_sixty_four_clients_each_get_their_own_answers(tiny: Tiny, served: Recommender) -> None:
    with running(tiny.path, timeout=60.0) as service:
        load(service, served, callers=64, turns=6)
        batches, rows = (service.metric(f"genrec_batch_rows_{what}") for what in ("count", "sum"))
        assert rows > 2 * batches  # they were answered together


@pytest.mark.slow
def test_under_a_minute_of_load_memory_stops_growing(tiny: Tiny, served: Recommender) -> None:
    with running(tiny.path, timeout=60.0) as service:
        load(service, served, callers=64, turns=100)
        before = resident()
        load(service, served, callers=64, turns=400)
        assert resident() - before < 16 << 20  # of some 100 MiB; what a leak of 1 KiB a request would take


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_the_end_waits_no_longer_than_it_may_for_a_bundle_that_is_being_loaded(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = threading.Event()
    monkeypatch.setattr(service.service._reloader, "close", lambda: loaded.wait(60))
    assert not service.service.close(0.1)
    loaded.set()
    assert service.service.close(10)


# --- the parts


@pytest.fixture
def allowing(tiny: Tiny, tmp_path: Path) -> Iterator[tuple[Running, Path]]:
    """A service that may recommend three items, and the file that says so."""
    file = tmp_path / "available"
    file.write_text("item 03\nitem 07\n\nitem 09\nunknown\n", encoding="utf-8")
    with running(tiny.path, availability=file, interval=0.02) as service:
        yield service, file


def offered(service: Running) -> set[str]:
    return set(service.recommend(history=[], k=20).json["items"])


@pytest.mark.parametrize("content", [b"", b"unknown\n", b"\xff\n", None], ids=["empty", "no item", "no text", "gone"])
def test_of_a_bad_file_the_last_good_one_is_kept(
    allowing: tuple[Running, Path], content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    service, file = allowing
    refused = 'genrec_availability_reloads_total{result="refused"}'
    if content is None:
        file.unlink()
    else:
        (file.parent / "next").write_bytes(content)
        (file.parent / "next").rename(file)
    until(lambda: service.metric(refused) == 1)
    assert offered(service) == {"item 03", "item 07", "item 09"}
    assert service.metric("genrec_available_items") == 3
    assert service.metric("genrec_availability_refused") == 1
    assert "what was available stays so" in caplog.text
    (file.parent / "next").write_bytes(b"item 05\n")
    (file.parent / "next").rename(file)
    until(lambda: offered(service) == {"item 05"})
    assert service.metric("genrec_availability_refused") == 0
    assert service.metric(refused) == 1


def test_what_is_available_stays_so_in_the_bundle_that_follows(
    tiny: Tiny, tmp_path: Path, reseal: Callable[..., None]
) -> None:
    write_versions(tiny.path, tmp_path / "store", 2, reseal)
    first, second = sorted(path.name for path in (tmp_path / "store").iterdir())
    point_current_to(tmp_path / "store", first)
    (tmp_path / "ids").write_text("item 03\n", encoding="utf-8")
    with running(tmp_path / "store" / "current", availability=tmp_path / "ids", interval=0.02) as service:
        point_current_to(tmp_path / "store", second)
        until(lambda: service.recommend(history=[]).json["version"] == second)
        assert offered(service) == {"item 03"}


INTS, TEXTS = ItemIds([5, -7, 30]), ItemIds(["a", "b c"])


def test_a_file_of_ids_is_read_when_it_changed_and_only_then(tmp_path: Path) -> None:
    path = tmp_path / "ids"
    path.write_text("5\n -7 \n\n999\n", encoding="utf-8")
    file = AvailabilityFile(path)
    assert file.changed(INTS) == [5, -7, 999]
    assert file.changed(INTS) is None
    path.write_text("30\n", encoding="utf-8")
    assert file.changed(INTS) == [30]
    file.again()
    assert file.changed(INTS) == [30]
    path.write_text("b c\r\na\r\n", encoding="utf-8")
    assert file.changed(TEXTS) == ["b c", "a"]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"5\nseven\n", "line 2: seven is no whole number"),
        (b"5.0\n", "line 1: 5.0 is no whole number"),
        (b"", "none of the 0 ids"),
        (b"6\n8\n", "none of the 2 ids"),
        (b"\xff\n", "no text in UTF-8"),
    ],
)
def test_a_bad_file_of_ids_is_refused_once(tmp_path: Path, content: bytes, match: str) -> None:
    path = tmp_path / "ids"
    path.write_bytes(content)
    file = AvailabilityFile(path)
    with pytest.raises(InputError, match=match) as caught:
        file.changed(INTS)
    assert file.last_error is caught.value
    assert file.changed(INTS) is None
    path.write_bytes(b"5\n# ")
    path.write_bytes(b"5\n")
    assert (file.changed(INTS), file.last_error) == ([5], None)


def test_a_file_of_ids_that_is_gone_is_told_once(tmp_path: Path) -> None:
    file = AvailabilityFile(tmp_path / "ids")
    with pytest.raises(FileNotFoundError):
        file.changed(INTS)
    assert file.changed(INTS) is None
    file.path.write_text("5", encoding="utf-8")
    assert file.changed(INTS) == [5]


@pytest.mark.parametrize("name", ["max_batch", "max_queue", "max_rows", "max_body", "max_connections", "threads"])
def test_a_setting_out_of_range_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} \(0\) must lie in 1\.\."):
        Settings(Path("bundle"), **{name: 0})

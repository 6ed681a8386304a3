"""The service as a process: its signals, its end, its swaps, its command line."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genrec_runtime import Recommender
from genrec_runtime.store import point_current_to
from serving import Client, Reply, command, process, until
from tiny import ITEMS, Tiny
from versions import write_versions

HISTORIES = [[ITEMS[(5 * user + 3 * step) % 37] for step in range(user % 7)] for user in range(16)]


@pytest.fixture(scope="module")
def versions(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory, reseal: Callable[..., None]) -> Path:
    """A store of two versions of one model with other weights; none is current."""
    root = tmp_path_factory.mktemp("served") / "store"
    write_versions(tiny.path, root, 2, reseal)
    return root


@pytest.fixture
def store(versions: Path, tmp_path: Path) -> Path:
    """A copy of the two, the first of which is current."""
    root = Path(shutil.copytree(versions, tmp_path / "store"))
    point_current_to(root, names(root)[0])
    return root


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if not path.is_symlink())


class Load:
    """Callers that ask without a pause, each on a connection that it keeps, and check every answer by its version.

    A connection that cannot be made, or that the service has closed before it took a request, is no failed request.
    """

    def __init__(self, port: int, expected: dict[str, Any], callers: int = 8) -> None:
        self.port, self.expected = port, expected
        self.stop = threading.Event()
        self.versions: list[str] = []
        self.wrong: list[Any] = []
        self.refused = 0
        self.threads = [threading.Thread(target=self._call, args=(caller,)) for caller in range(callers)]

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()

    def _call(self, caller: int) -> None:
        client, turn = Client(self.port), caller
        while not self.stop.is_set():
            turn += 1
            row = turn % len(HISTORIES)
            try:
                reply = client.recommend(history=HISTORIES[row], k=5)
            except ConnectionRefusedError:
                self.refused += 1
                break
            except OSError as error:
                self.wrong.append(error)
                break
            self._check(reply, row)
        client.close()

    def _check(self, reply: Reply, row: int) -> None:
        if reply.status != 200:
            self.wrong.append(reply)
            return
        found = reply.json
        self.versions.append(found["version"])
        if [found["items"], found["scores"]] != self.expected[found["version"]][row]:
            self.wrong.append((row, found))


def answers(*bundles: Path) -> dict[str, Any]:
    """By version, what each of the histories gets."""
    found = {}
    for bundle in bundles:
        answer = Recommender.load(bundle, device="cpu", threads=1).recommend(HISTORIES, k=5)
        found[bundle.name] = [[i, s.tolist()] for i, s in zip(answer.items, answer.scores, strict=True)]
    return found


def children(pid: int) -> list[int]:
    """The processes that a process has started and not taken back."""
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


# --- the end


def test_fault_101_at_sigterm_every_request_taken_is_answered_and_nothing_is_left(tiny: Tiny, tmp_path: Path) -> None:
    with process(tiny.path, tmp_path, "--linger", "0.3") as served, Load(served.port, answers(tiny.path)) as load:
        until(lambda: len(load.versions) > 100, served.child)
        assert children(served.child.pid) == []
        served.child.send_signal(signal.SIGTERM)
        assert served.child.wait(30) == 0
    assert load.wrong == []
    assert load.refused == len(load.threads)
    assert "all requests answered" in served.events()
    logged = [entry for entry in served.accesses() if entry["path"] == "/v1/recommend"]
    assert len(logged) == len(load.versions)
    assert {entry["status"] for entry in logged} == {200}


def test_fault_101_while_it_ends_it_is_alive_and_not_ready(tiny: Tiny, tmp_path: Path) -> None:
    with process(tiny.path, tmp_path, "--linger", "1.5") as served:
        served.child.send_signal(signal.SIGINT)
        until(lambda: served.ask("GET", "/v2/health/ready").status == 503, served.child)
        assert served.ask("GET", "/v2/health/live").status == 200
        reply = served.ask("POST", "/v1/recommend", {"history": ["item 03"]})
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert served.child.wait(30) == 0
        with pytest.raises(ConnectionRefusedError):
            served.ask("GET", "/v2/health/live")


def test_fault_102_a_second_sigterm_ends_it_at_once(tiny: Tiny, tmp_path: Path) -> None:
    with process(tiny.path, tmp_path, "--linger", "600") as served:
        served.child.send_signal(signal.SIGTERM)
        until(lambda: served.ask("GET", "/v2/health/ready").status == 503, served.child)
        served.child.send_signal(signal.SIGTERM)
        assert served.child.wait(10) == 1


def test_fault_102_after_sigkill_under_load_another_serves_the_same_store_and_port(store: Path, tmp_path: Path) -> None:
    before = sorted(str(path) for path in store.rglob("*"))
    with process(store / "current", tmp_path) as served:
        with Load(served.port, answers(store / names(store)[0])) as load:
            until(lambda: len(load.versions) > 50, served.child)
            served.child.kill()
            served.child.wait(30)
        assert sorted(str(path) for path in store.rglob("*")) == before
        with process(store / "current", tmp_path, "--port", str(served.port)) as again:
            assert again.port == served.port
            assert again.ask("POST", "/v1/recommend", {"history": []}).status == 200


def test_fault_101_a_client_that_does_not_finish_holds_the_end_up_no_longer_than_it_may(
    tiny: Tiny, tmp_path: Path
) -> None:
    options = ("--linger", "0", "--drain", "0.5", "--slow", "300")
    with process(tiny.path, tmp_path, *options) as served, socket.create_connection(("127.0.0.1", served.port)) as slow:
        slow.sendall(b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{")
        time.sleep(0.2)
        start = time.monotonic()
        served.child.send_signal(signal.SIGTERM)
        assert served.child.wait(30) == 0
        assert 0.4 < time.monotonic() - start < 10


# --- the start


def test_fault_108_a_port_that_is_taken_is_one_line_and_exit_1(tiny: Tiny, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with command(tiny.path, tmp_path, "--port", str(port)) as (child, log, complaints):
            assert child.wait(60) == 1
    assert log.read_text() == ""
    said = complaints.read_text().splitlines()
    assert len(said) == 1
    assert said[0].startswith("error: ")
    assert (
        f"cannot listen on 127.0.0.1:{port}: Address already in use; another process has it, take another --port"
        in said[0]
    )


@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_a_bundle_that_cannot_be_served_is_said_and_exit_1(tiny: Tiny, copied: Path, tmp_path: Path, harm: str) -> None:
    if harm == "damaged":
        (copied / "weights.bin").write_bytes(bytes((copied / "weights.bin").stat().st_size))
    bundle = copied if harm == "damaged" else tmp_path / "nowhere"
    with command(bundle, tmp_path) as (child, _, complaints):
        assert child.wait(60) == 1
    assert "the bundle cannot be served" in complaints.read_text()
    assert "Traceback" not in complaints.read_text()


def test_every_option_is_read_from_the_environment(tiny: Tiny, tmp_path: Path) -> None:
    options = {"GENREC_BUNDLE": str(tiny.path), "GENREC_NAME": "shop", "GENREC_MAX_ROWS": "2", "GENREC_PAGE": "false"}
    options |= {"GENREC_ACCESS_LOG": "0"}
    code = """
import json, sys
from genrec_runtime import cli_serve
from genrec_runtime.serve import server
server.run = lambda settings: print(settings) or 7
cli_serve.serve()
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **options}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 7, done.stderr
    for said in (f"bundle={tiny.path!r}", "name='shop'", "max_rows=2", "page=False", "access_log=False", "port=8000"):
        assert said in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--max-batch", "0"], "max_batch (0) must lie in 1.."),
        (["--max-rows", "9", "--max-queue", "8"], "max_rows (9) must be at most max_queue (8)"),
        (["--port", "70000"], "port (70000) must lie in 0..65535"),
        (["--timeout", "nan"], "timeout (nan)"),
        (["--device", "cdua"], "device ('cdua')"),
    ],
)
def test_an_option_out_of_range_is_one_line_and_exit_1(
    tiny: Tiny, tmp_path: Path, arguments: list[str], said: str
) -> None:
    with command(tiny.path, tmp_path, *arguments) as (child, _, complaints):
        assert child.wait(60) == 1
    assert complaints.read_text().count("\n") == 1
    assert said in complaints.read_text()


def test_requests_are_logged_as_lines_of_json(tiny: Tiny, tmp_path: Path) -> None:
    with process(tiny.path, tmp_path, "--linger", "0") as served:
        served.ask("POST", "/v1/recommend", {"histories": [[], ["item 03"]]}, X_Request_Id='a"b')
        served.ask("GET", "/nothing\r\n".strip())
        served.child.send_signal(signal.SIGTERM)
        assert served.child.wait(30) == 0
        entry, other = served.accesses()[-2:]
    assert {name: entry[name] for name in ("request_id", "client", "method", "path", "status", "rows")} == {
        "request_id": 'a"b',
        "client": "127.0.0.1",
        "method": "POST",
        "path": "/v1/recommend",
        "status": 200,
        "rows": 2,
    }
    assert entry["seconds"] > 0
    assert entry["time"].endswith("Z")
    assert (other["path"], other["status"]) == ("/nothing", 404)
    assert all(set(json.loads(line)) == {"time", "level", "logger", "message"} for line in served.events().splitlines())


# --- swaps


def test_fault_104_swaps_under_load_fail_no_request(store: Path, tmp_path: Path) -> None:
    first, second = names(store)
    with process(store / "current", tmp_path, "--interval", "0.05", "--linger", "0") as served:
        with Load(served.port, answers(store / first, store / second), 4) as load:
            for turn in range(6):
                wanted = (second, first)[turn % 2]
                point_current_to(store, wanted)
                swapped = f'genrec_reloads_total{{result="swapped"}} {turn + 1}.0'
                until(lambda swapped=swapped: swapped in served.ask("GET", "/metrics").body.decode(), served.child)
                seen = len(load.versions)
                until(lambda wanted=wanted, seen=seen: wanted in load.versions[seen:], served.child)
        assert load.wrong == []


def test_fault_103_a_broken_bundle_changes_nothing_and_is_counted(store: Path, tmp_path: Path) -> None:
    first, second = names(store)
    (store / second / "weights.bin").write_bytes(b"")
    with process(store / "current", tmp_path, "--interval", "0.05", "--linger", "0") as served:
        with Load(served.port, answers(store / first), 2) as load:
            point_current_to(store, second)
            until(lambda: 'genrec_reloads_total{result="refused"} 1.0' in served.ask("GET", "/metrics").body.decode())
            until(lambda: len(load.versions) > 50, served.child)
        assert load.wrong == []
        assert set(load.versions) == {first}
        assert served.ask("GET", "/v2/health/ready").status == 200
    assert "was refused, the one before serves on" in served.events()


def test_at_sighup_it_looks_at_once(store: Path, tmp_path: Path) -> None:
    first, second = names(store)
    with process(store / "current", tmp_path, "--interval", "3600") as served:
        assert served.ask("POST", "/v1/recommend", {"history": []}).json["version"] == first
        point_current_to(store, second)
        served.child.send_signal(signal.SIGHUP)
        until(lambda: served.ask("POST", "/v1/recommend", {"history": []}).json["version"] == second, served.child)


def test_the_availability_file_is_followed(tiny: Tiny, tmp_path: Path) -> None:
    file, following = tmp_path / "available", tmp_path / "following"
    file.write_text("item 03\nitem 07\n", encoding="utf-8")
    following.write_text("item 08\n", encoding="utf-8")
    with process(tiny.path, tmp_path, "--availability", str(file), "--interval", "0.05", "--linger", "0") as served:

        def offered() -> list[str]:
            return sorted(served.ask("POST", "/v1/recommend", {"history": [], "k": 20}).json["items"])

        assert offered() == ["item 03", "item 07"]
        following.rename(file)
        until(lambda: offered() == ["item 08"], served.child)


def test_without_the_availability_file_it_does_not_start(tiny: Tiny, tmp_path: Path) -> None:
    with command(tiny.path, tmp_path, "--availability", str(tmp_path / "nowhere")) as (child, _, complaints):
        assert child.wait(60) == 1
    assert "nowhere" in complaints.read_text()


def test_without_its_extra_the_command_names_what_to_install(tiny: Tiny, tmp_path: Path) -> None:
    code = """
import sys
sys.modules["uvicorn"] = None
from genrec_runtime.cli_serve import serve
serve([sys.argv[1]])
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    line = [sys.executable, "-c", code, str(tiny.path)]
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "install it with: pip install 'genrec[serve]'" in done.stderr

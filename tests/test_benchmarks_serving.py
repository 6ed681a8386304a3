"""The load of the serving benchmark and its checks, against servers that answer rightly, wrongly, late or not; never how fast."""

import asyncio
import contextlib
import doctest
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
NAMES = ("load", "load_work", "servers", "serving", "serving_bench", "serving_peers", "serving_tables")
REQUESTS = 12
Answer = Callable[[dict[str, Any], int], tuple[int, Any]]  # of a request's values and its number: status and body


@pytest.fixture(scope="module")
def scripts() -> Iterator[SimpleNamespace]:
    """The scripts as modules: they import one another as they do when run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})


@pytest.fixture(scope="module")
def work(scripts: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve requests; the answer to [n] is [n, 100 + n] with scores 1 and 0.5."""
    made = scripts.load_work.Work(
        [json.dumps({"history": [number]}) for number in range(REQUESTS)],
        [[number, 100 + number] for number in range(REQUESTS)],
        [[1.0, 0.5]] * REQUESTS,
        ["{", json.dumps({"histroy": []})],
    )
    return Path(made.write(tmp_path_factory.mktemp("work") / "work.json"))


def right(asked: Any, number: int) -> tuple[int, Any]:
    """What is expected; 400 for a bad request."""
    if not isinstance(asked, dict) or "history" not in asked:
        return 400, {"error": "bad"}
    return 200, {"items": [asked["history"][0], 100 + asked["history"][0]], "scores": [1.0, 0.5]}


@contextlib.contextmanager
def stub(answer: Answer) -> Iterator[int]:
    """A server on loopback that answers as ``answer`` says; None for a body breaks the connection. Gives its port."""
    numbers = iter(range(10**9))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer in one piece: two would wait for each other

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                asked = json.loads(body)
            except ValueError:
                asked = None
            status, found = answer(asked, next(numbers))
            if found is None:
                self.close_connection = True
                return
            content = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def loaded(scripts: SimpleNamespace, work: Path, answer: Answer, clients: int = 3, **how: Any) -> Any:
    """What a short load on such a server sees."""
    with stub(answer) as port:
        plan = scripts.load.Plan(str(work), port, "/", clients, **{"seconds": 0.3, "warmup": 0.05, **how})
        return asyncio.run(scripts.load.Load(plan, scripts.load_work.Work.read(work)).run())


def test_right_answers_are_counted_and_nothing_else(scripts: SimpleNamespace, work: Path) -> None:
    report = loaded(scripts, work, right)
    assert set(report.outcomes) == {"right"}
    assert report.faults == {}
    assert 0 < report.throughput * 0.3 <= report.outcomes["right"]
    assert 0 < report.p50 <= report.p99 < 20


def test_each_client_asks_for_histories_of_its_own(scripts: SimpleNamespace, work: Path) -> None:
    asked: dict[int, set[int]] = {}

    def answer(values: Any, number: int) -> tuple[int, Any]:
        asked.setdefault(threading.get_ident(), set()).add(values["history"][0])  # a thread a connection
        return right(values, number)

    loaded(scripts, work, answer, clients=3)
    assert sorted(map(sorted, asked.values())) == [list(range(first, REQUESTS, 3)) for first in range(3)]


def test_two_answers_that_change_places_are_caught(scripts: SimpleNamespace, work: Path) -> None:
    both = threading.Barrier(2)

    def answer(values: Any, number: int) -> tuple[int, Any]:
        if number in (4, 5):  # of two clients: each waits for the other, then gets what the other asked for
            swapped[number] = values
            both.wait(10)
            return right(swapped[9 - number], number)
        return right(values, number)

    swapped: dict[int, Any] = {}
    report = loaded(scripts, work, answer, clients=2)
    assert report.faults == {"mixed up": 2}
    assert "right are" in report.examples["mixed up"][0]


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        ((200, {"items": [7, 99], "scores": [1.0, 0.5]}), "wrong"),
        ((200, {"items": [3, 103], "scores": [1.0, 0.5001]}), "wrong"),
        ((200, {"items": [3, 103]}), "wrong"),
        ((200, b"no JSON"), "wrong"),
        ((500, {}), "status 500"),
        ((503, b"full"), "status 503"),
        ((200, None), "broken"),
    ],
    ids=["an item", "a score", "no scores", "no JSON", "500", "503", "no answer"],
)
def test_every_other_fault_is_counted_by_its_kind(
    scripts: SimpleNamespace, work: Path, found: tuple[int, Any], fault: str
) -> None:
    def answer(values: Any, number: int) -> tuple[int, Any]:
        return found if values["history"] == [3] else right(values, number)

    report = loaded(scripts, work, answer)
    assert set(report.faults) == {fault}
    assert len(report.examples[fault]) <= scripts.load.EXAMPLES
    assert report.outcomes["right"] > 0


def test_an_answer_that_never_comes_is_a_fault_and_the_load_ends(
    scripts: SimpleNamespace, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts.load, "GRACE", 0.2)
    stuck = threading.Event()

    def answer(values: Any, number: int) -> tuple[int, Any]:
        if number == 5:
            stuck.wait(10)
        return right(values, number)

    report = loaded(scripts, work, answer)
    stuck.set()
    assert report.faults == {"unanswered": 1}


def test_bad_requests_must_get_400_and_good_ones_beside_them_their_answer(scripts: SimpleNamespace, work: Path) -> None:
    report = loaded(scripts, work, right, bad=0.5)
    assert set(report.outcomes) == {"right", "refused"}
    assert report.outcomes["refused"] > 0
    lenient = loaded(scripts, work, lambda values, _: right(values, 0) if values else (200, {}), bad=0.5)
    assert set(lenient.faults) == {"accepted"}


def test_overload_is_counted_apart_from_faults(scripts: SimpleNamespace, work: Path) -> None:
    report = loaded(scripts, work, lambda values, number: (429, {}) if number % 2 else right(values, number))
    assert set(report.outcomes) == {"right", "overloaded"}
    assert report.faults == {}


def test_an_open_loop_counts_latency_from_when_a_request_was_due(scripts: SimpleNamespace, work: Path) -> None:
    def slow(values: Any, number: int) -> tuple[int, Any]:
        time.sleep(0.1)
        return right(values, number)

    closed = loaded(scripts, work, slow, clients=1)
    opened = loaded(scripts, work, slow, clients=1, seconds=0.5, rate=40.0)  # four times what the server can do
    assert closed.p50 < 0.3
    assert opened.p99 > 0.5  # the last of 20 requests comes after 2 s of work, and was due after half a second
    assert opened.kept_up < 0.7
    assert opened.faults == {}


def test_an_open_loop_asks_at_its_rate_whoever_answers(scripts: SimpleNamespace, work: Path) -> None:
    report = loaded(scripts, work, right, clients=6, seconds=1.0, warmup=0.0, rate=100.0)
    assert 50 < report.outcomes["right"] < 150  # Poisson, mean 100: five standard deviations
    assert report.kept_up > 0.5


def test_more_clients_than_requests_are_refused(scripts: SimpleNamespace, work: Path) -> None:
    plan = scripts.load.Plan(str(work), 1, "/", REQUESTS + 1, 1.0)
    with pytest.raises(ValueError, match=r"clients \(13\) must be at most as many as different requests \(12\)"):
        scripts.load.Load(plan, scripts.load_work.Work.read(work))


def test_the_load_is_a_process_that_reads_a_plan_and_writes_a_report(scripts: SimpleNamespace, work: Path) -> None:
    with stub(right) as port:
        report = scripts.servers.ask(scripts.load.Plan(str(work), port, "/", 2, 0.2, warmup=0.0))
    assert set(report.outcomes) == {"right"}
    assert report.cpu > 0


def test_a_server_is_ended_with_all_that_it_started(scripts: SimpleNamespace, tmp_path: Path) -> None:
    code = """
import os, signal, sys, time
for _ in range(2):
    if not os.fork():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.setpgrp()
        break
else:
    open(sys.argv[1], "w").close()
time.sleep(60)
"""
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "there")], start_new_session=True)
    try:
        limit = time.monotonic() + 20
        while not (tmp_path / "there").exists() or len(scripts.servers.session_of(child.pid)) < 3:
            assert time.monotonic() < limit
            time.sleep(0.02)
        assert scripts.servers.resident(child.pid) > 3 << 20  # three Pythons, some MiB each
    finally:
        killed = scripts.servers.end(child)
    assert killed == 2  # those that do not care for SIGTERM
    assert child.returncode == -signal.SIGTERM
    assert scripts.servers.session_of(child.pid) == {}


def test_a_server_that_does_not_start_is_named_with_what_it_wrote(scripts: SimpleNamespace, work: Path) -> None:
    peer = scripts.servers.Peer("stub", [sys.executable, "-c", "raise SystemExit('no such {port}')"], "/")
    with (
        pytest.raises(SystemExit, match=r"stub gave no answer: no such \d+"),
        scripts.servers.served(peer, work),
    ):
        pass


def test_genrec_is_served_loaded_and_its_batches_are_counted(
    scripts: SimpleNamespace, tiny: Any, tmp_path: Path
) -> None:
    from genrec_runtime import Recommender

    asked = scripts.serving_bench.work_of(Recommender.load(tiny.path, device="cpu", threads=1), 40)
    assert len({tuple(items) for items in asked.items}) == len(asked.items) > 4
    peer = scripts.serving_peers.genrec(sys.executable, tiny.path, "--threads", "1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        with scripts.servers.served(peer, asked.write(tmp_path / "asked.json")) as server:
            run = server.load(4, 0.5, bad=0.3)
    assert set(run.report.outcomes) <= {"right", "tied", "refused"}
    assert run.report.outcomes["refused"] > 0
    assert run.batch >= 1
    assert run.resident > 0
    assert run.cpu > 0


def run_of(scripts: SimpleNamespace, outcomes: dict[str, int], throughput: float = 10.0, memory: Any = (100,)) -> Any:
    """A run that saw this."""
    report = scripts.load.Report(outcomes, {}, throughput, 0.1, 0.2, 1.0, 0.0, 0.1)
    return scripts.servers.Run(report, list(memory), float("nan"), 0.01)


def test_growth_is_the_last_quarter_against_the_second(scripts: SimpleNamespace) -> None:
    steps = [50] * 4 + [100] * 4 + [105] * 4 + [110] * 3 + [500]  # one outlier is none
    assert run_of(scripts, {}, memory=steps).growth == pytest.approx(110 / 100 - 1)
    assert run_of(scripts, {}, memory=[7]).growth == 0


@pytest.mark.parametrize(
    ("clean", "mixed", "theirs", "failed"),
    [
        ({}, {}, 10.0, None),
        ({"outcomes": {"right": 9, "mixed up": 1}}, {}, 10.0, "good requests alone: answers"),
        ({"outcomes": {"right": 9, "overloaded": 1}}, {}, 10.0, "good requests alone: answers"),
        ({"outcomes": {}}, {}, 10.0, "good requests alone: answers"),
        ({"memory": [100] * 6 + [103] * 2}, {}, 10.0, "good requests alone: growth of memory"),
        ({}, {"outcomes": {"right": 9, "refused": 1, "accepted": 1}}, 10.0, "10% bad requests among them: answers"),
        ({}, {"outcomes": {"right": 9}}, 10.0, "bad requests, each answered with 400"),
        ({}, {}, 10.01, "throughput, genrec / LitServe"),
        ({}, {}, None, "throughput, genrec / LitServe"),
    ],
    ids=["all holds", "mix-up", "overload", "no answer", "memory", "accepted", "no bad one", "too slow", "no LitServe"],
)
def test_a_soak_holds_only_if_each_thing_asked_does(
    scripts: SimpleNamespace, clean: dict[str, Any], mixed: dict[str, Any], theirs: float | None, failed: str | None
) -> None:
    ours = run_of(scripts, **{"outcomes": {"right": 9}, "throughput": 15.0, **clean})
    beside = run_of(scripts, **{"outcomes": {"right": 9, "refused": 1}, **mixed})
    others = [] if theirs is None else [run_of(scripts, {"right": 9}, theirs)] * 2
    found = scripts.serving_tables.checks(ours, beside, others)
    assert [check.what for check in found if not check.holds] == ([] if failed is None else [failed])


def test_ratios_are_above_1_where_ours_are_better(scripts: SimpleNamespace) -> None:
    tables, ours, theirs = scripts.serving_tables, run_of(scripts, {}, 30.0), run_of(scripts, {"wrong": 2}, 10.0)
    assert tables.throughput([ours] * 2, [theirs] * 2) == "3.00 (3.00-3.00)"
    assert tables.latency([ours], [theirs]) == ["1.00 (1.00-1.00)"] * 2
    assert tables.throughput([ours], [run_of(scripts, {}, 0.0)]) == "-"
    assert tables.said(tables.faults_of([ours, theirs, theirs])) == "4 wrong"


def test_the_best_settings_of_each_step_are_kept(scripts: SimpleNamespace) -> None:
    tried: list[list[str]] = []

    def throughput(settings: list[str]) -> float:
        tried.append(settings)
        return ("zmq" in settings) + 2 * (settings.count("2") == 1) + 4 * ("0.005" in settings)

    best = scripts.serving_peers.best_settings(throughput)
    assert best[:2] == ["--queue", "zmq"]
    assert best[2:] == ["--servers", "2", "--timeout", "0.005"]  # the first of equals
    assert len(tried) == sum(map(len, scripts.serving_peers.STEPS))


def test_a_package_that_a_python_lacks_is_noticed(scripts: SimpleNamespace) -> None:
    assert scripts.serving_peers.lacks(sys.executable, "no_such_package")
    assert not scripts.serving_peers.lacks(sys.executable, "json")


def test_the_pieces_keep_their_examples(scripts: SimpleNamespace) -> None:
    for module in (scripts.load_work, scripts.serving_tables):
        assert doctest.testmod(module).attempted > 0
        assert doctest.testmod(module).failed == 0

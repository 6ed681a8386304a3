"""Calls that nobody waits for any more: rows 96 to 98 and 113 of the catalogue of faults."""

import ast
import asyncio
import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from calls import ROWS, Gate, answer
from genrec_runtime import InputError, Module, Recommender, deadlines
from genrec_runtime.errors import DeadlineExceeded
from tiny import Tiny

# --- cancelling, deadlines, the clock


def test_fault_96_a_cancelled_call_lets_go_and_disturbs_no_other(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = answer(recommender)
    gate = Gate(recommender, monkeypatch)

    async def serve() -> Any:
        calls = [asyncio.create_task(asyncio.to_thread(answer, recommender)) for _ in range(3)]
        await asyncio.to_thread(gate.entered.wait, 60)
        calls[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await calls[0]
        gate.open.set()
        return await asyncio.gather(*calls[1:])

    assert asyncio.run(serve()) == [expected] * 2
    assert recommender._engine._calls == 0
    recommender.close()  # waits for nobody


class Clock:
    """A clock for deadlines that only a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(deadlines, "time", SimpleNamespace(monotonic=lambda: self.now))


def test_fault_98_after_a_deadline_that_passed_in_the_queue_nothing_is_computed(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recommender._engine, "_execute", None)
    for rows in (ROWS, [[]]):
        with pytest.raises(DeadlineExceeded, match=r"the deadline passed \d+\.\d+ s ago") as caught:
            recommender.recommend(rows, deadline=time.monotonic() - 0.5)
        assert caught.value.code == "deadline_exceeded"


def test_fault_98_after_the_deadline_of_a_long_call_no_further_run_begins(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, runs = Clock(monkeypatch), []
    execute = recommender._engine._execute

    def slow(*arguments: Any) -> Any:
        runs.append(clock.now)
        clock.now += 10
        return execute(*arguments)

    monkeypatch.setattr(recommender._engine, "_execute", slow)
    rows = [["item 01"]] * 512 * 5  # five runs
    with pytest.raises(DeadlineExceeded):
        recommender.recommend(rows, deadline=1025.0)
    assert runs == [1000, 1010, 1020]
    assert len(recommender.recommend(rows, deadline=clock.now + 100)) == len(rows)


@pytest.mark.parametrize("deadline", [float("nan"), float("inf"), "soon", True, [1.0]])
def test_fault_98_a_deadline_is_an_instant(recommender: Recommender, deadline: Any) -> None:
    with pytest.raises(InputError, match=r"deadline \(.*\) must be an instant of time\.monotonic\(\)") as caught:
        recommender.recommend(ROWS, deadline=deadline)
    assert caught.value.code == "deadline"


def test_fault_98_a_run_stops_when_its_deadline_passes(slow: Path) -> None:
    engine = Module.load(slow, device="cpu", threads=1)._engine
    inputs = {"x": np.ones((1500, 64), np.float32)}
    engine.run("module", inputs)
    start = time.monotonic()
    engine.run("module", inputs, start + 600)
    whole = time.monotonic() - start
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="the deadline passed"):
        engine.run("module", inputs, start + whole / 20)
    assert time.monotonic() - start < whole / 2  # a step is a 1600th of the whole; the machine is not ours alone
    assert engine.run("module", {"x": np.zeros((2, 64), np.float32)})["y"].tolist() == [[0.0] * 64] * 2
    assert engine._calls == 0


def test_fault_98_a_deadline_leaves_no_thread_behind(recommender: Recommender) -> None:
    before = threading.active_count()
    for _ in range(20):
        recommender.recommend(ROWS[:2], deadline=time.monotonic() + 600)
    end = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() == before


INTERRUPTED = """
import signal, sys, time
from genrec_runtime import Recommender
recommender = Recommender.load(sys.argv[1], device="cpu", threads=1)
rows, runs, execute = [["item 01"]] * 400_000, 0, recommender._engine._execute
def count(*arguments):
    global runs
    runs += 1
    if runs == 3:
        print("running", flush=True)
    return execute(*arguments)
recommender._engine._execute = count
"""


def interrupt(code: str, bundle: Path) -> tuple[int, str, str]:
    """Runs code in a process that is interrupted once it prints a line; how it ended, and what it said after that."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", INTERRUPTED + code, str(bundle)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "running\n"
            process.send_signal(signal.SIGINT)
            said, complaint = process.communicate(timeout=60)
        finally:
            process.kill()
    return process.returncode, said, complaint


@pytest.mark.parametrize("deadline", ["None", "time.monotonic() + 600"])
def test_fault_97_an_interrupted_batch_ends_at_once_and_the_recommender_lives_on(tiny: Tiny, deadline: str) -> None:
    code = f"""
try:
    recommender.recommend(rows, deadline={deadline})
except KeyboardInterrupt:
    print(runs)
assert recommender._engine._calls == 0
assert recommender.recommend([["item 01"]]).lengths.tolist() == [10]
recommender.close()
"""
    status, said, complaint = interrupt(code, tiny.path)
    assert (status, complaint) == (0, "")
    assert int(said) < 400_000 / 512 / 2  # of the runs that the batch has


def test_fault_97_an_interrupted_process_ends(tiny: Tiny) -> None:
    code = "with recommender:\n    list(recommender.recommend_iter(rows, batch_size=50_000))"
    status, _, complaint = interrupt(code, tiny.path)
    assert status == -signal.SIGINT
    assert complaint.rstrip().endswith("KeyboardInterrupt")


def test_fault_113_a_clock_that_goes_backwards_changes_nothing(tiny: Tiny, run_python: Callable[..., Any]) -> None:
    code = """
import itertools, sys, time
backwards = itertools.count(2e9, -3600)
time.time = lambda: next(backwards)
from genrec_runtime.errors import DeadlineExceeded
from genrec_runtime.options import Options
from genrec_runtime.reloader import Reloader
with Reloader(sys.argv[1], options=Options("cpu", 1)) as following:
    looked = []
    following.reload = lambda: looked.append(1)
    following.watch(0.01)
    with following.borrow() as recommender:
        assert recommender.recommend([["item 01"]], deadline=time.monotonic() + 600).lengths.tolist() == [10]
        try:
            recommender.recommend([["item 01"]], deadline=time.monotonic() - 0.001)
        except DeadlineExceeded:
            pass
        else:
            raise SystemExit("answered")
    end = time.monotonic() + 60
    while len(looked) < 3:
        assert time.monotonic() < end
        time.sleep(0.001)
"""
    run_python(code, str(tiny.path))


CLOCKS = ("time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.datetime.now", "date.today")


def test_fault_113_nobody_asks_what_time_it_is() -> None:
    """Of ``time`` the package takes nothing that can be set back."""
    found = []
    for path in Path(inspect.getfile(deadlines)).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in CLOCKS:
                found.append(f"{path.name}:{node.lineno}")  # noqa: PERF401
    assert found == []

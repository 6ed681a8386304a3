"""Deadlines: instants after which nobody waits any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from genrec_runtime import DeadlineExceeded, InputError, Module, Recommender
from genrec_runtime.deadlines import seconds_left, stopping_at
from tiny import ITEMS, Tiny


def timers() -> int:
    """Threads that wait for a deadline."""
    return sum(isinstance(thread, threading.Timer) for thread in threading.enumerate())


@pytest.mark.parametrize("kind", [float, np.float64, Fraction])
def test_what_is_left_is_counted_by_the_monotonic_clock(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    assert seconds_left(kind(1002.5)) == 2.5


@pytest.mark.parametrize("instant", ["soon", None, True, float("nan"), float("inf"), 1j, Decimal(10), [1.0]])
def test_what_is_no_instant_is_refused(instant: Any) -> None:
    with pytest.raises(InputError, match=r"deadline \(.*\) must be an instant of time.monotonic\(\)") as caught:
        seconds_left(instant)
    assert caught.value.code == "deadline"


def test_a_deadline_that_passed_says_so_and_what_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    for instant, ago in ((1000.0, "0.000"), (999.75, "0.250"), (0, "1000.000"), (-1.0, "1001.000")):
        with pytest.raises(DeadlineExceeded, match=rf"passed {ago} s ago; a deadline is time.monotonic\(\) \+ seconds"):
            seconds_left(instant)


def test_without_a_deadline_there_are_no_run_options_and_no_timer(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    recommender = Recommender.load(tiny.path, device="cpu", threads=1)
    monkeypatch.setattr("genrec_runtime.engine.stopping_at", None)
    assert recommender.recommend([["item 01"]]).lengths.tolist() == [10]
    assert timers() == 0


def test_an_early_end_leaves_no_timer_behind() -> None:
    with stopping_at(onnxruntime, time.monotonic() + 3600) as options:
        assert not options.terminate
        assert timers() == 1
    with pytest.raises(ZeroDivisionError), stopping_at(onnxruntime, time.monotonic() + 3600):
        raise ZeroDivisionError  # another failure stays what it is
    for _ in range(200):
        if not timers():
            break
        time.sleep(0.01)
    assert timers() == 0


def test_a_deadline_of_thousands_of_years_is_one() -> None:
    with stopping_at(onnxruntime, time.monotonic() + 1e12) as options:
        assert not options.terminate


def test_a_run_inside_is_told_to_stop_and_its_failure_is_the_deadlines() -> None:
    failure, build = RuntimeError("exiting"), SimpleNamespace(RunOptions=lambda: SimpleNamespace(terminate=False))

    def run() -> None:
        with stopping_at(build, time.monotonic() + 0.02) as options:
            while not options.terminate:
                time.sleep(0.001)
            raise failure

    with pytest.raises(DeadlineExceeded, match="the deadline passed during the run") as caught:
        run()
    assert caught.value.__cause__ is failure


@pytest.fixture(scope="module")
def slow(write_module: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A module that multiplies 64 matrices one after the other, as wide as its batch."""
    nodes = [
        helper.make_node("Sub", ["features", "features"], ["zeros"]),
        helper.make_node("Transpose", ["zeros"], ["turned"]),
        helper.make_node("MatMul", ["zeros", "turned"], ["m0"]),
        *[helper.make_node("MatMul", [f"m{n}", "m0"], [f"m{n + 1}"]) for n in range(64)],
        helper.make_node("ReduceSum", ["m64"], ["nothing"], keepdims=0),
        helper.make_node("Add", ["features", "nothing"], ["same"]),
        helper.make_node("Add", ["same", "features"], ["doubled"]),
        helper.make_node("Mul", ["item_ids", "mask"], ["kept"]),
    ]
    return write_module(tmp_path_factory.mktemp("slow") / "bundle", nodes)


def asked(rows: int) -> dict[str, np.ndarray]:
    ids = np.full((rows, 5), 8)
    return {"item_ids": ids, "mask": np.ones_like(ids), "features": np.ones((rows, 3), np.float32)}


def test_onnxruntime_stops_at_the_deadline_prints_nothing_and_goes_on_answering(
    slow: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = Module.load(slow, device="cpu", threads=1)._engine
    begin = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="the deadline passed during the run") as caught:
        engine.run("module", asked(2000), begin + 0.2)  # 64 products of 2000 x 2000 take longer
    assert caught.value.code == "deadline_exceeded"
    assert engine.run("module", asked(1), time.monotonic() + 600)["doubled"].tolist() == [[2, 2, 2]]
    with pytest.raises(DeadlineExceeded, match="s ago"):
        engine.run("module", asked(1), begin)
    assert capfd.readouterr() == ("", "")


def test_a_call_of_many_runs_begins_none_after_its_deadline(
    served: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genrec_runtime.batches.ROWS", 2)
    now, runs = [100.0], []
    run = served._search._run

    def spy(*arguments: Any) -> Any:
        runs.append(arguments[0])
        answer = run(*arguments)
        now[0] += 1
        return answer

    monkeypatch.setattr(served._search, "_run", spy)
    monkeypatch.setattr("genrec_runtime.deadlines.time", SimpleNamespace(monotonic=lambda: now[0]))
    assert len(served.recommend([[ITEMS[0]]] * 6, deadline=104.0)) == 6
    assert len(runs) == 3  # at 100, 101 and 102
    with pytest.raises(DeadlineExceeded, match=r"passed 0\.000 s ago"):
        served.recommend([[ITEMS[0]]] * 6, deadline=105.0)  # at 103 and 104, but not at 105
    assert len(runs) == 3 + 3
    assert now == [105.0]

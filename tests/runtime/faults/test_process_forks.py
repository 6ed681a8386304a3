"""Forks: row 92 of the catalogue of faults; row 93, a fork after the import alone, is in tests/runtime/test_processes.py."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tiny import Tiny

Run = Callable[..., subprocess.CompletedProcess[str]]

LOADED = """
import os, signal, sys, threading
from genrec_runtime import Recommender
from genrec_runtime.errors import ForkedProcessError
load = lambda: Recommender.load(sys.argv[1], device="cpu", threads=2)  # two: a thread that the child lacks
recommender = load()
expected = recommender.recommend([["item 01"]]).items
def forked(child):
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)  # a child that hangs is ended
        child()
        sys.exit(7)  # not os._exit: everything is taken down
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert recommender.recommend([["item 01"]]).items == expected  # the parent's lives on
"""
SILENT = ["-W", "ignore::DeprecationWarning"]  # of newer Pythons, about forks beside threads


@pytest.mark.parametrize(
    "act",
    [
        pytest.param("", id="nothing more"),
        pytest.param("recommender.close()", id="closes it"),
        pytest.param("globals().pop('recommender')", id="lets go of it"),
        pytest.param("assert load().recommend([['item 01']]).items == expected", id="loads its own"),
    ],
)
def test_fault_92_in_a_fork_every_call_is_refused_and_its_end_hangs_nobody(
    tiny: Tiny, run_python: Run, act: str
) -> None:
    code = f"""
def child():
    calls = [lambda: recommender.recommend([["item 01"]]), lambda: recommender.recommend([[]]), recommender.selftest]
    calls += [lambda: recommender.score([["item 01"]], [["item 02"]]), recommender.warmup, recommender.item_vectors]
    for call in calls:
        try:
            call()
        except ForkedProcessError as error:
            assert error.code == "forked_process"
            continue
        os._exit(1)
    {act or "pass"}
forked(child)
"""
    run_python(LOADED + code, str(tiny.path), options=SILENT)


def test_fault_92_a_fork_in_the_middle_of_calls_hangs_nobody(tiny: Tiny, run_python: Run) -> None:
    """The child inherits the count of calls under way and the locks of the threads that made them."""
    code = """
done = threading.Event()
def call():
    while not done.is_set():
        recommender.recommend([["item 01"]] * 100)
threads = [threading.Thread(target=call) for _ in range(3)]
for thread in threads:
    thread.start()
def child():
    try:
        recommender.recommend([["item 01"]])
    except ForkedProcessError:
        recommender.close()
        return
    os._exit(1)
for _ in range(10):
    forked(child)
done.set()
for thread in threads:
    thread.join()
recommender.close()
"""
    run_python(LOADED + code, str(tiny.path), options=SILENT)


def test_fault_92_a_closed_recommender_is_kept_by_no_fork(tiny: Tiny, run_python: Run) -> None:
    code = """
import gc, weakref
from genrec_runtime import forks
recommender.close()
engine = weakref.ref(recommender._engine)
recommender = None
gc.collect()
assert engine() is None
assert len(forks._KEPT) == 0
"""
    run_python(LOADED + code, str(tiny.path), options=SILENT)


def test_fault_92_a_module_is_refused_in_a_fork(features: Path, run_python: Run) -> None:
    code = """
import os, signal, sys
import numpy as np
from genrec_runtime import Module
from genrec_runtime.errors import ForkedProcessError
module = Module.load(sys.argv[1], device="cpu", threads=2)
pid = os.fork()
if pid == 0:
    signal.alarm(60)
    try:
        module.run(item_ids=[[1]], mask=[[1]], features=np.zeros((1, 3), np.float32))
    except ForkedProcessError:
        sys.exit(7)
    os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
"""
    run_python(code, str(features), options=SILENT)

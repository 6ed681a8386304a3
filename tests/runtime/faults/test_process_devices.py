"""Memory that is not there, GPUs that are lost: rows 87 and 88 of the catalogue of faults."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from genrec_runtime import InferenceError, Recommender
from tiny import ITEMS

CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # float32: other batch sizes add up in another order


def failing(recommender: Recommender, monkeypatch: pytest.MonkeyPatch, text: str, most: int) -> list[int]:
    """Lets onnxruntime fail with ``text`` for more rows than ``most``; returns where the rows of each run are noted."""
    sizes: list[int] = []
    session = recommender._engine._session("recommend")

    def run(names: Any, inputs: Any, options: Any) -> Any:
        sizes.append(len(inputs["item_ids"]))
        if sizes[-1] > most:
            raise RuntimeError(text)
        return session.run(names, inputs, options)

    monkeypatch.setitem(recommender._engine._sessions, "recommend", SimpleNamespace(run=run))
    return sizes


NO_MEMORY = [
    "[ONNXRuntimeError] : 1 : FAIL : ... BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 9",
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : ... CUDA failure 2: out of memory ; GPU=0",
]


@pytest.mark.parametrize("text", NO_MEMORY, ids=["arena", "CUDA"])
def test_fault_87_without_memory_for_all_rows_at_once_they_are_halved_once(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    rows = [["item 01", item] for item in ITEMS[:21]]
    expected = recommender.recommend(rows, k=5)
    sizes = failing(recommender, monkeypatch, text, most=11)
    found = recommender.recommend(rows, k=5)
    assert sizes == [21, 10, 11]
    assert found.items == expected.items
    for a, b in zip(found.scores, expected.scores, strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)
    sizes = failing(recommender, monkeypatch, text, most=7)
    with pytest.raises(InferenceError, match=r"graph 'recommend' found no memory: .*memory") as caught:
        recommender.recommend(rows, k=5)
    assert caught.value.code == "out_of_memory"
    assert sizes == [21, 10]  # a half that does not fit is the end of it
    assert recommender.recommend(rows[:7], k=5).items == expected.items[:7]


def test_fault_87_one_row_is_not_halved(recommender: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = failing(recommender, monkeypatch, NO_MEMORY[0], most=0)
    with pytest.raises(InferenceError, match="found no memory"):
        recommender.recommend([["item 01"]])
    assert sizes == [1]


def test_fault_87_a_system_that_refuses_memory_does_not_end_the_session(
    slow: Path, run_python: Callable[..., Any]
) -> None:
    code = """
import resource, sys
import numpy as np
from genrec_runtime import InferenceError, Module
module = Module.load(sys.argv[1], device="cpu", threads=1)
with open("/proc/self/statm") as file:
    taken = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (1 << 29), resource.RLIM_INFINITY))
try:
    module.run(x=np.ones((40_000, 64), np.float32))  # its square has 6.4 GB
except InferenceError as error:
    assert error.code == "out_of_memory", error
    assert "6400000000" in str(error), error
else:
    raise SystemExit("answered")
assert module.run(x=np.zeros((2, 64), np.float32))["y"].tolist() == [[0.0] * 64] * 2
"""
    run_python(code, str(slow))


def test_fault_87_pythons_own_lack_of_memory_is_ours(recommender: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: Any) -> Any:
        raise MemoryError

    monkeypatch.setitem(recommender._engine._sessions, "recommend", SimpleNamespace(run=run))
    with pytest.raises(InferenceError) as caught:
        recommender.recommend([["item 01"]])
    assert caught.value.code == "out_of_memory"


@pytest.mark.parametrize("number", [719, 46, 999], ids=["launch failed", "unavailable", "unknown"])
def test_fault_88_a_lost_gpu_asks_for_a_new_process(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    text = (
        f"[ONNXRuntimeError] : 1 : FAIL : CUDA failure {number}: unspecified launch failure ; GPU=0 ; expr=cudaMemcpy"
    )
    sizes = failing(recommender, monkeypatch, text, most=0)
    with pytest.raises(InferenceError, match=r"graph 'recommend' lost its GPU; start the process anew: ") as caught:
        recommender.recommend([["item 01"], ["item 02"]])
    assert caught.value.code == "device_lost"
    assert sizes == [2]  # no use in halves

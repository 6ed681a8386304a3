"""Rows 28 to 44 of the list of faults: options, sizes, and what models with further inputs are given."""

import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from onnx import helper

from genrec_runtime import InputError, Module, Recommender, Unsupported
from genrec_runtime.manifest import Semantics, Signature, TensorSpec
from genrec_runtime.requests import list_length
from tiny import ITEMS, Tiny

SEMANTICS = Semantics(0, 30, 6, "left", "keep_newest", "bucketed", 20, "lowest_index", "logit", None)
HISTORY = [["item 01"]]

# --- 28 to 34: k


@pytest.mark.parametrize(
    "k",
    [
        pytest.param(0, id="fault_28 zero"),
        pytest.param(np.int8(0), id="fault_28 numpy's zero"),
        pytest.param(-1, id="fault_29 negative"),
        pytest.param(-(10**5000), id="fault_29 an int that Python does not print"),
        pytest.param(True, id="fault_33 a bool"),
        pytest.param(np.True_, id="fault_33 numpy's bool"),
        pytest.param(10.0, id="fault_33 a float"),
        pytest.param("10", id="fault_33 a string"),
        pytest.param([5], id="fault_34 one a row"),
        pytest.param(np.array([5]), id="fault_34 an array of one a row"),
    ],
)
def test_k_must_be_a_whole_number_of_at_least_one(served: Recommender, k: Any) -> None:
    for options in ({}, {"candidates": [ITEMS]}):
        with pytest.raises(InputError, match=r"k \(.*\) must be a whole number of at least 1") as caught:
            served.recommend(HISTORY, k=k, **options)
        assert (caught.value.code, caught.value.field) == ("k", "k")


@pytest.mark.parametrize(
    "k",
    [
        pytest.param(21, id="one too many"),
        pytest.param(2**32 + 3, id="fault_31 which wraps around to 3"),
        pytest.param(2**62, id="fault_32"),
        pytest.param(10**30, id="fault_32 beyond 64 bits"),
    ],
)
def test_k_above_what_the_graph_gives_names_the_remedy(k: int) -> None:
    with pytest.raises(InputError, match=rf"k \({k}\) is above this bundle's 20; export with --k-max {k}$") as caught:
        list_length(k, SEMANTICS, limited=True)
    assert (caught.value.field, caught.value.value) == ("k", k)


def test_fault_32_a_k_that_python_does_not_print_is_refused() -> None:
    with pytest.raises(InputError, match=r"k \(<int>\) is above this bundle's 20"):
        list_length(10**5000, SEMANTICS, limited=True)


def test_fault_30_k_above_the_catalogue_gives_the_catalogue(served: Recommender, numbers: Path) -> None:
    whole = Semantics(0, 30, 6, "left", "keep_newest", "bucketed", 30, "lowest_index", "logit", None)
    assert [list_length(k, whole, limited=True) for k in (1, 30, 31, 2**32 + 3, 10**5000)] == [1, 30, 30, 30, 30]
    assert [list_length(k, SEMANTICS, limited=False) for k in (20, 21, 2**62)] == [20, 21, 30]
    assert list_length(np.int64(10), SEMANTICS, limited=True) == 10
    eleven = Recommender.load(numbers, device="cpu", threads=1)
    assert eleven.recommend([[3, 5], []], k=2**40).lengths.tolist() == [9, 11]
    assert served.recommend(HISTORY, k=2**40, candidates=[ITEMS]).lengths.tolist() == [36]


# --- 37 and 38: candidates


def test_fault_37_no_candidates_give_no_items(served: Recommender) -> None:
    answer = served.recommend([*HISTORY, [], ["?"]], candidates=[[], [], []])
    assert answer.items == [[], [], []]
    assert answer.status == ["model", "cold_start", "all_unknown"]


def test_fault_38_more_candidates_than_items_are_the_catalogue(served: Recommender) -> None:
    answer = served.recommend(HISTORY, k=2**40, candidates=[ITEMS * 3])
    assert answer.items == served.recommend(HISTORY, k=36, candidates=[ITEMS]).items
    assert answer.lengths.tolist() == [36]  # all but the one that was seen


def test_fault_38_a_candidate_that_the_catalogue_lacks(served: Recommender) -> None:
    assert served.recommend(HISTORY, candidates=[["item 38", "item 02"]]).items == [["item 02"]]
    with pytest.raises(
        InputError, match=r"candidates\[1\] holds 'item 38', which the catalogue does not have"
    ) as caught:
        served.score(HISTORY * 2, [["item 02"], ["item 02", "item 38"]])
    error = caught.value
    assert (error.code, error.field, error.row, error.value) == ("unknown_item", "candidates", 1, "item 38")


# --- 39: size


MILLION = """
import resource, sys
import numpy as np
from genrec_runtime import Recommender
recommender = Recommender.load(sys.argv[1], device="cpu", threads=1)
items = recommender.catalogue.items.all()
numbers = np.random.default_rng(0).integers(0, len(items), (10**6, 3)).tolist()
rows = [[items[i] for i in row[: 1 + n % 3]] for n, row in enumerate(numbers)]
del numbers
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
answer = recommender.recommend(rows, k=5)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / len(rows))
sample = [0, 1, 511, 512, 513, 65535, 65536, 262143, 262144, 500_000, 999_998, 999_999, *range(7, 10**6, 20011)]
for n in sample:
    alone = recommender.recommend([rows[n]], k=5)
    assert alone.items[0] == answer.items[n], n
    np.testing.assert_allclose(alone.scores[0], answer.scores[n], rtol=1e-5, atol=1e-5)  # float32: other batch sizes
assert len(answer) == 10**6 and set(answer.status) == {"model"}
"""


@pytest.mark.slow
def test_fault_39_a_million_rows_are_answered_as_alone_in_bounded_memory(
    tiny: Tiny, run_python: Callable[..., CompletedProcess[str]]
) -> None:
    done = run_python(MILLION, str(tiny.path), OMP_NUM_THREADS="1")
    assert float(done.stdout) < 2048  # bytes a row, the answer included


# --- 41 to 44: models with further inputs

TIMES = Signature(
    inputs=(TensorSpec("timestamps", "int64", ("batch", "length"), 0, 2**33),),  # seconds, until the year 2242
    outputs=(TensorSpec("doubled", "int64", ("batch", "length")),),
)


@pytest.fixture(scope="module")
def times(write_module: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Module:
    """A module that takes timestamps in seconds."""
    goldens = {"0.in.timestamps": np.array([[3]]), "0.out.doubled": np.array([[6]])}
    node = helper.make_node("Add", ["timestamps", "timestamps"], ["doubled"])
    folder = tmp_path_factory.mktemp("times") / "bundle"
    return Module.load(write_module(folder, [node], TIMES, goldens=goldens), device="cpu", threads=1)


@pytest.mark.parametrize(
    ("timestamps", "code", "row", "value"),
    [
        pytest.param([[1, 2], [3, -1]], "id_out_of_range", 1, -1, id="fault_44 before 1970"),
        pytest.param([[1.6e9]], "input_dtype", None, "float64", id="fault_44 a float"),
        pytest.param([[1_600_000_000_000]], "id_out_of_range", 0, 1_600_000_000_000, id="fault_44 milliseconds"),
        pytest.param(np.array([["2020-01-01"]], "M8[s]"), "input_dtype", None, "datetime64[s]", id="fault_44 dates"),
    ],
)
def test_times_that_do_not_fit_are_refused(times: Module, timestamps: Any, code: str, row: int, value: Any) -> None:
    assert times.run(timestamps=[[1_600_000_000]])["doubled"].tolist() == [[3_200_000_000]]
    with pytest.raises(InputError, match=r"timestamps (holds|must be int64)") as caught:
        times.run(timestamps=timestamps)
    error = caught.value
    assert (error.code, error.field, error.row, error.value) == (code, "timestamps", row, value)


def test_fault_44_a_model_without_times_refuses_them(served: Recommender) -> None:
    for name, value in (("timestamps", [[1]]), ("request_time", [1]), ("users", ["u"])):
        with pytest.raises(Unsupported, match=f"takes no {name}; it offers recommend"):
            served.recommend(HISTORY, **{name: value})


def test_fault_42_the_closest_name_is_given(times: Module) -> None:
    with pytest.raises(InputError, match=re.escape("got timestamp; is timestamp meant to be timestamps?")) as caught:
        times.run(timestamp=[[1]])
    assert (caught.value.code, caught.value.field) == ("input_names", "timestamp")
    with pytest.raises(InputError, match=r"the inputs must be timestamps; got timestamps, weather$"):
        times.run(timestamps=[[1]], weather=[1])

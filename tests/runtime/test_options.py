"""How a bundle is to be served."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from genrec_runtime.manifest import FP32
from genrec_runtime.options import DEFAULT, Options


def test_by_default_a_gpu_is_tried_and_nothing_spins_or_is_captured() -> None:
    assert Options("auto", None, FP32, False, False) == DEFAULT == Options()


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:12"])
@pytest.mark.parametrize("threads", [None, 1, 64])
def test_what_is_served_is_kept_as_it_was_asked_for(device: str, threads: int | None) -> None:
    options = Options(device, threads, "int8", dedicated=True)
    assert dataclasses.astuple(options) == (device, threads, "int8", True, False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.threads = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"device": "gpu"}, r"device \('gpu'\) must be 'auto', 'cpu', 'cuda' or 'cuda:N'"),
        ({"device": 0}, r"device \(0\) must be"),
        ({"threads": 0}, r"threads \(0\) must be a whole number of at least 1"),
        ({"threads": -2}, r"threads \(-2\) must be"),
        ({"threads": 2.0}, r"threads \(2\.0\) must be"),
        ({"threads": True}, r"threads \(True\) must be"),
        ({"threads": "2"}, r"threads \('2'\) must be"),
        ({"variant": None}, r"variant \(None\) must be the name of a form, such as 'fp32'"),
        ({"dedicated": 1}, r"dedicated \(1\) must be True or False"),
        ({"dedicated": "no"}, r"dedicated \('no'\) must be"),
        ({"cuda_graphs": None}, r"cuda_graphs \(None\) must be"),
        ({"device": "cpu", "cuda_graphs": True}, r"cuda_graphs=True needs a GPU, device='cpu' has none"),
    ],
    ids=str,
)
def test_an_option_of_another_kind_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**wrong)


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:1"])
def test_graphs_may_be_captured_where_a_gpu_may_be(device: str) -> None:
    assert Options(device, cuda_graphs=True).cuda_graphs

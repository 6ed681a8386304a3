"""Ways to make an export quick where a test is about something else than its tracing and its grid."""

from collections.abc import Mapping
from typing import Any

import onnx
import pytest
from torch import Tensor

from genrec_export import cases, tracing


@pytest.fixture
def small_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid of one batch."""
    monkeypatch.setattr(cases, "BATCHES", (2,))


@pytest.fixture(scope="session")
def traces() -> dict[Any, onnx.ModelProto]:
    """What ``quick`` has traced."""
    return {}


@pytest.fixture
def quick(small_grid: None, monkeypatch: pytest.MonkeyPatch, traces: dict[Any, onnx.ModelProto]) -> None:
    """A grid of one batch, and one trace for all exports of one class of net, whose weights must be the same in all."""

    def trace(module: Any, graphs: Any, example: Mapping[str, Tensor], opset: int) -> onnx.ModelProto:
        key = (type(module.encoder), module.k, opset, *[tuple(tensor.shape) for tensor in example.values()])
        if key not in traces:
            traces[key] = tracing.trace(module, graphs, example, opset)
        copy = onnx.ModelProto()
        copy.CopyFrom(traces[key])
        return copy

    monkeypatch.setattr("genrec_export.draft.trace", trace)

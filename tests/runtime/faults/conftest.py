"""What the tests of the catalogue of faults share."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from genrec_runtime import Recommender
from genrec_runtime.manifest import Signature, TensorSpec
from tiny import Tiny


@pytest.fixture
def recommender(tiny: Tiny) -> Recommender:
    """The tiny bundle, loaded for one test; of its graphs only the first is open."""
    return Recommender.load(tiny.path, device="cpu", threads=1)


LAYERS = 400
SQUARE = Signature(
    inputs=(TensorSpec("x", "float32", ("batch", 64)),), outputs=(TensorSpec("y", "float32", ("batch", 64)),)
)


@pytest.fixture(scope="session")
def slow(write_module: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A module of many short steps, x = tanh(x x' x), whose work and memory grow with the square of the batch."""
    nodes, last = [], "x"
    for layer in range(LAYERS):
        out = "y" if layer == LAYERS - 1 else f"x{layer}"
        nodes += [
            helper.make_node("Transpose", [last], [f"turned{layer}"], perm=[1, 0]),
            helper.make_node("MatMul", [last, f"turned{layer}"], [f"square{layer}"]),
            helper.make_node("MatMul", [f"square{layer}", last], [f"sum{layer}"]),
            helper.make_node("Tanh", [f"sum{layer}"], [out]),
        ]
        last = out
    zero = np.zeros((1, 64), np.float32)
    folder = tmp_path_factory.mktemp("slow") / "bundle"
    return write_module(folder, nodes, SQUARE, goldens={"0.in.x": zero, "0.out.y": zero})

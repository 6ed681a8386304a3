"""Sizes that a graph states: a few bytes cannot ask for gigabytes."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto

from bundle_nodes import HUGE, constant, doubled, node
from genrec_runtime import BundleCorrupt, Module
from genrec_runtime.bundle import Bundle
from genrec_runtime.graphcheck import check_graph
from genrec_runtime.graphsizes import MAX_MADE


def scalars(*values: float) -> list[onnx.NodeProto]:
    """A constant without axes for each value, called a, b and c."""
    return [constant(name, value, scalar=True) for name, value in zip("abc", values, strict=True)]


BOMBS = {
    "4 TiB": [constant("s", HUGE), node("ConstantOfShape", "s")],
    "1 GiB": [constant("s", 2**28), node("ConstantOfShape", "s")],
    "two axes": [constant("s", 2**20, 2**20), node("ConstantOfShape", "s")],
    "two halves": [
        constant("s", MAX_MADE // 2),
        node("ConstantOfShape", "s", out="a"),
        node("ConstantOfShape", "s", out="b"),
        node("Add", "a", "b"),
    ],
    "multiplied": [constant("s", 2**20), node("Mul", "s", "s", out="t"), node("ConstantOfShape", "t")],
    "joined": [constant("s", 2**20), node("Concat", "s", "s", out="t", axis=0), node("ConstantOfShape", "t")],
    "through a shape": [
        constant("s", 2**20),
        node("ConstantOfShape", "s", out="a"),
        node("Shape", "a", out="t"),
        node("Mul", "t", "t", out="u"),
        node("ConstantOfShape", "u"),
    ],
    "by a power": [constant("s", 2), constant("t", 40), node("Pow", "s", "t", out="u"), node("ConstantOfShape", "u")],
    "by an input": [constant("m", -1), node("Reshape", "item_ids", "m", out="s"), node("ConstantOfShape", "s")],
    "Range": [*scalars(0, HUGE, 1), node("Range", "a", "b", "c", out="r"), node("Cast", "r", to=TensorProto.FLOAT)],
    "Range in small steps": [*scalars(0.0, 9.0, 1e-9), node("Range", "a", "b", "c")],
    "Range without end": [*scalars(0.0, float("inf"), 1.0), node("Range", "a", "b", "c")],
    "Range of no number": [*scalars(0.0, float("nan"), 1.0), node("Range", "a", "b", "c")],
    "Expand": [constant("s", 2**14, 2**14, 3), node("Expand", "features", "s")],
    "Tile": [constant("s", HUGE, 1), node("Tile", "features", "s")],
    "Pad": [constant("s", 0, 0, HUGE, 0), node("Pad", "features", "s")],
    "OneHot": [constant("s", HUGE, scalar=True), constant("v", 0.0, 1.0), node("OneHot", "item_ids", "s", "v")],
    "Conv": [constant("w", 1.0), node("Conv", "features", "w", pads=[HUGE, HUGE])],
    "65 ones": [constant("s", *[1] * 65), node("ConstantOfShape", "s")],
    "no size": [node("ConstantOfShape", "features")],
    "beyond floats": [constant("s", *[2**62] * 20), node("ConstantOfShape", "s")],
}


@pytest.mark.parametrize("nodes", BOMBS.values(), ids=[f"fault_71 {name}" for name in BOMBS])
def test_a_few_bytes_cannot_ask_for_gigabytes(
    write_module: Callable[..., Path], tmp_path: Path, nodes: list[onnx.NodeProto]
) -> None:
    with pytest.raises(BundleCorrupt, match=r"graph 'module' asks by .* elements") as caught:
        Module.load(write_module(tmp_path / "b", doubled(*nodes)), device="cpu", threads=1)
    assert caught.value.code == "bundle_unsafe"


FINE = {
    "a range as long as the request": [
        *scalars(0, 0, 1),
        node("Shape", "item_ids", out="s", start=1, end=2),
        node("Squeeze", "s", out="l"),
        node("Range", "a", "l", "c", out="r"),
        node("Cast", "r", to=TensorProto.FLOAT),
    ],
    "a range computed from it": [
        *scalars(3, 0, 1),
        node("Shape", "item_ids", out="s", start=1, end=2),
        node("Squeeze", "s", out="l"),
        node("Add", "l", "a", out="m"),
        node("Mul", "m", "a", out="n"),
        node("Range", "b", "n", "c", out="r"),
        node("Cast", "r", to=TensorProto.FLOAT),
    ],
    "zeros as many as features": [node("Shape", "features", out="s"), node("ConstantOfShape", "s")],
    "an axis repeated": [constant("s", 1, 4), node("Tile", "features", "s")],
    "an axis filled up": [constant("s", 0, 0, 0, 47), node("Pad", "features", "s")],
    "half of what may be made": [constant("s", MAX_MADE // 2), node("ConstantOfShape", "s")],
    "nothing": [constant("s", 0), node("ConstantOfShape", "s", out="n"), node("Concat", "n", "v", axis=0)],
}


@pytest.mark.parametrize("nodes", FINE.values(), ids=FINE)
def test_sizes_that_models_state_are_served(
    write_module: Callable[..., Path], tmp_path: Path, nodes: list[onnx.NodeProto]
) -> None:
    folder = write_module(tmp_path / "b", [constant("v", 0.0), *doubled(*nodes)])
    bundle = Bundle.open(folder)
    check_graph(bundle.manifest, "module", "module.onnx", bundle.bytes("module.onnx"))

"""Nodes of graphs written by hand, for bundles with the signature of the fixture ``features``."""

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

HUGE = 2**40
KEPT = helper.make_node("Mul", ["item_ids", "mask"], ["kept"])


def constant(name: str, *values: float, scalar: bool = False) -> onnx.NodeProto:
    """A Constant of int64 if all values are ints, else of float."""
    kind = np.int64 if all(isinstance(value, int) for value in values) else np.float32
    array = np.array(values[0] if scalar else values, kind)
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name))


def node(operator: str, *inputs: str, out: str = "made", **settings: Any) -> onnx.NodeProto:
    """A node with one output."""
    return helper.make_node(operator, list(inputs), [out], **settings)


def doubled(*nodes: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Nodes of the bundle ``features`` whose ``made``, of floats, is added to the features: no node is without use."""
    rest = [node("ReduceMax", "made", out="most", keepdims=0), node("Add", "features", "most", out="doubled")]
    return [KEPT, *nodes, *rest]

"""The fp16 variant: the encoder in half precision; scores, masks and top-k stay in float32, over the same item table."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper, parser

from genrec_export.surgery import ancestors
from genrec_export.tracing import Graph

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
LARGEST = float(np.finfo(np.float16).max)
ROUNDED = """
<domain: "genrec", opset_import: ["" : 20]>
Rounded (x) => (y)
{
    split = Constant <value_float = 8193.0> ()
    limit = Constant <value_float = 65520.0> ()
    huge = Constant <value_float = 3e38> ()
    scaled = Mul (x, split)
    rest = Sub (scaled, x)
    rounded = Sub (scaled, rest)
    size = Abs (x)
    fits = Less (size, limit)
    beyond = Mul (x, huge)
    y = Where (fits, rounded, beyond)
}
"""  # to 11 bits (Dekker 1971, with 2**13 + 1), to infinity beyond the largest half
LOOKUPS = ("Gather", "GatherElements", "GatherND")


def add_half(whole: onnx.ModelProto, graphs: Mapping[str, Graph]) -> None:
    """Adds the outputs "recommend.fp16/..." and so on to a traced model, for all its graphs.

    What leads to "encode/states" is computed in half precision, all after it in float32. Tables that items are looked up in
    stay as they are, and are shared: rows are rounded once they were looked up.

    Args:
        whole: what ``trace`` gave, with the types of its values; changed in place.
        graphs: the graphs traced.
    """
    copy = _Copy(whole)
    body = {node.output[0] for node in ancestors(whole, {"encode/states"})}
    for node in whole.graph.node:
        looks_up = node.op_type in LOOKUPS and node.input[0] in copy.weights
        copy.add(node, half=node.output[0] in body and not looks_up)
    values = {value.name: value for value in whole.graph.output}
    for name, graph in graphs.items():
        for spec in graph.outputs:
            output = whole.graph.output.add()
            output.CopyFrom(values[f"{name}/{spec.name}"])
            output.name = f"{name}.fp16/{spec.name}"
            source = copy.read(f"{name}/{spec.name}", half=False)
            copy.nodes.append(helper.make_node("Identity", [source], [output.name]))
    whole.graph.node.extend(copy.nodes)
    whole.graph.initializer.extend(copy.rounded_weights.values())


class _Copy:
    """A second copy of a model's nodes, of which some compute in half precision.

    Attributes:
        nodes: the copy so far, in order.
        weights: the model's float32 weights.
        rounded_weights: those of them that a node reads in half precision, rounded.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.nodes: list[NodeProto] = []
        self.weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == FLOAT}
        self.rounded_weights: dict[str, TensorProto] = {}
        values = (*graph.input, *graph.value_info, *graph.output)
        self._floats = {value.name for value in values if value.type.tensor_type.elem_type == FLOAT}
        self._names: dict[tuple[str, bool], str] = {}  # of a copied value, as half or as it was

    def add(self, node: NodeProto, *, half: bool) -> None:
        """Copies one node; those that it reads from must be copied already."""
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.name = node.name and f"{node.name}@fp16"
        copy.input[:] = [self.read(value, half=half) for value in node.input]
        copy.output[:] = [value and f"{value}@fp16" for value in node.output]
        for value, name in zip(node.output, copy.output, strict=True):
            if value in self._floats:
                self._names[value, half] = name
            else:
                self._names[value, True] = self._names[value, False] = name
        if half:
            _round_attributes(copy)
        self.nodes.append(copy)

    def read(self, value: str, *, half: bool) -> str:
        """The name of the copy of a value, rounded or widened if need be; that of an input or a weight is its own."""
        if value in self.weights:
            return self._rounded(value) if half else value
        if (value, not half) not in self._names and value not in self._floats:
            return value  # an input, a weight or nothing that has no such precision
        if (value, half) not in self._names:
            name = f"{value}@{'half' if half else 'float'}"
            source = self._names.get((value, not half), value)
            self.nodes.append(helper.make_node("Cast", [source], [name], to=HALF if half else FLOAT))
            self._names[value, half] = name
        return self._names[value, half]

    def _rounded(self, weight: str) -> str:
        name = f"{weight}@half"
        if name not in self.rounded_weights:
            self.rounded_weights[name] = _round(self.weights[weight], name)
        return name


def _wide(value: str, *, exact: bool) -> NodeProto:
    """A half as a float32 of the same value; or, where it is one already, rounded as if it were."""
    if exact:
        return helper.make_node("Cast", [value], [f"{value}@wide"], to=FLOAT)
    return helper.make_node("Rounded", [value], [f"{value}@wide"], domain="genrec")


def _round_attributes(node: NodeProto) -> None:
    """Lets a node make halves where it made floats by what is written in it."""
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == FLOAT:
            attribute.i = HALF
        elif attribute.name == "value" and attribute.t.data_type == FLOAT:
            attribute.t.CopyFrom(_round(attribute.t, attribute.t.name))
        elif node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
            values = (
                np.float32(attribute.f) if attribute.name == "value_float" else np.array(attribute.floats, np.float32)
            )
            attribute.CopyFrom(helper.make_attribute("value", _round(numpy_helper.from_array(np.asarray(values)), "")))


def _round(tensor: TensorProto, name: str) -> TensorProto:
    """In half precision; what is finite stays so, since a mask of the lowest float must not become -inf."""
    values = numpy_helper.to_array(tensor)
    kept = np.where(np.isfinite(values), np.clip(values, -LARGEST, LARGEST), values)
    return numpy_helper.from_array(kept.astype(np.float16), name)


def rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model in float32 that rounds wherever the fp16 model does, as a GPU would.

    onnxruntime has hardly any half-precision kernel for CPUs: it computes in float32 and leaves out the roundings between two
    nodes, however they are written as casts. So they are written as arithmetic. Numbers below 2**-14 keep more bits here.
    """
    exact = onnx.ModelProto()
    exact.CopyFrom(model)
    exact.functions.append(parser.parse_function(ROUNDED))
    exact.opset_import.append(helper.make_opsetid("genrec", 1))
    typed = onnx.shape_inference.infer_shapes(model).graph
    halves = {value.name for value in typed.value_info if value.type.tensor_type.elem_type == HALF}
    weights = {tensor.name for tensor in model.graph.initializer if tensor.data_type == HALF}
    nodes = [helper.make_node("Cast", [weight], [f"{weight}@wide"], to=FLOAT) for weight in weights]
    for node in exact.graph.node:
        node.input[:] = [f"{value}@wide" if value in halves | weights else value for value in node.input]
        made = [value for value in node.output if value in halves]
        if made and node.op_type == "Cast":
            node.attribute[0].i = FLOAT
        constant = node.op_type in ("Constant", "ConstantOfShape")
        nodes.append(node)
        nodes += [_wide(value, exact=constant) for value in made]
    del exact.graph.node[:]
    exact.graph.node.extend(nodes)
    return exact

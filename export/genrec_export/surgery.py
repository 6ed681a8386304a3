"""Taking one traced ONNX model apart: into graphs that share a file of weights, without traces of the machine that traced."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from genrec_export.tracing import Graph
from genrec_runtime.checks import ALIGNMENT
from genrec_runtime.manifest import FP32, TensorSpec, Weight

MULTIPLYING = ("Conv", "GRU", "Gemm", "LSTM", "MatMul", "MatMulIntegerToFloat")
EXTERNAL_FROM = 1024  # bytes; smaller tensors stay inside their graph


def anonymise(model: onnx.ModelProto) -> None:
    """Removes stack traces and module paths, which hold the exporting machine's folders."""
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
        value.doc_string = ""
    del model.graph.value_info[:]
    model.producer_name, model.producer_version = "genrec", ""


def variant_of(output: str) -> str:
    """The variant that an output of a traced model belongs to: "fp16" of "recommend.fp16/items"."""
    return output.partition("/")[0].partition(".")[2] or FP32


def move_weights(model: onnx.ModelProto) -> tuple[dict[str, bytes], dict[str, tuple[Weight, ...]]]:
    """Moves every tensor of 1 KiB or more out of a model into blobs, equal tensors once.

    The model is changed in place: such an initialiser keeps its name and shape, and says where its bytes lie. What one variant
    alone needs lies in a blob of its own. A table that is only looked up in, and is the beginning of a longer one, is that one.

    Returns:
        The content of ``weights.bin``, ``weights.fp16.bin`` and so on, each tensor 64-byte aligned, and where each lies.
    """
    _merge_tables(model)
    users = _users(model)
    kept: list[TensorProto] = []
    large: list[tuple[TensorProto, str]] = []
    equal: dict[str, set[str]] = {}  # by digest, the variants that need such a tensor
    for tensor in model.graph.initializer:
        content = _content(tensor)
        if content.nbytes < EXTERNAL_FROM:
            kept.append(tensor)
            continue
        digest = hashlib.sha256(f"{content.dtype} {content.shape} ".encode() + content.tobytes()).hexdigest()
        large.append((tensor, digest))
        equal.setdefault(digest, set()).update(users[tensor.name])
    blobs: dict[str, bytearray] = {}
    places: dict[str, tuple[str, Weight]] = {}  # by digest
    renamed: dict[str, str] = {}
    for tensor, digest in large:
        if digest in places:
            renamed[tensor.name] = places[digest][1].name
            continue
        variants, content = equal[digest], _content(tensor)
        file = weights_file(next(iter(variants)) if len(variants) == 1 else FP32)
        blob = blobs.setdefault(file, bytearray())
        blob.extend(bytes(-len(blob) % ALIGNMENT))
        weight = Weight(tensor.name, str(content.dtype), tuple(content.shape), len(blob))
        blob.extend(content.tobytes())
        places[digest] = file, weight
        kept.append(_external(file, weight, tensor.data_type, content.nbytes))
    _replace(model.graph.initializer, kept)
    _rename(model, renamed)
    weights = {file: tuple(w for found, w in places.values() if found == file) for file in blobs}
    return {file: bytes(blob) for file, blob in blobs.items()}, weights


def weights_file(variant: str) -> str:
    """The name of the file of what this variant alone needs; "fp32" has what several need as well."""
    return "weights.bin" if variant == FP32 else f"weights.{variant}.bin"


def ancestors(model: onnx.ModelProto, values: set[str]) -> list[onnx.NodeProto]:
    """The nodes that some values are computed by, in order."""
    needed, nodes = set(values), []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    return nodes[::-1]


def cut(whole: onnx.ModelProto, name: str, graph: Graph) -> onnx.ModelProto:
    """The part of a traced model that makes one graph's outputs, under their own names; ``name`` may be "recommend.fp16"."""
    model = onnx.ModelProto()
    model.CopyFrom(whole)
    body = model.graph
    body.name = name
    wanted = {f"{name}/{spec.name}" for spec in graph.outputs}
    outputs = [value for value in body.output if value.name in wanted]
    nodes = ancestors(model, wanted)
    needed = {value for node in nodes for value in node.input}
    _replace(body.node, nodes)
    _replace(body.initializer, [tensor for tensor in body.initializer if tensor.name in needed])
    _replace(body.input, [value for value in body.input if value.name in {spec.name for spec in graph.inputs}])
    inner = [value for value in body.output if value.name in needed - wanted]
    body.value_info.extend(inner)  # onnxruntime writes over an input only where it knows that the output has its shape
    _replace(body.output, outputs)
    domains = {node.domain for node in nodes} | {""}
    _replace(model.opset_import, [entry for entry in model.opset_import if entry.domain in domains])
    _rename(model, {f"{name}/{spec.name}": spec.name for spec in graph.outputs})
    _name_axes(model, graph)
    return model


def measure_on_first(model: onnx.ModelProto, specs: Sequence[TensorSpec]) -> None:
    """Lets the size of an axis be read from the first input that has it: torch may read it from one that a graph lacks."""
    first: dict[str | int, tuple[str, int]] = {}
    for spec in specs:
        for place, axis in enumerate(spec.axes):
            first.setdefault(axis, (spec.name, place))
    axes = {spec.name: spec.axes for spec in specs}
    for node in model.graph.node:
        bounds = {attribute.name: attribute for attribute in node.attribute}
        one_axis = set(bounds) == {"start", "end"} and bounds["end"].i == bounds["start"].i + 1
        if node.op_type == "Shape" and node.input[0] in axes and one_axis:
            node.input[0], place = first[axes[node.input[0]][bounds["start"].i]]
            bounds["start"].i, bounds["end"].i = place, place + 1


def packed_bytes(model: onnx.ModelProto) -> int:
    """Bytes of the weights outside a graph that it multiplies by: a session on the CPU packs them once more in memory."""
    sizes = {
        tensor.name: int(entry.value)
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "length"
    }
    multiplied = {value for node in model.graph.node if node.op_type in MULTIPLYING for value in node.input}
    return sum(size for name, size in sizes.items() if name in multiplied)


def operators(models: Sequence[onnx.ModelProto]) -> dict[str, tuple[str, ...]]:
    """The operators in use, by domain."""
    found: dict[str, set[str]] = {}
    for model in models:
        for node in model.graph.node:
            found.setdefault(node.domain, set()).add(node.op_type)
    return {domain: tuple(sorted(ops)) for domain, ops in sorted(found.items())}


def _merge_tables(model: onnx.ModelProto) -> None:
    """Looks items up in a table that begins with theirs, where there is one: the same rows, and more to fill blocks."""
    tables = {tensor.name: tensor for tensor in model.graph.initializer if len(tensor.dims) == 2}
    for name, tensor in tables.items():
        readers = [node for node in model.graph.node if name in node.input]
        longer = next((other for other in tables.values() if _begins(other, tensor)), None)
        if longer is not None and all(_looks_up(node, name) for node in readers):
            _rename(model, {name: longer.name})
            _replace(model.graph.initializer, [kept for kept in model.graph.initializer if kept.name != name])


def _looks_up(node: onnx.NodeProto, table: str) -> bool:
    """Whether a node only takes rows of a table."""
    axis = [attribute.i for attribute in node.attribute if attribute.name == "axis"]
    return node.op_type == "Gather" and node.input[0] == table and node.input[1] != table and not any(axis)


def _begins(longer: TensorProto, tensor: TensorProto) -> bool:
    """Whether the rows of a table are the first of another."""
    kind, other = (tensor.data_type, tensor.dims[1]), (longer.data_type, longer.dims[1])
    if kind != other or longer.dims[0] <= tensor.dims[0]:
        return False
    return np.array_equal(_content(longer)[: tensor.dims[0]], _content(tensor))


def _replace(part: Any, values: Sequence[object]) -> None:
    """Other values in a repeated field; they may be its own."""
    del part[:]
    part.extend(values)


def _rename(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Renames values wherever nodes and outputs use them."""
    for node in model.graph.node:
        node.input[:] = [names.get(value, value) for value in node.input]
        node.output[:] = [names.get(value, value) for value in node.output]
    for value in model.graph.output:
        value.name = names.get(value.name, value.name)


def _name_axes(model: onnx.ModelProto, graph: Graph) -> None:
    """Gives free axes their names from the specs, so that equal names mean equal sizes."""
    for values, specs in ((model.graph.input, graph.inputs), (model.graph.output, graph.outputs)):
        by_name = {value.name: value for value in values}
        for spec in specs:
            if spec.name not in by_name:
                continue  # an input that the graph does not use: the checks say so
            dimensions = by_name[spec.name].type.tensor_type.shape.dim
            for dimension, axis in zip(dimensions, spec.axes, strict=True):
                if isinstance(axis, str) and dimension.HasField("dim_param"):
                    dimension.dim_param = axis


def _users(model: onnx.ModelProto) -> dict[str, set[str]]:
    """For each initialiser the variants that need it."""
    users: dict[str, set[str]] = {tensor.name: set() for tensor in model.graph.initializer}
    outputs = [value.name for value in model.graph.output]
    for variant in {variant_of(output) for output in outputs}:
        for node in ancestors(model, {output for output in outputs if variant_of(output) == variant}):
            for value in node.input:
                if value in users:
                    users[value].add(variant)
    return users


def _content(tensor: TensorProto) -> NDArray[Any]:
    return np.ascontiguousarray(numpy_helper.to_array(tensor))


def _external(file: str, weight: Weight, data_type: int, size: int) -> TensorProto:
    tensor = TensorProto(name=weight.name, data_type=data_type, dims=weight.shape, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", file), ("offset", str(weight.offset)), ("length", str(size))):
        tensor.external_data.add(key=key, value=value)
    return tensor

"""From a torch module to a checked ONNX graph, and from several graphs to one file of shared weights."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from genrec_export.errors import ExportError
from genrec_runtime.bundle import ALIGNMENT
from genrec_runtime.manifest import Signature, TensorSpec, Weight

OPSET = 20
EXTERNAL_FROM = 1024  # bytes; smaller tensors stay inside their graph


@dataclass(frozen=True)
class Graph:
    """One graph of a bundle.

    Attributes:
        run: what it computes, in torch: the inputs in order to the output, or a tuple of outputs.
        inputs: name, dtype and axes of each input; axes that are names stay free in the graph.
        outputs: the same of each output.
        limits: the largest size of an axis, where the module has one.
    """

    run: Callable[..., Tensor | tuple[Tensor, ...]]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    limits: Mapping[str, int]

    @property
    def signature(self) -> Signature:
        """What the manifest says of it."""
        return Signature(self.inputs, self.outputs, self.limits)


def trace(module: nn.Module, graphs: Mapping[str, Graph], example: Mapping[str, Tensor]) -> dict[str, onnx.ModelProto]:
    """Traces a module once and cuts out each graph, without traces of the machine that did it.

    Args:
        module: in eval mode; it takes every input of all graphs, in ``example``'s order, and gives all outputs of all graphs,
            in their order.
        graphs: the graphs, by name.
        example: one tensor for each input; free axes must be at least 2 long.

    Raises:
        ExportError: if torch cannot export the module; the reason is quoted.
    """
    specs = {spec.name: spec for graph in graphs.values() for spec in graph.inputs}
    limits = {axis: limit for graph in graphs.values() for axis, limit in graph.limits.items()}
    names = {axis for spec in specs.values() for axis in spec.axes if isinstance(axis, str)}
    free = {axis: torch.export.Dim(axis, max=limits.get(axis)) for axis in names}  # one symbol for each name
    shapes = tuple(
        {i: free[axis] for i, axis in enumerate(specs[name].axes) if isinstance(axis, str)} for name in example
    )
    with torch.no_grad(), _quiet():
        try:
            program = torch.onnx.export(
                module,
                tuple(tensor.clone() for tensor in example.values()),  # aliased examples are merged into one input
                dynamo=True,
                opset_version=OPSET,
                input_names=list(example),
                output_names=[f"{name}/{spec.name}" for name, graph in graphs.items() for spec in graph.outputs],
                dynamic_shapes=shapes,
                external_data=False,
                verbose=False,
            )
        except Exception as error:  # torch's exporter raises many types, its own only as the outermost
            raise ExportError(f"torch cannot export the model: {_root(error)}") from error
    assert program is not None  # with dynamo=True it never is
    whole: onnx.ModelProto = program.model_proto  # made anew at each access
    _anonymise(whole)
    _measure_on_first(whole, [specs[name] for name in example])
    return {name: _cut(whole, name, graph) for name, graph in graphs.items()}


def _cut(whole: onnx.ModelProto, name: str, graph: Graph) -> onnx.ModelProto:
    """The part of a traced model that makes one graph's outputs, under their own names."""
    model = onnx.ModelProto()
    model.CopyFrom(whole)
    body = model.graph
    needed = {f"{name}/{spec.name}" for spec in graph.outputs}
    outputs = [value for value in body.output if value.name in needed]
    nodes = []
    for node in reversed(body.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    kept = {
        "node": nodes[::-1],
        "initializer": [tensor for tensor in body.initializer if tensor.name in needed],
        "input": [value for value in body.input if value.name in {spec.name for spec in graph.inputs}],
        "output": outputs,
    }
    body.name = name
    for part, values in kept.items():
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        body.ClearField(part)
        getattr(body, part).extend(copies)
    _rename(model, {f"{name}/{spec.name}": spec.name for spec in graph.outputs})
    _name_axes(model, graph)
    return model


def share_weights(models: dict[str, onnx.ModelProto]) -> tuple[bytes, tuple[Weight, ...]]:
    """Moves every tensor of 1 KiB or more out of the graphs into one blob, equal tensors once.

    The models are changed in place: such an initialiser keeps its name and shape, and says where its bytes lie.

    Returns:
        The content of ``weights.bin``, each tensor 64-byte aligned, and where each lies.
    """
    blob = bytearray()
    weights: dict[str, Weight] = {}  # by digest
    names: set[str] = set()
    for model in models.values():
        renamed = {}
        kept: dict[str, TensorProto] = {}
        for tensor in model.graph.initializer:
            array = np.ascontiguousarray(numpy_helper.to_array(tensor))
            if array.nbytes < EXTERNAL_FROM:
                kept[tensor.name] = tensor
                continue
            digest = hashlib.sha256(f"{array.dtype} {array.shape} ".encode() + array.tobytes()).hexdigest()
            if digest not in weights:
                blob.extend(bytes(-len(blob) % ALIGNMENT))
                name = _weight_name(tensor.name, digest, names)
                weights[digest] = Weight(name, str(array.dtype), tuple(array.shape), len(blob))
                names.add(name)
                blob.extend(array.tobytes())
            renamed[tensor.name] = weights[digest].name
            kept[weights[digest].name] = _external(weights[digest], tensor.data_type, array.nbytes)
        _rename(model, renamed)
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept.values())
    return bytes(blob), tuple(weights.values())


def operators(models: Sequence[onnx.ModelProto]) -> dict[str, tuple[str, ...]]:
    """The operators in use, by domain."""
    found: dict[str, set[str]] = {}
    for model in models:
        for node in model.graph.node:
            found.setdefault(node.domain, set()).add(node.op_type)
    return {domain: tuple(sorted(ops)) for domain, ops in sorted(found.items())}


def to_numpy(tensor: Tensor) -> NDArray[np.generic]:
    """A tensor as an array on the CPU."""
    array: NDArray[np.generic] = tensor.detach().cpu().numpy()
    return array


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in eval mode, each part put back afterwards into the mode it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _measure_on_first(model: onnx.ModelProto, specs: Sequence[TensorSpec]) -> None:
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


def _rename(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Renames values wherever nodes and outputs use them."""
    for node in model.graph.node:
        node.input[:] = [names.get(value, value) for value in node.input]
        node.output[:] = [names.get(value, value) for value in node.output]
    for value in model.graph.output:
        value.name = names.get(value.name, value.name)


def _anonymise(model: onnx.ModelProto) -> None:
    """Removes stack traces and module paths, which hold the exporting machine's folders."""
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
        value.doc_string = ""
    del model.graph.value_info[:]
    model.producer_name, model.producer_version = "genrec", ""


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


def _external(weight: Weight, data_type: int, size: int) -> TensorProto:
    tensor = TensorProto(name=weight.name, data_type=data_type, dims=weight.shape, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "weights.bin"), ("offset", str(weight.offset)), ("length", str(size))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def _weight_name(name: str, digest: str, taken: set[str]) -> str:
    """The parameter's own name where it has one, else one made from the content."""
    return name if "." in name and name not in taken else f"tensor_{digest[:12]}"


def _root(error: BaseException) -> str:
    """The first line of the error that began it."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's progress lines and its notices about torch's own internals."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*")
            warnings.filterwarnings("ignore", category=UserWarning, message="# The axis name: .* will not be used")
            warnings.filterwarnings(
                "ignore", category=DeprecationWarning, module=r"(torch|onnxscript|onnx_ir|copyreg)\b"
            )
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

"""What must hold of every traced graph before anything is compared: each failure names the graph and the reason."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from genrec_export.errors import ExportError
from genrec_export.tracing import Graph
from genrec_runtime.graphcheck import INT8, OPERATORS

GRAPH_BYTES = 64 << 10  # a graph without nodes: inputs, outputs, the list of its weights
NODE_BYTES = 2048  # a node with its names, and with tensors of less than 1 KiB, which stay in the graph


def check_model(name: str, model: onnx.ModelProto, graph: Graph) -> None:
    """Holds one traced graph to what serving relies on.

    Raises:
        ExportError: if an input is unused, an axis that should be free is fixed, dropout is left in, or an operator is not on
            the list.
    """
    _check_inputs(name, model, graph)
    _check_axes(name, model, graph)
    allowed = OPERATORS if name.endswith(f".{INT8}") else {"": OPERATORS[""]}
    for node in model.graph.node:
        if node.op_type == "Dropout":
            raise ExportError(f"graph {name!r} still drops out: the model was traced in training mode")
        if node.op_type not in allowed.get(node.domain, ()):
            raise ExportError(
                f"graph {name!r} uses the operator {node.domain or 'onnx'}::{node.op_type}, which is not served"
            )


def check_sizes(module: nn.Module, models: Mapping[str, onnx.ModelProto], blobs: Mapping[str, bytes]) -> None:
    """Holds the bytes of graphs and weights to those of the module's own parameters and buffers.

    A tensor that tracing stored twice, or a large one that the model computes from nothing and tracing stored, is so found.

    Raises:
        ExportError: naming the file, its size and the module's.
    """
    own = {tensor.data_ptr(): tensor.nbytes for tensor in (*module.parameters(), *module.buffers())}
    total = sum(own.values())
    longest = max((size for model in models.values() for size in _fixed_lengths(model)), default=0)
    masks = min(total, 4 * longest**2)  # which slot sees which, where the window is fixed
    sizes = {name: (len(blob), 0) for name, blob in blobs.items()}
    sizes |= {name: (model.ByteSize(), len(model.graph.node)) for name, model in models.items()}
    for name, (size, nodes) in sizes.items():
        allowed = (total + masks if name in blobs else 0) + 64 * len(own) + GRAPH_BYTES + NODE_BYTES * nodes
        if size > allowed:
            raise ExportError(
                f"{name} would have {size:,} bytes, the model's parameters and buffers have {total:,}: tracing stored a "
                "tensor twice, or one that the model makes anew at each call; make it a buffer, or compute it from the input"
            )


def _fixed_lengths(model: onnx.ModelProto) -> list[int]:
    """The fixed sizes of inputs along all axes but the first."""
    return [axis.dim_value for value in model.graph.input for axis in value.type.tensor_type.shape.dim[1:]]


def check_file(path: Path) -> None:
    """Has onnx's own checker read a written graph.

    Raises:
        ExportError: if it refuses it.
    """
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{path.name} is not valid ONNX: {error}") from error


def check_weights(module: nn.Module) -> None:
    """Refuses a model whose weights are not all finite: one NaN item vector would be everyone's first recommendation.

    Raises:
        ExportError: naming the first such weight.
    """
    for name, buffer in module.named_buffers():  # a mask may well hold -inf
        if buffer.is_floating_point() and buffer.isnan().any():
            raise ExportError(f"weight {name!r} holds NaN: the model has diverged")
    for name, parameter in module.named_parameters():
        check_finite(name, parameter)


def check_finite(name: str, weight: Tensor) -> None:
    """Refuses a tensor that holds NaN or infinite values; errors as ``check_weights``."""
    if not torch.isfinite(weight).all():
        what = "NaN" if weight.isnan().any() else "infinite values"
        raise ExportError(f"weight {name!r} holds {what}: the model has diverged")


def _check_inputs(name: str, model: onnx.ModelProto, graph: Graph) -> None:
    read = {value for node in model.graph.node if node.op_type != "Shape" for value in node.input}
    for spec in graph.inputs:
        if spec.name not in read:
            raise ExportError(
                f"graph {name!r} does not use its input {spec.name!r}: the model ignores it, or it was traced with one "
                "tensor passed for two inputs"
            )


def _check_axes(name: str, model: onnx.ModelProto, graph: Graph) -> None:
    for values, specs in ((model.graph.input, graph.inputs), (model.graph.output, graph.outputs)):
        present = {value.name: value.type.tensor_type.shape.dim for value in values}
        for spec in specs:
            for axis, dimension in zip(spec.axes, present[spec.name], strict=True):
                if isinstance(axis, str) and not dimension.HasField("dim_param"):
                    raise ExportError(
                        f"graph {name!r}: the {axis} of {spec.name!r} was fixed at {dimension.dim_value} while tracing; "
                        "the model must not turn that size into a Python number, as len(x) does: x.shape[0] stays free; "
                        "torch's GRU and LSTM walk along it one step at a time and need it fixed"
                    )

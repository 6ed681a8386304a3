"""From a torch module to one ONNX model that computes every output of all its graphs."""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from onnxscript import opset20 as op
from onnxscript.function_libs.torch_lib.ops.nn import aten_scaled_dot_product_attention as any_attention
from torch import Tensor, nn

from genrec_export.errors import ExportError, root_cause
from genrec_runtime.manifest import Signature, TensorSpec

OPSET = 20
OPSETS = (20, 23)  # 23 has Attention as one operator


ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
SILU = torch.ops.aten.silu.default


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


def trace(
    module: nn.Module, graphs: Mapping[str, Graph], example: Mapping[str, Tensor], opset: int = OPSET
) -> onnx.ModelProto:
    """Traces a module once, for all its graphs.

    Args:
        module: in eval mode; it takes every input of all graphs, in ``example``'s order, and gives all outputs of all graphs,
            in their order.
        graphs: the graphs, by name.
        example: one tensor for each input; free axes must be at least 2 long.
        opset: version of ONNX's operators.

    Returns:
        A model with the outputs "graph/output".

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
    with plain_torch(), _quiet():
        try:
            program = torch.onnx.export(
                module,
                tuple(tensor.clone() for tensor in example.values()),  # aliased examples are merged into one input
                dynamo=True,
                opset_version=opset,
                input_names=list(example),
                output_names=[f"{name}/{spec.name}" for name, graph in graphs.items() for spec in graph.outputs],
                dynamic_shapes=(shapes,) if _takes_any_number(module) else shapes,
                external_data=False,
                verbose=False,
                custom_translation_table={SILU: _silu} | ({ATTENTION: _attention} if opset == OPSET else {}),
            )
        except Exception as error:  # torch's exporter raises many types, its own only as the outermost
            raise ExportError(f"torch cannot export the model: {root_cause(error)}") from error
    assert program is not None  # with dynamo=True it never is
    model: onnx.ModelProto = program.model_proto  # made anew at each access
    return model


@contextlib.contextmanager
def plain_torch() -> Iterator[None]:
    """Torch as it is traced: without gradients, and without the fast path of ``nn.TransformerEncoder``.

    That path fails on a batch of nothing but padding, and zeroes padded slots, which the traced one does not.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """The modules in eval mode, each part put back afterwards into the mode it was in."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _attention(query: Any, key: Any, value: Any, attn_mask: Any = None, *rest: Any, **options: Any) -> Any:
    """Attention in plain operators: as torch's exporter writes it, in half the nodes.

    Keys are turned by one Transpose, which onnxruntime takes into the product, instead of by Reshape; and a softmax that cannot
    give NaN is not searched for it: a query that sees no key gets the mean of all, as before.
    """
    plain = not rest and not options.keys() - {"scale"} and len(query.shape) == 4 and isinstance(query.shape[-1], int)
    if not plain or attn_mask is None or (attn_mask.dtype.name, query.dtype.name) != ("BOOL", "FLOAT"):
        return any_attention(query, key, value, attn_mask, *rest, **options)
    scale = options.get("scale") or 1 / math.sqrt(query.shape[-1])
    lowest: Any = op.Constant(value_float=torch.finfo(torch.float32).min)
    nothing: Any = op.Constant(value_float=0.0)
    hidden = op.Where(attn_mask, nothing, lowest)  # (B, 1 or H, Q, L)
    turned = op.Transpose(key, perm=[0, 1, 3, 2])  # (B, H, D/H, L)
    scores = op.MatMul(op.Mul(query, op.Constant(value_float=scale)), turned)  # (B, H, Q, L)
    return op.MatMul(op.Softmax(op.Add(scores, hidden), axis=-1), value)  # (B, H, Q, D/H)


def _silu(x: Any) -> Any:
    """x / (1 + exp(-x)), as torch computes it: onnxruntime's Sigmoid is off by a thousandth where it is next to nothing, which
    matters to a norm that follows."""
    return op.Div(x, op.Add(op.Constant(value_float=1.0), op.Exp(op.Neg(x))))


def _takes_any_number(module: nn.Module) -> bool:
    """Whether ``forward`` has ``*inputs``, which torch counts as one argument."""
    parameters = inspect.signature(module.forward).parameters.values()
    return any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's progress lines and warnings, which are about torch's own internals: the proof tells what counts."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

"""What goes into a module and comes out: known for our own, stated for any other, and held to what the module does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from genrec.modules import MultiHeadAttention, TransformerEncoder
from genrec_export.report import Arrays
from genrec_export.tracing import Graph
from genrec_runtime.manifest import Signature, TensorSpec


def signature_of(module: object) -> Signature:
    """The signature of our own encoder and attention.

    Raises:
        ValueError: for any other module; its inputs and outputs must be stated.
    """
    if isinstance(module, TransformerEncoder):
        vocab_size, width = module.embedding.weight.shape
        length = "length" if module.max_seq_length > 1 else 1
        return Signature(
            inputs=(
                TensorSpec("input_ids", "int64", ("batch", length), 0, vocab_size - 1),
                TensorSpec("attention_mask", "int64", ("batch", length), 0, 1),
            ),
            outputs=(TensorSpec("encoded", "float32", ("batch", length, width)),),
            limits={"length": module.max_seq_length},
        )
    if isinstance(module, MultiHeadAttention):
        width, q, k = module.embedding_dim, "query_length", "key_length"
        weights = TensorSpec("weights", "float32", ("batch", module.num_heads, q, k))
        return Signature(
            inputs=(
                TensorSpec("query", "float32", ("batch", q, width)),
                TensorSpec("key", "float32", ("batch", k, width)),
                TensorSpec("value", "float32", ("batch", k, width)),
                TensorSpec("mask", "int64", ("batch", q, k), 0, 1),
            ),
            outputs=(TensorSpec("output", "float32", ("batch", q, width)), *([weights] if module.need_weights else [])),
        )
    raise ValueError(
        f"the inputs and outputs of {type(module).__name__} are not known; state them: export_module(module, out=..., "
        "inputs=[TensorSpec(...)], outputs=[TensorSpec(...)])"
    )


def stated_signature(
    inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], limits: Mapping[str, int] | None
) -> Signature:
    """A caller's own signature.

    Raises:
        ValueError: if it cannot be one: no inputs or outputs, a name twice, no dtype, axis or range that can be tried.
    """
    signature = Signature(tuple(inputs), tuple(outputs), dict(limits or {}))
    if not inputs or not outputs:
        raise ValueError(f"state both: there are {len(inputs)} inputs and {len(outputs)} outputs")
    specs = (*signature.inputs, *signature.outputs)
    names = [spec.name for spec in specs]
    if len(set(names)) != len(names):
        raise ValueError(f"a name occurs twice: {', '.join(names)}")
    for spec in specs:
        _check_spec(spec)
    for spec in signature.inputs:
        _check_range(spec)
    free = {axis for spec in signature.inputs for axis in spec.axes if isinstance(axis, str)}
    unknown = [axis for spec in signature.outputs for axis in spec.axes if isinstance(axis, str) and axis not in free]
    if unknown or not set(signature.limits) <= free or min(signature.limits.values(), default=2) < 2:
        raise ValueError(
            f"free axes are those of the inputs, {', '.join(sorted(free)) or 'none'}, and at least 2 long; "
            f"outputs have {', '.join(unknown) or 'no other'}, limits are {dict(signature.limits)}"
        )
    return signature


def parse_signature(stated: Mapping[str, Any]) -> Signature:
    """A signature as ``genrec.modules.save(..., signature=...)`` keeps it: JSON with ``inputs``, ``outputs``, ``limits``.

    Raises:
        ValueError: if it is no such thing.
    """
    try:
        inputs, outputs = (
            [
                TensorSpec(spec["name"], spec["dtype"], tuple(spec["axes"]), spec.get("low"), spec.get("high"))
                for spec in stated[way]
            ]
            for way in ("inputs", "outputs")
        )
        limits = dict(stated.get("limits", {}))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"a signature needs inputs and outputs, each a list of name, dtype, axes; got {stated}"
        ) from error
    return stated_signature(inputs, outputs, limits)


def check_outputs(graph: Graph, inputs: Arrays, outputs: Arrays) -> None:
    """Holds what a module gave to what is stated of it.

    Raises:
        ValueError: naming the output, its dtype and its shape.
    """
    sizes: dict[str | int, int] = {
        axis: size
        for spec in graph.inputs
        for axis, size in zip(spec.axes, inputs[spec.name].shape, strict=True)
        if isinstance(axis, str)
    }
    for spec in graph.outputs:
        array = outputs[spec.name]
        shape = tuple(sizes.get(axis, axis) for axis in spec.axes)
        if array.shape != shape or array.dtype != np.dtype(spec.dtype):
            raise ValueError(
                f"output {spec.name!r} is stated as {spec.dtype} of axes {spec.axes}, here {shape}; the module gives "
                f"{array.dtype} of shape {array.shape}"
            )


def _check_spec(spec: TensorSpec) -> None:
    try:
        np.dtype(spec.dtype)
    except TypeError as error:
        raise ValueError(f"{spec.name} has the dtype {spec.dtype!r}, which numpy does not know") from error
    if not spec.axes:
        raise ValueError(f"{spec.name} has no axis; its first must be the batch's")
    for axis in spec.axes:
        if not (axis.isidentifier() if isinstance(axis, str) else isinstance(axis, int) and axis >= 1):
            raise ValueError(f"{spec.name} has the axis {axis!r}: it must be a plain name, or a size of at least 1")


def _check_range(spec: TensorSpec) -> None:
    if isinstance(spec.low, int) and isinstance(spec.high, int) and spec.low <= spec.high:
        return
    needed = np.dtype(spec.dtype).kind in "iu"
    if needed or (spec.low, spec.high) != (None, None):
        raise ValueError(
            f"{spec.name} is {spec.dtype}: state low and high, both whole numbers{'' if needed else ', or neither'} "
            f"(got {spec.low} and {spec.high}); the proof tries what lies between"
        )

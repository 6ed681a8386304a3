"""Holding arrays, and onnxruntime's sessions, to what the manifest says of a graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec_runtime.checks import ONNX_TYPES
from genrec_runtime.errors import BundleCorrupt, InputError
from genrec_runtime.manifest import Signature, TensorSpec


def check_inputs(signature: Signature, inputs: Mapping[str, NDArray[Any]]) -> None:
    """What onnxruntime does not check, or only on some devices: names, dtypes, equal axes, largest sizes, values.

    Raises:
        InputError: naming the input, what it is and what it should be.
    """
    names = [spec.name for spec in signature.inputs]
    if set(inputs) != set(names):
        raise InputError(
            f"the inputs must be {', '.join(names)}; got {', '.join(inputs) or 'none'}", code="input_names"
        )
    sizes: dict[str | int, int] = {}
    for spec in signature.inputs:
        array = inputs[spec.name]
        if array.dtype != np.dtype(spec.dtype):
            raise InputError(f"{spec.name} must be {spec.dtype}, not {array.dtype}", code="input_dtype")
        _check_shape(spec, array, sizes, signature.limits)
        _check_values(spec, array)


def check_session(graph: str, signature: Signature, session: Any) -> None:
    """Refuses a graph that takes or gives other tensors than the manifest says.

    Raises:
        BundleCorrupt: naming the tensor.
    """
    for way, specs, found in (
        ("inputs", signature.inputs, session.get_inputs()),
        ("outputs", signature.outputs, session.get_outputs()),
    ):
        tensors = {tensor.name: tensor for tensor in found}
        if set(tensors) != {spec.name for spec in specs}:
            stated = ", ".join(spec.name for spec in specs)
            raise BundleCorrupt(f"graph {graph!r} has the {way} {', '.join(tensors)}, the manifest says {stated}")
        for spec in specs:
            tensor = tensors[spec.name]
            if tensor.type != ONNX_TYPES[spec.dtype] or not _fits(spec.axes, tensor.shape):
                raise BundleCorrupt(
                    f"graph {graph!r} has {spec.name} {tensor.type} {tensor.shape}, the manifest says "
                    f"{spec.dtype} {list(spec.axes)}"
                )


def _fits(axes: tuple[str | int, ...], shape: list[Any]) -> bool:
    """Whether a graph's shape can be the manifest's: as many axes, and equal sizes where both are fixed."""
    if len(axes) != len(shape):
        return False
    return all(
        axis == size for axis, size in zip(axes, shape, strict=True) if isinstance(axis, int) and isinstance(size, int)
    )


def _check_shape(spec: TensorSpec, array: NDArray[Any], sizes: dict[str | int, int], limits: Mapping[str, int]) -> None:
    if array.ndim != len(spec.axes):
        wanted = ", ".join(map(str, spec.axes))
        raise InputError(f"{spec.name} must have the axes ({wanted}), got shape {array.shape}", code="input_shape")
    for axis, size in zip(spec.axes, array.shape, strict=True):
        expected = sizes.setdefault(axis, axis if isinstance(axis, int) else size)
        if size != expected:
            raise InputError(
                f"{spec.name} has {size} along {axis!r} where {expected} is needed (shape {array.shape})",
                code="input_shape",
            )
        if size > limits.get(str(axis), size):
            raise InputError(
                f"{spec.name} has {size} along {axis!r}, at most {limits[str(axis)]} are served", code="input_shape"
            )


def _check_values(spec: TensorSpec, array: NDArray[Any]) -> None:
    if not array.size:
        return
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(f"{spec.name} holds {array[place]} at {place}", code="input_values")
    if spec.low is None and spec.high is None:
        return
    low, high = array.min(), array.max()
    if (spec.low is not None and low < spec.low) or (spec.high is not None and high > spec.high):
        outside = (array < (low if spec.low is None else spec.low)) | (
            array > (high if spec.high is None else spec.high)
        )
        place = tuple(int(i) for i in np.argwhere(outside)[0])
        raise InputError(
            f"{spec.name} holds {array[place]} at {place}, allowed are {spec.low} to {spec.high}",
            code="id_out_of_range",
        )

"""Holding arrays, and onnxruntime's sessions, to what the manifest says of a graph."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec_runtime.checks import ONNX_TYPES
from genrec_runtime.errors import BundleCorrupt, InputError
from genrec_runtime.manifest import Signature, TensorSpec

DTYPES = {name: np.dtype(name) for name in ONNX_TYPES}


def check_inputs(signature: Signature, inputs: Mapping[str, NDArray[Any]]) -> None:
    """What onnxruntime does not check, or only on some devices: names, dtypes, equal axes, largest sizes, values.

    Raises:
        InputError: naming the input, what it is and what it should be.
    """
    names = [spec.name for spec in signature.inputs]
    if set(inputs) != set(names):
        raise _misnamed(names, list(inputs))
    sizes: dict[str | int, int] = {}
    for spec in signature.inputs:
        array = inputs[spec.name]
        if array.dtype != DTYPES[spec.dtype]:
            message = f"{spec.name} must be {spec.dtype}, not {array.dtype}"
            raise InputError(message, code="input_dtype", field=spec.name, value=str(array.dtype))
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


def _misnamed(names: list[str], given: list[str]) -> InputError:
    message = f"the inputs must be {', '.join(names)}; got {', '.join(given) or 'none'}"
    wrong = [name for name in given if name not in names]
    missing = [name for name in names if name not in given]
    close = difflib.get_close_matches(wrong[0], missing, 1) if wrong else []
    if close:
        message += f"; is {wrong[0]} meant to be {close[0]}?"
    return InputError(message, code="input_names", field=(wrong or missing)[0])


def _check_shape(spec: TensorSpec, array: NDArray[Any], sizes: dict[str | int, int], limits: Mapping[str, int]) -> None:
    if array.ndim != len(spec.axes):
        raise _misshapen(spec, array, f"must have the axes ({', '.join(map(str, spec.axes))})")
    for axis, size in zip(spec.axes, array.shape, strict=True):
        expected = sizes.setdefault(axis, axis if isinstance(axis, int) else size)
        if size != expected:
            raise _misshapen(spec, array, f"has {size} along {axis!r} where {expected} is needed")
        if size > limits.get(str(axis), size):
            raise _misshapen(spec, array, f"has {size} along {axis!r}, at most {limits[str(axis)]} are served")


def _misshapen(spec: TensorSpec, array: NDArray[Any], fault: str) -> InputError:
    message = f"{spec.name} {fault}, got shape {array.shape}"
    return InputError(message, code="input_shape", field=spec.name, value=array.shape)


def _check_values(spec: TensorSpec, array: NDArray[Any]) -> None:
    if not array.size:
        return
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        place, row = _first(spec, ~np.isfinite(array))
        message = f"{spec.name} holds {array[place]} at {place}; it must be finite"
        raise InputError(message, code="input_values", row=row, field=spec.name, value=array[place])
    if spec.low is None and spec.high is None:
        return
    is_index = spec.low == 0 and spec.high is not None and array.dtype == np.int64
    if is_index and array.view(np.uint64).max() <= spec.high:  # one pass instead of two: what is negative looks large
        return
    low, high = array.min(), array.max()
    if (spec.low is not None and low < spec.low) or (spec.high is not None and high > spec.high):
        outside = (array < (low if spec.low is None else spec.low)) | (
            array > (high if spec.high is None else spec.high)
        )
        place, row = _first(spec, outside)
        message = f"{spec.name} holds {array[place]} at {place}, allowed are {_allowed(spec)}"
        raise InputError(message, code="id_out_of_range", row=row, field=spec.name, value=array[place])


def _allowed(spec: TensorSpec) -> str:
    if spec.low is None or spec.high is None:
        return f"{spec.low} and above" if spec.high is None else f"{spec.high} and below"
    return f"{spec.low} to {spec.high}"


def _first(spec: TensorSpec, wrong: NDArray[np.bool_]) -> tuple[tuple[int, ...], int | None]:
    """The place of the first wrong entry, and its row where the input has rows."""
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    return place, place[0] if spec.axes[:1] == ("batch",) else None

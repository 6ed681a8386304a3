"""The Open Inference Protocol's inference request and answer, with tensors as JSON.

Raw ids are laid out as a matrix that is padded at the end, with the rows' lengths beside it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from genrec_runtime.errors import short
from genrec_runtime.manifest import Manifest
from genrec_runtime.serve.queries import Answer, Query
from genrec_runtime.serve.refusals import Refusal

DATATYPES = {"int": "INT64", "str": "BYTES"}
OUTPUTS = ("items", "scores", "counts")


class Tensor(NamedTuple):
    """An input: its sizes, and its values one after the other."""

    shape: list[int]
    values: list[Any]


class Inference(NamedTuple):
    """An inference request.

    Attributes:
        query: what it asks.
        outputs: the names of the tensors wanted.
        request_id: "" where the client gave none.
        timeout: seconds after which its sender waits no longer.
    """

    query: Query
    outputs: list[str]
    request_id: str
    timeout: float


def inputs_of(manifest: Manifest, kind: str) -> dict[str, tuple[str, int]]:
    """The inputs of a bundle: their datatype and how many axes they have; all but ``history`` may be left out."""
    ids = DATATYPES[kind]
    inputs = {"history": (ids, 2), "lengths": ("INT64", 1), "k": ("INT64", 1)}
    inputs |= {"exclude": (ids, 2), "exclude_lengths": ("INT64", 1)}
    further = {"timestamps": ("INT64", 2), "request_time": ("INT64", 1), "users": ("BYTES", 1)}
    return inputs | {name: shape for name, shape in further.items() if name in manifest.capabilities}


def metadata(name: str, manifest: Manifest, kind: str) -> dict[str, Any]:
    """What ``GET /v2/models/{name}`` answers; a size of -1 is free."""
    inputs = inputs_of(manifest, kind).items()
    return {
        "name": name,
        "versions": [manifest.version],
        "platform": "genrec_onnx",
        "inputs": [
            {"name": tensor, "datatype": datatype, "shape": [1] if tensor == "k" else [-1] * axes}
            for tensor, (datatype, axes) in inputs
        ],
        "outputs": [
            {"name": "items", "datatype": DATATYPES[kind], "shape": [-1, -1]},
            {"name": "scores", "datatype": "FP32", "shape": [-1, -1]},
            {"name": "counts", "datatype": "INT64", "shape": [-1]},
        ],
    }


def read(body: dict[str, Any], manifest: Manifest, kind: str, timeout: float) -> Inference:
    """An inference request from its body.

    Args:
        body: a JSON object.
        manifest: of the bundle that serves.
        kind: of the catalogue's ids, "int" or "str".
        timeout: seconds, at most and by default.

    Raises:
        Refusal: 400, naming the field that is missing, unknown, or contradicts another.
    """
    known, tensors = inputs_of(manifest, kind), {}
    for number, entry in enumerate(_list(body.get("inputs"), "inputs")):
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or name not in known or name in tensors:
            raise _bad(f"inputs[{number}].name ({short(name)}) must be one of {', '.join(known)}, each once")
        tensors[name] = _tensor(name, entry, *known[name])
    if "history" not in tensors:
        raise _bad("the input history is missing")
    rows = tensors["history"].shape[0]
    histories = _rows(tensors, "history", "lengths", rows)
    times = tensors.get("timestamps")
    if times is not None and times.shape != tensors["history"].shape:
        raise _bad(f"timestamps has the shape {times.shape}, history {tensors['history'].shape}")
    query = Query(
        histories,
        k=_single(tensors, "k"),
        exclude=_rows(tensors, "exclude", "exclude_lengths", rows) if "exclude" in tensors else None,
        timestamps=None if times is None else _cut(times, [len(row) for row in histories]),
        request_time=_column(tensors, "request_time", rows),
        users=_column(tensors, "users", rows),
    )
    request_id = body.get("id", "")
    if not isinstance(request_id, str):
        raise _bad(f"id ({short(request_id)}) must be a text")
    return Inference(query, _outputs(body), request_id, _timeout(body, timeout))


def write(name: str, inference: Inference, answer: Answer, kind: str) -> dict[str, Any]:
    """The body of an answer: rows filled up with 0 or "" to ``k``, ``counts`` tells how far they are real."""
    width, fill = answer.k, 0 if kind == "int" else ""
    counts = list(map(len, answer.items))
    shape = [len(counts), width]
    tensors = {
        "items": (DATATYPES[kind], shape, _flat(answer.items, width, fill)),
        "scores": ("FP32", shape, _flat(answer.scores, width, 0.0)),
        "counts": ("INT64", [len(counts)], counts),
    }
    outputs = [
        {"name": output, "datatype": tensors[output][0], "shape": tensors[output][1], "data": tensors[output][2]}
        for output in inference.outputs
    ]
    found = {"model_name": name, "model_version": answer.version, "outputs": outputs}
    return {**found, "id": inference.request_id} if inference.request_id else found


def _tensor(name: str, entry: dict[str, Any], datatype: str, axes: int) -> Tensor:
    if entry.get("datatype") != datatype:
        raise _bad(f"{name}: datatype ({short(entry.get('datatype'))}) must be {datatype}")
    shape = _list(entry.get("shape"), f"{name}: shape")
    if len(shape) != axes or not all(type(size) is int and 0 <= size < 1 << 31 for size in shape):
        raise _bad(f"{name}: shape ({short(shape)}) must be {axes} sizes")
    parameters = entry.get("parameters")
    if "data" not in entry and isinstance(parameters, dict) and "binary_data_size" in parameters:
        raise _bad(f"{name}: binary tensors are not taken; send the data as JSON (binary_data=False)")
    values = _list(entry.get("data"), f"{name}: data")
    if axes == 2 and values and isinstance(values[0], list):
        values = _flattened(name, values, shape)
    if len(values) != math.prod(shape):
        raise _bad(f"{name}: data has {len(values)} values for the shape {shape}")
    wanted = str if datatype == "BYTES" else int
    if not set(map(type, values)) <= {wanted}:
        stranger = next(value for value in values if type(value) is not wanted)
        raise _bad(f"{name}: data holds {short(stranger)}, which is no {datatype}")
    if wanted is int and values and not -(1 << 63) <= min(values) <= max(values) < 1 << 63:
        raise _bad(f"{name}: data holds a number beyond 64 bits")
    return Tensor(shape, values)


def _flattened(name: str, rows: list[Any], shape: list[int]) -> list[Any]:
    if len(rows) != shape[0] or not all(isinstance(row, list) and len(row) == shape[1] for row in rows):
        raise _bad(f"{name}: data must be {shape[0]} lists of {shape[1]}, as shape says")
    return [value for row in rows for value in row]


def _rows(tensors: dict[str, Tensor], name: str, lengths_name: str, rows: int) -> list[list[Any]]:
    """The rows of a matrix without their padding."""
    tensor = tensors[name]
    if tensor.shape[0] != rows:
        raise _bad(f"{name} has {tensor.shape[0]} rows, history has {rows}")
    lengths = _column(tensors, lengths_name, rows)
    if lengths is None:
        lengths = [tensor.shape[1]] * rows
    if lengths and not 0 <= min(lengths) <= max(lengths) <= tensor.shape[1]:
        raise _bad(f"{lengths_name} must lie in 0..{tensor.shape[1]}, the width of {name}")
    return _cut(tensor, lengths)


def _cut(tensor: Tensor, lengths: list[int]) -> list[list[Any]]:
    width = tensor.shape[1]
    return [tensor.values[row * width : row * width + length] for row, length in enumerate(lengths)]


def _column(tensors: dict[str, Tensor], name: str, rows: int) -> list[Any] | None:
    if name not in tensors:
        return None
    if tensors[name].shape[0] != rows:
        raise _bad(f"{name} has {tensors[name].shape[0]} entries, history has {rows} rows")
    return tensors[name].values


def _single(tensors: dict[str, Tensor], name: str) -> int | None:
    if name not in tensors:
        return None
    if tensors[name].shape != [1]:
        raise _bad(f"{name}: shape must be [1], not {tensors[name].shape}")
    value: int = tensors[name].values[0]
    return value


def _outputs(body: dict[str, Any]) -> list[str]:
    if body.get("outputs") is None:
        return list(OUTPUTS)
    names = [entry.get("name") if isinstance(entry, dict) else None for entry in _list(body["outputs"], "outputs")]
    for name in names:
        if name not in OUTPUTS:
            raise _bad(f"outputs: {short(name)} is none of {', '.join(OUTPUTS)}")
    return [str(name) for name in names] or list(OUTPUTS)


def _timeout(body: dict[str, Any], most: float) -> float:
    """Seconds; the protocol's clients say microseconds."""
    parameters = body.get("parameters", {})
    if not isinstance(parameters, dict):
        raise _bad(f"parameters ({short(parameters)}) must be an object")
    wanted = parameters.get("timeout")
    if wanted is None:
        return most
    if type(wanted) is not int or wanted < 1:
        raise _bad(f"parameters.timeout ({short(wanted)}) must be microseconds, a whole number above 0")
    return min(most * 1e6, wanted) / 1e6


def _flat(rows: list[Any], width: int, fill: Any) -> list[Any]:
    return [value for row in rows for value in row + [fill] * (width - len(row))]


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise _bad(f"{name} ({short(value)}) must be a list")
    return value


def _bad(message: str) -> Refusal:
    return Refusal(400, "tensor", message)

"""Bundles written by hand around a model that reads times and users, and the model once more in numpy."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from genrec.histories import Catalogue, ItemIds, user_index
from genrec_runtime.checks import FURTHER, TIME_LIMIT
from genrec_runtime.manifest import Defaults, FileEntry, Manifest, Semantics, Signature, TensorSpec, Tolerance

ITEMS = [f"item {number}" for number in range(9)]
LENGTH, WIDTH, USERS, K = 5, 3, 7, 6
TABLE = np.random.default_rng(1).normal(size=(len(ITEMS) + 1, WIDTH)).astype(np.float32)
TASTES = np.random.default_rng(2).normal(size=(USERS + 1, WIDTH)).astype(np.float32)
TASTES[0] = 0
UNIT = np.float32(100)  # seconds after which an event counts half


def state(item_ids: Any, timestamps: Any = None, request_time: Any = None, users: Any = None) -> np.ndarray:
    """(B, L) -> (B, D): the sum of the items' vectors, each over 1 + its age in units; and of the user's."""
    item_ids = np.asarray(item_ids)
    weight = np.where(item_ids > 0, np.float32(1), np.float32(0))  # (B, L)
    if timestamps is not None:
        now = np.zeros((len(item_ids), 1)) if request_time is None else np.asarray(request_time)[:, None]
        age = np.float32(np.abs(now - np.asarray(timestamps))) / UNIT
        weight = weight / (1 + age)
    states = np.einsum("bl,bld->bd", weight, TABLE[item_ids])
    return np.float32(states if users is None else states + TASTES[np.asarray(users)])


def scores(history: Sequence[str], times: Sequence[int] = (), now: int | None = None, user: Any = None) -> np.ndarray:
    """float32 (V,): the score of every item for one raw history, all of it known; see ``state``."""
    ids = np.array([[ITEMS.index(item) + 1 for item in history[-LENGTH:]]])
    further: dict[str, Any] = {}
    if times:
        newest = times[-1] if now is None else now
        further = {"timestamps": [times[-LENGTH:]], "request_time": [newest]}
    found: np.ndarray = state(ids, users=[user_index(user, USERS)], **further)[0] @ TABLE.T
    return found[1:]


def write_timed(
    folder: Path, reads: Sequence[str] = FURTHER, *, window: str = "bucketed", padding: str = "left"
) -> Path:
    """A bundle whose graphs ``recommend``, ``score`` and ``encode`` take, beside the items, those of ``FURTHER`` in ``reads``.

    Its catalogue is ``ITEMS``, the last the most popular; lists are ``K`` long and histories ``LENGTH``.
    """
    axes = ("batch", "length" if window == "bucketed" else LENGTH)
    specs = {
        "timestamps": TensorSpec("timestamps", "int64", axes, -TIME_LIMIT, TIME_LIMIT),
        "request_time": TensorSpec("request_time", "int64", ("batch",), -TIME_LIMIT, TIME_LIMIT),
        "users": TensorSpec("users", "int64", ("batch",), 0, USERS),
    }
    history = (
        TensorSpec("item_ids", "int64", axes, 0, len(ITEMS)),
        *(specs[name] for name in FURTHER if name in reads),
    )
    signature = _signatures(history)
    contents = Catalogue(ItemIds(ITEMS), np.arange(len(ITEMS), 0, -1)).files()
    roles = dict.fromkeys(contents, "items")
    for graph in signature:
        contents |= {f"{graph}.onnx": _graph(graph, signature[graph]), f"golden/{graph}.npz": _golden(graph, signature)}
        roles |= {f"{graph}.onnx": "graph", f"golden/{graph}.npz": "golden"}
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    files = {name: FileEntry(len(c), hashlib.sha256(c).hexdigest(), roles[name]) for name, c in contents.items()}
    (folder / "manifest.json").write_bytes(
        dataclasses.replace(_manifest(signature, reads, window, padding), files=files).identified().to_json()
    )
    return folder


def _signatures(history: tuple[TensorSpec, ...]) -> dict[str, Signature]:
    items = len(ITEMS)
    exclude = TensorSpec("exclude", "int64", ("batch", "excluded"), 0, items)
    candidates = TensorSpec("candidates", "int64", ("batch", "candidates"), 0, items)
    best = TensorSpec("items", "int64", ("batch", K)), TensorSpec("scores", "float32", ("batch", K))
    return {
        "recommend": Signature((*history, exclude, TensorSpec("available", "bool", (items + 1,))), best),
        "score": Signature((*history, candidates), (TensorSpec("scores", "float32", ("batch", "candidates")),)),
        "encode": Signature(history, (TensorSpec("states", "float32", ("batch", WIDTH)),)),
    }


def _manifest(signature: dict[str, Signature], reads: Sequence[str], window: Any, padding: Any) -> Manifest:
    unit: Any = "s" if "timestamps" in reads else None
    return Manifest(
        kind="recommender",
        model={"name": "by hand"},
        capabilities=(*signature, "exclude", "available", "candidates", *reads),
        graphs={graph: {"fp32": f"{graph}.onnx"} for graph in signature},
        signature=signature,
        semantics=Semantics(0, len(ITEMS), LENGTH, padding, "keep_newest", window, K, "lowest_index", "logit", unit),
        files={},
        weights={},
        opset=20,
        ir_version=10,
        ops={},
        tolerance=Tolerance(1e-5, 1e-5),
        requires={},
        defaults=Defaults(k=4),
    )


def _graph(graph: str, signature: Signature) -> bytes:
    """The model as nodes of ONNX."""
    ends = {"recommend": _best, "score": _chosen, "encode": lambda: [_node("Identity", "state", out="states")]}[graph]
    nodes = [*_state_nodes([spec.name for spec in signature.inputs]), *ends()]
    used = {name for node in nodes for name in node.input}
    values = {"table": TABLE, "tastes": TASTES, "unit": UNIT, "one": np.float32(1), "zero": np.int64(0)}
    values |= {"axis 1": np.array([1]), "axis 2": np.array([2]), "k": np.array([K]), "never": np.float32(-np.inf)}
    kept = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items() if name in used]
    ways = [
        [
            helper.make_tensor_value_info(spec.name, helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype)), spec.axes)
            for spec in specs
        ]
        for specs in (signature.inputs, signature.outputs)
    ]
    made = helper.make_graph(nodes, graph, *ways, kept)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def _node(operator: str, *inputs: str, out: str, **settings: Any) -> onnx.NodeProto:
    return helper.make_node(operator, list(inputs), [out], **settings)


def _state_nodes(inputs: Sequence[str]) -> list[onnx.NodeProto]:
    """``state``."""
    nodes = [
        _node("Greater", "item_ids", "zero", out="real"),
        _node("Cast", "real", out="kept", to=onnx.TensorProto.FLOAT),
    ]
    weight = "kept"  # (B, L)
    if "timestamps" in inputs:
        now = "zero"
        if "request_time" in inputs:
            nodes.append(_node("Unsqueeze", "request_time", "axis 1", out="now"))  # (B, 1)
            now = "now"
        nodes += [
            _node("Sub", now, "timestamps", out="past"),
            _node("Abs", "past", out="age"),
            _node("Cast", "age", out="seconds", to=onnx.TensorProto.FLOAT),
            _node("Div", "seconds", "unit", out="units"),
            _node("Add", "units", "one", out="decay"),
            _node("Div", "kept", "decay", out="weight"),
        ]
        weight = "weight"
    nodes += [
        _node("Gather", "table", "item_ids", out="vectors"),  # (B, L, D)
        _node("Unsqueeze", weight, "axis 2", out="weights"),  # (B, L, 1)
        _node("Mul", "vectors", "weights", out="weighted"),
    ]
    if "users" not in inputs:
        return [*nodes, _node("ReduceSum", "weighted", "axis 1", out="state", keepdims=0)]
    return [
        *nodes,
        _node("ReduceSum", "weighted", "axis 1", out="sum", keepdims=0),
        _node("Gather", "tastes", "users", out="taste"),
        _node("Add", "sum", "taste", out="state"),
    ]


def _best() -> list[onnx.NodeProto]:
    """The best K items: scores of all, less what is excluded, unavailable or padding."""
    return [
        _node("Transpose", "table", out="columns", perm=[1, 0]),
        _node("MatMul", "state", "columns", out="all scores"),  # (B, V + 1)
        _node("Where", "available", "all scores", "never", out="open"),
        _node("Shape", "exclude", out="excluded shape"),
        _node("Expand", "never", "excluded shape", out="nevers"),
        _node("ScatterElements", "open", "exclude", "nevers", out="left", axis=1),
        _node("Shape", "item_ids", out="rows", start=0, end=1),
        _node("Concat", "rows", "axis 1", out="one each", axis=0),
        _node("Expand", "zero", "one each", out="paddings"),
        _node("Expand", "never", "one each", out="one never each"),
        _node("ScatterElements", "left", "paddings", "one never each", out="final", axis=1),
        helper.make_node("TopK", ["final", "k"], ["scores", "items"], axis=1),
    ]


def _chosen() -> list[onnx.NodeProto]:
    """The candidates' scores."""
    return [
        _node("Gather", "table", "candidates", out="chosen"),  # (B, C, D)
        _node("Unsqueeze", "state", "axis 1", out="states"),  # (B, 1, D)
        _node("Mul", "chosen", "states", out="products"),
        _node("ReduceSum", "products", "axis 2", out="scores", keepdims=0),
    ]


def _golden(graph: str, signature: dict[str, Signature]) -> bytes:
    """Two rows and numpy's answers to them."""
    everything: dict[str, Any] = {
        "item_ids": np.array([[0, 0, 3, 1, 9], [0, 4, 4, 2, 5]]),
        "timestamps": np.array([[0, 0, 50, 60, 900], [0, -70, 5, 5, 333]]),
        "request_time": np.array([1000, 333]),
        "users": np.array([0, USERS]),
        "exclude": np.array([[3, 1, 9], [0, 0, 6]]),
        "available": np.ones(len(ITEMS) + 1, np.bool_),
        "candidates": np.array([[1, 2], [9, 1]]),
    }
    names = [spec.name for spec in signature[graph].inputs]
    found = state(**{name: everything[name] for name in ("item_ids", *FURTHER) if name in names})
    every = found @ TABLE.T  # (B, V + 1)
    outputs: dict[str, Any] = {"states": found}
    if graph == "score":
        outputs = {"scores": np.take_along_axis(every, everything["candidates"], 1)}
    elif graph == "recommend":
        every[:, 0] = -np.inf
        np.put_along_axis(every, everything["exclude"], -np.inf, 1)
        items = np.argsort(-every, axis=1, kind="stable")[:, :K]
        outputs = {"items": items, "scores": np.take_along_axis(every, items, 1)}
    arrays = {f"both.in.{name}": everything[name] for name in names}
    file = io.BytesIO()
    np.savez(file, **arrays, **{f"both.out.{name}": value for name, value in outputs.items()})
    return file.getvalue()

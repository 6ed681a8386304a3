"""Ways to damage a bundle at random, each by a seed of its own."""

import hashlib
import io
import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from genrec_runtime.bundle import Bundle
from genrec_runtime.graphcheck import OPERATORS
from genrec_runtime.manifest import content_of, identity

Change = Callable[[random.Random, bytes], bytes]
NUMBERS = (0, 1, -1, 2, 3, 7, 64, 127, 2**15, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63))
VALUES = (
    *NUMBERS,
    None,
    True,
    False,
    "",
    "x",
    "../weights.bin",
    [],
    {},
    [1],
    0.5,
    -1.0,
    1e300,
    "fp32",
    "float64",
    "int64",
)


@dataclass(frozen=True)
class Mutant:
    """What was done to a bundle.

    Attributes:
        what: in words.
        sealed: whether sizes, hashes and ids were made to agree again, as only somebody who means it does.
        computes: whether it was done to a graph or to weights alone, so that the recorded requests must still be answered as
            recorded; whoever changes more may well make another bundle of it.
    """

    what: str
    sealed: bool
    computes: bool


def mutate(folder: Path, variant: str, seed: int) -> Mutant:
    """Damages a bundle in place: its bytes, its files, its manifest's values, a graph's nodes, recorded arrays.

    Args:
        folder: the bundle.
        variant: the one to be served; files that only others need are left alone.
        seed: of all choices.
    """
    r = random.Random(seed)
    names = ["manifest.json", *Bundle.open(folder, variant=variant).files]
    graphs, recorded, weights = ([name for name in names if name.endswith(end)] for end in (".onnx", ".npz", ".bin"))
    kind = r.choices(["bytes", "files", "values", "nodes", "arrays"], [5, 2, 5, 6, 2])[0]
    sealed = kind in ("nodes", "arrays") or r.random() < 0.6
    if kind == "files":
        what, sealed = _change_files(r, folder, names), False
        return Mutant(what, sealed, False)
    if kind == "values":
        data = json.loads((folder / "manifest.json").read_bytes())
        what = _change_value(r, data)
        (folder / "manifest.json").write_text(json.dumps(data))
        if sealed:
            _seal(folder, files=False)
        return Mutant(what, sealed, False)
    name = r.choice({"bytes": names + 5 * weights, "nodes": graphs, "arrays": recorded}[kind])
    change = r.choice({"bytes": BYTES, "nodes": NODES, "arrays": ARRAYS}[kind])
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(change(r, content))
    sealed = sealed and name != "manifest.json"
    if sealed:
        _seal(folder)
    return Mutant(f"{change.__name__.strip('_')} in {name}", sealed, name.endswith((".onnx", ".bin")))


def _seal(folder: Path, *, files: bool = True) -> None:
    """Makes sizes, hashes and ids agree with what is there."""
    data = json.loads((folder / "manifest.json").read_bytes())
    for name, entry in data["files"].items() if files else ():
        content = (folder / name).read_bytes()
        entry |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    try:
        data["content_id"] = content_of(data)
        data["bundle_id"] = identity(data)
    except (KeyError, TypeError, AttributeError, ValueError):  # nobody can seal that
        return
    (folder / "manifest.json").write_text(json.dumps(data))


# --- bytes


def _flip_a_bit(r: random.Random, blob: bytes) -> bytes:
    if not blob:
        return b"\1"
    place = r.randrange(len(blob))
    return blob[:place] + bytes([blob[place] ^ 1 << r.randrange(8)]) + blob[place + 1 :]


def _flip_many_bits(r: random.Random, blob: bytes) -> bytes:
    for _ in range(r.randrange(2, 40)):
        blob = _flip_a_bit(r, blob)
    return blob


def _cut(r: random.Random, blob: bytes) -> bytes:
    return blob[: r.randrange(len(blob) + 1)]


def _extend(r: random.Random, blob: bytes) -> bytes:
    return blob + r.choice([b"\0", b"\n", blob, r.randbytes(r.randrange(1, 99))])


def _remove_a_stretch(r: random.Random, blob: bytes) -> bytes:
    begin, end = _stretch(r, blob)
    return blob[:begin] + blob[end:]


def _repeat_a_stretch(r: random.Random, blob: bytes) -> bytes:
    begin, end = _stretch(r, blob)
    return blob[:end] + blob[begin:]


def _blank_a_stretch(r: random.Random, blob: bytes) -> bytes:
    begin, end = _stretch(r, blob)
    return blob[:begin] + r.choice([b"\0", b"\xff", b"["]) * (end - begin) + blob[end:]


def _insert(r: random.Random, blob: bytes) -> bytes:
    place = r.randrange(len(blob) + 1)
    return blob[:place] + r.randbytes(r.randrange(1, 20)) + blob[place:]


def _stretch(r: random.Random, blob: bytes) -> tuple[int, int]:
    begin = r.randrange(len(blob) + 1)
    return begin, min(len(blob), begin + r.choice([1, 4, 8, 64, 1000]))


BYTES: list[Change] = [
    _flip_a_bit,
    _flip_many_bits,
    _cut,
    _extend,
    _remove_a_stretch,
    _repeat_a_stretch,
    _blank_a_stretch,
    _insert,
]

# --- files


def _change_files(r: random.Random, folder: Path, names: list[str]) -> str:
    name, other = r.sample(names, 2)
    path, second = folder / name, folder / other
    content = path.read_bytes()
    how = r.choice(["removed", "emptied", "a folder", "a FIFO", "a device", "a link to itself", "swapped", "a copy"])
    if how in ("removed", "a folder", "a FIFO", "a device", "a link to itself"):
        path.unlink()
    if how == "emptied":
        path.write_bytes(b"")
    elif how == "a folder":
        path.mkdir()
    elif how == "a FIFO":
        os.mkfifo(path)
    elif how in ("a device", "a link to itself"):
        path.symlink_to("/dev/zero" if how == "a device" else path)
    elif how in ("swapped", "a copy"):
        path.write_bytes(second.read_bytes())
        if how == "swapped":
            second.write_bytes(content)
    return f"{name}: {how} ({other})"


# --- values of the manifest


def _change_value(r: random.Random, data: dict[str, Any]) -> str:
    """One value, at any depth, becomes another, goes, or comes again elsewhere."""
    place, holder = [], data
    while True:
        key: Any = r.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        place.append(str(key))
        value = holder[key]  # type: ignore[index]
        if not isinstance(value, (dict, list)) or not value or r.random() < 0.2:
            break
        holder = value
    how = r.choice(["removed", "replaced", "replaced", "replaced", "nudged", "repeated"])
    if how == "removed":
        del holder[key]
    elif how == "nudged" and type(value) in (int, float):
        holder[key] = value + r.choice([-1, 1])
    elif how == "repeated":
        _repeat(r, holder, key, value)
    else:
        holder[key] = r.choice(VALUES)
    return f"/{'/'.join(place)} {how}"


def _repeat(r: random.Random, holder: Any, key: Any, value: Any) -> None:
    if isinstance(holder, list):
        holder.insert(r.randrange(len(holder) + 1), value)
    else:
        holder[r.choice([*holder, "more"])] = value


# --- graphs


def _rename_an_operator(r: random.Random, blob: bytes) -> bytes:
    return _with_node(r, blob, lambda node, _: setattr(node, "op_type", r.choice(sorted(OPERATORS[""]))))


def _rewire(r: random.Random, blob: bytes) -> bytes:
    def change(node: onnx.NodeProto, graph: onnx.GraphProto) -> None:
        values = [value for other in graph.node for value in other.output] + [one.name for one in graph.initializer]
        values += [value.name for value in graph.input] + [""]
        if node.input:
            node.input[r.randrange(len(node.input))] = r.choice(values)

    return _with_node(r, blob, change)


def _drop_or_add_an_input(r: random.Random, blob: bytes) -> bytes:
    def change(node: onnx.NodeProto, graph: onnx.GraphProto) -> None:
        if node.input and r.random() < 0.5:
            del node.input[r.randrange(len(node.input))]
        else:
            node.input.append(r.choice(graph.initializer).name)

    return _with_node(r, blob, change)


def _change_a_setting(r: random.Random, blob: bytes) -> bytes:
    def change(node: onnx.NodeProto, graph: onnx.GraphProto) -> None:
        with_settings = [one for one in graph.node if one.attribute]
        attribute = r.choice(r.choice(with_settings).attribute)
        attribute.i = r.choice(NUMBERS)
        if attribute.ints:
            attribute.ints[r.randrange(len(attribute.ints))] = r.choice(NUMBERS)
        if r.random() < 0.1:
            attribute.type = r.randrange(1, 8)

    return _with_node(r, blob, change)


def _drop_repeat_or_move_a_node(r: random.Random, blob: bytes) -> bytes:
    def change(node: onnx.NodeProto, graph: onnx.GraphProto) -> None:
        how, nodes = r.randrange(3), list(graph.node)
        if how < 2:
            nodes.remove(node)
        if how > 0:
            nodes.insert(r.randrange(len(nodes) + 1), node)
        copies = [onnx.NodeProto.FromString(one.SerializeToString()) for one in nodes]
        del graph.node[:]
        graph.node.extend(copies)

    return _with_node(r, blob, change)


def _change_a_tensor(r: random.Random, blob: bytes) -> bytes:
    def change(node: onnx.NodeProto, graph: onnx.GraphProto) -> None:
        tensor = r.choice(graph.initializer)
        how = r.randrange(4)
        if how == 0:
            tensor.dims.append(r.choice(NUMBERS))
        elif how == 1:
            tensor.data_type = r.randrange(24)
        elif how == 2 and tensor.external_data:
            r.choice(tensor.external_data).value = r.choice(
                ["", "0", "64", "-1", "weights.bin", "items.utf8", "/dev/zero"]
            )
        else:
            tensor.raw_data = r.choice([b"", r.randbytes(8), r.choice(NUMBERS).to_bytes(8, "little", signed=True)])

    return _with_node(r, blob, change)


def _change_a_small_constant(r: random.Random, blob: bytes) -> bytes:
    def change(node: onnx.NodeProto, graph: onnx.GraphProto) -> None:
        ints = [one for one in graph.initializer if one.data_type == onnx.TensorProto.INT64 and one.raw_data]
        if ints:
            tensor = r.choice(ints)
            number = r.choice(NUMBERS).to_bytes(8, "little", signed=True)
            tensor.raw_data = number + tensor.raw_data[8:]

    return _with_node(r, blob, change)


def _change_a_type(r: random.Random, blob: bytes) -> bytes:
    def change(node: onnx.NodeProto, graph: onnx.GraphProto) -> None:
        tensor = r.choice([*graph.input, *graph.output]).type.tensor_type
        if r.random() < 0.5:
            tensor.elem_type = r.randrange(24)
        else:
            tensor.shape.dim.add().dim_value = r.choice(NUMBERS)

    return _with_node(r, blob, change)


def _with_node(r: random.Random, blob: bytes, change: Callable[[onnx.NodeProto, onnx.GraphProto], object]) -> bytes:
    model = onnx.load_from_string(blob)
    change(r.choice(model.graph.node), model.graph)
    return model.SerializeToString()


NODES: list[Change] = [
    _rename_an_operator,
    _rewire,
    _drop_or_add_an_input,
    _change_a_setting,
    _drop_repeat_or_move_a_node,
    _change_a_tensor,
    _change_a_small_constant,
    _change_a_type,
]

# --- recorded requests


def _change_an_array(r: random.Random, blob: bytes) -> bytes:
    with np.load(io.BytesIO(blob)) as file:
        arrays = {name: file[name] for name in file.files}
    name = r.choice(list(arrays))
    array = arrays.pop(name)
    how = r.randrange(8)
    changed = {
        0: lambda: array.astype(r.choice(["float64", "int32", "bool", "U5", "complex64", "M8[s]"])),
        1: lambda: array[..., None],
        2: lambda: array[:0],
        3: lambda: array + 1 if array.dtype != bool else ~array,
        4: lambda: np.full_like(array, r.choice([0, 1])),
        5: lambda: np.zeros((), array.dtype),
        6: lambda: array[::-1],
    }
    if how in changed:
        arrays[r.choice([name, name, name, "0.in.more", "stray", f"{name}.x"])] = changed[how]()
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


ARRAYS: list[Change] = [_change_an_array, _flip_a_bit, _cut]

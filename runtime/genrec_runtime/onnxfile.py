"""Reading an ONNX file without onnx, as far as the checks of a graph look at it.

``unread`` is what no bundle holds: subgraphs, functions, sparse tensors, metadata. It stays bytes, so that no message can nest
deeper than the tables below. ``ignored`` is of no consequence: descriptions, the names of tools, types of values inside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec_runtime.errors import BundleCorrupt
from genrec_runtime.wire import Field, each, integer, integers, message, octets, part, real, reals, text

DTYPES = {  # ONNX's number of a type: numpy's name, and the field that holds its values where they are not raw bytes
    1: ("float32", "float_data"),
    2: ("uint8", "int32_data"),
    3: ("int8", "int32_data"),
    4: ("uint16", "int32_data"),
    5: ("int16", "int32_data"),
    6: ("int32", "int32_data"),
    7: ("int64", "int64_data"),
    9: ("bool", "int32_data"),
    10: ("float16", "int32_data"),
    11: ("float64", "double_data"),
    12: ("uint32", "uint64_data"),
    13: ("uint64", "uint64_data"),
}


@dataclass(frozen=True)
class Entry:
    """A key and its value: where external data lies."""

    key: str = ""
    value: str = ""


@dataclass(frozen=True)
class Opset:
    """A domain of operators and its version."""

    domain: str = ""
    version: int = 0


@dataclass(frozen=True)
class Tensor:
    """A constant; its bytes lie in ``raw_data``, in one of the typed fields, or (``data_location`` 1) in another file."""

    name: str = ""
    dims: tuple[int, ...] = ()
    data_type: int = 0
    raw_data: bytes | None = None
    float_data: tuple[float, ...] = ()
    int32_data: tuple[int, ...] = ()
    int64_data: tuple[int, ...] = ()
    uint64_data: tuple[int, ...] = ()
    double_data: tuple[float, ...] = ()
    external_data: tuple[Entry, ...] = ()
    data_location: int = 0
    unread: tuple[bytes, ...] = ()
    ignored: tuple[Any, ...] = ()

    @property
    def dtype(self) -> str:
        """numpy's name of its type; "" where it is of none that is served."""
        return DTYPES.get(self.data_type, ("", ""))[0]

    def values(self) -> NDArray[Any]:
        """Its values, flat; halves that lie in ``int32_data`` as their bits.

        Raises:
            BundleCorrupt: if its type is none that is served, or its bytes are not here, or not those that its sizes ask for.
        """
        dtype, field = DTYPES.get(self.data_type, ("", ""))
        if not dtype or self.data_location or self.external_data or self.unread:
            raise BundleCorrupt(f"has the tensor {self.name!r} of type {self.data_type}, or without values of its own")
        held = {name: getattr(self, name) for _, name in DTYPES.values()}
        wrong = [name for name, numbers in held.items() if numbers and (name != field or self.raw_data is not None)]
        found = len(held[field]) if self.raw_data is None else len(self.raw_data) / np.dtype(dtype).itemsize
        if wrong or min(self.dims, default=0) < 0 or found != math.prod(self.dims):
            raise BundleCorrupt(
                f"has a tensor {self.name!r} without the {dtype} values that its sizes {list(self.dims)} need"
            )
        return np.array(held[field]) if self.raw_data is None else np.frombuffer(self.raw_data, dtype)


@dataclass(frozen=True)
class Attribute:
    """A setting of a node."""

    name: str = ""
    type: int = 0
    i: int = 0
    t: Tensor | None = None
    f: float = 0.0
    s: bytes = b""
    floats: tuple[float, ...] = ()
    ints: tuple[int, ...] = ()
    strings: tuple[bytes, ...] = ()
    unread: tuple[bytes, ...] = ()
    ignored: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Node:
    """One operator with the names of what it reads and makes."""

    input: tuple[str, ...] = ()
    output: tuple[str, ...] = ()
    name: str = ""
    op_type: str = ""
    domain: str = ""
    attribute: tuple[Attribute, ...] = ()
    unread: tuple[bytes, ...] = ()
    ignored: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Value:
    """An input or an output."""

    name: str = ""
    type: bytes = b""
    unread: tuple[bytes, ...] = ()
    ignored: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Graph:
    """Nodes in order, with the constants that they read."""

    name: str = ""
    node: tuple[Node, ...] = ()
    initializer: tuple[Tensor, ...] = ()
    input: tuple[Value, ...] = ()
    output: tuple[Value, ...] = ()
    unread: tuple[bytes, ...] = ()
    ignored: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Model:
    """A whole file."""

    ir_version: int = 0
    opset_import: tuple[Opset, ...] = ()
    graph: Graph | None = None
    unread: tuple[bytes, ...] = ()
    ignored: tuple[Any, ...] = ()


def read_model(content: bytes) -> Model:
    """Reads an ONNX file.

    Raises:
        BundleCorrupt: if it is none, or says something in a way that readers understand differently.
    """
    model: Model = message(Model, MODEL, content)
    return model


INT32, INT64 = integer(32), integer(64)
TEXT, TEXTS = (text, False), (each(text), True)
BYTES, INTEGERS, FLOATS = (each(octets), True), (integers(INT64), True), (reals("f"), True)
UNREAD, IGNORED = ("unread", *BYTES), ("ignored", *BYTES)

# The fields of onnx.proto by their numbers
ENTRY: dict[int, Field] = {1: ("key", *TEXT), 2: ("value", *TEXT)}
OPSET: dict[int, Field] = {1: ("domain", *TEXT), 2: ("version", INT64, False)}
VALUE: dict[int, Field] = {1: ("name", *TEXT), 2: ("type", octets, False), 3: IGNORED, 4: UNREAD}
TENSOR: dict[int, Field] = {
    1: ("dims", *INTEGERS),
    2: ("data_type", INT32, False),
    3: UNREAD,  # segment
    4: ("float_data", *FLOATS),
    5: ("int32_data", integers(INT32), True),
    6: UNREAD,  # string_data
    7: ("int64_data", *INTEGERS),
    8: ("name", *TEXT),
    9: ("raw_data", octets, False),
    10: ("double_data", reals("d"), True),
    11: ("uint64_data", integers(integer(64, signed=False)), True),
    12: IGNORED,  # doc_string
    13: ("external_data", each(part(Entry, ENTRY)), True),
    14: ("data_location", INT32, False),
    16: UNREAD,  # metadata_props
}
ATTRIBUTE: dict[int, Field] = {
    1: ("name", *TEXT),
    2: ("f", real, False),
    3: ("i", INT64, False),
    4: ("s", octets, False),
    5: ("t", part(Tensor, TENSOR), False),
    7: ("floats", *FLOATS),
    8: ("ints", *INTEGERS),
    9: ("strings", *BYTES),
    13: IGNORED,  # doc_string
    20: ("type", INT32, False),
    # g, tensors, graphs, tp, type_protos, ref_attr_name, sparse_tensor, sparse_tensors
    **dict.fromkeys((6, 10, 11, 14, 15, 21, 22, 23), UNREAD),
}
NODE: dict[int, Field] = {
    1: ("input", *TEXTS),
    2: ("output", *TEXTS),
    3: ("name", *TEXT),
    4: ("op_type", *TEXT),
    5: ("attribute", each(part(Attribute, ATTRIBUTE)), True),
    6: IGNORED,  # doc_string
    7: ("domain", *TEXT),
    **dict.fromkeys((8, 9, 10), UNREAD),  # overload, metadata_props, device_configurations
}
GRAPH: dict[int, Field] = {
    1: ("node", each(part(Node, NODE)), True),
    2: ("name", *TEXT),
    5: ("initializer", each(part(Tensor, TENSOR)), True),
    10: IGNORED,  # doc_string
    11: ("input", each(part(Value, VALUE)), True),
    12: ("output", each(part(Value, VALUE)), True),
    13: IGNORED,  # value_info
    **dict.fromkeys((14, 15, 16), UNREAD),  # quantization_annotation, sparse_initializer, metadata_props
}
MODEL: dict[int, Field] = {
    1: ("ir_version", INT64, False),
    **dict.fromkeys((2, 3, 4, 6), IGNORED),  # producer_name, producer_version, domain, doc_string
    5: ("ignored", each(INT64), True),  # model_version
    7: ("graph", part(Graph, GRAPH), False),
    8: ("opset_import", each(part(Opset, OPSET)), True),
    **dict.fromkeys((14, 20, 25, 26), UNREAD),  # metadata_props, training_info, functions, configuration
}

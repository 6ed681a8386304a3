"""The reader of ONNX files sees what onnx sees, and refuses what protobuf forgives."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from format_page import FROZEN
from genrec_runtime import BundleCorrupt
from genrec_runtime.onnxfile import DTYPES, Tensor, read_model
from tiny import Tiny

FILES = sorted(FROZEN.glob("*/*.onnx"))


def varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; all but the last have the eighth."""
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def lengthened(number: int, content: bytes) -> bytes:
    """A field of bytes: its number and wire type 2, its length, its content."""
    return varint(number << 3 | 2) + varint(len(content)) + content


@pytest.fixture(params=[*FILES, "tiny"], ids=lambda value: value if isinstance(value, str) else value.name)
def content(request: pytest.FixtureRequest, tiny: Tiny) -> bytes:
    """Graphs of frozen bundles and of a new one."""
    path: Path = tiny.path / "recommend.onnx" if request.param == "tiny" else request.param
    return path.read_bytes()


def test_a_graph_is_read_as_onnx_reads_it(content: bytes) -> None:
    ours, theirs = read_model(content), onnx.load_from_string(content)
    assert ours.graph is not None
    assert ours.ir_version == theirs.ir_version
    assert [(o.domain, o.version) for o in ours.opset_import] == [(o.domain, o.version) for o in theirs.opset_import]
    for one, other in zip(ours.graph.node, theirs.graph.node, strict=True):
        assert (one.op_type, one.domain, one.name) == (other.op_type, other.domain, other.name)
        assert (one.input, one.output) == (tuple(other.input), tuple(other.output))
        for setting, attribute in zip(one.attribute, other.attribute, strict=True):
            assert (setting.name, setting.type, setting.i) == (attribute.name, attribute.type, attribute.i)
            assert (setting.f, setting.ints, setting.s) == (attribute.f, tuple(attribute.ints), attribute.s)
            assert (setting.t is None) == (not attribute.HasField("t"))
    for tensor, proto in zip(ours.graph.initializer, theirs.graph.initializer, strict=True):
        assert (tensor.name, tensor.dims, tensor.data_type) == (proto.name, tuple(proto.dims), proto.data_type)
        assert {e.key: e.value for e in tensor.external_data} == {e.key: e.value for e in proto.external_data}
        if not tensor.data_location:
            np.testing.assert_array_equal(tensor.values(), numpy_helper.to_array(proto).ravel())
    for values, protos in ((ours.graph.input, theirs.graph.input), (ours.graph.output, theirs.graph.output)):
        assert [value.name for value in values] == [value.name for value in protos]


@pytest.mark.parametrize("dtype", [dtype for dtype, _ in DTYPES.values()])
@pytest.mark.parametrize("raw", [True, False])
def test_values_of_every_type_are_those_of_onnx(dtype: str, raw: bool) -> None:
    array = np.array([[0, 1, 1], [1, 0, 1]], dtype)
    number = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    proto = helper.make_tensor("x", number, array.shape, array.tobytes() if raw else array.ravel(), raw=raw)
    graph = helper.make_graph([], "g", [], [], [proto])
    model = read_model(helper.make_model(graph).SerializeToString())
    assert model.graph is not None
    (tensor,) = model.graph.initializer
    found = tensor.values()
    if dtype == "float16" and not raw:
        found = found.astype(np.uint16).view(np.float16)
    np.testing.assert_array_equal(found, array.ravel())


@pytest.mark.parametrize(
    "spoilt",
    [
        pytest.param({"dims": (3,)}, id="more values than are there"),
        pytest.param({"dims": (1,)}, id="fewer"),
        pytest.param({"dims": (2**62, 4)}, id="sizes beyond 64 bits"),
        pytest.param({"dims": (-2, -1)}, id="negative sizes"),
        pytest.param({"data_type": TensorProto.STRING}, id="strings"),
        pytest.param({"data_type": TensorProto.COMPLEX64}, id="complex"),
        pytest.param({"data_type": TensorProto.FLOAT}, id="floats in the field of ints"),
        pytest.param({"raw_data": b"\0" * 16}, id="values twice"),
        pytest.param({"data_location": 1}, id="elsewhere"),
        pytest.param({"data_location": 7}, id="nowhere"),
        pytest.param({"unread": (b"x",)}, id="strings beside"),
    ],
)
def test_a_tensor_whose_bytes_do_not_fit_is_refused(spoilt: dict[str, Any]) -> None:
    good = {"name": "x", "dims": (2,), "data_type": TensorProto.INT64, "int64_data": (5, 7)}
    assert Tensor(**good).values().tolist() == [5, 7]
    with pytest.raises(BundleCorrupt, match=r"has (the|a) tensor 'x'"):
        Tensor(**good | spoilt).values()


def test_a_file_that_is_cut_is_never_read_as_another(content: bytes) -> None:
    for end in range(1, len(content), max(1, len(content) // 300)):
        try:
            read = read_model(content[:end])
        except BundleCorrupt:
            continue
        assert read.graph is None or not read.opset_import, end  # cut between the outermost fields: no graph is whole


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        pytest.param(b"\x80", "a number does not end", id="a tag that does not end"),
        pytest.param(b"\x08" + b"\xff" * 10 + b"\x01", "a number does not end", id="11 bytes"),
        pytest.param(b"\x08" + b"\xff" * 9 + b"\x7f", "more than 64 bits", id="70 bits"),
        pytest.param(b"\x00\x00", "no field has the number 0", id="field 0"),
        pytest.param(b"\x0b\x0c", "field 1 has the wire type 3", id="a group"),
        pytest.param(b"\x0f", "field 1 has the wire type 7", id="no wire type"),
        pytest.param(b"\x3a\x7fabc", "field 7 has 127 bytes, of which 3 are there", id="too short"),
        pytest.param(b"\x3a" + b"\xff" * 8 + b"\x7f", "field 7 has 9223372036854775807 bytes", id="a huge length"),
        pytest.param(b"\x45\0\0", "field 8 has 4 bytes, of which 2 are there", id="half a float"),
        pytest.param(varint(99 << 3) + b"\x00", "field 99 is unknown here", id="an unknown field"),
        pytest.param(b"\x08\x0a\x08\x0b", "field 1 stands twice", id="a version twice"),
        pytest.param(lengthened(7, b"") * 2, "field 7 stands twice", id="two graphs, which protobuf merges"),
        pytest.param(lengthened(1, b"x"), "a whole number has the wire type 2", id="a number that is bytes"),
        pytest.param(b"\x38\x01", "bytes have the wire type 0", id="a graph that is a number"),
        pytest.param(lengthened(7, lengthened(2, b"\xff")), "a name is no UTF-8", id="a name that is no text"),
        pytest.param(
            lengthened(7, lengthened(5, b"\x10" + varint(2**32 + 1))), "4294967297 has more than 32", id="a type cut"
        ),
        pytest.param(
            lengthened(7, lengthened(5, lengthened(4, b"abc"))), "floats have the wire type 2", id="3/4 float"
        ),
        pytest.param(lengthened(7, lengthened(5, lengthened(1, b"\x80"))), "does not end", id="a packed number"),
    ],
)
def test_what_readers_understand_differently_is_refused(blob: bytes, message: str) -> None:
    with pytest.raises(BundleCorrupt, match=message):
        read_model(blob)


def test_random_bytes_are_refused_or_read_and_nothing_else() -> None:
    random = np.random.default_rng(0)
    read = refused = 0
    for size in random.integers(1, 40, 3000):
        try:
            read_model(random.bytes(size))
            read += 1
        except BundleCorrupt:
            refused += 1
    assert refused > read


def test_numbers_may_stand_alone_or_packed() -> None:
    packed = lengthened(1, b"\x02" + varint(2**64 - 1))  # 2, -1
    alone = b"\x08\x02\x08" + varint(2**64 - 1)
    tensors = [read_model(lengthened(7, lengthened(5, one))).graph.initializer[0] for one in (packed, alone)]  # type: ignore[union-attr]
    assert [tensor.dims for tensor in tensors] == [(2, -1)] * 2


def test_subgraphs_stay_bytes_however_deep_they_nest() -> None:
    graph = b""
    for _ in range(2000):  # more than Python's stack would take
        graph = lengthened(1, lengthened(5, lengthened(6, graph)))
    read = read_model(lengthened(7, graph)).graph
    assert read is not None
    assert len(read.node[0].attribute[0].unread[0]) > 2000

"""Graphs that no exporter writes, in bundles whose hashes agree: refused before onnxruntime sees them."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bundle_nodes import HUGE, constant, doubled, node
from format_page import FROZEN
from genrec_runtime import BundleCorrupt, BundleVersionError, Module, Recommender, Unsupported, verify
from genrec_runtime.bundle import Bundle
from genrec_runtime.graphcheck import MAX_GRAPH_BYTES, check_graph
from genrec_runtime.manifest import Manifest, Variant

Spoil = Callable[[onnx.ModelProto], Any]
LOOP = helper.make_graph(
    [helper.make_node("Identity", ["go"], ["still"]), helper.make_node("Identity", ["x"], ["y"])],
    "body",
    [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
    ],
    [
        helper.make_tensor_value_info("still", TensorProto.BOOL, []),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ],
)


# --- 69, 70: operators


@pytest.mark.parametrize(
    ("operator", "domain", "named"),
    [
        pytest.param("Magic", "my.own", "my.own::Magic", id="fault_69 a domain of somebody's own"),
        pytest.param("Gelu", "com.microsoft", "com.microsoft::Gelu", id="fault_69 one of onnxruntime's"),
        pytest.param("MatMulIntegerToFloat", "com.microsoft", "MatMulIntegerToFloat", id="fault_69 outside int8"),
        pytest.param("Add", "ai.onnx", "ai.onnx::Add", id="fault_69 ONNX by its other name"),
        pytest.param("RandomNormalLike", "", "onnx::RandomNormalLike", id="fault_69 randomness"),
        pytest.param("Dropout", "", "onnx::Dropout", id="fault_69 training"),
        pytest.param("StringConcat", "", "onnx::StringConcat", id="fault_69 strings"),
        pytest.param("", "", "onnx::,", id="fault_69 no name"),
    ],
)
def test_an_operator_that_is_not_served_is_named(
    write_module: Callable[..., Path], tmp_path: Path, operator: str, domain: str, named: str
) -> None:
    nodes = doubled(node(operator, "features", domain=domain))
    folder = write_module(tmp_path / "b", nodes, domains=[domain] if domain else [])
    with pytest.raises(Unsupported, match=f"graph 'module' uses the operator .*{named}.* not served"):
        Module.load(folder, device="cpu")


def test_fault_69_a_domain_that_no_node_uses_is_refused_too(write_module: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"uses the domain my\.own, which is not served"):
        Module.load(write_module(tmp_path / "b", domains=["my.own"]), device="cpu")


def test_fault_70_a_loop_that_never_ends_is_never_begun(write_module: Callable[..., Path], tmp_path: Path) -> None:
    nodes = doubled(
        constant("times", 2**62, scalar=True),
        helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True), "yes")),
        node("Loop", "times", "yes", "features", body=LOOP),
    )
    folder = write_module(tmp_path / "b", nodes)
    for begin in (lambda: Module.load(folder, device="cpu", threads=1), lambda: verify(folder)):
        with pytest.raises(Unsupported, match="graph 'module' uses the operator onnx::Loop, which is not served"):
            begin()


# --- what else a model may hold; `features` with one thing changed


def add_function(model: onnx.ModelProto) -> None:
    body = [helper.make_node("Identity", ["x"], ["y"])]
    opsets = [helper.make_opsetid("", 20)]
    model.functions.append(helper.make_function("own", "Add", ["x"], ["y"], body, opsets))


def add_sparse(model: onnx.ModelProto) -> None:
    values = helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [HUGE]))


def add_node(model: onnx.ModelProto, operator: str, inputs: Sequence[str], **settings: Any) -> None:
    model.graph.node.append(helper.make_node(operator, inputs, ["more"], **settings))


def set_metadata(part: Any) -> None:
    part.metadata_props.add(key="session.intra_op_num_threads", value="999")


@pytest.fixture(scope="session")
def plain(features: Path) -> tuple[Manifest, bytes]:
    """The manifest and the graph of the bundle ``features``."""
    bundle = Bundle.open(features)
    return bundle.manifest, bundle.bytes("module.onnx")


def check(plain: tuple[Manifest, bytes], spoil: Spoil) -> None:
    """Checks the graph with something changed."""
    manifest, content = plain
    check_graph(manifest, "module", "module.onnx", content)
    model = onnx.load_from_string(content)
    spoil(model)
    check_graph(manifest, "module", "module.onnx", model.SerializeToString())


@pytest.mark.parametrize(
    ("spoil", "message", "code"),
    [
        pytest.param(
            lambda m: add_node(m, "Add", ["features"] * 2, body=LOOP), "has a subgraph", "unsafe", id="fault_70 in Add"
        ),
        pytest.param(
            lambda m: add_node(m, "Add", ["features"] * 2, bodies=[LOOP]), "has a subgraph", "unsafe", id="fault_70 two"
        ),
        pytest.param(add_function, "has functions", "unsafe", id="fault_70 a function"),
        pytest.param(add_sparse, "sparse tensors", "unsafe", id="fault_71 a sparse tensor"),
        pytest.param(set_metadata, "has functions, metadata", "unsafe", id="fault_70 settings of onnxruntime"),
        pytest.param(lambda m: set_metadata(m.graph), "metadata", "unsafe", id="metadata of the graph"),
        pytest.param(lambda m: set_metadata(m.graph.node[0]), "has metadata", "unsafe", id="metadata of a node"),
        pytest.param(lambda m: set_metadata(m.graph.input[0]), "has metadata", "unsafe", id="metadata of an input"),
        pytest.param(lambda m: m.ClearField("graph"), "or no nodes", "unsafe", id="fault_52 no graph"),
        pytest.param(
            lambda m: m.graph.node[0].attribute.extend([helper.make_attribute("to", 1)] * 2),
            "a setting twice",
            "unsafe",
            id="a setting twice",
        ),
        pytest.param(
            lambda m: m.graph.input.pop(), "has the inputs item_ids, mask, the manifest says", "corrupt", id="fault_73"
        ),
        pytest.param(
            lambda m: setattr(m.graph.output[0], "name", "features"),
            "has the outputs features, doubled, the manifest says kept",
            "corrupt",
            id="fault_73 another output",
        ),
        pytest.param(lambda m: m.graph.node.pop(), "makes not all of its outputs", "corrupt", id="fault_73 none made"),
        pytest.param(
            lambda m: m.graph.node.append(m.graph.node[0]), "makes the value 'kept' twice", "corrupt", id="made twice"
        ),
        pytest.param(
            lambda m: m.graph.initializer.append(numpy_helper.from_array(np.ones(3), "features")),
            "makes the value 'features' twice",
            "corrupt",
            id="fault_73 an input with a default",
        ),
        pytest.param(
            lambda m: m.graph.node[0].input.__setitem__(0, "doubled"),
            "reads a value which is not there yet",
            "corrupt",
            id="nodes out of order",
        ),
        pytest.param(
            lambda m: setattr(m.opset_import[0], "version", 21),
            "has the opsets {'': 21}, the manifest says 20",
            "corrupt",
            id="fault_72 another opset than stated",
        ),
        pytest.param(
            lambda m: m.opset_import.append(m.opset_import[0]), "has the opsets", "corrupt", id="fault_72 two opsets"
        ),
        pytest.param(
            lambda m: setattr(m, "ir_version", 11),
            "has IR version 11, the manifest says at most 10",
            "corrupt",
            id="fault_72 another IR version than stated",
        ),
    ],
)
def test_a_model_that_holds_more_or_other_than_a_graph_is_refused(
    plain: tuple[Manifest, bytes], spoil: Spoil, message: str, code: str
) -> None:
    with pytest.raises(BundleCorrupt, match=f"^graph 'module' .*{message}") as caught:
        check(plain, spoil)
    assert caught.value.code == f"bundle_{code}"


def test_fault_72_an_opset_older_than_any_bundle_is_refused(write_module: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(BundleVersionError, match="has opset 12, bundles have 20 or newer; export it again"):
        Module.load(write_module(tmp_path / "b", opset=12), device="cpu")


def test_fault_71_a_graph_of_gigabytes_is_not_read(plain: tuple[Manifest, bytes]) -> None:
    with pytest.raises(BundleCorrupt, match=f"has 16777217 bytes, more than {MAX_GRAPH_BYTES}") as caught:
        check_graph(plain[0], "module", "module.onnx", bytes(MAX_GRAPH_BYTES + 1))
    assert caught.value.code == "bundle_unsafe"


# --- tensors


@pytest.fixture(scope="session")
def frozen() -> Bundle:
    """A recommender with external weights and two variants."""
    return Bundle.open(FROZEN / "recommender")


def refuse(bundle: Bundle, spoil: Spoil, message: str, file: str = "recommend.onnx", **manifest: Any) -> None:
    """The graph "recommend" with something changed is refused."""
    check_graph(bundle.manifest, "recommend", file, bundle.bytes(file))
    model = onnx.load_from_string(bundle.bytes(file))
    spoil(model)
    changed = dataclasses.replace(bundle.manifest, **manifest)
    with pytest.raises(BundleCorrupt, match=f"^graph 'recommend' {message}"):
        check_graph(changed, "recommend", file, model.SerializeToString())


def large(model: onnx.ModelProto) -> onnx.TensorProto:
    """The first tensor that lies in the weights file."""
    return next(tensor for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL)


def small(model: onnx.ModelProto) -> onnx.TensorProto:
    """The first tensor that lies in the graph."""
    return next(tensor for tensor in model.graph.initializer if tensor.data_location != TensorProto.EXTERNAL)


def add_copy(model: onnx.ModelProto, tensor: onnx.TensorProto) -> onnx.TensorProto:
    """One more tensor, of no use."""
    model.graph.initializer.append(tensor)
    return model.graph.initializer[-1]


def place(key: str, value: str) -> Spoil:
    """Says otherwise where the first large tensor lies."""

    def spoil(model: onnx.ModelProto) -> None:
        next(entry for entry in large(model).external_data if entry.key == key).value = value

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(place("location", "../weights.bin"), id="fault_66 a path that leaves the folder"),
        pytest.param(place("location", "/etc/passwd"), id="fault_66 an absolute path"),
        pytest.param(place("location", "items.utf8"), id="fault_66 a file that holds no weights"),
        pytest.param(place("location", ""), id="fault_66 no file"),
        pytest.param(place("location", "*/_ORT_MEM_ADDR_/*"), id="fault_66 an address in memory"),
        pytest.param(place("offset", "64"), id="fault_74 another tensor's bytes"),
        pytest.param(place("offset", "-64"), id="a negative offset"),
        pytest.param(place("offset", "0x0"), id="an offset that is no decimal number"),
        pytest.param(place("length", "64"), id="fault_56 a part of its bytes"),
        pytest.param(lambda m: large(m).external_data.pop(), id="no length"),
        pytest.param(lambda m: large(m).external_data.add(key="checksum", value="0"), id="another key"),
        pytest.param(lambda m: large(m).external_data.add(key="location", value="weights.bin"), id="a key twice"),
        pytest.param(lambda m: large(m).dims.__setitem__(0, 120), id="fault_74 fewer rows"),
        pytest.param(lambda m: setattr(large(m), "data_type", TensorProto.INT32), id="another type"),
        pytest.param(lambda m: setattr(large(m), "raw_data", b"0000"), id="bytes in the graph too"),
    ],
)
def test_a_weight_lies_where_the_manifest_says_and_nowhere_else(frozen: Bundle, spoil: Spoil) -> None:
    refuse(frozen, spoil, "has the tensor .* at .*, the manifest says float32")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(
            lambda m: setattr(add_copy(m, large(m)), "name", "stray"),
            "has the tensor 'stray' elsewhere",
            id="fault_66 not listed",
        ),
        pytest.param(
            lambda m: large(m).ClearField("data_location"), "has the tensor .* elsewhere", id="a weight in the graph"
        ),
        pytest.param(
            lambda m: small(m).dims.extend([HUGE]), "has a tensor .* without the .* values", id="fault_71 a huge tensor"
        ),
        pytest.param(
            lambda m: (small(m).ClearField("raw_data"), small(m).string_data.append(b"x")),
            "has the tensor .* without values",
            id="strings",
        ),
        pytest.param(
            lambda m: add_node(m, "Constant", [], value=onnx.TensorProto(data_type=1, dims=[3], raw_data=b"0000")),
            "has a tensor '' without the float32 values",
            id="fault_71 a Constant of too few bytes",
        ),
    ],
)
def test_a_tensor_has_its_bytes_where_it_should(frozen: Bundle, spoil: Spoil, message: str) -> None:
    refuse(frozen, spoil, message)


def test_fault_66_a_graph_reads_no_weights_that_its_variant_does_not_open(frozen: Bundle) -> None:
    """onnxruntime would look for a file that was not opened where the process happens to work."""
    variants = {"fp16": Variant(("weights.bin",), frozen.manifest.tolerance, 3, 0.5)}
    refuse(frozen, lambda m: None, "has the tensor .* elsewhere than the manifest says", variants=variants)


def test_onnxruntimes_own_operators_are_for_int8_alone(frozen: Bundle) -> None:
    def use(model: onnx.ModelProto) -> None:
        if all(entry.domain != "com.microsoft" for entry in model.opset_import):
            model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
        add_node(model, "MatMulIntegerToFloat", ["item_ids"] * 4, domain="com.microsoft")

    for file, served in (("recommend.int8.onnx", True), ("recommend.fp16.onnx", False), ("recommend.onnx", False)):
        model = onnx.load_from_string(frozen.bytes(file))
        use(model)
        if served:
            check_graph(frozen.manifest, "recommend", file, model.SerializeToString())
        else:
            with pytest.raises(Unsupported, match=r"uses the operator com\.microsoft::MatMulIntegerToFloat"):
                check_graph(frozen.manifest, "recommend", file, model.SerializeToString())


def test_fault_73_a_graph_of_another_name_is_refused(copied: Path, reseal: Callable[..., None]) -> None:
    reseal(copied, lambda data: data["graphs"]["score"].update(fp32="encode.onnx"))
    recommender = Recommender.load(copied, device="cpu", threads=1)
    with pytest.raises(BundleCorrupt, match="graph 'score' has the inputs item_ids, the manifest says"):
        recommender.score([["item 01"]], [["item 02"]])

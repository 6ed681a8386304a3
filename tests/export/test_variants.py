"""Cheaper forms of the graphs: what they answer, what they cost, and that one which answers otherwise is not published."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, shape_inference
from torch import Tensor, nn

from genrec.histories import Catalogue, ItemIds, Ragged
from genrec_export import Exported, ExportError, export_recommender
from genrec_export.assemble import TOLERANCE
from genrec_export.graphs import BLOCK, mask, top_k
from genrec_export.half import add_half, rounding
from genrec_export.histories import Requests
from genrec_export.quantised import QuantisedSearch
from genrec_export.report import Report
from genrec_export.tracing import Graph
from genrec_export.variants import check_variants, overlaps
from genrec_models import SASRec, TorchRecommender
from genrec_runtime import BundleCorrupt, Recommender, Unsupported, verify
from genrec_runtime.bundle import Bundle
from genrec_runtime.engine import Engine
from genrec_runtime.manifest import TensorSpec
from genrec_runtime.options import Options
from recent import Recent, export_recent, newest_left, reference_of

ITEMS = 22_000  # so many that both searches go by blocks, and the last block is not full
K = 10


class Sure(nn.Module):
    """A SASRec of whose items forty stand out, so that the ten best are well apart, as those of a trained one are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = SASRec(ITEMS, embedding_dim=16, num_heads=2, num_layers=2, max_seq_length=8).eval()
        with torch.no_grad():
            self.net.item_vectors().copy_(
                torch.randn(ITEMS + 1, 16) * torch.where(torch.arange(ITEMS + 1) % 75 == 7, 3.0, 0.1).unsqueeze(1)
            )

    def forward(self, items: Tensor) -> Tensor:
        return self.net.user_state(items)


@pytest.fixture(scope="module")
def histories() -> list[list[int]]:
    random = np.random.default_rng(2)
    return [random.integers(1, ITEMS + 1, 1 + row % 15).tolist() for row in range(64)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, histories: list[list[int]]) -> Exported:
    """A bundle with both variants, proved on a grid of one batch."""
    model, ids = Sure(), list(range(1, ITEMS + 1))
    catalogue = Catalogue(ItemIds(ids), np.arange(1, ITEMS + 1))
    path = TorchRecommender(model.net, catalogue)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("genrec_export.cases.BATCHES", (3,))
        return export_recommender(
            encode=model.net.user_state,
            item_vectors=model.net.item_vectors(),
            item_ids=ids,
            max_seq_length=8,
            reference=lambda rows: path.recommend(rows, K),
            histories=histories,
            out=tmp_path_factory.mktemp("variants") / "store",
            k_max=K,
            variants=("fp16", "int8"),
        )


def test_variants_give_the_items_of_fp32(exported: Exported, histories: list[list[int]]) -> None:
    answers = {
        name: Recommender.load(exported.path, device="cpu", variant=name).recommend(histories, k=10)
        for name in ("fp32", "fp16", "int8")
    }
    for name, needed in (("fp16", 0.999), ("int8", 0.995)):
        pairs = zip(answers["fp32"].items, answers[name].items, strict=True)
        shared = np.mean([len(set(a) & set(b)) / 10 for a, b in pairs])
        assert shared >= needed, name
    for row, items in enumerate(answers["int8"].items):  # an item's score is exact: rough ones only choose
        exact = dict(zip(answers["fp32"].items[row], answers["fp32"].scores[row].tolist(), strict=True))
        for item, score in zip(items, answers["int8"].scores[row].tolist(), strict=True):
            assert item not in exact or score == pytest.approx(exact[item], rel=1e-5)
    error = max(np.abs(a - b).max() for a, b in zip(answers["fp32"].scores, answers["fp16"].scores, strict=True))
    assert 1e-5 < error < 0.05  # of scores near 5: really computed in half precision, and no worse than that


def test_the_manifest_and_the_card_say_what_variants_need_and_reach(exported: Exported) -> None:
    manifest = exported.manifest
    assert manifest.graphs == {
        "recommend": {"fp32": "recommend.onnx", "fp16": "recommend.fp16.onnx", "int8": "recommend.int8.onnx"},
        "score": {"fp32": "score.onnx", "fp16": "score.fp16.onnx"},
        "encode": {"fp32": "encode.onnx", "fp16": "encode.fp16.onnx"},
        "item_vectors": {"fp32": "item_vectors.onnx"},
        "similar": {"fp32": "similar.onnx"},
    }
    assert {name: (variant.gate, variant.k) for name, variant in manifest.variants.items()} == {
        "fp16": (0.999, 10),
        "int8": (0.995, 10),
    }
    assert set(manifest.variants["int8"].files) == {"recommend.int8.onnx", "weights.int8.bin"}
    for name in ("fp16", "int8"):
        seen = manifest.measured[name]
        assert manifest.variants[name].gate <= seen["overlap"] <= 1
        assert seen["bytes"] == sum(manifest.files[file].size for file in manifest.variants[name].files)
        assert set(seen["speed"]) == {"1", "32"}
    card = (exported.path / "README.md").read_text()
    assert "| int8 | 1.00000 of 10, needed 0.995" in card
    levels = {(cell.level, cell.what) for cell in exported.report.cells}
    assert {("graph", "encode.fp16"), ("graph", "recommend.int8"), ("variant", "recommend.fp16")} <= levels


def test_variants_share_the_float_table(exported: Exported) -> None:
    sizes = {name: entry.size for name, entry in exported.manifest.files.items()}
    rows = -(-(ITEMS + 1) // BLOCK) * BLOCK  # whole blocks
    table = rows * 16 * 4
    assert sizes["weights.fp16.bin"] < table / 10  # the encoder only
    assert table / 4 < sizes["weights.int8.bin"] < table / 4 * 1.3  # a byte a number, and a scale an item
    shapes = [weight.shape for found in exported.manifest.weights.values() for weight in found]
    assert (shapes.count((rows, 16)), shapes.count((ITEMS + 1, 16)), shapes.count((16, rows))) == (1, 0, 1)


def test_who_serves_one_variant_needs_no_file_of_another(exported: Exported, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported.path, tmp_path / "bundle"))
    assert set(verify(folder).differences) == {
        *exported.manifest.graphs,
        *("recommend.fp16", "score.fp16", "encode.fp16", "recommend.int8"),
    }
    (folder / "weights.int8.bin").unlink()
    assert "weights.int8.bin" not in Bundle.open(folder, variant="fp16").files
    for name in ("fp32", "fp16"):
        assert Recommender.load(folder, device="cpu", variant=name).recommend([[1, 2]]).status == ["model"]
    for load in (lambda: Recommender.load(folder, device="cpu", variant="int8"), lambda: verify(folder)):
        with pytest.raises(BundleCorrupt, match=r"weights\.int8\.bin is missing"):
            load()
    with pytest.raises(Unsupported, match="no variant 'int4'; it has fp32, fp16, int8"):
        Recommender.load(folder, device="cpu", variant="int4")


def test_a_variant_that_gives_other_items_is_not_published(tmp_path: Path) -> None:
    class Fine(Recent):
        def forward(self, items: Tensor) -> Tensor:
            return super().forward(items) + 30 - 30  # near 30 half precision has steps of 1/64

    net = Fine().eval()
    with pytest.raises(
        ExportError, match=r"variant level: recommend\.fp16, overlap@10 0\.\d+ of .* needed 0\.999"
    ) as caught:
        export_recent(tmp_path / "store", net=net, reference=reference_of(net, newest_left), variants=("fp16",))
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "a precision that this model does not bear" in lines[2]
    assert [path.name for path in tmp_path.iterdir()] == ["store.failed"]
    failing = np.load(tmp_path / "store.failed" / "failing_input.npz")
    assert failing["item_ids"].shape == (1, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variants": ("int4",)}, r"variants \(\('int4',\)\) must be some of 'fp16', 'int8', each once"),
        ({"variants": ("fp16", "fp16")}, "each once"),
        ({"variants": "fp16"}, r"variants \('fp16'\) must be some of"),
        ({"opset": 19}, r"opset \(19\) must be one of 20, 23"),
        (
            {"variants": ("int8",), "item_vectors": None, "score": nn.Linear(12, 31)},
            "a model that has score instead has none",
        ),
    ],
)
def test_what_cannot_be_made_is_said_at_once(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        export_recent(tmp_path / "store", **options)
    assert not any(tmp_path.iterdir())


def test_what_was_measured_is_no_part_of_the_version(exported: Exported) -> None:
    other = replace(exported.manifest, measured={}, parity={}, created="2001-01-01").identified()
    assert other.version == exported.version
    assert other.bundle_id != exported.manifest.bundle_id  # but no bit of it may change unseen
    assert replace(exported.manifest, opset=23).identified().version != exported.version


def search(table: Tensor, k: int) -> tuple[QuantisedSearch, Callable[..., tuple[Tensor, Tensor]]]:
    """A quantised search and the exact one."""
    return QuantisedSearch(table, k), lambda states, exclude, available: top_k(
        mask(states @ table.T, exclude, available), k
    )


@pytest.mark.parametrize(("rows", "k"), [(5001, 20), (18_001, 2)], ids=["plain", "blocks"])
def test_the_quantised_search_is_exact_where_items_lie_apart(rows: int, k: int) -> None:
    torch.manual_seed(0)
    table = torch.randn(rows, 24) * torch.linspace(0.1, 1, rows).unsqueeze(1)  # the factors differ from block to block
    table[17] = 0
    rough, exact = search(table, k)
    assert rough.blocked == (rows == 18_001)
    states = torch.randn(7, 24)
    states[3] = 0
    inputs = states, torch.randint(0, rows, (7, 4)), torch.rand(rows) > 0.1
    found, expected = rough(*inputs), exact(*inputs)
    kept = [0, 1, 2, 4, 5, 6]  # in row 3 all scores tie, and torch breaks ties as it likes
    assert torch.equal(found[0][kept], expected[0][kept])
    torch.testing.assert_close(found[1], expected[1], atol=1e-5, rtol=1e-5)


def test_a_row_of_the_quantised_search_does_not_depend_on_its_neighbours() -> None:
    torch.manual_seed(1)
    rough, _ = search(torch.randn(400, 8), 5)
    states, exclude, available = (
        torch.randn(2, 8),
        torch.zeros(2, 1, dtype=torch.int64),
        torch.ones(400, dtype=torch.bool),
    )
    alone = rough(states[:1], exclude[:1], available)
    beside = rough(torch.cat([states[:1], 1e4 * states[1:]]), exclude, available)
    assert torch.equal(alone[0][0], beside[0][0])


def test_fewer_items_than_wanted_are_marked_as_none() -> None:
    torch.manual_seed(2)
    rough, exact = search(torch.randn(9, 4), 6)
    assert rough.candidates == 8  # all there are
    available = torch.tensor([True, True, False, True, False, False, True, True, False])
    inputs = torch.randn(3, 4), torch.tensor([[1, 3], [0, 0], [7, 0]]), available
    found, expected = rough(*inputs), exact(*inputs)
    assert (found[1] > -torch.inf).sum(dim=1).tolist() == [2, 4, 3]
    torch.testing.assert_close(found[1], expected[1], atol=1e-6, rtol=1e-6)


def half_of(nodes: list[Any], weights: dict[str, Any]) -> dict[str, Any]:
    """The nodes of an encoder given, and of its fp16 copy, run by onnxruntime on one history: states by name."""
    inputs = [helper.make_tensor_value_info("item_ids", TensorProto.INT64, ["batch", "length"])]
    outputs = [helper.make_tensor_value_info("encode/states", TensorProto.FLOAT, ["batch", 3])]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, tensors),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    model = shape_inference.infer_shapes(model)
    states = TensorSpec("states", "float32", ("batch", 3))
    add_half(model, {"encode": Graph(lambda item_ids: item_ids, (), (states,), {})})
    model = rounding(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    assert names == ["encode/states", "encode.fp16/states"]
    return dict(zip(names, session.run(names, {"item_ids": np.array([[1, 0], [0, 0]])}), strict=True))


def test_masks_of_the_lowest_float_stay_finite_in_half_precision() -> None:
    lowest = np.finfo(np.float32).min
    nodes = [
        helper.make_node("Gather", ["table", "item_ids"], ["rows"]),
        helper.make_node("Equal", ["item_ids", "zero"], ["padding"]),
        helper.make_node("Unsqueeze", ["padding", "last"], ["wide"]),
        helper.make_node("Constant", [], ["low"], value_float=float(lowest)),
        helper.make_node("Where", ["wide", "low", "rows"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["weights"], axis=1),
        helper.make_node("Mul", ["weights", "rows"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "axis"], ["encode/states"], keepdims=0),
    ]
    table = np.array([[0.5, 0.25, 4], [1, 2, 3.3]], np.float32)
    states = half_of(nodes, {"table": table, "zero": np.int64(0), "last": np.array([2]), "axis": np.array([1])})
    # the first history sees only its item; the second sees nothing and takes the mean of its slots, both of row 0
    np.testing.assert_allclose(states["encode/states"], [table[1], table[0]], rtol=1e-6)
    np.testing.assert_allclose(
        states["encode.fp16/states"], [table[1], table[0]], rtol=2**-10
    )  # two roundings to 11 bits
    assert states["encode.fp16/states"].dtype == np.float32
    assert states["encode.fp16/states"][0, 2] == np.float16(3.3)  # really rounded


def test_rounding_is_that_of_half_precision() -> None:
    random = np.random.default_rng(0)
    values = np.float32(
        [0, 1, 3.3, -65504, 65519, 65520, 1e30, np.inf, -np.inf, np.nan, *random.standard_normal(500) * 50]
    )
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [len(values)])
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["half"], ["y"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes, "g", [value], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [len(values)])]
    )
    model = rounding(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(session.run(None, {"x": values})[0], expected)


def test_casts_and_constants_of_an_encoder_are_halved() -> None:
    ones = numpy_helper.from_array(np.array([1.5], np.float32))
    nodes = [
        helper.make_node("Cast", ["item_ids"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["numbers", "axis"], ["sums"], keepdims=1),
        helper.make_node("Constant", [], ["steps"], value_floats=[1.0, 2.0, 1e9]),
        helper.make_node("Mul", ["sums", "steps"], ["scaled"]),
        helper.make_node("Shape", ["scaled"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["more"], value=ones),
        helper.make_node("Add", ["scaled", "more"], ["encode/states"]),
    ]
    states = half_of(nodes, {"axis": np.array([1])})
    assert states["encode/states"].tolist() == [[2.5, 3.5, 1e9], [1.5, 1.5, 1.5]]
    assert states["encode.fp16/states"].tolist() == [
        [2.5, 3.5, 65504],
        [1.5, 1.5, 1.5],
    ]  # what is too large is the largest


def test_a_variant_that_misses_items_fails_its_gate(exported: Exported, histories: list[list[int]]) -> None:
    bundle = Bundle.open(exported.path)
    engine = Engine(bundle, Options("cpu", 1))
    numbered = Requests(Ragged.from_rows(histories))

    class Shifted(Engine):
        def run(self, graph: str, inputs: Any, deadline: float | None = None) -> Any:
            outputs = super().run(graph, inputs, deadline)
            outputs["items"][:, 9] = 0  # one of ten is another
            return outputs

    assert overlaps(engine, Shifted(bundle, Options("cpu", 1)), numbered, 10) == pytest.approx(np.full(64, 0.9))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("genrec_export.variants.Engine", Shifted)
        report = Report(TOLERANCE)
        check_variants(report, engine, numbered, lambda text: None)
    assert not report.passed
    assert [round(cell.excess) for cell in report.cells] == [
        100,
        20,
    ]  # a tenth lost; a thousandth, and a two hundredth, allowed
    assert report.failing["item_ids"].shape[0] == 1


@pytest.mark.gpu
def test_half_precision_answers_on_cuda_as_recorded(exported: Exported) -> None:
    recommender = Recommender.load(exported.path, device="cuda", variant="fp16")
    assert recommender.device_report.providers[0] == "CUDAExecutionProvider"
    recommender.selftest()

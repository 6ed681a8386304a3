"""The served graph: exact top-k with ties by index, exclusions, and dead rows; in torch, and in onnxruntime where it counts."""

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genrec_export.graphs import BLOCK, FEW, Serving, top_k
from genrec_export.surgery import anonymise, cut, move_weights
from genrec_export.tracing import Graph, trace
from genrec_runtime.manifest import TensorSpec

K = 3
SMALL, LARGE = FEW * K * BLOCK, FEW * K * BLOCK + 45  # plain, and cut into blocks, the last of them not full


class Best(nn.Module):
    def forward(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        return top_k(scores, K)


def session(width: int) -> Any:
    """``top_k`` over ``width`` scores in onnxruntime."""
    specs = (TensorSpec("scores", "float32", ("batch", width)),)
    outputs = (TensorSpec("items", "int64", ("batch", K)), TensorSpec("best", "float32", ("batch", K)))
    graph = Graph(Best(), specs, outputs, {})
    model = trace(Best(), {"g": graph}, {"scores": torch.rand(2, width)})
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("TopK") == (1 if width == SMALL else 3)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def tied_scores(width: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Integer scores with ties everywhere; rows of one value, of nothing, of few, and of one in the last place."""
    scores = random.integers(0, 4, (40, width)).astype(np.float32)
    scores[0] = 7
    scores[1] = -np.inf
    scores[2] = np.where(random.random(width) < 2 / width, scores[2], -np.inf)
    scores[3, -1] = 9
    scores[4, -K:] = 9
    scores[5:20][random.random((15, width)) < 0.7] = -np.inf
    return scores


@pytest.mark.parametrize("width", [SMALL, LARGE], ids=["plain", "blocks"])
def test_top_k_of_tied_scores_is_that_of_a_stable_sort(width: int) -> None:
    scores = tied_scores(width, np.random.default_rng(0))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :K]  # the higher score first, then the lower index
    items, best = session(width).run(None, {"scores": scores})
    np.testing.assert_array_equal(items, order)
    np.testing.assert_array_equal(best, np.take_along_axis(scores, order, axis=1))
    _, values = top_k(torch.from_numpy(scores), K)  # torch leaves open which of the tied it takes
    np.testing.assert_array_equal(values, best)


class Sum(nn.Module):
    """A user is the sum of what they chose: whole numbers, so that scores tie exactly."""

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.items = nn.Parameter(vectors)

    def forward(self, items: Tensor) -> Tensor:
        return nn.functional.embedding(items, self.items).sum(dim=1)


def whole_numbers(rows: int, width: int) -> Tensor:
    vectors = torch.randint(-1, 2, (rows, width), generator=torch.Generator().manual_seed(0)).float()
    vectors[0] = 0
    return vectors


def test_excluded_and_unavailable_items_and_padding_are_never_among_the_best() -> None:
    model = Sum(whole_numbers(10, 4))
    serving = Serving(model, model.items, None, None, None, k=9)
    available = torch.tensor([True] * 8 + [False] * 2)  # items 8 and 9 for nobody
    items, scores = serving.recommend(torch.tensor([[1, 2], [0, 3]]), torch.tensor([[1, 2], [5, 0]]), available)
    left = [set(row[values > float("-inf")].tolist()) for row, values in zip(items, scores, strict=True)]
    assert left == [{3, 4, 5, 6, 7}, {1, 2, 3, 4, 6, 7}]


SPECS = (
    TensorSpec("item_ids", "int64", ("batch", "length")),
    TensorSpec("exclude", "int64", ("batch", "excluded")),
    TensorSpec("available", "bool", (LARGE,)),
)
STATES = TensorSpec("states", "float32", ("batch", 4))


class BestAndStates(Serving):
    def forward(self, item_ids: Tensor, exclude: Tensor, available: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return (*self.recommend(item_ids, exclude, available), self.encode(item_ids))


@pytest.fixture(scope="module")
def by_blocks() -> tuple[Serving, onnx.ModelProto, onnx.ModelProto]:
    """A large catalogue of whole numbers, its traced graph "recommend", and all that was traced, its weights moved out."""
    model = Sum(whole_numbers(LARGE, 4))
    serving = BestAndStates(model, model.items, None, None, None, k=K)
    best = TensorSpec("items", "int64", ("batch", K)), TensorSpec("scores", "float32", ("batch", K))
    graphs = {
        "recommend": Graph(serving.recommend, SPECS, best, {}),
        "encode": Graph(serving.encode, SPECS[:1], (STATES,), {}),
    }
    example = torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 4, dtype=torch.int64), torch.ones(LARGE) > 0
    whole = trace(serving, graphs, dict(zip((spec.name for spec in SPECS), example, strict=True)))
    anonymise(whole)
    recommend = cut(whole, "recommend", graphs["recommend"])
    move_weights(whole)
    return serving, recommend, whole


@pytest.mark.parametrize("excluded", [0, 5])
def test_a_catalogue_in_blocks_is_searched_as_by_a_stable_sort(by_blocks: Any, excluded: int) -> None:
    serving, recommend, _ = by_blocks
    random = np.random.default_rng(0)
    ids, exclude = random.integers(1, LARGE, (9, 3)), random.integers(0, LARGE, (9, excluded))
    ids[2] = 0  # a state of zeros, so that all items tie
    available = random.random(LARGE) < 0.9
    vectors = serving.encoder.items.detach().numpy()
    scores = np.where(ids[:, :, None] > 0, vectors[ids], 0).sum(axis=1) @ vectors.T
    scores[:, ~available] = -np.inf
    scores[:, 0] = -np.inf
    np.put_along_axis(scores, exclude, -np.inf, axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :K]
    running = onnxruntime.InferenceSession(recommend.SerializeToString(), providers=["CPUExecutionProvider"])
    items, best = running.run(None, {"item_ids": ids, "exclude": exclude, "available": available})
    np.testing.assert_array_equal(items, order)
    np.testing.assert_array_equal(best, np.take_along_axis(scores, order, axis=1))  # sums of whole numbers: exact


def test_a_graph_by_blocks_copies_no_scores(by_blocks: Any) -> None:
    """Padding would, a choice would, and so would adding and scattering to a tensor of unknown shape."""
    _, recommend, _ = by_blocks
    assert [value.name for value in recommend.graph.value_info] == ["encode/states"]  # few encoders let it be inferred
    typed = onnx.shape_inference.infer_shapes(recommend, data_prop=True).graph
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in typed.value_info
    }
    columns = -(-LARGE // BLOCK) * BLOCK
    makers = [node.op_type for node in recommend.graph.node if shapes.get(node.output[0], [])[1:] == [columns]]
    assert makers == ["Gemm", "Add", "ScatterElements"]
    assert all(shape[0] == "batch" for shape in shapes.values() if shape[1:] == [columns])


def test_one_table_serves_looking_up_and_scoring(by_blocks: Any) -> None:
    _, _, whole = by_blocks
    tables = [tensor for tensor in whole.graph.initializer if tensor.dims[1:] == [4]]
    assert [tensor.dims[0] for tensor in tables] == [-(-LARGE // BLOCK) * BLOCK]
    assert {node.op_type for node in whole.graph.node if tables[0].name in node.input} == {"Gather", "Gemm"}


class Attending(nn.Module):
    """Attention with a mask of each kind; queries, keys and values are the input."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        slot = torch.arange(x.shape[2])
        mask = (slot.unsqueeze(1) >= slot).expand(x.shape[0], 1, -1, -1)
        options: dict[str, Any] = {
            "none": {},
            "bool": {"attn_mask": mask},
            "scaled": {"attn_mask": mask, "scale": 0.3},
            "float": {"attn_mask": mask.float()},
            "causal": {"is_causal": True},
        }[self.kind]
        attended: Tensor = nn.functional.scaled_dot_product_attention(x, x + 1, x * 2, **options)
        return attended


@pytest.mark.parametrize("kind", ["none", "bool", "scaled", "float", "causal"])
def test_attention_is_that_of_torch_whatever_its_mask(kind: str) -> None:
    spec = TensorSpec("x", "float32", ("batch", 3, "length", 6))
    module = Attending(kind).eval()
    model = trace(
        module, {"g": Graph(module.forward, (spec,), (replace(spec, name="y"),), {})}, {"x": torch.rand(2, 3, 5, 6)}
    )
    running = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = torch.randn(4, 3, 7, 6, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(running.run(None, {"x": x.numpy()})[0], module(x), atol=1e-5)  # float32 matmul order
    if kind in ("bool", "scaled"):
        assert "IsNaN" not in [node.op_type for node in model.graph.node]


def test_silu_keeps_its_digits_where_it_is_next_to_nothing() -> None:
    spec, module = TensorSpec("x", "float32", ("batch", 5)), nn.SiLU()
    graph = Graph(module.forward, (spec,), (replace(spec, name="y"),), {})
    model = trace(module, {"g": graph}, {"x": torch.rand(2, 5)})
    running = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = torch.tensor([[-200.0, -16.0, -3.0, 0.0, 40.0]])
    np.testing.assert_allclose(running.run(None, {"x": x.numpy()})[0], module(x), rtol=1e-6)  # some roundings


def test_a_row_of_padding_has_the_state_zero_whatever_the_model_makes_of_it() -> None:
    class Fragile(nn.Module):
        def forward(self, items: Tensor) -> Tensor:
            return (items.float() / (items > 0).sum(dim=1, keepdim=True))[:, :2]  # 0 / 0 for a row of padding

    serving = Serving(Fragile(), torch.ones(5, 2), None, None, None, k=4)
    states = serving.encode(torch.tensor([[0, 0, 0], [0, 2, 4]]))
    assert states.tolist() == [[0.0, 0.0], [0.0, 1.0]]

"""The served graph: exact top-k with ties by index, exclusions, and dead rows; in torch, and in onnxruntime where it counts."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genrec_export.graphs import BLOCK, Serving, top_k
from genrec_export.tracing import Graph, trace
from genrec_runtime.manifest import TensorSpec

K = 3
SMALL, LARGE = 2 * K * BLOCK, 2 * K * BLOCK + 45  # plain, and cut into blocks, the last of them not full


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


def test_a_row_of_padding_has_the_state_zero_whatever_the_model_makes_of_it() -> None:
    class Fragile(nn.Module):
        def forward(self, items: Tensor) -> Tensor:
            return (items.float() / (items > 0).sum(dim=1, keepdim=True))[:, :2]  # 0 / 0 for a row of padding

    serving = Serving(Fragile(), torch.ones(5, 2), None, None, None, k=4)
    states = serving.encode(torch.tensor([[0, 0, 0], [0, 2, 4]]))
    assert states.tolist() == [[0.0, 0.0], [0.0, 1.0]]

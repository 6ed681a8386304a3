"""The int8 variant: rough scores from a table of small integers choose candidates, and exact scores rank those."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import torch
from onnx import compose
from torch import Tensor, nn
from torch.nn import functional as F

from genrec_export.graphs import Serving, mask, top_k
from genrec_export.tracing import Graph, trace
from genrec_runtime.manifest import TensorSpec

TABLE_LEVELS = 63  # of 127: two products of 8 bits then fit the 16-bit sums of CPUs without VNNI, which saturate
STATE_LEVELS = 127
ZERO = 128  # of the states, which are unsigned: the fast kernels multiply uint8 by int8


class QuantisedSearch(nn.Module):
    """From user states to the best items, reading a quarter of the bytes that the whole float table has.

    The candidates are more than the K items wanted, so that one that rough scores misplace is still among them. Which items
    come out may differ from an exact search only where an item loses that many places to rounding; scores are exact.

    Args:
        table: float32 (V + 1, D), row 0 unused.
        k: K, the length of a list, at most V.
    """

    def __init__(self, table: Tensor, k: int) -> None:
        super().__init__()
        self.table = table if isinstance(table, nn.Parameter) else nn.Buffer(table)
        peaks = table.detach().abs().amax(dim=1)  # (V + 1,)
        scale = torch.where(peaks > 0, peaks / TABLE_LEVELS, 1.0)
        self.scale = nn.Buffer(scale)
        self.integers = nn.Buffer(
            (table.detach() / scale.unsqueeze(1)).round().to(torch.int8).T.contiguous()
        )  # (D, V + 1)
        self.k = k
        self.candidates = min(len(table) - 1, k + max(32, k // 2))  # K'

    def forward(self, states: Tensor, exclude: Tensor, available: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D), (B, E), (V + 1,) -> items (B, K), scores (B, K); as ``Serving.recommend``."""
        rough = mask(self.rough_scores(states), exclude, available)  # (B, V + 1)
        best, _ = top_k(rough, self.candidates)
        best = best.topk(self.candidates, dim=1, largest=False).values  # by index, for ties
        exact = (F.embedding(best, self.table) @ states.unsqueeze(2)).squeeze(2)  # (B, K')
        exact = torch.where(rough.gather(1, best) == float("-inf"), float("-inf"), exact)
        scores, places = exact.topk(self.k, dim=1)
        return best.gather(1, places), scores

    def rough_scores(self, states: Tensor) -> Tensor:
        """(B, D) -> (B, V + 1), each row up to a positive factor of its own: only its order counts."""
        peaks = states.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(states.dtype).tiny)  # a row's own
        unsigned = (states / peaks * STATE_LEVELS + ZERO).round().to(torch.uint8)
        return _multiply(unsigned, self.integers).to(torch.float32) * self.scale


def add_quantised(
    whole: onnx.ModelProto, graphs: Mapping[str, Graph], serving: Serving, example: Mapping[str, Tensor]
) -> None:
    """Adds the outputs "recommend.int8/..." to a traced model, computed from its "encode/states".

    Args:
        whole: what ``trace`` gave; changed in place.
        graphs: the graphs traced.
        serving: the module traced; it scores by a table.
        example: inputs of ``serving``.
    """
    assert serving.table is not None
    recommend, states = graphs["recommend"], graphs["encode"].outputs[0]
    masks = tuple(spec for spec in recommend.inputs if spec.name != "item_ids")
    batch = len(example["item_ids"])
    inputs = {"states": torch.rand(batch, _width(states)), **{spec.name: example[spec.name] for spec in masks}}
    search = QuantisedSearch(serving.table, serving.k)
    graph = Graph(search.forward, (states, *masks), recommend.outputs, {})
    opset = next(entry.version for entry in whole.opset_import if not entry.domain)
    tail = trace(search, {"recommend.int8": graph}, inputs, opset)
    tail = compose.add_prefix(tail, "int8/", rename_inputs=False, rename_outputs=False)
    _connect(tail, "states", "encode/states")
    whole.graph.node.extend(tail.graph.node)
    whole.graph.initializer.extend(tail.graph.initializer)
    whole.graph.output.extend(tail.graph.output)


def _connect(tail: onnx.ModelProto, name: str, source: str) -> None:
    for node in tail.graph.node:
        node.input[:] = [source if value == name else value for value in node.input]


def _width(states: TensorSpec) -> int:
    width = states.axes[1]
    assert isinstance(width, int)
    return width


def _multiply(unsigned: Tensor, integers: Tensor) -> Tensor:
    """uint8 (B, D) less its zero point, times int8 (D, V + 1): int32 (B, V + 1)."""
    if torch.compiler.is_exporting():
        zero = torch.tensor(ZERO, dtype=torch.uint8)
        shape = unsigned.shape[0], integers.shape[1]
        product: Tensor = torch.onnx.ops.symbolic(
            "MatMulInteger", (unsigned, integers, zero), dtype=torch.int32, shape=shape
        )
        return product
    return (unsigned.int() - ZERO).float().matmul(integers.float()).int()  # exact: |sums| < 2**24 up to D = 1000

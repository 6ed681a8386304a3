"""The int8 variant: rough scores from a table of small integers choose candidates, and exact scores rank those."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import torch
from onnx import compose
from torch import Tensor, nn
from torch.nn import functional as F

from genrec_export.graphs import BLOCK, Serving, bias, by_blocks, top_k, whole_blocks
from genrec_export.tracing import Graph, trace
from genrec_runtime.manifest import TensorSpec

TABLE_LEVELS = 63  # of 127: two products of 8 bits then fit the 16-bit sums of CPUs without VNNI, which saturate
STATE_LEVELS = 127
ZERO = 128  # of the states, which are unsigned: the fast kernels multiply uint8 by int8


class QuantisedSearch(nn.Module):
    """From user states to the best items, reading a quarter of the bytes that the whole float table has.

    The candidates are more than the K items wanted, so that one that rough scores misplace is still among them. Which items
    come out may differ from an exact search only where an item loses that many places to rounding; scores are exact.

    One factor turns the integers of an item back into numbers; where the search goes by blocks, all items of a block share it,
    so that only the blocks' best scores and the candidates' are multiplied by it, not those of all items.

    Args:
        table: float32 (V + 1, D), row 0 unused; further rows, beyond ``num_items``, fill blocks.
        k: K, the length of a list, at most V.
        num_items: V; None if it is all rows but the first.
    """

    def __init__(self, table: Tensor, k: int, num_items: int | None = None) -> None:
        super().__init__()
        self.table = table if isinstance(table, nn.Parameter) else nn.Buffer(table)
        self.k = k
        items = len(table) - 1 if num_items is None else num_items
        self.candidates = min(items, k + max(32, k // 2))  # K'
        self.blocked = by_blocks(len(table), self.candidates)
        rows = whole_blocks(table.detach()) if self.blocked else table.detach()  # (columns, D)
        peaks = rows.abs().amax(dim=1)  # (columns,)
        shared = peaks.view(-1, BLOCK).amax(dim=1) if self.blocked else peaks
        scale = torch.where(shared > 0, shared / TABLE_LEVELS, 1.0)
        self.scale = nn.Buffer(scale)
        each = scale.repeat_interleave(BLOCK) if self.blocked else scale
        self.integers = nn.Buffer((rows / each.unsqueeze(1)).round().to(torch.int8).T.contiguous())  # (D, columns)

    def forward(self, states: Tensor, exclude: Tensor, available: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D), (B, E), (V + 1,) -> items (B, K), scores (B, K); as ``Serving.recommend``."""
        offer = bias(available, self.integers.shape[1])
        rough = self.rough_scores(states, offer).scatter(1, exclude, float("-inf"))  # (B, columns)
        if self.blocked:
            best, _ = top_k(rough, self.candidates, self.scale)
        else:
            best, _ = top_k(rough * self.scale, self.candidates)
        best = best.topk(self.candidates, dim=1, largest=False).values  # by index, for ties
        exact = (F.embedding(best, self.table) @ states.unsqueeze(2)).squeeze(2)  # (B, K')
        exact = torch.where(rough.gather(1, best) == float("-inf"), float("-inf"), exact)
        scores, places = exact.topk(self.k, dim=1)
        return best.gather(1, places), scores

    def rough_scores(self, states: Tensor, offer: Tensor) -> Tensor:
        """(B, D) -> (B, columns) plus ``offer`` (columns,), still to be multiplied by the items' factors.

        A row's own factor is left out, since only the order within a row counts.
        """
        peaks = states.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(states.dtype).tiny)  # a row's own
        unsigned = (states / peaks * STATE_LEVELS + ZERO).round().to(torch.uint8)
        return _multiply(unsigned, self.integers, offer)


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
    masks = tuple(spec for spec in recommend.inputs if spec.name in ("exclude", "available"))
    batch = len(example["item_ids"])
    inputs = {"states": torch.rand(batch, _width(states)), **{spec.name: example[spec.name] for spec in masks}}
    table = serving.table if serving.wide is None else serving.wide
    search = QuantisedSearch(table, serving.k, len(serving.table) - 1)
    graph = Graph(search.forward, (states, *masks), recommend.outputs, {})
    opset = next(entry.version for entry in whole.opset_import if not entry.domain)
    tail = trace(search, {"recommend.int8": graph}, inputs, opset)
    tail = compose.add_prefix(tail, "int8/", rename_inputs=False, rename_outputs=False)
    _connect(tail, "states", "encode/states")
    whole.opset_import.extend(entry for entry in tail.opset_import if entry.domain)
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


def _multiply(unsigned: Tensor, integers: Tensor, offer: Tensor) -> Tensor:
    """uint8 (B, D) less its zero point, times int8 (D, columns), plus float32 (columns,): float32 (B, columns).

    onnxruntime adds while it writes the products, which MatMulInteger and further operators would do in three more passes.
    """
    if torch.compiler.is_exporting():
        one, zero = torch.tensor(1.0), torch.tensor(ZERO, dtype=torch.uint8)
        shape = unsigned.shape[0], integers.shape[1]
        product: Tensor = torch.onnx.ops.symbolic(
            "com.microsoft::MatMulIntegerToFloat",
            (unsigned, integers, one, one, zero, None, offer),
            dtype=torch.float32,
            shape=shape,
            version=1,
        )
        return product
    return (unsigned.int() - ZERO).float().matmul(integers.float()) + offer  # exact: |sums| < 2**24 up to D = 1000

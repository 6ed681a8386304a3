"""The graphs of a recommender's bundle: their names and signatures, an example to trace on, and recorded requests."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from genrec.histories import Ragged
from genrec_export.graphs import Serving
from genrec_export.parity import run_torch
from genrec_export.report import Arrays
from genrec_export.tracing import Graph, plain_torch
from genrec_runtime.manifest import Semantics, TensorSpec

GOLDEN_HISTORIES = 24


def graphs_of(serving: Serving, semantics: Semantics) -> dict[str, Graph]:
    """The graphs, in the order of ``Serving.forward``'s outputs."""
    items = semantics.num_items
    length = "length" if semantics.window == "bucketed" else semantics.max_seq_length
    limits = {"length": semantics.max_seq_length}
    with plain_torch():
        width = serving.encode(example_of(semantics)["item_ids"]).shape[1]
    item_ids = TensorSpec("item_ids", "int64", ("batch", length), 0, items)
    exclude = TensorSpec("exclude", "int64", ("batch", "excluded"), 0, items)
    available = TensorSpec("available", "bool", (items + 1,))
    candidates = TensorSpec("candidates", "int64", ("batch", "candidates"), 0, items)
    best = TensorSpec("items", "int64", ("batch", serving.k)), TensorSpec("scores", "float32", ("batch", serving.k))
    scores = TensorSpec("scores", "float32", ("batch", "candidates"))
    states = TensorSpec("states", "float32", ("batch", width))
    return {
        "recommend": Graph(serving.recommend, (item_ids, exclude, available), best, limits),
        "score": Graph(serving.score, (item_ids, candidates), (scores,), limits),
        "encode": Graph(serving.encode, (item_ids,), (states,), limits),
    }


def example_of(semantics: Semantics) -> dict[str, Tensor]:
    """Inputs to trace on: every free axis has a size of its own, and at least 2."""
    random = torch.Generator().manual_seed(0)

    def indices(*shape: int) -> Tensor:
        return torch.randint(1, semantics.num_items + 1, shape, generator=random)

    longest = semantics.max_seq_length
    return {
        "item_ids": indices(2, min(3, longest) if semantics.window == "bucketed" else longest),
        "exclude": indices(2, 4),
        "available": torch.ones(semantics.num_items + 1, dtype=torch.bool),
        "candidates": indices(2, 5),
    }


def goldens_of(serving: Serving, semantics: Semantics, numbered: Ragged) -> dict[str, Arrays]:
    """Per graph recorded requests and torch's answers: one too long, one all padding, one item repeated or alone; real ones."""
    random = np.random.default_rng(1)
    items, most = semantics.num_items, semantics.max_seq_length
    by_length = np.argsort(numbered.lengths, kind="stable")
    spread = by_length[np.linspace(0, len(by_length) - 1, min(GOLDEN_HISTORIES, len(by_length))).astype(np.int64)]
    real = numbered.slices(spread, np.zeros(len(spread), np.int64), numbered.lengths[spread])
    made: list[Any] = [random.integers(1, items + 1, most + 3), [], [1] * most, [items]]
    goldens = {}
    for name, graph in graphs_of(serving, semantics).items():
        arrays: Arrays = {}
        for case, histories in enumerate((Ragged.from_rows(made), real)):
            longest = min(most, int(histories.lengths.max()))
            item_ids = histories.pad(longest if semantics.window == "bucketed" else most, semantics.padding)
            everything: Arrays = {
                "item_ids": item_ids,
                "exclude": histories.pad(),
                "available": np.ones(items + 1, np.bool_),
                "candidates": random.integers(1, items + 1, (len(item_ids), 7)),
            }
            inputs = {spec.name: everything[spec.name] for spec in graph.inputs}
            arrays |= {f"{case}.in.{key}": value for key, value in inputs.items()}
            arrays |= {f"{case}.out.{key}": value for key, value in run_torch(graph, inputs).items()}
        goldens[name] = arrays
    return goldens

"""The graphs of a recommender's bundle: their names and signatures, an example to trace on, and recorded requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genrec.histories import Ragged
from genrec_export.graphs import Serving
from genrec_export.parity import run_torch
from genrec_export.report import Arrays
from genrec_export.tracing import Graph, plain_torch
from genrec_runtime.batches import take
from genrec_runtime.manifest import Semantics, TensorSpec

GOLDEN_HISTORIES = 24  # of each kind, at most
ROWS = 32  # that are answered at once


def graphs_of(serving: Serving, semantics: Semantics) -> dict[str, Graph]:
    """The graphs, in the order of ``Serving.forward``'s outputs; those of items only where it scores by a table."""
    items = semantics.num_items
    length = "length" if semantics.window == "bucketed" else semantics.max_seq_length
    limits = {"length": semantics.max_seq_length}
    with plain_torch():
        width = serving.encode(_example(semantics)["item_ids"]).shape[1]
    item_ids = TensorSpec("item_ids", "int64", ("batch", length), 0, items)
    exclude = TensorSpec("exclude", "int64", ("batch", "excluded"), 0, items)
    available = TensorSpec("available", "bool", (items + 1,))
    candidates = TensorSpec("candidates", "int64", ("batch", "candidates"), 0, items)
    best = TensorSpec("items", "int64", ("batch", serving.k)), TensorSpec("scores", "float32", ("batch", serving.k))
    scores = TensorSpec("scores", "float32", ("batch", "candidates"))
    states = TensorSpec("states", "float32", ("batch", width))
    item = TensorSpec("item", "int64", ("batch",), 1, items)
    of_users = {
        "recommend": Graph(serving.recommend, (item_ids, exclude, available), best, limits),
        "score": Graph(serving.score, (item_ids, candidates), (scores,), limits),
        "encode": Graph(serving.encode, (item_ids,), (states,), limits),
    }
    if serving.table is None:
        return of_users
    vectors = TensorSpec("vectors", "float32", ("batch", serving.table.shape[1]))
    return of_users | {
        "item_vectors": Graph(serving.vectors, (item,), (vectors,), {}),
        "similar": Graph(serving.similar, (item, available), best, {}),
    }


def example_of(semantics: Semantics, graphs: Mapping[str, Graph]) -> dict[str, Tensor]:
    """Inputs of the graphs to trace on: every free axis has a size of its own, and at least 2."""
    used = {spec.name for graph in graphs.values() for spec in graph.inputs}
    return {name: tensor for name, tensor in _example(semantics).items() if name in used}


def _example(semantics: Semantics) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)

    def indices(*shape: int) -> Tensor:
        return torch.randint(1, semantics.num_items + 1, shape, generator=random)

    longest = semantics.max_seq_length
    return {
        "item_ids": indices(2, min(3, longest) if semantics.window == "bucketed" else longest),
        "exclude": indices(2, 4),
        "available": torch.ones(semantics.num_items + 1, dtype=torch.bool),
        "candidates": indices(2, 5),
        "item": indices(2),
    }


def goldens_of(serving: Serving, semantics: Semantics, numbered: Ragged) -> dict[str, Arrays]:
    """Per graph recorded requests and torch's answers, each case for a fault that it would show; see ``golden_cases``."""
    graphs = graphs_of(serving, semantics)
    cases = golden_cases(graphs["recommend"], semantics, numbered)
    goldens: dict[str, Arrays] = {}
    for name, graph in graphs.items():
        arrays: Arrays = {}
        for case, everything in cases.items():
            inputs = {spec.name: everything[spec.name] for spec in graph.inputs}
            arrays |= {f"{case}.in.{key}": value for key, value in inputs.items()}
            arrays |= {f"{case}.out.{key}": value for key, value in run_torch(graph, inputs).items()}
        goldens[name] = arrays
    return goldens


def golden_cases(recommend: Graph, semantics: Semantics, numbered: Ragged) -> dict[str, Arrays]:
    """The inputs to be recorded, by the name of the case.

    ``edges``: a history longer than the window, none, one item over and over, the first item alone, the last alone. ``lengths``:
    real histories from the shortest to the longest, each excluded. ``close``: those whose places 10 and 11 are the closest calls,
    nothing excluded. ``scarce``: one row and fewer available items than a list is long, of which it excludes one.
    """
    items, most = semantics.num_items, semantics.max_seq_length
    chosen = _spread(numbered, numbered.lengths)
    everything = np.ones(items + 1, np.bool_)
    few = np.zeros(items + 1, np.bool_)
    few[np.linspace(1, items, 3).astype(np.int64)] = True
    wide = np.arange(most + 3) * 7919 % items + 1  # every item in turn, in no order that a model may have learnt
    edges = Ragged.from_rows([wide, [], [1] * most, [1], [items]])
    last = Ragged.from_rows([[max(1, items // 2), items]])
    close = _spread(numbered, _margins(recommend, semantics, numbered))
    return {
        "edges": _request(semantics, edges, edges, everything),
        "lengths": _request(semantics, chosen, chosen, everything),
        "close": _request(semantics, close, Ragged.from_rows([[]] * len(close)), everything),
        "scarce": _request(semantics, last, last, few),
    }


def _request(semantics: Semantics, histories: Ragged, exclude: Ragged, available: NDArray[np.bool_]) -> Arrays:
    """Inputs of all graphs; candidates are padding, the ends of the catalogue and the newest items."""
    longest = min(semantics.max_seq_length, int(histories.lengths.max()))
    item_ids = histories.pad(longest if semantics.window == "bucketed" else semantics.max_seq_length, semantics.padding)
    ends = np.tile([0, 1, semantics.num_items, semantics.num_items], (len(item_ids), 1))
    return {
        "item_ids": item_ids,
        "exclude": exclude.pad(),
        "available": available,
        "candidates": np.concatenate([ends, item_ids[:, -3:]], axis=1),
        "item": np.maximum(item_ids.max(axis=1), 1),
    }


def _spread(numbered: Ragged, by: NDArray[Any]) -> Ragged:
    """Histories from the lowest to the highest value, most of them low."""
    order = np.argsort(by, kind="stable")
    places = np.linspace(0, 1, min(GOLDEN_HISTORIES, len(order))) ** 2 * (len(order) - 1)
    return take(numbered, order[np.unique(places.astype(np.int64))])


def _margins(recommend: Graph, semantics: Semantics, numbered: Ragged) -> NDArray[Any]:
    """For each history by how much its tenth place is above the next."""
    margins = []
    place = min(10, semantics.k_max - 1)
    for begin in range(0, len(numbered), ROWS):
        rows = take(numbered, np.arange(begin, min(begin + ROWS, len(numbered))))
        request = _request(
            semantics, rows, Ragged.from_rows([[]] * len(rows)), np.ones(semantics.num_items + 1, np.bool_)
        )
        scores = run_torch(recommend, {spec.name: request[spec.name] for spec in recommend.inputs})["scores"]
        margins.append(scores[:, max(0, place - 1)] - scores[:, place])
    return np.concatenate(margins)

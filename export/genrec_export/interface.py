"""The graphs of a recommender's bundle: their names and signatures, an example to trace on, and recorded requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genrec.histories import Ragged
from genrec_export.histories import Reads, Requests
from genrec_export.parity import run_torch
from genrec_export.report import Arrays
from genrec_export.searching import AnyServing, SearchServing
from genrec_export.tracing import Graph, plain_torch
from genrec_runtime.manifest import Semantics, TensorSpec

GOLDEN_HISTORIES = 24  # of each kind, at most
ROWS = 32  # that are answered at once


def graphs_of(serving: AnyServing, semantics: Semantics) -> dict[str, Graph]:
    """The graphs, in the order of ``forward``'s outputs.

    A model that searches has no states, and those of items are only there where it scores by a table.
    """
    items = semantics.num_items
    length = "length" if semantics.window == "bucketed" else semantics.max_seq_length
    limits = {"length": semantics.max_seq_length}
    history = (TensorSpec("item_ids", "int64", ("batch", length), 0, items), *serving.reads.specs(length))
    exclude = TensorSpec("exclude", "int64", ("batch", "excluded"), 0, items)
    available = TensorSpec("available", "bool", (items + 1,))
    candidates = TensorSpec("candidates", "int64", ("batch", "candidates"), 0, items)
    best = TensorSpec("items", "int64", ("batch", serving.k)), TensorSpec("scores", "float32", ("batch", serving.k))
    scores = TensorSpec("scores", "float32", ("batch", "candidates"))
    found = {
        "recommend": Graph(serving.recommend, (*history, exclude, available), best, limits),
        "score": Graph(serving.score, (*history, candidates), (scores,), limits),
    }
    if isinstance(serving, SearchServing):
        return found
    example = _example(serving.reads, semantics)
    with plain_torch():
        width = serving.encode(*(example[spec.name] for spec in history)).shape[1]
    states = TensorSpec("states", "float32", ("batch", width))
    found["encode"] = Graph(serving.encode, history, (states,), limits)
    if serving.table is None:
        return found
    item = TensorSpec("item", "int64", ("batch",), 1, items)
    vectors = TensorSpec("vectors", "float32", ("batch", serving.table.shape[1]))
    return found | {
        "item_vectors": Graph(serving.vectors, (item,), (vectors,), {}),
        "similar": Graph(serving.similar, (item, available), best, {}),
    }


def example_of(semantics: Semantics, graphs: Mapping[str, Graph]) -> dict[str, Tensor]:
    """Inputs of the graphs to trace on: every free axis has a size of its own, and at least 2."""
    specs = {spec.name: spec for graph in graphs.values() for spec in graph.inputs}
    used, reads = set(specs), Reads.of(specs.values())
    return {name: tensor for name, tensor in _example(reads, semantics).items() if name in used}


def _example(reads: Reads, semantics: Semantics) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)

    def indices(*shape: int) -> Tensor:
        return torch.randint(1, semantics.num_items + 1, shape, generator=random)

    longest = semantics.max_seq_length
    length = min(3, longest) if semantics.window == "bucketed" else longest
    asked = reads.imagine(Ragged.from_rows(indices(2, length).numpy()), np.random.default_rng(0))
    read = {name: torch.from_numpy(values) for name, values in asked.inputs(length, "left").items()}
    return read | {
        "exclude": indices(2, 4),
        "available": torch.ones(semantics.num_items + 1, dtype=torch.bool),
        "candidates": indices(2, 5),
        "item": indices(2),
    }


def goldens_of(serving: AnyServing, semantics: Semantics, numbered: Requests) -> dict[str, Arrays]:
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


def golden_cases(recommend: Graph, semantics: Semantics, numbered: Requests) -> dict[str, Arrays]:
    """The inputs to be recorded, by the name of the case.

    ``edges``: a history longer than the window, none, one item over and over, the first item alone, the last alone. ``lengths``:
    real histories from the shortest to the longest, each excluded. ``close``: those whose places 10 and 11 are the closest calls,
    nothing excluded. ``scarce``: one row and fewer available items than a list is long, of which it excludes one.
    """
    items, most = semantics.num_items, semantics.max_seq_length
    reads, random = Reads.of(recommend.inputs), np.random.default_rng(0)
    chosen = _spread(numbered, numbered.items.lengths)
    everything = np.ones(items + 1, np.bool_)
    few = np.zeros(items + 1, np.bool_)
    few[np.linspace(1, items, 3).astype(np.int64)] = True
    wide = np.arange(most + 3) * 7919 % items + 1  # every item in turn, in no order that a model may have learnt
    edges = reads.imagine(Ragged.from_rows([wide, [], [1] * most, [1], [items]]), random)
    last = reads.imagine(Ragged.from_rows([[max(1, items // 2), items]]), random)
    close = _spread(numbered, _margins(recommend, semantics, numbered))
    return {
        "edges": _request(semantics, edges, edges.items, everything),
        "lengths": _request(semantics, chosen, chosen.items, everything),
        "close": _request(semantics, close, _none(close), everything),
        "scarce": _request(semantics, last, last.items, few),
    }


def _request(semantics: Semantics, histories: Requests, exclude: Ragged, available: NDArray[np.bool_]) -> Arrays:
    """Inputs of all graphs; candidates are padding, the ends of the catalogue and the newest items."""
    longest = min(semantics.max_seq_length, int(histories.items.lengths.max()))
    length = longest if semantics.window == "bucketed" else semantics.max_seq_length
    inputs = histories.inputs(length, semantics.padding)
    item_ids = inputs["item_ids"]
    ends = np.tile([0, 1, semantics.num_items, semantics.num_items], (len(item_ids), 1))
    return inputs | {
        "exclude": exclude.pad(),
        "available": available,
        "candidates": np.concatenate([ends, item_ids[:, -3:]], axis=1),
        "item": np.maximum(item_ids.max(axis=1), 1),
    }


def _none(histories: Requests) -> Ragged:
    """Rows of nothing, to exclude nothing."""
    return Ragged.from_rows([[]] * len(histories))


def _spread(numbered: Requests, by: NDArray[Any]) -> Requests:
    """Histories from the lowest to the highest value, most of them low."""
    order = np.argsort(by, kind="stable")
    places = np.linspace(0, 1, min(GOLDEN_HISTORIES, len(order))) ** 2 * (len(order) - 1)
    return numbered.take(order[np.unique(places.astype(np.int64))])


def _margins(recommend: Graph, semantics: Semantics, numbered: Requests) -> NDArray[Any]:
    """For each history by how much its tenth place is above the next."""
    margins = []
    place = min(10, semantics.k_max - 1)
    everything = np.ones(semantics.num_items + 1, np.bool_)
    for begin in range(0, len(numbered), ROWS):
        rows = numbered.take(np.arange(begin, min(begin + ROWS, len(numbered))))
        request = _request(semantics, rows, _none(rows), everything)
        scores = run_torch(recommend, {spec.name: request[spec.name] for spec in recommend.inputs})["scores"]
        margins.append(scores[:, max(0, place - 1)] - scores[:, place])
    return np.concatenate(margins)

"""What a recommender computes, on item indices: windows of histories through the graphs, in runs of bounded memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec.histories import Catalogue, Ints, Ragged
from genrec_runtime.answers import Floats
from genrec_runtime.batches import CELLS, chunks, rows_a_run, take
from genrec_runtime.buckets import by_length, length_bucket
from genrec_runtime.checks import GRAPHS
from genrec_runtime.engine import Arrays, Engine
from genrec_runtime.errors import InferenceError
from genrec_runtime.histories import Histories
from genrec_runtime.manifest import Semantics

List = tuple[Ints, Floats]  # item indices, best first, and their scores
Bools = NDArray[np.bool_]


class Search:
    """The graphs of a recommender, for histories of any number and length.

    Args:
        engine: of the bundle.
        catalogue: the bundle's items.
        semantics: of the bundle.
    """

    def __init__(self, engine: Engine, catalogue: Catalogue, semantics: Semantics) -> None:
        self._engine, self._catalogue, self._semantics = engine, catalogue, semantics
        self._place = np.zeros(semantics.num_items + 1, np.int32)  # an item's place in the cold-start order
        self._place[catalogue.cold_start] = np.arange(1, semantics.num_items + 1, dtype=np.int32)

    def lists(
        self,
        histories: Histories,
        pools: Ragged | None,
        excluded: Ragged,
        allowed: Bools,
        k: int,
        deadline: float | None,
    ) -> list[List]:
        """For each history the best items of its pool, or of the whole catalogue; the most popular where it holds no item."""
        lengths = histories.items.lengths
        known = np.flatnonzero(lengths)  # the model sees only these: others it cannot answer
        if pools is None:
            lists = self.best(histories, known, excluded, allowed, k, deadline)
        else:
            lists = self.rank(histories, known, pools, excluded, allowed, k, deadline)
        if len(known) == len(lengths):
            return lists
        others = np.flatnonzero(lengths == 0)
        popular = self.popular(others, pools, excluded, allowed, k)
        answers = dict(zip([*known.tolist(), *others.tolist()], [*lists, *popular], strict=True))
        return [answers[row] for row in range(len(lengths))]

    def best(
        self, histories: Histories, rows: Ints, excluded: Ragged, allowed: Bools, k: int, deadline: float | None
    ) -> list[List]:
        """For each of ``rows`` the best items of the whole catalogue, from the graph that ends in top-k."""

        def run(part: Ints) -> list[List]:
            inputs = {**self._window(histories, part), "exclude": take(excluded, part).pad(), "available": allowed}
            return _lists(self._run("recommend", inputs, deadline), k)

        return self._in_parts(histories, rows, excluded.lengths, self._semantics.num_items, run)

    def rank(
        self,
        histories: Histories,
        rows: Ints,
        pools: Ragged,
        excluded: Ragged,
        allowed: Bools,
        k: int,
        deadline: float | None,
    ) -> list[List]:
        """For each of ``rows`` the best of its pool: higher score first, then the lower index."""
        lists: list[List] = []
        for row, scores in zip(rows.tolist(), self.scores(histories, rows, pools, deadline), strict=True):
            items = pools.row(row)
            keep = allowed[items] & ~np.isin(items, excluded.row(row)) & (scores > -np.inf)
            items, scores = items[keep], scores[keep]
            order = np.argsort(-scores, kind="stable")[:k]
            lists.append((items[order], scores[order]))
        return lists

    def popular(self, rows: Ints, pools: Ragged | None, excluded: Ragged, allowed: Bools, k: int) -> list[List]:
        """For each of ``rows`` the first of the cold-start order that may be recommended, scored 1 / place."""
        lists: list[List] = []
        everything = self._catalogue.cold_start[allowed[self._catalogue.cold_start]]
        for row in rows.tolist():
            order, without = everything, excluded.row(row)
            if pools is not None:
                pool = pools.row(row)
                order = pool[allowed[pool]][np.argsort(self._place[pool[allowed[pool]]])]
            order = order[: k + len(without)]
            items = order[~np.isin(order, without)][:k]
            lists.append((items, (1.0 / np.arange(1, len(items) + 1)).astype(np.float32)))
        return lists

    def scores(
        self, histories: Histories, rows: Ints, candidates: Ragged, deadline: float | None = None
    ) -> list[Floats]:
        """For each of ``rows`` the model's scores of its candidates."""

        def run(part: Ints) -> list[Floats]:
            inputs = {**self._window(histories, part), "candidates": take(candidates, part).pad(side="right")}
            found = self._run("score", inputs, deadline)["scores"]
            return [found[i, :n].copy() for i, n in enumerate(candidates.lengths[part].tolist())]

        return self._in_parts(histories, rows, candidates.lengths, 1, run)

    def places(self, items: Ints) -> Ints:
        """Where items stand in the cold-start order, from 1."""
        return self._place[items].astype(np.int64)

    def states(self, histories: Histories, rows: Ints, width: int) -> Floats:
        """The model's states of ``rows``, float32 (len(rows), width)."""
        found = self._in_parts(
            histories,
            rows,
            np.minimum(histories.items.lengths, self._semantics.max_seq_length),
            1,
            lambda part: list(self._run("encode", self._window(histories, part), None)["states"]),
        )
        return np.array(found, np.float32).reshape(len(rows), width)

    def vectors(self, items: Ints) -> Floats:
        """The vectors of items, float32 (n, D)."""
        with self._engine.call():
            parts = [self._run("item_vectors", {"item": part}, None)["vectors"] for part in _cut(items, CELLS)]
        width = int(self._engine.bundle.manifest.signature["item_vectors"].outputs[0].axes[1])
        return np.concatenate([np.zeros((0, width), np.float32), *parts])

    def similar(self, items: Ints, allowed: Bools, k: int) -> list[List]:
        """For each item those with the nearest vectors, itself left out."""
        lists: list[List] = []
        with self._engine.call():
            for part in _cut(items, rows_a_run(self._semantics.num_items)):
                lists += _lists(self._run("similar", {"item": part, "available": allowed}, None), k)
        return lists

    def warmup(self, rows: int, allowed: Bools) -> None:
        """Runs every graph; on a GPU in each shape of bucket up to ``rows`` rows."""
        manifest, semantics, lengths = self._engine.bundle.manifest, self._semantics, [self._semantics.max_seq_length]
        rows = min(rows, rows_a_run(semantics.num_items))  # more are never run at once
        batches = [rows]
        if self._engine.on_gpu:
            batches = [1 << power for power in range((rows - 1).bit_length() + 1)]
            if semantics.window == "bucketed":
                lengths = sorted({length_bucket(n, lengths[0]) for n in range(1, lengths[0] + 1)})
        for batch, length in itertools.product(batches, lengths):
            ones = np.ones((batch, length), np.int64)
            inputs: dict[str, NDArray[Any]] = dict.fromkeys(("item_ids", "timestamps", "exclude", "candidates"), ones)
            inputs |= dict.fromkeys(("request_time", "users", "item"), ones[:, 0]) | {"available": allowed}
            for graph in manifest.graphs.keys() & GRAPHS.keys():
                self._run(graph, {spec.name: inputs[spec.name] for spec in manifest.signature[graph].inputs}, None)

    def _in_parts(
        self, histories: Histories, rows: Ints, widths: Ints, items: int, run: Callable[[Ints], list[Any]]
    ) -> list[Any]:
        """``run`` for parts of ``rows``, those of like length together; its answers in the order of ``rows``.

        Args:
            histories: of the whole call.
            rows: row numbers.
            widths: per row of the call, how wide the input that is padded is there.
            items: how many items of the table a run reads.
            run: answers a part.
        """
        if len(rows) == 1:
            return run(rows)
        limit = self._semantics.max_seq_length
        lengths = np.minimum(histories.items.lengths[rows], limit)
        bucketed = self._semantics.window == "bucketed"
        order = np.argsort(-lengths, kind="stable") if bucketed else np.arange(len(rows))
        cut = bucketed and not self._engine.on_gpu  # a GPU takes longer to begin a run than to compute padding
        answers: list[Any] = [None] * len(rows)
        with self._engine.call():
            for part in chunks(order, widths[rows], rows_a_run(items)):
                for group in by_length(lengths[part], limit, items) if cut else [np.arange(len(part))]:
                    places = part[group]
                    for place, answer in zip(places.tolist(), self._spared(rows[places], run), strict=True):
                        answers[place] = answer
        return answers

    def _spared(self, part: Ints, run: Callable[[Ints], list[Any]]) -> list[Any]:
        """``run``, and where a device has no memory for all rows at once, their halves."""
        try:
            return run(part)
        except InferenceError as error:
            if error.code != "out_of_memory" or len(part) < 2:
                raise
            half = len(part) // 2
        return run(part[:half]) + run(part[half:])

    def _run(self, graph: str, inputs: dict[str, NDArray[Any]], deadline: float | None) -> Arrays:
        outputs = self._engine.run(graph, inputs, deadline)
        for name, values in outputs.items():
            if values.dtype.kind == "f" and not (values < np.inf).all():  # false for NaN, too
                raise InferenceError(f"graph {graph!r} gave {name} that are no numbers", code="non_finite_scores")
        return outputs

    def _window(self, histories: Histories, rows: Ints) -> dict[str, NDArray[Any]]:
        """The newest items of the chosen rows and what the model reads beside them, padded as it was trained."""
        items = take(histories.items, rows)
        length, side = self._semantics.max_seq_length, self._semantics.padding
        if self._semantics.window == "bucketed":
            length = length_bucket(int(items.lengths.max(initial=0)), length)
        window = {"item_ids": items.pad(length, side)}  # (B, L)
        if histories.times is not None:
            window["timestamps"] = take(histories.times, rows).pad(length, side)  # (B, L)
        if histories.request_time is not None:
            window["request_time"] = histories.request_time[rows]  # (B,)
        if histories.users is not None:
            window["users"] = histories.users[rows]  # (B,)
        return window


def _lists(outputs: Arrays, k: int) -> list[List]:
    """The first ``k`` places of each row, as far as they hold an item."""
    items, scores = outputs["items"][:, :k], outputs["scores"][:, :k].copy()
    real = np.sum(scores > -np.inf, axis=1).tolist()  # what is masked stands last
    return [(items[i, :n], scores[i, :n]) for i, n in enumerate(real)]


def _cut(items: Ints, most: int) -> list[Ints]:
    """Parts, none of them empty: of a batch without rows onnxruntime 1.29 and older divide by zero, which ends the process."""
    return [items[start : start + most] for start in range(0, len(items), most)]

"""Serving a recommender: raw ids in, raw ids and scores out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from genrec.histories import Catalogue, Ints, Ragged, RawId
from genrec_runtime.bundle import Bundle
from genrec_runtime.compare import Difference
from genrec_runtime.engine import Engine
from genrec_runtime.errors import InferenceError, InputError, Unsupported
from genrec_runtime.manifest import Semantics
from genrec_runtime.requests import Numbered, OnUnknown, number_rows, refuse, warn_if_foreign, whole_number

Status = Literal["model", "cold_start", "all_unknown"]
Floats = NDArray[np.float32]
CHUNK = 512  # rows a run; bounds the memory of a call


@dataclass(frozen=True, eq=False)
class Recommendations:
    """The answer to one call, row by row; a row may be shorter than ``k`` where nothing more may be recommended.

    Attributes:
        items: per row the raw ids, best first, as they were in training.
        scores: per row float32 scores; 1 / rank in rows that the model did not answer.
        status: per row "model", "cold_start" (empty history) or "all_unknown" (no id of the history is known).
        unknown_items: how many ids of the histories the catalogue lacks.
    """

    items: list[list[RawId]]
    scores: list[Floats]
    status: list[Status]
    unknown_items: int

    def __len__(self) -> int:
        return len(self.items)

    @property
    def lengths(self) -> Ints:
        """int64 (B,): how many items each row has."""
        return np.fromiter(map(len, self.items), dtype=np.int64, count=len(self.items))

    def to_list(self) -> list[list[tuple[RawId, float]]]:
        """Per row (raw id, score) pairs, best first."""
        return [list(zip(i, s.tolist(), strict=True)) for i, s in zip(self.items, self.scores, strict=True)]

    def to_padded(self, fill: RawId) -> tuple[NDArray[Any], Floats]:
        """Two matrices (B, longest row): ids filled up with ``fill``, scores filled up with -inf."""
        width = int(self.lengths.max(initial=0))
        items = [row + [fill] * (width - len(row)) for row in self.items]
        scores = [np.append(row, np.full(width - len(row), -np.inf, np.float32)) for row in self.scores]
        shape = (len(self), width)
        return np.array(items).reshape(shape), np.array(scores, dtype=np.float32).reshape(shape)


class Recommender:
    """A loaded recommender bundle. Calls may come from any thread.

    Load one with ``Recommender.load``; the constructor takes what that has opened.
    """

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        semantics = bundle.manifest.semantics
        if bundle.manifest.kind != "recommender" or semantics is None:
            raise Unsupported(f"{bundle.path} is a bundle of kind {bundle.manifest.kind!r}; open it with Module.load")
        self.manifest = bundle.manifest
        self.semantics: Semantics = semantics
        self.catalogue: Catalogue = bundle.catalogue()
        self.device_report = engine.report
        self._engine = engine
        self._everything = np.arange(semantics.num_items + 1) > 0
        self._warned = False

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        device: str = "auto",
        threads: int | None = None,
        expect_digest: str | None = None,
    ) -> Recommender:
        """Opens, verifies and starts a bundle.

        Args:
            path: the bundle's folder, or a link to it such as ``store/current``.
            device: "cpu", "cuda", "cuda:N" are strict; "auto" takes a GPU if one starts, and warns if it does not.
            threads: threads within an operator on the CPU; None takes what the process may use.
            expect_digest: "sha256:..." of the manifest, to accept this bundle and no other.

        Raises:
            BundleError: if the bundle is missing, damaged or of a version not readable here.
            DeviceUnavailable: if a device asked for by name does not start.
        """
        bundle = Bundle.open(path, expect_digest=expect_digest)
        return cls(bundle, Engine(bundle, device, threads))

    def recommend(
        self,
        histories: Sequence[Sequence[Any]],
        *,
        k: int | None = None,
        users: Sequence[Any] | None = None,
        timestamps: Sequence[Sequence[int]] | None = None,
        request_time: Sequence[int] | None = None,
        exclude: Sequence[Sequence[Any]] | None = None,
        candidates: Sequence[Sequence[Any]] | None = None,
        available: Sequence[Any] | None = None,
        exclude_seen: bool | None = None,
        on_unknown: OnUnknown | None = None,
    ) -> Recommendations:
        """The best items for each history. None takes the bundle's default.

        Args:
            histories: per row the raw ids of a user's items, oldest first, of any length.
            k: how many items a row; above the catalogue's size it gives the catalogue.
            users: the users' ids, for models that use them.
            timestamps: per row the times of the history, for models that use them.
            request_time: per row the time of the request, for models that use it.
            exclude: per row further raw ids not to be recommended.
            candidates: per row the raw ids to choose from, instead of the whole catalogue.
            available: the raw ids that may be recommended to anyone at all.
            exclude_seen: leave out what the (whole) history holds.
            on_unknown: "drop" ids that the catalogue lacks, or "error".

        Raises:
            InputError: if a row, an id or an option is not usable; the message names it.
            Unsupported: if the model has no use for an argument.
            InferenceError: if the model fails, or gives scores that are no numbers.
        """
        refuse(self.manifest.capabilities, {"users": users, "timestamps": timestamps, "request_time": request_time})
        defaults = self.manifest.defaults
        k = self._list_length(defaults.k if k is None else k, candidates is not None)
        seen = defaults.exclude_seen if exclude_seen is None else exclude_seen
        numbered = self._histories(histories, on_unknown)
        excluded = self._excluded(numbered, exclude, seen)
        allowed = self._allowed(available)
        if candidates is not None:
            rows = self._number(candidates, "candidates", "drop", len(numbered.given)).known
            indices, scores = self._rank(numbered, rows, excluded, allowed, k)
        else:
            indices, scores = self._search(numbered, excluded, allowed, k)
        status = [self._status(numbered, row) for row in range(len(numbered.given))]
        for row, state in enumerate(status):
            if state != "model":
                pool = None if candidates is None else rows.row(row)
                indices[row] = self._popular(k, excluded.row(row), allowed, pool)
                scores[row] = (1.0 / np.arange(1, len(indices[row]) + 1)).astype(np.float32)
        return Recommendations([self.catalogue.items.raw(i) for i in indices], scores, status, numbered.unknown)

    def score(
        self,
        histories: Sequence[Sequence[Any]],
        candidates: Sequence[Sequence[Any]],
        *,
        on_unknown: OnUnknown | None = None,
    ) -> list[Floats]:
        """The scores of given items.

        Args:
            histories: per row the raw ids of a user's items, oldest first.
            candidates: per row the raw ids to score, all of them known.
            on_unknown: what to do with unknown ids of the histories.

        Returns:
            Per row float32, as long as its candidates; for rows without a known history 1 / popularity rank.

        Raises:
            InputError: if a row or an id is not usable, an unknown candidate included.
            Unsupported: if the bundle cannot score.
        """
        numbered = self._histories(histories, on_unknown)
        rows = self._number(candidates, "candidates", "error", len(numbered.given)).known
        scores = self._scores(numbered.known, rows)
        rank = np.empty(self.semantics.num_items + 1, dtype=np.float32)
        rank[self.catalogue.cold_start] = 1.0 / np.arange(1, self.semantics.num_items + 1)
        return [
            scores[i, : rows.lengths[i]] if length else rank[rows.row(i)]
            for i, length in enumerate(numbered.known.lengths)
        ]

    def encode(self, histories: Sequence[Sequence[Any]], *, on_unknown: OnUnknown | None = None) -> Floats:
        """The model's state of each user, float32 (B, D); zeros for rows without a known item.

        Raises:
            InputError: if a row or an id is not usable.
            Unsupported: if the model has no user state of its own.
        """
        numbered = self._histories(histories, on_unknown)
        states = [
            self._run("encode", {"item_ids": self._window(numbered.known, rows)})["states"]
            for rows in self._chunks(numbered)
        ]
        encoded = np.concatenate(states)
        encoded[numbered.known.lengths == 0] = 0.0
        return encoded

    def selftest(self) -> None:
        """Replays the bundle's golden requests on this machine and device.

        Raises:
            InferenceError: if an answer differs from the recorded one by more than the tolerance.
        """
        require_equal(self._engine)

    def _histories(self, histories: Any, on_unknown: OnUnknown | None) -> Numbered:
        numbered = self._number(histories, "histories", on_unknown or self.manifest.defaults.on_unknown)
        if not self._warned:
            self._warned = warn_if_foreign(self.catalogue.items, numbered, histories)
        empty = np.flatnonzero(numbered.known.lengths == 0)
        if len(empty) and self.manifest.defaults.empty_history == "error":
            raise InputError(f"histories[{empty[0]}] holds no item of the catalogue", code="empty_history")
        return numbered

    def _number(self, rows: Any, field: str, on_unknown: OnUnknown, count: int | None = None) -> Numbered:
        numbered = number_rows(self.catalogue.items, rows, field, on_unknown)
        if count is not None and len(numbered.given) != count:
            raise InputError(f"{field} has {len(numbered.given)} rows for {count} histories", code="row_count")
        return numbered

    def _list_length(self, k: Any, from_candidates: bool) -> int:
        length = whole_number(k, "k", 1)
        k_max, num_items = self.semantics.k_max, self.semantics.num_items
        if length > k_max and k_max < num_items and not from_candidates:
            raise InputError(f"k ({k}) is above this bundle's {k_max}; export with --k-max {k}", code="k")
        return min(length, num_items)

    def _excluded(self, numbered: Numbered, exclude: Any, seen: bool) -> Ragged:
        rows = len(numbered.given)
        none = Ragged(np.zeros(0, np.int64), np.zeros(rows + 1, np.int64))
        history = numbered.known if seen else none
        if exclude is None:
            return history
        more = self._number(exclude, "exclude", "drop", rows).known
        return Ragged.from_rows([np.append(a, b) for a, b in zip(history.rows(), more.rows(), strict=True)])

    def _allowed(self, available: Any) -> NDArray[np.bool_]:
        if available is None:
            return self._everything
        allowed = np.zeros_like(self._everything)
        allowed[self._number([available], "available", "drop").known.values] = True
        return allowed

    def _search(
        self, numbered: Numbered, excluded: Ragged, allowed: NDArray[np.bool_], k: int
    ) -> tuple[list[Ints], list[Floats]]:
        """The best items of the whole catalogue, from the graph that ends in top-k."""
        indices: list[Ints] = []
        scores: list[Floats] = []
        for rows in self._chunks(numbered):
            exclude = excluded.slices(rows, np.zeros(len(rows), np.int64), excluded.lengths[rows]).pad()
            inputs = {"item_ids": self._window(numbered.known, rows), "exclude": exclude, "available": allowed}
            outputs = self._run("recommend", inputs)
            for row_items, row_scores in zip(outputs["items"], outputs["scores"], strict=True):
                real = int(np.sum(row_scores[:k] > -np.inf))
                indices.append(row_items[:real])
                scores.append(row_scores[:real])
        return indices, scores

    def _rank(
        self, numbered: Numbered, candidates: Ragged, excluded: Ragged, allowed: NDArray[np.bool_], k: int
    ) -> tuple[list[Ints], list[Floats]]:
        """The best of given items: higher score first, then the lower index, each item once."""
        scores = self._scores(numbered.known, candidates)
        best: list[Ints] = []
        best_scores: list[Floats] = []
        for row in range(len(candidates)):
            items, first = np.unique(candidates.row(row), return_index=True)
            keep = allowed[items] & ~np.isin(items, excluded.row(row))
            items, values = items[keep], scores[row, first[keep]]
            order = np.argsort(-values, kind="stable")[:k]
            best.append(items[order])
            best_scores.append(values[order])
        return best, best_scores

    def _scores(self, histories: Ragged, candidates: Ragged) -> Floats:
        """float32 (B, longest row of candidates)."""
        width = max(1, int(candidates.lengths.max(initial=0)))
        scores = [
            self._run(
                "score", {"item_ids": self._window(histories, rows), "candidates": candidates.pad(width, "right")[rows]}
            )
            for rows in _chunks(len(histories))
        ]
        return np.concatenate([output["scores"] for output in scores])

    def _popular(self, k: int, excluded: Ints, allowed: NDArray[np.bool_], pool: Ints | None) -> Ints:
        """The first ``k`` of the cold-start order that may be recommended."""
        free = allowed.copy()
        free[excluded] = False
        if pool is not None:
            inside = np.zeros_like(free)
            inside[pool] = True
            free &= inside
        order = self.catalogue.cold_start
        return order[free[order]][:k]

    def _run(self, graph: str, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        outputs = self._engine.run(graph, inputs)
        for name, values in outputs.items():
            if values.dtype.kind == "f" and bool(np.any(np.isnan(values) | (values == np.inf))):
                raise InferenceError(f"graph {graph!r} gave {name} that are no numbers", code="non_finite_scores")
        return outputs

    def _window(self, histories: Ragged, rows: Ints) -> Ints:
        """The newest items of the chosen rows, padded as the model was trained: (B, L)."""
        taken = histories.slices(rows, np.zeros(len(rows), np.int64), histories.lengths[rows])
        limit = self.semantics.max_seq_length
        longest = max(1, int(taken.lengths.max(initial=0)))
        length = limit if self.semantics.window == "fixed" else min(limit, longest)
        return taken.pad(length, self.semantics.padding)

    @staticmethod
    def _chunks(numbered: Numbered) -> Iterator[Ints]:
        return _chunks(len(numbered.given))

    @staticmethod
    def _status(numbered: Numbered, row: int) -> Status:
        if numbered.known.lengths[row]:
            return "model"
        return "all_unknown" if numbered.given[row] else "cold_start"


def require_equal(engine: Engine) -> dict[str, Difference]:
    """Replays the goldens and refuses to go on where they differ; returns the worst difference of each graph.

    Raises:
        InferenceError: naming the graph and the difference.
    """
    differences = engine.selftest()
    for graph, difference in differences.items():
        if not difference.same:
            raise InferenceError(
                f"graph {graph!r} answers the golden requests differently here: error {difference.error:.3g}, "
                f"{difference.excess:.1f} times the tolerance, in row {difference.row}",
                code="golden_mismatch",
            )
    return differences


def _chunks(count: int) -> Iterator[Ints]:
    """Row numbers, ``CHUNK`` at a time; one empty chunk where there are no rows, so that shapes come out right."""
    for start in range(0, max(count, 1), CHUNK):
        yield np.arange(start, min(start + CHUNK, count))

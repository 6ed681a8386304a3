"""Serving a recommender: raw ids in, raw ids and scores out."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec.histories import Catalogue, Ints, Ragged
from genrec_runtime.answers import Floats, Recommendations, Status
from genrec_runtime.batches import ROWS, chunks, rows_a_run, take, union
from genrec_runtime.bundle import Bundle
from genrec_runtime.engine import Engine
from genrec_runtime.errors import InferenceError, InputError, Unsupported
from genrec_runtime.golden import require_equal
from genrec_runtime.manifest import FP32, Semantics
from genrec_runtime.requests import (
    Numbered,
    OnUnknown,
    flag,
    list_length,
    number_list,
    number_rows,
    refuse,
    warn_if_foreign,
)

List = tuple[Ints, Floats]  # item indices, best first, and their scores


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
        self._popularity = np.zeros(semantics.num_items + 1, np.int64)  # an item's place in the cold-start order
        self._popularity[self.catalogue.cold_start] = np.arange(1, semantics.num_items + 1)
        self._rows_a_run = rows_a_run(semantics.num_items)
        self._warned = False

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        device: str = "auto",
        threads: int | None = None,
        variant: str = FP32,
        expect_digest: str | None = None,
    ) -> Recommender:
        """Opens, verifies and starts a bundle.

        Args:
            path: the bundle's folder, or a link to it such as ``store/current``.
            device: "cpu", "cuda", "cuda:N" are strict; "auto" takes a GPU if one starts, and warns if it does not.
            threads: threads within an operator on the CPU; None takes what the process may use.
            variant: "fp32", or a cheaper form that the bundle has, such as "fp16" or "int8".
            expect_digest: "sha256:..." of the manifest, to accept this bundle and no other.

        Raises:
            BundleError: if the bundle is missing, damaged or of a version not readable here.
            DeviceUnavailable: if a device asked for by name does not start.
            Unsupported: if the bundle has no such variant.
        """
        bundle = Bundle.open(path, variant=variant, expect_digest=expect_digest)
        return cls(bundle, Engine(bundle, device, threads, variant))

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
        if candidates is not None:
            self._need("score")
        defaults = self.manifest.defaults
        k = list_length(defaults.k if k is None else k, self.semantics, limited=candidates is None)
        seen = flag(defaults.exclude_seen if exclude_seen is None else exclude_seen, "exclude_seen")
        numbered = self._histories(histories, on_unknown)
        count = len(numbered.given)
        given = [numbered.known] * seen + ([] if exclude is None else [self._number(exclude, "exclude", count)])
        excluded = union(*given) if given else Ragged(np.zeros(0, np.int64), np.zeros(count + 1, np.int64))
        allowed = self._allowed(available)
        pools = None if candidates is None else union(self._number(candidates, "candidates", count))
        known = np.flatnonzero(numbered.known.lengths)  # the model sees only these: others it cannot answer
        if pools is None:
            lists = self._search(numbered.known, known, excluded, allowed, k)
        else:
            lists = self._rank(numbered.known, known, pools, excluded, allowed, k)
        answers = dict(zip(known.tolist(), lists, strict=True))
        if len(known) < count:
            answers |= self._popular(np.flatnonzero(numbered.known.lengths == 0), pools, excluded, allowed, k)
        return self._answer([answers[row] for row in range(count)], numbered)

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
        self._need("score")
        numbered = self._histories(histories, on_unknown)
        rows = self._number(candidates, "candidates", len(numbered.given), "error")
        known = np.flatnonzero(numbered.known.lengths)
        scores = dict(zip(known.tolist(), self._scores(numbered.known, known, rows), strict=True))
        for row in np.flatnonzero(numbered.known.lengths == 0).tolist():
            scores[row] = (1.0 / self._popularity[rows.row(row)]).astype(np.float32)
        return [scores[row] for row in range(len(rows))]

    def encode(self, histories: Sequence[Sequence[Any]], *, on_unknown: OnUnknown | None = None) -> Floats:
        """The model's state of each user, float32 (B, D); zeros for rows without a known item.

        Raises:
            InputError: if a row or an id is not usable.
            Unsupported: if the model has no user state of its own.
        """
        self._need("encode")
        numbered = self._histories(histories, on_unknown)
        known = np.flatnonzero(numbered.known.lengths)
        width = self.manifest.signature["encode"].outputs[0].axes[1]
        states = np.zeros((len(numbered.given), int(width)), np.float32)
        for rows in chunks(known, np.minimum(numbered.known.lengths, self.semantics.max_seq_length), ROWS):
            states[rows] = self._run("encode", {"item_ids": self._window(numbered.known, rows)})["states"]
        return states

    def selftest(self) -> None:
        """Replays the bundle's golden requests on this machine and device.

        Raises:
            BundleCorrupt: if the recorded requests are missing or damaged.
            InferenceError: if an answer differs from the recorded one by more than the tolerance.
        """
        require_equal(self._engine)

    def _need(self, graph: str) -> None:
        if graph not in self.manifest.graphs:
            raise Unsupported(f"this bundle has no graph {graph!r}; it has {', '.join(self.manifest.graphs)}")

    def _histories(self, histories: Any, on_unknown: OnUnknown | None) -> Numbered:
        policy = self.manifest.defaults.on_unknown if on_unknown is None else on_unknown
        numbered = number_rows(self.catalogue.items, histories, "histories", policy)
        if not self._warned:
            self._warned = warn_if_foreign(self.catalogue.items, numbered, stacklevel=3)
        empty = np.flatnonzero(numbered.known.lengths == 0)
        if len(empty) and self.manifest.defaults.empty_history == "error":
            raise InputError(f"histories[{empty[0]}] holds no item of the catalogue", code="empty_history")
        return numbered

    def _number(self, rows: Any, field: str, count: int, on_unknown: OnUnknown = "drop") -> Ragged:
        numbered = number_rows(self.catalogue.items, rows, field, on_unknown)
        if len(numbered.given) != count:
            raise InputError(f"{field} has {len(numbered.given)} rows for {count} histories", code="row_count")
        return numbered.known

    def _allowed(self, available: Any) -> NDArray[np.bool_]:
        if available is None:
            return self._everything
        allowed = np.zeros_like(self._everything)
        allowed[number_list(self.catalogue.items, available, "available")] = True
        return allowed

    def _search(
        self, histories: Ragged, rows: Ints, excluded: Ragged, allowed: NDArray[np.bool_], k: int
    ) -> list[List]:
        """For each of ``rows`` the best items of the whole catalogue, from the graph that ends in top-k."""
        lists: list[List] = []
        for part in chunks(rows, excluded.lengths, self._rows_a_run):
            inputs = {"item_ids": self._window(histories, part), "exclude": take(excluded, part).pad()}
            outputs = self._run("recommend", {**inputs, "available": allowed})
            items, scores = outputs["items"][:, :k].copy(), outputs["scores"][:, :k].copy()
            real = np.sum(scores > -np.inf, axis=1).tolist()  # what is masked stands last
            lists += [(items[i, :n], scores[i, :n]) for i, n in enumerate(real)]
        return lists

    def _rank(
        self, histories: Ragged, rows: Ints, pools: Ragged, excluded: Ragged, allowed: NDArray[np.bool_], k: int
    ) -> list[List]:
        """For each of ``rows`` the best of its pool: higher score first, then the lower index."""
        lists: list[List] = []
        for row, scores in zip(rows.tolist(), self._scores(histories, rows, pools), strict=True):
            items = pools.row(row)
            keep = allowed[items] & ~np.isin(items, excluded.row(row)) & (scores > -np.inf)
            items, scores = items[keep], scores[keep]
            order = np.argsort(-scores, kind="stable")[:k]
            lists.append((items[order], scores[order]))
        return lists

    def _popular(
        self, rows: Ints, pools: Ragged | None, excluded: Ragged, allowed: NDArray[np.bool_], k: int
    ) -> dict[int, List]:
        """For each of ``rows`` the first of the cold-start order that may be recommended, scored 1 / place."""
        lists: dict[int, List] = {}
        everything = self.catalogue.cold_start[allowed[self.catalogue.cold_start]]
        for row in rows.tolist():
            order, without = everything, excluded.row(row)
            if pools is not None:
                pool = pools.row(row)
                order = pool[allowed[pool]][np.argsort(self._popularity[pool[allowed[pool]]])]
            order = order[: k + len(without)]
            items = order[~np.isin(order, without)][:k]
            lists[row] = items, (1.0 / np.arange(1, len(items) + 1)).astype(np.float32)
        return lists

    def _scores(self, histories: Ragged, rows: Ints, candidates: Ragged) -> list[Floats]:
        """For each of ``rows`` the model's scores of its candidates."""
        scores: list[Floats] = []
        for part in chunks(rows, candidates.lengths, self._rows_a_run):
            inputs = {"item_ids": self._window(histories, part), "candidates": take(candidates, part).pad(side="right")}
            found = self._run("score", inputs)["scores"]
            scores += [found[i, :n].copy() for i, n in enumerate(candidates.lengths[part].tolist())]
        return scores

    def _answer(self, lists: list[List], numbered: Numbered) -> Recommendations:
        """Item indices as raw ids."""
        indices = Ragged.from_rows([items for items, _ in lists])
        try:
            raw = self.catalogue.items.raw(indices.values)
        except IndexError as error:
            raise InferenceError(f"the model gave items that do not exist: {error}", code="no_such_item") from error
        bounds = indices.offsets.tolist()
        items = [raw[start:end] for start, end in itertools.pairwise(bounds)]
        pairs = zip(numbered.known.lengths.tolist(), numbered.given.tolist(), strict=True)
        status: list[Status] = [
            "model" if known else "all_unknown" if given else "cold_start" for known, given in pairs
        ]
        return Recommendations(items, [scores for _, scores in lists], status, numbered.unknown)

    def _run(self, graph: str, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        outputs = self._engine.run(graph, inputs)
        for name, values in outputs.items():
            if values.dtype.kind == "f" and bool(np.any(np.isnan(values) | (values == np.inf))):
                raise InferenceError(f"graph {graph!r} gave {name} that are no numbers", code="non_finite_scores")
        return outputs

    def _window(self, histories: Ragged, rows: Ints) -> Ints:
        """The newest items of the chosen rows, padded as the model was trained: (B, L)."""
        taken = take(histories, rows)
        limit = self.semantics.max_seq_length
        longest = max(1, int(taken.lengths.max(initial=0)))
        length = limit if self.semantics.window == "fixed" else min(limit, longest)
        return taken.pad(length, self.semantics.padding)

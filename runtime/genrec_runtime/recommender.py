"""Serving a recommender: raw ids in, raw ids and scores out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from genrec.histories import Catalogue, Ints, Ragged, RawId
from genrec_runtime.answers import Floats, Recommendations, Status
from genrec_runtime.batches import union
from genrec_runtime.bundle import Bundle
from genrec_runtime.deadlines import seconds_left
from genrec_runtime.engine import Engine
from genrec_runtime.errors import InferenceError, InputError, Unsupported
from genrec_runtime.manifest import Semantics
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
from genrec_runtime.search import Bools, List, Search
from genrec_runtime.served import Served
from genrec_runtime.streams import batched

SHORT = 256  # excluded items: sorting out so few that occur twice takes longer than masking them twice


class Recommender(Served):
    """A loaded recommender bundle. Calls may come from any thread.

    Load one with ``Recommender.load``; the constructor takes what that has opened.

    Attributes:
        manifest: what the bundle says of itself.
        semantics: how its inputs are made and its outputs read.
        catalogue: its items, with titles where it has them.
        device_report: where it runs.
    """

    kind = "recommender"

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        super().__init__(bundle, engine)
        assert bundle.manifest.semantics is not None
        self.semantics: Semantics = bundle.manifest.semantics
        self.catalogue: Catalogue = bundle.catalogue()
        self._search = Search(engine, self.catalogue, self.semantics)
        self._everything = _sealed(np.arange(self.semantics.num_items + 1) > 0)
        self._available = self._everything
        self._warned = False

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
        deadline: float | None = None,
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
            available: the raw ids that may be recommended to anyone in this call, of those that ``set_available`` allows.
            exclude_seen: leave out what the (whole) history holds.
            on_unknown: "drop" ids that the catalogue lacks, or "error".
            deadline: an instant of ``time.monotonic()`` after which nobody waits for the answer.

        Raises:
            InputError: if a row, an id or an option is not usable; the message names it.
            Unsupported: if the model has no use for an argument.
            DeadlineExceeded: if the deadline passes first; no further work is begun then.
            InferenceError: if the model fails, or gives scores that are no numbers.
        """
        refuse(self.manifest.capabilities, {"users": users, "timestamps": timestamps, "request_time": request_time})
        if candidates is not None:
            self._need("score")
        if deadline is not None:
            seconds_left(deadline)
        defaults = self.manifest.defaults
        k = list_length(defaults.k if k is None else k, self.semantics, limited=candidates is None)
        seen = flag(defaults.exclude_seen if exclude_seen is None else exclude_seen, "exclude_seen")
        numbered = self._histories(histories, on_unknown)
        count = len(numbered.given)
        given = [numbered.known] * seen + ([] if exclude is None else [self._number(exclude, "exclude", count)])
        excluded = _joined(given, count)
        allowed = self._allowed(available)
        pools = None if candidates is None else union(self._number(candidates, "candidates", count))
        known = np.flatnonzero(numbered.known.lengths)  # the model sees only these: others it cannot answer
        if pools is None:
            lists = self._search.best(numbered.known, known, excluded, allowed, k, deadline)
        else:
            lists = self._search.rank(numbered.known, known, pools, excluded, allowed, k, deadline)
        if len(known) < count:
            answers = dict(zip(known.tolist(), lists, strict=True))
            others = np.flatnonzero(numbered.known.lengths == 0)
            popular = self._search.popular(others, pools, excluded, allowed, k)
            answers |= zip(others.tolist(), popular, strict=True)
            lists = [answers[row] for row in range(count)]
        return self._answer(lists, numbered)

    def recommend_iter(
        self,
        histories: Iterable[Sequence[Any]],
        *,
        k: int | None = None,
        available: Sequence[Any] | None = None,
        exclude_seen: bool | None = None,
        on_unknown: OnUnknown | None = None,
        batch_size: int = 256,
        progress: Callable[[int], object] | None = None,
    ) -> Iterator[Recommendations]:
        """Answers a stream of histories, of any length, in bounded memory: one batch is held at a time.

        Args:
            histories: any iterable of rows of raw ids, oldest first.
            k: as of ``recommend``.
            available: as of ``recommend``.
            exclude_seen: as of ``recommend``.
            on_unknown: as of ``recommend``.
            batch_size: rows answered at once.
            progress: called after each batch with how many rows are answered.

        Yields:
            The answer to each batch, in order. Where the stream fails, what came before is answered first, then its own
            error is raised.

        Raises:
            InputError: as ``recommend``; a note on it says where in the stream the batch begins.
        """
        done = 0
        for batch in batched(histories, batch_size):
            try:
                answer = self.recommend(
                    batch, k=k, available=available, exclude_seen=exclude_seen, on_unknown=on_unknown
                )
            except InputError as error:
                error.add_note(f"rows are counted from row {done} of the stream")
                raise
            done += len(batch)
            yield answer
            if progress is not None:
                progress(done)

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
        scores = dict(zip(known.tolist(), self._search.scores(numbered.known, known, rows), strict=True))
        for row in np.flatnonzero(numbered.known.lengths == 0).tolist():
            scores[row] = (1.0 / self._search.places(rows.row(row))).astype(np.float32)
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
        width = int(self.manifest.signature["encode"].outputs[0].axes[1])
        states = np.zeros((len(numbered.given), width), np.float32)
        states[known] = self._search.states(numbered.known, known, width)
        return states

    def similar(
        self, items: Sequence[Any], *, k: int | None = None, available: Sequence[Any] | None = None
    ) -> Recommendations:
        """The items whose vectors point most nearly the same way as a given item's, itself left out.

        Args:
            items: raw ids of the catalogue.
            k: how many for each.
            available: as of ``recommend``.

        Returns:
            A row an item, scored by the cosine of the angle, 1 at most.

        Raises:
            InputError: if an id is unknown or an option not usable.
            Unsupported: if the model has no item vectors.
        """
        self._need("similar")
        numbers = self._item_numbers(items)
        k = list_length(self.manifest.defaults.k if k is None else k, self.semantics, limited=True)
        given = Ragged(numbers, np.arange(len(numbers) + 1))
        lists = self._search.similar(numbers, self._allowed(available), k)
        return self._answer(lists, Numbered(given, given.lengths))

    def item_vectors(self, items: Sequence[Any] | None = None) -> Floats:
        """The model's vectors of items, float32 (n, D).

        Args:
            items: raw ids of the catalogue; None takes all, in the order of their numbers.

        Raises:
            InputError: if an id is unknown.
            Unsupported: if the model has no item vectors.
        """
        self._need("item_vectors")
        everything = np.arange(1, self.semantics.num_items + 1)
        return self._search.vectors(everything if items is None else self._item_numbers(items))

    @property
    def available(self) -> list[RawId] | None:
        """The raw ids that ``set_available`` allows; None where it allows all."""
        allowed = self._available
        return None if allowed is self._everything else self.catalogue.items.raw(np.flatnonzero(allowed))

    def set_available(self, items: Sequence[Any] | None) -> None:
        """From now on only these items may be recommended; calls under way keep what they began with.

        Args:
            items: raw ids, those that the catalogue lacks left out; None allows all again.

        Raises:
            InputError: if it is no flat list of ids.
        """
        self._available = self._everything if items is None else self._mask(items)

    def warmup(self, rows: int = 1) -> None:
        """Opens every graph and runs it, on a GPU in every shape that up to ``rows`` rows may take: later calls wait for nothing.

        Raises:
            ValueError: if ``rows`` is below 1.
        """
        if rows < 1:
            raise ValueError(f"rows ({rows}) must be at least 1")
        self._search.warmup(rows, self._available)

    def __reduce__(self) -> tuple[Any, ...]:
        limited = self._available is not self._everything
        return *super().__reduce__(), {"available": np.flatnonzero(self._available) if limited else None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["available"] is not None:
            mask = np.zeros_like(self._everything)
            mask[state["available"]] = True
            self._available = _sealed(mask)

    def _need(self, graph: str) -> None:
        if graph not in self.manifest.graphs:
            raise Unsupported(f"this bundle has no graph {graph!r}; it has {', '.join(self.manifest.graphs)}")

    def _histories(self, histories: Any, on_unknown: OnUnknown | None) -> Numbered:
        policy = self.manifest.defaults.on_unknown if on_unknown is None else on_unknown
        numbered = number_rows(self.catalogue.items, histories, "histories", policy)
        if not self._warned:
            self._warned = warn_if_foreign(self.catalogue.items, numbered, stacklevel=3)
        if self.manifest.defaults.empty_history == "error" and not numbered.known.lengths.all():
            row = int(np.argmin(numbered.known.lengths))
            message = f"histories[{row}] holds no item of the catalogue"
            raise InputError(message, code="empty_history", row=row, field="histories")
        return numbered

    def _number(self, rows: Any, field: str, count: int, on_unknown: OnUnknown = "drop") -> Ragged:
        numbered = number_rows(self.catalogue.items, rows, field, on_unknown)
        if len(numbered.given) != count:
            message = f"{field} has {len(numbered.given)} rows for {count} histories"
            raise InputError(message, code="row_count", field=field, value=len(numbered.given))
        return numbered.known

    def _item_numbers(self, items: Any) -> Ints:
        return number_list(self.catalogue.items, items, "items", "error")

    def _allowed(self, available: Any) -> Bools:
        return self._available if available is None else self._available & self._mask(available)

    def _mask(self, items: Any) -> Bools:
        mask = np.zeros_like(self._everything)
        mask[number_list(self.catalogue.items, items, "available")] = True
        return _sealed(mask)

    def _answer(self, lists: list[List], numbered: Numbered) -> Recommendations:
        """Item indices as raw ids."""
        try:
            raw = self.catalogue.items.raw(np.concatenate([np.zeros(0, np.int64), *(items for items, _ in lists)]))
        except IndexError as error:
            raise InferenceError(f"the model gave items that do not exist: {error}", code="no_such_item") from error
        bounds = itertools.accumulate((len(items) for items, _ in lists), initial=0)
        items = [raw[start:end] for start, end in itertools.pairwise(bounds)]
        pairs = zip(numbered.known.lengths.tolist(), numbered.given.tolist(), strict=True)
        status: list[Status] = [
            "model" if known else "all_unknown" if given else "cold_start" for known, given in pairs
        ]
        return Recommendations(items, [scores for _, scores in lists], status, numbered.unknown)


def _joined(parts: list[Ragged], rows: int) -> Ragged:
    """What all parts hold, row by row; an item may occur twice, but no row is much longer than it need be."""
    if not parts:
        return Ragged(np.zeros(0, np.int64), np.zeros(rows + 1, np.int64))
    return parts[0] if len(parts) == 1 and parts[0].lengths.max(initial=0) <= SHORT else union(*parts)


def _sealed(mask: Bools) -> Bools:
    """A mask that nobody can change, so that a device may keep its copy."""
    mask.setflags(write=False)
    return mask

"""Serving a recommender: raw ids in, raw ids and scores out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from genrec.histories import Catalogue, Ragged, RawId
from genrec_runtime.answers import Floats, Recommendations
from genrec_runtime.batches import joined, union
from genrec_runtime.bundle import Bundle
from genrec_runtime.deadlines import seconds_left
from genrec_runtime.engine import Engine
from genrec_runtime.errors import InputError, Unsupported
from genrec_runtime.manifest import Semantics
from genrec_runtime.reading import Reader, sealed
from genrec_runtime.requests import Numbered, OnUnknown, flag, list_length
from genrec_runtime.search import Bools, Search
from genrec_runtime.served import Served
from genrec_runtime.streams import batches_of


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
        self._reader = Reader(self.catalogue, bundle.manifest)
        self._search = Search(engine, self.catalogue, self.semantics)
        self._everything = sealed(np.arange(self.semantics.num_items + 1) > 0)
        self._available = self._everything

    def recommend(
        self,
        histories: Sequence[Sequence[Any]],
        *,
        k: int | None = None,
        users: Sequence[Any] | None = None,
        timestamps: Sequence[Sequence[int]] | None = None,
        request_time: Sequence[int | None] | None = None,
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
            users: per row the user's raw id, None where nobody is known; for models that read users, which take None for
                nobody at all.
            timestamps: per row the times of the history in whole seconds, never falling; for models that read times, which
                need them. Those of unknown ids are dropped with them.
            request_time: per row the time for which the answer is wanted, in whole seconds; where it is None, that of the
                newest known item.
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
        if candidates is not None:
            self._need("score")
        if deadline is not None:
            seconds_left(deadline)
        defaults = self.manifest.defaults
        k = list_length(defaults.k if k is None else k, self.semantics, limited=candidates is None)
        seen = flag(defaults.exclude_seen if exclude_seen is None else exclude_seen, "exclude_seen")
        further = {"users": users, "timestamps": timestamps, "request_time": request_time}
        numbered, read = self._reader.histories(histories, on_unknown, further)
        count = len(numbered.given)
        given = [numbered.known] * seen
        given += [] if exclude is None else [self._reader.rows(exclude, "exclude", count)]
        allowed = self._allowed(available)
        pools = None if candidates is None else union(self._reader.rows(candidates, "candidates", count))
        lists = self._search.lists(read, pools, joined(given, count), allowed, k, deadline)
        return self._reader.answer(lists, numbered)

    def recommend_iter(
        self,
        histories: Iterable[Sequence[Any]],
        *,
        k: int | None = None,
        users: Iterable[Any] | None = None,
        timestamps: Iterable[Sequence[int]] | None = None,
        request_time: Iterable[int | None] | None = None,
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
            users: a stream beside that of the histories, of what ``recommend`` takes a row; as long as it.
            timestamps: likewise.
            request_time: likewise.
            available: as of ``recommend``.
            exclude_seen: as of ``recommend``.
            on_unknown: as of ``recommend``.
            batch_size: rows answered at once.
            progress: called after each batch with how many rows are answered.

        Yields:
            The answer to each batch, in order. Where a stream fails, what came before is answered first, then its own
            error is raised.

        Raises:
            InputError: as ``recommend``; a note on it says where in the stream the batch begins. Also if one stream ends first.
        """
        beside: dict[str, Any] = {"users": users, "timestamps": timestamps, "request_time": request_time}
        streams = {"histories": histories} | {name: rows for name, rows in beside.items() if rows is not None}
        done = 0
        for batch in batches_of(streams, batch_size):
            try:
                answer = self.recommend(
                    **batch, k=k, available=available, exclude_seen=exclude_seen, on_unknown=on_unknown
                )
            except InputError as error:
                error.add_note(f"rows are counted from row {done} of the stream")
                raise
            done += len(answer)
            yield answer
            if progress is not None:
                progress(done)

    def score(
        self,
        histories: Sequence[Sequence[Any]],
        candidates: Sequence[Sequence[Any]],
        *,
        users: Sequence[Any] | None = None,
        timestamps: Sequence[Sequence[int]] | None = None,
        request_time: Sequence[int | None] | None = None,
        on_unknown: OnUnknown | None = None,
    ) -> list[Floats]:
        """The scores of given items.

        Args:
            histories: per row the raw ids of a user's items, oldest first.
            candidates: per row the raw ids to score, all of them known.
            users: as of ``recommend``.
            timestamps: as of ``recommend``.
            request_time: as of ``recommend``.
            on_unknown: what to do with unknown ids of the histories.

        Returns:
            Per row float32, as long as its candidates; for rows without a known history 1 / popularity rank.

        Raises:
            InputError: if a row or an id is not usable, an unknown candidate included.
            Unsupported: if the bundle cannot score, or the model has no use for an argument.
        """
        self._need("score")
        further = {"users": users, "timestamps": timestamps, "request_time": request_time}
        numbered, read = self._reader.histories(histories, on_unknown, further)
        rows = self._reader.rows(candidates, "candidates", len(numbered.given), "error")
        known = np.flatnonzero(numbered.known.lengths)
        scores = dict(zip(known.tolist(), self._search.scores(read, known, rows), strict=True))
        for row in np.flatnonzero(numbered.known.lengths == 0).tolist():
            scores[row] = (1.0 / self._search.places(rows.row(row))).astype(np.float32)
        return [scores[row] for row in range(len(rows))]

    def encode(
        self,
        histories: Sequence[Sequence[Any]],
        *,
        users: Sequence[Any] | None = None,
        timestamps: Sequence[Sequence[int]] | None = None,
        request_time: Sequence[int | None] | None = None,
        on_unknown: OnUnknown | None = None,
    ) -> Floats:
        """The model's state of each user, float32 (B, D); zeros for rows without a known item. Arguments as of ``recommend``.

        Raises:
            InputError: if a row or an id is not usable.
            Unsupported: if the model has no user state of its own, or no use for an argument.
        """
        self._need("encode")
        further = {"users": users, "timestamps": timestamps, "request_time": request_time}
        numbered, read = self._reader.histories(histories, on_unknown, further)
        known = np.flatnonzero(numbered.known.lengths)
        width = int(self.manifest.signature["encode"].outputs[0].axes[1])
        states = np.zeros((len(numbered.given), width), np.float32)
        states[known] = self._search.states(read, known, width)
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
        numbers = self._reader.items(items)
        k = list_length(self.manifest.defaults.k if k is None else k, self.semantics, limited=True)
        given = Ragged(numbers, np.arange(len(numbers) + 1))
        lists = self._search.similar(numbers, self._allowed(available), k)
        return self._reader.answer(lists, Numbered(given, given.lengths))

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
        return self._search.vectors(everything if items is None else self._reader.items(items))

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
        self._available = self._everything if items is None else self._reader.mask(items)

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
            self._available = sealed(mask)

    def _need(self, graph: str) -> None:
        if graph not in self.manifest.graphs:
            raise Unsupported(f"this bundle has no graph {graph!r}; it has {', '.join(self.manifest.graphs)}")

    def _allowed(self, available: Any) -> Bools:
        return self._available if available is None else self._available & self._reader.mask(available)

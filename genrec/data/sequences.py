"""Interactions turned into one history per user, the form that models are trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from genrec.data.columns import MICROSECONDS
from genrec.data.errors import DataError
from genrec.data.interactions import Interactions
from genrec.histories import Ints, ItemIds, Ragged, RawId, offsets_of


@dataclass(frozen=True, eq=False)
class SequenceData:
    """Every user's events in the order of time; events of one time keep the order of the file.

    Args:
        items: the numbering of the catalogue, 1..V.
        user_ids: (U,) raw user ids, sorted: int64, or objects that are all strings.
        events: for each user the numbers of the items, oldest first; N values in all.
        times: int64 (N,) in whole seconds, aligned with ``events.values``; None where only the order is known.
        titles: V readable titles in the order of the numbers, or None.
        source: where the data came from, for people.
        filters: what was left out on the way here, as JSON values.

    Raises:
        ValueError: if the parts do not fit each other.
    """

    items: ItemIds
    user_ids: NDArray[Any]
    events: Ragged
    times: Ints | None = None
    titles: tuple[str, ...] | None = None
    source: str = "arrays"
    filters: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values, size = self.events.values, len(self.items)
        if len(self.user_ids) != len(self.events):
            raise ValueError(f"there are {len(self.user_ids)} user_ids for {len(self.events)} rows of events")
        if len(values) and not (values.min() >= 1 and values.max() <= size):
            raise ValueError(f"events must lie in 1..{size}, got {values.min()} to {values.max()}")
        if self.times is not None and len(self.times) != len(values):
            raise ValueError(f"there are {len(self.times)} times for {len(values)} events")
        if self.titles is not None and len(self.titles) != size:
            raise ValueError(f"there are {len(self.titles)} titles for {size} items")

    @classmethod
    def from_interactions(cls, interactions: Interactions, titles: Mapping[Any, str] | None = None) -> SequenceData:
        """Numbers the items and groups the events by user.

        Args:
            interactions: the events, filtered as wanted.
            titles: raw item id to title; an id that it lacks is its own title. Ids that are ints on one side and
                strings on the other are compared as text.

        Raises:
            DataError: if there is no event, one user or one item only, or titles for none of the items.
        """
        if interactions.frame.is_empty():
            raise DataError(f"{interactions.source}: no events")
        keys = [name for name in ("user", "time") if name in interactions.frame.columns]
        frame = interactions.frame.sort(keys, maintain_order=True)
        users = frame["user"]
        starts = np.flatnonzero(users.ne(users.shift(1)).fill_null(True).to_numpy())
        user_ids = users.gather(starts).to_numpy(writable=True)
        items, numbers = _numbered(frame["item"])
        _check_more_than_one(interactions.source, user_ids, items)
        times = (frame["time"] // MICROSECONDS).to_numpy() if "time" in keys else None
        return cls(
            items,
            user_ids,
            Ragged(numbers, np.append(starts, len(numbers)).astype(np.int64)),
            times,
            None if titles is None else _titles_of(interactions.source, items, titles),
            interactions.source,
            dict(interactions.filters),
        )

    @property
    def event_times(self) -> Ragged | None:
        """The times as rows, like ``events``; None where only the order is known."""
        return None if self.times is None else Ragged(self.times, self.events.offsets)

    @cached_property
    def content_hash(self) -> str:
        """Hex sha256 over item ids, user ids, events and times, in order; not over titles, source and filters."""
        digest = hashlib.sha256(b"genrec-sequences-1")
        parts = [*_id_parts(np.array(self.items.all(), dtype=np.int64 if self.items.kind == "int" else object))]
        parts += [*_id_parts(self.user_ids), self.events.offsets, self.events.values]
        parts += [] if self.times is None else [self.times]
        for part in parts:
            content = np.ascontiguousarray(part if part.dtype == np.uint8 else part.astype("<i8", copy=False))
            digest.update(f"{len(content)} {content.dtype.str} ".encode())
            digest.update(content.data if len(content) else b"")
        return digest.hexdigest()


def _numbered(column: pl.Series) -> tuple[ItemIds, Ints]:
    """The catalogue of a column of raw ids, and every row's number in it."""
    distinct = column.unique().sort()  # polars sorts strings by UTF-8 bytes, which is by code point
    items = ItemIds(distinct.to_numpy() if column.dtype == pl.Int64 else distinct.to_list())
    if column.dtype == pl.Int64:
        return items, items.index(column.to_numpy())
    codes = column.cast(pl.Enum(distinct)).to_physical()
    return items, codes.cast(pl.Int64).to_numpy() + 1


def _check_more_than_one(source: str, user_ids: NDArray[Any], items: ItemIds) -> None:
    for name, ids in (("user", user_ids[:2].tolist()), ("item", items.all()[:2])):
        if len(ids) < 2:
            raise DataError(
                f"{source}: all events have the same {name}, {ids[0]!r}; a recommender needs at least two {name}s "
                f"(is {name}_col the right column?)"
            )


def _titles_of(source: str, items: ItemIds, titles: Mapping[Any, str]) -> tuple[str, ...]:
    raw: list[RawId] = items.all()
    if not any(value in titles for value in raw):  # ints here and strings there, perhaps
        texts = {str(key): title for key, title in titles.items()}
        if not any(str(value) in texts for value in raw):
            known = f"ids like {next(iter(titles))!r}" if titles else "nothing"
            raise DataError(
                f"{source}: none of the {len(raw)} items has a title; items are like {raw[0]!r}, titles are for {known}"
            )
        return tuple(texts.get(str(value), str(value)) for value in raw)
    return tuple(titles.get(value, str(value)) for value in raw)


def _id_parts(ids: NDArray[Any]) -> list[NDArray[Any]]:
    if ids.dtype != object:
        return [ids]
    encoded = [text.encode() for text in ids]
    lengths = np.array([len(text) for text in encoded], dtype=np.int64)
    return [offsets_of(lengths), np.frombuffer(b"".join(encoded), dtype=np.uint8)]

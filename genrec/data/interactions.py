"""Events as (user, item, time): read from files or arrays, checked, and filtered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from genrec.data.arrays import array_table
from genrec.data.columns import Role, as_ids, as_ratings, as_times, find_column
from genrec.data.errors import DataError
from genrec.data.tables import Table, column_names, read_columns
from genrec.histories import Ints

Dedup = Literal["first", "none"]


@dataclass(frozen=True, eq=False)
class Interactions:
    """Events in the order of their source.

    Args:
        frame: columns ``user`` and ``item`` (Int64 or String) and, if times are known, ``time`` (Int64 microseconds).
        source: where they came from, for people.
        filters: what was left out, as JSON values; ``events_read`` is how many events the source had.
    """

    frame: pl.DataFrame
    source: str
    filters: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.frame.height

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        user_col: str | None = None,
        item_col: str | None = None,
        time_col: str | None = None,
        rating_col: str | None = None,
        min_rating: float | None = None,
    ) -> Interactions:
        """Reads a CSV, TSV (both also with .gz) or Parquet file.

        Text ids are ints if all of the column are written as ints are (no leading zeros), else strings. Times are
        seconds, ISO dates or datetimes; without a zone they are UTC.

        Args:
            path: the file; its kind is told by its name.
            user_col: name of the users' column; None looks for a common name, likewise for the other columns.
            item_col: name of the items' column.
            time_col: name of the times' column.
            rating_col: name of the ratings' column; looked at only with ``min_rating``.
            min_rating: events with a lower rating are left out.

        Raises:
            DataError: if the file, a column or a value is missing or wrong; it names the file, the row and the column.
        """
        path = Path(path)
        names = column_names(path)
        wanted: dict[Role, str | None] = {"user": user_col, "item": item_col, "time": time_col}
        if min_rating is not None or rating_col is not None:
            wanted["rating"] = rating_col
        columns = {role: find_column(str(path), names, role, name) for role, name in wanted.items()}
        if len(set(columns.values())) < len(columns):
            raise DataError(f"{path}: one column is named twice: {', '.join(f'{k} {v!r}' for k, v in columns.items())}")
        return cls.from_table(read_columns(path, sorted(columns.values())), columns, min_rating)

    @classmethod
    def from_arrays(
        cls,
        users: Sequence[Any] | NDArray[Any],
        items: Sequence[Any] | NDArray[Any],
        times: Sequence[Any] | NDArray[Any] | None = None,
        *,
        source: str = "arrays",
    ) -> Interactions:
        """Takes events from three lists or arrays of one length.

        Args:
            users: raw user ids, all ints or all strings.
            items: raw item ids, all ints or all strings.
            times: seconds, datetimes (UTC if they name no zone), dates or ISO strings; None if the events are in order.
            source: what to call them in messages.

        Raises:
            DataError: if lengths differ, ids are missing or of mixed types, or a time cannot be read.

        >>> len(Interactions.from_arrays([1, 1, 2], ["a", "b", "a"], [10, 20, 15]))
        3
        """
        given = {"users": users, "items": items} | ({} if times is None else {"times": times})
        columns: dict[Role, str] = {"user": "users", "item": "items"}
        if times is not None:
            columns["time"] = "times"
        return cls.from_table(array_table(given, source), columns, None)

    @classmethod
    def from_table(cls, table: Table, columns: dict[Role, str], min_rating: float | None) -> Interactions:
        """Checks the columns of a table that was read; ``columns`` says which is which."""
        if table.frame.is_empty():
            raise DataError(f"{table.source}: no events")
        kept = [
            as_ids(table, columns["user"]).alias("user"),
            as_ids(table, columns["item"]).alias("item"),
        ]
        if "time" in columns:
            kept.append(as_times(table, columns["time"]).alias("time"))
        whole = cls(pl.DataFrame(kept), table.source, {"events_read": table.frame.height})
        if min_rating is None:
            return whole
        ratings = as_ratings(table, columns["rating"])
        frame = whole.frame.filter(ratings >= min_rating)
        if frame.is_empty():
            best = ratings.to_numpy().max()
            raise DataError(
                f"{table.source}: min_rating={min_rating:g} leaves none of {len(whole)} events; the highest is {best:g}"
            )
        return whole._filtered(frame, "min_rating", min_rating)

    def dedup(self, keep: Dedup = "first") -> Interactions:
        """Keeps the earliest event of each user and item; of equal times the one that stands first in the source.

        Args:
            keep: ``"first"``, or ``"none"`` to leave repeats in.

        Raises:
            ValueError: if ``keep`` is neither.
        """
        if keep not in ("first", "none"):
            raise ValueError(f"dedup ({keep!r}) must be 'first' or 'none'")
        frame = self.frame
        if keep == "first":
            users, items = _codes(frame["user"]), _codes(frame["item"])
            pairs = users * (int(items.max(initial=0)) + 1) + items
            if "time" in frame.columns:
                order = np.argsort(frame["time"].to_numpy(), kind="stable")
                _, first = np.unique(pairs[order], return_index=True)
                first = order[first]
            else:
                _, first = np.unique(pairs, return_index=True)
            frame = frame[np.sort(first)]
        return self._filtered(frame, "dedup", keep)

    def k_core(self, n: int) -> Interactions:
        """Leaves out users and items with fewer than ``n`` events, repeated until all that are left have as many.

        Args:
            n: fewest events of a user and of an item; 0 and 1 keep everything.

        Raises:
            ValueError: if ``n`` is negative.
            DataError: if nothing is left; it suggests a lower ``n``.
        """
        if n < 0:
            raise ValueError(f"k_core ({n}) must not be negative")
        if n < 2:
            return self._filtered(self.frame, "k_core", n)
        users, items = _codes(self.frame["user"]), _codes(self.frame["item"])
        kept = _core(users, items, n)
        if not len(kept):
            lower, upper = 1, n  # a core of 1 keeps all events, one of n none
            while upper - lower > 1:
                middle = (lower + upper) // 2
                lower, upper = (middle, upper) if len(_core(users, items, middle)) else (lower, middle)
            raise DataError(
                f"{self.source}: k_core={n} leaves none of {len(self)} events ({users.max() + 1} users, "
                f"{items.max() + 1} items); the highest that leaves any is k_core={lower}"
            )
        return self._filtered(self.frame if len(kept) == len(self) else self.frame[kept], "k_core", n)

    def _filtered(self, frame: pl.DataFrame, name: str, value: float | str) -> Interactions:
        return replace(self, frame=frame, filters=self.filters | {name: value})


def _codes(ids: pl.Series) -> Ints:
    """int64: whole numbers from 0 without gaps, equal where ids are equal."""
    if ids.dtype == pl.String:  # ranking text is many times slower
        return ids.cast(pl.Enum(ids.unique())).to_physical().cast(pl.Int64).to_numpy()
    return ids.rank("dense").cast(pl.Int64).to_numpy() - 1


def _core(users: Ints, items: Ints, n: int) -> Ints:
    """The rows of the n-core, rising."""
    rows = np.arange(len(users))
    while True:
        u, i = users[rows], items[rows]
        kept = (np.bincount(u)[u] >= n) & (np.bincount(i)[i] >= n) if len(rows) else np.ones(0, dtype=bool)
        if kept.all():
            return rows
        rows = rows[kept]

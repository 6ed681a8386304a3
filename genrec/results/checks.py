"""What can be wrong with predictions, found all at once, each with its count and the first examples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from genrec.data import Split
from genrec.histories import Ints

EXAMPLES = 3


@dataclass(frozen=True)
class Problem:
    """One kind of fault.

    Args:
        what: the fault in words.
        count: how often it was found.
        examples: the first ones.
    """

    what: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        shown = (
            f" ({'; '.join(self.examples)}{'; ...' if self.count > len(self.examples) else ''})"
            if self.examples
            else ""
        )
        return f"{self.what}: {self.count:,}{shown}"


def check_rows(rows: pl.DataFrame, split: Split) -> list[Problem]:
    """Users and items that are unknown, missing, repeated, or seen before.

    Args:
        rows: one a prediction: ``user`` and ``item`` in the split's types, ``as_user`` and ``as_item`` as the file has
            them; ``row`` and ``case`` of the user, ``number`` of the item; null where unknown.
        split: what they were held against.
    """
    asked = rows.drop_nulls(["case", "number"])
    pairs = asked["case"].to_numpy() * _base(split) + asked["number"].to_numpy()
    seen = asked.filter(pl.Series(np.isin(pairs, _seen_pairs(split)), dtype=pl.Boolean))
    predicted = np.zeros(len(split.test), dtype=bool)
    predicted[rows["case"].drop_nulls().to_numpy()] = True
    missing = pl.DataFrame({"as_user": split.data.user_ids[split.test.users[~predicted]].tolist()})
    repeats = asked.filter(pl.struct("case", "number").is_first_distinct().not_())
    return [
        *_problem("users that the split does not know", _distinct(rows, "row", "as_user"), "as_user"),
        *_problem("items that the split does not know", _distinct(rows, "number", "as_item"), "as_item"),
        *_problem("users of the test without any prediction", missing, "as_user"),
        *_problem("predictions of an item in the user's own history", seen, "as_user", "as_item"),
        *_problem("items that a user's list repeats", repeats, "as_user", "as_item"),
    ]


def check_order(rows: pl.DataFrame, by: str) -> list[Problem]:
    """Ranks that are no places 1, 2, 3 and so on, or scores that have no place in an order.

    Args:
        rows: as for ``check_rows``, with the rank or the score in a column named by ``by``; null where it is no number.
        by: "rank" or "score".
    """
    key = pl.col(by).cast(pl.Float64)
    finite = key.is_finite().fill_null(False)
    if by == "score":
        return _problem("scores that are no finite number", rows.filter(~finite), "as_user", "as_item")
    whole = finite & (key == key.floor()) & (key >= 1)
    places = rows.filter(whole)
    repeats = places.filter(pl.struct("as_user", by).is_first_distinct().not_())
    worst = places.group_by("as_user", maintain_order=True).agg(pl.col(by).max(), pl.len().alias("rows"))
    gaps = worst.join(repeats, on="as_user", how="anti").filter(pl.col(by) != pl.col("rows"))
    return [
        *_problem("ranks that are no whole number from 1 on", rows.filter(~whole), "as_user", "as_item"),
        *_problem("ranks that a user's list repeats", repeats, "as_user", by),
        *_problem("users whose ranks do not run 1, 2, 3 and so on without a gap", gaps, "as_user"),
    ]


def check_lists(lists: Ints, split: Split) -> tuple[list[Problem], list[str]]:
    """Lists that end before their width although the catalogue goes on.

    Args:
        lists: int64 (n, K), 0 where a list has ended.
        split: of whose test cases they are.

    Returns:
        A problem if no list reaches the width, since then the file was cut off before it; and else a note.
    """
    width, lengths = lists.shape[1], np.count_nonzero(lists, axis=1)
    seen = np.bincount(np.unique(_seen_pairs(split)) // _base(split), minlength=len(lists))
    short = lengths < np.minimum(width, len(split.data.items) - seen)
    count, longest = int(short.sum()), int(lengths.max())
    if count and longest < width:
        what = f"users with fewer than {width} items, where no list is longer than {longest}, the highest k to measure"
        return [Problem(what, count, ())], []
    shortest = int(lengths[short].min(initial=width))
    note = (
        f"{count:,} of {len(lists):,} users have fewer than {width} items, the fewest {shortest}; a target beyond the end "
        "of a list is a miss"
    )
    return [], [note] if count else []


def _base(split: Split) -> int:
    """What a case's number is multiplied by, so that it makes one whole number with that of an item."""
    return len(split.data.items) + 1


def _seen_pairs(split: Split) -> Ints:
    """Every (case, item) of the test cases' histories, as one number."""
    histories = split.histories(split.test)
    pairs: Ints = np.repeat(np.arange(len(histories)), histories.lengths) * _base(split) + histories.values
    return pairs


def _distinct(rows: pl.DataFrame, number: str, shown: str) -> pl.DataFrame:
    return rows.filter(pl.col(number).is_null()).unique(shown, keep="first", maintain_order=True)


def _problem(what: str, rows: pl.DataFrame, *shown: str) -> list[Problem]:
    if rows.is_empty():
        return []
    words = [name.removeprefix("as_") for name in shown]
    first = rows.head(EXAMPLES).select(shown).rows()
    examples = [", ".join(f"{word} {value!r}" for word, value in zip(words, row, strict=True)) for row in first]
    return [Problem(what, rows.height, tuple(examples))]

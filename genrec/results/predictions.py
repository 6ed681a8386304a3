"""Predictions of any code base: read, held against a split, and made into lists that are scored as a run's are.

What would make their means say something else than a run's is not mended but refused: everything found is told at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from genrec.data import DataError, Split
from genrec.data.columns import as_ids, find_column
from genrec.data.reading import read_split
from genrec.data.tables import Table, column_names, read_columns
from genrec.histories import Ints
from genrec.results.checks import Problem, check_lists, check_order, check_rows
from genrec.results.result import Result
from genrec.results.scoring import KS, RANKING, TIES, check_cut_offs, score_lists

ORDER_NAMES = {  # in lower case, letters and digits only
    "rank": ("rank", "ranking", "position", "place"),
    "score": ("score", "scores", "prediction", "pred", "relevance", "rating", "similarity", "probability"),
}


class PredictionsError(ValueError):
    """Predictions that cannot be scored as they are.

    Args:
        source: the file.
        problems: all that was found.
    """

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        super().__init__(source, problems)
        self.source, self.problems = source, tuple(problems)

    def __str__(self) -> str:
        return f"{self.source} is not scored: " + "; ".join(map(str, self.problems))


@dataclass(frozen=True, eq=False)
class Predictions:
    """Checked lists, one a test case.

    Args:
        lists: int64 (n, K), item numbers from best to worst, 0 where a list has ended.
        ties: what went first of equals.
        notes: what a reader of the means should know: ties, short lists, rows that were not asked for.
    """

    lists: Ints
    ties: str
    notes: tuple[str, ...]


def read_predictions(
    path: str | Path,
    split: Split,
    k: int,
    *,
    user_col: str | None = None,
    item_col: str | None = None,
    rank_col: str | None = None,
    score_col: str | None = None,
) -> Predictions:
    """Reads a file of user, item and rank or score, in any order of its rows.

    Ids must be written as the split has them: 17850 and "17850" are the same, 17850.0 and "017850" are not. Of equal
    scores the lower item number, the earlier in the sorted raw ids, goes first. Ranks run 1, 2, 3 and so on for each user.

    Args:
        path: a CSV, TSV (or .gz of them) or Parquet file.
        split: whose test cases are predicted.
        k: length K of the lists that are kept.
        user_col: name of the users' column; None looks for a common name, likewise for the next ones.
        item_col: name of the items' column.
        rank_col: name of the ranks' column, 1 for the best; if a file has ranks and scores, the ranks are taken.
        score_col: name of the scores' column, higher for the better; naming it takes it before any ranks.

    Raises:
        DataError: if the file or a column is missing or cannot be read.
        PredictionsError: if a user of the test or an item is unknown, repeated or missing, a list holds an item of its
            user's history, ranks have gaps, scores are no numbers, or no list is as long as ``k``.
        ValueError: if both ``rank_col`` and ``score_col`` are given.
    """
    path = Path(path)
    names = column_names(path)
    by, order = _order_column(str(path), names, rank_col, score_col)
    user = find_column(str(path), names, "user", user_col)
    item = find_column(str(path), names, "item", item_col)
    if len({user, item, order}) < 3:
        raise DataError(f"{path}: one column is named twice: user {user!r}, item {item!r}, {by} {order!r}")
    table = read_columns(path, sorted({user, item, order}))
    rows = _numbered(table, user, item, split).with_columns(_keys(table, order, by))
    asked = rows.drop_nulls("case")
    problems = [*check_rows(rows, split), *check_order(asked, by)]
    top = _top(asked, by, k)
    lists = np.zeros((len(split.test), k), dtype=np.int64)
    lists[top["case"].to_numpy(), top["place"].to_numpy()] = top["number"].to_numpy()
    short, notes = check_lists(lists, split)
    if problems or short:
        raise PredictionsError(str(path), problems or short)  # what was found before may be why lists are short
    ties = TIES if by == "score" else "as ranked in the file"
    return Predictions(lists, ties, (*_extra(rows), *(_ties(top) if by == "score" else ()), *notes))


def score_predictions(
    path: str | Path, folder: str | Path, *, ks: Sequence[int] = KS, name: str | None = None, **columns: str
) -> tuple[Result, tuple[str, ...]]:
    """Scores a file of predictions on the test cases of a split, as a run of ours is scored.

    Args:
        path: the file, as for ``read_predictions``.
        folder: of the split, written by ``genrec data split`` or ``write_split``.
        ks: cut-offs, each at least 1.
        name: what tables call the result; the file's name without its endings when None.
        columns: names of columns, as for ``read_predictions``.

    Returns:
        The result, and notes for its reader.

    Raises:
        DataError: if the split, the file or a column is missing or cannot be read.
        PredictionsError: if the predictions cannot be scored as they are.
        ValueError: if a cut-off is below 1, or both ``rank_col`` and ``score_col`` are given.
    """
    check_cut_offs(ks)
    split = read_split(folder)
    predictions = read_predictions(path, split, max(ks), **columns)
    metrics, values = score_lists(predictions.lists, split, split.test, ks)
    name = Path(path).name.partition(".")[0] if name is None else name
    users = split.data.user_ids[split.test.users]
    details: dict[str, Any] = {"model": None, "config": {}, "seed": None, "predictions": Path(path).name}
    protocol = split.protocol() | RANKING | {"ties": predictions.ties}
    return Result(name, metrics, users, values, protocol, details), predictions.notes


def _order_column(source: str, names: Sequence[str], rank: str | None, score: str | None) -> tuple[str, str]:
    """Whether the lists go by "rank" or by "score", and the column that says so."""
    if rank is not None and score is not None:
        raise ValueError(f"rank_col ({rank!r}) and score_col ({score!r}) say two orders; give one of them")
    listed = ", ".join(map(repr, names))
    for by, given in (("rank", rank), ("score", score)):
        if given is not None:
            if given not in names:
                raise DataError(f"{source}: no column {given!r} ({by}_col); the columns are {listed}")
            return by, given
    for by, common in ORDER_NAMES.items():
        found = [name for name in names if "".join(filter(str.isalnum, name.lower())) in common]
        if len(found) > 1:
            raise DataError(
                f"{source}: several columns may be the {by} ({', '.join(map(repr, found))}); name one by {by}_col"
            )
        if found:
            return by, found[0]
    raise DataError(
        f"{source}: no column of ranks or scores found; name it with rank_col or score_col (--rank-col, --score-col); "
        f"the columns are {listed}"
    )


def _numbered(table: Table, user: str, item: str, split: Split) -> pl.DataFrame:
    """The rows with raw ``user`` and ``item``; ``row`` and ``case`` of the user, ``number`` of the item; null if unknown."""
    data = split.data
    known = pl.Series("user", data.user_ids.tolist())
    cases = pl.DataFrame({"row": split.test.users, "case": np.arange(len(split.test))})
    users = pl.DataFrame({"user": known, "row": np.arange(len(known))}).join(cases, on="row", how="left")
    items = pl.DataFrame({"item": data.items.all(), "number": np.arange(1, len(data.items) + 1)})
    rows = pl.DataFrame(
        {"user": _ids(table, user, users["user"].dtype), "item": _ids(table, item, items["item"].dtype)}
    )
    rows = rows.with_columns(pl.Series("as_user", table.frame[user]), pl.Series("as_item", table.frame[item]))
    return rows.join(users, on="user", how="left", maintain_order="left").join(
        items, on="item", how="left", maintain_order="left"
    )


def _ids(table: Table, column: str, wanted: pl.DataType) -> pl.Series:
    """Raw ids in the split's type, null where one cannot be written in it; never by way of a float."""
    ids = as_ids(table, column)
    if ids.dtype == wanted or wanted == pl.String:
        return ids.cast(pl.String) if wanted == pl.String else ids
    ints = ids.cast(pl.Int64, strict=False)
    return pl.select(pl.when(ints.cast(pl.String) == ids).then(ints)).to_series()


def _keys(table: Table, column: str, by: str) -> pl.Series:
    """Ranks or scores as numbers, null where one is none."""
    values = table.frame[column]
    if not (values.dtype.is_numeric() or values.dtype == pl.String):
        raise DataError(f"{table.source}, column {column!r}: a {by} must be a number, not {values.dtype}")
    return (values.cast(pl.Float64, strict=False) if values.dtype == pl.String else values).alias(by)


def _top(asked: pl.DataFrame, by: str, k: int) -> pl.DataFrame:
    """The best k rows of each case in their order, with their ``place`` from 0; rows of unknown items close up."""
    known = asked.drop_nulls("number").sort("case", by, "number", descending=[False, by == "score", False])
    return known.with_columns(pl.int_range(pl.len()).over("case").alias("place")).filter(pl.col("place") < k)


def _extra(rows: pl.DataFrame) -> list[str]:
    extra = rows.filter(pl.col("case").is_null())["user"].n_unique()
    return [f"{extra:,} users of the file have no test case and are left out"] if extra else []


def _ties(top: pl.DataFrame) -> list[str]:
    tied = top.select((pl.len().over("case", "score") > 1).sum()).item()
    return [f"{tied:,} of {top.height:,} places share their score; the lower item number went first"] if tied else []

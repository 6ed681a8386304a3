"""Which column is which, and columns of raw values turned into ids, times and ratings, or refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import polars as pl

from genrec.data.errors import DataError
from genrec.data.tables import Table

Role = Literal["user", "item", "time", "rating", "title"]

NAMES: dict[Role, tuple[str, ...]] = {  # in lower case, letters and digits only
    "user": ("user", "userid", "customer", "customerid", "reviewerid", "visitorid", "shopper", "shopperid", "uid"),
    "item": (
        "item",
        "itemid",
        "iid",
        "movie",
        "movieid",
        "product",
        "productid",
        "stockcode",
        "sku",
        "asin",
        "parentasin",
    ),
    "time": ("timestamp", "time", "datetime", "date", "unixtime", "unixreviewtime", "eventtime", "invoicedate", "ts"),
    "rating": ("rating", "ratings", "stars", "overall"),
    "title": ("title", "titles", "name", "productname", "description"),
}
MICROSECONDS = 1_000_000  # times are held in these, so that events within a second keep their order
LAST_SECOND = 253_402_300_799  # the end of the year 9999; beyond it an int must be in milliseconds or finer
ISO = (
    r"^\s*(?<day>\d{4}-\d{2}-\d{2})(?:[T ](?<minute>\d{2}:\d{2})(?::(?<second>\d{2}(?:\.\d{1,9})?))?"
    r"\s*(?:(?<utc>[Zz])|(?<sign>[+-])(?<hours>\d{2}):?(?<minutes>\d{2})?)?)?\s*$"
)
TIME_FORMS = (
    "seconds since 1970, whole or decimal, or ISO dates or datetimes such as 2024-02-29 or 2024-02-29T12:30:00Z"
)


def find_column(source: str, columns: Sequence[str], role: Role, name: str | None) -> str:
    """The column that plays a role: the one named, else the only one with a common name for it.

    Raises:
        DataError: if the named one is missing, or none or several have a common name.
    """
    option = f"{role}_col"
    listed = ", ".join(map(repr, columns))
    if name is not None:
        if name not in columns:
            raise DataError(f"{source}: no column {name!r} ({option}); the columns are {listed}")
        return name
    found = [column for column in columns if "".join(filter(str.isalnum, column.lower())) in NAMES[role]]
    if len(found) == 1:
        return found[0]
    problem = (
        f"several columns may be the {role} ({', '.join(map(repr, found))})" if found else f"no {role} column found"
    )
    flag = "--" + option.replace("_", "-")
    raise DataError(f"{source}: {problem}; name it with {option} ({flag}); the columns are {listed}")


def as_ids(table: Table, column: str) -> pl.Series:
    """A column of raw ids as Int64 or String.

    Ids in a text are ints if every one is written as an int would be (no leading zero, no "+", within 64 bits), so that
    each comes back as it was; else all are strings. Elsewhere the column's type decides.

    Raises:
        DataError: if an id is missing, or ids are neither ints nor strings.
    """
    values = table.frame[column]
    if values.dtype in (pl.Categorical, pl.Enum):
        values = values.cast(pl.String)
    if not (values.dtype.is_integer() or values.dtype == pl.String):
        raise DataError(f"{table.source}, column {column!r}: ids must be ints or strings, not {values.dtype}")
    missing = values.is_null() | (values == "") if values.dtype == pl.String else values.is_null()
    if missing.any():
        raise table.error(column, _first(missing), "the id is missing")
    if values.dtype == pl.String:
        canonical = table.is_text and bool(values.str.contains(r"^(0|-?[1-9]\d{0,18})$").all())
        ints = values.cast(pl.Int64, strict=False) if canonical else None
        return values if ints is None or ints.null_count() else ints
    ints = values.cast(pl.Int64, strict=False)
    if ints.null_count():
        row = _first(ints.is_null())
        raise table.error(column, row, f"the id {values[row]} does not fit 64 bits with a sign")
    return ints


def as_times(table: Table, column: str) -> pl.Series:
    """A column of times as Int64 microseconds since 1970; times without a zone are UTC.

    Raises:
        DataError: if a time is missing, cannot be read, or lies beyond the year 9999 (milliseconds taken for seconds).
    """
    values = table.frame[column]
    if values.null_count():
        raise table.error(column, _first(values.is_null()), "the time is missing")
    if isinstance(values.dtype, (pl.Date, pl.Datetime)):
        return values.dt.epoch("us")
    if values.dtype == pl.String:
        values = _text_times(table, column)
        if isinstance(values.dtype, pl.Datetime):
            return values.dt.epoch("us")
    if not (values.dtype.is_integer() or values.dtype.is_float()):
        raise DataError(f"{table.source}, column {column!r}: {values.dtype} is no time; expected {TIME_FORMS}")
    seconds = values.cast(pl.Float64 if values.dtype.is_float() else pl.Int64, strict=False)
    fitting = seconds.is_between(-LAST_SECOND, LAST_SECOND).fill_null(False)  # NaN is not between
    if not fitting.all():
        row = _first(~fitting)
        hint = " (milliseconds? divide by 1000)" if math.isfinite(values[row]) else ""
        raise table.error(column, row, f"{values[row]} is no time in seconds up to the year 9999{hint}")
    if seconds.dtype == pl.Float64:
        return (seconds * MICROSECONDS).round().cast(pl.Int64)
    return seconds * MICROSECONDS


def as_ratings(table: Table, column: str) -> pl.Series:
    """A column of ratings as Float64.

    Raises:
        DataError: if one is missing or no number.
    """
    values = table.frame[column]
    numeric = values.dtype.is_numeric() or values.dtype == pl.String
    if not numeric:
        raise DataError(f"{table.source}, column {column!r}: ratings must be numbers, not {values.dtype}")
    ratings = values.cast(pl.Float64, strict=False).fill_nan(None)
    if ratings.null_count():
        row = _first(ratings.is_null())
        what = "the rating is missing" if values[row] is None else f"{values[row]!r} is no number"
        raise table.error(column, row, what)
    return ratings


def _text_times(table: Table, column: str) -> pl.Series:
    """A column of text as ints, floats or datetimes, whichever takes all of it."""
    values = table.frame[column]
    readings = []
    for read in (_ints, _floats, _iso):
        readings.append(read(values))
        if not readings[-1].null_count():
            return readings[-1]
    row = _first(min(readings, key=pl.Series.null_count).is_null())
    raise table.error(column, row, f"{values[row]!r} is no time; expected {TIME_FORMS}, one form in all rows")


def _ints(values: pl.Series) -> pl.Series:
    return values.cast(pl.Int64, strict=False)


def _floats(values: pl.Series) -> pl.Series:
    return values.cast(pl.Float64, strict=False)


def _iso(values: pl.Series) -> pl.Series:
    """UTC datetimes from ISO dates and datetimes, null where a value is none."""
    parts = pl.DataFrame({"text": values}).select(pl.col("text").str.extract_groups(ISO).alias("p")).unnest("p")
    minute, second = pl.col("minute").fill_null("00:00"), pl.col("second").fill_null("00")
    text = pl.concat_str("day", pl.lit(" "), minute, pl.lit(":"), second)
    local = text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)
    east = pl.duration(hours=pl.col("hours").cast(pl.Int64), minutes=pl.col("minutes").cast(pl.Int64).fill_null(0))
    offset = pl.when(pl.col("sign") == "-").then(-east).otherwise(east).fill_null(pl.duration())
    return parts.select(local - offset).to_series()


def _first(wrong: pl.Series) -> int:
    row = wrong.arg_max()
    assert row is not None
    return row

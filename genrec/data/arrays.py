"""Lists and arrays as the columns of a table, with mixed types refused before anything converts them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from genrec.data.errors import DataError
from genrec.data.tables import Table

KINDS = ("int", "str", "float", "datetime", "date")


def array_table(columns: dict[str, Sequence[Any] | NDArray[Any]], source: str) -> Table:
    """A table of named lists or arrays.

    Raises:
        DataError: if they differ in length, are not flat, or one mixes ints, strings or other types.
    """
    series = [_series(name, values, source) for name, values in columns.items()]
    lengths = {column.name: len(column) for column in series}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"{source}: lengths differ: {listed}")
    return Table(pl.DataFrame(series), source, lambda row: f"place {row} (from 0)", is_text=False)


def _series(name: str, values: Any, source: str) -> pl.Series:
    if isinstance(values, pl.Series) and values.dtype != pl.Object:
        return values.alias(name)
    if not isinstance(values, (list, tuple, pl.Series)):
        values = np.asarray(values)
        if values.ndim != 1:
            raise DataError(f"{source}: {name} must be flat, got {values.ndim} axes")
        if values.dtype.kind in "iufM":
            return _plain(name, values)
    return _checked(name, values.tolist() if hasattr(values, "tolist") else list(values), source)


def _plain(name: str, values: NDArray[Any]) -> pl.Series:
    if values.dtype.kind == "M":
        values = values.astype("datetime64[us]")
    return pl.Series(name, np.ascontiguousarray(values))


def _checked(name: str, values: list[Any], source: str) -> pl.Series:
    kinds = {kind: _kind(kind) for kind in set(map(type, values)) - {type(None)}}
    first: dict[str, Any] = {}
    for kind, label in kinds.items():
        first.setdefault(label, next(i for i, value in enumerate(values) if type(value) is kind))
    for label, place in first.items():
        if label not in KINDS:
            raise DataError(f"{source}, {name}, place {place}: cannot take {values[place]!r} ({label})")
    if len(first) > 1 and set(first) != {"int", "float"}:
        (one, i), (other, j) = sorted(first.items(), key=lambda entry: entry[1])[:2]
        raise DataError(
            f"{source}, {name}: mixes types: {values[i]!r} ({one}, place {i}) and {values[j]!r} ({other}, place {j}); "
            "make all of them ints or all of them strings"
        )
    try:
        return pl.Series(name, list(_uniform(values, set(first))), dtype=None if values else pl.Int64)
    except (OverflowError, TypeError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{source}, {name}: {str(error).splitlines()[0]}") from error


def _uniform(values: list[Any], labels: set[str]) -> Iterable[Any]:
    """Plain Python values of one type, datetimes without a zone meaning UTC."""
    if labels == {"datetime"}:
        return (value.astimezone(UTC).replace(tzinfo=None) if value and value.tzinfo else value for value in values)
    if "float" in labels:
        return (value if value is None else float(value) for value in values)
    return (value.item() if isinstance(value, np.generic) else value for value in values)


def _kind(kind: type) -> str:
    for label, types in {
        "bool": (bool, np.bool_),
        "int": (int, np.integer),
        "float": (float, np.floating),
        "str": (str,),
        "datetime": (datetime,),
        "date": (date,),
    }.items():
        if issubclass(kind, types):
            return label
    return kind.__name__

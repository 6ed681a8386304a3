"""Histories in Parquet files: what they hold, and a range of their rows at a time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from genrec.histories import Ints
from genrec_runtime.errors import InputError

if TYPE_CHECKING:
    from polars import DataFrame, DataType, Series

MAGIC = b"PAR1"
TAIL = 8  # bytes: the footer's length and the magic


def import_polars() -> ModuleType:
    """polars, which this package needs and the runtime does not.

    Raises:
        ImportError: if it is not installed, with the command that installs it.
    """
    try:
        import polars
    except ImportError as error:
        raise ImportError(f"Parquet needs polars ({error}); install it with: pip install 'genrec[batch]'") from error
    return polars


def parquet_files(source: str | os.PathLike[str]) -> list[Path]:
    """One file, or the ``*.parquet`` of a folder in the order of their names.

    Raises:
        InputError: if there is none.
    """
    path = Path(source).resolve()
    if path.is_file():
        return [path]
    files = sorted(path.glob("*.parquet"))
    if not files:
        what = "holds no *.parquet file" if path.is_dir() else "does not exist"
        raise InputError(f"{source} {what}", code="table", field="source", value=str(source))
    return files


def footer_hash(file: Path) -> str:
    """The sha256 of a Parquet file's footer, which states its schema, its row groups, their sizes and places.

    Raises:
        InputError: if it is no whole Parquet file.
    """
    size = file.stat().st_size
    with open(file, "rb") as stream:
        stream.seek(max(0, size - TAIL))
        tail = stream.read(TAIL)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != MAGIC or length + TAIL > size:
            raise _unreadable(file, "it does not end as a Parquet file does")
        stream.seek(size - TAIL - length)
        return hashlib.sha256(stream.read(length)).hexdigest()


def count_rows(file: Path) -> int:
    """How many rows a Parquet file has, by its footer.

    Raises:
        InputError: if it cannot be read.
    """
    pl = import_polars()
    try:
        return int(_scan(file).select(pl.len()).collect().item())
    except pl.exceptions.PolarsError as error:
        raise _unreadable(file, error) from error


def schema_of(file: Path) -> dict[str, DataType]:
    """The columns of a Parquet file and their types.

    Raises:
        InputError: if it cannot be read.
    """
    pl = import_polars()
    try:
        return dict(_scan(file).collect_schema())
    except pl.exceptions.PolarsError as error:
        raise _unreadable(file, error) from error


def read_rows(file: Path, start: int, stop: int, columns: Sequence[str]) -> DataFrame:
    """The rows ``start`` to ``stop`` of some columns. Pages of other rows are passed over, whatever the row groups' size.

    Args:
        file: a Parquet file.
        start: the first row, from 0.
        stop: the row after the last.
        columns: the columns to read.

    Raises:
        InputError: if these rows cannot be read.
    """
    pl = import_polars()
    try:
        frame: DataFrame = _scan(file).select(columns).slice(start, stop - start).collect()
    except pl.exceptions.PolarsError as error:
        raise _unreadable(file, f"rows {start} to {stop}: {error}") from error
    if len(frame) != stop - start:
        raise _unreadable(file, f"it has {start + len(frame)} rows, not {stop} or more")
    return frame


def lists(name: str, values: Series, lengths: Ints) -> Series:
    """A column of lists: ``values`` one after the other, cut to ``lengths``; several times quicker than from Python's lists."""
    pl = import_polars()
    rows = np.arange(len(lengths))
    cut = pl.DataFrame({"row": np.repeat(rows, lengths), name: values}).group_by("row", maintain_order=True).agg(name)
    every = pl.DataFrame({"row": rows}).join(cut, on="row", how="left", maintain_order="left")
    column: Series = every[name].fill_null([])  # rows of length 0
    return column


def values_of(column: Series) -> list[Any]:
    """A column as Python values: categories as texts, dates as whole seconds since 1970 (UTC), rounded down."""
    pl = import_polars()
    kind, listed = kind_of(column.dtype), is_list(column.dtype)
    if isinstance(column.dtype, pl.Array):
        column = column.arr.to_list()
    if kind == "str":
        column = column.cast(pl.List(pl.String) if listed else pl.String)
    elif kind == "time":
        column = column.list.eval(pl.element().dt.epoch("s")) if listed else column.dt.epoch("s")
    return column.to_list()


def is_list(dtype: DataType) -> bool:
    """Whether each row holds several values."""
    pl = import_polars()
    return isinstance(dtype, (pl.List, pl.Array))


def kind_of(dtype: DataType) -> str:
    """What a column holds, in lists or alone: "int", "str", "time", "nothing", else polars' name of it."""
    pl = import_polars()
    inner = _inner(dtype)
    if inner.is_integer():
        return "int"
    if isinstance(inner, (pl.String, pl.Categorical, pl.Enum)):
        return "str"
    if isinstance(inner, (pl.Datetime, pl.Date)):
        return "time"
    return "nothing" if isinstance(inner, pl.Null) else str(inner)


def check_column(
    schema: Mapping[str, DataType], name: str, role: str, kinds: Sequence[str], *, listed: bool, hint: str = ""
) -> None:
    """Refuses a column that can never be what it is to be.

    Args:
        schema: of the file.
        name: the column.
        role: what it is to be, for the message.
        kinds: what its entries may be, as by ``kind_of``.
        listed: whether each row holds a list.
        hint: what to do.

    Raises:
        InputError: saying what the column holds.
    """
    dtype = schema[name]
    kind = kind_of(dtype)
    if kind == "nothing" or (is_list(dtype) == listed and kind in kinds):
        return
    wanted = f"{'lists of ' if listed else ''}{' or '.join(kinds)}"
    message = f"column {name!r}, taken for the {role}, holds {dtype}; it must hold {wanted}{hint}"
    raise InputError(message, code="table", field=role, value=str(dtype))


def _inner(dtype: Any) -> Any:
    return dtype.inner if is_list(dtype) else dtype


def _scan(file: Path) -> Any:
    return import_polars().scan_parquet(file, glob=False, hive_partitioning=False)


def _unreadable(file: Path, reason: object) -> InputError:
    text = " ".join(str(reason).split())[:300]
    return InputError(f"{file} cannot be read: {text}", code="table", field="source", value=str(file))

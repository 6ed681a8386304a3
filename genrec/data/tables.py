"""Columns out of CSV, TSV (gzipped too) and Parquet files, with the place of every row for messages."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import polars as pl

from genrec.data.errors import DataError

Read = TypeVar("Read")
SEPARATORS = {".csv": ",", ".tsv": "\t"}
KINDS = ".csv, .tsv, .csv.gz, .tsv.gz or .parquet"


@dataclass(frozen=True)
class Table:
    """Columns of one source.

    Args:
        frame: the columns; those of text are strings, with null where a field is empty.
        source: the file's name.
        place: row number of ``frame`` (from 0) to words such as "line 17".
        is_text: whether the source is text, so that the types of its columns are for us to find.
    """

    frame: pl.DataFrame
    source: str
    place: Callable[[int], str]
    is_text: bool

    def error(self, column: str, row: int, what: str) -> DataError:
        """An error that says where it is."""
        return DataError(f"{self.source}, {self.place(row)}, column {column!r}: {what}")


def column_names(path: Path) -> list[str]:
    """The names of a file's columns.

    Raises:
        DataError: if the file is missing, empty, of an unknown kind or not what its name says.
    """
    separator = _separator(path)
    if separator is None:
        return list(_parquet(path, lambda: pl.read_parquet_schema(path)))
    return _header(path, separator)


def read_columns(path: Path, columns: Sequence[str]) -> Table:
    """Reads some columns of a file, in the file's row order.

    Raises:
        DataError: as for ``column_names``, and if the file has no rows or a row does not fit the header.
    """
    separator = _separator(path)
    if separator is None:
        frame = _parquet(path, lambda: pl.read_parquet(path, columns=list(columns)))
        table = Table(frame, str(path), lambda row: f"row {row + 1}", is_text=False)
    else:
        table = _read_csv(path, separator, columns)
    if table.frame.is_empty():
        raise DataError(f"{path}: has columns but no rows")
    return table


def _separator(path: Path) -> str | None:
    """The character between fields, None for Parquet; also checks that there is a file of a known kind."""
    name = path.name.lower().removesuffix(".gz")
    known = Path(name).suffix in SEPARATORS or path.suffix.lower() == ".parquet"
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if not path.is_file():
        raise DataError(f"{path}: is a folder, not a file")
    if not known:
        raise DataError(f"{path}: unknown kind of file {path.suffix!r}; expected {KINDS}")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty")
    return SEPARATORS.get(Path(name).suffix)


def _parquet(path: Path, read: Callable[[], Read]) -> Read:
    try:
        return read()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {_first_line(error)}") from error


def _header(path: Path, separator: str) -> list[str]:
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as lines:
            names = next((fields for fields in csv.reader(lines, delimiter=separator) if fields), [])
    except UnicodeDecodeError:
        raise _not_utf8(path, _content(path)) from None
    except (EOFError, zlib.error, OSError, csv.Error) as error:
        raise _damaged(path, error) from error
    if not names:
        raise DataError(f"{path}: the file is empty")
    for name, count in Counter(names).items():
        if count > 1:
            raise DataError(f"{path}, line 1: the column name {name!r} occurs {count} times")
    return names


def _content(path: Path) -> bytes:
    """The text of a CSV, unpacked, without blank lines at its end."""
    try:
        content = path.read_bytes()
        if path.suffix.lower() == ".gz":
            content = gzip.decompress(content)
    except (EOFError, zlib.error, OSError) as error:
        raise _damaged(path, error) from error
    return content.rstrip(b"\r\n") + b"\n" if content.endswith((b"\n\n", b"\r\n\r\n")) else content


def _read_csv(path: Path, separator: str, columns: Sequence[str]) -> Table:
    content = _content(path)
    try:
        frame = pl.read_csv(content, separator=separator, infer_schema=False, columns=list(columns))
    except pl.exceptions.PolarsError as error:
        raise _csv_error(path, content, separator, error) from error
    frame = frame.select(pl.col(name).replace("", None) for name in columns)
    if frame.select(pl.all_horizontal(pl.all().is_null()).any()).item():
        blank = [not fields for fields in _records(content, separator)]
        frame = frame.filter(~pl.Series(blank))  # rows of empty fields stay, to be complained about
    return Table(frame, str(path), lambda row: f"line {_line(content, separator, row)}", is_text=True)


def _records(content: bytes, separator: str) -> Iterator[list[str]]:
    """The fields of every record under the header, none for a blank line; slow, for complaints and odd files only."""
    text = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="")
    reader = csv.reader(text, delimiter=separator)
    next(fields for fields in reader if fields)
    yield from reader


def _line(content: bytes, separator: str, row: int) -> int:
    """The line (from 1) on which the record of a row ends; quoted line breaks and blank lines are counted."""
    text = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="")
    reader = csv.reader(text, delimiter=separator)
    rows = (fields for fields in reader if fields)
    next(islice(rows, row + 1, None))  # one more for the header
    return reader.line_num


def _csv_error(path: Path, content: bytes, separator: str, error: Exception) -> DataError:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return _not_utf8(path, content)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    width = 0
    with suppress(csv.Error):
        for fields in reader:
            width = width or len(fields)
            if len(fields) > width:
                return DataError(f"{path}, line {reader.line_num}: {len(fields)} fields under a header of {width}")
    return DataError(f"{path}: not readable as text in columns, a quote may be open: {_first_line(error)}")


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: cannot be read, it may be cut off or damaged: {_first_line(error)}")


def _not_utf8(path: Path, content: bytes) -> DataError:
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return DataError(f"{path}, line {line}: byte {content[error.start]:#04x} is not UTF-8; save the file as UTF-8")
    raise AssertionError("called for text that is UTF-8")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

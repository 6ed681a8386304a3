"""Public data sets, fetched from their publishers into a cache.

The addresses are those that the publishers state, but the project's tests fetch from the machine's own loopback only:
a small zip of each layout, served by the test itself. No test has fetched the real files.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from xml.etree import ElementTree

import polars as pl

from genrec.data.columns import Role
from genrec.data.errors import DataError
from genrec.data.interactions import Interactions
from genrec.data.tables import Table
from genrec.data.workbook import read_rows, unix_seconds
from genrec.histories import RawId

Parts = tuple[pl.DataFrame, dict[RawId, str]]  # events as text columns user, item, time, perhaps rating; titles
GROUPLENS = "https://files.grouplens.org/datasets/movielens/"
TIMEOUT = 60  # seconds without an answer
CHUNK = 1 << 16  # bytes


@dataclass(frozen=True)
class DataSet:
    """One data set and where it is.

    Args:
        url: address of its zip file.
        md5: what the publisher says the file's MD5 is, or None where none is stated.
        read: takes the opened zip apart.
    """

    url: str
    md5: str | None
    read: Callable[[zipfile.ZipFile], Parts]


def read_dataset(
    name: str, *, min_rating: float | None = None, cache: Path | None = None
) -> tuple[Interactions, dict[RawId, str]]:
    """The events and titles of a data set, fetched if they are not in the cache.

    Args:
        name: one of ``DATASETS``.
        min_rating: events with a lower rating are left out.
        cache: where downloads are kept; the user's cache folder when None.

    Raises:
        DataError: if it cannot be fetched, is damaged, or has no ratings where ``min_rating`` is given.
    """
    path = fetch(name, cache)
    try:
        with zipfile.ZipFile(path) as packed:
            frame, titles = DATASETS[name].read(packed)
    except (zipfile.BadZipFile, KeyError, EOFError, ElementTree.ParseError, pl.exceptions.PolarsError) as error:
        path.unlink()
        raise DataError(f"{name}: {path} was damaged ({error}) and has been deleted; try again") from error
    if min_rating is not None and "rating" not in frame.columns:
        raise DataError(f"{name}: min_rating={min_rating:g} needs ratings, which this data set lacks")
    columns: dict[Role, str] = {"user": "user", "item": "item", "time": "time", "rating": "rating"}
    table = Table(frame, name, lambda row: f"event {row + 1}", is_text=True)
    return Interactions.from_table(table, columns, min_rating), titles


def fetch(name: str, cache: Path | None = None) -> Path:
    """The path of a data set's zip file, downloaded if it is not there; progress goes to standard error.

    Tested against a server on loopback only, see the module's text.

    Raises:
        DataError: if the network or the publisher does not answer, or the file is not the one that was published.
        ImportError: if pooch is not installed.
    """
    try:
        import pooch
        import requests
    except ModuleNotFoundError as error:
        raise ImportError("fetching data sets needs pooch; install it with: pip install 'genrec[train]'") from error

    data = DATASETS[name]
    pooch.get_logger().setLevel("WARNING")  # at INFO it explains hashes to the user
    try:
        path = pooch.retrieve(
            data.url,
            known_hash=data.md5 and f"md5:{data.md5}",
            fname=f"{name}.zip",
            path=cache or pooch.os_cache("genrec"),
            downloader=pooch.HTTPDownloader(progressbar=_Progress(name, sys.stderr), timeout=TIMEOUT, chunk_size=CHUNK),
        )
    except requests.RequestException as error:
        status = "no answer" if error.response is None else f"status {error.response.status_code}"
        raise DataError(f"{name}: cannot be fetched from {data.url} ({status}); is there a network?") from error
    except OSError as error:
        raise DataError(f"{name}: cannot be kept in the cache: {error}") from error
    except ValueError as error:
        raise DataError(f"{name}: what {data.url} sent is not what was published (MD5 {data.md5})") from error
    return Path(path)


class _Progress:
    """What pooch calls a progress bar: one line, rewritten on a terminal, written once elsewhere."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self.name, self.stream, self.total, self.done, self.shown = name, stream, 0, 0, -1

    def update(self, size: int) -> None:
        self.done = min(self.done + size, self.total or self.done + size)  # pooch counts whole chunks
        percent = 100 * self.done // self.total if self.total else 0
        if self.stream.isatty() and percent != self.shown:
            self.shown = percent
            self.stream.write(f"\rFetching {self.name}: {percent}%")

    def reset(self) -> None:
        """Pooch fills the bar with this and one more update; the count is right without it."""

    def close(self) -> None:
        start = "\r" if self.stream.isatty() else ""
        self.stream.write(f"{start}Fetched {self.name}: {self.done / 1e6:.1f} MB\n")


def _movielens_100k(packed: zipfile.ZipFile) -> Parts:
    events = _ratings(packed.read("ml-100k/u.data"))
    return events, _movie_titles(packed.read("ml-100k/u.item"), "|")


def _movielens_1m(packed: zipfile.ZipFile) -> Parts:
    events = _ratings(packed.read("ml-1m/ratings.dat").replace(b"::", b"\t"))
    return events, _movie_titles(packed.read("ml-1m/movies.dat"), "::")


def _ratings(content: bytes) -> pl.DataFrame:
    names = ["user", "item", "rating", "time"]
    return pl.read_csv(content, separator="\t", has_header=False, new_columns=names, infer_schema=False)


def _movie_titles(content: bytes, separator: str) -> dict[RawId, str]:
    rows = (line.split(separator) for line in content.decode("latin-1").splitlines())
    return {int(row[0]): row[1] for row in rows}


def _online_retail(packed: zipfile.ZipFile) -> Parts:
    """Purchases of products: lines with a customer, no cancellations, stock codes that begin with five digits."""
    rows = []
    titles: dict[RawId, str] = {}
    with packed.open("Online Retail.xlsx") as book:
        lines = read_rows(book)
        place = {name: i for i, name in enumerate(next(lines))}
        wanted = [place[name] for name in ("CustomerID", "StockCode", "InvoiceDate", "InvoiceNo", "Description")]
        for line in lines:
            line += [None] * (max(wanted) + 1 - len(line))
            customer, code, date, invoice, title = (line[i] for i in wanted)
            if customer and code and date and invoice and not invoice.startswith("C") and code[:5].isdigit():
                rows.append((customer, code, unix_seconds(date)))
                titles.setdefault(code, (title or code).strip())
    return pl.DataFrame(rows, schema={"user": pl.String, "item": pl.String, "time": pl.Int64}, orient="row"), titles


DATASETS = {
    "movielens-100k": DataSet(GROUPLENS + "ml-100k.zip", "0e33842e24a9c977be4e0107933c0723", _movielens_100k),
    "movielens-1m": DataSet(GROUPLENS + "ml-1m.zip", "c4d9eecfca2ab87c1945afe126590906", _movielens_1m),
    "online-retail": DataSet("https://archive.ics.uci.edu/static/public/352/online+retail.zip", None, _online_retail),
}

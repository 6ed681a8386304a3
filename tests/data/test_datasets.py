"""Fetching data sets, from this machine's loopback only: small zips of the publishers' layouts."""

from __future__ import annotations

import hashlib
import io
import re
import socket
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from genrec.data import DataError, load_data
from genrec.data.datasets import DATASETS, fetch, read_dataset

WORKBOOK = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
HEADER = ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"]
SALES: list[list[Any]] = [
    [536365, "85123A", "HEART HOLDER ", 6, 40513.25, 2.55, 17850, "UK"],
    [536366, 71053, "LANTERN", 6, 40513.5, 3.39, 17850, "UK"],
    [536367, "85123A", "HOLDER", 6, 40514, 2.55, 13047, "UK"],
    ["C536368", "71053", "LANTERN", -6, 40515, 3.39, 13047, "UK"],  # cancelled
    [536369, "71053", None, 1, 40515, 3.39, None, "UK"],  # no customer
    [536370, "POST", "POSTAGE", 1, 40515, 3.39, 13047, "UK"],  # no product
]


def workbook(rows: list[list[Any]]) -> bytes:
    """An .xlsx with text once shared, once in the cell, and empty cells left out."""
    shared = [text for row in rows for text in row if isinstance(text, str)]
    lines = []
    for number, row in enumerate(rows, start=1):
        cells = []
        for letter, value in zip("ABCDEFGH", row, strict=True):
            place = f'r="{letter}{number}"'
            if isinstance(value, str) and number % 2:
                cells.append(f'<c {place} t="s"><v>{shared.index(value)}</v></c>')
            elif isinstance(value, str):
                cells.append(f'<c {place} t="inlineStr"><is><t>{value}</t></is></c>')
            elif value is not None:
                cells.append(f"<c {place}><v>{value}</v></c>")
        lines.append(f"<row>{''.join(cells)}</row>")
    strings = "".join(f"<si><r><t>{text[:1]}</t></r><r><t>{text[1:]}</t></r></si>" for text in shared)
    return zipped(
        {
            "xl/sharedStrings.xml": f'<sst xmlns="{WORKBOOK}">{strings}</sst>'.encode(),
            "xl/worksheets/sheet1.xml": (
                f'<worksheet xmlns="{WORKBOOK}"><sheetData>{"".join(lines)}</sheetData></worksheet>'.encode()
            ),
        }
    )


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return buffer.getvalue()


ZIPS = {
    "movielens-100k": {
        "ml-100k/u.data": b"196\t242\t3\t881250949\n186\t302\t5\t881250940\n196\t302\t4\t881250900\n",
        "ml-100k/u.item": "242|Kolya (1996)|24-Jan-1997\n302|Café (1997)|01-Jan-1997\n".encode("latin-1"),
    },
    "movielens-1m": {
        "ml-1m/ratings.dat": b"1::1193::5::978300760\n2::661::3::978302109\n1::661::4::978301968\n",
        "ml-1m/movies.dat": b"661::James (1996)::Drama\n1193::Nest, The (1975)::Drama\n",
    },
    "online-retail": {"Online Retail.xlsx": workbook([HEADER, *SALES])},
}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the test's output stays clean."""


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is served, and that the data sets' addresses point to."""
    folder = tmp_path / "published"
    folder.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        for name, files in ZIPS.items():
            content = zipped(files)
            (folder / f"{name}.zip").write_bytes(content)
            url = f"http://127.0.0.1:{server.server_port}/{name}.zip"
            md5 = hashlib.md5(content).hexdigest() if DATASETS[name].md5 else None
            monkeypatch.setitem(DATASETS, name, replace(DATASETS[name], url=url, md5=md5))
        yield folder
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("name", "users", "items", "titles", "rows"),
    [
        ("movielens-100k", [186, 196], [242, 302], ("Kolya (1996)", "Café (1997)"), [[2], [2, 1]]),
        ("movielens-1m", [1, 2], [661, 1193], ("James (1996)", "Nest, The (1975)"), [[2, 1], [1]]),
        ("online-retail", [13047, 17850], ["71053", "85123A"], ("LANTERN", "HEART HOLDER"), [[2], [2, 1]]),
    ],
)
def test_a_data_set_is_fetched_by_name(
    publisher: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    users: list[int],
    items: list[Any],
    titles: tuple[str, ...],
    rows: list[list[int]],
) -> None:
    data = load_data(name)
    assert data.source == name
    assert data.user_ids.tolist() == users
    assert data.items.all() == items
    assert data.titles == titles
    assert [row.tolist() for row in data.events.rows()] == rows
    shown = capsys.readouterr()
    assert re.fullmatch(rf"Fetched {name}: 0\.0 MB\n", shown.err)
    assert shown.out == ""
    (publisher / f"{name}.zip").unlink()
    assert load_data(name).content_hash == data.content_hash  # out of the cache
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("publisher")
def test_excel_dates_are_seconds() -> None:
    times = load_data("online-retail").times
    assert times is not None
    assert times.tolist() == [1_291_248_000, 1_291_183_200, 1_291_204_800]  # 2010-12-02; 2010-12-01T06:00, T12:00


@pytest.mark.usefixtures("publisher")
def test_ratings_filter_where_there_are_some(tmp_path: Path) -> None:
    events, _ = read_dataset("movielens-100k", min_rating=4, cache=tmp_path / "other")
    assert events.frame["user"].to_list() == [186, 196]
    assert (tmp_path / "other" / "movielens-100k.zip").is_file()
    with pytest.raises(DataError, match="online-retail: min_rating=4 needs ratings, which this data set lacks"):
        load_data("online-retail", min_rating=4)


def test_another_file_than_the_published_one_is_refused(publisher: Path, tmp_path: Path) -> None:
    (publisher / "movielens-1m.zip").write_bytes(zipped({"x": b"y"}))
    with pytest.raises(DataError, match=r"movielens-1m: what http\S+ sent is not what was published"):
        fetch("movielens-1m", tmp_path)
    assert list(tmp_path.glob("*.zip")) == []


def test_a_damaged_file_is_deleted(publisher: Path, tmp_path: Path) -> None:
    for content in (b"no zip at all", zipped({"x": b"y"}), zipped({"Online Retail.xlsx": b"no workbook"})):
        (publisher / "online-retail.zip").write_bytes(content)
        with pytest.raises(DataError, match=r"online-retail: .*online-retail\.zip was damaged .*deleted; try again"):
            read_dataset("online-retail", cache=tmp_path)
        assert list(tmp_path.glob("*.zip")) == []


def test_an_absent_file_and_an_absent_network_are_one_clear_line(
    publisher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (publisher / "movielens-1m.zip").unlink()
    with pytest.raises(DataError, match=r"movielens-1m: cannot be fetched from http\S+ \(status 404\)"):
        fetch("movielens-1m", tmp_path)
    with socket.socket() as closed:  # a port on which nobody listens
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/x.zip"
        monkeypatch.setitem(DATASETS, "movielens-1m", replace(DATASETS["movielens-1m"], url=url))
        with pytest.raises(DataError, match=r"\(no answer\); is there a network\?$") as caught:
            fetch("movielens-1m", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_cache_that_cannot_be_written_is_told(publisher: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="movielens-1m: cannot be kept in the cache"):
        fetch("movielens-1m", tmp_path / "file")

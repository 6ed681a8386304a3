"""The first sheet of an .xlsx workbook, read with the standard library; enough for the Online Retail data."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from typing import IO
from xml.etree import ElementTree

MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
EPOCH_DAY = 25_569  # Excel's number of 1970-01-01


def read_rows(file: IO[bytes]) -> Iterator[list[str | None]]:
    """The rows of the sheet, cells as text: numbers as they are written in the file, None where a cell is empty.

    Raises:
        zipfile.BadZipFile: if it is no zip file.
        KeyError: if it is a zip file of something else.
        ElementTree.ParseError: if a part is damaged.
    """
    with zipfile.ZipFile(file) as book:
        shared: list[str] = []
        if "xl/sharedStrings.xml" in book.namelist():
            with book.open("xl/sharedStrings.xml") as part:
                shared = [_text(element) for element in _elements(part, "si")]
        with book.open("xl/worksheets/sheet1.xml") as part:
            for row in _elements(part, "row"):
                yield _cells(row, shared)


def unix_seconds(serial: str) -> int:
    """Seconds since 1970 of a date as Excel stores it, in days since 1900.

    >>> unix_seconds("25569.5")
    43200
    """
    return round((float(serial) - EPOCH_DAY) * 86_400)


def _elements(part: IO[bytes], name: str) -> Iterator[ElementTree.Element]:
    """The elements of a name, one at a time; what was handed out is freed."""
    parents = []
    for event, element in ElementTree.iterparse(part, events=("start", "end")):
        if event == "start":
            parents.append(element)
            continue
        parents.pop()
        if element.tag == MAIN + name:
            yield element
            parents[-1].remove(element)


def _cells(row: ElementTree.Element, shared: list[str]) -> list[str | None]:
    cells: list[str | None] = []
    for cell in row.iter(MAIN + "c"):
        place = _column(cell.get("r", ""), len(cells))
        cells += [None] * (place + 1 - len(cells))
        value = cell.findtext(MAIN + "v")
        if cell.get("t") == "s" and value is not None:
            value = shared[int(value)]
        elif cell.get("t") == "inlineStr":
            value = _text(cell)
        cells[place] = value
    return cells


def _column(reference: str, following: int) -> int:
    """The column (from 0) of a reference such as "AB12"; the following one if there is none."""
    number = 0
    for letter in filter(str.isalpha, reference):
        number = number * 26 + ord(letter) - ord("A") + 1
    return number - 1 if number else following


def _text(element: ElementTree.Element) -> str:
    return "".join(part.text or "" for part in element.iter(MAIN + "t"))

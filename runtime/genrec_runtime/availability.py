"""Files that say which items may be recommended: one raw id a line, for the server as for offline jobs."""

from __future__ import annotations

import re
from pathlib import Path

from genrec.histories import ItemIds, RawId
from genrec_runtime.errors import InputError

WHOLE = re.compile(r"[+-]?[0-9]{1,19}")


def read_available(content: bytes, path: Path, items: ItemIds) -> list[RawId]:
    """The ids of such a file; blank lines count for nothing.

    Args:
        content: of the file, in UTF-8.
        path: where it is, for messages.
        items: of the bundle; ids that it lacks are kept.

    Raises:
        InputError: if it is no text, a line is no id of such a catalogue, or no line is an item: an empty file is more often
            one that is being written than a shop that is closed.

    >>> read_available(b"b\\n\\nnew\\n", Path("ids"), ItemIds(["a", "b"]))
    ['b', 'new']
    """
    try:
        lines = [line.strip() for line in content.decode("utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text in UTF-8: {error}", field="available") from error
    ids = [_id(line, f"{path}, line {number}", items.kind) for number, line in enumerate(lines, start=1) if line]
    if not items.index(ids).any():
        raise InputError(f"none of the {len(ids)} ids in {path} is an item of the bundle", field="available")
    return ids


def _id(line: str, place: str, kind: str) -> RawId:
    if kind == "str":
        return line
    if WHOLE.fullmatch(line) is None:
        message = f"{place}: {line:.60} is no whole number, as this bundle's ids are"
        raise InputError(message, field="available", value=line)
    return int(line)

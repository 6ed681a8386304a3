"""Vectors of items, to make semantic ids of: out of a file, or out of the items' texts."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec.histories import ItemIds, RawId

Floats = NDArray[np.float32]


def text_vectors(texts: Sequence[str], encoder: str | os.PathLike[str]) -> Floats:
    """Vectors of texts by a sentence encoder that lies in a local folder; nothing is downloaded.

    Args:
        texts: one an item.
        encoder: a folder that ``sentence_transformers.SentenceTransformer`` opens.

    Returns:
        float32 (V, width), of length 1.

    Raises:
        ValueError: if there is no such folder.
        ImportError: if sentence-transformers is not installed.
    """
    if not Path(encoder).is_dir():
        raise ValueError(f"no folder {encoder}: the sentence encoder must lie on this machine, nothing is downloaded")
    try:
        sentence_transformers = importlib.import_module("sentence_transformers")
    except ModuleNotFoundError as error:
        if error.name != "sentence_transformers":
            raise
        raise ImportError(
            "vectors of texts need sentence-transformers; install it with: pip install sentence-transformers, "
            "or give vectors of your own"
        ) from error
    model = sentence_transformers.SentenceTransformer(str(encoder), device="cpu", local_files_only=True)
    encoded = model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True)
    return _checked(np.asarray(encoded), f"the texts' vectors of {encoder}")


def read_vectors(
    path: str | os.PathLike[str],
    items: ItemIds,
    *,
    ids: str | os.PathLike[str] | None = None,
    item_col: str | None = None,
) -> Floats:
    """Vectors of a catalogue's items out of a file; the file may hold vectors of other items, too.

    Args:
        path: a ``.npy`` file of floats, one row an item; or a ``.parquet`` file with a column of ids and either one column of
            lists or any number of columns of numbers, which are taken in the file's order.
        items: the catalogue.
        ids: of a ``.npy`` file, which item each row belongs to: a ``.npy`` file of ids, or a text file with one id a line. None
            if the rows are the catalogue's items in its order: sorted ids, ints by value, strings by code point.
        item_col: of a Parquet file, the column of ids; None looks for a common name.

    Returns:
        float32 (V, width), the vector of item 1 first.

    Raises:
        ValueError: if the file is no such thing, an item has no vector or two of them, or a number is not finite.
        OSError: if a file cannot be read.
    """
    path = Path(path)
    if path.suffix == ".parquet":
        if ids is not None:
            raise ValueError(f"{path} holds ids itself; ids ({ids}) belong to a .npy file")
        raw, vectors = _read_parquet(path, item_col)
    elif path.suffix == ".npy":
        vectors = _read_npy(path)
        if ids is None:
            if len(vectors) != len(items):
                raise ValueError(
                    f"{path} has {len(vectors)} rows for {len(items)} items; say by ids which item each row belongs to"
                )
            return vectors
        raw = _read_ids(Path(ids))
    else:
        raise ValueError(f"{path}: vectors must lie in a .npy or .parquet file")
    return _in_order(raw, vectors, items, str(path))


def _read_npy(path: Path) -> Floats:
    try:
        array = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{path} is not a plain .npy file: {error}") from error
    return _checked(array, str(path))


def _read_ids(path: Path) -> list[RawId]:
    """Ids as they stand in the file: the numbers or texts of an array, or the lines of a text."""
    if path.suffix != ".npy":
        return list(path.read_text(encoding="utf-8").splitlines())
    array = np.load(path, allow_pickle=False)
    if array.ndim != 1 or array.dtype.kind not in "iuU":
        raise ValueError(f"{path} must hold one axis of whole numbers or texts, not {array.dtype} of {array.ndim} axes")
    found: list[RawId] = array.tolist()
    return found


def _read_parquet(path: Path, item_col: str | None) -> tuple[list[RawId], Floats]:
    from genrec.data.columns import as_ids, find_column
    from genrec.data.tables import column_names, read_columns

    names = column_names(path)
    item = find_column(str(path), names, "item", item_col)
    others = [name for name in names if name != item]
    table = read_columns(path, names)
    frame = table.frame.select(others)
    nested = [name for name in others if frame[name].dtype.is_nested()]
    if (
        not others
        or (nested and len(others) > 1)
        or not all(frame[n].dtype.is_numeric() for n in {*others} - {*nested})
    ):
        raise ValueError(
            f"{path} must hold, beside {item!r}, one column of lists or only columns of numbers; it has {', '.join(others)}"
        )
    try:
        vectors = np.array(frame[nested[0]].to_list(), dtype=np.float64) if nested else frame.to_numpy()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: the lists of column {nested[0]!r} must be numbers, all equally many") from error
    return as_ids(table, item).to_list(), _checked(vectors, str(path))


def _in_order(raw: Sequence[RawId], vectors: Floats, items: ItemIds, source: str) -> Floats:
    """The vectors of a catalogue's items; ids that are ints on one side and strings on the other are compared as text."""
    if len(raw) != len(vectors):
        raise ValueError(f"{source} has {len(vectors)} rows for {len(raw)} ids")
    rows = {str(value): row for row, value in enumerate(raw)}
    if len(rows) < len(raw):
        twice = next(value for row, value in enumerate(raw) if rows[str(value)] != row)
        raise ValueError(f"{source}: item {twice!r} has more than one vector")
    wanted = items.all()
    missing = [value for value in wanted if str(value) not in rows]
    if missing:
        shown = ", ".join(map(repr, missing[:3]))
        raise ValueError(f"{source}: {len(missing)} of {len(wanted)} items have no vector, such as {shown}")
    ordered: Floats = vectors[[rows[str(value)] for value in wanted]]
    return ordered


def _checked(array: NDArray[Any], source: str) -> Floats:
    if array.ndim != 2 or array.dtype.kind not in "fiu" or not array.size:
        raise ValueError(
            f"{source} must hold numbers of shape (items, width), not {array.dtype} of shape {array.shape}"
        )
    vectors = array.astype(np.float32)
    if not np.isfinite(vectors).all():
        raise ValueError(f"{source}: row {int(np.argmin(np.isfinite(vectors).all(axis=1)))} (from 0) is not finite")
    return vectors

"""What is kept of the items, in memory and as files that hold no pickles."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec.histories.items import ItemIds
from genrec.histories.ragged import Ints, offsets_of


@dataclass(frozen=True, eq=False)
class Catalogue:
    """What is kept of the items in a run folder and in a bundle alike.

    Args:
        items: the numbering.
        cold_start: int64 (V,), every item number once, by training popularity, for users without a history.
        titles: V readable titles in the order of the numbers, or None.

    Raises:
        ValueError: if ``cold_start`` is no permutation of 1..V, or ``titles`` are not V.
    """

    items: ItemIds
    cold_start: Ints
    titles: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not np.array_equal(np.sort(self.cold_start), np.arange(1, len(self.items) + 1)):
            raise ValueError(f"cold_start must hold each of the numbers 1..{len(self.items)} once")
        if self.titles is not None and len(self.titles) != len(self.items):
            raise ValueError(f"there are {len(self.titles)} titles for {len(self.items)} items")

    def title(self, index: int) -> str:
        """A readable name of item ``index``: its title, or its raw id where there are none.

        Raises:
            IndexError: if ``index`` lies outside 1..V.
        """
        raw = self.items.raw([index])[0]
        return self.titles[index - 1] if self.titles else str(raw)

    def files(self) -> dict[str, bytes]:
        """File names to contents: ``items.npy`` or ``items.utf8`` and offsets, titles likewise, ``cold_start.npy``."""
        raw = self.items.all()
        files = {"cold_start.npy": _npy(np.asarray(self.cold_start, dtype=np.int64))}
        if self.items.kind == "int":
            files["items.npy"] = _npy(np.array(raw, dtype=np.int64))
        else:
            files |= _text_files("items", [str(value) for value in raw])
        return files | (_text_files("titles", self.titles) if self.titles is not None else {})

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Catalogue:
        """The inverse of ``files``; nothing is unpickled.

        Raises:
            ValueError: if a file is missing, damaged, or the ids are not sorted.
        """
        raw = _read_ints(files, "items.npy") if "items.npy" in files else _read_text(files, "items")
        items = ItemIds(raw)
        if not np.array_equal(items.index(raw), np.arange(1, len(items) + 1)):
            raise ValueError("the item ids of the catalogue are not sorted")
        titled = any(name.startswith("titles.") for name in files)
        titles = tuple(_read_text(files, "titles")) if titled else None
        return cls(items, _read_ints(files, "cold_start.npy"), titles)


def read_npy(files: Mapping[str, bytes], name: str) -> NDArray[Any]:
    """One ``.npy`` file out of a mapping of names to contents, refusing pickles.

    Raises:
        ValueError: if it is missing or no plain array.
    """
    if name not in files:
        raise ValueError(f"{name} is missing")
    stream = io.BytesIO(files[name])
    try:
        array = np.lib.format.read_array(stream, allow_pickle=False)
    except Exception as error:  # a damaged header fails in many ways, from the tokenizer to the memory
        raise ValueError(f"{name} is not a plain array file: {error}") from error
    if stream.read(1):
        raise ValueError(f"{name} is not a plain array file: more follows its values")
    return np.asarray(array)


def _read_ints(files: Mapping[str, bytes], name: str) -> Ints:
    array = read_npy(files, name)
    if array.dtype != np.int64 or array.ndim != 1:
        raise ValueError(f"{name} must be int64 of one axis, not {array.dtype} of {array.ndim}")
    return array


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _text_files(name: str, texts: Sequence[str]) -> dict[str, bytes]:
    encoded = [text.encode() for text in texts]
    offsets = offsets_of(np.array([len(text) for text in encoded], dtype=np.int64))
    return {f"{name}.utf8": b"".join(encoded), f"{name}.offsets.npy": _npy(offsets)}


def _read_text(files: Mapping[str, bytes], name: str) -> list[str]:
    if f"{name}.utf8" not in files:
        raise ValueError(f"{name}.utf8 is missing")
    blob, bounds = files[f"{name}.utf8"], _read_ints(files, f"{name}.offsets.npy").tolist()
    if not bounds or bounds[0] != 0 or bounds[-1] != len(blob) or bounds != sorted(bounds):
        raise ValueError(f"{name}.offsets.npy does not fit {name}.utf8")
    try:
        return [blob[start:end].decode() for start, end in itertools.pairwise(bounds)]
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}.utf8 is no text, or {name}.offsets.npy cuts its letters: {error}") from error

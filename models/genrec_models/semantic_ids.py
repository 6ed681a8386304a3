"""Semantic ids of a catalogue: made, kept in a folder, and continued for new items by the frozen codebooks.

The folder is one of ``genrec.modules.save`` with the tokenizer in it, so that ``genrec-export FOLDER STORE`` exports that;
beside it lie the codes, the items and the report.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genrec.histories import Catalogue, Ints, ItemIds, Ragged, RawId, read_npy
from genrec.modules import load, save
from genrec_models.codebooks import CodeReport, collision_codes, report_codes
from genrec_models.cooccurrence import cooccurrence_vectors
from genrec_models.item_vectors import Floats
from genrec_models.tokenizer import ROWS_AT_ONCE, Follow, Tokenizer

FORMAT = "genrec-semantic-ids"
FORMAT_VERSION = 1
ITEM_FILES = ("items", "titles", "cold_start")


@dataclass(frozen=True, eq=False)
class SemanticIds:
    """The items of a catalogue as short rows of codes, no two alike.

    Args:
        catalogue: the items.
        codes: int64 (V, levels + 1), the row of item 1 first, each code in 0..K-1; the last one tells apart the items that
            share all others.
        tokenizer: gave the codes but the last, in eval mode.
        facts: where they come from and how good they are, as JSON values.

    Raises:
        ValueError: if the codes do not fit the catalogue and the tokenizer, or two rows are alike.
    """

    catalogue: Catalogue
    codes: Ints
    tokenizer: Tokenizer
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.catalogue.items), self.tokenizer.quantiser.levels + 1)
        num_codes = self.tokenizer.quantiser.num_codes
        if self.codes.shape != shape or self.codes.dtype != np.int64:
            raise ValueError(f"codes must be int64 {shape}, got {self.codes.dtype} {self.codes.shape}")
        if self.codes.min() < 0 or self.codes.max() >= num_codes:
            raise ValueError(f"codes must lie in 0..{num_codes - 1}, got {self.codes.min()} to {self.codes.max()}")
        if len(np.unique(self.codes, axis=0)) < len(self.codes):
            raise ValueError("two items have the same codes; the last one must tell them apart")

    @property
    def report(self) -> CodeReport:
        """How good the codes are, over the items that the tokenizer was fitted to.

        Raises:
            ValueError: if the facts do not tell.
        """
        return CodeReport.from_json(self.facts.get("codes", {}))

    def codes_of_new(self, vectors: Floats) -> Ints:
        """Ids of items that are not in the catalogue, by the codebooks as they are.

        Last codes go on after those of the catalogue, in the order of the rows: ask once for all new items, or keep them by
        ``extended`` before asking again.

        Args:
            vectors: float32 (N, W), of the kind that the tokenizer was fitted to.

        Returns:
            int64 (N, levels + 1).

        Raises:
            ValueError: if the vectors have another width, or too many items share all codes but the last.
        """
        codes = self.tokenizer.codes(torch.from_numpy(vectors)).numpy()  # (N, levels)
        last = collision_codes(codes, self.tokenizer.quantiser.num_codes, self.codes)
        return np.column_stack([codes, last])

    def extended(self, raw: Sequence[RawId], vectors: Floats, titles: Sequence[str] | None = None) -> SemanticIds:
        """The semantic ids of a larger catalogue; the items of this one keep theirs.

        Args:
            raw: N raw ids of new items.
            vectors: float32 (N, W).
            titles: N titles, where this catalogue has titles; None for the ids themselves.

        Raises:
            ValueError: as ``codes_of_new``, and if an id is not new, or there are not as many of each.
        """
        if len(raw) != len(vectors) or (titles is not None and len(titles) != len(raw)):
            raise ValueError(
                f"there are {len(vectors)} vectors and {titles and len(titles)} titles for {len(raw)} items"
            )
        before = self.catalogue
        everything = [*before.items.all(), *raw]
        items = ItemIds(everything)
        codes = np.concatenate([self.codes, self.codes_of_new(vectors)])
        places = items.index(everything)  # the new number of each
        cold_start = np.concatenate([places[before.cold_start - 1], places[len(before.items) :]])
        order = np.argsort(places)
        named = None if before.titles is None else [*before.titles, *(titles or map(str, raw))]
        sorted_titles = None if named is None else tuple(named[i] for i in order)
        return SemanticIds(Catalogue(items, cold_start, sorted_titles), codes[order], self.tokenizer, self.facts)

    def save(self, folder: str | os.PathLike[str], vectors: Floats | None = None) -> None:
        """Writes a new folder: the tokenizer as ``genrec.modules.save`` does, ``codes.npy``, the items, ``report.json``.

        Args:
            folder: new, or empty; it appears whole or not at all.
            vectors: kept as ``vectors.npy`` if given: those that exist nowhere else.

        Raises:
            ValueError: if there is something in the folder.
        """
        folder = Path(folder)
        check_new(folder)
        part = folder.with_name(f".{folder.name}.part")
        quantiser, width = self.tokenizer.quantiser, self.tokenizer.input_dim
        signature = {
            "inputs": [{"name": "vectors", "dtype": "float32", "axes": ["batch", width]}],
            "outputs": [{"name": "codes", "dtype": "int64", "axes": ["batch", quantiser.levels]}],
        }
        save(self.tokenizer, part, signature=signature)
        for name, content in self.catalogue.files().items():
            (part / name).write_bytes(content)
        np.save(part / "codes.npy", self.codes)
        if vectors is not None:
            np.save(part / "vectors.npy", vectors)
        told = {"format": FORMAT, "format_version": FORMAT_VERSION, **self.facts}
        (part / "report.json").write_text(json.dumps(told, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(part, folder)


def make_semantic_ids(
    kind: type[Tokenizer],
    vectors: Floats,
    catalogue: Catalogue,
    *,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    facts: Mapping[str, Any] | None = None,
    follow: Follow | None = None,
) -> SemanticIds:
    """Fits a tokenizer to the items' vectors and gives every item its codes.

    Args:
        kind: ``RQVAE``, ``ResidualKMeans`` or another.
        vectors: float32 (V, W), the vector of item 1 first.
        catalogue: the V items.
        settings: arguments of ``kind`` but ``input_dim``.
        seed: of everything random.
        facts: kept with the ids, as JSON values.
        follow: told of each step of the fit.

    Raises:
        ValueError: if the vectors do not fit the catalogue or the settings, or too many items share all codes but the last.
    """
    if len(vectors) != len(catalogue.items):
        raise ValueError(f"there are {len(vectors)} vectors for {len(catalogue.items)} items")
    torch.manual_seed(seed)
    tokenizer: Any = kind  # each has its own arguments
    tokenizer = tokenizer(vectors.shape[1], **(settings or {}))
    given = torch.from_numpy(vectors)
    tokenizer.fit_vectors(given, seed, follow)
    ids = item_codes(tokenizer, given)
    report = report_codes(ids[:, :-1], tokenizer.quantiser.num_codes, _residual_norms(tokenizer, given))
    told = {"method": kind.__name__, "seed": seed, **(facts or {}), "codes": report.to_json()}
    return SemanticIds(catalogue, ids, tokenizer, told)


def item_codes(tokenizer: Tokenizer, vectors: Tensor) -> Ints:
    """The codes of all items, the last of which tells apart those that share all others.

    Args:
        tokenizer: fitted.
        vectors: float32 (V, W).

    Returns:
        int64 (V, levels + 1), no two rows alike.

    Raises:
        ValueError: if too many items share all codes but the last.
    """
    codes = tokenizer.codes(vectors).numpy()  # (V, levels)
    return np.column_stack([codes, collision_codes(codes, tokenizer.quantiser.num_codes)])


def history_codes(histories: Ragged, num_items: int, levels: int, num_codes: int) -> Ints:
    """Codes of items of which nothing is known but the training histories: ``RQVAE`` over ``cooccurrence_vectors``, seed 0.

    Args:
        histories: the users' training events, item numbers in 1..``num_items``.
        num_items: items V.
        levels: codes of an item, the last one included; at least 2.
        num_codes: codes of a level, at most V.

    Returns:
        int64 (V, levels).

    Raises:
        ValueError: if no history has two events, or a size does not fit.
    """
    from genrec_models.rqvae import RQVAE

    vectors = torch.from_numpy(cooccurrence_vectors(histories, num_items))
    torch.manual_seed(0)
    tokenizer = RQVAE(vectors.shape[1], levels=levels - 1, num_codes=num_codes)
    tokenizer.fit_vectors(vectors)
    return item_codes(tokenizer, vectors)


def load_semantic_ids(folder: str | os.PathLike[str]) -> SemanticIds:
    """Opens a folder that ``SemanticIds.save`` wrote, with the tokenizer on the CPU and in eval mode.

    It imports the class that ``config.json`` names: open only what you trust.

    Raises:
        FileNotFoundError: if it is no such folder, or a file is missing.
        ValueError: if it is of another format, or damaged.
    """
    folder = Path(folder)
    if not (folder / "report.json").exists():
        raise FileNotFoundError(
            f"{folder} holds no semantic ids: it has no report.json; make some with: genrec semantic-ids"
        )
    facts = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    found = (facts.pop("format", None), facts.pop("format_version", None)) if isinstance(facts, dict) else None
    if found != (FORMAT, FORMAT_VERSION):
        raise ValueError(f"{folder / 'report.json'} is not of format {FORMAT!r}, version {FORMAT_VERSION}")
    tokenizer = load(folder)
    if not isinstance(tokenizer, Tokenizer):
        raise ValueError(f"{folder / 'config.json'} describes no tokenizer but {type(tokenizer).__name__}")
    files = {file.name: file.read_bytes() for file in folder.iterdir() if file.name.startswith(("codes", *ITEM_FILES))}
    return SemanticIds(Catalogue.from_files(files), read_npy(files, "codes.npy"), tokenizer, facts)


def check_new(folder: Path) -> None:
    """Raises ValueError if there is something in the folder."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not empty; name another folder")


@torch.no_grad()
def _residual_norms(tokenizer: Tokenizer, vectors: Tensor) -> list[float]:
    """Mean length of what each level leaves over, relative to the mean length of the encoded vectors."""
    whole, rest = torch.zeros(()), torch.zeros(tokenizer.quantiser.levels)
    for part in torch.split(vectors, ROWS_AT_ONCE):
        encoded = tokenizer.encode(part)  # (B, D)
        whole += encoded.norm(dim=1).sum()
        rest += tokenizer.quantiser.residuals(encoded).norm(dim=2).sum(dim=0)
    relative: list[float] = (rest / whole.clamp(min=1e-12)).tolist()
    return relative

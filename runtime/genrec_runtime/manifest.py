"""The manifest of a bundle: frozen dataclasses, and the JSON they are written as. The exporter imports these too."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

FORMAT = "genrec-bundle"
FORMAT_VERSION = (1, 0)
READABLE_MAJORS = tuple(major for major in (FORMAT_VERSION[0], FORMAT_VERSION[0] - 1) if major > 0)
FP32 = "fp32"  # the variant that every graph has
FINDINGS = ("golden", "report", "card")  # roles of files that record what was seen at export: not what is served


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph.

    Attributes:
        name: the tensor's name in the graph.
        dtype: numpy's name of its type, such as "int64".
        axes: one entry an axis: a name where its size is free (equal names have equal sizes), a number where fixed.
        low: smallest value allowed, where the values are indices.
        high: largest value allowed.
    """

    name: str
    dtype: str
    axes: tuple[str | int, ...]
    low: int | None = None
    high: int | None = None


@dataclass(frozen=True)
class Signature:
    """What goes into a graph and what comes out, in order.

    Attributes:
        inputs: every input; all of them must be fed.
        outputs: every output.
        limits: the largest size of an axis, where a graph would answer wrongly beyond it.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    limits: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Weight:
    """Where one tensor lies in the weights file.

    Attributes:
        name: the initialiser's name in every graph that uses it.
        dtype: numpy's name of its type.
        shape: its sizes.
        offset: first byte in the file, a multiple of 64.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class FileEntry:
    """One file of the bundle: its size in bytes, the hex sha256 of its bytes, and what it is for."""

    size: int
    sha256: str
    role: str


@dataclass(frozen=True)
class Semantics:
    """How a recommender's inputs are made and its outputs read.

    Attributes:
        pad_id: the index that fills a short history.
        num_items: V; item indices are 1..V.
        max_seq_length: the newest so many items of a history are used.
        padding: the side on which short histories are filled.
        truncation: which end of a long history stays.
        window: "bucketed" if a history may be padded to any length, "fixed" if always to ``max_seq_length``.
        k_max: how many items the graph returns.
        tie_break: which of two items with equal scores comes first.
        score: what a score is: "logit" or "log_probability".
        time_unit: the unit of timestamps, None where the model has none.
    """

    pad_id: int
    num_items: int
    max_seq_length: int
    padding: Literal["left", "right"]
    truncation: Literal["keep_newest"]
    window: Literal["fixed", "bucketed"]
    k_max: int
    tie_break: Literal["lowest_index"]
    score: Literal["logit", "log_probability"]
    time_unit: Literal["s"] | None


@dataclass(frozen=True)
class Defaults:
    """What ``recommend`` does where its caller does not say.

    Attributes:
        k: length of the list.
        exclude_seen: leave out the items of the whole history.
        on_unknown: "drop" ids that the catalogue lacks, or "error".
        empty_history: "cold_start" answers with the most popular items, or "error".
    """

    k: int = 10
    exclude_seen: bool = True
    on_unknown: Literal["drop", "error"] = "drop"
    empty_history: Literal["cold_start", "error"] = "cold_start"


@dataclass(frozen=True)
class Tolerance:
    """How far two runs may differ: ``|a - b| <= atol + rtol * max|scores of the row|``."""

    atol: float
    rtol: float


@dataclass(frozen=True)
class Variant:
    """A cheaper form of some graphs, which answers nearly as "fp32" does.

    Attributes:
        files: what this variant alone needs; who serves another need not read them.
        tolerance: how far its scores may lie from those of "fp32".
        k: length of the lists on which it was compared.
        gate: the least share of "fp32"'s ``k`` best items that it had to give on real histories, or it had not been exported.
    """

    files: tuple[str, ...]
    tolerance: Tolerance
    k: int
    gate: float


@dataclass(frozen=True)
class Manifest:
    """Everything a reader needs to know of a bundle; ``docs/format.md`` describes each field."""

    kind: Literal["recommender", "module"]
    model: Mapping[str, Any]
    capabilities: tuple[str, ...]
    graphs: Mapping[str, Mapping[str, str]]
    signature: Mapping[str, Signature]
    semantics: Semantics | None
    files: Mapping[str, FileEntry]
    weights: Mapping[str, tuple[Weight, ...]]
    opset: int
    ir_version: int
    ops: Mapping[str, tuple[str, ...]]
    tolerance: Tolerance
    requires: Mapping[str, str]
    defaults: Defaults = Defaults()
    variants: Mapping[str, Variant] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)
    memory: Mapping[str, int] = field(default_factory=dict)
    trained_until: str | None = None
    created: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    bundle_id: str = ""
    content_id: str = ""
    must_understand: tuple[str, ...] = ()
    format: str = FORMAT
    format_version: tuple[int, ...] = FORMAT_VERSION

    def identified(self) -> Manifest:
        """A copy with its two ids: ``content_id`` names what is served, ``bundle_id`` guards this file."""
        named = dataclasses.replace(self, content_id=content_of(dataclasses.asdict(self)))
        return dataclasses.replace(named, bundle_id=identity(dataclasses.asdict(named)))

    def tolerance_of(self, variant: str) -> Tolerance:
        """How far the answers of a variant may lie from the recorded ones."""
        return self.tolerance if variant == FP32 else self.variants[variant].tolerance

    @property
    def version(self) -> str:
        """The name of the bundle's folder in a store: the first 12 hex digits of ``content_id``."""
        return self.content_id[:12]

    def to_json(self) -> bytes:
        """The bytes of ``manifest.json``: sorted keys, two spaces, a final newline."""
        return _dump(dataclasses.asdict(self))


def _dump(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, indent=2, sort_keys=True, allow_nan=False).encode() + b"\n"


def identity(data: Mapping[str, Any]) -> str:
    """The ``bundle_id`` of a manifest's JSON values, keys of newer minor versions included: no changed bit goes unseen."""
    return hashlib.sha256(_dump({**data, "bundle_id": "", "created": ""})).hexdigest()


def content_of(data: Mapping[str, Any]) -> str:
    """The ``content_id`` of a manifest's JSON values: equal for two exports of one model, on whatever machines.

    Left out is what another machine finds otherwise: the creation time, what was measured, and the files that report it.
    """
    found = {"bundle_id": "", "content_id": "", "created": "", "parity": {}, "measured": {}}
    files = {name: entry for name, entry in data["files"].items() if entry["role"] not in FINDINGS}
    return hashlib.sha256(_dump({**data, **found, "files": files})).hexdigest()

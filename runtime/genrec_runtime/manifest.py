"""The manifest of a bundle: frozen dataclasses, strict JSON in and out. The exporter imports these too."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from genrec_runtime.errors import BundleCorrupt, BundleVersionError, Unsupported

FORMAT = "genrec-bundle"
FORMAT_VERSION = (1, 0)
READABLE_MAJORS = (1,)
MAX_BYTES = 1 << 20
FILE_NAME = re.compile(r"(golden/)?[A-Za-z0-9_-][A-Za-z0-9._-]*[A-Za-z0-9_-]")


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
    parity: Mapping[str, Any] = field(default_factory=dict)
    memory: Mapping[str, Any] = field(default_factory=dict)
    trained_until: str | None = None
    created: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    bundle_id: str = ""
    must_understand: tuple[str, ...] = ()
    format: str = FORMAT
    format_version: tuple[int, ...] = FORMAT_VERSION

    def identified(self) -> Manifest:
        """A copy whose ``bundle_id`` is the sha256 over all else but the creation time: equal content, equal id."""
        content = dataclasses.replace(self, bundle_id="", created="").to_json()
        return dataclasses.replace(self, bundle_id=hashlib.sha256(content).hexdigest())

    @property
    def version(self) -> str:
        """The name of the bundle's folder in a store: the first 12 hex digits of its id."""
        return self.bundle_id[:12]

    def to_json(self) -> bytes:
        """The bytes of ``manifest.json``: sorted keys, two spaces, a final newline."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True, allow_nan=False).encode() + b"\n"

    @classmethod
    def from_json(cls, blob: bytes) -> Manifest:
        """Reads and checks ``manifest.json``.

        Raises:
            BundleCorrupt: if it is no strict JSON, a key is missing, or a value has the wrong type or range.
            BundleVersionError: if the format's major version is not readable here.
            Unsupported: if ``must_understand`` lists a feature that this runtime does not have.
        """
        data = _strict_json(blob)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise BundleCorrupt(f"manifest.json does not describe a {FORMAT}")
        version = _decode(tuple[int, ...], data.get("format_version"), "/format_version")
        if not version or version[0] not in READABLE_MAJORS:
            raise BundleVersionError(
                f"the bundle has format {'.'.join(map(str, version))}, this runtime reads majors "
                f"{', '.join(map(str, READABLE_MAJORS))}; upgrade genrec, or export the model again"
            )
        unknown = _decode(tuple[str, ...], data.get("must_understand", []), "/must_understand")
        if unknown:
            raise Unsupported(
                f"the bundle needs {', '.join(unknown)}, which this runtime does not have; upgrade genrec"
            )
        manifest: Manifest = _decode(cls, data, "")
        _check(manifest)
        return manifest


def _check(manifest: Manifest) -> None:
    """What types cannot say: names inside the bundle, files that exist, weights inside their file."""
    for name in manifest.files:
        if not FILE_NAME.fullmatch(name) or name == "manifest.json":
            raise BundleCorrupt(
                f"manifest.json lists {name!r}, which is no file name of a bundle", code="bundle_unsafe"
            )
    for graph, variants in manifest.graphs.items():
        for file in variants.values():
            if file not in manifest.files:
                raise BundleCorrupt(f"graph {graph!r} names {file!r}, which /files does not list")
        if graph not in manifest.signature:
            raise BundleCorrupt(f"graph {graph!r} has no /signature")
    for file, weights in manifest.weights.items():
        if file not in manifest.files:
            raise BundleCorrupt(f"/weights names {file!r}, which /files does not list")
        for weight in weights:
            if weight.offset < 0 or min(weight.shape, default=0) < 0:
                raise BundleCorrupt(f"/weights: {weight.name!r} has a negative size or offset")
    if manifest.kind == "recommender":
        _check_recommender(manifest)


def _check_recommender(manifest: Manifest) -> None:
    semantics = manifest.semantics
    if semantics is None or "recommend" not in manifest.graphs:
        raise BundleCorrupt("a recommender needs /semantics and a 'recommend' graph")
    if semantics.num_items < 1 or semantics.max_seq_length < 1:
        raise BundleCorrupt("/semantics: num_items and max_seq_length must be at least 1")
    if not 1 <= semantics.k_max <= semantics.num_items:
        raise BundleCorrupt(f"/semantics/k_max ({semantics.k_max}) must lie in 1..{semantics.num_items}")
    if manifest.defaults.k < 1:
        raise BundleCorrupt(f"/defaults/k ({manifest.defaults.k}) must be at least 1")


def _strict_json(blob: bytes) -> Any:
    if len(blob) > MAX_BYTES:
        raise BundleCorrupt(f"manifest.json has {len(blob)} bytes, more than {MAX_BYTES}", code="bundle_unsafe")
    try:
        return json.loads(blob.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise BundleCorrupt(f"manifest.json is not strict JSON: {str(error)[:200]}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise ValueError("a key occurs twice")
    return keys


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _decode(kind: Any, value: Any, pointer: str) -> Any:
    """``value`` as ``kind`` (a dataclass, a container or a plain type), or BundleCorrupt naming the JSON pointer."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, pointer)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        options = [option for option in arguments if option is not type(None)]
        chosen = [option for option in options if type(value) is option]
        return _decode(chosen[0] if chosen else options[0], value, pointer)
    if origin is Literal:
        if value not in arguments or type(value) is not type(arguments[0]):
            raise BundleCorrupt(f"{pointer} must be one of {', '.join(map(repr, arguments))}, not {value!r:.80}")
        return value
    if origin is tuple:
        entries = _expect(list, value, pointer)
        return tuple(_decode(arguments[0], entry, f"{pointer}/{i}") for i, entry in enumerate(entries))
    if origin is Mapping:
        entries = _expect(dict, value, pointer)
        return {key: _decode(arguments[1], entry, f"{pointer}/{key}") for key, entry in entries.items()}
    if kind is Any:
        return value
    if kind is float and type(value) is int:
        return float(value)
    return _expect(kind, value, pointer)


def _decode_dataclass(kind: Any, value: Any, pointer: str) -> Any:
    entries = _expect(dict, value, pointer)
    hints = typing.get_type_hints(kind)
    known = {}
    for member in dataclasses.fields(kind):
        if member.name in entries:
            known[member.name] = _decode(hints[member.name], entries[member.name], f"{pointer}/{member.name}")
        elif member.default is dataclasses.MISSING and member.default_factory is dataclasses.MISSING:
            raise BundleCorrupt(f"{pointer}/{member.name} is missing")
    return kind(**known)


def _expect(kind: type, value: Any, pointer: str) -> Any:
    if type(value) is not kind:
        raise BundleCorrupt(f"{pointer} must be {kind.__name__}, not {type(value).__name__} ({value!r:.80})")
    return value

"""What a job is: a bundle, an input cut into parts, and everything else that decides the answers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from genrec_runtime.batch.available import Availability, look
from genrec_runtime.batch.tables import check_column, count_rows, footer_hash, parquet_files, schema_of
from genrec_runtime.bundle import Bundle
from genrec_runtime.errors import InputError, Unsupported
from genrec_runtime.manifest import FP32, Manifest
from genrec_runtime.options import Options
from genrec_runtime.requests import OnUnknown, list_length, refuse

if TYPE_CHECKING:
    from polars import DataType

PART_ROWS = 20_000
WRITTEN = ("row", "items", "scores", "status")  # columns of the output that are ours
COMMON = {  # names that are taken for a column where none is given
    "history": ("history", "histories", "item_ids", "items"),
    "user": ("user", "user_id", "userid", "customer", "customer_id"),
    "timestamps": ("timestamps", "times"),
    "request_time": ("request_time",),
    "exclude": ("exclude", "excluded"),
}


@dataclass(frozen=True)
class Columns:
    """The names of the input's columns; None takes a common name where the input has one.

    Attributes:
        history: lists of raw ids, oldest first.
        user: the users' ids; copied to the output, and given to models that read them.
        timestamps: lists as long as the histories, for models that read times: whole seconds since 1970, or dates.
        request_time: when each answer is wanted, in the same unit.
        exclude: lists of further raw ids that are not to be recommended.
        keep: further columns to copy to the output.
    """

    history: str | None = None
    user: str | None = None
    timestamps: str | None = None
    request_time: str | None = None
    exclude: str | None = None
    keep: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ask:
    """What is asked of the recommender; None takes the bundle's default.

    Attributes:
        k: how many items a row.
        exclude_seen: leave out what the history holds.
        on_unknown: "drop" ids that the catalogue lacks, or "error", which sets the row aside.
        variant: "fp32", or a cheaper form that the bundle has.
        device: "cpu", "cuda", "cuda:N", or "auto".
    """

    k: int | None = None
    exclude_seen: bool | None = None
    on_unknown: OnUnknown | None = None
    variant: str = FP32
    device: str = "auto"


@dataclass(frozen=True)
class Source:
    """One input file.

    Attributes:
        path: where it is.
        rows: how many it has.
        size: its bytes.
        footer: the sha256 of its footer.
        modified: when it was last written, in nanoseconds since 1970.
    """

    path: str
    rows: int
    size: int
    footer: str
    modified: int


@dataclass(frozen=True)
class Part:
    """A range of rows of one input file: one file of the output.

    Attributes:
        number: from 0, in the order of the rows.
        source: the file.
        start: its first row in the file, from 0.
        stop: the row after its last.
        first: the number of its first row in the whole input, from 0.
    """

    number: int
    source: Source
    start: int
    stop: int
    first: int

    @property
    def name(self) -> str:
        """What its files are called, without an ending."""
        return f"{self.number:06d}"


@dataclass(frozen=True)
class Job:
    """All that ``recommend_partition`` must know beside the part; plain, and quick to pickle.

    Attributes:
        bundle: the bundle's folder, links resolved.
        digest: "sha256:..." of its manifest; another bundle is refused.
        kind: "int" or "str", what its ids are.
        reads: the further inputs that the model reads.
        out: the folder of the output.
        columns: the names found; None where there is no such column.
        ask: what is asked.
        availability: the file of the items that may be recommended; None where all may.
        key: the sha256 of ``job.json``: parts of another job do not count as done.
        threads: threads of each process; None takes what it may use. No part of the job's identity.
    """

    bundle: str
    digest: str
    kind: Literal["int", "str"]
    reads: tuple[str, ...]
    out: str
    columns: Columns
    ask: Ask
    availability: Availability | None
    key: str
    threads: int | None = None


@dataclass(frozen=True)
class Plan:
    """A job and its parts.

    Attributes:
        job: what to do.
        parts: all of them, in the order of the rows.
        identity: what ``job.json`` holds: what must be the same for a restart to go on.
    """

    job: Job
    parts: tuple[Part, ...]
    identity: Mapping[str, Any]

    @property
    def rows(self) -> int:
        """Rows of the whole input."""
        return sum(part.stop - part.start for part in self.parts)


def plan(
    bundle: str | os.PathLike[str],
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    columns: Columns | None = None,
    ask: Ask | None = None,
    availability: str | os.PathLike[str] | None = None,
    part_rows: int = PART_ROWS,
) -> Plan:
    """Looks at the bundle and at the input's footers, and cuts the input into parts; nothing is written.

    Args:
        bundle: the bundle's folder, or a link to it.
        source: a Parquet file, or a folder of them.
        out: the folder that ``run`` makes or goes on with.
        columns: the input's columns.
        ask: what is asked of the recommender.
        availability: a file of raw ids, one a line; only these are recommended.
        part_rows: rows of a part at most; a process holds one part in memory.

    Raises:
        InputError: if the input has no such column, a column cannot be what it is to be, an option is not usable, or no item
            is available.
        Unsupported: if the model has no use for a column that was named.
        BundleError: if the bundle is missing or damaged.
        OSError: if the availability file cannot be read.
        ValueError: if ``part_rows`` is below 1, or ``ask`` names no device.
    """
    columns, ask = columns or Columns(), ask or Ask()
    if part_rows < 1:
        raise ValueError(f"part_rows ({part_rows}) must be at least 1")
    Options(device=ask.device, variant=ask.variant)
    opened = Bundle.open(bundle, variant=ask.variant)
    manifest = opened.manifest
    if manifest.semantics is None:
        raise Unsupported(f"{opened.path} is a bundle of kind {manifest.kind!r}; only recommenders recommend")
    list_length(manifest.defaults.k if ask.k is None else ask.k, manifest.semantics, limited=True)
    items = opened.catalogue().items
    available = None if availability is None else look(availability, items)
    reads = tuple(name for name in ("timestamps", "request_time", "users") if name in manifest.capabilities)
    files = parquet_files(source)
    found = _find(columns, schema_of(files[0]), manifest)
    for file in files:
        _check(found, schema_of(file), file, items.kind, reads)
    sources = [_look(file) for file in files]
    identity = {
        "format": 1,
        "bundle": opened.digest,
        "columns": dataclasses.asdict(found),
        "ask": dataclasses.asdict(ask),
        "availability": None if available is None else available.sha256,
        "part_rows": part_rows,
        "input": [dataclasses.asdict(source) | {"path": Path(source.path).name} for source in sources],
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    folder = str(Path(out).absolute())
    job = Job(str(opened.path), opened.digest, items.kind, reads, folder, found, ask, available, key)
    return Plan(job, tuple(_cut(sources, part_rows)), identity)


def _look(file: Path) -> Source:
    seen = file.stat()
    return Source(str(file), count_rows(file), seen.st_size, footer_hash(file), seen.st_mtime_ns)


def _cut(sources: Sequence[Source], part_rows: int) -> list[Part]:
    """Ranges of at most ``part_rows`` rows; one empty part where there are no rows, so that the output has a schema."""
    ranges = [
        (source, start, min(start + part_rows, source.rows))
        for source in sources
        for start in range(0, source.rows, part_rows)
    ] or [(sources[0], 0, 0)]
    parts, first = [], 0
    for number, (source, start, stop) in enumerate(ranges):
        parts.append(Part(number, source, start, stop, first))
        first += stop - start
    return parts


def _find(wanted: Columns, schema: Mapping[str, DataType], manifest: Manifest) -> Columns:
    """The columns by the names given, else by common ones."""
    given = {role: getattr(wanted, role) for role in COMMON}
    for name in (*given.values(), *wanted.keep):
        if name is not None and name not in schema:
            message = f"the input has no column {name!r}; it has {', '.join(schema)}"
            raise InputError(message, code="table", field="columns", value=name)
    refuse(manifest.capabilities, {role: given[role] for role in ("timestamps", "request_time")})
    common = {role: next((name for name in names if name in schema), None) for role, names in COMMON.items()}
    found = {role: given[role] or common[role] for role in COMMON}
    for role in ("timestamps", "request_time"):
        if role not in manifest.capabilities:
            found[role] = None
    for role, needed in (("history", True), ("timestamps", "timestamps" in manifest.capabilities)):
        if needed and found[role] is None:
            names = " or ".join(COMMON[role])
            message = f"the input has no column {names}; name that of the {role}: it has {', '.join(schema)}"
            raise InputError(message, code="table", field=role)
    kept = tuple(dict.fromkeys([*([found["user"]] if found["user"] else []), *wanted.keep]))
    return Columns(**found, keep=kept)


def _check(columns: Columns, schema: Mapping[str, DataType], file: Path, kind: str, reads: Sequence[str]) -> None:
    """Refuses what no row could be answered with."""
    used = [name for name in dataclasses.astuple(columns)[:-1] if name is not None]
    for name in (*used, *columns.keep):
        if name not in schema:
            message = f"{file} has no column {name!r}, the first file has"
            raise InputError(message, code="table", field="columns", value=name)
        if name in columns.keep and name in WRITTEN:
            message = f"column {name!r} cannot be kept: the output has its own of that name; rename it"
            raise InputError(message, code="table", field="keep", value=name)
    assert columns.history is not None
    hint = f": the bundle's item ids are {kind}"
    check_column(schema, columns.history, "history", [kind], listed=True, hint=hint)
    if columns.exclude is not None:
        check_column(schema, columns.exclude, "exclude", [kind], listed=True, hint=hint)
    if columns.user is not None and "users" in reads:
        check_column(schema, columns.user, "user", ["int", "str"], listed=False)
    if columns.timestamps is not None:
        check_column(schema, columns.timestamps, "timestamps", ["int", "time"], listed=True)
    if columns.request_time is not None:
        check_column(schema, columns.request_time, "request_time", ["int", "time"], listed=False)

"""Files of a job that appear whole or not at all, and how a part is known to be done.

A job's folder holds ``job.json``, ``parts/NNNNNN.parquet``, ``quarantine/NNNNNN.jsonl`` where a part has rows that could not be
answered, and ``done/NNNNNN.json``, which is written last and has the hashes of the other two.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genrec_runtime.batch.jobs import Job, Part, Plan
from genrec_runtime.errors import GenrecError
from genrec_runtime.store import hidden_name, sync_folder

PARTS, QUARANTINE, DONE, JOB, LOCK = "parts", "quarantine", "done", "job.json", ".lock"
BLOCK = 1 << 20


@dataclass(frozen=True)
class Counts:
    """What became of the rows of a part; ``answered + bad == rows``.

    Attributes:
        part: its number.
        rows: rows of the input.
        answered: rows of the output.
        bad: rows set aside.
        reasons: how many of these by code.
        status: how many of the answered rows by status.
        ids: item ids of the answered rows' histories.
        unknown_items: how many of these the catalogue lacks.
        is_new: whether the part was made in this call, not found done.
    """

    part: int
    rows: int
    answered: int
    bad: int
    reasons: dict[str, int] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    ids: int = 0
    unknown_items: int = 0
    is_new: bool = True


def finished(job: Job, part: Part) -> Counts | None:
    """What a part came to, if it was made for this very job and its files have the bytes that were written; else None."""
    out = Path(job.out)
    try:
        record = json.loads((out / DONE / f"{part.name}.json").read_bytes())
        if record["job"] != job.key or any(sha256(out / name) != sha for name, sha in record["files"].items()):
            return None
        return Counts(**record["counts"], is_new=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def publish(job: Job, part: Part, counts: Counts, files: Mapping[str, bytes]) -> None:
    """Writes a part's files, and after them the record that they are done.

    Args:
        job: whose output it is.
        part: what was made.
        counts: what became of its rows.
        files: names in the job's folder, and contents.
    """
    out = Path(job.out)
    for name, content in files.items():
        appear(out / name, content)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    plain = {name: value for name, value in dataclasses.asdict(counts).items() if name != "is_new"}
    appear(out / DONE / f"{part.name}.json", _json({"job": job.key, "files": hashes, "counts": plain}))


def appear(path: Path, content: bytes) -> None:
    """Writes a hidden file, then gives it its name in one step, safe from a loss of power."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.parent / hidden_name()
    try:
        with open(hidden, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(hidden, path)
    finally:
        hidden.unlink(missing_ok=True)
    sync_folder(path.parent)


def sha256(path: Path) -> str:
    """The sha256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def working_on(plan: Plan) -> Iterator[None]:
    """Holds a job's folder for this process, and makes it where it is not there.

    In the end what killed processes left half written is cleared away.

    Raises:
        GenrecError: if another process holds it, or it belongs to another job.
        OSError: if it cannot be written.
    """
    out = Path(plan.job.out)
    out.mkdir(parents=True, exist_ok=True)
    with open(out / LOCK, "ab") as lock:
        _lock(lock.fileno(), out)
        _claim(plan, out)
        try:
            yield
        finally:
            for hidden in [*out.glob(".tmp-*"), *out.glob("*/.tmp-*")]:
                hidden.unlink(missing_ok=True)


def _lock(descriptor: int, out: Path) -> None:
    try:
        import fcntl
    except ImportError:  # not on Windows; there two jobs at once do each other's work twice, and nothing worse
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise GenrecError(f"another process is at work in {out}; wait for it, or end it", code="job") from None


def _claim(plan: Plan, out: Path) -> None:
    path = out / JOB
    if not path.exists():
        others = sorted(name for name in os.listdir(out) if name != LOCK and not name.startswith(".tmp-"))
        if others:
            message = f"{out} is not empty and holds no job ({others[0]} is there); name another folder"
            raise GenrecError(message, code="job")
        appear(path, _json(plan.identity))
        for folder in (PARTS, QUARANTINE, DONE):
            (out / folder).mkdir(exist_ok=True)
        return
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise GenrecError(f"{path} is damaged: {error}; remove {out}", code="job") from error
    wanted = json.loads(_json(plan.identity))
    if found != wanted:
        different = [name for name in wanted if not isinstance(found, dict) or found.get(name) != wanted[name]]
        message = f"{out} holds another job, of other {', '.join(different)}; name another folder, or remove this one"
        raise GenrecError(message, code="job")


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()

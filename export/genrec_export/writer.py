"""Writing a bundle: beside the store first, complete and synced, then renamed into it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec_export.errors import ExportError
from genrec_export.parity import Report
from genrec_runtime.bundle import Bundle
from genrec_runtime.manifest import FileEntry, Manifest

ROLES = {
    ".onnx": "graph",
    "weights.bin": "weights",
    "items.": "items",
    "titles.": "items",
    "cold_start.": "items",
    "golden/": "golden",
    "report.json": "report",
    "README.md": "card",
}


@contextlib.contextmanager
def staging(store: Path) -> Iterator[Path]:
    """An empty folder inside the store, removed again unless it was renamed away.

    Raises:
        ExportError: if the store cannot be written; said before the long work begins.
    """
    folder = store / f".tmp-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        store.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except OSError as error:
        raise ExportError(f"cannot write to the store {store}: {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write(folder: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Manifest:
    """Writes files and, last, the manifest that lists them; everything is synced to disk and readable by all.

    Args:
        folder: where to write.
        manifest: complete but for ``files``, ``created`` and ``bundle_id``.
        files: names and contents.

    Returns:
        The manifest as written.

    Raises:
        ExportError: if the disk refuses.
    """
    entries = {
        name: FileEntry(len(content), hashlib.sha256(content).hexdigest(), role_of(name))
        for name, content in files.items()
    }
    created = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = dataclasses.replace(manifest, files=entries, created=created).identified()
    try:
        (folder / "golden").mkdir(exist_ok=True)
        for name, content in (*files.items(), ("manifest.json", manifest.to_json())):
            _write_synced(folder / name, content)
        for place in (folder / "golden", folder):
            _sync_folder(place)
    except OSError as error:
        raise ExportError(f"cannot write the bundle to {folder}: {error.strerror}") from error
    return manifest


def publish(folder: Path, store: Path, version: str, *, promote: bool) -> Path:
    """Renames a complete bundle into the store as ``version``.

    ``current`` is set to it where the store has none yet, or ``promote`` asks for it.

    Returns:
        The bundle's folder; where the store already has this version, that one.

    Raises:
        ExportError: if the disk refuses, or what the store holds under this version is damaged.
    """
    target = store / version
    try:
        if target.exists():
            Bundle.open(target)  # equal content, equal version: what is there must be whole
        else:
            os.rename(folder, target)
            _sync_folder(store)
        if promote or not os.path.lexists(store / "current"):
            link = store / f".tmp-current-{secrets.token_hex(4)}"
            link.symlink_to(version)
            os.replace(link, store / "current")
            _sync_folder(store)
    except OSError as error:
        raise ExportError(f"cannot publish {version} in {store}: {error.strerror}") from error
    return target


def write_failure(out: Path, report: Report) -> Path:
    """Leaves ``OUT.failed/`` with the report and the smallest input that failed; returns the folder."""
    folder = out.with_name(out.name + ".failed")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "report.json").write_bytes(report.to_json())
    if report.failing:
        (folder / "failing_input.npz").write_bytes(npz(report.failing))
    return folder


def npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays as the bytes of an ``.npz`` file: the same arrays, the same bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def role_of(name: str) -> str:
    """What a file of a bundle is for."""
    return next(role for part, role in ROLES.items() if name.startswith(part) or name.endswith(part))


def _write_synced(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), 0o644)  # whoever serves is often not who exported
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

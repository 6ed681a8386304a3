"""Writing a bundle: inside the store under a name of its own first, complete and synced, then renamed."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from genrec_export.errors import ExportError
from genrec_export.report import Report, npz
from genrec_runtime.bundle import Bundle
from genrec_runtime.checks import read_manifest
from genrec_runtime.errors import GenrecError
from genrec_runtime.manifest import FileEntry, Manifest
from genrec_runtime.store import claim_current, hidden_name, keeping, move_in, point_current_to, sync_folder

ROLES = {
    ".onnx": "graph",
    "weights.": "weights",
    "items.": "items",
    "titles.": "items",
    "cold_start.": "items",
    "golden/": "golden",
    "report.json": "report",
    "README.md": "card",
}
TRIES = 100  # to make a folder in a store that another exporter, refused, removes again


@dataclass(frozen=True)
class Published:
    """Where a bundle came to lie.

    Attributes:
        path: its folder.
        is_new: False where the store had this version already, perhaps from another exporter a moment ago.
    """

    path: Path
    is_new: bool


def check_store(store: Path) -> None:
    """Tries whether the store can be written, and leaves it as it was; errors as ``staging``."""
    with staging(store):
        pass


@contextlib.contextmanager
def staging(store: Path) -> Iterator[Path]:
    """An empty folder inside the store, removed again unless it was renamed away; so is the store, if it was made for it.

    Of a store that others use meanwhile nothing of theirs is removed.

    Raises:
        ExportError: if the store cannot be written.
    """
    folder = store / hidden_name()
    existed = os.path.lexists(store)
    try:
        try:
            _make_folder(folder)
        except OSError as error:
            raise ExportError(f"cannot write to the store {store}: {error.strerror}") from error
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not existed:
            with contextlib.suppress(OSError):  # it holds a version now, or the folder of another exporter
                store.rmdir()


def write_files(folder: Path, files: Mapping[str, bytes]) -> dict[str, FileEntry]:
    """Writes files, synced to disk and readable by all; returns what the manifest says of them.

    Raises:
        ExportError: if the disk refuses.
    """
    try:
        for name, content in files.items():
            _write_synced(folder / name, content)
    except OSError as error:
        raise ExportError(f"cannot write the bundle to {folder}: {error.strerror}") from error
    return {
        name: FileEntry(len(content), hashlib.sha256(content).hexdigest(), role_of(name))
        for name, content in files.items()
    }


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Writes the manifest, after all files that it lists; returns it with its creation time and id.

    Raises:
        ExportError: if the disk refuses, or no reader would take it, since it is too large.
    """
    created = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = dataclasses.replace(manifest, created=created).identified()
    content = manifest.to_json()
    try:
        read_manifest(content)
        _write_synced(folder / "manifest.json", content)
        for place in (folder / "golden", folder):
            sync_folder(place)
    except OSError as error:
        raise ExportError(f"cannot write the bundle to {folder}: {error.strerror}") from error
    except GenrecError as error:
        raise ExportError(f"the manifest could not be read again: {error}") from error
    return manifest


def publish(folder: Path, store: Path, manifest: Manifest, *, promote: bool) -> Published:
    """Renames a complete bundle into the store, under its version; of several exporters of one version one does so.

    ``current`` is set to it where the store has none yet, or ``promote`` asks for it.

    Raises:
        ExportError: if the disk refuses, or what the store holds under this version is damaged or another bundle.
    """
    version = manifest.version
    try:
        with keeping(store, version):
            is_new = move_in(folder, store / version)
            if not is_new:
                _check_equal(store / version, manifest)
            if promote:
                point_current_to(store, version)
            else:
                claim_current(store, version)
    except OSError as error:
        raise ExportError(f"cannot publish {version} in {store}: {error.strerror}") from error
    return Published(store / version, is_new)


@contextlib.contextmanager
def leaving_evidence(store: Path, report: Report) -> Iterator[None]:
    """Where an export is refused, leaves ``STORE.failed/``: the report, the smallest failing input, the error in full.

    Raises:
        ExportError: the one raised inside, with the folder's name added.
    """
    try:
        yield
    except ExportError as error:
        folder = Path(os.path.abspath(store) + ".failed")
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            (folder / "report.json").write_bytes(report.to_json(str(error)))
            (folder / "error.txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8")
            if report.failing:
                (folder / "failing_input.npz").write_bytes(npz(report.failing))
        except OSError as problem:
            shutil.rmtree(folder, ignore_errors=True)
            raise ExportError(f"{error}; nor could {folder} be written: {problem.strerror}") from error
        refused = ExportError(f"{error}; more in {folder}")
        refused.report = report
        raise refused from error


def role_of(name: str) -> str:
    """What a file of a bundle is for."""
    return next(role for part, role in ROLES.items() if name.startswith(part) or name.endswith(part))


def _make_folder(folder: Path) -> None:
    for left in reversed(range(TRIES)):
        try:
            (folder / "golden").mkdir(parents=True)
            break
        except FileNotFoundError:  # another exporter had made the store, was refused and removed it
            if not left:
                raise
    for place in (folder, folder / "golden"):
        place.chmod(0o755)  # whoever serves is often not who exported


def _check_equal(target: Path, manifest: Manifest) -> None:
    """Refuses what lies where a bundle should, if it is damaged or not the same."""
    try:
        found = Bundle.open(target).manifest.content_id
    except GenrecError as error:
        raise ExportError(f"the store has this version already, but damaged; remove {target}: {error}") from error
    if found != manifest.content_id:
        raise ExportError(f"{target} holds another bundle, {found}; rename or remove it")


def _write_synced(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), 0o644)  # whoever serves is often not who exported
        os.fsync(file.fileno())

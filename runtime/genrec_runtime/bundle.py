"""Opening a bundle: every file read once, hashed, and from then on used from memory."""

from __future__ import annotations

import hashlib
import io
import math
import os
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec.histories import Catalogue
from genrec_runtime.checks import ALIGNMENT, read_manifest
from genrec_runtime.errors import BundleCorrupt, BundleNotFound, Unsupported
from genrec_runtime.manifest import FP32, Manifest, Weight
from genrec_runtime.strictjson import MAX_BYTES

MAX_GOLDEN_BYTES = 256 << 20


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle whose every byte agrees with its manifest.

    Attributes:
        path: the folder, links resolved at opening.
        manifest: what it says of itself.
        digest: "sha256:..." of ``manifest.json``: pin this where the bundle comes from somebody else.
        files: the content of every file that was opened, 64-byte aligned, read-only.
    """

    path: Path
    manifest: Manifest
    digest: str
    files: Mapping[str, NDArray[np.uint8]]

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, variant: str | None = None, expect_digest: str | None = None
    ) -> Bundle:
        """Reads and verifies a bundle.

        A link such as ``store/current`` may move, and what it pointed to be pruned, while this reads: what comes back is one
        whole version that the link pointed to during the call.

        Args:
            path: its folder, or a link to it.
            variant: leave out what only other variants need; None opens every file.
            expect_digest: "sha256:..." that ``manifest.json`` must have.

        Raises:
            BundleNotFound: if there is no bundle at ``path``.
            BundleCorrupt: if a file is missing, is no regular file, or differs from the manifest in size or hash.
            BundleVersionError: if its format is not readable here.
            Unsupported: if the bundle has no such variant.
        """
        folder = _resolve(path)
        try:
            return cls._open(folder, variant, expect_digest)
        except BundleNotFound:  # pruned since it was resolved: the link points to another by now, or nothing is there
            return cls.open(path, variant=variant, expect_digest=expect_digest)

    @classmethod
    def _open(cls, folder: Path, variant: str | None, expect_digest: str | None) -> Bundle:
        blob = _read(folder, "manifest.json", None).tobytes()
        digest = "sha256:" + hashlib.sha256(blob).hexdigest()
        if expect_digest is not None and expect_digest != digest:
            raise BundleCorrupt(f"{folder}: manifest.json has {digest}, expected {expect_digest}", code="bundle_digest")
        manifest = read_manifest(blob)
        skipped = _of_other_variants(manifest, variant)
        files = {name: _read_verified(folder, name, manifest) for name in manifest.files if name not in skipped}
        return cls(folder, manifest, digest, files)

    @staticmethod
    def read_manifest(path: str | os.PathLike[str]) -> Manifest:
        """What a bundle says of itself; none of its files is looked at.

        Raises:
            BundleError: if there is no bundle at ``path``, or its manifest cannot be read.
        """
        return read_manifest(_read(_resolve(path), "manifest.json", None).tobytes())

    def bytes(self, name: str) -> bytes:
        """A copy of one file's content."""
        return self.files[name].tobytes()

    def catalogue(self) -> Catalogue:
        """The items of a recommender.

        Raises:
            BundleCorrupt: if the item files are damaged or do not count ``num_items``.
        """
        wanted = [name for name, entry in self.manifest.files.items() if entry.role == "items"]
        try:
            catalogue = Catalogue.from_files({name: self.bytes(name) for name in wanted})
        except (ValueError, TypeError) as error:
            raise BundleCorrupt(f"{self.path}: {error}") from error
        stated = self.manifest.semantics.num_items if self.manifest.semantics else 0
        if len(catalogue.items) != stated:
            raise BundleCorrupt(
                f"{self.path}: the item files hold {len(catalogue.items)} items, the manifest says {stated}"
            )
        return catalogue

    def weight(self, file: str, weight: Weight) -> NDArray[Any]:
        """One tensor of a weights file, a view of the verified bytes."""
        count = math.prod(weight.shape)  # inside the file: the manifest was checked
        return np.frombuffer(self.files[file], np.dtype(weight.dtype), count, weight.offset).reshape(weight.shape)

    def golden(self, graph: str) -> list[tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]]:
        """The recorded inputs and outputs of a graph, case by case.

        Raises:
            BundleCorrupt: if the file is missing, damaged, or would unpack to more than 256 MiB.
        """
        name = f"golden/{graph}.npz"
        if name not in self.files:
            raise BundleCorrupt(f"{self.path}: {name} is missing")
        try:
            arrays = _read_npz(self.bytes(name))
        except Exception as error:  # a damaged archive fails in many ways, from zlib to the headers' tokenizer
            raise BundleCorrupt(f"{self.path}: {name} is damaged: {error}") from error
        cases: dict[str, tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]] = {}
        for key, array in arrays.items():
            case, _, rest = key.partition(".")
            way, _, tensor = rest.partition(".")
            if way not in ("in", "out") or not tensor:
                raise BundleCorrupt(f"{self.path}: {name} holds {key!r}, which is neither an input nor an output")
            cases.setdefault(case, ({}, {}))[way == "out"][tensor] = array
        return list(cases.values())


def _resolve(path: str | os.PathLike[str]) -> Path:
    """The folder itself, links followed once, so that a link that moves meanwhile cannot mix two bundles."""
    try:
        if not os.fspath(path):
            raise BundleNotFound("the bundle's path is empty")
        folder = Path(os.path.realpath(path))
        found = (folder / "manifest.json").exists()
    except (OSError, ValueError) as error:  # no permission, too long a name, a NUL
        raise BundleNotFound(f"there is no bundle at {os.fspath(path)!r}: {error}") from error
    if found:
        return folder
    if not folder.exists():
        raise BundleNotFound(f"there is no bundle at {path}{_beside(folder)}")
    if not folder.is_dir():
        raise BundleNotFound(f"{path} is a file; a bundle is a folder with a manifest.json")
    if (folder / "current").exists():
        raise BundleNotFound(f"{path} is a store of bundles; name one of them, such as {Path(path) / 'current'}")
    raise BundleNotFound(f"{path} holds no manifest.json: no bundle, or an export that did not finish")


def _of_other_variants(manifest: Manifest, variant: str | None) -> set[str]:
    """The files that a reader of one variant does not need."""
    if variant not in (None, FP32, *manifest.variants):
        offered = ", ".join((FP32, *manifest.variants))
        raise Unsupported(f"this bundle has no variant {variant!r}; it has {offered}")
    others = [other.files for name, other in manifest.variants.items() if variant not in (None, name)]
    return {file for files in others for file in files}


def _beside(folder: Path) -> str:
    """What else there is where a folder was looked for."""
    try:
        names = sorted(path.name for path in folder.parent.iterdir() if not path.name.startswith("."))
    except OSError:
        return ""
    return f"; beside it: {', '.join(names[:8])}" if names else ""


def _read_verified(folder: Path, name: str, manifest: Manifest) -> NDArray[np.uint8]:
    entry = manifest.files[name]
    content = _read(folder, name, entry.size)
    found = hashlib.sha256(content.data).hexdigest()
    if found != entry.sha256:
        raise BundleCorrupt(f"{folder / name} was changed: its sha256 is {found}, the manifest says {entry.sha256}")
    return content


def _read(folder: Path, name: str, size: int | None) -> NDArray[np.uint8]:
    """One regular file through one descriptor into aligned memory; ``size`` None caps it at a manifest's."""
    path = folder / name
    try:
        with open(path, "rb", buffering=0, opener=_open_at_once) as file:
            return _read_regular(path, file, size)
    except FileNotFoundError as error:
        if not folder.exists():
            raise BundleNotFound(f"{folder} was removed while it was read") from error
        raise BundleCorrupt(f"{path} is missing") from error
    except IsADirectoryError as error:
        raise BundleCorrupt(f"{path} is a folder, not a regular file", code="bundle_unsafe") from error
    except OSError as error:
        raise BundleCorrupt(f"{path} cannot be read: {error.strerror}{_owner(path)}") from error


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a FIFO must not hang us


def _read_regular(path: Path, file: io.FileIO, size: int | None) -> NDArray[np.uint8]:
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise BundleCorrupt(f"{path} is not a regular file", code="bundle_unsafe")
    if size is None and status.st_size > MAX_BYTES:
        raise BundleCorrupt(f"{path} has {status.st_size} bytes, more than {MAX_BYTES}", code="bundle_unsafe")
    expected = status.st_size if size is None else size
    if status.st_size != expected:
        raise BundleCorrupt(f"{path} has {status.st_size} bytes, the manifest says {expected}")
    content = _aligned(expected)
    view, done = content.data, 0
    while done < expected and (count := file.readinto(view[done:])):
        done += count
    if done != expected:
        raise BundleCorrupt(f"{path} ended after {done} of {expected} bytes")
    content.setflags(write=False)
    return content


def _owner(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return ""
    user = os.geteuid() if hasattr(os, "geteuid") else "?"
    return f" (mode {stat.S_IMODE(status.st_mode):o}, owner {status.st_uid}, this process is user {user})"


def _aligned(size: int) -> NDArray[np.uint8]:
    raw = np.empty(size + ALIGNMENT, dtype=np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]


def _read_npz(blob: bytes) -> dict[str, NDArray[Any]]:
    with zipfile.ZipFile(io.BytesIO(blob)) as archive:
        if sum(member.file_size for member in archive.infolist()) > MAX_GOLDEN_BYTES:
            raise ValueError(f"it would unpack to more than {MAX_GOLDEN_BYTES} bytes")
    with np.load(io.BytesIO(blob), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    strange = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
    if strange:  # numpy hands over the bytes of a member that is none
        raise ValueError(f"{strange[0]!r} is no array")
    return arrays

"""A store of bundles: which version is current, going to another, going back, and clearing away old ones.

A store is a folder of versions with two links, ``current`` and ``previous``. Versions never change; a link is replaced in one
step, so a reader sees one version or the other. A process that has loaded a bundle works from memory and is not disturbed.
"""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from genrec_runtime.bundle import Bundle
from genrec_runtime.errors import BundleError, BundleNotFound
from genrec_runtime.verify import Verified, verify

CURRENT, PREVIOUS = "current", "previous"


@dataclass(frozen=True)
class Version:
    """One version in a store.

    Attributes:
        name: its folder.
        model: the model's name, empty where the bundle cannot be read.
        created: when it was exported, ISO 8601.
        size: bytes of its files.
        is_current: whether ``current`` points to it.
        is_previous: whether ``rollback`` would go to it.
        damage: why its manifest cannot be read, empty where it can.
    """

    name: str
    model: str
    created: str
    size: int
    is_current: bool
    is_previous: bool
    damage: str = ""


def versions(store: str | os.PathLike[str]) -> list[Version]:
    """What a store holds, the newest first; manifests are read, files are not hashed.

    Raises:
        BundleNotFound: if ``store`` is no folder.
    """
    root = _root(store)
    links = {name: target(root, name) for name in (CURRENT, PREVIOUS)}
    found = [_look(root / name, name == links[CURRENT], name == links[PREVIOUS]) for name in _names(root)]
    return sorted(found, key=lambda version: (version.created, version.name), reverse=True)


def promote(store: str | os.PathLike[str], version: str, *, device: str = "cpu") -> Verified:
    """Makes a version current, after hashing all its files and replaying its golden requests on this machine.

    Args:
        store: the folder of versions.
        version: the name of one of them.
        device: where the golden requests are replayed.

    Raises:
        BundleError: if the version is missing or damaged.
        InferenceError: if it answers differently here than when it was exported.
    """
    root = _root(store)
    if version not in _names(root):
        raise BundleNotFound(f"{store} has no version {version!r}; it has {', '.join(_names(root)) or 'none'}")
    seen = verify(root / version, device=device)
    point_current_to(root, version)
    return seen


def rollback(store: str | os.PathLike[str], *, device: str = "cpu") -> str:
    """Makes the version current that was so before, checked as by ``promote``; returns its name.

    Raises:
        BundleNotFound: if there is none, or it was pruned.
        BundleError: if it is damaged.
    """
    before = target(_root(store), PREVIOUS)
    if before is None:
        raise BundleNotFound(f"{store} has no earlier version to go back to")
    promote(store, before, device=device)
    return before


def prune(store: str | os.PathLike[str], keep: int) -> list[str]:
    """Removes all but the newest ``keep`` versions; ``current`` and ``previous`` stay whatever their age.

    Left-overs of exports that were killed, hidden folders, go too if nothing is being exported by a live process.

    Returns:
        The names of the versions removed.

    Raises:
        ValueError: if ``keep`` is below 1.
    """
    if keep < 1:
        raise ValueError(f"keep ({keep}) must be at least 1")
    root = _root(store)
    old = [version.name for version in versions(root)[keep:] if not (version.is_current or version.is_previous)]
    for name in old:
        hidden = root / f".tmp-{os.getpid()}-{secrets.token_hex(4)}"
        os.rename(root / name, hidden)  # from here on nobody finds half a version
        shutil.rmtree(hidden)
    for leftover in root.glob(".tmp-*"):
        if not _alive(leftover.name):
            shutil.rmtree(leftover, ignore_errors=True)
    return old


def target(store: Path, link: str) -> str | None:
    """The version that a link of a store points to, None where there is no such link."""
    path = store / link
    return os.readlink(path) if path.is_symlink() else None


def point_current_to(store: Path, version: str) -> None:
    """Replaces the link ``current`` in one step, and lets ``previous`` remember what it was."""
    before = target(store, CURRENT)
    if before == version:
        return
    if before is not None:
        _link(store, PREVIOUS, before)
    _link(store, CURRENT, version)
    sync_folder(store)


def sync_folder(path: Path) -> None:
    """Makes the folder's entries, new names and links, survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link(store: Path, name: str, version: str) -> None:
    beside = store / f".tmp-{os.getpid()}-{secrets.token_hex(4)}"
    beside.symlink_to(version)
    os.replace(beside, store / name)


def _root(store: str | os.PathLike[str]) -> Path:
    root = Path(store)
    if not root.is_dir():
        raise BundleNotFound(f"there is no store at {store}")
    if (root / "manifest.json").exists():
        raise BundleNotFound(f"{store} is one bundle; a store is the folder that holds it")
    return root


def _names(root: Path) -> list[str]:
    """The versions' folders; neither links nor what an export has not finished."""
    return sorted(p.name for p in root.iterdir() if p.is_dir() and not p.is_symlink() and not p.name.startswith("."))


def _look(path: Path, is_current: bool, is_previous: bool) -> Version:
    try:
        manifest = Bundle.read_manifest(path)
    except BundleError as error:
        return Version(path.name, "", "", 0, is_current, is_previous, str(error))
    size = sum(entry.size for entry in manifest.files.values())
    name = str(manifest.model.get("name", ""))
    return Version(path.name, name, manifest.created, size, is_current, is_previous)


def _alive(name: str) -> bool:
    """Whether the process that made a hidden folder, ``.tmp-<pid>-<hex>``, still runs."""
    number = name.split("-")[1]
    if not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

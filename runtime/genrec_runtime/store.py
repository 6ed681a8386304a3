"""A store of bundles: which version is current, going to another, going back, and clearing away old ones.

A store is a folder of versions with two links, ``current`` and ``previous``. Versions never change; a link is replaced in one
step, so a reader sees one version or the other. A process that has loaded a bundle works from memory and is not disturbed.

Several processes may publish, promote and prune at once, without locks: what a link points to is never removed, and whoever
needs a version for a while makes a hidden link to it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
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

    Killed at any moment, it leaves ``current`` as it was or at ``version``.

    Args:
        store: the folder of versions.
        version: the name of one of them.
        device: where the golden requests are replayed.

    Raises:
        BundleError: if the version is missing or damaged.
        InferenceError: if it answers differently here than when it was exported.
        OSError: if the store cannot be written.
    """
    root = _root(store)
    if version not in _names(root):
        raise BundleNotFound(f"{store} has no version {version!r}; it has {', '.join(_names(root)) or 'none'}")
    with keeping(root, version):
        seen = verify(root / version, device=device)
        point_current_to(root, version)
    return seen


def rollback(store: str | os.PathLike[str], *, device: str = "cpu") -> str:
    """Makes the version current that was so before, checked as by ``promote``; returns its name.

    Raises:
        BundleNotFound: if there is none, also where a promotion was killed halfway.
        BundleError: if it is damaged.
    """
    root = _root(store)
    before = target(root, PREVIOUS)
    if before in (None, target(root, CURRENT)):
        raise BundleNotFound(f"{store} has no earlier version to go back to")
    promote(store, before, device=device)
    return before


def prune(store: str | os.PathLike[str], keep: int) -> list[str]:
    """Removes all but the newest ``keep`` versions; what a link points to stays whatever its age, as ``current`` does.

    What killed processes left, hidden folders and links, goes too. Which process lives is known of this machine only: where
    several machines export to one store, prune while none does.

    Returns:
        The names of the versions removed.

    Raises:
        ValueError: if ``keep`` is below 1.
    """
    if keep < 1:
        raise ValueError(f"keep ({keep}) must be at least 1")
    root = _root(store)
    for leftover in root.glob(".tmp-*"):
        if not _alive(leftover.name):
            _remove(leftover)
    return [version.name for version in versions(root)[keep:] if _take_away(root, version.name)]


def target(store: Path, link: str) -> str | None:
    """The version that a link of a store points to, None where there is no such link."""
    try:
        return os.readlink(store / link)
    except OSError:
        return None


@contextlib.contextmanager
def keeping(store: Path, version: str) -> Iterator[None]:
    """Keeps ``prune`` from removing a version: a hidden link of this process points to it meanwhile."""
    link = store / hidden_name()
    link.symlink_to(version)
    try:
        yield
    finally:
        link.unlink(missing_ok=True)


def hidden_name() -> str:
    """A new name for what this process does not show yet; ``prune`` clears it away when the process is dead."""
    return f".tmp-{os.getpid()}-{secrets.token_hex(4)}"


def move_in(folder: Path, target: Path) -> bool:
    """Renames a folder into a store; False where there is one already, which stays as it is."""
    try:
        os.rename(folder, target)
    except OSError:
        if not target.is_dir():
            raise
        return False
    sync_folder(target.parent)
    return True


def claim_current(store: Path, version: str) -> None:
    """Makes a version current where none is; of several processes at once the first does so."""
    with contextlib.suppress(FileExistsError):
        (store / CURRENT).symlink_to(version)
        sync_folder(store)


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
    beside = store / hidden_name()
    beside.symlink_to(version)
    try:
        os.replace(beside, store / name)
    finally:
        beside.unlink(missing_ok=True)


def _take_away(root: Path, name: str) -> bool:
    """Removes a version, first out of sight so that nobody finds half of it; not if a link points to it.

    The links are read again once it is out of sight: who makes one later than that finds no version and gives up.
    """
    if name in _linked(root):
        return False
    hidden = root / hidden_name()
    try:
        os.rename(root / name, hidden)
    except FileNotFoundError:  # another prune was quicker
        return False
    is_needed = name in _linked(root)
    if is_needed and move_in(hidden, root / name):
        return False
    shutil.rmtree(hidden)
    return not is_needed


def _linked(root: Path) -> set[str | None]:
    """What the links of a store point to, those of processes at work included."""
    return {target(root, name) for name in os.listdir(root)}


def _remove(path: Path) -> None:
    """Removes a link or a folder that others may be removing too."""
    if path.is_symlink():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


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

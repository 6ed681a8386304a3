"""How much memory this process may still take, and whether one more bundle fits into it."""

from __future__ import annotations

import re
from pathlib import Path

from genrec_runtime.device import control_groups
from genrec_runtime.errors import InferenceError
from genrec_runtime.manifest import Manifest
from genrec_runtime.sessions import packs

# What loading and warming up may take: for bundles of 27 and 56 MB it was 2.3 and 3 times the bytes of the files and of what
# their graphs pack, the ids' Python objects and the golden requests included.
FACTOR = 3
SCRATCH = 64 << 20  # bytes, for small ones

UNLIMITED = 1 << 60  # version 1 writes a number near the largest where no limit was set


def free_memory(
    meminfo: Path = Path("/proc/meminfo"), root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> int | None:
    """Bytes that can be had without swapping and without being killed; None where the system does not tell.

    The least of what the machine has left, and its control groups of their limits.

    Args:
        meminfo: what the kernel says of the machine.
        root: where the control groups are mounted.
        own: the file that says in which of them this process is.
    """
    found = [_available(meminfo), *map(_left, control_groups("memory", root, own))]
    return min((size for size in found if size is not None), default=None)


def shortage(manifest: Manifest, variant: str) -> InferenceError | None:
    """The error of loading a bundle beside one that serves where there is too little memory for it; None where there is enough.

    Args:
        manifest: of the bundle to be loaded.
        variant: the form that is to be served.
    """
    left_out = {file for name, other in manifest.variants.items() if name != variant for file in other.files}
    files = sum(entry.size for name, entry in manifest.files.items() if name not in left_out)
    weights = sum(manifest.files[name].size for name in manifest.weights if name not in left_out)
    packed = sum(size for name, size in manifest.memory.items() if name not in left_out and packs(size, weights))
    needed, free = FACTOR * (files + packed) + SCRATCH, free_memory()
    if free is None or needed <= free:
        return None
    return InferenceError(
        f"loading version {manifest.version} beside the one that serves may take {needed >> 20} MiB, and {free >> 20} are "
        "free; make room, or start a new process with it",
        code="out_of_memory",
    )


def _available(meminfo: Path) -> int | None:
    try:
        match = re.search(r"^MemAvailable: +(\d+) kB$", meminfo.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(match[1]) << 10 if match else None


def _left(group: Path) -> int | None:
    """What a control group leaves of its limit; files that the kernel keeps at hand without need count as free."""
    for limit, used, kept in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            most, taken = int((group / limit).read_text()), int((group / used).read_text())
            match = re.search(rf"^{kept} (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
        except (OSError, ValueError):  # no such group or version, or "max"
            continue
        return max(0, most - taken + int(match[1] if match else 0)) if most < UNLIMITED else None
    return None

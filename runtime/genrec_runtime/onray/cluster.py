"""A connection to a Ray cluster, and what one worker takes of it."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

LOCAL = "local"  # Ray's own name for a cluster of this machine alone, which ends with the process


def import_ray() -> ModuleType:
    """Ray, which this package needs and the runtime does not.

    Raises:
        ImportError: if it is not installed, with the command that installs it.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError(f"a cluster needs Ray ({error}); install it with: pip install 'genrec[ray]'") from error
    return ray


@contextlib.contextmanager
def connected(address: str) -> Iterator[ModuleType]:
    """Ray, connected to a cluster until the end of the block; a connection that this process has is used and kept.

    Args:
        address: "host:port" of its head, "auto" for the cluster that this machine belongs to, or "local" for one of this
            machine alone, which ends with the block. Ray's reports to its makers stay off for such a one.

    Raises:
        ValueError: if it is an address of Ray's client, which cannot do this.
        ConnectionError: if there is no cluster.
        ImportError: if Ray is not installed.
    """
    if "://" in address:
        raise ValueError(f"{address}: run this on a machine of the cluster, and give host:port of its head, or auto")
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own = {"include_dashboard": False} if address == LOCAL else {}
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    try:
        yield ray
    finally:
        ray.shutdown()


@dataclass(frozen=True)
class Share:
    """What one worker takes of a cluster.

    Attributes:
        cpus: CPUs, which are its threads.
        gpus: 0 or 1.
        count: how many such workers the cluster has room for.
    """

    cpus: int
    gpus: int
    count: int


def share_of(resources: dict[str, float], device: str, threads: int | None) -> Share:
    """A GPU for each worker where the device is one, else its threads; ``auto`` takes GPUs where the cluster has any.

    Args:
        resources: of the whole cluster, as Ray names them.
        device: "cpu", "cuda" or "auto".
        threads: of a worker; None is 1.

    Raises:
        ValueError: if the device names one GPU of a machine, or the cluster has no room for one worker.

    >>> share_of({"CPU": 9.0}, "auto", 2)
    Share(cpus=2, gpus=0, count=4)
    """
    if ":" in device:
        raise ValueError(f"device ({device!r}) must be cpu, cuda or auto: Ray says which GPU a worker gets")
    cpus, found = threads or 1, int(resources.get("GPU", 0))
    gpus = 1 if device == "cuda" or (device == "auto" and found) else 0
    count = int(resources.get("CPU", 0) // cpus)
    count = min(count, found) if gpus else count
    if count < 1:
        wanted = f"{cpus} CPUs and a GPU" if gpus else f"{cpus} CPUs"
        raise ValueError(f"a worker takes {wanted}; the cluster has {resources.get('CPU', 0):g} CPUs and {found} GPUs")
    return Share(cpus, gpus, count)

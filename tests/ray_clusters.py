"""Ray clusters on loopback for tests, and what their actors do there; these import it by name."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import batch_work
from genrec_runtime.batch import Counts, Part, publish
from genrec_runtime.batch import recommend_partition as make
from genrec_runtime.onray import offline
from genrec_runtime.onray.offline import Maker

PATIENCE = 60  # seconds in which a process that stands still should have been killed
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


@contextlib.contextmanager
def cluster(*cpus: int) -> Iterator[Any]:
    """A cluster of this machine, with one node for each number of CPUs; nothing of it is left afterwards."""
    with mock.patch.dict(os.environ, {**QUIET, "PYTHONPATH": os.pathsep.join(sys.path)}):
        import ray
        from ray.cluster_utils import Cluster

        found = Cluster()
        try:
            for number in cpus:
                found.add_node(**node(number))
            yield found
        finally:
            ray.shutdown()
            found.shutdown()


def node(cpus: int) -> dict[str, Any]:
    """What a node of such a cluster is made of."""
    return {"num_cpus": cpus, "include_dashboard": False}


class SlowMaker(Maker):
    """Leaves beside the output which node and process has which part, then takes its time."""

    def __call__(self, row: dict[str, Any]) -> dict[str, bytes]:
        import ray

        node = ray.get_runtime_context().get_node_id()
        note(self._job.out, f"{node} {os.getpid()} {row['item']}")
        time.sleep(0.2)
        return super().__call__(row)


class HeldMaker(SlowMaker):
    """Stands still once, when part 7 is made and nothing of it is written, and leaves beside the output which process that is."""

    def _make(self, part: Part) -> Counts:
        held, appear = Path(f"{self._job.out}.held"), publish.appear

        def once(path: Path, content: bytes) -> None:
            if part.number == 7 and not held.exists():
                appear(held, str(os.getpid()).encode())
                time.sleep(PATIENCE)
            appear(path, content)

        with mock.patch.object(publish, "appear", once):
            return super()._make(part)


class DyingMaker(SlowMaker):
    """Dies once between what it has written of part 2 and the record that it is done."""

    def __call__(self, row: dict[str, Any]) -> dict[str, bytes]:
        def once(job: Any, part: Any) -> Counts:
            return batch_work.dying_partition(Path(job.out).parent, job, part)

        offline.recommend_partition = once
        return super().__call__(row)


class DeadlyMaker(Maker):
    """Dies of part 1, always."""

    def _make(self, part: Part) -> Counts:
        offline.recommend_partition = lambda job, part: (
            batch_work.always_die(0) if part.number == 1 else make(job, part)
        )
        return super()._make(part)


def note(out: str, text: str) -> None:
    """Leaves a line beside a job's output."""
    with open(f"{out}.notes", "a", encoding="utf-8") as file:
        file.write(text + "\n")


def notes(out: str) -> list[list[str]]:
    """The lines left, in words."""
    path = Path(f"{out}.notes")
    return [line.split() for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

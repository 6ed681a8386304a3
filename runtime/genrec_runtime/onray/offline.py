"""The parts of an offline job on Ray Data: a data set of part numbers, each its own block, mapped by a pool of actors.

The numbers stay with the process that called, so what a lost machine takes with it is only the news of finished parts;
asked for again, such a part is found done.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import pickle
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from types import ModuleType
from typing import Any

from genrec_runtime.batch.jobs import Job, Part, Plan
from genrec_runtime.batch.partition import recommend_partition
from genrec_runtime.batch.pool import TRIES
from genrec_runtime.batch.publish import Counts, working_on
from genrec_runtime.batch.running import MAX_BAD, Summary, summarize
from genrec_runtime.errors import GenrecError
from genrec_runtime.onray.cluster import Share, connected, share_of

PATIENCE = 10.0  # seconds that Ray Data's threads have to end
IDLE = "Prefetcher"  # one of them that sleeps for ever
SPARE = 1  # slots left free, for what Ray has to do again


def run_on_ray(
    plan: Plan,
    address: str,
    *,
    workers: int | None = None,
    threads: int | None = None,
    max_bad: float = MAX_BAD,
    watch: Callable[[Counts], object] | None = None,
) -> Summary:
    """Does what is left of a job on a Ray cluster whose machines all see the job's paths. The output is that of ``run``.

    Args:
        plan: the job.
        address: of the cluster, as of ``connected``.
        workers: how many work at once, each with a copy of the bundle; None is as many as the cluster has GPUs if they are
            used, else as many as its CPUs allow, but for one.
        threads: of each worker, and CPUs that it takes; None is 1.
        max_bad: the largest share of the input's rows that may be set aside.
        watch: told of each part as it is done.

    Raises:
        GenrecError: as of ``run``, or if a worker dies again and again.
        ConnectionError: if there is no cluster.
        ValueError: if an option is out of range, or the cluster has no room for one worker.
        ImportError: if Ray is not installed.
        OSError: if the output cannot be written.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers ({workers}) must be at least 1")
    if not 0 <= max_bad <= 1:
        raise ValueError(f"max_bad ({max_bad}) must be a share from 0 to 1")
    with working_on(plan), connected(address) as ray:
        share = share_of(ray.cluster_resources(), plan.job.ask.device, threads)
        most = workers or max(1, share.count - (0 if share.gpus else SPARE))
        with contextlib.closing(_results(ray, plan, share, min(most, len(plan.parts)))) as results:
            return summarize(plan, results, max_bad, watch)


def _results(ray: ModuleType, plan: Plan, share: Share, workers: int) -> Generator[Counts, None, None]:
    """What the parts come to, in the order in which they come."""
    import ray.data as data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    data.DataContext.get_current().enable_progress_bars = False
    numbers = data.from_items(list(range(len(plan.parts))), override_num_blocks=len(plan.parts))
    outcomes = numbers.map(
        Maker,  # type: ignore[arg-type]  # a class, which makes it an actor
        fn_constructor_args=(dataclasses.replace(plan.job, threads=share.cpus), plan.parts),
        compute=data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        num_cpus=share.cpus,
        num_gpus=share.gpus,
        runtime_env={"env_vars": {"POLARS_MAX_THREADS": str(share.cpus)}},
    )
    before = set(threading.enumerate())
    blocks: Any = outcomes.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    blocks = iter(blocks)
    try:
        for block in blocks:
            for outcome in map(pickle.loads, block["outcome"].to_pylist()):
                if isinstance(outcome, Exception):
                    raise outcome
                yield outcome
    except ray.exceptions.RayError as error:
        raise GenrecError(f"Ray could not make all parts: {error}", code="worker_died") from error
    finally:
        blocks.close()
        _join([thread for thread in threading.enumerate() if thread not in before and thread.name != IDLE])


def _join(threads: list[threading.Thread]) -> None:
    """Waits for threads of Ray Data: what they ask of Ray after the end of the connection ends the process."""
    end = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))


class Maker:
    """An actor that makes parts.

    Ray starts a dead one again without end, so each part's tries are counted, in hidden files that go with the job's end.

    Args:
        job: whose parts they are.
        parts: all of them; it is asked by their numbers.
    """

    def __init__(self, job: Job, parts: tuple[Part, ...]) -> None:
        self._job, self._parts = job, parts

    def __call__(self, row: dict[str, Any]) -> dict[str, bytes]:
        """The part of a number: what it came to, or the error that a caller can do something about."""
        outcome: Counts | Exception
        try:
            outcome = self._make(self._parts[row["item"]])
        except (GenrecError, OSError, ImportError) as error:
            outcome = error
        return {"outcome": pickle.dumps(outcome)}

    def _make(self, part: Part) -> Counts:
        path = Path(self._job.out) / f".tmp-tries-{part.name}"
        with open(path, "ab") as file:
            file.write(b".")
            tries = file.tell()
        if tries > TRIES:
            message = f"the worker at part {part.number} died {TRIES} times; perhaps memory ran out: try smaller parts"
            raise GenrecError(message, code="worker_died")
        counts = recommend_partition(self._job, part)
        path.unlink(missing_ok=True)
        return counts

"""How fast a bundle answers on this machine: latency and throughput over batch sizes and threads, whole calls measured."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec_runtime.device import CUDA, available_threads, parse_device, processor
from genrec_runtime.manifest import FP32
from genrec_runtime.module import load
from genrec_runtime.nvidia import ask_driver
from genrec_runtime.workload import Call, make_workload

P99_FROM = 100  # calls; of fewer the 99th percentile is no more than the slowest one
SWITCHES = ("dedicated", "cuda_graphs")  # options of loading
WARM = 0.25  # share of the measured time that is spent on calls before it

Watch = Callable[[str], object]


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        batches: rows a call.
        threads: threads within an operator; None takes one, and all that the process may use.
        clients: callers at a time, all on one recommender.
        seconds: how long each pair of batch and threads is measured.
        k: how many items a row; the bundle's default if None.
        length: items of each drawn history; None draws 1 to the longest that the model looks at. Of a module: the size of
            its free axes beside the batch.
        seed: of the requests.
        dedicated: as of ``Recommender.load``.
        cuda_graphs: as of ``Recommender.load``.

    Raises:
        ValueError: if there is nothing to measure, or a number is below 1, or ``seconds`` are not above 0.
    """

    batches: tuple[int, ...] = (1, 8, 32, 256)
    threads: tuple[int, ...] | None = None
    clients: int = 1
    seconds: float = 2.0
    k: int | None = None
    length: int | None = None
    seed: int = 0
    dedicated: bool = False
    cuda_graphs: bool = False

    def __post_init__(self) -> None:
        lists = {"batches": self.batches, "threads": (1,) if self.threads is None else self.threads}
        single = {"clients": (self.clients,), "length": (1 if self.length is None else self.length,)}
        for name, values in (lists | single).items():
            if not values or min(values) < 1:
                shown = ", ".join(map(str, values)) or "none"
                raise ValueError(f"{name} ({shown}) must be whole numbers of at least 1")
        if not 0 < self.seconds < math.inf:
            raise ValueError(f"seconds ({self.seconds}) must be above 0")


@dataclass(frozen=True)
class Cell:
    """One line of the table.

    Attributes:
        batch: rows a call.
        threads: threads within an operator.
        calls: how many calls were measured.
        p50_ms: the median of their times, in milliseconds.
        p99_ms: the time that 99 of 100 calls stay below; None where fewer than 100 were made.
        rows_per_second: rows answered by all clients together.
    """

    batch: int
    threads: int
    calls: int
    p50_ms: float
    p99_ms: float | None
    rows_per_second: float


@dataclass(frozen=True)
class Bench:
    """What was measured, and on what.

    Attributes:
        model: its name.
        version: of the bundle, as in a store.
        variant: the form of the graphs.
        requests: what was asked, in words.
        clients: callers at a time.
        seconds: how long each cell was measured.
        options: the names of the plan's options that were on: "dedicated", "cuda_graphs".
        device: what ``device_report`` says, less the threads, which are in the cells.
        processor: the CPU's name.
        gpu: the GPU's name where one answers, else empty.
        memory: resident bytes "before" the bundle was loaded, when it was "loaded", and "after" the last call; None where
            the system does not tell.
        cells: one for each pair of threads and batch.
    """

    model: str
    version: str
    variant: str
    requests: str
    clients: int
    seconds: float
    options: tuple[str, ...]
    device: dict[str, Any]
    processor: str
    gpu: str
    memory: dict[str, int] | None
    cells: tuple[Cell, ...]


def measure(
    path: str | os.PathLike[str],
    plan: Plan,
    *,
    histories: Sequence[Sequence[Any]] | None = None,
    timestamps: Sequence[Sequence[int]] | None = None,
    request_time: Sequence[int | None] | None = None,
    users: Sequence[Any] | None = None,
    device: str = "auto",
    variant: str = FP32,
    watch: Watch = lambda said: None,
) -> Bench:
    """Loads a bundle once for each number of threads, and times whole calls as a caller sees them.

    Args:
        path: the bundle, a recommender's or a module's.
        plan: what is measured.
        histories: raw histories to ask about, in this order, over and over; None draws some by ``plan``.
        timestamps: of these histories, as of ``Recommender.recommend``; drawn where None and the model reads them.
        request_time: likewise, but never drawn.
        users: likewise, drawn too.
        device: as of ``load``. Where a GPU answers and ``plan`` names no threads, one number of them is measured.
        variant: "fp32", or a cheaper form that the bundle has.
        watch: told what is being measured.

    Raises:
        BundleError: if the bundle cannot be used.
        DeviceUnavailable: if a device asked for by name does not start.
        InputError: if a history or ``k`` is not usable.
        ValueError: if ``histories`` holds none, or is given for a module.
    """
    counts = plan.threads or tuple(sorted({1, available_threads()}))
    given = {"timestamps": timestamps, "request_time": request_time, "users": users}
    beside = {name: rows for name, rows in given.items() if rows is not None}
    resident, cells = [_resident()], []
    for threads in counts:
        with load(
            path,
            device=device,
            threads=threads,
            variant=variant,
            dedicated=plan.dedicated,
            cuda_graphs=plan.cuda_graphs,
        ) as served:
            resident.append(_resident())
            work = make_workload(served, histories, beside, k=plan.k, length=plan.length, seed=plan.seed)
            for batch in plan.batches:
                watch(f"measuring batch {batch}, threads {threads}")
                calls = work.calls(batch)
                time_calls(calls, 1, plan.seconds * WARM)
                cells.append(summarise(batch, threads, *time_calls(calls, plan.clients, plan.seconds)))
        on_gpu = CUDA in served.device_report.providers
        if plan.threads is None and on_gpu:
            break
    report = {name: value for name, value in dataclasses.asdict(served.device_report).items() if name != "threads"}
    resident = [resident[0], resident[1], _resident()]
    return Bench(
        model=str(served.manifest.model.get("name", "?")),
        version=served.manifest.version,
        variant=variant,
        requests=work.said,
        clients=plan.clients,
        seconds=plan.seconds,
        options=tuple(name for name in SWITCHES if getattr(plan, name)),
        device=report,
        processor=processor(),
        gpu=_gpu(device) if on_gpu else "",
        memory=dict(zip(("before", "loaded", "after"), resident, strict=True)) if all(resident) else None,
        cells=tuple(cells),
    )


def time_calls(calls: Sequence[Call], clients: int, seconds: float) -> tuple[NDArray[np.float64], float]:
    """Makes calls, over and over, until the time is up; each client makes one at least.

    Args:
        calls: what is called in turn; every client begins at another one.
        clients: threads that call at a time.
        seconds: no call begins later.

    Returns:
        The seconds of each call, and those from the first call's begin to the last one's end.
    """
    begun = time.perf_counter()

    def client(number: int) -> list[float]:
        taken: list[float] = []
        for call in itertools.islice(itertools.cycle(calls), number, None):
            begin = time.perf_counter()
            call()
            end = time.perf_counter()
            taken.append(end - begin)
            if end - begun >= seconds:
                break
        return taken

    with ThreadPoolExecutor(clients) as pool:
        taken = list(itertools.chain.from_iterable(pool.map(client, range(clients))))
    return np.array(taken), time.perf_counter() - begun


def summarise(batch: int, threads: int, taken: NDArray[np.float64], wall: float) -> Cell:
    """A cell of the table from the seconds of its calls and those of them all together."""
    p50, p99 = (float(value) for value in np.percentile(taken, [50, 99]) * 1000)
    enough = len(taken) >= P99_FROM
    return Cell(batch, threads, len(taken), p50, p99 if enough else None, len(taken) * batch / wall)


def _resident() -> int:
    """Bytes of this process that lie in memory; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _gpu(device: str) -> str:
    _, number = parse_device(device)
    return {i: gpu.name for i, gpu in enumerate(ask_driver().gpus)}.get(number, "an unknown GPU")

"""What a machine has to serve with, what is wrong with it, and the commands that mend it."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from genrec import __version__
from genrec_runtime.device import (
    affinity,
    available_threads,
    beyond_tested,
    cpu_quota,
    import_onnxruntime,
    installed_builds,
    load_cuda,
)
from genrec_runtime.errors import GenrecError
from genrec_runtime.nvidia import OLDEST_FOR_CUDA_13, Driver, Library, ask_driver, dotted

SWITCH = "ORT_DISABLE_TELEMETRY"


@dataclass(frozen=True)
class Onnxruntime:
    """The onnxruntime that would serve.

    Attributes:
        builds: what pip has installed, with versions: exactly one where all is well.
        version: its version; empty where it cannot be imported.
        cuda: the CUDA that it is built for, such as "13.0"; empty for a build for the CPU.
        providers: the execution providers that it is built with, whether they start or not.
        problem: why it cannot be imported; empty where it can.
        libraries: the CUDA libraries that it wants, found or missing.
    """

    builds: Mapping[str, str]
    version: str = ""
    cuda: str = ""
    providers: tuple[str, ...] = ()
    problem: str = ""
    libraries: tuple[Library, ...] = ()


@dataclass(frozen=True)
class Cpus:
    """How many CPUs there are, and how many of them this process gets.

    Attributes:
        machine: those of the machine.
        affinity: those that this process may run on.
        quota: those that its control groups allow, None where they set no limit.
        threads: what a recommender takes where ``threads`` is not given.
    """

    machine: int
    affinity: int
    quota: int | None
    threads: int


@dataclass(frozen=True)
class Diagnosis:
    """What ``doctor`` saw.

    Attributes:
        genrec: the version of genrec.
        python: the version of Python.
        platform: the operating system, its version and the kind of processor.
        telemetry: the value of ORT_DISABLE_TELEMETRY; "1" is off, and set by genrec_runtime where it was not set.
        onnxruntime: which there is.
        driver: NVIDIA's.
        cpus: how many there are.
        extra: the extra of genrec that fits this machine: "gpu", "gpu-cu12" or "cpu".
        problems: what is broken, one sentence each; empty on a healthy machine, with a GPU or without.
        advice: what could be better.
        commands: what to run to mend the problems, in this order.
    """

    genrec: str
    python: str
    platform: str
    telemetry: str
    onnxruntime: Onnxruntime
    driver: Driver
    cpus: Cpus
    extra: str
    problems: tuple[str, ...]
    advice: tuple[str, ...]
    commands: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """Whether bundles can be served with what is installed."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """All of it, ``healthy`` too, in what JSON can hold."""
        return {"healthy": self.healthy, **asdict(self)}

    def lines(self) -> list[str]:
        """All of it for people: one fact a line, its name first."""
        rows = [("genrec", f"{self.genrec}, Python {self.python}, {self.platform}")]
        rows += _onnxruntime_rows(self.onnxruntime)
        rows += [("telemetry", f"{SWITCH}={self.telemetry}")]
        rows += _driver_rows(self.driver)
        rows += [("library", f"{one.name}  {one.path or 'missing'}") for one in self.onnxruntime.libraries]
        rows += [("cpus", _cpus(self.cpus)), ("fits", f"genrec[{self.extra}]")]
        rows += [("advice", text) for text in self.advice]
        rows += [("problem", text) for text in self.problems] or [("healthy", "yes")]
        rows += [("run", command) for command in self.commands]
        return [f"{name:<12} {text}" for name, text in rows]

    def __str__(self) -> str:
        return "\n".join(self.lines())


def doctor() -> Diagnosis:
    """Looks at what serving needs on this machine: onnxruntime's builds, NVIDIA's driver, CUDA's libraries, CPUs.

    It opens no session, writes nothing, and raises nothing where something is absent. CUDA can no longer be used in
    children that are forked afterwards.
    """
    found, driver = _onnxruntime(), ask_driver()
    extra = fitting_extra(driver)
    problems = tuple(_problems(found, driver))
    return Diagnosis(
        genrec=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        telemetry=os.environ.get(SWITCH, ""),
        onnxruntime=found,
        driver=driver,
        cpus=Cpus(os.cpu_count() or 1, affinity(), cpu_quota(), available_threads()),
        extra=extra,
        problems=problems,
        advice=tuple(_advice(found, driver, extra)),
        commands=_mend(found.builds, extra) if problems else (),
    )


def fitting_extra(driver: Driver) -> str:
    """The extra of genrec whose onnxruntime runs under this driver, on every GPU: "gpu", "gpu-cu12" or "cpu".

    >>> fitting_extra(Driver("there is no NVIDIA driver"))
    'cpu'
    """
    if driver.problem or driver.cuda[0] < 12:
        return "cpu"
    old = any(gpu.capability < OLDEST_FOR_CUDA_13 for gpu in driver.gpus)
    return "gpu-cu12" if driver.cuda[0] < 13 or old else "gpu"


def _onnxruntime() -> Onnxruntime:
    builds = installed_builds()
    try:
        with warnings.catch_warnings(action="ignore"):  # what there is to say stands in the diagnosis
            onnxruntime = import_onnxruntime()
    except GenrecError as error:
        return Onnxruntime(builds, problem=str(error))
    except Exception as error:  # an import can fail in any way where files of two builds are mixed
        return Onnxruntime(builds, problem=f"onnxruntime cannot be imported: {type(error).__name__}: {error}")
    return Onnxruntime(
        builds,
        onnxruntime.__version__,
        getattr(onnxruntime, "cuda_version", ""),
        tuple(onnxruntime.get_available_providers()),
        "",
        load_cuda(onnxruntime),
    )


def _problems(found: Onnxruntime, driver: Driver) -> Iterator[str]:
    if found.problem:
        yield found.problem
    if not found.cuda:
        return
    if driver.problem:
        yield f"onnxruntime is the build for GPUs: {driver.problem}"
    misfits = (driver.misfit(found.cuda, number) for number in range(len(driver.gpus)))
    yield from dict.fromkeys(f"onnxruntime {found.version} does not fit: {text}" for text in misfits if text)
    missing = [library.name for library in found.libraries if not library.path]
    if missing:
        yield f"missing CUDA libraries: {', '.join(missing)}"


def _advice(found: Onnxruntime, driver: Driver, extra: str) -> Iterator[str]:
    if untested := beyond_tested(found.version):
        yield untested
    if driver.gpus and driver.cuda[0] < 12:
        yield f"NVIDIA's driver runs CUDA up to {dotted(driver.cuda)}; for its GPUs, install one that runs 12.0 or newer"
    if found.version and not found.cuda and extra != "cpu":
        yield f"there is a GPU, and a build for the CPU; for the GPU: {', then '.join(_mend(found.builds, extra))}"


def _mend(builds: Mapping[str, str], extra: str) -> tuple[str, ...]:
    """What to run so that exactly the build of ``extra`` is there, with all its files."""
    removal = (f"pip uninstall -y {' '.join(builds)}",) if builds else ()
    return (*removal, f"pip install 'genrec[{extra}]'")


def _onnxruntime_rows(found: Onnxruntime) -> list[tuple[str, str]]:
    builds = ", ".join(f"{name} {version}" for name, version in found.builds.items())
    if not found.version:
        return [("onnxruntime", f"cannot be used; installed: {builds or 'nothing'}")]
    built = f"built for CUDA {found.cuda}" if found.cuda else "built for the CPU"
    rows = [("onnxruntime", f"{found.version}, {built}; installed: {builds or 'without pip'}")]
    return [*rows, ("providers", ", ".join(found.providers))]


def _driver_rows(driver: Driver) -> list[tuple[str, str]]:
    version = driver.version or "of unknown version"
    cuda = f", runs CUDA up to {dotted(driver.cuda)}" if driver.cuda[0] else ""
    rows = [("driver", f"{version}{cuda}" if cuda or driver.version else driver.problem)]
    if driver.problem and rows[0][1] != driver.problem:
        rows.append(("gpu", driver.problem))
    return rows + [
        (f"gpu {number}", f"{gpu.name}, {gpu.memory / 2**30:.1f} GiB, compute capability {dotted(gpu.capability)}")
        for number, gpu in enumerate(driver.gpus)
    ]


def _cpus(cpus: Cpus) -> str:
    quota = "no limit by control groups" if cpus.quota is None else f"{cpus.quota} by control groups"
    threads = "1 thread" if cpus.threads == 1 else f"{cpus.threads} threads"
    return f"{threads}: {cpus.machine} in the machine, {cpus.affinity} by affinity, {quota}"

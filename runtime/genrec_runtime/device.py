"""Which device serves: what was asked for, what onnxruntime really started, and with how many threads."""

from __future__ import annotations

import contextlib
import io
import os
import platform
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genrec_runtime.errors import DeviceUnavailable, GenrecError
from genrec_runtime.nvidia import Library, ask_driver, count_gpus, cuda_libraries, load_library

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
WARNING, FATAL = 2, 4  # onnxruntime's log levels; it starts with the first
INSTALLED = re.compile(r"(onnxruntime(?:_(?:gpu|directml|openvino|qnn))?)-(.+)\.dist-info")
TESTED = (1, 32)  # the newest onnxruntime that genrec's tests ran on
INSTALL = "pip install 'genrec[gpu]' (CUDA 13) or 'genrec[gpu-cu12]' (CUDA 12.9)"


def switch_telemetry_off() -> None:
    """Full opt-out of onnxruntime's telemetry, unless its user has set the variable already.

    It is on by default, works only before onnxruntime's first import, and with it on a child forked after that import
    hangs at its exit; so this runs when genrec_runtime is imported.
    """
    if "ORT_DISABLE_TELEMETRY" not in os.environ and "onnxruntime" in sys.modules:
        warnings.warn(
            "onnxruntime was imported before genrec_runtime, with its telemetry on; import genrec_runtime first, "
            "or set ORT_DISABLE_TELEMETRY=1",
            RuntimeWarning,
            stacklevel=2,
        )
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


switch_telemetry_off()


@dataclass(frozen=True)
class DeviceReport:
    """Where a bundle runs.

    Attributes:
        asked: the device its user asked for.
        providers: the execution providers that onnxruntime started.
        threads: threads within an operator on the CPU.
        reason: why "auto" took the CPU, empty where it did not.
        onnxruntime: its version.
        nodes: how many nodes of the graph each provider took; empty where onnxruntime does not tell.
        heavy_on_cpu: operators of much work that the CPU took although CUDA was started.
    """

    asked: str
    providers: tuple[str, ...]
    threads: int
    reason: str
    onnxruntime: str
    nodes: Mapping[str, int] = field(default_factory=dict)
    heavy_on_cpu: tuple[str, ...] = ()


def installed_builds() -> dict[str, str]:
    """The builds of onnxruntime that pip has installed, with their versions; more than one overwrite each other."""
    found: dict[str, str] = {}
    for place in sys.path:  # importlib.metadata says the same, and takes longer to import than the rest of this package
        with contextlib.suppress(OSError):
            for match in filter(None, map(INSTALLED.fullmatch, os.listdir(place or "."))):
                found.setdefault(match[1].replace("_", "-"), match[2])
    return dict(sorted(found.items()))


def import_onnxruntime() -> Any:
    """onnxruntime, where exactly one build of it is installed.

    Raises:
        GenrecError: if it is missing, or two builds overwrote each other.

    Warns:
        RuntimeWarning: once, if it is newer than those that genrec was tested with.
    """
    builds = installed_builds()
    if len(builds) > 1:
        raise GenrecError(
            f"{' and '.join(builds)} are both installed and overwrite each other's files; run: "
            f"pip uninstall -y {' '.join(builds)}, then install one of genrec[cpu], [gpu], [gpu-cu12]",
            code="two_onnxruntimes",
        )
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise GenrecError(
            f"serving needs onnxruntime ({error}); install it with: pip install 'genrec[cpu]' (or 'genrec[gpu]')",
            code="no_onnxruntime",
        ) from error
    except ImportError as error:
        raise GenrecError(f"onnxruntime cannot be imported: {error}", code="broken_onnxruntime") from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise GenrecError(
            "onnxruntime is only half installed; run: pip install --force-reinstall onnxruntime (or onnxruntime-gpu)",
            code="broken_onnxruntime",
        )
    if untested := beyond_tested(onnxruntime.__version__):
        warnings.warn(untested, RuntimeWarning, stacklevel=1)  # of this line, so Python shows it once
    return onnxruntime


def beyond_tested(version: str) -> str:
    """What to do about an onnxruntime that is newer than those tested; empty where this one is not.

    >>> beyond_tested("1.24.4")
    ''
    """
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers <= TESTED:
        return ""
    return (
        f"onnxruntime {version} is newer than {TESTED[0]}.{TESTED[1]}, the newest that this genrec was tested with; "
        "check it with: genrec-runtime verify BUNDLE"
    )


def parse_device(device: str) -> tuple[str, int]:
    """A device's kind ("auto", "cpu", "cuda") and number.

    Raises:
        ValueError: if it is none of "auto", "cpu", "cuda", "cuda:N".

    >>> parse_device("cuda:1")
    ('cuda', 1)
    """
    match = re.fullmatch(r"(auto|cpu|cuda)|cuda:([0-9]{1,3})", device) if isinstance(device, str) else None
    if match is None:
        raise ValueError(f"device ({device!r}) must be 'auto', 'cpu', 'cuda' or 'cuda:N'")
    return ("cuda", int(match[2])) if match[2] else (match[1], 0)


def cuda_problem(onnxruntime: Any, number: int) -> str:
    """Why CUDA cannot start on GPU ``number``, "" where nothing speaks against it; asks the driver, not onnxruntime."""
    if CUDA not in onnxruntime.get_available_providers():
        return f"this onnxruntime {onnxruntime.__version__} is a build for the CPU"
    count = count_gpus()
    if isinstance(count, str):
        return count
    if number >= count:
        return f"there are {count} GPUs, counted from 0" if count > 1 else "there is one GPU, with number 0"
    misfit = ask_driver().misfit(getattr(onnxruntime, "cuda_version", ""), number)
    return f"onnxruntime {onnxruntime.__version__} does not fit: {misfit}" if misfit else ""


def preload_cuda(onnxruntime: Any) -> str:
    """Loads the CUDA libraries that pip installed beside onnxruntime; names those it could not find, "" where it has all.

    onnxruntime does not look there by itself, and prints what is missing.
    """
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        onnxruntime.preload_dlls()
    missing = dict.fromkeys(re.findall(r"Failed to load (?:\S*/)?(\S+?):", printed.getvalue()))
    missing |= dict.fromkeys(library.name for library in load_cuda(onnxruntime) if not library.path)
    return f"missing {', '.join(missing)}" if missing else ""


def load_cuda(onnxruntime: Any) -> tuple[Library, ...]:
    """Every CUDA library that this build of onnxruntime wants, loaded where it is to be found."""
    built = getattr(onnxruntime, "cuda_version", "")
    return tuple(load_library(name, Path(onnxruntime.__file__).parents[1]) for name in cuda_libraries(built))


@contextlib.contextmanager
def quiet(onnxruntime: Any) -> Iterator[None]:
    """Without what onnxruntime writes to standard error while it looks for CUDA: it is checked and raised instead."""
    onnxruntime.set_default_logger_severity(FATAL)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(WARNING)


def cuda_options(number: int) -> dict[str, str]:
    """Provider options for one GPU: same answers on every run, no arena that doubles, no TF32."""
    return {
        "device_id": str(number),
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        "do_copy_in_default_stream": "1",
        "use_tf32": "0",
    }


def processor() -> str:
    """The CPU's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def available_threads() -> int:
    """Threads that this process may really use: its affinity, and a container's CPU quota where there is one."""
    return max(1, min(affinity(), cpu_quota() or affinity()))


def affinity() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quota(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """CPUs that the tightest of this process's control groups allows, rounded up; None where none sets a limit.

    Args:
        root: where the control groups are mounted.
        own: the file that says in which of them this process is.
    """
    limits = [limit for folder in control_groups("cpu", root, own) if (limit := _limit(folder)) is not None]
    return min(limits, default=None)


def control_groups(controller: str, root: Path, own: Path) -> list[Path]:
    """The folders that can limit this process, of version 2 and 1: its own groups and all above them; not all need be there.

    Args:
        controller: "cpu" or "memory".
        root: where the control groups are mounted.
        own: the file that says in which of them this process is.
    """
    folders = [root, root / controller]
    with contextlib.suppress(OSError):
        for line in own.read_text(errors="replace").splitlines():
            _, controllers, group = (line + "::").split(":")[:3]
            if controller in controllers.split(",") or not controllers:
                folder = root / (controller if controllers else "") / group.strip("/")
                folders += [folder, *folder.parents][: len(Path(group).parts)]
    return folders


def unavailable(device: str, reason: str) -> DeviceUnavailable:
    """The error of a device asked for by name."""
    return DeviceUnavailable(
        f"device {device!r} cannot be used: {reason}; it needs an NVIDIA driver and one of {INSTALL}; "
        "or pass device='cpu'"
    )


def _limit(group: Path) -> int | None:
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()[:2]
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return -(-int(quota) // int(period)) if quota.isdigit() and int(period) > 0 else None
    except (OSError, ValueError):
        return None

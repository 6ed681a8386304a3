"""Which device serves: what was asked for, what onnxruntime really started, and with how many threads."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from genrec_runtime.errors import DeviceUnavailable, GenrecError

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
WARNING, FATAL = 2, 4  # onnxruntime's log levels; it starts with the first
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
    """

    asked: str
    providers: tuple[str, ...]
    threads: int
    reason: str
    onnxruntime: str


def import_onnxruntime() -> Any:
    """onnxruntime, where exactly one build of it is installed.

    Raises:
        GenrecError: if it is missing, or two builds overwrote each other.
    """
    builds = [name for name in ("onnxruntime", "onnxruntime-gpu") if _installed(name)]
    if len(builds) > 1:
        raise GenrecError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files; "
            "run: pip uninstall -y onnxruntime onnxruntime-gpu, then install one of genrec[cpu], [gpu], [gpu-cu12]",
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
    return onnxruntime


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
    return "" if number < count else f"there are {count} GPUs, counted from 0"


def count_gpus() -> int | str:
    """How many GPUs the NVIDIA driver shows to this process, or why there are none."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return f"there is no NVIDIA driver ({name} cannot be opened)"
    count = ctypes.c_int()
    failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if failed == 100 or (not failed and count.value == 0):
        return "the NVIDIA driver shows no GPU to this process"
    return f"the NVIDIA driver fails with error {failed}" if failed else count.value


def preload_cuda(onnxruntime: Any) -> str:
    """Loads the CUDA libraries that pip installed beside onnxruntime; names those it could not find, "" where it has all.

    onnxruntime does not look there by itself, and prints what is missing.
    """
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        onnxruntime.preload_dlls()
    missing = dict.fromkeys(re.findall(r"Failed to load (\S+?):", printed.getvalue()))
    return f"missing {', '.join(missing)}" if missing else ""


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


def available_threads() -> int:
    """Threads that this process may really use: its affinity, and a container's CPU quota where there is one."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(affinity, _quota(Path("/sys/fs/cgroup"))))


def unavailable(device: str, reason: str) -> DeviceUnavailable:
    """The error of a device asked for by name."""
    return DeviceUnavailable(
        f"device {device!r} cannot be used: {reason}; it needs an NVIDIA driver and one of {INSTALL}; "
        "or pass device='cpu'"
    )


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _quota(root: Path) -> int:
    """CPUs that a control group allows, rounded up; a large number where it sets no limit."""
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text().split()[:2]
        else:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text().strip()
        return -(-int(quota) // int(period)) if quota.isdigit() and int(period) > 0 else 1 << 16
    except (OSError, ValueError):
        return 1 << 16

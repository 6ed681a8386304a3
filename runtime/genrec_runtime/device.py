"""Which device serves: what was asked for, what onnxruntime really started, and with how many threads."""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from genrec_runtime.errors import DeviceUnavailable, GenrecError

# onnxruntime's telemetry is on by default and a full opt-out works only before its first import, so it is set here,
# when genrec_runtime is imported: with it on, a child forked after the import hangs at its exit.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


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
    except ImportError as error:
        raise GenrecError(
            "serving needs onnxruntime; install it with: pip install 'genrec[cpu]' (or 'genrec[gpu]')",
            code="no_onnxruntime",
        ) from error
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
    match = re.fullmatch(r"(auto|cpu|cuda)|cuda:(\d{1,3})", device)
    if match is None:
        raise ValueError(f"device ({device!r}) must be 'auto', 'cpu', 'cuda' or 'cuda:N'")
    return ("cuda", int(match[2])) if match[2] else (match[1], 0)


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


def fall_back(reason: str) -> str:
    """Says once, as a warning, that "auto" serves on the CPU though a GPU build is installed."""
    warnings.warn(f"serving on the CPU: {reason}", RuntimeWarning, stacklevel=4)
    return reason


def check_provider(asked: str, started: list[str]) -> None:
    """Refuses a session that is not where it was asked to be: onnxruntime itself only writes to its log.

    Raises:
        DeviceUnavailable: if CUDA was asked for and did not start.
    """
    if asked == "cuda" and CUDA not in started:
        raise DeviceUnavailable(
            f"asked for {CUDA} but onnxruntime offers {', '.join(started)}; it needs an NVIDIA driver and one of "
            "pip install 'genrec[gpu]' (CUDA 13) or 'genrec[gpu-cu12]' (CUDA 12.9); or pass device='cpu'"
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

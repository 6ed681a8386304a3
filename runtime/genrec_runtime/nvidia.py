"""What NVIDIA's driver and CUDA's libraries say of themselves, asked through ctypes: no session, no torch."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KERNEL_MODULE = Path("/proc/driver/nvidia/version")
COMPUTE_CAPABILITY = (75, 76)  # CUdevice_attribute, in cuda.h: major and minor
NO_DEVICE = 100  # CUresult, in cuda.h
OLDEST_FOR_CUDA_13 = (7, 5)  # it dropped Maxwell, Pascal and Volta


@dataclass(frozen=True)
class Gpu:
    """One GPU that this process may use.

    Attributes:
        name: such as "Tesla T4".
        memory: bytes in all.
        capability: its compute capability, such as (7, 5).
    """

    name: str
    memory: int
    capability: tuple[int, int]


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver, as this process sees it.

    Attributes:
        problem: why no GPU can be used; empty where one can.
        version: the driver's own, such as "580.65.06"; empty where it is not known.
        cuda: the newest CUDA that it runs, such as (13, 0); (0, 0) where there is none.
        gpus: those that it shows to this process, in their order.
    """

    problem: str
    version: str = ""
    cuda: tuple[int, int] = (0, 0)
    gpus: tuple[Gpu, ...] = ()

    def misfit(self, built: str, number: int) -> str:
        """Why what is built for CUDA ``built`` cannot run on GPU ``number``; empty where nothing speaks against it.

        >>> Driver("", "550.54", (12, 4), (Gpu("Tesla T4", 15 << 30, (7, 5)),)).misfit("13.0", 0)
        "it is built for CUDA 13.0, and NVIDIA's driver 550.54 runs CUDA up to 12.4"
        """
        major = int(built.partition(".")[0] or 0)
        if self.cuda[0] and major > self.cuda[0]:  # a driver runs every minor version of its major
            return (
                f"it is built for CUDA {built}, and NVIDIA's driver {self.version} runs CUDA up to {dotted(self.cuda)}"
            )
        for gpu in self.gpus[number : number + 1]:
            if major >= 13 and gpu.capability < OLDEST_FOR_CUDA_13:
                return (
                    f"it is built for CUDA {built}, which needs compute capability {dotted(OLDEST_FOR_CUDA_13)}, "
                    f"and {gpu.name} has {dotted(gpu.capability)}"
                )
        return ""


@dataclass(frozen=True)
class Library:
    """One of CUDA's libraries.

    Attributes:
        name: its file's name, such as "libcublas.so.13".
        path: where it was loaded from; empty where it is missing.
        problem: what the loader says where it is missing.
    """

    name: str
    path: str
    problem: str


def ask_driver() -> Driver:
    """NVIDIA's driver; never raises. CUDA can no longer be used in children that are forked afterwards."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    version = _version()
    try:
        library = ctypes.CDLL(name)
        return _ask(library, version)
    except OSError:
        loaded = f", though the kernel's part, {version}, is there: the container lacks it" if version else ""
        return Driver(f"there is no NVIDIA driver ({name} cannot be opened{loaded})", version)
    except AttributeError as error:
        return Driver(f"{name} is no NVIDIA driver ({error})", version)


def count_gpus() -> int | str:
    """How many GPUs the NVIDIA driver shows to this process, or why there are none."""
    driver = ask_driver()
    return driver.problem or len(driver.gpus)


def cuda_libraries(built: str) -> tuple[str, ...]:
    """The libraries that onnxruntime wants where it is built for CUDA ``built``, in the order in which they load.

    None for a build for the CPU, and none known but on Linux.

    >>> cuda_libraries("")
    ()
    """
    if not built or sys.platform != "linux":
        return ()
    major = int(built.partition(".")[0])
    names = {"cublasLt": major, "cublas": major, "nvrtc": major, "curand": 10, "cufft": major - 1, "cudart": major}
    return tuple(f"lib{name}.so.{version}" for name, version in {**names, "cudnn": 9}.items())


def load_library(name: str, packages: Path) -> Library:
    """Loads a library from pip's nvidia packages in the folder ``packages``, else from where the system's loader looks."""
    problem = ""
    for place in [*sorted(packages.glob(f"nvidia/*/lib/{name}")), Path(name)]:
        try:
            ctypes.CDLL(str(place))
        except OSError as error:
            problem = problem or str(error)
        else:
            return Library(name, str(place) if place.is_absolute() else _mapped(name), "")
    return Library(name, "", problem)


def dotted(version: tuple[int, int]) -> str:
    """A version as people write it.

    >>> dotted((12, 4))
    '12.4'
    """
    return ".".join(map(str, version))


def _ask(library: Any, version: str) -> Driver:
    supported, count = ctypes.c_int(), ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(supported))
    cuda = (supported.value // 1000, supported.value % 1000 // 10)  # 12040 is 12.4
    failed = library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count))
    if failed == NO_DEVICE or (not failed and count.value == 0):
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        why = "" if hidden is None else f" (CUDA_VISIBLE_DEVICES is {hidden!r})"
        return Driver(f"the NVIDIA driver shows no GPU to this process{why}", version, cuda)
    if failed:
        text = ctypes.c_char_p()
        library.cuGetErrorString(failed, ctypes.byref(text))
        said = f": {text.value.decode(errors='replace')}" if text.value else ""
        return Driver(f"the NVIDIA driver fails with error {failed}{said}", version, cuda)
    return Driver("", version, cuda, tuple(_gpu(library, number) for number in range(count.value)))


def _gpu(library: Any, number: int) -> Gpu:
    device, memory, value = ctypes.c_int(), ctypes.c_size_t(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    library.cuDeviceGet(ctypes.byref(device), number)
    library.cuDeviceGetName(name, len(name), device)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    capability = []
    for attribute in COMPUTE_CAPABILITY:
        library.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        capability.append(value.value)
    return Gpu(name.value.decode(errors="replace"), memory.value, (capability[0], capability[1]))


def _version() -> str:
    """The version that the kernel's part of the driver states, "" where it is not to be read."""
    try:
        found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", KERNEL_MODULE.read_text(errors="replace"))
    except OSError:
        return ""
    return found[0] if found else ""


def _mapped(name: str) -> str:
    """Where a loaded library lies, as Linux tells; its name where it does not."""
    try:
        lines = Path("/proc/self/maps").read_text(errors="replace").splitlines()
    except OSError:
        return name
    return next((line.split(maxsplit=5)[5] for line in lines if line.endswith(f"/{name}")), name)

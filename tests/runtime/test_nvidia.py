"""What NVIDIA's driver and libraries say, with drivers that only pretend."""

import ctypes
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fake_driver import compile_driver
from genrec_runtime import nvidia
from genrec_runtime.nvidia import Driver, Gpu, ask_driver, count_gpus, cuda_libraries

T4 = Gpu("Tesla T4", 15 << 30, (7, 5))


class FakeDriver:
    """A CUDA driver library with ``count`` T4s; as ctypes shows it, but in Python."""

    def __init__(self, status: int = 0, count: int = 0, cuda: int = 13000) -> None:
        self.status, self.count, self.cuda = status, count, cuda

    def cuInit(self, flags: int) -> int:
        return self.status

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = self.cuda
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.count
        return 0

    def cuDeviceGet(self, device: Any, number: int) -> int:
        return 0

    def cuDeviceGetName(self, name: Any, room: int, device: Any) -> int:
        name.value = T4.name.encode()
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, device: Any) -> int:
        memory._obj.value = T4.memory
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:
        value._obj.value = T4.capability[attribute - 75]
        return 0

    def cuGetErrorString(self, error: int, text: Any) -> int:
        text._obj.value = b"mismatch" if error == 803 else None
        return 0


def present(monkeypatch: pytest.MonkeyPatch, driver: Any) -> None:
    """Makes every library that ctypes opens this one."""
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)


@pytest.mark.parametrize(
    ("status", "count", "expected"),
    [
        (0, 2, 2),
        (0, 0, "the NVIDIA driver shows no GPU to this process"),
        (100, 0, "the NVIDIA driver shows no GPU to this process"),
        (35, 0, "the NVIDIA driver fails with error 35"),
        (803, 0, "the NVIDIA driver fails with error 803: mismatch"),
    ],
)
def test_fault_85_the_driver_says_how_many_gpus_there_are(
    monkeypatch: pytest.MonkeyPatch, status: int, count: int, expected: int | str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    present(monkeypatch, FakeDriver(status, count))
    assert count_gpus() == expected


def test_fault_85_gpus_that_are_hidden_are_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    present(monkeypatch, FakeDriver(100))
    assert count_gpus() == "the NVIDIA driver shows no GPU to this process (CUDA_VISIBLE_DEVICES is '')"


KERNEL = "NVRM version: NVIDIA UNIX {} 580.65.06  Release Build  (builder)  Sun Jul 27 07:13:08 UTC 2025\nGCC version: 12.3.0"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (KERNEL.format("Open Kernel Module for x86_64"), "580.65.06"),
        (KERNEL.format("x86_64 Kernel Module").replace("580.65.06", "550.54"), "550.54"),
        ("rubbish", ""),
        (None, ""),
    ],
)
def test_the_drivers_version_is_what_the_kernel_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, version: str
) -> None:
    if text is not None:
        (tmp_path / "version").write_text(text)
    monkeypatch.setattr(nvidia, "KERNEL_MODULE", tmp_path / "version")
    present(monkeypatch, FakeDriver(count=1, cuda=12040))
    assert ask_driver() == Driver("", version, (12, 4), (T4,))


@pytest.mark.parametrize("kernel", ["", "580.65.06"])
def test_fault_85_without_a_driver_there_are_no_gpus(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kernel: str
) -> None:
    def missing(name: str) -> None:
        raise OSError("no such file")

    (tmp_path / "version").write_text(kernel)
    monkeypatch.setattr(nvidia, "KERNEL_MODULE", tmp_path / "version")
    monkeypatch.setattr(ctypes, "CDLL", missing)
    driver = ask_driver()
    assert "there is no NVIDIA driver" in driver.problem
    assert ("the container lacks it" in driver.problem) == bool(kernel)
    assert (driver.version, driver.cuda, driver.gpus) == (kernel, (0, 0), ())


def test_another_library_of_that_name_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    present(monkeypatch, SimpleNamespace())
    assert "is no NVIDIA driver" in ask_driver().problem


def test_a_driver_of_c_is_asked_with_the_right_types(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gpus = [("NVIDIA H100 80GB HBM3", 80 << 30, 90), ("Tesla T4", 15 << 30, 75)]  # more bytes than an int holds
    working = ctypes.CDLL(str(compile_driver(tmp_path, 13010, gpus)))
    broken = ctypes.CDLL(str(compile_driver(tmp_path / "broken", 13010, [], init=803)))
    present(monkeypatch, working)
    driver = ask_driver()
    assert driver.cuda == (13, 1)
    assert driver.gpus == tuple(Gpu(name, memory, divmod(capability, 10)) for name, memory, capability in gpus)
    present(monkeypatch, broken)
    assert ask_driver().problem == "the NVIDIA driver fails with error 803: driver mismatch"


def test_cufft_is_numbered_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert {"libcufft.so.11", "libcublasLt.so.12", "libcudnn.so.9"} <= set(cuda_libraries("12.8"))
    assert {"libcufft.so.12", "libcublasLt.so.13", "libcudnn.so.9"} <= set(cuda_libraries("13.0"))
    monkeypatch.setattr(sys, "platform", "win32")
    assert cuda_libraries("13.0") == ()


def test_a_library_that_the_system_has_is_found_where_it_lies(tmp_path: Path) -> None:
    loaded = nvidia.load_library("libc.so.6", tmp_path)
    if not loaded.path:
        pytest.skip("this system's C library has another name")
    assert Path(loaded.path).name == "libc.so.6"
    assert loaded.problem == ""

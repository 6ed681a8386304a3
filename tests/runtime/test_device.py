import ctypes
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from genrec_runtime import GenrecError, Recommender, device
from genrec_runtime.device import available_threads, count_gpus, import_onnxruntime, parse_device
from tiny import Tiny


@pytest.mark.parametrize(
    ("text", "parsed"),
    [("auto", ("auto", 0)), ("cpu", ("cpu", 0)), ("cuda", ("cuda", 0)), ("cuda:12", ("cuda", 12))],
)
def test_a_device_has_a_kind_and_a_number(text: str, parsed: tuple[str, int]) -> None:
    assert parse_device(text) == parsed


def test_81_two_builds_of_onnxruntime_are_refused_with_the_remedy(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "1.30")
    with pytest.raises(
        GenrecError, match=r"are both installed .* pip uninstall -y onnxruntime onnxruntime-gpu"
    ) as caught:
        Recommender.load(tiny.path)
    assert caught.value.code == "two_onnxruntimes"


@pytest.mark.parametrize(
    ("installed", "code", "message"),
    [
        pytest.param(None, "no_onnxruntime", r"pip install 'genrec\[cpu\]'", id="81 missing"),
        pytest.param(SimpleNamespace(), "broken_onnxruntime", "half installed", id="81 an empty namespace"),
    ],
)
def test_a_missing_or_broken_onnxruntime_is_named(
    monkeypatch: pytest.MonkeyPatch, installed: Any, code: str, message: str
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", installed)
    with pytest.raises(GenrecError, match=message) as caught:
        import_onnxruntime()
    assert caught.value.code == code


def test_an_onnxruntime_that_fails_to_load_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libstdc++.so.6: version not found')")
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(GenrecError, match="cannot be imported: libstdc"):
        import_onnxruntime()


class Driver:
    """A CUDA driver library."""

    def __init__(self, status: int, count: int) -> None:
        self.status, self.count = status, count

    def cuInit(self, flags: int) -> int:
        return self.status

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.count
        return 0


@pytest.mark.parametrize(
    ("status", "count", "expected"),
    [
        (0, 2, 2),
        (0, 0, "the NVIDIA driver shows no GPU to this process"),
        (100, 0, "the NVIDIA driver shows no GPU to this process"),
        (35, 0, "the NVIDIA driver fails with error 35"),
    ],
)
def test_85_the_driver_says_how_many_gpus_there_are(
    monkeypatch: pytest.MonkeyPatch, status: int, count: int, expected: int | str
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(status, count))
    assert count_gpus() == expected


def test_85_without_a_driver_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError("no such file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert "there is no NVIDIA driver" in str(count_gpus())


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, 1 << 16),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1 << 16),
        ({"cpu.max": "rubbish"}, 1 << 16),
        ({}, 1 << 16),
    ],
)
def test_114_a_containers_quota_bounds_the_threads(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert device._quota(tmp_path) == expected


def test_114_threads_are_the_lesser_of_affinity_and_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_quota", lambda root: 3)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(64)), raising=False)
    assert available_threads() == 3
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {5}, raising=False)
    assert available_threads() == 1

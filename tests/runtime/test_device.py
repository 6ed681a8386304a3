import re
import sys
import warnings
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fake_driver import compile_library
from genrec_runtime import GenrecError, Recommender, device
from genrec_runtime.device import (
    CPU,
    CUDA,
    TESTED,
    available_threads,
    beyond_tested,
    cpu_quota,
    cuda_problem,
    import_onnxruntime,
    installed_builds,
    load_cuda,
    parse_device,
    preload_cuda,
)
from genrec_runtime.nvidia import Driver, Gpu
from tiny import Tiny

ROOT = Path(__file__).parents[2]
T4, V100 = Gpu("Tesla T4", 15 << 30, (7, 5)), Gpu("Tesla V100", 32 << 30, (7, 0))


# --- what is asked for


@pytest.mark.parametrize(
    ("text", "parsed"),
    [("auto", ("auto", 0)), ("cpu", ("cpu", 0)), ("cuda", ("cuda", 0)), ("cuda:12", ("cuda", 12))],
)
def test_a_device_has_a_kind_and_a_number(text: str, parsed: tuple[str, int]) -> None:
    assert parse_device(text) == parsed


@pytest.mark.parametrize("text", ["cdua", "CUDA", "cuda:", "cuda:-1", "cuda:1 ", "cuda:1\n", "gpu", "", None, 0])
def test_fault_86_what_is_no_device_is_refused_with_the_choices(text: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f"({text!r}) must be 'auto', 'cpu', 'cuda' or 'cuda:N'")):
        parse_device(text)


# --- onnxruntime


def test_fault_81_two_builds_of_onnxruntime_are_refused_with_the_remedy(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime_gpu-1.30.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert installed_builds() == {"onnxruntime": metadata.version("onnxruntime"), "onnxruntime-gpu": "1.30.0"}
    remedy = r"^onnxruntime and onnxruntime-gpu are both installed .* pip uninstall -y onnxruntime onnxruntime-gpu, "
    with pytest.raises(GenrecError, match=remedy) as caught:
        Recommender.load(tiny.path)
    assert caught.value.code == "two_onnxruntimes"


@pytest.mark.parametrize(
    ("installed", "code", "message"),
    [
        pytest.param(None, "no_onnxruntime", r"pip install 'genrec\[cpu\]'", id="missing"),
        pytest.param(SimpleNamespace(), "broken_onnxruntime", "half installed", id="an empty namespace"),
    ],
)
def test_fault_81_a_missing_or_broken_onnxruntime_is_named(
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


def test_fault_82_an_onnxruntime_newer_than_those_tested_is_warned_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    newer = f"{TESTED[0]}.{TESTED[1] + 1}.0"
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(InferenceSession=None, __version__=newer))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        import_onnxruntime()
        import_onnxruntime()
    (warning,) = caught
    assert newer in str(warning.message)
    assert "genrec-runtime verify" in str(warning.message)


def test_the_newest_onnxruntime_tested_is_the_one_that_the_project_pins() -> None:
    (pinned,) = re.findall(r"^onnxruntime==([\d.]+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned.startswith(f"{TESTED[0]}.{TESTED[1]}.")
    assert beyond_tested(pinned) == ""


# --- CUDA


@pytest.mark.parametrize(
    ("built", "cuda", "gpus", "message"),
    [
        ("13.0", (13, 0), (T4,), ""),
        ("13.4", (13, 0), (T4,), ""),
        ("12.8", (12, 2), (V100,), ""),
        ("12.8", (13, 0), (V100,), ""),
        ("13.0", (12, 8), (T4,), "built for CUDA 13.0, and NVIDIA's driver 1.2 runs CUDA up to 12.8"),
        ("12.8", (11, 4), (T4,), "built for CUDA 12.8, and NVIDIA's driver 1.2 runs CUDA up to 11.4"),
        ("13.0", (13, 0), (V100,), "needs compute capability 7.5, and Tesla V100 has 7.0"),
        ("13.0", (13, 0), (T4, V100), ""),  # the first is asked about
        ("", (13, 0), (T4,), ""),
    ],
)
def test_fault_85_a_driver_that_does_not_fit_the_build_is_named(
    monkeypatch: pytest.MonkeyPatch, built: str, cuda: tuple[int, int], gpus: tuple[Gpu, ...], message: str
) -> None:
    driver = Driver("", "1.2", cuda, gpus)
    build = SimpleNamespace(__version__="1.31", cuda_version=built, get_available_providers=lambda: [CUDA, CPU])
    monkeypatch.setattr(device, "ask_driver", lambda: driver)
    monkeypatch.setattr(device, "count_gpus", lambda: len(gpus))
    problem = cuda_problem(build, 0)
    assert bool(problem) == bool(message)
    assert message in problem


def test_fault_84_libraries_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    absent, beside, broken = (f"libgenrec_{name}.so.1" for name in ("absent", "beside", "broken"))
    monkeypatch.setattr(device, "cuda_libraries", lambda built: (absent, beside, broken))
    path = compile_library(tmp_path / "nvidia" / "cu13" / "lib" / beside)
    (path.parent / broken).write_bytes(b"no library")
    build = SimpleNamespace(
        __file__=str(tmp_path / "onnxruntime" / "__init__.py"),
        preload_dlls=lambda: print("Failed to load /else/where/libother.so.2: no such file"),
    )
    found = {library.name: library for library in load_cuda(build)}
    assert found[beside].path == str(path)
    assert "cannot open shared object file" in found[absent].problem
    assert str(path.parent / broken) in found[broken].problem  # the file that is there, and cannot be loaded
    assert (found[absent].path, found[broken].path) == ("", "")
    assert preload_cuda(build) == f"missing libother.so.2, {absent}, {broken}"


# --- CPUs


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "rubbish"}, None),
        ({}, None),
        # a service of systemd: its own group, and the tighter one above it
        ({"own": "0::/a.slice/b.service\n", "a.slice/b.service/cpu.max": "300000 100000"}, 3),
        ({"own": "0::/a/b\n", "a/b/cpu.max": "300000 100000", "a/cpu.max": "200000 100000"}, 2),
        ({"own": "0::/a/b\n", "a/other/cpu.max": "200000 100000"}, None),
        ({"own": "4:memory:/m\n3:cpu,cpuacct:/d\n", "cpu/d/cpu.cfs_quota_us": "1", "cpu/d/cpu.cfs_period_us": "9"}, 1),
        ({"own": "rubbish\n"}, None),
    ],
)
def test_fault_114_the_quota_of_a_control_group_is_found(
    tmp_path: Path, files: dict[str, str], expected: int | None
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(content)
    assert cpu_quota(tmp_path, tmp_path / "own") == expected


@pytest.mark.parametrize(("cpus", "quota", "threads"), [(64, 3, 3), (1, 3, 1), (2, None, 2)])
def test_fault_114_threads_are_the_lesser_of_affinity_and_quota(
    monkeypatch: pytest.MonkeyPatch, cpus: int, quota: int | None, threads: int
) -> None:
    monkeypatch.setattr(device, "cpu_quota", lambda: quota)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cpus)), raising=False)
    assert available_threads() == threads


def test_fault_114_a_quota_of_one_cpu_of_many_serves_with_one_thread_and_no_complaint(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(device, "cpu_quota", lambda: 1)
    monkeypatch.setattr(device, "affinity", lambda: 64)
    recommender = Recommender.load(tiny.path, device="cpu")
    assert recommender.device_report.threads == 1
    recommender.recommend(tiny.histories)
    assert capfd.readouterr() == ("", "")  # onnxruntime writes there that it cannot set an affinity


def test_more_threads_than_cpus_set_no_affinity_and_answer_alike(tiny: Tiny, capfd: pytest.CaptureFixture[str]) -> None:
    one, many = (Recommender.load(tiny.path, device="cpu", threads=n).recommend(tiny.histories) for n in (1, 64))
    assert many.items == one.items
    for ours, theirs in zip(many.scores, one.scores, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)  # float32: another order of sums
    assert capfd.readouterr() == ("", "")

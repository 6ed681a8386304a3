import importlib
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from fake_driver import compile_driver
from genrec_runtime import GenrecError, device
from genrec_runtime.cli import main
from genrec_runtime.device import CPU, CUDA, TESTED, available_threads
from genrec_runtime.diagnosis import Diagnosis, doctor, fitting_extra
from genrec_runtime.nvidia import Driver, Gpu, Library

MODULE = importlib.import_module("genrec_runtime.diagnosis")  # the package's name for it may be the function
NONE = Driver("there is no NVIDIA driver")
T4, V100 = Gpu("Tesla T4", 15 << 30, (7, 5)), Gpu("Tesla V100", 32 << 30, (7, 0))
NEW, OLD, ANCIENT = (Driver("", f"{cuda}0.1", (cuda, 2), (T4,)) for cuda in (13, 12, 11))
MISSING = Library("libcudnn.so.9", "", "cannot open shared object file")
FOUND = Library("libcublas.so.13", "/usr/lib/libcublas.so.13", "")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes ``doctor`` see another machine."""

    def machine(
        driver: Driver = NONE,
        builds: tuple[str, ...] = ("onnxruntime",),
        cuda: str = "",
        libraries: tuple[Library, ...] = (),
        error: Exception | None = None,
        version: str = "1.31.1",
    ) -> None:
        def import_onnxruntime() -> Any:
            if error is not None:
                raise error
            providers = [CUDA, CPU] if cuda else [CPU]
            return SimpleNamespace(__version__=version, cuda_version=cuda, get_available_providers=lambda: providers)

        monkeypatch.setattr(MODULE, "ask_driver", lambda: driver)
        monkeypatch.setattr(MODULE, "installed_builds", lambda: dict.fromkeys(builds, version))
        monkeypatch.setattr(MODULE, "import_onnxruntime", import_onnxruntime)
        monkeypatch.setattr(MODULE, "load_cuda", lambda build: libraries)

    return machine


def command(*arguments: str) -> tuple[int, str]:
    """Exit status and standard output of ``genrec-runtime doctor``."""
    result = CliRunner().invoke(main, ["doctor", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.stderr == ""
    return result.exit_code, result.stdout


# --- which extra


@pytest.mark.parametrize(
    ("driver", "extra"),
    [
        (NONE, "cpu"),
        (Driver("the NVIDIA driver shows no GPU to this process", "580.1", (13, 0)), "cpu"),
        (NEW, "gpu"),
        (OLD, "gpu-cu12"),
        (ANCIENT, "cpu"),
        (Driver("", "580.1", (13, 0), (V100,)), "gpu-cu12"),
        (Driver("", "580.1", (13, 0), (T4, V100)), "gpu-cu12"),
        (Driver("", "600.1", (14, 0), (T4,)), "gpu"),
    ],
)
def test_the_extra_that_fits_follows_from_driver_and_gpus(driver: Driver, extra: str) -> None:
    assert fitting_extra(driver) == extra


# --- healthy machines


@pytest.mark.parametrize(
    "there",
    [
        pytest.param({}, id="a CPU"),
        pytest.param(
            {"driver": NEW, "builds": ("onnxruntime-gpu",), "cuda": "13.0", "libraries": (FOUND,)}, id="a GPU, CUDA 13"
        ),
        pytest.param({"driver": OLD, "builds": ("onnxruntime-gpu",), "cuda": "12.8"}, id="a GPU, CUDA 12"),
        pytest.param(
            {"driver": NEW, "builds": ("onnxruntime-gpu",), "cuda": "12.8"}, id="CUDA 12 under a newer driver"
        ),
        pytest.param({"driver": NEW}, id="a GPU that is not used"),
        pytest.param({"builds": ()}, id="an onnxruntime that pip did not install"),
    ],
)
def test_a_healthy_machine_has_no_problem_and_nothing_to_run(
    machine: Callable[..., None], there: dict[str, Any]
) -> None:
    machine(**there)
    seen = doctor()
    assert (seen.healthy, seen.problems, seen.commands) == (True, (), ())
    assert command() == (0, f"{seen}\n")
    assert seen.lines()[-1].split() == ["healthy", "yes"]


def test_this_machine_is_diagnosed_without_noise(capfd: pytest.CaptureFixture[str]) -> None:
    seen = doctor()
    assert capfd.readouterr() == ("", "")
    assert seen.onnxruntime.version
    assert CPU in seen.onnxruntime.providers
    assert seen.cpus.threads == available_threads() <= seen.cpus.affinity <= seen.cpus.machine
    assert seen.telemetry


def test_a_gpu_that_the_build_cannot_use_is_advice(machine: Callable[..., None]) -> None:
    machine(NEW)
    (advice,) = doctor().advice
    assert "pip uninstall -y onnxruntime, then pip install 'genrec[gpu]'" in advice
    machine(ANCIENT)
    (advice,) = doctor().advice
    assert "NVIDIA's driver runs CUDA up to 11.2" in advice


def test_fault_82_an_onnxruntime_newer_than_those_tested_is_advice(machine: Callable[..., None]) -> None:
    newer = f"{TESTED[0]}.{TESTED[1] + 1}.0"
    machine(version=newer)
    seen = doctor()
    assert seen.healthy
    assert newer in seen.advice[0]


# --- what can be wrong


TWO = GenrecError("onnxruntime and onnxruntime-gpu are both installed", code="two_onnxruntimes")
REMOVE_GPU = "pip uninstall -y onnxruntime-gpu"


@pytest.mark.parametrize(
    ("there", "problems", "commands"),
    [
        pytest.param(
            {"builds": ("onnxruntime", "onnxruntime-gpu"), "error": TWO},
            ["are both installed"],
            ["pip uninstall -y onnxruntime onnxruntime-gpu", "pip install 'genrec[cpu]'"],
            id="81 two builds",
        ),
        pytest.param(
            {"driver": OLD, "builds": ("onnxruntime", "onnxruntime-gpu"), "error": TWO},
            ["are both installed"],
            ["pip uninstall -y onnxruntime onnxruntime-gpu", "pip install 'genrec[gpu-cu12]'"],
            id="81 two builds, and a GPU",
        ),
        pytest.param(
            {"builds": (), "error": GenrecError("serving needs onnxruntime")},
            ["serving needs onnxruntime"],
            ["pip install 'genrec[cpu]'"],
            id="81 none",
        ),
        pytest.param(
            {"error": SystemError("bad magic")},
            ["cannot be imported: SystemError: bad magic"],
            ["pip uninstall -y onnxruntime", "pip install 'genrec[cpu]'"],
            id="81 one that breaks",
        ),
        pytest.param(
            {"builds": ("onnxruntime-gpu",), "cuda": "13.0", "libraries": (FOUND, MISSING)},
            ["build for GPUs: there is no NVIDIA driver", "missing CUDA libraries: libcudnn.so.9"],
            [REMOVE_GPU, "pip install 'genrec[cpu]'"],
            id="85 no driver",
        ),
        pytest.param(
            {"driver": OLD, "builds": ("onnxruntime-gpu",), "cuda": "13.0"},
            ["built for CUDA 13.0, and NVIDIA's driver 120.1 runs CUDA up to 12.2"],
            [REMOVE_GPU, "pip install 'genrec[gpu-cu12]'"],
            id="85 an older driver",
        ),
        pytest.param(
            {"driver": Driver("", "1", (13, 0), (V100, T4, V100)), "builds": ("onnxruntime-gpu",), "cuda": "13.0"},
            ["Tesla V100 has 7.0"],
            [REMOVE_GPU, "pip install 'genrec[gpu-cu12]'"],
            id="85 older GPUs, said once",
        ),
        pytest.param(
            {"driver": NEW, "builds": ("onnxruntime-gpu",), "cuda": "13.0", "libraries": (FOUND, MISSING)},
            ["missing CUDA libraries: libcudnn.so.9"],
            [REMOVE_GPU, "pip install 'genrec[gpu]'"],
            id="84 a library is missing",
        ),
    ],
)
def test_what_is_wrong_is_named_with_the_commands_that_mend_it(
    machine: Callable[..., None], there: dict[str, Any], problems: list[str], commands: list[str]
) -> None:
    machine(**there)
    seen = doctor()
    assert len(seen.problems) == len(problems)
    assert all(part in problem for part, problem in zip(problems, seen.problems, strict=True))
    assert list(seen.commands) == commands
    status, printed = command()
    assert status == 1
    assert all(part in printed for part in [*problems, *commands])


# --- how it is said


def test_json_holds_all_of_it(machine: Callable[..., None]) -> None:
    machine(NEW, ("onnxruntime-gpu",), "13.0", (FOUND, MISSING))
    status, printed = command("--json")
    said = json.loads(printed)
    seen = doctor()
    assert status == 1
    assert said == json.loads(json.dumps(seen.to_dict()))
    assert set(said) == {"healthy", *Diagnosis.__dataclass_fields__}
    assert said["healthy"] is False
    assert said["driver"]["gpus"] == [{"name": T4.name, "memory": T4.memory, "capability": [7, 5]}]
    assert [library["path"] for library in said["onnxruntime"]["libraries"]] == [FOUND.path, ""]


def test_people_read_versions_gpus_and_libraries(machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    machine(NEW, ("onnxruntime-gpu",), "13.0", (FOUND, MISSING))
    monkeypatch.setattr(MODULE, "cpu_quota", lambda: 1)
    monkeypatch.setattr(device, "cpu_quota", lambda: 1)
    monkeypatch.setattr(MODULE, "affinity", lambda: 48)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    said = [(line[:12].rstrip(), line[13:]) for line in doctor().lines()]
    assert ("onnxruntime", "1.31.1, built for CUDA 13.0; installed: onnxruntime-gpu 1.31.1") in said
    assert ("driver", "130.1, runs CUDA up to 13.2") in said
    assert ("gpu 0", "Tesla T4, 15.0 GiB, compute capability 7.5") in said
    assert ("library", "libcudnn.so.9  missing") in said
    assert ("library", f"libcublas.so.13  {FOUND.path}") in said
    assert ("cpus", "1 thread: 64 in the machine, 48 by affinity, 1 by control groups") in said
    assert ("fits", "genrec[gpu]") in said


def test_a_driver_without_a_gpu_for_this_process_says_both(machine: Callable[..., None]) -> None:
    machine(Driver("the NVIDIA driver shows no GPU to this process", "580.1", (13, 0)))
    said = [(line[:12].rstrip(), line[13:]) for line in doctor().lines()]
    assert ("driver", "580.1, runs CUDA up to 13.0") in said
    assert ("gpu", "the NVIDIA driver shows no GPU to this process") in said


def test_a_python_without_onnxruntime_is_diagnosed(run_python: Callable[..., Any]) -> None:
    code = """
import sys
sys.modules["onnxruntime"] = None
from genrec_runtime.diagnosis import doctor
seen = doctor()
print(seen.onnxruntime.problem, seen.lines())
assert not seen.healthy
"""
    assert "serving needs onnxruntime" in run_python(code).stdout


def test_a_driver_of_c_is_found_by_its_name(tmp_path: Any, run_python: Callable[..., Any]) -> None:
    folder = compile_driver(tmp_path, 12040, [(T4.name, T4.memory, 75)]).parent
    code = "from genrec_runtime.diagnosis import doctor; seen = doctor(); print(seen.driver.cuda, seen.driver.gpus, seen.extra)"
    assert run_python(code, LD_LIBRARY_PATH=str(folder)).stdout == f"(12, 4) {(T4,)} gpu-cu12\n"


# --- the page


PAGE = (Path(__file__).parents[2] / "docs" / "devices.md").read_text(encoding="utf-8")


def test_the_page_shows_what_the_doctor_says(machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"^```\n(genrec .*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    beside = Library("libcublas.so.13", "/opt/venv/nvidia/cu13/lib/libcublas.so.13", "")
    machine(Driver("", "550.54.15", (12, 4), (T4,)), ("onnxruntime-gpu",), "13.0", (beside, MISSING))
    monkeypatch.setattr(MODULE, "cpu_quota", lambda: 1)
    monkeypatch.setattr(MODULE, "affinity", lambda: 48)
    monkeypatch.setattr(MODULE, "available_threads", lambda: 1)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setenv(MODULE.SWITCH, "1")
    said = doctor().lines()
    assert block.splitlines()[1:] == said[1:]  # the first is of this machine
    assert set(re.findall(r"\*\*([a-z]+)\*\*", PAGE)) == {line.split()[0] for line in said[1:]} | {"advice"}


def test_the_page_names_the_extras_as_the_project_defines_them() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = dict(re.findall(r"^\| `genrec\[(.+?)\]` \| `(.+?)` \|", PAGE, re.MULTILINE))
    assert {name: [requirement] for name, requirement in extras.items()} == {
        name: project["optional-dependencies"][name] for name in ("cpu", "gpu", "gpu-cu12")
    }


def test_the_page_names_every_field_of_the_report() -> None:
    fields = PAGE.partition("| field | holds |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", fields, re.MULTILINE) == list(device.DeviceReport.__dataclass_fields__)

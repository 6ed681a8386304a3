"""The real GPU builds of onnxruntime on a machine without a GPU, where CUDA cannot start and onnxruntime only logs it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fake_driver import compile_driver
from genrec_runtime import Recommender
from genrec_runtime.nvidia import count_gpus, cuda_libraries
from tiny import Tiny
from wheels import install_alone

ROOT = Path(__file__).parents[2]
DOCTOR = "from genrec_runtime.cli import main; main(['doctor', '--json'])"
REFUSED = """
import sys
from genrec_runtime import DeviceUnavailable, Recommender
try:
    Recommender.load(sys.argv[1], device=sys.argv[2])
except DeviceUnavailable as error:
    print(error)
else:
    raise SystemExit("it serves")
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not isinstance(count_gpus(), str), reason="this machine has a GPU, with which CUDA may start"),
]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module", params=["gpu", "gpu-cu12"])
def wheel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the build that an extra takes, installed alone."""
    requirement = {"gpu": "onnxruntime-gpu>=1.29", "gpu-cu12": "onnxruntime-gpu>=1.24,<1.27"}[request.param]
    return install_alone(requirement, tmp_path_factory.mktemp("wheel") / request.param)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folders of genrec and what it is based on, without any onnxruntime."""
    folder = tmp_path_factory.mktemp("others")
    return [install_alone(name, folder / name) for name in ("numpy", "click")] + [ROOT, ROOT / "runtime"]


@pytest.fixture
def run(wheel: Path, others: list[Path], tmp_path: Path) -> Run:
    """Runs code in an interpreter that knows no other installed package; standard error must stay empty."""

    def run(
        code: str, *arguments: str, first: Path | None = None, status: int = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(map(str, [*([first] if first else []), wheel, *others]))
        known = {key: value for key, value in os.environ.items() if not key.startswith(("ORT_", "CUDA_", "LD_"))}
        command = [sys.executable, "-S", "-c", code, *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env={**known, "PYTHONPATH": path, **environment}, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (status, ""), done.stdout + done.stderr
        return done

    return run


def built_for(wheel: Path) -> str:
    """The CUDA that a build states."""
    info = (wheel / "onnxruntime" / "capi" / "build_and_package_info.py").read_text()
    (version,) = re.findall(r"cuda_version = '([\d.]+)'", info)
    return version


def driver_for(wheel: Path, folder: Path) -> dict[str, str]:
    """The environment in which a driver that fits the build shows one GPU."""
    major = int(built_for(wheel).split(".")[0])
    return {
        "LD_LIBRARY_PATH": str(compile_driver(folder / "driver", major * 1000, [("Tesla T4", 15 << 30, 75)]).parent)
    }


# --- loading


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_fault_85_a_gpu_asked_for_by_name_is_refused_without_a_driver(tiny: Tiny, run: Run, device: str) -> None:
    message = run(REFUSED, str(tiny.path), device).stdout
    assert message.startswith(f"device '{device}' cannot be used: there is no NVIDIA driver")
    assert "genrec[gpu-cu12]" in message


def test_fault_85_auto_serves_on_the_cpu_with_one_warning_and_equal_answers(
    tiny: Tiny, served: Recommender, run: Run
) -> None:
    code = """
import json, sys, warnings
from genrec_runtime import Recommender
histories = json.loads(sys.argv[2])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    recommender = Recommender.load(sys.argv[1], threads=1)
    answer = recommender.recommend(histories)
    recommender.selftest()
report = recommender.device_report
scores = [row.tolist() for row in answer.scores]
print(json.dumps({
    "warnings": [str(warning.message) for warning in caught], "reason": report.reason, "items": answer.items,
    "scores": scores, "providers": report.providers,
}))
"""
    told = json.loads(run(code, str(tiny.path), json.dumps(tiny.histories)).stdout)
    expected = served.recommend(tiny.histories)
    (warning,) = told["warnings"]
    assert "there is no NVIDIA driver" in told["reason"]
    assert told["reason"] in warning
    assert told["providers"] == ["CPUExecutionProvider"]
    assert told["items"] == expected.items
    for ours, theirs in zip(told["scores"], expected.scores, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)  # another version of onnxruntime: other order of sums


def test_fault_84_libraries_that_are_missing_are_named_where_onnxruntime_would_take_the_cpu(
    tiny: Tiny, wheel: Path, run: Run, tmp_path: Path
) -> None:
    driver = driver_for(wheel, tmp_path)
    libraries = json.loads(run(DOCTOR, status=1, **driver).stdout)["onnxruntime"]["libraries"]
    missing = [library["name"] for library in libraries if not library["path"]]
    if not missing:
        pytest.skip("this machine has all of CUDA's libraries")
    message = run(REFUSED, str(tiny.path), "cuda", **driver).stdout
    assert message.startswith("device 'cuda' cannot be used: ")
    assert all(name in message for name in missing)


def test_fault_85_a_driver_too_old_for_the_build_is_named(tiny: Tiny, wheel: Path, run: Run, tmp_path: Path) -> None:
    built = built_for(wheel)
    older = int(built.split(".")[0]) - 1
    driver = compile_driver(tmp_path / "older", older * 1000 + 40, [("Tesla T4", 15 << 30, 75)])
    message = run(REFUSED, str(tiny.path), "cuda", LD_LIBRARY_PATH=str(driver.parent)).stdout
    assert f"built for CUDA {built}" in message
    assert f"runs CUDA up to {older}.4" in message


def test_fault_85_a_driver_that_shows_no_gpu_is_named(tiny: Tiny, wheel: Path, run: Run, tmp_path: Path) -> None:
    driver = compile_driver(tmp_path / "hidden", 13000, [], init=100)
    hidden = {"LD_LIBRARY_PATH": str(driver.parent), "CUDA_VISIBLE_DEVICES": ""}
    assert (
        "shows no GPU to this process (CUDA_VISIBLE_DEVICES is '')"
        in run(REFUSED, str(tiny.path), "cuda", **hidden).stdout
    )


def test_fault_86_a_gpu_beyond_those_there_are_is_named(tiny: Tiny, wheel: Path, run: Run, tmp_path: Path) -> None:
    message = run(REFUSED, str(tiny.path), "cuda:7", **driver_for(wheel, tmp_path)).stdout
    assert message.startswith("device 'cuda:7' cannot be used: there is one GPU, with number 0")


def test_bound_arrays_on_the_cpu_answer_as_plain_ones_do(tiny: Tiny, run: Run) -> None:
    code = """
import sys
import numpy as np
from genrec_runtime.device import import_onnxruntime
from genrec_runtime.placement import RECORD, placement
ort = import_onnxruntime()
options = ort.SessionOptions()
options.add_session_config_entry(RECORD, "1")
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
feed = {spec.name: np.ones([d if isinstance(d, int) else 3 for d in spec.shape], np.int64) for spec in session.get_inputs()}
binding = session.io_binding()
for name, array in feed.items():
    binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, "cpu", 0))
for spec in session.get_outputs():
    binding.bind_output(spec.name, "cpu")
session.run_with_iobinding(binding)
for bound, plain in zip(binding.copy_outputs_to_cpu(), session.run(None, feed), strict=True):
    np.testing.assert_array_equal(bound, plain)
seen = placement(session)
assert set(seen.nodes) == {"CPUExecutionProvider"} and "MatMul" in "".join(seen.operators["CPUExecutionProvider"])
assert seen.heavy_on_cpu == ()
print("equal")
"""
    assert run(code, str(tiny.path / "encode.onnx")).stdout == "equal\n"


# --- the doctor


def test_the_doctor_finds_no_driver_and_names_what_is_missing(wheel: Path, run: Run) -> None:
    said = json.loads(run(DOCTOR, status=1).stdout)
    assert said["extra"] == "cpu"
    assert "there is no NVIDIA driver" in said["driver"]["problem"]
    assert any("there is no NVIDIA driver" in problem for problem in said["problems"])
    assert said["onnxruntime"]["cuda"] == built_for(wheel)
    assert list(said["onnxruntime"]["builds"]) == ["onnxruntime-gpu"]
    missing = [library["name"] for library in said["onnxruntime"]["libraries"] if not library["path"]]
    assert all(any(name in problem for problem in said["problems"]) for name in missing)
    assert said["commands"] == ["pip uninstall -y onnxruntime-gpu", "pip install 'genrec[cpu]'"]


def test_the_libraries_looked_for_are_those_that_the_build_names(wheel: Path) -> None:
    """Newer builds put some names together only when they run, cuDNN's and cuFFT's: those cannot be seen here."""
    content = (wheel / "onnxruntime" / "capi" / "libonnxruntime_providers_cuda.so").read_bytes()
    named = {name.decode() for name in re.findall(rb"\blib(?:cu|nv)\w+\.so\.\d+(?=\0)", content)}
    wanted = {name.partition(".")[0]: name for name in cuda_libraries(built_for(wheel))}
    stems = {name.partition(".")[0] for name in named} - {"libcuda"}  # the driver
    assert {"libcublas", "libcublasLt", "libcudart", "libcurand"} <= stems <= set(wanted)
    assert {wanted[stem] for stem in stems} <= named  # with the right number, beside which older ones may be named


def test_fault_81_two_builds_at_once_are_found(wheel: Path, run: Run, tiny: Tiny, tmp_path: Path) -> None:
    cpu = install_alone("onnxruntime", tmp_path / "cpu")
    said = json.loads(run(DOCTOR, first=cpu, status=1).stdout)
    assert sorted(said["onnxruntime"]["builds"]) == ["onnxruntime", "onnxruntime-gpu"]
    assert said["commands"] == ["pip uninstall -y onnxruntime onnxruntime-gpu", "pip install 'genrec[cpu]'"]


def test_fault_81_what_an_uninstalled_build_leaves_is_found(run: Run, tmp_path: Path) -> None:
    (tmp_path / "left" / "onnxruntime" / "capi").mkdir(parents=True)
    (tmp_path / "left" / "onnxruntime" / "__init__.py").touch()
    said = json.loads(run(DOCTOR, first=tmp_path / "left", status=1).stdout)
    assert "only half installed" in said["onnxruntime"]["problem"]

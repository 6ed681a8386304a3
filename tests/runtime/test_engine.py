from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from genrec_runtime import (
    BundleCorrupt,
    BundleError,
    BundleVersionError,
    DeviceUnavailable,
    InferenceError,
    InputError,
    Module,
    Recommender,
    Unsupported,
    engine,
)
from genrec_runtime.bundle import Bundle
from genrec_runtime.engine import Engine
from genrec_runtime.options import Options
from tiny import Tiny

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
on_cpu_build = pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="needs the build for the CPU")


class GpuBuild:
    """onnxruntime as its GPU build behaves where CUDA cannot start: it offers CUDA, prints, and runs on the CPU."""

    def __init__(self, printed: str = "", error: str = "") -> None:
        self.printed, self.error = printed, error
        self.asked: list[list[Any]] = []
        self.severities: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(onnxruntime, name)

    def get_available_providers(self) -> list[str]:
        return [CUDA, CPU]

    def preload_dlls(self) -> None:
        print(self.printed)

    def set_default_logger_severity(self, severity: int) -> None:
        self.severities.append(severity)

    def InferenceSession(self, content: bytes, options: Any, providers: list[Any], **more: Any) -> Any:
        self.asked.append(providers)
        if self.error and len(providers) > 1:
            raise RuntimeError(self.error)
        return onnxruntime.InferenceSession(content, options, providers=[CPU], **more)


def pretend(monkeypatch: pytest.MonkeyPatch, build: GpuBuild, gpus: int | str) -> None:
    monkeypatch.setattr(engine, "import_onnxruntime", lambda: build)
    monkeypatch.setattr("genrec_runtime.device.count_gpus", lambda: gpus)


# --- devices


@on_cpu_build
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_fault_83_a_gpu_asked_for_by_name_is_an_error_on_the_cpu_build(
    tiny: Tiny, capfd: pytest.CaptureFixture[str], device: str
) -> None:
    message = (
        rf"^device '{device}' cannot be used: .* is a build for the CPU; .* pip install 'genrec\[gpu\]'.*device='cpu'$"
    )
    with pytest.raises(DeviceUnavailable, match=message) as caught:  # a warning would be an error here
        Recommender.load(tiny.path, device=device)
    assert caught.value.code == "device_unavailable"
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@on_cpu_build
def test_auto_takes_the_cpu_of_the_cpu_build_without_a_warning(tiny: Tiny, capfd: pytest.CaptureFixture[str]) -> None:
    report = Recommender.load(tiny.path, threads=2).device_report
    assert (report.asked, report.providers, report.threads) == ("auto", (CPU,), 2)
    assert report.reason == f"this onnxruntime {onnxruntime.__version__} is a build for the CPU"
    assert report.onnxruntime == onnxruntime.__version__
    assert Recommender.load(tiny.path, device="cpu").device_report.reason == ""
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("device", ["cdua", "CUDA", "gpu", "cuda:", "cuda:-1", "cuda:1.0", "", "cpu:0", None, 0])
def test_fault_86_another_word_for_a_device_is_refused_with_the_choices(tiny: Tiny, device: Any) -> None:
    with pytest.raises(ValueError, match=r"device \(.*\) must be 'auto', 'cpu', 'cuda' or 'cuda:N'"):
        Recommender.load(tiny.path, device=device)


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True])
def test_threads_are_a_whole_number_of_at_least_one(tiny: Tiny, threads: Any) -> None:
    with pytest.raises(ValueError, match=r"threads \(.*\) must be a whole number of at least 1"):
        Recommender.load(tiny.path, device="cpu", threads=threads)


@pytest.mark.parametrize(
    ("build", "gpus", "reason"),
    [
        pytest.param(
            GpuBuild(),
            "there is no NVIDIA driver (libcuda.so.1 cannot be opened)",
            "there is no NVIDIA driver",
            id="no driver",
        ),
        pytest.param(
            GpuBuild("Failed to load libcublas.so.13: libcublas.so.13: cannot\nFailed to load libcudnn.so.9: none\n"),
            1,
            r"missing libcublas\.so\.13, libcudnn\.so\.9",
            id="no CUDA libraries",
        ),
        pytest.param(GpuBuild(), 1, "onnxruntime could not start CUDA", id="no reason known"),
        pytest.param(GpuBuild(error="CUDA failure 2: out of memory"), 1, "CUDA failure 2: out of memory", id="memory"),
    ],
)
def test_fault_84_fault_85_fault_87_a_gpu_that_does_not_start_is_an_error_by_name_and_a_warning_with_auto(
    tiny: Tiny,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    build: GpuBuild,
    gpus: int | str,
    reason: str,
) -> None:
    pretend(monkeypatch, build, gpus)
    with pytest.raises(DeviceUnavailable, match=f"device 'cuda' cannot be used: {reason}"):
        Recommender.load(tiny.path, device="cuda", threads=1)
    with pytest.warns(RuntimeWarning, match=f"serving on the CPU: {reason}") as caught:
        recommender = Recommender.load(tiny.path, threads=1)
    assert [warning.filename for warning in caught] == [__file__]
    assert recommender.device_report.providers == (CPU,)
    recommender.score([["item 01"]], [["item 02"]])
    assert build.asked[-1] == [CPU]  # once it is on the CPU it asks for no GPU again
    assert capfd.readouterr() == ("", "")
    assert build.severities == [4, 2] * (len(build.severities) // 2)  # silenced only while CUDA is tried


@pytest.mark.parametrize(("device", "number"), [("cuda:2", 2), ("cuda:7", 7)])
def test_fault_86_a_gpu_that_is_not_there_is_named(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, device: str, number: int
) -> None:
    pretend(monkeypatch, GpuBuild(), 2)
    with pytest.raises(DeviceUnavailable, match=f"device '{device}' cannot be used: there are 2 GPUs, counted from 0"):
        Recommender.load(tiny.path, device=device)


def test_the_options_of_a_gpu_name_it_and_keep_answers_exact(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    build = GpuBuild()
    pretend(monkeypatch, build, 2)
    with pytest.raises(DeviceUnavailable):
        Recommender.load(tiny.path, device="cuda:1")
    (name, options), fallback = build.asked[0]
    assert (name, fallback) == (CUDA, CPU)
    assert options["device_id"] == "1"
    assert options["use_tf32"] == "0"


# --- graphs that onnxruntime refuses


def test_fault_69_an_unknown_operator_is_named(write_module: Callable[..., Path], tmp_path: Path) -> None:
    nodes = [helper.make_node("Magic", ["features"], ["doubled"], domain="my.own")]
    nodes += [helper.make_node("Mul", ["item_ids", "mask"], ["kept"])]
    with pytest.raises(Unsupported, match=r"uses the operator my\.own::Magic, which is not served"):
        Module.load(write_module(tmp_path / "b", nodes, domains=["my.own"]), device="cpu")


@pytest.mark.parametrize("newer", [{"opset": 99}, {"ir_version": 99}], ids=["opset", "IR"])
def test_fault_72_a_newer_opset_or_ir_names_the_versions(
    write_module: Callable[..., Path], tmp_path: Path, newer: dict[str, int]
) -> None:
    with pytest.raises(BundleVersionError, match=rf"99.*which onnxruntime {onnxruntime.__version__} does not read"):
        Module.load(write_module(tmp_path / "b", **newer), device="cpu")


@pytest.mark.parametrize(
    "content", [b"", b"no graph", b"\x80\x04}.", bytes(range(64))], ids=["empty", "text", "pickle", "noise"]
)
def test_fault_52_a_consistent_bundle_whose_graph_is_none_is_refused(
    copied: Path, reseal: Callable[..., None], content: bytes
) -> None:
    (copied / "recommend.onnx").write_bytes(content)
    reseal(copied)
    with pytest.raises(BundleError, match="'recommend'"):
        Recommender.load(copied, device="cpu")


def test_fault_73_a_graph_in_anothers_place_is_refused(copied: Path, reseal: Callable[..., None]) -> None:
    reseal(copied, lambda data: data["graphs"]["recommend"].update(fp32="score.onnx"))
    with pytest.raises(
        BundleCorrupt, match=r"graph 'recommend' has the inputs item_ids, candidates, the manifest says"
    ):
        Recommender.load(copied, device="cpu")


def test_fault_74_a_graph_for_another_catalogue_is_refused(copied: Path, reseal: Callable[..., None]) -> None:
    def shrink(data: dict[str, Any]) -> None:
        data["semantics"]["num_items"] = 36
        for signature in data["signature"].values():
            for spec in signature["inputs"]:
                spec["high"] = spec["high"] and 36
                spec["axes"] = [36 + 1] if spec["name"] == "available" else spec["axes"]

    reseal(copied, shrink)
    with pytest.raises(BundleCorrupt, match=r"graph 'recommend' has available tensor\(bool\) \[38\]"):
        Recommender.load(copied, device="cpu")


def test_fault_82_a_newer_onnxruntime_than_installed_may_be_required(copied: Path, reseal: Callable[..., None]) -> None:
    reseal(copied, lambda data: data["requires"].update(onnxruntime="99.1"))
    with pytest.raises(BundleVersionError, match=r"needs onnxruntime 99\.1 or newer, this is"):
        Recommender.load(copied, device="cpu")


# --- running


def test_a_failure_inside_onnxruntime_is_ours_and_prints_nothing(
    write_module: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # squeezing the first axis works for a batch of one only
    nodes = [
        helper.make_node("Constant", [], ["axis"], value_ints=[0]),
        helper.make_node("Squeeze", ["item_ids", "axis"], ["one"]),
    ]
    nodes += [
        helper.make_node("Mul", ["one", "mask"], ["kept"]),
        helper.make_node("Add", ["features"] * 2, ["doubled"]),
    ]
    module = Module.load(write_module(tmp_path / "b", nodes), device="cpu", threads=1)
    two = {"item_ids": np.ones((2, 3), int), "mask": np.ones((2, 3), int), "features": np.ones((2, 3), np.float32)}
    with pytest.raises(InferenceError, match=r"graph 'module' failed: .*Squeeze") as caught:
        module.run(**two)
    assert caught.value.__cause__ is not None
    assert module.run(**{name: value[:1] for name, value in two.items()})["kept"].tolist() == [[1, 1, 1]]
    assert capfd.readouterr() == ("", "")


def test_fault_02_an_index_outside_the_catalogue_never_reaches_onnxruntime(tiny: Tiny) -> None:
    running = Engine(Bundle.open(tiny.path), Options("cpu", 1))
    for bad in (-1, 38, -(2**63)):
        with pytest.raises(InputError, match=rf"item_ids holds {bad} at \(0, 1\), allowed are 0 to 37"):
            running.run("encode", {"item_ids": np.array([[1, bad]])})
    with pytest.raises(Unsupported, match=r"has no graph 'other'; it has encode, .*score"):
        running.run("other", {})


def test_all_graphs_share_one_copy_of_the_weights(tiny: Tiny) -> None:
    running = Engine(Bundle.open(tiny.path), Options("cpu", 1))
    first = dict(running._opener._initializers())
    running.run("encode", {"item_ids": np.array([[1]])})
    assert all(running._opener._initializers()[name] is value for name, value in first.items())

"""Faults of onnxruntime that we work around.

A probe fails when its fault is gone upstream: then the workaround that it names may go too; see ``MAINTAINING.md``.
"""

import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, parser

from genrec_runtime.device import count_gpus
from wheels import install_alone

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
GATHER = "(int64[n] i) => (float[n, 2] y) <float[3, 2] table = {0, 1, 2, 3, 4, 5}> { y = Gather(table, i) }"
TOPK = "(float[4] x, int64[1] k) => (int64[n] indices) { values, indices = TopK(x, k) }"
SQUEEZE = "(float[n, 2] x) => (float[2] y) <int64[1] axis = {0}> { y = Squeeze(x, axis) }"
TWO = {"x": np.ones((2, 2), np.float32)}  # whose first axis cannot be squeezed


def model_of(text: str, opset: int = 20, name: str = "", rows: int = 0) -> bytes:
    """A model from ONNX's own notation.

    Args:
        text: inputs, outputs, constants and nodes.
        opset: version of the operators.
        name: of the first node.
        rows: of the table that is to be found in a file "weights"; 0 for what the text says.
    """
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> one {text}')
    model.graph.node[0].name = name
    if rows:
        table = model.graph.initializer[0]
        table.ClearField("float_data")
        table.dims[0], table.data_location = rows, TensorProto.EXTERNAL
        for key, value in (("location", "weights"), ("offset", "0"), ("length", str(rows * table.dims[1] * 4))):
            table.external_data.add(key=key, value=value)
    content: bytes = model.SerializeToString()
    return content


def session_of(model: bytes, options: Any = None, providers: Sequence[str] = (CPU,)) -> Any:
    return onnxruntime.InferenceSession(model, options, providers=list(providers))


def python(
    code: str, *arguments: str, first: Path | None = None, telemetry: str = "off"
) -> subprocess.CompletedProcess[str]:
    """Runs code in a new interpreter, with ``first`` before all other places of packages; it must succeed."""
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    if telemetry == "off":
        environment["ORT_DISABLE_TELEMETRY"] = "1"
    environment["PYTHONPATH"] = os.pathsep.join([*([str(first)] if first else []), *sys.path])
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=120)


# --- what it computes


def test_a_negative_index_wraps_without_a_word() -> None:
    """Why the range of every index is checked (``genrec_runtime.signatures.check_inputs``)."""
    assert session_of(model_of(GATHER)).run(None, {"i": np.array([-1])})[0].tolist() == [[4, 5]]


def test_topk_puts_a_nan_first() -> None:
    """Why the exporter refuses weights that are not finite, and the runtime scores that are not."""
    scores = np.array([1, np.nan, 3, 2], np.float32)
    assert session_of(model_of(TOPK)).run(None, {"x": scores, "k": np.array([1])})[0].tolist() == [1]


def test_topk_takes_a_k_beyond_32_bits_for_a_small_one() -> None:
    """Why k is a constant of the graph, and what is asked for is checked (``genrec_runtime.requests.list_length``)."""
    scores = np.array([1, 5, 3, 2], np.float32)
    assert session_of(model_of(TOPK)).run(None, {"x": scores, "k": np.array([2**32 + 3])})[0].tolist() == [1, 2, 3]


def test_attention_does_not_spread_a_mask_over_the_queries() -> None:
    """Why masks have all their axes whole before attention (``visible_slots``, ``MultiHeadAttention._fused``)."""
    text = "(float[2, 2, 3, 4] x, bool[2, 1, q, 3] mask) => (float[2, 2, 3, 4] y) { y = Attention(x, x, x, mask) }"
    session, x = session_of(model_of(text, opset=23)), np.ones((2, 2, 3, 4), np.float32)
    assert session.run(None, {"x": x, "mask": np.ones((2, 1, 3, 3), bool)})[0].tolist() == x.tolist()
    with pytest.raises(Exception, match="inconsistent q_sequence_length"):
        session.run(None, {"x": x, "mask": np.ones((2, 1, 1, 3), bool)})


def test_the_cpu_does_not_round_halves_between_two_nodes() -> None:
    """Why the fp16 variant is judged by a model that rounds in float32 (``genrec_export.half.rounding``)."""
    text = "(float[1] x, float[1] z) => (float[1] y) { h = Cast<to = 10>(x) s = Mul(h, h) w = Cast<to = 1>(s) y = Sub(w, z) }"
    x = np.array([1 + 2**-10], np.float32)  # its square is 1 + 2**-9 + 2**-20, of which a half holds the first two
    z = np.array([1 + 2**-9], np.float32)
    assert session_of(model_of(text)).run(None, {"x": x, "z": z})[0].tolist() == [2**-20]


def test_a_sigmoid_next_to_nothing_is_far_off() -> None:
    """Why SiLU is exported as torch computes it, by an exponential (``genrec_export.tracing._silu``)."""
    text = "(float[1] x) => (float[1] y, float[1] z) { y = Sigmoid(x) m = Neg(x) e = Exp(m) z = Reciprocal(e) }"
    sigmoid, near = session_of(model_of(text)).run(None, {"x": np.array([-16], np.float32)})
    assert abs(sigmoid[0] / np.exp(-16.0) - 1) > 0.01
    assert abs(near[0] / np.exp(-16.0) - 1) < 1e-5  # what is left of float32


# --- what it says, and where


def test_asking_the_cpu_build_for_cuda_is_only_a_warning() -> None:
    """Why ``Engine`` compares the provider it asked for with the one it got."""
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this is a GPU build of onnxruntime")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert session_of(model_of(SQUEEZE), providers=[CUDA]).get_providers() == [CPU]


def test_an_error_is_printed_as_well_as_raised(capfd: pytest.CaptureFixture[str]) -> None:
    """Why ``Engine._options`` asks for no log."""
    with pytest.raises(Exception, match="Squeeze"):
        session_of(model_of(SQUEEZE)).run(None, TWO)
    assert "Squeeze" in capfd.readouterr().err


def test_an_error_that_quotes_a_damaged_name_is_none_of_its_own() -> None:
    """Why ``Engine.run`` and ``Engine._open`` catch every exception."""
    damaged = model_of(SQUEEZE, name="NAME").replace(b"NAME", b"\xff\xfe\xfd\xfc")
    with pytest.raises(UnicodeDecodeError):
        session_of(damaged).run(None, TWO)


@pytest.mark.slow
def test_the_gpu_build_prints_what_it_should_raise(tmp_path: Path) -> None:
    """Why ``device.quiet`` sets the severity of all logs, ``device.preload_cuda`` reads what is printed, and ``Engine``
    compares the provider it asked for with the one it got."""
    if not isinstance(count_gpus(), str):
        pytest.skip("this machine has a GPU, with which CUDA may start")
    build, model = install_alone("onnxruntime-gpu", tmp_path / "gpu"), tmp_path / "squeeze.onnx"
    model.write_bytes(model_of(SQUEEZE))
    code = """
import sys, onnxruntime
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
if sys.argv[2] == "all":
    onnxruntime.set_default_logger_severity(4)
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CUDAExecutionProvider"], enable_fallback=0)
print(session.get_providers())
onnxruntime.preload_dlls()
"""
    its_own, all_logs = (python(code, str(model), silent, first=build) for silent in ("its own", "all"))
    assert "['CPUExecutionProvider']\nFailed to load lib" in its_own.stdout
    assert "Failed to create CUDAExecutionProvider" in its_own.stderr
    assert all_logs.stderr == ""


# --- weights that are given as arrays


def test_an_array_for_a_tensor_in_a_file_does_not_spare_the_file() -> None:
    """Why ``Engine._options`` gives every weights file as well, by its name."""
    options, value = onnxruntime.SessionOptions(), onnxruntime.OrtValue.ortvalue_from_numpy(np.ones((3, 2), np.float32))
    options.add_initializer("table", value)
    with pytest.raises(Exception, match="External data path validation failed"):
        session_of(model_of(GATHER, rows=3), options)


@pytest.mark.parametrize("shared", [False, True])
def test_a_file_given_from_memory_is_copied_unless_its_tensors_are_given_too(shared: bool) -> None:
    """Why ``Engine._options`` gives every weight as an array as well, which all sessions share."""
    table = np.ones((3, 2), np.float32)
    options, value = onnxruntime.SessionOptions(), onnxruntime.OrtValue.ortvalue_from_numpy(table)
    options.add_external_initializers_from_files_in_memory(["weights"], [table.reshape(-1).view(np.uint8)], [24])
    if shared:
        options.add_initializer("table", value)  # which it does not keep alive: ours must
    session = session_of(model_of(GATHER, rows=3), options)
    table[2] = 7
    assert session.run(None, {"i": np.array([2])})[0].tolist() == ([[7, 7]] if shared else [[1, 1]])


@pytest.mark.slow
def test_prepacking_copies_a_shared_table(tmp_path: Path) -> None:
    """Why a session is told not to prepack where its graph multiplies by much (``engine.PREPACK_BELOW``)."""
    text = "(float[b, 64] x) => (float[b, n] y) <float[1, 64] table = {0}> { y = Gemm<transB = 1>(x, table) }"
    (tmp_path / "gemm.onnx").write_bytes(model_of(text, rows=500_000))
    code = """
import os, sys, numpy, onnxruntime
table = numpy.ones((500_000, 64), numpy.float32)
value = onnxruntime.OrtValue.ortvalue_from_numpy(table)

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def session():
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_prepacking", sys.argv[2])
    content = table.reshape(-1).view(numpy.uint8)
    options.add_external_initializers_from_files_in_memory(["weights"], [content], [table.nbytes])
    options.add_initializer("table", value)
    return onnxruntime.InferenceSession(open(sys.argv[1], "rb").read(), options, providers=["CPUExecutionProvider"])

before = resident()
kept = session(), session()
print((resident() - before) / table.nbytes)
"""
    copies = {disabled: float(python(code, str(tmp_path / "gemm.onnx"), disabled).stdout) for disabled in "01"}
    assert copies["0"] == pytest.approx(2, abs=0.3)  # one a session; the rest is the sessions' own, some 9 MB
    assert copies["1"] < 0.3


# --- processes


@pytest.mark.slow
def test_a_fork_after_the_import_hangs_with_telemetry_on() -> None:
    """Why ``genrec_runtime.device`` sets ORT_DISABLE_TELEMETRY before the import."""
    code = """
import os, signal, onnxruntime
child = os.fork()
if child == 0:
    signal.alarm(10)
    raise SystemExit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    ends = {value: python(code, telemetry=value).stdout for value in ("on", "off")}
    assert ends == {"on": "-14\n", "off": "0\n"}  # the alarm's signal is 14

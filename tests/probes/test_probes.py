"""Faults of others that we work around. A probe fails when its fault is gone upstream: then the workaround named may go too.

``MAINTAINING.md`` says how to use them when versions are raised.
"""

import os
import stat
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")


def export(module: nn.Module, *example: Tensor, **options: Any) -> onnx.ModelProto:
    program = torch.onnx.export(module.eval(), example, dynamo=True, opset_version=20, verbose=False, **options)
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    return model


def run(model: onnx.ModelProto, *inputs: Any) -> list[Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return list(session.run(None, dict(zip(names, inputs, strict=False))))


def test_torchs_encoder_gives_nan_for_a_row_of_padding_once_exported() -> None:
    """Why ours lets a padded slot see itself and zeroes it afterwards (``genrec.modules.layers.visible_slots``)."""

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

        def forward(self, x: Tensor, padded: Tensor) -> Tensor:
            encoded: Tensor = self.encoder(x, src_key_padding_mask=padded)
            return encoded

    x, padded = torch.randn(2, 3, 8), torch.tensor([[True, True, True], [False, False, True]])
    assert np.isnan(run(export(Encoder(), x, padded), x.numpy(), padded.numpy())[0][0]).any()


def test_one_tensor_passed_for_two_inputs_loses_an_input() -> None:
    """Why examples are cloned and every input must have a consumer (``tracing.trace``, ``checks.check_model``)."""

    class Difference(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a - b

    same = torch.randn(2, 3)
    model = export(Difference(), same, same)
    used = {name for node in model.graph.node for name in node.input}
    assert {value.name for value in model.graph.input} - used


def test_torch_topk_does_not_break_ties_by_index() -> None:
    """Why ``genrec.modules.top_k`` is not ``torch.topk``."""
    scores = torch.randint(0, 3, (64, 1000), generator=torch.Generator().manual_seed(0)).float()
    stable = scores.sort(dim=1, descending=True, stable=True).indices[:, :10]
    assert not torch.equal(scores.topk(10, dim=1).indices, stable)


def test_a_negative_index_wraps_without_a_word() -> None:
    """Why the runtime checks the range of every index (``genrec_runtime``'s input checks)."""
    table = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(3, 2), "table")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "i"], ["y"])],
        "gather",
        [helper.make_tensor_value_info("i", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [table],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    assert run(model, np.array([-1]))[0].tolist() == [[4.0, 5.0]]


def test_topk_puts_a_nan_first() -> None:
    """Why the exporter refuses weights that are not finite and the runtime scores that are not."""
    graph = helper.make_graph(
        [helper.make_node("TopK", ["x", "k"], ["values", "indices"])],
        "topk",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("indices", TensorProto.INT64, [1])],
        [numpy_helper.from_array(np.array([1]), "k")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    assert run(model, np.array([1, np.nan, 3, 2], np.float32))[0].tolist() == [1]


def test_asking_the_cpu_build_for_cuda_is_only_a_warning() -> None:
    """Why ``Engine`` compares the provider it asked for with the one it got."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this is a GPU build of onnxruntime")
    identity = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(identity, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CUDAExecutionProvider"])
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_onnx_writes_external_data_for_its_owner_alone(tmp_path: Path) -> None:
    """Why the writer sets the mode of every file (``writer``)."""
    table = numpy_helper.from_array(np.zeros((64, 64), np.float32), "table")
    graph = helper.make_graph(
        [helper.make_node("Identity", ["table"], ["y"])],
        "identity",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [64, 64])],
        [table],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save_model(model, str(tmp_path / "m.onnx"), save_as_external_data=True, location="weights.bin")
    assert stat.S_IMODE((tmp_path / "weights.bin").stat().st_mode) == 0o600


def test_the_exporter_leaves_the_machines_paths_in_the_graph() -> None:
    """Why ``tracing`` removes metadata and doc strings."""
    model = export(nn.Linear(2, 2), torch.randn(3, 2))
    assert any("stack_trace" in entry.key for node in model.graph.node for entry in node.metadata_props)


@pytest.mark.slow
def test_a_fork_after_the_import_hangs_with_telemetry_on() -> None:
    """Why ``genrec_runtime.device`` sets ORT_DISABLE_TELEMETRY before the import."""
    code = (
        "import os, signal, onnxruntime\n"
        "child = os.fork()\n"
        "if child == 0: signal.alarm(10); raise SystemExit(0)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0)\n"
    )
    results = {}
    for value in ("0", "1"):
        environment = {**os.environ, "ORT_DISABLE_TELEMETRY": value, "PYTHONPATH": os.pathsep.join(sys.path)}
        if value == "0":
            del environment["ORT_DISABLE_TELEMETRY"]
        results[value] = subprocess.run([sys.executable, "-c", code], env=environment, timeout=60).returncode
    assert results == {"0": 1, "1": 0}


@pytest.mark.slow
def test_prepacking_copies_a_shared_table() -> None:
    """Why a large table's sessions are told not to prepack: memory would hold it twice."""
    code = (
        "import os, sys, numpy as np, onnxruntime\n"
        "from onnx import helper, TensorProto, numpy_helper\n"
        "table = np.ones((500_000, 64), np.float32)\n"
        "entry = TensorProto(name='t', data_type=1, dims=table.shape, data_location=TensorProto.EXTERNAL)\n"
        "[entry.external_data.add(key=k, value=v) for k, v in"
        " (('location', 'w'), ('offset', '0'), ('length', str(table.nbytes)))]\n"
        "ints = helper.make_tensor_value_info('x', 1, ['b', 64])\n"
        "graph = helper.make_graph([helper.make_node('Gemm', ['x', 't'], ['y'], transB=1)], 'g', [ints],"
        " [helper.make_tensor_value_info('y', 1, ['b', 500_000])], [entry])\n"
        "model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 20)], ir_version=10).SerializeToString()\n"
        "options = onnxruntime.SessionOptions()\n"
        "options.add_session_config_entry('session.disable_prepacking', sys.argv[1])\n"
        "options.add_external_initializers_from_files_in_memory(['w'], [table.reshape(-1).view(np.uint8)], [table.nbytes])\n"
        "value = onnxruntime.OrtValue.ortvalue_from_numpy(table)\n"
        "options.add_initializer('t', value)\n"
        "def resident(): return int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGE_SIZE')\n"
        "before = resident()\n"
        "session = onnxruntime.InferenceSession(model, options, providers=['CPUExecutionProvider'])\n"
        "print((resident() - before) / table.nbytes)\n"
    )
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "PYTHONPATH": os.pathsep.join(sys.path)}

    def copies(disabled: str) -> float:
        arguments = [sys.executable, "-c", code, disabled]
        return float(subprocess.run(arguments, env=environment, check=True, capture_output=True, text=True).stdout)

    assert copies("0") > 0.8
    assert copies("1") < 0.3

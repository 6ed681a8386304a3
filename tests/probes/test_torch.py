"""Faults of torch, onnx and numpy's meeting with torch that we work around.

A probe fails when its fault is gone upstream: then the workaround that it names may go too; see ``MAINTAINING.md``.
"""

import stat
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

quietly = pytest.mark.filterwarnings("ignore:.*:UserWarning")


def program_of(module: nn.Module, *example: Tensor, batch: bool = False) -> torch.onnx.ONNXProgram:
    """The exporter's result, with the first axis of all inputs free and of one size where ``batch`` says so."""
    free = torch.export.Dim("batch")
    program = torch.onnx.export(
        module.eval(),
        example,
        dynamo=True,
        opset_version=20,
        input_names=["a", "b"][: len(example)],
        dynamic_shapes=tuple({0: free} for _ in example) if batch else None,
        verbose=False,
    )
    assert program is not None
    return program


class Encoder(nn.Module):
    def __init__(self, nested: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=nested)

    def forward(self, x: Tensor, padded: Tensor) -> Tensor:
        encoded: Tensor = self.encoder(x, src_key_padding_mask=padded)
        return encoded


class Both(nn.Module):
    """Two outputs, each of one input and of its batch."""

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros(a.shape[0], 3) + a.sum(1, keepdim=True), torch.zeros(b.shape[0], 2) + b.sum(1, keepdim=True)


class Difference(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a - b


@quietly
def test_torchs_encoder_gives_nan_for_a_row_of_padding_once_exported() -> None:
    """Why a row of padding is given an item to look at (``genrec_export.graphs.Serving.encode``), and why in our own
    encoder a padded slot sees itself (``genrec.modules.layers.visible_slots``)."""
    x, padded = torch.randn(2, 3, 8), torch.tensor([[True, True, True], [False, False, True]])
    model = program_of(Encoder(nested=False), x, padded).model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    encoded = session.run(None, {"a": x.numpy(), "b": padded.numpy()})[0]
    assert np.isnan(encoded[0]).any()
    assert np.isfinite(encoded[1]).all()


@quietly
def test_torchs_encoder_cannot_answer_a_batch_of_nothing_but_padding() -> None:
    """Why the fast path is off wherever torch is compared with (``genrec_export.tracing.plain_torch``)."""
    encoder, padded = Encoder(nested=True).eval(), torch.ones(2, 3, dtype=torch.bool)
    with torch.no_grad(), pytest.raises(RuntimeError, match="to_padded_tensor"):
        encoder(torch.randn(2, 3, 8), padded)


@quietly
def test_one_tensor_passed_for_two_inputs_loses_an_input() -> None:
    """Why examples are cloned and every input must have a consumer (``tracing.trace``, ``checks.check_model``)."""
    same = torch.randn(2, 3)
    model = program_of(Difference(), same, same).model_proto
    used = {name for node in model.graph.node for name in node.input}
    assert {value.name for value in model.graph.input} - used


@quietly
def test_the_batch_of_one_output_is_read_from_the_input_of_another() -> None:
    """Why graphs that are cut apart measure an axis on an input of their own (``surgery.measure_on_first``)."""
    nodes = program_of(Both(), torch.randn(2, 4), torch.randn(2, 4), batch=True).model_proto.graph.node
    assert len({node.input[0] for node in nodes if node.op_type == "Shape"}) == 1


@quietly
def test_the_exported_model_is_made_anew_at_each_access() -> None:
    """Why it is taken once, before it is changed in place (``tracing.trace``)."""
    program = program_of(Difference(), torch.randn(2, 3), torch.randn(2, 3))
    assert program.model_proto is not program.model_proto


@quietly
def test_the_exporter_leaves_the_machines_paths_in_the_graph() -> None:
    """Why ``surgery.anonymise`` removes metadata and doc strings."""
    nodes = program_of(nn.Linear(2, 2), torch.randn(3, 2)).model_proto.graph.node
    traces = [entry.value for node in nodes for entry in node.metadata_props if "stack_trace" in entry.key]
    assert any(str(Path(torch.__file__).parent) in trace for trace in traces)


@quietly
def test_the_exporter_warns_of_deprecated_code_of_its_own() -> None:
    """Why ``pyproject.toml`` does not make an error of this warning."""
    with pytest.warns(FutureWarning, match="LeafSpec"):
        program_of(Difference(), torch.randn(2, 3), torch.randn(2, 3))


def test_the_exporter_warns_of_an_axis_that_two_inputs_share() -> None:
    """Why ``tracing._quiet`` drops its warnings."""
    with pytest.warns(UserWarning, match="axis name: batch will not be used"):
        program_of(Difference(), torch.randn(2, 3), torch.randn(2, 3), batch=True)


def test_torch_topk_does_not_break_ties_by_index() -> None:
    """Why ``genrec.modules.ranking.top_k`` is more than ``torch.topk``."""
    scores = torch.randint(0, 3, (64, 1000), generator=torch.Generator().manual_seed(0)).float()
    stable = scores.sort(dim=1, descending=True, stable=True).indices[:, :10]
    assert not torch.equal(scores.topk(10, dim=1).indices, stable)


def test_numpy_warns_of_tensors_that_it_may_not_copy() -> None:
    """Why ``genrec_runtime.rows.as_array`` makes an array first and a copy of it then."""
    with pytest.warns(DeprecationWarning, match="doesn't accept a copy keyword"):
        np.array(torch.ones(2))


def test_onnx_writes_external_data_for_its_owner_alone(tmp_path: Path) -> None:
    """Why the exporter writes every file itself, with its mode (``genrec_export.writer``)."""
    table = numpy_helper.from_array(np.zeros((64, 64), np.float32), "table")
    graph = helper.make_graph(
        [helper.make_node("Identity", ["table"], ["y"])],
        "identity",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [64, 64])],
        [table],
    )
    onnx.save_model(helper.make_model(graph), tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin")
    assert stat.S_IMODE((tmp_path / "weights.bin").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "m.onnx").stat().st_mode) & 0o044

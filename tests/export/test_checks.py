"""What is looked at in every traced graph before anything is compared, where no whole export shows it better."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from genrec.histories import ItemIds
from genrec_export import ExportError
from genrec_export.checks import GRAPH_BYTES, check_sizes
from genrec_export.draft import Draft, trace_draft
from genrec_export.foreign import serving_of
from genrec_export.interface import example_of, graphs_of
from genrec_export.modules import blank_manifest
from genrec_export.surgery import move_weights, packed_bytes
from genrec_export.tracing import Graph
from genrec_models import SASRec
from genrec_runtime.manifest import Manifest, Semantics, TensorSpec

WIDTH = 60


class Plain(nn.Module):
    """A linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class Computing(Plain):
    """Multiplies by a large matrix that it makes of nothing, at each call."""

    def forward(self, x: Tensor) -> Tensor:
        waves = torch.sin(torch.arange(WIDTH * 3000.0)).reshape(WIDTH, 3000)
        return super().forward(x) + (x @ waves).mean(dim=1, keepdim=True)


def draft(module: nn.Module) -> Draft:
    x, y = (TensorSpec(name, "float32", ("batch", WIDTH)) for name in "xy")
    return Draft(
        module=module.eval(),
        graphs={"module": Graph(module.forward, (x,), (y,), {})},
        example={"x": torch.rand(2, WIDTH)},
        goldens={},
        manifest=Manifest(**blank_manifest("module", "plain", {}, 20), capabilities=(), semantics=None),
    )


def test_the_files_are_as_large_as_the_parameters() -> None:
    traced = trace_draft(draft(Plain()))
    assert len(traced.blobs["weights.bin"]) == WIDTH * WIDTH * 4  # the bias is small and stays in the graph


def test_a_fixed_window_may_bring_its_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which slot sees which, a large constant where the length is one, and no second copy of anything."""
    torch.manual_seed(0)
    model = SASRec(300, embedding_dim=48, num_heads=2, num_layers=1, max_seq_length=320).eval()
    ids = list(range(1, 301))
    semantics = Semantics(0, 300, 320, "left", "keep_newest", "fixed", 20, "lowest_index", "logit", None)
    serving = serving_of(
        model.user_state,
        model.item_vectors(),
        None,
        ids,
        ItemIds(ids),
        first_item=1,
        pad_index=0,
        max_seq_length=320,
        k_max=20,
    )
    graphs = graphs_of(serving, semantics)
    manifest = Manifest(**blank_manifest("recommender", "sasrec", {}, 20), capabilities=(), semantics=semantics)
    windowed = Draft(serving, graphs, example_of(semantics, graphs), {}, manifest)
    traced = trace_draft(windowed)
    assert len(traced.blobs["weights.bin"]) > sum(p.nbytes for p in model.parameters()) + GRAPH_BYTES
    monkeypatch.setattr("genrec_export.checks._fixed_lengths", lambda model: [])
    with pytest.raises(ExportError, match=r"weights\.bin would have [\d,]+ bytes"):
        check_sizes(serving, traced.models, traced.blobs)


def test_a_tensor_that_tracing_made_of_nothing_is_refused() -> None:
    message = (
        r"would have [\d,]+ bytes, the model's parameters and buffers have 14,640: tracing stored a tensor twice, or"
    )
    with pytest.raises(ExportError, match=message):  # (60 * 60 + 60) * 4 bytes
        trace_draft(draft(Computing()))


def model_with(*arrays: np.ndarray) -> onnx.ModelProto:
    """A model that multiplies by each of the arrays, and looks rows up in the first."""
    tensors = [numpy_helper.from_array(array, f"w{i}") for i, array in enumerate(arrays)]
    nodes = [helper.make_node("MatMul", ["x", tensor.name], [f"y/{i}"]) for i, tensor in enumerate(tensors)]
    outputs = [helper.make_tensor_value_info(f"y/{i}", TensorProto.FLOAT, None) for i in range(len(arrays))]
    return helper.make_model(helper.make_graph(nodes, "g", [], outputs, tensors))


def test_a_table_stored_twice_is_refused_and_equal_tensors_are_stored_once() -> None:
    module = nn.Linear(128, 256, bias=False)
    table = module.weight.detach().numpy()
    turned = np.ascontiguousarray(table.T)
    for arrays, count in (((table, table.copy()), 1), ((table, turned), 2)):
        model = model_with(*arrays)
        blobs, weights = move_weights(model)
        assert len(weights["weights.bin"]) == count
        if count == 1:
            check_sizes(module, {"g.onnx": model}, blobs)
        else:
            with pytest.raises(ExportError, match=r"weights\.bin would have 262,144 bytes, .* have 131,072"):
                check_sizes(module, {"g.onnx": model}, blobs)
    assert table.nbytes > GRAPH_BYTES  # what is allowed beside could not hide it


def test_what_is_multiplied_is_counted_and_what_is_looked_up_is_not() -> None:
    model = model_with(np.ones((32, 16), np.float32), np.ones((8, 64), np.float32))
    node = model.graph.node[1]
    node.op_type = "Gather"
    move_weights(model)
    assert packed_bytes(model) == 32 * 16 * 4

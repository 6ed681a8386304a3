"""Encoder and attention as ONNX graphs: the same numbers in onnxruntime at every batch and length, zeros for dead rows."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from genrec.modules import LearnedPositions, MultiHeadAttention, TransformerEncoder

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

# torch's own exporter calls what torch deprecated
pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")

LENGTH = 6
CLOSE = {"atol": 1e-5, "rtol": 0}  # float32, in another order


class Newest(nn.Module):
    """The served half of an encoder as a module of its own."""

    def __init__(self, encoder: TransformerEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.encoder.newest(input_ids, attention_mask)


def exported(model: nn.Module, examples: Sequence[Tensor], free: Sequence[Sequence[int]], path: Path) -> Any:
    """A session of the model's graph, all its inputs in use and the ``free`` axes of each free."""
    names = [f"input_{i}" for i in range(len(examples))]
    torch.onnx.export(
        model,
        tuple(examples),
        path,
        dynamo=True,
        opset_version=20,
        input_names=names,
        dynamic_shapes=tuple(dict.fromkeys(axes, Dim.DYNAMIC) for axes in free),
        external_data=False,
    )
    graph = onnx.load(path).graph
    used = {name for node in graph.node for name in node.input}
    assert [i.name for i in graph.input] == names
    assert used >= set(names)
    for declared, axes in zip(graph.input, free, strict=True):
        assert all(declared.type.tensor_type.shape.dim[axis].dim_param for axis in axes)
    assert "Dropout" not in {node.op_type for node in graph.node}
    assert {node.domain for node in graph.node} == {""}
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def served(session: Any, *inputs: Tensor) -> list[Any]:
    outputs: list[Any] = session.run(None, {f"input_{i}": x.numpy() for i, x in enumerate(inputs)})
    return outputs


def encoder(**settings: Any) -> TransformerEncoder:
    torch.manual_seed(0)
    return TransformerEncoder(17, 8, 2, 2, 12, max_seq_length=LENGTH, **settings).eval()


def histories(batch: int, length: int) -> tuple[Tensor, Tensor]:
    """Ids, and masks: row 0 whole, row 1 dead, then left-padded, then right-padded."""
    ids = torch.randint(0, 17, (batch, length), generator=torch.Generator().manual_seed(batch + length))
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[1::4] = 0
    mask[2::4, : length // 2] = 0
    mask[3::4, length - length // 2 :] = 0
    return ids, mask


SIZES = [(1, 1), (1, LENGTH), (2, 1), (5, 3), (7, LENGTH)]
SERVING: dict[str, Any] = {"causal": True, "norm_first": True, "final_norm": True, "padding_idx": 0}


@pytest.mark.parametrize("kind", ["reference", "causal", "newest"])
def test_exported_encoder_agrees_and_keeps_dead_rows_zero(tmp_path: Path, kind: str) -> None:
    settings = {} if kind == "reference" else {**SERVING, "pos_encoding": LearnedPositions(8, LENGTH)}
    model = Newest(encoder(**settings)).eval() if kind == "newest" else encoder(**settings)
    session = exported(model, histories(3, 4), [(0, 1)] * 2, tmp_path / "encoder.onnx")
    for batch, length in SIZES:
        ids, mask = histories(batch, length)
        [output] = served(session, ids, mask)
        np.testing.assert_allclose(output, model(ids, mask).detach().numpy(), **CLOSE)
        assert not output[1::4].any()


def test_exported_encoder_without_a_mask_agrees(tmp_path: Path) -> None:
    model = encoder(causal=True)
    session = exported(model, histories(3, 4)[:1], [(0, 1)], tmp_path / "encoder.onnx")
    for batch, length in SIZES:
        ids, _ = histories(batch, length)
        np.testing.assert_allclose(served(session, ids)[0], model(ids).detach().numpy(), **CLOSE)


def test_exported_attention_agrees_and_keeps_dead_rows_zero(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MultiHeadAttention(8, 2).eval()

    def inputs(batch: int, queries: int, keys: int) -> tuple[Tensor, ...]:
        mask = torch.randint(0, 2, (batch, queries, keys))
        mask[0, 0] = 0
        return torch.randn(batch, queries, 8), torch.randn(batch, keys, 8), torch.randn(batch, keys, 8), mask

    session = exported(model, inputs(3, 4, 5), [(0, 1)] * 3 + [(0, 1, 2)], tmp_path / "attention.onnx")
    for sizes in ((1, 1, 1), (2, 1, 9), (5, 7, 7), (1, 6, 2)):
        x = inputs(*sizes)
        output, weights = served(session, *x)
        expected, expected_weights = model(*x)
        np.testing.assert_allclose(output, expected.detach().numpy(), **CLOSE)
        np.testing.assert_allclose(weights, expected_weights.detach().numpy(), **CLOSE)
        assert not weights[0, :, 0].any()

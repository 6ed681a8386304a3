"""Classes of one's own, by a stated signature: from memory and from a folder to a process without torch; ranges, and a trap."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genrec.modules import MultiHeadAttention, save
from genrec_export import TensorSpec, export_folder, export_module
from genrec_export.signatures import parse_signature
from genrec_runtime import InputError, Module
from grid import assert_same
from recent import GatedAttention, Rater, large, refused

CUSTOM: dict[str, tuple[nn.Module, dict[str, Any]]] = {
    "our encoder beside float features, under a head of its own": (
        Rater(11, num_heads=5, measures=4),
        {
            "inputs": [
                {"name": "ids", "dtype": "int32", "axes": ["batch", "length"], "low": 0, "high": 10},
                {"name": "kept", "dtype": "bool", "axes": ["batch", "length"]},
                {"name": "measured", "dtype": "float32", "axes": ["batch", "length", 4]},
            ],
            "outputs": [{"name": "ratings", "dtype": "float32", "axes": ["batch", 5]}],
            "limits": {"length": 7},
        },
    ),
    "our attention, extended": (
        GatedAttention(15, 5),
        {
            "inputs": [
                {"name": "query", "dtype": "float32", "axes": ["batch", "asking", 15]},
                {"name": "key", "dtype": "float32", "axes": ["batch", "asked", 15]},
                {"name": "value", "dtype": "float32", "axes": ["batch", "asked", 15]},
                {"name": "mask", "dtype": "int64", "axes": ["batch", "asked"], "low": 0, "high": 1},
            ],
            "outputs": [
                {"name": "output", "dtype": "float32", "axes": ["batch", "asking", 15]},
                {"name": "weights", "dtype": "float32", "axes": ["batch", 5, "asking", "asked"]},
            ],
        },
    ),
}
SIZES: dict[str | int, int] = {"batch": 3, "length": 6, "asking": 2, "asked": 9}
SERVE = """
import sys
sys.modules["torch"] = None
import numpy as np
from genrec_runtime import Module
served = Module.load(sys.argv[1], device="cpu", threads=1)
served.selftest()
np.savez(sys.argv[3], **served.run(**np.load(sys.argv[2])))
"""


def served_without_torch(bundle: Path, scratch: Path, arrays: dict[str, Any]) -> dict[str, Any]:
    """What a bundle gives in a process where torch cannot be imported."""
    np.savez(scratch / "inputs.npz", **arrays)
    arguments = [str(bundle), str(scratch / "inputs.npz"), str(scratch / "outputs.npz")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.run([sys.executable, "-c", SERVE, *arguments], env=environment, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    return dict(np.load(scratch / "outputs.npz"))


@pytest.mark.parametrize("saved", [False, True], ids=["from memory", "from a folder"])
@pytest.mark.parametrize("kind", CUSTOM)
def test_a_class_of_ones_own_is_served_where_there_is_no_torch(tmp_path: Path, kind: str, saved: bool) -> None:
    model, signature = CUSTOM[kind]
    large(model).eval()
    if saved:
        save(model, tmp_path / "module", signature=signature)
        path = export_folder(tmp_path / "module", tmp_path / "store").path
    else:
        stated = parse_signature(signature)
        path = export_module(
            model, out=tmp_path / "store", inputs=stated.inputs, outputs=stated.outputs, limits=stated.limits
        ).path
    random = np.random.default_rng(6)
    arrays = {}
    for spec in parse_signature(signature).inputs:
        shape = [SIZES.get(axis, axis) for axis in spec.axes]
        high = 1 if spec.high is None else spec.high
        drawn = random.standard_normal(shape) if spec.dtype == "float32" else random.integers(0, high + 1, shape)
        arrays[spec.name] = drawn.astype(spec.dtype)
    arrays["kept" if "kept" in arrays else "mask"][0] = 0  # the first row sees nothing
    answer = served_without_torch(path, tmp_path, arrays)
    with torch.no_grad():
        expected = model(*(torch.from_numpy(array) for array in arrays.values()))
    outputs = expected if isinstance(expected, tuple) else (expected,)
    assert len(outputs) == len(answer)
    for name, tensor in zip(answer, outputs, strict=True):
        assert_same(answer[name], tensor, name)


class Logarithm(nn.Module):
    """Defined from 0 up, as prices and durations are."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(3, 2)

    def forward(self, prices: Tensor) -> Tensor:
        mixed: Tensor = self.mix(torch.log1p(prices))
        return mixed


MIXED = [TensorSpec("mixed", "float32", ("batch", 2))]


def test_floats_with_a_range_are_tried_and_served_within_it(tmp_path: Path) -> None:
    model = large(Logarithm())
    prices = TensorSpec("prices", "float32", ("batch", 3), 0, 500)
    exported = export_module(model, out=tmp_path / "store", inputs=[prices], outputs=MIXED)
    tried = np.load(exported.path / "golden" / "module.npz")
    values = np.concatenate([tried[name].ravel() for name in tried.files if ".in." in name])
    assert values.min() == 0
    assert values.max() == 500
    assert len(np.unique(values)) > 2  # not the ends only
    served = Module.load(exported.path, device="cpu", threads=1)
    asked = np.array([[0, 1.5, 500]], np.float32)
    assert_same(served.run(prices=asked)["mixed"], model(torch.from_numpy(asked)).detach(), "both ends")
    with pytest.raises(InputError, match=r"prices holds -1.5 at \(0, 1\), allowed are 0 to 500"):
        served.run(prices=-asked)


def test_floats_are_tried_on_both_sides_of_zero_where_no_range_is_stated(tmp_path: Path) -> None:
    prices = TensorSpec("prices", "float32", ("batch", 3))
    refused(
        tmp_path, "the answers differ by inf", export_module, module=large(Logarithm()), inputs=[prices], outputs=MIXED
    )


@pytest.mark.parametrize(("queries", "batch"), [("asking", 2), (4, 4)], ids=["free", "fixed"])
def test_a_mask_of_two_axes_is_refused_where_torch_reads_it_by_the_batch(
    tmp_path: Path, queries: str | int, batch: int
) -> None:
    """A batch as long as the queries makes (Lq, Lk) a (B, Lk) in torch, but not in the graph: (1, Lq, Lk) says what is meant."""
    refused(
        tmp_path,
        f"parity failed at graph level: module, batch={batch} .*",
        export_module,
        module=large(MultiHeadAttention(12, 3, need_weights=False)),
        inputs=[
            TensorSpec("query", "float32", ("batch", queries, 12)),
            TensorSpec("key", "float32", ("batch", "asked", 12)),
            TensorSpec("value", "float32", ("batch", "asked", 12)),
            TensorSpec("mask", "int64", (queries, "asked"), 0, 1),
        ],
        outputs=[TensorSpec("output", "float32", ("batch", queries, 12))],
    )

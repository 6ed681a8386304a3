"""Bundles that the tests of the runtime share, and ways to write and damage them."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor, nn

from genrec.histories import RawId
from genrec_export import export_recommender
from genrec_runtime import Recommender
from genrec_runtime.manifest import FileEntry, Manifest, Signature, TensorSpec, Tolerance, content_of, identity
from tiny import Tiny

Change = Callable[[dict[str, Any]], None]
NUMBERS = [2**62, -7, 0, 5, 3, 11, 8, 100, 77, -(2**63), 41]  # raw ids: zero and signs mean nothing
FEATURES = Signature(
    inputs=(
        TensorSpec("item_ids", "int64", ("batch", "length"), 1, 8),
        TensorSpec("mask", "int64", ("batch", "length"), 0, 1),
        TensorSpec("features", "float32", ("batch", 3)),
    ),
    outputs=(TensorSpec("kept", "int64", ("batch", "length")), TensorSpec("doubled", "float32", ("batch", 3))),
    limits={"length": 5},
)


@pytest.fixture(scope="session")
def served(tiny: Tiny) -> Recommender:
    """The tiny bundle, loaded."""
    return Recommender.load(tiny.path, device="cpu", threads=1)


@pytest.fixture
def copied(tiny: Tiny, tmp_path: Path) -> Path:
    """A copy of the tiny bundle to be damaged."""
    return Path(shutil.copytree(tiny.path, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with int ids, no titles, padding on the right, a fixed window of 4 and k_max equal to its 11 items."""
    torch.manual_seed(0)
    model = MeanOfItems(len(NUMBERS), 5)
    random = np.random.default_rng(0)
    histories = [[NUMBERS[i] for i in random.integers(0, len(NUMBERS), 1 + row % 9)] for row in range(20)]
    return export_recommender(
        encode=model,
        item_vectors=model.table.weight,
        item_ids=NUMBERS,
        first_item=0,
        pad_index=len(NUMBERS),
        max_seq_length=4,
        padding="right",
        window="fixed",
        reference=model.recommend,
        histories=histories,
        out=tmp_path_factory.mktemp("numbers") / "store",
        k_max=len(NUMBERS),
    ).path


class MeanOfItems(nn.Module):
    """A user is a linear map of the mean of the newest items' embeddings."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.pad = count
        self.table = nn.Embedding(count + 1, width)
        self.mix = nn.Linear(width, width)

    def forward(self, item_ids: Tensor) -> Tensor:
        """(B, L) -> (B, D)."""
        real = (item_ids != self.pad).unsqueeze(2).float()
        return self.mix((self.table(item_ids) * real).sum(1) / real.sum(1).clamp(min=1))

    @torch.no_grad()
    def recommend(self, histories: Sequence[Sequence[RawId]]) -> list[tuple[list[RawId], list[float]]]:
        """Every item that a history does not hold, best first."""
        answers = []
        for history in histories:
            known = [NUMBERS.index(item) for item in history if item in NUMBERS]
            window = torch.tensor([(known[-4:] + [self.pad] * 4)[:4]])
            scores = (self(window) @ self.table.weight.T)[0].tolist()
            ranked = sorted((-scores[i], NUMBERS[i]) for i in range(len(NUMBERS)) if i not in known)
            answers.append(([item for _, item in ranked], [-score for score, _ in ranked]))
        return answers


@pytest.fixture(scope="session")
def reseal() -> Callable[[Path, Change | None], None]:
    """Makes a changed bundle consistent again: sizes, hashes and id recomputed after ``change`` of the manifest."""

    def reseal(folder: Path, change: Change | None = None) -> None:
        data = json.loads((folder / "manifest.json").read_bytes())
        for name, entry in data["files"].items():
            content = (folder / name).read_bytes()
            entry |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        if change is not None:
            change(data)
        data["content_id"] = content_of(data)
        data["bundle_id"] = identity(data)
        (folder / "manifest.json").write_text(json.dumps(data))

    return reseal


@pytest.fixture(scope="session")
def write_module() -> Callable[..., Path]:
    """Writes a bundle of kind module around hand-made ONNX nodes, those of ``features`` if none are given."""

    def write_module(
        folder: Path,
        nodes: Sequence[onnx.NodeProto] | None = None,
        signature: Signature = FEATURES,
        *,
        goldens: Mapping[str, np.ndarray] | None = None,
        opset: int = 20,
        ir_version: int = 10,
        domains: Sequence[str] = (),
    ) -> Path:
        plain = [helper.make_node("Mul", ["item_ids", "mask"], ["kept"])]
        plain += [helper.make_node("Add", ["features", "features"], ["doubled"])]
        graph = helper.make_graph(
            plain if nodes is None else nodes, "g", *map(values, (signature.inputs, signature.outputs))
        )
        opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
        (folder / "golden").mkdir(parents=True)
        (folder / "module.onnx").write_bytes(model.SerializeToString())
        np.savez(folder / "golden" / "module.npz", **(GOLDEN if goldens is None else goldens))
        manifest = blank(signature, opset, ir_version)
        contents = {name: (folder / name).read_bytes() for name in ("module.onnx", "golden/module.npz")}
        files = {
            name: FileEntry(len(blob), hashlib.sha256(blob).hexdigest(), "graph") for name, blob in contents.items()
        }
        (folder / "manifest.json").write_bytes(dataclasses.replace(manifest, files=files).identified().to_json())
        return folder

    return write_module


GOLDEN = {
    "0.in.item_ids": np.array([[3, 8]]),
    "0.in.mask": np.array([[1, 0]]),
    "0.in.features": np.array([[0.5, 1, 2]], np.float32),
    "0.out.kept": np.array([[3, 0]]),
    "0.out.doubled": np.array([[1, 2, 4]], np.float32),
}


def values(specs: Sequence[TensorSpec]) -> list[onnx.ValueInfoProto]:
    """A graph's inputs or outputs as a signature states them."""
    return [
        helper.make_tensor_value_info(spec.name, helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype)), spec.axes)
        for spec in specs
    ]


def blank(signature: Signature, opset: int, ir_version: int) -> Manifest:
    """A manifest of a module without its files."""
    return Manifest(
        kind="module",
        model={"name": "by hand"},
        capabilities=("run",),
        graphs={"module": {"fp32": "module.onnx"}},
        signature={"module": signature},
        semantics=None,
        files={},
        weights={},
        opset=opset,
        ir_version=ir_version,
        ops={},
        tolerance=Tolerance(1e-6, 1e-6),
        requires={},
    )


@pytest.fixture(scope="session")
def features(write_module: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of kind module: ids times mask, and features doubled; at most 5 long."""
    return write_module(tmp_path_factory.mktemp("features") / "bundle")


@pytest.fixture(scope="session")
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs code in a new interpreter that finds what this one finds; it must succeed."""

    def run_python(
        code: str, *arguments: str, options: Sequence[str] = (), **environment: str
    ) -> subprocess.CompletedProcess[str]:
        known = {key: value for key, value in os.environ.items() if not key.startswith("ORT_")}
        env = {**known, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
        command = [sys.executable, *options, "-c", code, *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    return run_python

"""A second reader, written from docs/format.md alone: it shows that the page is enough. It imports nothing of genrec."""

import hashlib
import io
import itertools
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def content_id(values: Mapping[str, Any]) -> str:
    """What names the content of a manifest ("Ids")."""
    findings = ("golden", "report", "card")
    served = {name: entry for name, entry in values["files"].items() if entry["role"] not in findings}
    left_out = {"bundle_id": "", "content_id": "", "created": "", "parity": {}, "measured": {}}
    return digest({**values, **left_out, "files": served})


def bundle_id(values: Mapping[str, Any]) -> str:
    """What guards a manifest ("Ids")."""
    return digest({**values, "bundle_id": "", "created": ""})


def digest(values: Any) -> str:
    """The sha256 of values written in the one way ("Ids")."""
    return hashlib.sha256(json.dumps(values, indent=2, sort_keys=True).encode() + b"\n").hexdigest()


def weights(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor outside the graphs, by name ("Weights")."""
    listed = json.loads((folder / "manifest.json").read_bytes())["weights"]
    return {
        entry["name"]: np.frombuffer(
            (folder / file).read_bytes(), entry["dtype"], math.prod(entry["shape"]), entry["offset"]
        ).reshape(entry["shape"])
        for file, entries in listed.items()
        for entry in entries
    }


def goldens(folder: Path, graph: str) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """By case and by "in" or "out" the recorded tensors ("Golden requests")."""
    cases: dict[str, Any] = {}
    with zipfile.ZipFile(folder / "golden" / f"{graph}.npz") as archive:
        for member in archive.namelist():
            case, way, tensor = member.removesuffix(".npy").split(".", 2)
            array = np.load(io.BytesIO(archive.read(member)), allow_pickle=False)
            cases.setdefault(case, {}).setdefault(way, {})[tensor] = array
    return cases


def items(folder: Path, name: str = "items") -> list[Any]:
    """The raw ids, or the titles, in the order of their indices ("Items")."""
    if (folder / f"{name}.npy").exists():
        return np.load(folder / f"{name}.npy").tolist()
    blob, offsets = (folder / f"{name}.utf8").read_bytes(), np.load(folder / f"{name}.offsets.npy").tolist()
    return [blob[begin:end].decode() for begin, end in itertools.pairwise(offsets)]


class SecondReader:
    """A recommender's bundle, answered from as "From a request to an answer" says."""

    def __init__(self, folder: Path, variant: str = "fp32") -> None:
        import onnxruntime  # genrec_runtime comes first: it switches the telemetry off

        manifest = json.loads((folder / "manifest.json").read_bytes())
        self.semantics, self.defaults = manifest["semantics"], manifest["defaults"]
        self.items = items(folder)
        self.cold_start = np.load(folder / "cold_start.npy").tolist()
        self.sessions = {
            graph: onnxruntime.InferenceSession(folder / files.get(variant, files["fp32"]))
            for graph, files in manifest["graphs"].items()
        }

    def recommend(
        self, history: Sequence[Any], k: int, exclude: Sequence[Any] = (), candidates: Sequence[Any] | None = None
    ) -> list[tuple[Any, float]]:
        """One row: (raw id, score), best first."""
        known = self.indices(history)
        excluded = [*self.indices(exclude), *(known if self.defaults["exclude_seen"] else [])]
        if not known:
            left = [index for index in self.cold_start if index not in excluded]
            return [(self.items[index - 1], 1 / place) for place, index in enumerate(left[:k], start=1)]
        if candidates is not None:
            pool = sorted({*self.indices(candidates)} - {*excluded})
            scores = self.run("score", item_ids=self.window(known), candidates=[pool])["scores"][0].tolist()
            ranked = sorted(zip(pool, scores, strict=True), key=lambda pair: (-pair[1], pair[0]))
        else:
            available = [True] * (self.semantics["num_items"] + 1)
            inputs = {"item_ids": self.window(known), "exclude": np.array([excluded], np.int64), "available": available}
            found = self.run("recommend", **inputs)
            ranked = list(zip(found["items"][0].tolist(), found["scores"][0].tolist(), strict=True))
        return [(self.items[index - 1], score) for index, score in ranked if score > -math.inf][:k]

    def indices(self, raw: Sequence[Any]) -> list[int]:
        """Those of the ids that are known."""
        return [self.items.index(one) + 1 for one in raw if one in self.items]

    def window(self, known: list[int]) -> list[list[int]]:
        """The newest items, filled up where the window is fixed."""
        newest = known[-self.semantics["max_seq_length"] :]
        if self.semantics["window"] == "bucketed":
            return [newest]
        zeros = [0] * (self.semantics["max_seq_length"] - len(newest))
        return [zeros + newest if self.semantics["padding"] == "left" else newest + zeros]

    def run(self, graph: str, **inputs: Any) -> dict[str, np.ndarray]:
        """A graph's outputs, by name."""
        session = self.sessions[graph]
        outputs = session.run(None, {name: np.asarray(value) for name, value in inputs.items()})
        return dict(zip([output.name for output in session.get_outputs()], outputs, strict=True))

"""Freezes a bundle of each kind in the current version of the format, once and for all; MAINTAINING.md says when.

    PYTHONPATH=tests .venv/bin/python -m frozen.make

writes ``tests/frozen/VERSION/``: the bundles, and ``answers.json``, what they are asked and what they answer. A version that is
there is never written again. Seeds are fixed, and so is what differs from run to run: the time, the speed, the CPU's name.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from frozen.replay import Calls, replay
from genrec.histories import Catalogue, ItemIds, RawId
from genrec_export import Exported, TensorSpec, export_module, export_recommender
from genrec_models import SASRec, TorchRecommender
from genrec_runtime import Recommender
from genrec_runtime.manifest import FORMAT_VERSION

WORDS = (
    "Mütze",
    "glove",
    "čepice",
    "Ｔシャツ",
    "🧦",
)  # letters of one to four bytes; by UTF-16 the last would come before Ｔ
ITEMS = [f"{word} {number:02d}" for word in WORDS for number in range(24)]
LENGTH = 5  # of the window
K = 12
SURE = 4.0  # tolerances of fp16 that places of a frozen list lie apart at least, so that every machine gives it
CREATED = "2000-01-01T00:00:00+00:00"
WIDTH = 120  # of a line of JSON for people


class Mean(nn.Module):
    """The mean of the vectors that a mask keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(16, 16)  # 1 KiB, just what lies outside its graph

    def forward(self, item_ids: Tensor, kept: Tensor) -> Tensor:
        """(B, L), (B, L) -> (B, 16)."""
        weights = kept.unsqueeze(2).float()
        return (self.table(item_ids) * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def freeze(folder: Path) -> None:
    """Makes and writes everything.

    Raises:
        FileExistsError: if ``folder`` is there.
    """
    folder.mkdir()
    with (
        tempfile.TemporaryDirectory() as scratch,
        patch("genrec_export.cases.BATCHES", (2,)),  # these three for small files
        patch("genrec_export.cases.FILLINGS", ("real",)),
        patch("genrec_export.interface.GOLDEN_HISTORIES", 8),
        patch("genrec_export.speed.times_as_fast", lambda *_: 1.0),
        patch("genrec_export.variants.times_as_fast", lambda *_: 1.0),
        patch("genrec_export.proving.machine", lambda _: "some machine"),
    ):
        recommender = put(recommender_at(Path(scratch, "recommender")), folder / "recommender")
        module = put(module_at(Path(scratch, "module")), folder / "module")
    answers = {
        "recommender": answered(recommender, calls_of(Recommender.load(recommender, device="cpu", threads=1))),
        "module": answered(module, [{"method": "run", "arguments": {"item_ids": [[3, 15, 0]], "kept": [[1, 1, 0]]}}]),
    }
    (folder / "answers.json").write_text(laid_out(answers) + "\n", encoding="ascii", newline="\n")


def recommender_at(store: Path) -> Exported:
    """A SASRec of whose items a seventh stands out, so that the best are well apart, as those of a trained one are."""
    torch.manual_seed(0)
    model = SASRec(len(ITEMS), embedding_dim=16, num_heads=2, num_layers=1, max_seq_length=LENGTH).eval()
    size = torch.where(torch.arange(len(ITEMS) + 1) % 7 == 3, 3.0, 0.5).unsqueeze(1)
    with torch.no_grad():
        model.item_vectors().copy_(torch.randn(len(ITEMS) + 1, 16) * size)
    catalogue = Catalogue(ItemIds(ITEMS), np.arange(len(ITEMS), 0, -1))
    path = TorchRecommender(model, catalogue)
    return export_recommender(
        encode=model.user_state,
        item_vectors=model.item_vectors(),
        item_ids=catalogue.items.all(),
        max_seq_length=LENGTH,
        reference=lambda rows: path.recommend(rows, K),
        histories=histories(64),
        out=store,
        k_max=K,
        cold_start=catalogue.items.raw(catalogue.cold_start),
        titles={item: f"{item}, warm" for item in ITEMS},
        name="sasrec",
        config={"embedding_dim": 16, "num_layers": 1},
        facts={"data": {"name": "random histories"}},
        variants=("fp16", "int8"),
    )


def module_at(store: Path) -> Exported:
    """A module with a table outside its graph, a range for every input and a limit."""
    torch.manual_seed(0)
    return export_module(
        Mean(),
        inputs=[
            TensorSpec("item_ids", "int64", ("batch", "length"), 0, 15),
            TensorSpec("kept", "int64", ("batch", "length"), 0, 1),
        ],
        outputs=[TensorSpec("mean", "float32", ("batch", 16))],
        limits={"length": 6},
        out=store,
    )


def histories(count: int) -> list[list[RawId]]:
    """Random ones of every length up to twice the window."""
    random = np.random.default_rng(0)
    return [[ITEMS[i] for i in random.integers(0, len(ITEMS), 1 + row % (2 * LENGTH))] for row in range(count)]


def put(exported: Exported, target: Path) -> Path:
    """Copies a bundle out of its store; its creation time, which no id covers, becomes ``CREATED``."""
    shutil.copytree(exported.path, target)
    (target / "manifest.json").write_bytes(replace(exported.manifest, created=CREATED).to_json())
    return target


def calls_of(served: Recommender) -> Calls:
    """One of every kind, whose lists are the same on every machine and in every variant."""
    lengths = (2, LENGTH, LENGTH + 3)
    chosen = ([history for history in histories(2000) if len(history) == length] for length in lengths)
    return next(calls for calls in map(calls_on, *chosen) if is_sure(served, calls))


def calls_on(short: list[RawId], full: list[RawId], long: list[RawId]) -> Calls:
    """Calls on histories shorter than the window, as long as it, and longer."""
    some, others = ITEMS[::2], ITEMS[1::2]
    calls: list[tuple[str, dict[str, Any]]] = [
        ("recommend", {"histories": [short, full, long], "k": 3}),
        ("recommend", {"histories": [[], ["no such item"], ["no such item", *short]], "k": 3}),
        ("recommend", {"histories": [[], full], "k": 3, "exclude": [ITEMS[-1:], some], "available": ITEMS[:-2]}),
        ("recommend", {"histories": [full], "k": 2, "candidates": [full[:1] + others], "exclude_seen": False}),
        ("score", {"histories": [long, []], "candidates": [full, short]}),
        ("encode", {"histories": [short, full, long]}),
        ("similar", {"items": full[:2], "k": 3}),
        ("item_vectors", {"items": some}),
    ]
    return [{"method": method, "arguments": arguments} for method, arguments in calls]


def is_sure(served: Recommender, calls: Calls) -> bool:
    """Whether every place of every list lies far from the next, and the last from the one that is not shown."""
    tolerance = served.manifest.variants["fp16"].tolerance
    for call in calls:
        if call["method"] in ("recommend", "similar"):
            answer = getattr(served, call["method"])(**{**call["arguments"], "k": call["arguments"]["k"] + 1})
            for scores, status in zip(answer.scores, answer.status, strict=True):
                allowed = tolerance.atol + tolerance.rtol * np.abs(scores).max()
                if status == "model" and -np.diff(scores).max() < SURE * allowed:
                    return False
    return True


def answered(bundle: Path, calls: Calls) -> list[dict[str, Any]]:
    """The calls with their answers in fp32."""
    return [{**call, "answer": answer} for call, answer in zip(calls, replay(bundle, "fp32", calls), strict=True)]


def laid_out(value: Any, indent: int = 0) -> str:
    """JSON for people: what fits a line stands on one."""
    line = json.dumps(value)
    if len(line) + indent <= WIDTH or not isinstance(value, dict | list):
        return line
    if isinstance(value, list):
        return f"[{_below((laid_out(entry, indent + 1) for entry in value), indent)}]"
    return f"{{{_below((f'{json.dumps(key)}: {laid_out(value[key], indent + 1)}' for key in sorted(value)), indent)}}}"


def _below(parts: Iterable[str], indent: int) -> str:
    return f",\n{' ' * (indent + 1)}".join(parts)


if __name__ == "__main__":
    target = Path(__file__).parent / ".".join(map(str, FORMAT_VERSION))
    freeze(target)
    print(f"{target} is made; pin it in test_frozen.py. The example of docs/format.md becomes:\n")
    print(laid_out(json.loads((target / "module" / "manifest.json").read_bytes())))

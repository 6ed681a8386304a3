"""Models of other makes: what their windows and torch's own shortcuts must not break; and the page that shows three of them."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import my_models
from genrec_export import Exported, ExportError, export_recommender
from my_models import LENGTH, GRUNet, RightNet, WindowNet, histories, item_ids
from recent import large
from tests.export.finder import Finder
from tests.export.further import Ageing

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own-model.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def export(out: Path, **options: Any) -> Exported:
    return export_recommender(
        item_ids=item_ids, max_seq_length=LENGTH, histories=histories, out=out / "store", k_max=20, **options
    )


def test_bucketed_is_refused_where_padding_moves_the_scores(tmp_path: Path) -> None:
    net = large(WindowNet()).eval()
    with pytest.raises(ExportError, match=r"parity failed at padding level.*\n.*\nsuspect: positions counted from"):
        export(
            tmp_path,
            encode=net,
            item_vectors=net.items.weight,
            window="bucketed",
            reference=my_models.predict_window(net),
        )
    failing = np.load(tmp_path / "store.failed" / "failing_input.npz")["item_ids"]
    assert failing.shape[0] == 1
    assert 1 <= failing.shape[1] < LENGTH
    assert not (tmp_path / "store").exists()


def test_a_model_that_takes_its_full_window_only_is_served_at_it(tmp_path: Path) -> None:
    class Whole(WindowNet):
        def forward(self, items: Tensor) -> Tensor:
            return torch.tanh(self.mix(self.items(items) + self.position.weight)).sum(dim=1)

    net = large(Whole()).eval()
    exported = export(
        tmp_path, encode=net, item_vectors=net.items.weight, reference=my_models.predict_window(net), window="auto"
    )
    assert exported.manifest.semantics is not None
    assert exported.manifest.semantics.window == "fixed"


class Nested(RightNet):
    """With torch's defaults: the fast path and nested tensors, which fail on a batch of nothing but padding."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage:UserWarning")
def test_the_fast_path_of_torch_neither_breaks_the_proof_nor_is_switched_off_for_good(tmp_path: Path) -> None:
    net = large(Nested()).eval()
    seen: list[bool] = []

    def predict(rows: Sequence[Sequence[str]]) -> my_models.Answers:
        seen.append(torch.backends.mha.get_fastpath_enabled())
        return my_models.predict_right(net)(rows)

    exported = export(
        tmp_path, encode=net.user_vector, item_vectors=net.items.weight, padding="right", reference=predict
    )
    assert exported.report.passed
    assert set(seen) == {True}  # the trainer's own path runs as the trainer runs it
    assert torch.backends.mha.get_fastpath_enabled()


def test_the_page_runs_block_by_block(tmp_path: Path) -> None:
    for name, kind in (("window", WindowNet), ("right", RightNet), ("gru", GRUNet)):
        torch.save(large(kind()).state_dict(), tmp_path / f"{name}.pt")
    torch.save(Ageing().state_dict(), tmp_path / "ageing.pt")
    torch.save(Finder().state_dict(), tmp_path / "finder.pt")
    places = [str(ROOT / "tests"), str(ROOT / "tests" / "export"), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(BLOCKS)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "fixed",
        "bucketed",
        "fixed",
        "bucketed",
        "bucketed",
    ]
    assert all(sum(1 for line in block.splitlines() if line.strip()) <= 15 for block in BLOCKS)


def test_the_models_import_nothing_of_genrec() -> None:
    source = (ROOT / "tests" / "my_models.py").read_text(encoding="utf-8")
    assert not re.search(r"^\s*(import|from) genrec", source, flags=re.MULTILINE)

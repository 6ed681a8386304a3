"""Models of three other makes, each from its weights to served recommendations; and the page that shows them."""

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
from genrec_runtime import Recommender
from my_models import LENGTH, GRUNet, RightNet, WindowNet, histories, item_ids

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own-model.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def trained(kind: type[nn.Module]) -> Any:
    """A net whose weights are large enough for scores to differ well."""
    torch.manual_seed(11)
    net = kind()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.4)
    return net.eval()


def export(out: Path, **options: Any) -> Exported:
    return export_recommender(
        item_ids=item_ids, max_seq_length=LENGTH, histories=histories, out=out / "store", k_max=20, **options
    )


def assert_served_as_predicted(exported: Exported, predict: my_models.Predict) -> None:
    rows = [["sku-07"], ["sku-02", "sku-25", "sku-02"], histories[18], []]
    answer = Recommender.load(exported.path, device="cpu").recommend(rows, k=20)
    for items, scores, (ids, expected) in zip(answer.items, answer.scores, predict(rows[:3]), strict=False):
        np.testing.assert_allclose(scores, expected, atol=1e-5, rtol=1e-5)  # float32, in another order
        assert items == ids
    assert answer.status == ["model", "model", "model", "cold_start"]  # an empty row beside the others spoils none


def test_left_padded_with_positions_from_the_window_start_is_served_at_its_full_window(tmp_path: Path) -> None:
    net = trained(WindowNet)
    predict = my_models.predict_window(net)
    exported = export(tmp_path, encode=net, item_vectors=net.items.weight, padding="left", reference=predict)
    assert exported.manifest.semantics is not None
    assert exported.manifest.semantics.window == "fixed"
    assert_served_as_predicted(exported, predict)


def test_right_padded_encoder_of_torch_is_served(tmp_path: Path) -> None:
    net = trained(RightNet)
    predict = my_models.predict_right(net)
    exported = export(
        tmp_path, encode=net.user_vector, item_vectors=net.items.weight, padding="right", reference=predict
    )
    assert exported.manifest.semantics is not None
    assert (exported.manifest.semantics.window, exported.manifest.semantics.padding) == ("bucketed", "right")
    assert_served_as_predicted(exported, predict)


def test_gru_with_a_biased_head_is_served(tmp_path: Path) -> None:
    net = trained(GRUNet)
    predict = my_models.predict_gru(net)
    exported = export(tmp_path, encode=net.last_state, score=net.head, padding="left", reference=predict)
    assert_served_as_predicted(exported, predict)
    recommender = Recommender.load(exported.path, device="cpu")
    ids, scores = predict([["sku-07"]])[0]
    np.testing.assert_allclose(recommender.score([["sku-07"]], [ids])[0], scores, atol=1e-5)


def test_bucketed_is_refused_where_padding_moves_the_scores(tmp_path: Path) -> None:
    net = trained(WindowNet)
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

    net = trained(Whole)
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
    net = trained(Nested)
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
        torch.save(trained(kind).state_dict(), tmp_path / f"{name}.pt")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(BLOCKS)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["fixed", "bucketed", "fixed"]
    assert all(sum(1 for line in block.splitlines() if line.strip()) <= 15 for block in BLOCKS)


def test_the_models_import_nothing_of_genrec() -> None:
    source = (ROOT / "tests" / "my_models.py").read_text(encoding="utf-8")
    assert not re.search(r"^\s*(import|from) genrec", source, flags=re.MULTILINE)

"""What an export cannot take: models that fail or cannot be traced, answers that are no ranked lists, weights, options."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from genrec_export import ExportError
from recent import Recent, Reference, change, export_recent, like, refused


def test_a_batch_size_that_tracing_fixed(tmp_path: Path) -> None:
    class Baked(Recent):
        def forward(self, items: Tensor) -> Tensor:
            return super().forward(items)[torch.arange(len(items))]

    assert refused(tmp_path, r"the batch of 'item_ids' was fixed at 2 while tracing.*x\.shape\[0\]", net=Baked().eval())


def test_a_branch_on_values(tmp_path: Path) -> None:
    class Branching(Recent):
        def forward(self, items: Tensor) -> Tensor:
            return super().forward(items) * (2 if items.sum() > 40 else 1)

    refused(tmp_path, "torch cannot export the model: .*data-dependent", net=Branching().eval())


def test_an_encoder_that_ignores_the_history(tmp_path: Path) -> None:
    class Deaf(Recent):
        def forward(self, items: Tensor) -> Tensor:
            return self.items.weight[1].expand(items.shape[0], -1)

    refused(tmp_path, "encode ignores its input: histories of the first and of the last item", net=Deaf().eval())


def test_random_answers(tmp_path: Path) -> None:
    class Noisy(Recent):
        def forward(self, items: Tensor) -> Tensor:
            state = super().forward(items)
            return state + torch.randn_like(state)

    refused(tmp_path, "uses the operator onnx::RandomNormalLike, which is not served", net=Noisy().eval())


def test_a_model_that_fails(tmp_path: Path) -> None:
    class Broken(Recent):
        def forward(self, items: Tensor) -> Tensor:
            raise RuntimeError("no such table")

    refused(tmp_path, "encode fails on a tensor of shape .2, 4.: RuntimeError: no such table", net=Broken().eval())


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (like(lambda answers: answers[1:]), r"reference gave \d+ answers for \d+ histories"),
        (change(lambda ids, scores: (ids[::-1], scores[::-1])), r"its answer to \[\d+\]: the scores rise"),
        (
            change(lambda ids, scores: (ids[:3], scores[:3])),
            "reference gave 3 items after .*: give at least 10, or all",
        ),
        (change(lambda ids, scores: (ids, scores[:-1])), r"\d+ ids with scores of shape"),
        (change(lambda ids, scores: ([*ids[:-1], 99], scores)), "99 is not in item_ids"),
        (change(lambda ids, scores: ([ids[0], *ids[:-1]], scores)), "an item occurs twice"),
        (change(lambda ids, scores: (ids, [float("nan"), *scores[1:]])), "a score is NaN"),
        (change(lambda ids, scores: ids), "too many values to unpack"),
        (change(lambda ids, scores: ([str(raw) for raw in ids], scores)), "'.+' is not in item_ids"),
    ],
    ids=["too few answers", "worst first", "few items", "no scores", "unknown", "twice", "NaN", "no pair", "text"],
)
def test_a_reference_whose_answers_are_no_ranked_lists(tmp_path: Path, reference: Reference, message: str) -> None:
    refused(tmp_path, message, reference=reference)


@pytest.mark.parametrize("histories", [[], [[]], [[99]]], ids=["none", "an empty one", "unknown ids only"])
def test_histories_to_prove_it_on_must_hold_items(tmp_path: Path, histories: Sequence[Sequence[int]]) -> None:
    with pytest.raises(ExportError, match=f"none of {len(histories)} holds an item of item_ids; give a few hundred"):
        export_recent(tmp_path / "store", histories=histories)
    assert not any(tmp_path.iterdir())


def test_a_weight_that_is_not_finite_is_named(tmp_path: Path) -> None:
    net = Recent().eval()
    with torch.no_grad():
        net.items.weight[3, 1] = float("nan")
    with pytest.raises(ExportError, match=r"weight 'items.weight' holds NaN: the model has diverged"):
        export_recent(tmp_path / "store", net=net, item_vectors=torch.ones(32, 12))
    with pytest.raises(ExportError, match="weight 'item_vectors' holds infinite values"):
        export_recent(tmp_path / "store", item_vectors=torch.full((32, 12), torch.inf))
    net = Recent().eval()
    net.register_buffer("scale", torch.tensor([1.0, float("nan")]))
    with pytest.raises(ExportError, match="weight 'scale' holds NaN"):
        export_recent(tmp_path / "store", net=net)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_seq_length": 0}, r"max_seq_length \(0\) and k_max \(31\) must be at least 1"),
        ({"k_max": 0}, r"k_max \(0\) must be at least 1"),
        ({"padding": "both"}, r"padding \('both'\) must be 'left' or 'right'"),
        ({"window": "any"}, r"window \('any'\) must be 'auto', 'fixed' or 'bucketed'"),
        ({"item_ids": [1, 1]}, "item id 1 occurs twice"),
        ({"encode": lambda items: items}, "encode must be a torch module"),
        ({"config": {"rate": float("nan")}}, "config must hold JSON values"),
        ({"facts": {"data": object()}}, "facts must hold JSON values"),
    ],
)
def test_arguments_that_cannot_be_meant(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        export_recent(tmp_path / "store", **options)
    assert not any(tmp_path.iterdir())

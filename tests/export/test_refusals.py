"""What must not be published is not: each refusal with its message and what it leaves beside the store."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genrec.histories import RawId
from genrec_export import ExportError
from recent import HISTORIES, ITEM_IDS, LENGTH, Answers, Recent, Reference, export_recent, newest_left, reference_of


def refused(out: Path, message: str, **options: Any) -> dict[str, Any]:
    """The report that an export with this message leaves; nothing else may be left."""
    with pytest.raises(ExportError, match=message) as caught:
        export_recent(out / "store", **options)
    left = out / "store.failed"
    assert str(caught.value).endswith(f"; more in {left}")
    assert [path.name for path in out.iterdir()] == ["store.failed"]
    assert (left / "error.txt").read_text().startswith("Traceback")
    report: dict[str, Any] = json.loads((left / "report.json").read_text())
    return report


def failed_cells(report: dict[str, Any]) -> set[str]:
    assert not report["passed"]
    return {cell["level"] for cell in report["cells"] if float(cell["excess"]) > 1}


def oldest_left(numbers: list[int]) -> list[int]:
    return newest_left(numbers[:LENGTH])


def newest_right(numbers: list[int]) -> list[int]:
    return numbers[-LENGTH:] + [0] * (LENGTH - len(numbers))


def one_higher(numbers: list[int]) -> list[int]:
    return newest_left([number % 31 + 1 for number in numbers])


PRODUCT = (
    r"parity failed at product level: recommend, histories 0\.\.\d+, longest 9, row \d+\n.*\nsuspect: padding side"
)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("window", "shortest"),
    [(oldest_left, LENGTH + 1), (newest_right, 1), (one_higher, 1)],
    ids=["the oldest items", "padding on the other side", "ids off by one"],
)
def test_a_reference_that_prepares_histories_otherwise(
    tmp_path: Path, window: Callable[[list[int]], list[int]], shortest: int
) -> None:
    net = Recent().eval()
    report = refused(tmp_path, PRODUCT, net=net, reference=reference_of(net, window))
    assert failed_cells(report) == {"product"}
    failing = np.load(tmp_path / "store.failed" / "failing_input.npz")["history"]
    assert len(failing) == shortest  # the smallest that shows it
    assert set(failing.tolist()) <= set(ITEM_IDS)


@pytest.mark.usefixtures("quick")
def test_a_reference_without_the_seen_filter(tmp_path: Path) -> None:
    net = Recent().eval()
    assert failed_cells(refused(tmp_path, PRODUCT, net=net, reference=reference_of(net, newest_left, seen=True)))


@pytest.mark.usefixtures("quick")
def test_an_inverted_mask(tmp_path: Path) -> None:
    class Inverted(Recent):
        def forward(self, items: Tensor) -> Tensor:
            weight = 0.5 ** torch.arange(items.shape[1] - 1, -1, -1)
            kept = weight * ((items == 0) | (weight == 1))  # the padding and the newest item
            return torch.tanh((self.items(items) * kept.unsqueeze(-1)).sum(dim=1))

    report = refused(tmp_path, PRODUCT, net=Inverted().eval(), reference=reference_of(Recent().eval(), newest_left))
    assert failed_cells(report) == {"product"}


def test_buckets_claimed_for_a_model_that_padding_moves(tmp_path: Path) -> None:
    class FromStart(Recent):
        def forward(self, items: Tensor) -> Tensor:
            weight = 0.5 ** torch.arange(items.shape[1])
            return torch.tanh((self.items(items) * (weight * (items != 0)).unsqueeze(-1)).sum(dim=1))

    report = refused(
        tmp_path,
        r"parity failed at padding level: torch scores, own length against buckets.*\n.*\nsuspect: positions counted",
        net=FromStart().eval(),
        window="bucketed",
    )
    assert failed_cells(report) == {"padding"}


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


def like(answers_of: Callable[[Answers], Any]) -> Reference:
    """The right answers, spoilt."""
    right = reference_of(Recent().eval(), newest_left)
    return lambda rows: answers_of(right(rows))


def change(row: Callable[[list[RawId], list[float]], Any]) -> Reference:
    return like(lambda answers: [row(list(ids), list(scores)) for ids, scores in answers])


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


@pytest.mark.usefixtures("quick")
def test_a_model_in_training_mode_is_exported_in_eval_mode_and_put_back(tmp_path: Path) -> None:
    net = Recent().train()
    net.items.eval()  # parts may differ
    right = reference_of(Recent().eval(), newest_left)
    exported = export_recent(tmp_path / "store", net=net, reference=right)
    assert exported.report.passed  # dropout of one half would not agree with the net in eval mode
    modes = [part.training for part in (net, net.items, net.dropout)]
    assert modes == [True, False, True]
    with pytest.raises(ExportError):
        export_recent(tmp_path / "store", net=net, reference=like(lambda answers: answers[1:]))
    assert [part.training for part in (net, net.items, net.dropout)] == modes


def test_the_example_is_right(tmp_path: Path) -> None:
    assert export_recent(tmp_path / "store").report.passed
    assert isinstance(Recent(), nn.Module)
    assert max(map(len, HISTORIES)) > 2 * LENGTH

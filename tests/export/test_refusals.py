"""What must not be published is not, each refusal with its message and what it leaves beside the store; what must be, is.

The first part walks the list of mistakes that the export is held to. A mistake in how histories are prepared can stand in
the owner's path or in what is said of the model: where there is something to say, both are tried.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genrec.modules import MultiHeadAttention
from genrec_export import ExportError, TensorSpec, export_module
from recent import (
    HISTORIES,
    ITEM_IDS,
    LENGTH,
    Recent,
    Reference,
    export_recent,
    failed_levels,
    like,
    newest_left,
    reference_of,
    refused,
)

PRODUCT = (
    r"parity failed at product level: recommend, histories 0\.\.\d+, longest 9, row \d+\n.*\nsuspect: padding side"
)
STILL_DROPS = "still drops out: the model was traced in training mode"


def oldest_left(numbers: list[int]) -> list[int]:
    return newest_left(numbers[:LENGTH])


def newest_right(numbers: list[int]) -> list[int]:
    return numbers[-LENGTH:] + [0] * (LENGTH - len(numbers))


def one_higher(numbers: list[int]) -> list[int]:
    return newest_left([number % 31 + 1 for number in numbers])


def assert_refused_for_preparation(out: Path, shortest: int, **options: Any) -> None:
    """All tensors agree, and the written bundle does not answer as the owner's path; a shortest history that shows it is kept."""
    report = refused(out, PRODUCT, **options)
    assert failed_levels(report) == {"product"}
    failing = np.load(out / "store.failed" / "failing_input.npz")["history"]
    assert len(failing) == shortest
    assert set(failing.tolist()) <= set(ITEM_IDS)


def test_refused_buckets_claimed_for_positions_counted_from_the_windows_start(tmp_path: Path) -> None:
    class FromStart(Recent):
        def __init__(self) -> None:
            super().__init__()
            self.position = nn.Embedding(LENGTH, 12)

        def forward(self, items: Tensor) -> Tensor:
            x = self.items(items) + self.position(torch.arange(items.shape[1]))
            return torch.tanh((x * (items != 0).unsqueeze(-1)).sum(dim=1))

    report = refused(
        tmp_path,
        r"parity failed at padding level: torch scores, own length against buckets.*\n.*\nsuspect: positions counted",
        net=FromStart().eval(),
        window="bucketed",
    )
    assert failed_levels(report) == {"padding"}


@pytest.mark.usefixtures("quick")
def test_refused_an_inverted_mask(tmp_path: Path) -> None:
    class Inverted(Recent):
        def forward(self, items: Tensor) -> Tensor:
            weight = 0.5 ** torch.arange(items.shape[1] - 1, -1, -1)
            kept = weight * ((items == 0) | (weight == 1))  # the padding and the newest item
            return torch.tanh((self.items(items) * kept.unsqueeze(-1)).sum(dim=1))

    right = reference_of(Recent().eval(), newest_left)
    assert failed_levels(refused(tmp_path, PRODUCT, net=Inverted().eval(), reference=right)) == {"product"}


@pytest.mark.usefixtures("small_grid")
@pytest.mark.parametrize(
    "options",
    [{"reference": reference_of(Recent().eval(), one_higher)}, {"first_item": 0, "pad_index": 31}],
    ids=["in the owner's path", "as said"],
)
def test_refused_ids_off_by_one(tmp_path: Path, options: dict[str, Any]) -> None:
    assert_refused_for_preparation(tmp_path, 1, **options)


@pytest.mark.usefixtures("quick")
def test_refused_the_oldest_kept(tmp_path: Path) -> None:
    assert_refused_for_preparation(tmp_path, LENGTH + 1, reference=reference_of(Recent().eval(), oldest_left))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "options",
    [{"reference": reference_of(Recent().eval(), newest_right)}, {"padding": "right"}],
    ids=["in the owner's path", "as said"],
)
def test_refused_left_and_right_swapped(tmp_path: Path, options: dict[str, Any]) -> None:
    assert_refused_for_preparation(tmp_path, 1, **options)


class Merged(MultiHeadAttention):
    """Passes its query for the key and the value, as an export does that is given one tensor for all three."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Any:
        return super().forward(query, query, query, mask)


WITHIN = [TensorSpec(name, "float32", ("batch", "length", 12)) for name in ("query", "key", "value")]


def test_refused_an_aliased_example_input(tmp_path: Path) -> None:
    refused(
        tmp_path,
        "does not use its input 'key': the model ignores it, or it was traced with one tensor passed for two inputs",
        export_module,
        module=Merged(12, 3, need_weights=False),
        inputs=WITHIN,
        outputs=[TensorSpec("output", "float32", ("batch", "length", 12))],
    )


STATES = [TensorSpec("states", "float32", ("batch", 12))]
FEATURES = [TensorSpec("features", "float32", ("batch", "time", 12))]
POOLED = [TensorSpec("pooled", "float32", ("batch", 12))]


class Mean(nn.Module):
    """A mean over time, whose length is kept as a Python number."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(12, 12)
        self.length = 0

    def forward(self, features: Tensor) -> Tensor:
        self.length = int(features.shape[1])
        return self.mix(features).sum(dim=1) / self.length


class Sliced(Recent):
    """Positions from a table that is sliced by a length kept as a Python number."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Buffer(0.5 ** torch.arange(LENGTH - 1, -1, -1))

    def forward(self, items: Tensor) -> Tensor:
        kept = self.weights[LENGTH - len(items[0]) :] * (items != 0)
        return torch.tanh((self.items(items) * kept.unsqueeze(-1)).sum(dim=1))


class Whole(Sliced):
    """Positions from a table of one size, whatever the history's."""

    def forward(self, items: Tensor) -> Tensor:
        return torch.tanh((self.items(items) * (self.weights * (items != 0)).unsqueeze(-1)).sum(dim=1))


@pytest.mark.parametrize(
    ("message", "options"),
    [
        (
            "the time of 'features' was fixed at 3 while tracing; the model must not turn that size into a Python number",
            {"export": export_module, "module": Mean(), "inputs": FEATURES, "outputs": POOLED},
        ),
        ("the length of 'item_ids' was fixed at 3 while tracing", {"net": Sliced().eval(), "window": "auto"}),
        ("parity failed at padding level", {"net": Whole().eval(), "window": "bucketed"}),
    ],
    ids=["kept as a number", "slicing a table", "a table of one size"],
)
def test_refused_a_baked_length(tmp_path: Path, message: str, options: dict[str, Any]) -> None:
    refused(tmp_path, message, **options)


class Always(nn.Dropout):
    """Drops out whatever ``eval()`` says."""

    def train(self, mode: bool = True) -> "Always":
        return super().train(True)


class Dropping(Recent):
    """Drops out in every mode."""

    def forward(self, items: Tensor) -> Tensor:
        return F.dropout(super().forward(items), 0.5, training=True)


def in_training(net: nn.Module) -> Reference:
    """The owner's path with the net put in training mode, as a training loop leaves it."""
    right = reference_of(net, newest_left)

    def reference(rows: Any) -> Any:
        net.train()
        return right(rows)

    return reference


TRAINED = Recent()


@pytest.mark.parametrize(
    ("message", "options"),
    [
        (STILL_DROPS, {"net": Dropping().eval()}),
        (
            STILL_DROPS,
            {
                "export": export_module,
                "module": nn.Sequential(nn.Linear(12, 12), Always()),
                "inputs": STATES,
                "outputs": POOLED,
            },
        ),
        (PRODUCT, {"net": TRAINED, "reference": in_training(TRAINED)}),
    ],
    ids=["dropout in every mode", "a part that ignores eval()", "a reference in training mode"],
)
def test_refused_train_mode(tmp_path: Path, message: str, options: dict[str, Any]) -> None:
    refused(tmp_path, message, **options)


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


class Loud(Recent):
    """Item vectors 130 times as long, and the same states."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.items.weight *= 130

    def forward(self, items: Tensor) -> Tensor:
        weight = 0.5 ** torch.arange(items.shape[1] - 1, -1, -1)
        kept = weight * (items != 0) / 130
        return torch.tanh((self.items(items) * kept.unsqueeze(-1)).sum(dim=1))


@pytest.mark.usefixtures("quick")
def test_logits_near_a_thousand_pass_and_a_thousandth_of_them_does_not(tmp_path: Path) -> None:
    net = Loud().eval()
    right = reference_of(net, newest_left)
    assert 900 < max(abs(score) for _, scores in right(HISTORIES) for score in scores) < 1100
    assert export_recent(tmp_path / "right", net=net, reference=right).report.passed

    def off_by(part: float) -> Reference:
        return lambda rows: [(ids, [score * (1 + part) for score in scores]) for ids, scores in right(rows)]

    report = refused(tmp_path / "wrong", PRODUCT, net=net, reference=off_by(1e-3))
    assert failed_levels(report) == {"product"}
    assert export_recent(
        tmp_path / "close", net=net, reference=off_by(5e-6)
    ).report.passed  # tolerated: 1e-5 of the row


@pytest.mark.usefixtures("quick")
def test_a_reference_without_the_seen_filter(tmp_path: Path) -> None:
    net = Recent().eval()
    assert failed_levels(refused(tmp_path, PRODUCT, net=net, reference=reference_of(net, newest_left, seen=True)))


def test_the_example_is_right(tmp_path: Path) -> None:
    assert export_recent(tmp_path / "store").report.passed
    assert max(map(len, HISTORIES)) > 2 * LENGTH

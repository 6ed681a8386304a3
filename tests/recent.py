"""A model that traces in a moment, its owner's own path, and ways to get that path wrong."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genrec.histories import RawId
from genrec_export import Exported, export_recommender

LENGTH = 4
ITEM_IDS = [7 * number % 31 for number in range(31)]  # every number below 31, in no order
HISTORIES = [[ITEM_IDS[(3 * user + step * step) % 31] for step in range(1 + user % 9)] for user in range(24)]

Answers = list[tuple[list[RawId], list[float]]]
Reference = Callable[[Sequence[Sequence[RawId]]], Answers]


class Recent(nn.Module):
    """A left-padded history as a sum of item vectors, each slot with a weight of its own, the newest the heaviest."""

    def __init__(self, rows: int = 32, width: int = 12) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.items = nn.Embedding(rows, width)
        self.dropout = nn.Dropout(0.5)

    def forward(self, items: Tensor) -> Tensor:
        weight = 0.5 ** torch.arange(items.shape[1] - 1, -1, -1)  # (L,)
        kept = weight * (items != 0)
        return torch.tanh((self.dropout(self.items(items)) * kept.unsqueeze(-1)).sum(dim=1))


def reference_of(
    net: nn.Module, window: Callable[[list[int]], list[int]], *, seen: bool = False, k: int = 31
) -> Reference:
    """The owner's path.

    Args:
        net: items (1, LENGTH) to a state; its ``items`` are the table.
        window: from a history's numbers, oldest first, to LENGTH numbers.
        seen: recommend what the history holds, too.
        k: longest list.
    """
    table: Tensor = net.items.weight  # type: ignore[union-attr, assignment]

    def reference(histories: Sequence[Sequence[RawId]]) -> Answers:
        answers: Answers = []
        for history in histories:
            numbers = [ITEM_IDS.index(item) + 1 for item in history]  # type: ignore[arg-type]  # ids of either kind
            with torch.no_grad():
                scores = (net(torch.tensor([window(numbers)])) @ table.T)[0].tolist()
            free = [i for i in range(1, 32) if seen or i not in numbers]
            best = sorted(free, key=lambda i: (-scores[i], ITEM_IDS[i - 1]))[:k]
            answers.append(([ITEM_IDS[i - 1] for i in best], [scores[i] for i in best]))
        return answers

    return reference


def newest_left(numbers: list[int]) -> list[int]:
    """As ``Recent`` was trained."""
    return [0] * (LENGTH - len(numbers)) + numbers[-LENGTH:]


def export_recent(out: Path, **options: Any) -> Exported:
    """Exports a ``Recent``, right in all but what ``options`` change."""
    net = options.pop("net", None) or Recent().eval()
    arguments: dict[str, Any] = {
        "encode": net,
        "item_vectors": net.items.weight,
        "item_ids": ITEM_IDS,
        "max_seq_length": LENGTH,
        "reference": reference_of(net, newest_left),
        "histories": HISTORIES,
        "window": "fixed",
        "k_max": 31,
        "out": out,
    }
    return export_recommender(**(arguments | options))


class Blend(nn.Module):
    """A module with float inputs: how far each row of features lies from a learnt centre, and a gated sum over time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.linspace(-1, 1, width))
        self.gate = nn.Linear(width, 1)

    def forward(self, features: Tensor, kept: Tensor) -> tuple[Tensor, None, Tensor]:
        gate = torch.sigmoid(self.gate(features)) * kept.unsqueeze(-1)  # (B, T, 1)
        distance = (features - self.centre).square().sum(dim=-1)  # (B, T)
        return (gate * features).sum(dim=1), None, distance

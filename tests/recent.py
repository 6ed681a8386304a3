"""Models that trace in a moment, their owner's own path, and ways to get that path wrong."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from genrec.histories import RawId
from genrec.modules import MultiHeadAttention, TransformerEncoder
from genrec_export import Exported, ExportError, export_recommender

LENGTH = 4
ITEM_IDS = [7 * number % 31 for number in range(31)]  # every number below 31, in no order
HISTORIES = [[ITEM_IDS[(3 * user + step * step) % 31] for step in range(1 + user % 9)] for user in range(24)]

Net = TypeVar("Net", bound=nn.Module)
Answers = list[tuple[list[RawId], list[float]]]
Reference = Callable[[Sequence[Sequence[RawId]]], Answers]


def large(module: Net) -> Net:
    """The module with weights that move its answers well."""
    torch.manual_seed(3)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    return module


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


def like(answers_of: Callable[[Answers], Any]) -> Reference:
    """The owner's path with its right answers spoilt."""
    right = reference_of(Recent().eval(), newest_left)
    return lambda rows: answers_of(right(rows))


def change(row: Callable[[list[RawId], list[float]], Any]) -> Reference:
    """The owner's path with each right list spoilt."""
    return like(lambda answers: [row(list(ids), list(scores)) for ids, scores in answers])


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


def refused(out: Path, message: str, export: Callable[..., Exported] = export_recent, **options: Any) -> dict[str, Any]:
    """The report that an export with this message leaves in the folder ``out``; nothing else may be left."""
    with pytest.raises(ExportError, match=message) as caught:
        export(out=out / "store", **options)
    left = out / "store.failed"
    assert str(caught.value).endswith(f"; more in {left}")
    assert [path.name for path in out.iterdir()] == ["store.failed"]
    assert (left / "error.txt").read_text().startswith("Traceback")
    report: dict[str, Any] = json.loads((left / "report.json").read_text())
    return report


def failed_levels(report: dict[str, Any]) -> set[str]:
    """The levels at which a report has failed comparisons."""
    assert not report["passed"]
    return {cell["level"] for cell in report["cells"] if float(cell["excess"]) > 1}


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


class Rater(nn.Module):
    """Our encoder under a head of its own: what was looked at, and numbers measured with each look, to five ratings.

    Args:
        vocab_size: ids are 0..vocab_size - 1.
        num_heads: heads, of width 3 each.
        measures: numbers measured with each look.
    """

    def __init__(self, vocab_size: int, num_heads: int, measures: int) -> None:
        super().__init__()
        self.arguments = {"vocab_size": vocab_size, "num_heads": num_heads, "measures": measures}
        width = 3 * num_heads
        self.encoder = TransformerEncoder(vocab_size, width, num_heads, 1, 16, max_seq_length=7, causal=True)
        self.measures = nn.Linear(measures, width)
        self.head = nn.Linear(width, 5)

    def forward(self, ids: Tensor, kept: Tensor, measured: Tensor) -> Tensor:
        x = self.encoder(ids, kept) + torch.tanh(self.measures(measured))  # (B, L, D)
        x = (x * kept.unsqueeze(-1)).sum(dim=1) / kept.sum(dim=1, keepdim=True).clamp(min=1)  # (B, D)
        ratings: Tensor = self.head(torch.relu(x))
        return ratings  # (B, 5)


class GatedAttention(MultiHeadAttention):
    """Attention whose output is let through as far as the query asks for it."""

    def __init__(self, embedding_dim: int, num_heads: int, dropout: float = 0.1, *, need_weights: bool = True) -> None:
        super().__init__(embedding_dim, num_heads, dropout, need_weights=need_weights)
        self.gate = nn.Linear(embedding_dim, embedding_dim)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        output, weights = super().forward(query, key, value, mask)
        return output * torch.sigmoid(self.gate(query)), weights

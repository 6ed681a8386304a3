"""The runtime's peers in torch: from raw histories to raw ids, as a careful user of torch writes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genrec_models import SASRec

Answer = tuple[list[list[Any]], NDArray[np.float32]]  # raw ids, best first, and their scores (B, K)


class Naive(nn.Module):
    """The trainer's model as it is: every slot through every layer, fresh tensors for every result.

    Args:
        model: the recommender.
        k: K, how many items.
    """

    def __init__(self, model: SASRec, k: int) -> None:
        super().__init__()
        self.model = model
        self.k = k

    def forward(self, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L), left-padded with 0 -> scores (B, K) and item numbers (B, K); what a row holds is left out."""
        states = self.model.encoder(item_ids, item_ids != 0)[:, -1]  # (B, D)
        scores = states @ self.model.item_vectors().T  # (B, V + 1)
        scores.scatter_(1, item_ids, float("-inf"))
        scores[:, 0] = float("-inf")
        values, indices = scores.topk(self.k, dim=1)
        return values, indices


class Tuned(nn.Module):
    """The same made fast by hand: the last layer for the newest slot only, the table transposed before, results kept room for.

    Args:
        model: the recommender.
        k: K, how many items.
    """

    def __init__(self, model: SASRec, k: int) -> None:
        super().__init__()
        self.model = model
        self.k = k
        self.table = model.item_vectors().detach().T.contiguous()  # (D, V + 1)
        self.search: Callable[..., Any] = self._search  # what ``compiled`` replaces
        self._rooms: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def forward(self, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        """As ``Naive``; the result is overwritten by the next call of the same batch size."""
        batch = len(item_ids)
        if batch not in self._rooms:
            self._rooms[batch] = (
                torch.empty(batch, self.table.shape[1]),
                torch.empty(batch, self.k),
                torch.empty(batch, self.k, dtype=torch.int64),
            )
        scores, values, indices = self._rooms[batch]
        self.search(item_ids, scores, values, indices)
        return values, indices

    def _search(self, item_ids: Tensor, scores: Tensor, values: Tensor, indices: Tensor) -> None:
        torch.mm(self.model.user_state(item_ids), self.table, out=scores)
        scores.scatter_(1, item_ids, float("-inf"))
        scores[:, 0] = float("-inf")
        torch.topk(scores, self.k, dim=1, out=(values, indices))


class Pipeline:
    """Numbers raw ids by a dictionary, pads, asks a module, and looks up raw ids.

    Args:
        module: item numbers (B, L) -> scores (B, K) and item numbers (B, K).
        raw: the catalogue's raw ids, in the order of their numbers 1, 2, ...
        length: the longest history that the model takes, in items.
        fixed: pad to ``length`` always, not to the longest history of the request.
    """

    def __init__(
        self, module: Callable[[Tensor], tuple[Tensor, Tensor]], raw: Sequence[Any], length: int, *, fixed: bool = False
    ) -> None:
        self.module = module
        self.length = length
        self.fixed = fixed
        self.raw = [None, *raw]
        self.numbers = {item: number for number, item in enumerate(raw, start=1)}

    @torch.inference_mode()
    def recommend(self, histories: Sequence[Sequence[Any]]) -> Answer:
        """The best items of each history, none of which may be longer than ``length``; unknown ids are left out."""
        values, indices = self.module(torch.from_numpy(self.padded(histories)))
        return [[self.raw[number] for number in row] for row in indices.tolist()], values.numpy()

    def padded(self, histories: Sequence[Sequence[Any]]) -> NDArray[np.int64]:
        """Item numbers (B, L), left-padded with 0."""
        numbers = self.numbers
        rows = [[numbers[item] for item in history if item in numbers] for history in histories]
        width = self.length if self.fixed else max(map(len, rows))
        padded = np.zeros((len(rows), width), np.int64)
        for place, row in zip(padded, rows, strict=True):
            place[width - len(row) :] = row
        return padded


def torch_peers(model: SASRec, raw: Sequence[Any], k: int, *, compiled: bool = True) -> dict[str, Pipeline]:
    """Every torch pipeline by name; what was compiled for the shapes of earlier peers is forgotten."""
    naive, tuned = Naive(model, k), Tuned(model, k)
    modules: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {"naive": naive, "tuned": tuned}
    if compiled:
        torch.compiler.reset()
        quick = Tuned(model, k)
        quick.table = tuned.table
        quick.search = torch.compile(quick.search, dynamic=False)
        modules |= {"naive compiled": torch.compile(naive, dynamic=False), "tuned compiled": quick}
    return {name: Pipeline(module, raw, model.max_seq_length) for name, module in modules.items()}


def save(folder: Path, model: SASRec, raw: Sequence[Any], request: Sequence[Any]) -> Path:
    """Writes what a torch service starts from: settings, weights, raw ids; and beside it a request, whose file it returns."""
    folder.mkdir(parents=True)
    torch.save({"arguments": model.arguments, "weights": model.state_dict()}, folder / "model.pt")
    np.save(folder / "items.npy", np.array(raw))
    (folder / "request.json").write_text(json.dumps(list(request)))
    return folder / "request.json"


def load(folder: str, k: int = 10) -> Pipeline:
    """The naive pipeline over what ``save`` wrote."""
    saved = torch.load(Path(folder) / "model.pt", weights_only=True)
    model = SASRec(**saved["arguments"]).eval()
    model.load_state_dict(saved["weights"])
    return Pipeline(Naive(model, k), np.load(Path(folder) / "items.npy").tolist(), model.max_seq_length)

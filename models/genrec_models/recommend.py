"""Recommending with a torch model: the trainer's own path from raw ids to raw ids, which serving must reproduce."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from genrec.histories import Catalogue, Ints, Ragged, RawId, user_indices
from genrec.modules import catalogue_scores, mask_scores, reads, top_k

Row = tuple[list[RawId], list[float]]


class TorchRecommender:
    """Answers raw histories by a model, in the order of training: number, keep the newest, left-pad, score, mask, rank.

    Args:
        model: a zoo model, or any that ``genrec.modules.catalogue_scores`` takes, with ``max_seq_length``; put in eval mode here.
        catalogue: the items it was trained on.
        batch_size: histories scored at once.
    """

    def __init__(self, model: nn.Module, catalogue: Catalogue, *, batch_size: int = 256) -> None:
        self.model = model.eval()
        self.catalogue = catalogue
        self.batch_size = batch_size

    def recommend(
        self,
        histories: Sequence[Sequence[Any]],
        k: int = 10,
        *,
        exclude_seen: bool = True,
        timestamps: Sequence[Sequence[int]] | None = None,
        request_time: Sequence[int] | None = None,
        users: Sequence[RawId | None] | None = None,
    ) -> list[Row]:
        """The best items for each history.

        Args:
            histories: raw ids, oldest first, of any length; unknown ids are dropped.
            k: how many; above the catalogue's size it gives the catalogue.
            exclude_seen: leave out what the (whole) history holds.
            timestamps: per history the time of each event in whole seconds, for models that read it.
            request_time: per history when the answer is wanted; the time of its newest known event when None.
            users: per history the user's raw id, None for nobody known.

        Returns:
            Per history its raw ids, best first, and their scores, fewer than ``k`` where nothing is left. A history without a
            known item gets the catalogue's most popular ones, scored 1 / rank.

        Raises:
            ValueError: if ``k`` is below 1, or the model reads times and there are none, or too few.
            TypeError: if an id is neither an int nor a string.
        """
        if k < 1:
            raise ValueError(f"k ({k}) must be at least 1")
        rows, times = self._numbered(histories, timestamps)
        given: dict[str, Any] = {"timestamps": times, "request_time": request_time, "users": users}
        further = {name: given[name] for name in reads(self.model) if given.get(name) is not None}
        if "timestamps" in reads(self.model) and times is None:
            raise ValueError(f"{type(self.model).__name__} reads the times of events: give timestamps")
        known = [i for i, row in enumerate(rows) if len(row)]
        answers: list[Row] = [self._cold_start(k)] * len(rows)
        for start in range(0, len(known), self.batch_size):
            places = known[start : start + self.batch_size]
            part = {name: [values[i] for i in places] for name, values in further.items()}
            found = self._answer(Ragged.from_rows([rows[i] for i in places]), part, k, exclude_seen)
            for place, answer in zip(places, found, strict=True):
                answers[place] = answer
        return [(list(items), list(scores)) for items, scores in answers]

    def _numbered(
        self, histories: Sequence[Sequence[Any]], timestamps: Sequence[Sequence[int]] | None
    ) -> tuple[list[Ints], list[Ints] | None]:
        """The item numbers of what is known, and its times."""
        numbers = [self.catalogue.items.index(history) for history in histories]
        kept = [row > 0 for row in numbers]
        rows = [row[mask] for row, mask in zip(numbers, kept, strict=True)]
        if timestamps is None:
            return rows, None
        times = [np.asarray(row, dtype=np.int64)[mask] for row, mask in zip(timestamps, kept, strict=True)]
        return rows, times

    @torch.inference_mode()
    def _answer(self, histories: Ragged, further: dict[str, list[Any]], k: int, exclude_seen: bool) -> list[Row]:
        model: Any = self.model
        device = next(iter(model.state_dict().values())).device
        width = min(int(histories.lengths.max()), model.max_seq_length)
        seen = histories.pad(None if exclude_seen else 0)  # (B, E), E is 0 if not
        inputs = {"item_ids": histories.pad(width), "exclude": seen}  # (B, L), (B, E)
        if "timestamps" in further:
            inputs["timestamps"] = Ragged.from_rows(further["timestamps"]).pad(width)  # (B, L)
        if "request_time" in further:
            inputs["request_time"] = np.array(further["request_time"], dtype=np.int64)  # (B,)
        if "users" in further:
            inputs["users"] = user_indices(further["users"], model.num_users)  # (B,)
        batch = {name: torch.from_numpy(values).to(device) for name, values in inputs.items()}
        scores = mask_scores(catalogue_scores(model, **batch), batch["exclude"])  # (B, V + 1)
        indices, values = top_k(scores, min(k, len(self.catalogue.items)))  # (B, K)
        left = (values > float("-inf")).sum(dim=1).tolist()
        return [
            (self.catalogue.items.raw(row[:n]), best[:n])
            for row, best, n in zip(indices.tolist(), values.tolist(), left, strict=True)
        ]

    def _cold_start(self, k: int) -> Row:
        best = self.catalogue.items.raw(self.catalogue.cold_start[:k])
        return best, [1 / rank for rank in range(1, len(best) + 1)]

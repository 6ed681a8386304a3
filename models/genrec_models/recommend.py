"""Recommending with a torch model: the trainer's own path from raw ids to raw ids, which serving must reproduce."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from genrec.histories import Catalogue, Ragged, RawId
from genrec.modules import catalogue_scores, mask_scores, top_k

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

    def recommend(self, histories: Sequence[Sequence[Any]], k: int = 10, *, exclude_seen: bool = True) -> list[Row]:
        """The best items for each history.

        Args:
            histories: raw ids, oldest first, of any length; unknown ids are dropped.
            k: how many; above the catalogue's size it gives the catalogue.
            exclude_seen: leave out what the (whole) history holds.

        Returns:
            Per history its raw ids, best first, and their scores, fewer than ``k`` where nothing is left. A history without a
            known item gets the catalogue's most popular ones, scored 1 / rank.

        Raises:
            ValueError: if ``k`` is below 1.
            TypeError: if an id is neither an int nor a string.
        """
        if k < 1:
            raise ValueError(f"k ({k}) must be at least 1")
        rows = [numbers[numbers > 0] for numbers in map(self.catalogue.items.index, histories)]
        known = [i for i, row in enumerate(rows) if len(row)]
        answers: list[Row] = [self._cold_start(k)] * len(rows)
        for start in range(0, len(known), self.batch_size):
            places = known[start : start + self.batch_size]
            for place, answer in zip(places, self._answer([rows[i] for i in places], k, exclude_seen), strict=True):
                answers[place] = answer
        return [(list(items), list(scores)) for items, scores in answers]

    @torch.inference_mode()
    def _answer(self, rows: list[Any], k: int, exclude_seen: bool) -> list[Row]:
        device = next(iter(self.model.state_dict().values())).device
        histories = Ragged.from_rows(rows)
        width = min(int(histories.lengths.max()), int(self.model.max_seq_length))  # type: ignore[arg-type]  # a number on every zoo model
        item_ids = torch.from_numpy(histories.pad(width)).to(device)  # (B, L)
        seen = torch.from_numpy(histories.pad(None if exclude_seen else 0)).to(device)  # (B, E), E is 0 if not
        scores = mask_scores(catalogue_scores(self.model, item_ids), seen)  # (B, V + 1)
        indices, values = top_k(scores, min(k, len(self.catalogue.items)))  # (B, K)
        left = (values > float("-inf")).sum(dim=1).tolist()
        return [
            (self.catalogue.items.raw(row[:n]), best[:n])
            for row, best, n in zip(indices.tolist(), values.tolist(), left, strict=True)
        ]

    def _cold_start(self, k: int) -> Row:
        best = self.catalogue.items.raw(self.catalogue.cold_start[:k])
        return best, [1 / rank for rank in range(1, len(best) + 1)]

"""From windows of training, in which every slot has a target, to pairs of a history and its next item."""

import torch
from torch import Tensor

from genrec.histories import PAD


def pairs_of(batch: dict[str, Tensor], most: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The targets of a batch, each with the slots of its row up to the event before it.

    Args:
        batch: ``item_ids`` int64 (B, L), left-padded with 0; ``targets`` int64 (B, L), the event after each slot, 0 where
            there is none; where users are known, ``users`` int64 (B,).
        most: where there are more targets, so many are drawn, all alike likely, by torch's generator; None for all.

    Returns:
        Histories int64 (N, L), left-padded; targets int64 (N,); users int64 (N,), 0 where they are not known.

    >>> pairs_of({"item_ids": torch.tensor([[0, 5, 6]]), "targets": torch.tensor([[0, 6, 7]])})[:2]
    (tensor([[0, 0, 5],
            [0, 5, 6]]), tensor([6, 7]))
    """
    rows, slots = (batch["targets"] != PAD).nonzero(as_tuple=True)  # (N,)
    if most is not None and len(rows) > most:
        drawn = torch.randperm(len(rows), device=rows.device)[:most]
        rows, slots = rows[drawn], slots[drawn]
    length = batch["item_ids"].shape[1]
    places = torch.arange(length, device=slots.device) + (slots + 1 - length).unsqueeze(1)  # (N, L)
    histories = batch["item_ids"][rows].gather(1, places.clamp(min=0)).masked_fill(places < 0, PAD)
    users = batch["users"][rows] if "users" in batch else torch.zeros_like(rows)
    return histories, batch["targets"][rows, slots], users


def of_like_length(histories: Tensor) -> list[tuple[Tensor, int]]:
    """Rows in parts of like length, so that little padding is computed: one part for each five slots.

    Args:
        histories: int64 (N, L), left-padded with 0.

    Returns:
        For each part its rows, and the length of the longest of them.

    >>> of_like_length(torch.tensor([[0, 0, 0, 0, 0, 0, 0, 0, 0, 4], [1, 2, 3, 4, 5, 6, 7, 8, 9, 8]]))
    [(tensor([0]), 1), (tensor([1]), 10)]
    """
    lengths, order = (histories != PAD).sum(dim=1).sort()  # (N,)
    count = max(1, histories.shape[1] // 5)
    longest = [int(part[-1:].sum()) for part in lengths.chunk(count)]
    return list(zip(order.chunk(count), longest, strict=True))

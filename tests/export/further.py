"""A small model that reads times and users, with its owner's own path, and ways to get that path wrong. No training in here."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genrec.histories import RawId, user_index
from genrec_export import Exported, export_recommender

LENGTH, WIDTH, USERS = 4, 6, 5
ITEM_IDS = sorted(f"tune {number}" for number in range(23))
V = len(ITEM_IDS)
LIMITS = (2, 60, 86_400, 10**8)  # seconds: where an event is so much older that another weight holds
HISTORIES: list[list[RawId]] = [
    [ITEM_IDS[(5 * row + step * step) % V] for step in range(1 + row % 9)] for row in range(30)
]
HISTORIES[7][2] = HISTORIES[8][-1] = "gone"  # the catalogue lacks it
TIMES = [
    np.cumsum(np.random.default_rng(row).choice([0, 1, 50, 3000, 10**6, 10**9], len(history))).tolist()
    for row, history in enumerate(HISTORIES)
]
USER_IDS: list[RawId | None] = [None if row % 4 == 1 else f"user {row}" for row in range(30)]

Answers = list[tuple[list[RawId], list[float]]]
Reference = Callable[..., Answers]


class Ageing(nn.Module):
    """A left-padded history as a sum of item vectors, each weighed by how long ago it was, and the user's own vector."""

    limits: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.items = nn.Embedding(V + 1, WIDTH)
        self.weight = nn.Embedding(len(LIMITS) + 1, 1)
        self.tastes = nn.Embedding(USERS + 1, WIDTH)
        self.register_buffer("limits", torch.tensor(LIMITS))

    def forward(self, items: Tensor, timestamps: Tensor, request_time: Tensor, users: Tensor) -> Tensor:
        age = request_time.unsqueeze(1) - timestamps  # (B, L), int64
        weight = self.weight(torch.bucketize(age, self.limits, right=True)) * (items != 0).unsqueeze(2)  # (B, L, 1)
        return torch.tanh((self.items(items) * weight).sum(dim=1) + self.tastes(users))

    def without_requests(self, items: Tensor, timestamps: Tensor) -> Tensor:
        """As if every answer were wanted at the newest event's time, by nobody known."""
        return self(items, timestamps, timestamps[:, -1], torch.zeros_like(items[:, 0]))


Read = tuple[
    list[int], list[int], int, int
]  # numbers and times of the newest known events, the request's time, the token


def read_right(history: Sequence[RawId], times: Sequence[int], request_time: int, user: RawId | None) -> Read:
    """What the model is to see of one request."""
    known = [(ITEM_IDS.index(item) + 1, time) for item, time in zip(history, times, strict=True) if item in ITEM_IDS]
    numbers, seconds = zip(*known[-LENGTH:], strict=True)
    return list(numbers), list(seconds), request_time, user_index(user, USERS)


def reference_of(net: Ageing, read: Callable[..., Read] = read_right, k: int = V) -> Reference:
    """The owner's path; ``read`` says what the model sees."""

    def reference(
        histories: Sequence[Sequence[RawId]],
        timestamps: Sequence[Sequence[int]],
        request_time: Sequence[int],
        users: Sequence[RawId | None],
    ) -> Answers:
        answers: Answers = []
        for history, times, now, user in zip(histories, timestamps, request_time, users, strict=True):
            numbers, seconds, asked, token = read(history, times, now, user)
            with torch.no_grad():
                state = net(
                    *(torch.tensor([values]) for values in (numbers, seconds)),
                    torch.tensor([asked]),
                    torch.tensor([token]),
                )
                scores = (state @ net.items.weight[1:].T)[0].tolist()
            free = [place for place in range(V) if ITEM_IDS[place] not in history]
            best = sorted(free, key=lambda place: -scores[place])[:k]
            answers.append(([ITEM_IDS[place] for place in best], [scores[place] for place in best]))
        return answers

    return reference


def export_ageing(out: Path, **options: Any) -> Exported:
    """Exports an ``Ageing``, right in all but what ``options`` change."""
    net = options.pop("net", None) or Ageing().eval()
    arguments: dict[str, Any] = {
        "encode": net,
        "item_vectors": net.items.weight,
        "item_ids": ITEM_IDS,
        "max_seq_length": LENGTH,
        "reference": reference_of(net),
        "histories": HISTORIES,
        "timestamps": TIMES,
        "users": USER_IDS,
        "num_users": USERS,
        "k_max": V,
        "out": out,
    }
    return export_recommender(**(arguments | options))

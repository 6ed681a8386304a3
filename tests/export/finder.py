"""A small model that answers with items instead of states, with its owner's own path. No training in here."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genrec.histories import RawId, user_index

LENGTH, WIDTH, USERS, K = 4, 6, 5, 9
ITEM_IDS = [7 * number for number in range(21)]
V = len(ITEM_IDS)
HISTORIES: list[list[RawId]] = [
    [ITEM_IDS[(4 * row + step * step) % V] for step in range(1 + row % 9)] for row in range(24)
]
USER_IDS: list[RawId | None] = [None if row % 3 == 0 else row for row in range(24)]


class Finder(nn.Module):
    """It finds the best items by looking at all; in nothing but its manner of being asked is it a search."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.items = nn.Embedding(V + 1, WIDTH)
        self.tastes = nn.Embedding(USERS + 1, WIDTH)

    def log_probs(self, item_ids: Tensor, users: Tensor) -> Tensor:
        weight = 0.5 ** torch.arange(item_ids.shape[1] - 1, -1, -1) * (item_ids != 0)  # (B, L)
        state = torch.tanh((self.items(item_ids) * weight.unsqueeze(2)).sum(dim=1) + self.tastes(users))
        return torch.log_softmax(state @ self.items.weight[1:].T, dim=1)  # (B, V)

    def forward(self, item_ids: Tensor, exclude: Tensor, available: Tensor, users: Tensor) -> tuple[Tensor, Tensor]:
        offered = available.expand(item_ids.shape[0], -1).scatter(1, exclude, False)[:, 1:]  # (B, V)
        scores, places = self.log_probs(item_ids, users).masked_fill(~offered, -torch.inf).topk(K, dim=1)
        return (places + 1).masked_fill(scores == -torch.inf, 0), scores

    def score(self, item_ids: Tensor, candidates: Tensor, users: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(self.log_probs(item_ids, users), (1, 0))  # (B, V + 1)
        return padded.gather(1, candidates)

    def score_twice(self, item_ids: Tensor, candidates: Tensor, users: Tensor) -> Tensor:
        return 2 * self.score(item_ids, candidates, users)

    def nobodys(self, item_ids: Tensor, candidates: Tensor) -> Tensor:
        return self.score(item_ids, candidates, torch.zeros_like(item_ids[:, 0]))


def reference_of(net: Finder, side: str = "left", *, seen: bool = False) -> Any:
    """The owner's path."""

    def reference(histories: Sequence[Sequence[RawId]], users: Sequence[RawId | None]) -> Any:
        answers = []
        for history, user in zip(histories, users, strict=True):
            numbers = [ITEM_IDS.index(item) + 1 for item in history]  # type: ignore[arg-type]  # ids of either kind
            window = numbers[-LENGTH:] if side == "left" else numbers[:LENGTH]
            with torch.no_grad():
                scores = net.log_probs(torch.tensor([window]), torch.tensor([user_index(user, USERS)]))[0].tolist()
            free = [place for place in range(V) if seen or place + 1 not in numbers]
            best = sorted(free, key=lambda place: -scores[place])[:K]
            answers.append(([ITEM_IDS[place] for place in best], [scores[place] for place in best]))
        return answers

    return reference

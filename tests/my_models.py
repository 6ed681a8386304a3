"""Three models of other makes, as docs/own-model.md exports them, with their owners' own ways to predict. No genrec in here."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

LENGTH = 8
item_ids = [f"sku-{number % 41:02d}" for number in range(7, 7 + 41 * 18, 18)]  # 41 items, in no order
histories = [[item_ids[(5 * user + 3 * step * step) % 41] for step in range(1 + user % 19)] for user in range(60)]

Answers = list[tuple[list[str], list[float]]]
Predict = Callable[[Sequence[Sequence[str]]], Answers]


class WindowNet(nn.Module):
    """Positions counted from the start of a left-padded window: the padding is part of what the model learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(42, 8, padding_idx=0)
        self.position = nn.Embedding(LENGTH, 8)
        self.mix = nn.Linear(8, 8)

    def forward(self, items: Tensor) -> Tensor:
        x = self.items(items) + self.position(torch.arange(items.shape[1]))
        return (torch.tanh(self.mix(x)) * (items != 0).unsqueeze(-1)).sum(dim=1)


class RightNet(nn.Module):
    """torch's own encoder over a right-padded history; the vector is that of the last real position."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(42, 8, padding_idx=0)
        self.position = nn.Embedding(LENGTH, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)

    def user_vector(self, items: Tensor) -> Tensor:
        x = self.items(items) + self.position.weight[: items.shape[1]]
        x = self.encoder(x, src_key_padding_mask=items == 0)
        last = (items != 0).sum(dim=1) - 1
        return x[torch.arange(items.shape[0]), last]


class GRUNet(nn.Module):
    """A GRU over a left-padded window, with a head of its own: a linear layer with a bias, one column an item."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(42, 8, padding_idx=0)
        self.gru = nn.GRU(8, 12, batch_first=True)
        self.head = nn.Linear(12, 41)

    def last_state(self, items: Tensor) -> Tensor:
        states, _ = self.gru(self.items(items))
        return states[:, -1]


def predictor(scores_of: Callable[[Tensor], Tensor], padding: str, k: int = 20) -> Predict:
    """How the owner of a model serves it: number, pad to the window, score, leave out what was bought, rank.

    ``scores_of`` gives (1, 41) scores, in the order of ``item_ids``, of (1, LENGTH) numbers 1..41, 0 for padding.
    """
    number = {item: i for i, item in enumerate(item_ids, start=1)}

    def predict(rows: Sequence[Sequence[str]]) -> Answers:
        answers = []
        for row in rows:
            newest = [number[item] for item in row[-LENGTH:]]
            zeros = [0] * (LENGTH - len(newest))
            window = torch.tensor([zeros + newest if padding == "left" else newest + zeros])
            with torch.no_grad():
                scores = scores_of(window)[0].tolist()
            free = [i for i in range(41) if item_ids[i] not in row]
            best = sorted(free, key=lambda i: -scores[i])[:k]
            answers.append(([item_ids[i] for i in best], [scores[i] for i in best]))
        return answers

    return predict


def predict_window(net: WindowNet) -> Predict:
    return predictor(lambda items: net(items) @ net.items.weight[1:].T, "left")


def predict_right(net: RightNet) -> Predict:
    return predictor(lambda items: net.user_vector(items) @ net.items.weight[1:].T, "right")


def predict_gru(net: GRUNet) -> Predict:
    return predictor(lambda items: net.head(net.last_state(items)), "left")

"""A user's own code, as the README imports it: a right-padded encoder that knows nothing of genrec, and how it predicts."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

LENGTH = 20
item_ids = [f"SKU{number:03d}" for number in range(1, 61)]
histories = [[item_ids[(7 * user + 3 * step * step) % 60] for step in range(1 + user % 30)] for user in range(90)]

Answers = list[tuple[list[str], list[float]]]


class Net(nn.Module):
    """Embeds, encodes with torch's own encoder, and takes the last real position."""

    def __init__(self, num_items: int) -> None:
        super().__init__()
        self.item_embedding = nn.Embedding(num_items + 1, 16, padding_idx=0)
        self.position = nn.Embedding(LENGTH, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def user_vector(self, items: Tensor) -> Tensor:
        padded = items == 0
        x = self.item_embedding(items) + self.position.weight[: items.shape[1]]
        x = self.encoder(x, src_key_padding_mask=padded & ~padded.all(dim=1, keepdim=True))
        last = ((~padded).sum(dim=1) - 1).clamp(min=0)
        return x[torch.arange(x.shape[0]), last]


def make_predict(net: Net, k: int = 60) -> Callable[[Sequence[Sequence[str]]], Answers]:
    """The way this user's own service predicts."""
    number = {item: i for i, item in enumerate(item_ids, start=1)}

    def predict(rows: Sequence[Sequence[str]]) -> Answers:
        answers = []
        for row in rows:
            newest = [number[item] for item in row[-LENGTH:]]
            items = torch.tensor([newest + [0] * (LENGTH - len(newest))])
            with torch.no_grad():
                scores = (net.user_vector(items) @ net.item_embedding.weight.T)[0]
            scores[[0, *{number[item] for item in row}]] = -torch.inf
            best = sorted(range(1, 61), key=lambda i: (-scores[i].item(), i))[: min(k, 60 - len(set(row)))]
            answers.append(([item_ids[i - 1] for i in best], [scores[i].item() for i in best]))
        return answers

    return predict


torch.manual_seed(0)
net = Net(len(item_ids)).eval()
predict = make_predict(net)

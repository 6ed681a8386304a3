"""A TIGER small enough to try everything on, with items that share codes, and histories for it."""

from typing import Any

import torch
from torch import Tensor

from genrec_models.beam import BeamSearch
from genrec_models.tiger import TIGER
from tests.models.slow_tiger import SlowTIGER

V, C, L, USERS = 60, 7, 5, 3
CLOSE = {"atol": 1e-4, "rtol": 0.0}  # log probabilities of about -10, float32 through eight products
SETTINGS: dict[str, Any] = {
    "embedding_dim": 8,
    "num_heads": 2,
    "head_dim": 3,
    "ff_dim": 10,
    "codebook_size": C,
    "num_users": USERS,
    "max_seq_length": L,
}
NOTHING = torch.zeros(1, 0, dtype=torch.int64)
ALL = torch.ones(V + 1, dtype=torch.bool)


def colliding_codes() -> Tensor:
    """Three codes drawn from few, so that items share them, and a fourth that tells those apart."""
    codes = torch.randint(0, 4, (V + 1, 4), generator=torch.Generator().manual_seed(0))
    met: dict[tuple[int, ...], int] = {}
    for row in codes[1:]:
        prefix = tuple(row[:3].tolist())
        row[3] = met[prefix] = met.get(prefix, -1) + 1
    assert max(met.values()) >= 2
    return codes


def tiger(num_layers: int = 2, **settings: Any) -> TIGER:
    """Weights large enough that a mistake would show."""
    torch.manual_seed(0)
    model = TIGER(V, num_layers=num_layers, **(SETTINGS | settings)).eval()
    model.set_codes(colliding_codes())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    return model


def slow(model: TIGER) -> SlowTIGER:
    return SlowTIGER({name: tensor.numpy() for name, tensor in model.state_dict().items()}, model.config)


def histories(count: int, seed: int = 0) -> Tensor:
    """Rows of 0 to L items, left-padded."""
    random = torch.Generator().manual_seed(seed)
    items = torch.randint(1, V + 1, (count, L), generator=random)
    return items * (torch.arange(L) >= torch.randint(0, L + 1, (count, 1), generator=random))


def real(row: Tensor) -> list[int]:
    return [item for item in row.tolist() if item]


@torch.no_grad()
def best(search: BeamSearch, item_ids: Tensor, exclude: Tensor = NOTHING, available: Tensor = ALL) -> list[list[int]]:
    items: list[list[int]] = search(item_ids, exclude.expand(len(item_ids), -1), available)[0].tolist()
    return items

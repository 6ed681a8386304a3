"""A shop small enough to train on in a second, and the smallest SASRec."""

from collections.abc import Callable

import pytest
import torch

from genrec.data import Split, leave_one_out, make_shop
from genrec_models import SASRec


@pytest.fixture(scope="session")
def split() -> Split:
    """90 shoppers, about 40 items."""
    return leave_one_out(make_shop(users=90, items=40, categories=4, events=(5, 14)).data)


@pytest.fixture
def new_model(split: Split) -> Callable[[], SASRec]:
    """Makes the same SASRec, with dropout, as often as it is called."""

    def make() -> SASRec:
        torch.manual_seed(7)
        return SASRec(len(split.data.items), embedding_dim=8, num_heads=2, num_layers=1, dropout=0.2, max_seq_length=5)

    return make

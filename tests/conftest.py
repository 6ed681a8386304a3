"""What several test files need, made once a session."""

import numpy as np
import pytest
import torch

from genrec.histories import Catalogue, ItemIds
from genrec_export import export_recommender
from genrec_models import SASRec, TorchRecommender
from tiny import ITEMS, MAX_SEQ_LENGTH, Tiny, make_histories


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """See ``Tiny``; do not change the files of its bundle, copy them."""
    torch.manual_seed(3)
    model = SASRec(len(ITEMS), embedding_dim=12, num_heads=3, num_layers=2, max_seq_length=MAX_SEQ_LENGTH).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    catalogue = Catalogue(ItemIds(ITEMS), np.arange(len(ITEMS), 0, -1))
    torch_path = TorchRecommender(model, catalogue)
    histories = make_histories(ITEMS, 40, 14)
    exported = export_recommender(
        encode=model.user_state,
        item_vectors=model.item_vectors(),
        item_ids=ITEMS,
        max_seq_length=MAX_SEQ_LENGTH,
        reference=lambda rows: torch_path.recommend(rows, 20),
        histories=histories,
        out=tmp_path_factory.mktemp("tiny") / "store",
        k_max=20,
        cold_start=catalogue.items.raw(catalogue.cold_start),
        titles={item: f"Title of {item}" for item in ITEMS},
        name="sasrec",
    )
    return Tiny(model, torch_path, exported, histories)

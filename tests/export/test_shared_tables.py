"""A table whose first rows score is in the bundle once, though the encoder looks up what stands below them as well."""

from pathlib import Path

import torch

from genrec.histories import Catalogue, ItemIds
from genrec_export import export_recommender
from genrec_export.foreign import serving_of
from genrec_models import BERT4Rec, TorchRecommender
from genrec_runtime.bundle import Bundle
from recent import large
from tiny import ITEMS, MAX_SEQ_LENGTH, make_histories

V, D = len(ITEMS), 8


def test_the_row_of_the_mask_costs_no_second_table(tmp_path: Path) -> None:
    model = large(BERT4Rec(V, embedding_dim=D, num_layers=1, max_seq_length=MAX_SEQ_LENGTH)).eval()
    catalogue = Catalogue(ItemIds(ITEMS), torch.arange(1, V + 1).numpy())
    exported = export_recommender(
        encode=model.user_state,
        item_vectors=model.item_vectors(),
        item_ids=ITEMS,
        max_seq_length=MAX_SEQ_LENGTH,
        reference=lambda rows: TorchRecommender(model, catalogue).recommend(rows, V),
        histories=make_histories(ITEMS, 40, 14),
        out=tmp_path / "store",
    )
    weights = [weight for found in Bundle.open(exported.path).manifest.weights.values() for weight in found]
    assert [weight.shape for weight in weights if weight.shape[0] >= V] == [(V + 2, D)]


def test_other_views_of_a_parameter_are_taken_as_they_are() -> None:
    model = BERT4Rec(V, embedding_dim=D, num_layers=1, max_seq_length=MAX_SEQ_LENGTH).eval()
    shifted = model.encoder.embedding.weight[1:]  # begins at the first item, not at padding
    serving = serving_of(
        model.user_state,
        shifted,
        None,
        ITEMS,
        ItemIds(ITEMS),
        first_item=1,
        pad_index=0,
        max_seq_length=MAX_SEQ_LENGTH,
        k_max=5,
    )
    assert serving.table is not None
    torch.testing.assert_close(serving.table, shifted.detach(), rtol=0, atol=0)
    assert not isinstance(serving.table, torch.nn.Parameter)

"""SASRec: what it may see, what its loss counts, and that it learns."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from genrec.histories import Ragged
from genrec_models import SASRec, SASRecConfig

V, D, L = 11, 6, 9


@pytest.fixture
def model() -> SASRec:
    """Weights large enough that a mistake would show."""
    torch.manual_seed(0)
    model = SASRec(V, embedding_dim=D, num_heads=3, num_layers=2, dropout=0.3, max_seq_length=L).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
        model.item_vectors()[0] = 0
    return model


def batch(rows: list[list[int]]) -> dict[str, Tensor]:
    """Inputs and next events of left-padded rows."""
    full = torch.tensor(rows)
    item_ids = full[:, :-1]
    return {"item_ids": item_ids, "targets": torch.where(item_ids == 0, 0, full[:, 1:])}


def test_extra_padding_changes_nothing(model: SASRec) -> None:
    short = torch.tensor([[3, 7, 2], [0, 5, 1]])
    padded = torch.nn.functional.pad(short, (L - 3, 0))
    torch.testing.assert_close(model.user_state(padded), model.user_state(short), rtol=0, atol=1e-6)
    torch.testing.assert_close(
        model.loss(batch([[0, 0, 3, 7, 2], [0, 0, 0, 5, 1]]))["loss"], model.loss(batch([[3, 7, 2], [0, 5, 1]]))["loss"]
    )


def test_the_newest_event_counts_most_and_all_of_the_window_counts(model: SASRec) -> None:
    history = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8, 9]])
    state = model.user_state(history)
    for slot in range(L):
        changed = history.clone()
        changed[0, slot] = 10
        assert not torch.allclose(model.user_state(changed), state)


def test_a_history_longer_than_the_window_is_refused(model: SASRec) -> None:
    with pytest.raises(ValueError, match=str(L)):
        model.user_state(torch.ones(1, L + 1, dtype=torch.int64))


def test_the_loss_is_the_mean_over_real_positions(model: SASRec) -> None:
    parts = [[0, 0, 0, 4, 5], [0, 0, 7, 2, 9]]
    both = model.loss(batch(parts))["loss"]
    one, two = (model.loss(batch([part]))["loss"] for part in parts)
    torch.testing.assert_close(both, (1 * one + 2 * two) / 3)


def test_the_loss_is_the_cross_entropy_of_the_served_scores(model: SASRec) -> None:
    scores = model.user_state(torch.tensor([[4, 2]])) @ model.item_vectors()[1:].T  # (1, V)
    expected = -scores.log_softmax(dim=1)[0, 8]  # item 9
    last = model.loss({"item_ids": torch.tensor([[4, 2]]), "targets": torch.tensor([[0, 9]])})["loss"]
    torch.testing.assert_close(last, expected)


def test_an_untrained_model_knows_nothing() -> None:
    torch.manual_seed(0)
    for loss in ("cross_entropy", "sampled_softmax"):
        model = SASRec(V, embedding_dim=D, loss=loss, num_negatives=500)  # type: ignore[arg-type]  # a plain string
        assert model.loss(batch([[1, 2, 3, 4]]))["loss"].item() == pytest.approx(math.log(V), abs=0.1)  # small weights


def test_a_sample_of_negatives_stands_for_the_catalogue(model: SASRec) -> None:
    sampled = SASRec(
        V, embedding_dim=D, num_heads=3, max_seq_length=L, loss="sampled_softmax", num_negatives=20_000
    ).eval()
    sampled.load_state_dict(model.state_dict())
    rows = batch([[1, 5, 3, 4], [0, 8, 2, 6]])
    torch.testing.assert_close(sampled.loss(rows)["loss"], model.loss(rows)["loss"], rtol=0.02, atol=0)  # 20,000 draws


def test_losses_of_old_are_what_they_were(model: SASRec) -> None:
    rows = batch([[1, 5, 3, 4], [0, 8, 2, 6]])
    wanted = rows["targets"] != 0
    states, targets = model.encoder(rows["item_ids"], rows["item_ids"] != 0)[wanted], rows["targets"][wanted]
    scores = states @ model.item_vectors()[1:].T
    assert model.loss(rows)["loss"] == F.cross_entropy(scores, targets - 1, reduction="sum") / 5
    sampled = SASRec(V, embedding_dim=D, num_heads=3, max_seq_length=L, loss="sampled_softmax", num_negatives=7).eval()
    sampled.load_state_dict(model.state_dict())
    torch.manual_seed(5)
    drawn = torch.randint(1, V + 1, (7,))
    others = drawn != targets.unsqueeze(1)  # (5, 7)
    logits = scores[:, drawn - 1] + math.log(V - 1) - others.sum(dim=1, keepdim=True).log()
    own = scores.gather(1, targets.unsqueeze(1) - 1)
    logits = torch.cat([own, logits.masked_fill(~others, -math.inf)], dim=1)
    torch.manual_seed(5)
    torch.testing.assert_close(sampled.loss(rows)["loss"], -logits.log_softmax(dim=1)[:, 0].mean())


def test_negatives_by_popularity_stand_for_the_catalogue_too(model: SASRec) -> None:
    settings = {"loss": "sampled_softmax", "num_negatives": 20_000, "negatives": "popularity"}
    sampled = SASRec(V, embedding_dim=D, num_heads=3, max_seq_length=L, **settings).eval()  # type: ignore[arg-type]
    sampled.load_state_dict(model.state_dict())
    rows = batch([[1, 5, 3, 4], [0, 8, 2, 6]])
    with pytest.raises(RuntimeError, match=r"call prepare\(histories\) first"):
        sampled.loss(rows)
    sampled.prepare(Ragged.from_rows([[1] * 9, [2, 3, 4, 4, 4], [11]]))
    torch.testing.assert_close(sampled.loss(rows)["loss"], model.loss(rows)["loss"], rtol=0.02, atol=0)  # 20,000 draws


def test_gbce_of_an_untrained_model_is_that_of_scores_of_zero() -> None:
    torch.manual_seed(0)
    model = SASRec(V, embedding_dim=D, loss="gbce", num_negatives=5, gbce_t=0.0)
    model.prepare(Ragged.from_rows([[1]]))  # needs nothing of it
    assert model.loss(batch([[1, 2, 3, 4]]))["loss"].item() == pytest.approx(math.log(2), abs=0.05)  # small weights


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "cross_entropy"},
        {"loss": "sampled_softmax"},
        {"loss": "sampled_softmax", "negatives": "popularity"},
        {"loss": "gbce"},
    ],
    ids=["cross_entropy", "sampled_softmax", "popularity", "gbce"],
)
def test_every_loss_teaches_what_comes_next(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = SASRec(V, embedding_dim=16, num_layers=1, dropout=0.0, max_seq_length=L, num_negatives=30, **settings)
    rows = [[(start + step) % V + 1 for step in range(6)] for start in range(V)]
    model.prepare(Ragged.from_rows(rows))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(120):
        optimizer.zero_grad()
        model.loss(batch(rows))["loss"].backward()
        optimizer.step()
    newest = torch.arange(1, V + 1)
    scores = model.eval().user_state(newest.unsqueeze(1)) @ model.item_vectors()[1:].T  # (V, V)
    rank = 1 + (scores > scores.gather(1, (newest % V).unsqueeze(1))).sum(dim=1)  # column 0 is item 1
    assert rank.double().mean() < 3  # where chance gives (1 + V) / 2 = 6, and gBCE needs longest


def test_weights_start_small_and_norms_neutral() -> None:
    torch.manual_seed(0)
    model = SASRec(500, embedding_dim=16)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.2), name
        elif name.endswith("bias"):
            assert torch.all(parameter == 0), name
        else:
            assert torch.all(parameter == 1), name
    assert torch.all(model.item_vectors()[0] == 0)


def test_padding_s_vector_stays_zero_in_training() -> None:
    torch.manual_seed(0)
    model = SASRec(V, embedding_dim=D)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model.loss(batch([[0, 1, 2, 3]]))["loss"].backward()
        optimizer.step()
    assert torch.all(model.item_vectors()[0] == 0)


def test_the_settings_rebuild_the_model() -> None:
    config = SASRecConfig(
        V,
        embedding_dim=4,
        num_heads=1,
        num_layers=1,
        dropout=0.1,
        max_seq_length=7,
        loss="sampled_softmax",
        num_negatives=3,
        negatives="popularity",
        popularity_power=0.5,
        gbce_t=0.9,
    )
    model = SASRec(**vars(config))
    assert model.config == config
    model.prepare(Ragged.from_rows([[1, 1, 1]]))
    assert model.objective.shares[1] / model.objective.shares[2] == (3 + 1) ** 0.5 / (0 + 1) ** 0.5
    assert (model.num_items, model.max_seq_length) == (V, 7)


def test_settings_and_weights_of_older_runs_still_fit() -> None:
    old = {"num_items": V, "embedding_dim": D, "num_heads": 2, "num_layers": 2, "dropout": 0.2, "max_seq_length": 50}
    model = SASRec(**old, loss="sampled_softmax", num_negatives=1024)  # type: ignore[arg-type]
    assert (model.config.negatives, model.config.loss) == ("uniform", "sampled_softmax")
    assert all(name.startswith("encoder.") for name in model.state_dict())


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"loss \('bce'\) must be 'cross_entropy', 'sampled_softmax' or 'gbce'"):
        SASRec(V, loss="bce")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match=r"num_negatives \(0\) must be at least 1"):
        SASRec(V, num_negatives=0)
    with pytest.raises(ValueError, match="'popularity' belongs to loss 'sampled_softmax', not to 'gbce'"):
        SASRec(V, loss="gbce", negatives="popularity")
    with pytest.raises(ValueError, match="must be a multiple of num_heads"):
        SASRec(V, embedding_dim=5, num_heads=2)

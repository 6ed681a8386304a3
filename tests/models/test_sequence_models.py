"""What holds for every trained model of the zoo: order counts, padding does not, and nobody sees what is to be predicted."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genrec.modules import catalogue_scores, mask_scores, target_ranks
from genrec_models import HSTU, BERT4Rec, GRU4Rec, SASRec

V, D, L = 11, 6, 9
DAY = 86_400

MODELS: dict[str, Callable[[], Any]] = {
    "sasrec": lambda: SASRec(V, embedding_dim=D, num_heads=3, max_seq_length=L),
    "gru4rec": lambda: GRU4Rec(V, embedding_dim=D, hidden_dim=5, num_layers=2, max_seq_length=L),
    "bert4rec": lambda: BERT4Rec(V, embedding_dim=D, num_heads=3, max_seq_length=L),
    "hstu": lambda: HSTU(V, embedding_dim=D, num_heads=2, head_dim=4, max_seq_length=L),
    "hstu without times": lambda: HSTU(V, embedding_dim=D, num_heads=2, head_dim=4, max_seq_length=L, use_time=False),
}
EVERY = pytest.mark.parametrize("name", MODELS)
CAUSAL = pytest.mark.parametrize("name", [name for name in MODELS if name != "bert4rec"])


def make(name: str) -> Any:
    """A model with weights large enough that a mistake would show, in eval mode."""
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
        for part in model.modules():
            if isinstance(part, nn.Embedding) and part.padding_idx is not None:
                part.weight[part.padding_idx] = 0
    return model


def inputs(model: Any, item_ids: Tensor) -> dict[str, Tensor]:
    """A batch, with times a day apart and more where the model reads them; padding's are 0."""
    if "timestamps" not in getattr(model, "reads", ()):
        return {"item_ids": item_ids}
    slots = torch.arange(item_ids.shape[1], 0, -1)
    times = 1_700_000_000 - DAY * slots * slots
    return {"item_ids": item_ids, "timestamps": torch.where(item_ids == 0, 0, times)}


def state(model: Any, rows: list[list[int]]) -> Tensor:
    return model.user_state(**inputs(model, torch.tensor(rows)))  # type: ignore[no-any-return]


def loss(model: Any, rows: list[list[int]]) -> Tensor:
    """The loss of left-padded rows, whose last event is the last target."""
    full = torch.tensor(rows)
    batch = inputs(model, full[:, :-1])
    torch.manual_seed(0)
    return model.loss({**batch, "targets": torch.where(full[:, :-1] == 0, 0, full[:, 1:])})["loss"]  # type: ignore[no-any-return]


@EVERY
def test_extra_padding_changes_nothing(name: str) -> None:
    model = make(name)
    short, padded = [[3, 7, 2], [0, 5, 1]], [[0] * 6 + [3, 7, 2], [0] * 6 + [0, 5, 1]]
    torch.testing.assert_close(state(model, padded), state(model, short), rtol=0, atol=1e-5)  # sums in another order
    if name != "bert4rec":  # which draws what it masks
        torch.testing.assert_close(
            loss(model, [[0, 0, 3, 7, 2], [0, 0, 0, 5, 1]]), loss(model, [[3, 7, 2], [0, 5, 1]]), rtol=1e-5, atol=1e-5
        )


@EVERY
def test_a_row_does_not_depend_on_its_neighbours(name: str) -> None:
    model = make(name)
    together = state(model, [[0, 0, 4, 9], [2, 6, 1, 3]])
    torch.testing.assert_close(together[1:], state(model, [[2, 6, 1, 3]]), rtol=0, atol=1e-5)
    torch.testing.assert_close(together[:1], state(model, [[4, 9]]), rtol=0, atol=1e-5)


@EVERY
def test_the_order_of_the_history_counts(name: str) -> None:
    model = make(name)
    assert (state(model, [[3, 7, 2]]) - state(model, [[7, 3, 2]])).abs().max() > 1e-3


@EVERY
def test_every_event_of_the_window_counts(name: str) -> None:
    model = make(name)
    history = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    for slot in range(L):
        changed = [*history[:slot], 10, *history[slot + 1 :]]
        assert not torch.allclose(state(model, [changed]), state(model, [history]), rtol=0, atol=1e-7)


@CAUSAL
def test_a_later_item_never_changes_what_was_predicted_before_it(name: str) -> None:
    """The loss of the first position alone is the same whatever follows, though the model is run over all."""
    model = make(name)
    for last in (6, 8):
        full = torch.tensor([[3, 7, 2, last]])
        batch = inputs(model, full)
        targets = torch.tensor([[7, 0, 0, 0]])
        found = model.loss({**batch, "targets": targets})["loss"]
        if last == 6:
            expected = found
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@EVERY
def test_a_history_longer_than_the_window_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"has {L + 1} slots, more than max_seq_length \({L}\)"):
        state(make(name), [[1] * (L + 1)])


@pytest.mark.parametrize("name", ["sasrec", "gru4rec", "bert4rec"])  # cosines are not small in a new model
def test_the_loss_of_a_new_model_is_that_of_knowing_nothing(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().train(False)
    assert loss(model, [[1, 2, 3, 4], [0, 5, 9, 7]]).item() == pytest.approx(math.log(V), abs=0.2)  # small weights


@EVERY
def test_every_weight_is_trained(name: str) -> None:
    model = make(name)
    loss(model, [[1, 2, 3, 4, 5], [0, 6, 9, 7, 8]]).backward()
    unused = [key for key, value in model.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert unused == []


@EVERY
def test_a_model_that_scores_all_alike_ranks_by_number_alone(name: str) -> None:
    model = make(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    if name.startswith("hstu"):
        batch = inputs(model, torch.tensor([[3, 7]]))
        scores = model.user_state(**batch) @ model.item_vectors().T
    else:
        scores = catalogue_scores(model, torch.tensor([[3, 7]]))
    masked = mask_scores(scores, torch.tensor([[3, 7]]))
    assert target_ranks(masked, torch.tensor([11])).tolist() == [9]  # after the eight others that may be recommended


@EVERY
def test_a_model_comes_back_from_its_settings(name: str) -> None:
    model = make(name)
    again = type(model)(**model.arguments).eval()
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(state(again, [[3, 7, 2]]), state(model, [[3, 7, 2]]), rtol=0, atol=0)


def test_what_is_masked_is_not_seen_and_is_what_is_asked_for() -> None:
    """Of BERT4Rec in training: the encoder reads the mask in the place of the event whose loss is taken."""
    torch.manual_seed(0)
    model = BERT4Rec(V, embedding_dim=D, num_heads=3, max_seq_length=L, mask_rate=0.5, last_rate=0.5)
    read: list[Tensor] = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    events = torch.tensor([[0, 0, 3, 7, 2], [0, 9, 4, 5, 1], [8, 6, 2, 3, 7]]).repeat(40, 1)
    model.loss({"item_ids": events[:, :-1], "targets": events[:, 1:]})
    masked = read[0] == model.mask
    assert torch.equal(read[0][~masked], events[~masked])
    assert not masked[events == 0].any()
    assert masked.any(dim=1).all()
    alone = masked[:, -1] & (masked.sum(dim=1) == 1)
    assert 0.3 < alone.double().mean() < 0.8  # half of the rows, and those of the others in which it is the one drawn

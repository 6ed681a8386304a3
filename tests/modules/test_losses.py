"""Losses against plain formulas in float64, one case at a time."""

import math

import pytest
import torch
from torch import Tensor

from genrec.modules import ContrastiveLoss, SequenceLoss, VQVAELoss

B, L, V, D = 2, 3, 5, 4
CLOSE = {"atol": 1e-9, "rtol": 0.0}


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def log_share(chosen: float, others: list[float]) -> float:
    """log of the share that exp(chosen) has of exp of all."""
    return chosen - math.log(sum(map(math.exp, [chosen, *others])))


def test_vqvae_loss_is_the_weighted_sum() -> None:
    x, recon = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 5.0]])
    losses = VQVAELoss(commitment_cost=0.5, beta=3.0)(x, recon, torch.tensor(4.0), torch.tensor(7.0))
    expected = {
        "reconstruction_loss": (1**2 + 3**2) / 2,
        "commitment_loss": 4.0,
        "embedding_loss": 7.0,
        "total_loss": (1**2 + 3**2) / 2 + 0.5 * 4 + 3 * 7,
    }
    assert {name: loss.item() for name, loss in losses.items()} == expected


def test_mend_16_vqvae_loss_refuses_what_would_broadcast_and_gives_scalars() -> None:
    with pytest.raises(ValueError, match=r"x and x_recon must have one shape, got \(2, 3\) and \(2, 1\)"):
        VQVAELoss()(torch.zeros(2, 3), torch.zeros(2, 1), torch.tensor(0.0), torch.tensor(0.0))
    losses = VQVAELoss()(torch.zeros(2, 3), torch.zeros(2, 3), torch.tensor([1.0, 3.0]), torch.tensor([[2.0], [6.0]]))
    assert {name: loss.tolist() for name, loss in losses.items()} == {
        "reconstruction_loss": 0.0,
        "commitment_loss": (1 + 3) / 2,
        "embedding_loss": (2 + 6) / 2,
        "total_loss": 0.25 * (1 + 3) / 2 + 1.0 * (2 + 6) / 2,
    }


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_sequence_loss_is_the_mean_over_labels_that_count(smoothing: float) -> None:
    logits, labels = rand(B, L, V), torch.tensor([[1, -1, 4], [0, 2, -1]])
    losses = SequenceLoss(V, ignore_index=-1, label_smoothing=smoothing)(logits, labels)
    total, hits, counted = 0.0, 0, [(0, 0), (0, 2), (1, 0), (1, 1)]
    for b, i in counted:
        row, label = logits[b, i].tolist(), int(labels[b, i])
        logs = [log_share(row[c], row[:c] + row[c + 1 :]) for c in range(V)]
        total -= (1 - smoothing) * logs[label] + smoothing * sum(logs) / V
        hits += max(range(V), key=row.__getitem__) == label
    torch.testing.assert_close(losses["loss"].item(), total / len(counted), **CLOSE)
    assert losses["accuracy"].item() == hits / len(counted)


def test_mend_17_masked_labels_do_not_count() -> None:
    logits, labels = rand(B, L, V), torch.tensor([[1, 3, 4], [0, 2, 2]])
    mask = torch.tensor([[1, 0, 1], [1, 1, 0]])
    ignored = labels.masked_fill(mask == 0, -100)
    for chosen in (mask, mask.bool(), mask.double()):
        assert SequenceLoss(V)(logits, labels, chosen) == SequenceLoss(V)(logits, ignored)


@pytest.mark.parametrize("how", ["labels", "mask"])
def test_mend_17_nothing_that_counts_gives_a_loss_and_a_gradient_of_zero(how: str) -> None:
    logits, labels = rand(B, L, V).requires_grad_(), torch.zeros(B, L, dtype=torch.int64)
    mask = torch.zeros(B, L) if how == "mask" else None
    losses = SequenceLoss(V)(logits, labels if how == "mask" else labels - 100, mask)
    losses["loss"].backward()
    assert (losses["loss"].item(), losses["accuracy"].item()) == (0.0, 0.0)
    assert logits.grad is not None
    assert logits.grad.eq(0).all()


def test_mend_17_shifted_slices_work_and_wrong_shapes_do_not() -> None:
    logits, labels = rand(B, L, V), torch.tensor([[1, 3, 4], [0, 2, 2]])
    sliced = SequenceLoss(V)(logits[:, :-1], labels[:, 1:])
    assert sliced == SequenceLoss(V)(logits[:, :-1].contiguous(), labels[:, 1:].contiguous())
    with pytest.raises(ValueError, match=r"the last axis of logits \(5\) must be vocab_size \(6\)"):
        SequenceLoss(6)(logits, labels)
    with pytest.raises(ValueError, match=r"labels must be \(2, 3\) as logits say, got \(2, 2\)"):
        SequenceLoss(V)(logits, labels[:, 1:])
    with pytest.raises(ValueError, match=r"attention_mask must be \(2, 3\)"):
        SequenceLoss(V)(logits, labels, torch.ones(B, 1))
    with pytest.raises(ValueError, match=r"label_smoothing \(2.0\)"):
        SequenceLoss(V, label_smoothing=2.0)


def contrast_by_hand(anchor: Tensor, positive: Tensor, negative: Tensor, temperature: float, margin: float) -> float:
    def cosine(a: Tensor, b: Tensor) -> float:
        return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))

    logs = [
        log_share((cosine(a, p) - margin) / temperature, [cosine(a, n) / temperature for n in ns])
        for a, p, ns in zip(anchor, positive, negative, strict=True)
    ]
    return -sum(logs) / len(logs)


@pytest.mark.parametrize("negatives", [0, 1, 6])
def test_contrastive_loss_follows_the_formula(negatives: int) -> None:
    anchor, positive, negative = rand(B, D), rand(B, D, seed=1), rand(B, negatives, D, seed=2)
    loss = ContrastiveLoss(temperature=0.7)(anchor, positive, negative)
    expected = contrast_by_hand(anchor, positive, negative, temperature=0.7, margin=0.0)
    torch.testing.assert_close(loss.item(), expected, **CLOSE)


def test_mend_18_margin_counts_only_when_asked_for() -> None:
    x = rand(B, D), rand(B, D, seed=1), rand(B, 3, D, seed=2)
    plain = ContrastiveLoss()(*x)
    assert ContrastiveLoss(margin=9.0)(*x) == plain
    additive = ContrastiveLoss(margin=0.4, margin_mode="additive")(*x)
    torch.testing.assert_close(additive.item(), contrast_by_hand(*x, temperature=0.1, margin=0.4), **CLOSE)
    assert ContrastiveLoss(margin=0.0, margin_mode="additive")(*x) == plain


def test_mend_18_negatives_may_be_shared_and_mistakes_are_refused() -> None:
    anchor, positive, shared = rand(B, D), rand(B, D, seed=1), rand(3, D, seed=2)
    whole = ContrastiveLoss()(anchor, positive, shared.expand(B, 3, D))
    torch.testing.assert_close(ContrastiveLoss()(anchor, positive, shared), whole, **CLOSE)
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=r"temperature \(.*\) must be above 0"):
            ContrastiveLoss(temperature)
    with pytest.raises(ValueError, match=r"margin_mode \('soft'\)"):
        ContrastiveLoss(margin_mode="soft")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match=r"anchor and positive must both be \(batch, width\)"):
        ContrastiveLoss()(anchor, positive[:1], shared)
    for wrong in (rand(B + 1, 3, D), rand(3, D + 1), rand(D)):
        with pytest.raises(ValueError, match="negative must be"):
            ContrastiveLoss()(anchor, positive, wrong)

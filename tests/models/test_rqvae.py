"""The two tokenizers: that they learn, that they are determined, and that they come back as they were."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from genrec.modules import load, save
from genrec_models.rqvae import RQVAE, RQVAEConfig
from genrec_models.tokenizer import ResidualKMeans, Tokenizer

V, W = 90, 7
SMALL: dict[str, Any] = {"hidden_dims": [6], "code_dim": 3, "levels": 2, "num_codes": 5, "batch_size": 32, "epochs": 20}


@pytest.fixture(scope="module")
def vectors() -> Tensor:
    """Items in clusters of clusters, far from 0 and of another scale than 1."""
    random = torch.Generator().manual_seed(0)
    coarse, fine = (torch.randn(count, W, generator=random) for count in (5, 3))
    picked = torch.randint(15, (V,), generator=random)
    return 50 + 9 * (coarse[picked // 3] + 0.2 * fine[picked % 3] + 0.01 * torch.randn(V, W, generator=random))


def fitted(kind: type[Tokenizer], vectors: Tensor, seed: int = 0, **settings: Any) -> Any:
    torch.manual_seed(seed)
    make: Any = kind
    tokenizer = make(W, **settings)
    tokenizer.fit_vectors(vectors, seed)
    return tokenizer


TOKENIZERS: list[tuple[type[Tokenizer], dict[str, Any]]] = [
    (RQVAE, SMALL),
    (RQVAE, SMALL | {"gradient_path": "rotation"}),
    (ResidualKMeans, {"levels": 2, "num_codes": 5}),
]


@pytest.mark.parametrize(("kind", "settings"), TOKENIZERS, ids=["straight through", "rotation", "kmeans"])
def test_clusters_get_codes_of_their_own(kind: type[Tokenizer], settings: dict[str, Any], vectors: Tensor) -> None:
    tokenizer = fitted(kind, vectors, **settings)
    codes = tokenizer.codes(vectors)
    assert (codes.shape, codes.dtype) == ((V, 2), torch.int64)
    assert not tokenizer.training
    assert len(codes[:, 0].unique()) == 5
    residuals = tokenizer.quantiser.residuals(tokenizer.encode(vectors)).norm(dim=2).mean(dim=0)
    assert residuals[1] < 0.7 * residuals[0] < 0.7 * tokenizer.encode(vectors).norm(dim=1).mean()


@pytest.mark.parametrize(("kind", "settings"), TOKENIZERS, ids=["straight through", "rotation", "kmeans"])
def test_the_seed_determines_everything(kind: type[Tokenizer], settings: dict[str, Any], vectors: Tensor) -> None:
    first, second, other = (fitted(kind, vectors, seed, **settings) for seed in (1, 1, 2))
    assert torch.equal(first.quantiser.codebooks, second.quantiser.codebooks)
    assert not torch.equal(first.quantiser.codebooks, other.quantiser.codebooks)


@pytest.mark.parametrize(("kind", "settings"), TOKENIZERS, ids=["straight through", "rotation", "kmeans"])
def test_a_saved_tokenizer_gives_the_same_codes(
    kind: type[Tokenizer], settings: dict[str, Any], vectors: Tensor, tmp_path: Path
) -> None:
    tokenizer = fitted(kind, vectors, **settings)
    save(tokenizer, tmp_path)
    opened = load(tmp_path)
    assert isinstance(opened, kind)
    assert opened.arguments == tokenizer.arguments
    assert torch.equal(opened.codes(vectors), tokenizer.codes(vectors))


def test_items_are_coded_alike_alone_and_together(vectors: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = fitted(ResidualKMeans, vectors, num_codes=5)
    together = tokenizer.codes(vectors)
    monkeypatch.setattr("genrec_models.tokenizer.ROWS_AT_ONCE", 7)
    assert torch.equal(tokenizer.codes(vectors), together)
    assert torch.equal(tokenizer.codes(vectors[3:4]), together[3:4])


def test_standardised_vectors_have_mean_0_and_variance_1_over_all_widths(vectors: Tensor) -> None:
    tokenizer = fitted(ResidualKMeans, vectors, num_codes=5)
    scaled = tokenizer.standardise(vectors)
    torch.testing.assert_close(scaled.mean(dim=0), torch.zeros(W), atol=1e-5, rtol=0)  # float32 of numbers near 50
    assert scaled.square().mean().item() == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(scaled[0] - scaled[1], (vectors[0] - vectors[1]) * tokenizer.scale, atol=1e-5, rtol=0)


def test_training_lowers_the_reconstruction_error(vectors: Tensor) -> None:
    torch.manual_seed(0)
    model = RQVAE(W, **SMALL | {"learning_rate": 0.01, "epochs": 40})
    model.fit_scale(vectors)
    before = model.loss({"vectors": vectors})["loss"]
    model.fit_vectors(vectors)
    assert model.loss({"vectors": vectors})["reconstruction_loss"] < 0.5 * before


def test_the_loss_is_that_of_its_parts(vectors: Tensor) -> None:
    model = fitted(RQVAE, vectors, **SMALL, commitment_cost=0.5)
    losses = model.loss({"vectors": vectors})
    left = model.quantiser.residuals(model.encode(vectors)).square().mean(dim=(0, 2)).sum()
    rebuilt = model.decoder(model.quantiser(model.encode(vectors)).values)
    wanted = (rebuilt - model.standardise(vectors)).square().mean() + (0.5 + 1) * left
    torch.testing.assert_close(losses["loss"], wanted)


def test_without_codebooks_it_is_a_plain_autoencoder(vectors: Tensor) -> None:
    model = RQVAE(W, **SMALL)
    losses = model.loss({"vectors": vectors})
    assert losses["commitment_loss"] == losses["embedding_loss"] == 0
    losses["loss"].backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert model.quantiser.codebooks.grad is None
    assert all(weight.grad is not None for weight in model.encoder.parameters())


def test_every_part_gets_a_gradient_through_the_codes(vectors: Tensor) -> None:
    model = fitted(RQVAE, vectors, **SMALL)
    model.loss({"vectors": vectors})["loss"].backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name


def test_going_on_keeps_codebooks_and_scale(vectors: Tensor, tmp_path: Path) -> None:
    model = fitted(RQVAE, vectors, **SMALL)
    save(model, tmp_path)
    opened = load(tmp_path)
    assert isinstance(opened, RQVAE)
    before = opened.quantiser.codebooks.detach().clone()
    steps: list[tuple[int, int]] = []
    opened.quantiser.usage.fill_(1 / 5)  # no code is moved
    opened.config = RQVAEConfig(**opened.arguments | {"learning_rate": 1e-6, "epochs": 2})
    opened.fit_vectors(1.001 * vectors, follow=lambda step, total: steps.append((step, total)))
    assert torch.equal(opened.mean, model.mean)
    torch.testing.assert_close(opened.quantiser.codebooks, before, atol=1e-4, rtol=0)  # 6 steps of about 1e-5
    assert steps == [(step, 6) for step in range(1, 7)]  # 2 epochs of 3 steps, none of them plain


def test_steps_are_told(vectors: Tensor) -> None:
    steps: list[tuple[int, int]] = []
    model = RQVAE(W, **SMALL | {"epochs": 2, "plain_epochs": 1})
    model.fit_vectors(vectors, follow=lambda step, total: steps.append((step, total)))
    assert steps == [(step, 9) for step in range(1, 10)]  # 3 epochs of 3 steps


def test_the_settings_rebuild_the_model() -> None:
    model = RQVAE(W, **SMALL)
    assert RQVAE(**model.arguments).config == model.config
    assert model.config.hidden_dims == (6,)
    assert [layer.weight.shape for layer in model.encoder if hasattr(layer, "weight")] == [(6, W), (3, 6)]
    assert [layer.weight.shape for layer in model.decoder if hasattr(layer, "weight")] == [(6, 3), (W, 6)]


def test_what_does_not_fit_is_refused(vectors: Tensor) -> None:
    with pytest.raises(ValueError, match=r"hidden_dims\[1\] \(0\) must be at least 1"):
        RQVAE(W, hidden_dims=[3, 0])
    with pytest.raises(ValueError, match=r"epochs \(0\) must be at least 1"):
        RQVAE(W, epochs=0)
    with pytest.raises(ValueError, match=r"iterations \(0\) must be at least 1"):
        ResidualKMeans(W, iterations=0)
    with pytest.raises(ValueError, match=r"vectors must be \(items, input_dim = 7\), got \(90, 6\)"):
        RQVAE(W).fit_vectors(vectors[:, 1:])
    with pytest.raises(ValueError, match=r"vectors must be \(items, input_dim = 7\), got \(0, 7\)"):
        ResidualKMeans(W).codes(vectors[:0])

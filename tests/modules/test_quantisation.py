"""The residual quantiser and its k-means: nearest codes, gradients that reach every level, and codes that stay in use."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from genrec.modules import load, save
from genrec.modules.kmeans import kmeans, nearest_code, sample
from genrec.modules.quantisation import GradientPath, ResidualQuantiser, rotate, straight_through

B, D, LEVELS, K = 7, 5, 3, 4


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


@pytest.fixture
def quantiser() -> ResidualQuantiser:
    torch.manual_seed(0)
    return ResidualQuantiser(D, levels=LEVELS, num_codes=K)


def test_the_nearest_code_is_the_one_at_the_smallest_distance() -> None:
    vectors, codebook = normal(50, D), normal(K, D, seed=1)
    by_distance = torch.stack([((vector - codebook) ** 2).sum(dim=1).argmin() for vector in vectors])
    assert torch.equal(nearest_code(vectors, codebook), by_distance)


def test_of_equal_codes_the_first_is_taken() -> None:
    assert nearest_code(torch.ones(1, 2), torch.tensor([[5.0, 5], [1, 1], [1, 1]])).tolist() == [1]


def test_values_are_the_sum_of_the_codes_and_residuals_the_rest(quantiser: ResidualQuantiser) -> None:
    vectors = normal(B, D)
    values, codes, _, _ = quantiser(vectors)
    chosen = [quantiser.codebooks[level][codes[:, level]] for level in range(LEVELS)]
    assert codes.shape == (B, LEVELS)
    torch.testing.assert_close(values, sum(chosen))
    assert torch.equal(quantiser.codes(vectors), codes)
    residuals = quantiser.residuals(vectors)  # (B, LEVELS, D)
    for level in range(LEVELS):
        torch.testing.assert_close(residuals[:, level], vectors - sum(chosen[: level + 1]))


def test_a_level_takes_the_code_nearest_to_what_is_left() -> None:
    quantiser = ResidualQuantiser(2, levels=2, num_codes=2)
    with torch.no_grad():
        quantiser.codebooks.copy_(torch.tensor([[[4.0, 0], [0, 4]], [[1, 0], [0, 1]]]))
    # (4, 1) less (4, 0) leaves (0, 1); (1, 4) less (0, 4) leaves (1, 0)
    assert quantiser.codes(torch.tensor([[4.0, 1], [1, 4]])).tolist() == [[0, 1], [1, 0]]


def test_the_losses_are_the_mean_squared_distances_of_each_level(quantiser: ResidualQuantiser) -> None:
    vectors = normal(B, D)
    _, _, commitment, embedding = quantiser(vectors)
    expected = quantiser.residuals(vectors).square().mean(dim=(0, 2))
    torch.testing.assert_close(commitment, expected)
    torch.testing.assert_close(embedding, expected)


def test_the_commitment_of_every_level_reaches_the_vectors(quantiser: ResidualQuantiser) -> None:
    vectors = normal(B, D).requires_grad_()
    commitment = quantiser(vectors).commitment_loss
    residuals = quantiser.residuals(vectors).detach()
    for level in range(LEVELS):
        (gradient,) = torch.autograd.grad(commitment[level], vectors, retain_graph=True)
        torch.testing.assert_close(gradient, 2 * residuals[:, level] / (B * D))  # of the mean of squares
        assert gradient.abs().max() > 0.01


def test_each_loss_moves_its_own_side(quantiser: ResidualQuantiser) -> None:
    vectors = normal(B, D).requires_grad_()
    _, _, commitment, embedding = quantiser(vectors)
    commitment.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert quantiser.codebooks.grad is None
    vectors.grad = None
    embedding.sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert vectors.grad is None
    assert quantiser.codebooks.grad is not None
    assert torch.all(quantiser.codebooks.grad.abs().amax(dim=(1, 2)) > 0)


def test_straight_through_hands_the_gradient_on_unchanged() -> None:
    vectors, weights = normal(B, D).requires_grad_(), normal(B, D, seed=2)
    out = straight_through(vectors, normal(B, D, seed=1))
    torch.testing.assert_close(out, normal(B, D, seed=1))
    (out * weights).sum().backward()
    assert vectors.grad is not None
    torch.testing.assert_close(vectors.grad, weights)


def test_rotation_gives_the_quantised_value_and_turns_the_gradient_with_it() -> None:
    vectors, quantised, weights = normal(B, D).requires_grad_(), normal(B, D, seed=1), normal(B, D, seed=2)
    out = rotate(vectors, quantised)
    torch.testing.assert_close(
        out, quantised, atol=1e-5, rtol=1e-5
    )  # float32; without the scale it is off by |q| / |v|
    (out * weights).sum().backward()
    gradient = vectors.grad
    assert gradient is not None
    scale = quantised.norm(dim=1) / vectors.detach().norm(dim=1)
    # a rotation keeps lengths and angles: those to the value before are those to the value after
    torch.testing.assert_close(gradient.norm(dim=1), scale * weights.norm(dim=1))
    torch.testing.assert_close(
        torch.cosine_similarity(gradient, vectors.detach()), torch.cosine_similarity(weights, quantised)
    )


@pytest.mark.parametrize(
    ("vector", "quantised"), [([0.0, 0.0], [1.0, 2.0]), ([1.0, 2.0], [0.0, 0.0]), ([1.0, 2.0], [-2.0, -4.0])]
)
def test_rotation_is_straight_through_where_there_is_no_one_rotation(
    vector: list[float], quantised: list[float]
) -> None:
    before, after = torch.tensor([vector], requires_grad=True), torch.tensor([quantised])
    out = rotate(before, after)
    torch.testing.assert_close(out, after)
    out.sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert before.grad is not None
    assert before.grad.tolist() == [[1, 1]]


@pytest.mark.parametrize("path", ["straight_through", "rotation"])
def test_both_ways_give_the_same_values(path: GradientPath) -> None:
    torch.manual_seed(0)
    quantiser = ResidualQuantiser(D, levels=LEVELS, num_codes=K, gradient_path=path)
    vectors = normal(B, D)
    torch.testing.assert_close(
        quantiser(vectors).values, vectors - quantiser.residuals(vectors)[:, -1], atol=1e-5, rtol=1e-5
    )


def test_kmeans_finds_clusters_that_are_there() -> None:
    centres = 20 * torch.eye(4)
    points = (centres.unsqueeze(1) + 0.1 * normal(4, 30, 4)).flatten(0, 1)
    found = kmeans(points, 4, seeded(3))
    order = nearest_code(centres, found)
    assert sorted(order.tolist()) == [0, 1, 2, 3]
    torch.testing.assert_close(found[order], points.reshape(4, 30, 4).mean(dim=1))


def test_kmeans_with_a_centre_for_each_point_is_exact() -> None:
    points = normal(9, D)
    found = kmeans(points, 9, seeded())
    torch.testing.assert_close(found[nearest_code(points, found)], points)


def test_kmeans_takes_points_that_are_all_alike() -> None:
    assert kmeans(torch.ones(6, 2), 3, seeded()).tolist() == [[1, 1]] * 3


def test_fewer_vectors_than_codes_are_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("num_codes (4) must be at most the number of vectors, 3")):
        ResidualQuantiser(D, num_codes=4).initialise(normal(3, D), seeded())


def test_a_sample_is_drawn_only_where_there_are_too_many() -> None:
    vectors = torch.arange(10.0).unsqueeze(1)
    assert sample(vectors, 10, seeded()) is vectors
    drawn = sample(vectors, 4, seeded()).flatten().tolist()
    assert len(set(drawn)) == 4
    assert drawn != [0, 1, 2, 3]


def test_kmeans_initialisation_leaves_less_on_every_level_and_is_remembered(tmp_path: Path) -> None:
    quantiser = ResidualQuantiser(D, levels=LEVELS, num_codes=K)
    vectors = normal(200, D)
    assert not quantiser.is_initialised
    quantiser.initialise(vectors, seeded())
    left = torch.cat([vectors.unsqueeze(1), quantiser.residuals(vectors)], dim=1).square().sum(dim=2).mean(dim=0)
    assert torch.all(left.diff() < -0.2)
    save(quantiser, tmp_path)
    opened = load(tmp_path)
    assert isinstance(opened, ResidualQuantiser)
    assert opened.is_initialised
    assert torch.equal(opened.codes(vectors), quantiser.codes(vectors))


def test_initialisation_is_determined_by_its_generator() -> None:
    first, second, other = (ResidualQuantiser(D, num_codes=K) for _ in range(3))
    for quantiser, seed in ((first, 1), (second, 1), (other, 2)):
        quantiser.initialise(normal(60, D), seeded(seed))
    assert torch.equal(first.codebooks, second.codebooks)
    assert not torch.equal(first.codebooks, other.codebooks)


def test_codes_out_of_use_are_moved_to_residuals_and_used_ones_stay(quantiser: ResidualQuantiser) -> None:
    vectors = normal(40, D)
    quantiser.initialise(vectors, seeded())
    with torch.no_grad():
        quantiser.codebooks[1, 2] = 100.0  # nothing is near it
    before = quantiser.codebooks.detach().clone()
    quantiser.train()
    for _ in range(100):  # .95^100 is .006, below the .05 of an even share
        quantiser(vectors)
    assert quantiser.revive(vectors, seeded()) == 1
    changed = (quantiser.codebooks != before).any(dim=2)
    assert changed.nonzero().tolist() == [[1, 2]]
    first = vectors - before[0][nearest_code(vectors, before[0])]
    assert (first - quantiser.codebooks[1, 2]).abs().sum(dim=1).min() < 1e-5
    assert 2 in quantiser.codes(vectors)[:, 1]
    assert quantiser.revive(vectors, seeded()) == 0  # it has an even share to begin with


def test_use_is_followed_in_training_only(quantiser: ResidualQuantiser) -> None:
    before = quantiser.usage.clone()
    quantiser.eval()(normal(B, D))
    assert torch.equal(quantiser.usage, before)
    codes = quantiser.train()(normal(B, D)).codes
    shares = torch.stack([torch.bincount(column, minlength=K) / B for column in codes.T])
    torch.testing.assert_close(quantiser.usage, 0.95 * before + 0.05 * shares)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"levels \(0\) must be at least 1"):
        ResidualQuantiser(D, levels=0)
    with pytest.raises(ValueError, match=r"gradient_path \('gumbel'\) must be 'straight_through' or 'rotation'"):
        ResidualQuantiser(D, gradient_path="gumbel")  # type: ignore[arg-type]  # wrong on purpose

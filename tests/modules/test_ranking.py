"""Ranks and lists against a full sort by (score, index), on scores full of ties and gaps."""

import math

import pytest
import torch
from torch import Tensor, nn

from genrec.modules import catalogue_scores, mask_scores, target_ranks, top_k

SEEDS = range(12)


def tied_scores(seed: int, rows: int = 4, width: int = 23) -> Tensor:
    """Few distinct values, plus and minus zero among them, and -inf in many places; padding masked."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.tensor([-math.inf, -1.5, -0.0, 0.0, 2.0])[torch.randint(0, 5, (rows, width), generator=generator)]
    values[0] = torch.randn(width, generator=generator)  # no ties
    values[1] = -math.inf  # nothing else
    values[2] = 1.0  # all tie
    values[:, 0] = -math.inf
    return values


def sorted_indices(row: list[float]) -> list[int]:
    return sorted(range(len(row)), key=lambda index: (-row[index], index))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
def test_top_k_is_the_head_of_a_full_stable_sort(seed: int, dtype: torch.dtype) -> None:
    scores = tied_scores(seed).to(dtype)
    whole = [sorted_indices(row) for row in scores.tolist()]
    for k in (1, 2, 5, 22, 23):
        indices, values = top_k(scores, k)
        assert indices.dtype == torch.int64
        assert indices.tolist() == [order[:k] for order in whole]
        assert torch.equal(values, scores.gather(1, indices))


@pytest.mark.parametrize("k", [0, -1, 6])
def test_top_k_outside_the_row_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=rf"k \({k}\) must lie in 1..5"):
        top_k(torch.zeros(2, 5), k)


def test_top_k_refuses_nan() -> None:
    with pytest.raises(ValueError, match="scores hold NaN"):
        top_k(torch.tensor([[1.0, math.nan, 3.0]]), 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_target_ranks_are_places_in_a_full_stable_sort(seed: int) -> None:
    scores = tied_scores(seed)
    for target in range(1, scores.shape[1]):
        expected = [
            scores.shape[1] if row[target] == -math.inf else 1 + sorted_indices(row).index(target)
            for row in scores.tolist()
        ]
        ranks = target_ranks(scores, torch.full((len(scores),), target))
        assert ranks.dtype == torch.int64
        assert ranks.tolist() == expected


def test_a_target_that_scores_nan_ranks_last_and_other_nans_rank_higher() -> None:
    scores = torch.tensor([[-math.inf, 1.0, math.nan, 0.0]])
    ranks = [int(target_ranks(scores, torch.tensor([target]))) for target in (1, 2, 3)]
    assert ranks == [2, 4, 3]


@pytest.mark.parametrize("seed", SEEDS)
def test_ranks_and_lists_agree(seed: int) -> None:
    scores = tied_scores(seed)
    indices, values = top_k(scores, 10)
    for place in range(10):
        ranks, listed = target_ranks(scores, indices[:, place]), values[:, place] > -math.inf
        assert ranks[listed].eq(place + 1).all()
        assert ranks[~listed].eq(scores.shape[1]).all()


def test_mask_scores_leaves_its_input_alone() -> None:
    scores = torch.arange(8.0).reshape(2, 4)
    masked = mask_scores(scores, torch.tensor([[3, 0], [1, 1]]))
    assert masked.tolist() == [[-math.inf, 1, 2, -math.inf], [-math.inf, -math.inf, 6, 7]]
    assert scores.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    nothing = mask_scores(scores, torch.zeros(2, 0, dtype=torch.int64))
    assert nothing.tolist() == [[-math.inf, 1, 2, 3], [-math.inf, 5, 6, 7]]


class Vectors(nn.Module):
    """The user is the newest item."""

    def item_vectors(self) -> Tensor:
        return torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 5.0]])

    def user_state(self, item_ids: Tensor) -> Tensor:
        return self.item_vectors()[item_ids[:, -1]]


class Scores(Vectors):
    def scores(self, item_ids: Tensor) -> Tensor:
        return torch.full((len(item_ids), 3), 7.0)


def test_catalogue_scores_are_the_models_own_or_dot_products() -> None:
    history = torch.tensor([[1, 2], [0, 1]])
    assert catalogue_scores(Vectors(), history).tolist() == [[0, 3 + 10, 9 + 25], [0, 1 + 4, 3 + 10]]
    assert catalogue_scores(Scores(), history).tolist() == [[7, 7, 7], [7, 7, 7]]

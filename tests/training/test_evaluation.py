"""Scoring a model: ranks over the whole catalogue against a loop, and the two ways of scoring against each other."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from genrec.data import SequenceData, Split, leave_one_out
from genrec.histories import ItemIds, Ragged
from genrec.training import Evaluation, evaluate, evaluate_lists
from genrec_models import SASRec, TorchRecommender


class Fixed(nn.Module):
    """Gives every history the same scores of items 1..5."""

    num_items, max_seq_length, config = 5, 2, None

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.register_buffer("table", torch.tensor([9.0, *scores]))

    def scores(self, item_ids: torch.Tensor) -> torch.Tensor:
        return self.table.expand(len(item_ids), -1)


def split_of(rows: list[list[int]]) -> Split:
    return leave_one_out(SequenceData(ItemIds("abcde"), np.arange(len(rows)), Ragged.from_rows(rows)))


def test_metrics_are_those_worked_by_hand() -> None:
    split = split_of([[1, 2, 3], [2, 1, 5], [1, 1, 4], [2, 3, 2]])
    found = evaluate(Fixed([0.0, 7.0, 5.0, 5.0, 6.0]), split, ks=(1, 2, 3))
    ranks = [3 - 1, 1, 3]  # 5 leads 3, 3 ties 4 and comes first; 5 leads; 2 and 5 lead, and 3 ties but comes first
    ranks[2] = 4
    assert found.metrics["recall@1"] == 1 / 4
    assert found.metrics["recall@2"] == 2 / 4
    assert found.metrics["ndcg@2"] == pytest.approx((1 / math.log2(ranks[0] + 1) + 1 / math.log2(ranks[1] + 1)) / 4)
    assert found.metrics["mrr@3"] == pytest.approx((1 / 2 + 1 / 1) / 4)
    assert (found.cases, found.targets_in_history) == (4, 1)  # the last user's target was bought before: a miss


def test_ranks_and_lists_give_the_same_metrics(split: Split) -> None:
    torch.manual_seed(1)
    model = SASRec(len(split.data.items), embedding_dim=8, max_seq_length=5)
    recommender = TorchRecommender(model, split.catalogue())
    by_lists = evaluate_lists(lambda rows, k: [ids for ids, _ in recommender.recommend(rows, k)], split)
    assert evaluate(model, split) == by_lists


def test_the_model_is_left_in_the_mode_it_was_in(split: Split) -> None:
    model = SASRec(len(split.data.items), embedding_dim=8, dropout=0.9)
    assert evaluate(model.train(), split) == evaluate(model, split)
    assert model.training
    evaluate(model.eval(), split, split.valid)
    assert not model.training


def test_cut_offs_below_one_are_refused(split: Split) -> None:
    with pytest.raises(ValueError, match="0"):
        evaluate(Fixed([0.0] * 5), split, ks=(0,))


def test_a_model_without_the_interface_is_told_what_it_lacks(split: Split) -> None:
    with pytest.raises(TypeError, match="Linear lacks the attributes num_items, max_seq_length, config"):
        evaluate(nn.Linear(2, 3), split)


def test_an_evaluation_survives_json() -> None:
    evaluation = Evaluation({"recall@5": 0.5}, cases=4, targets_in_history=1)
    assert Evaluation.from_json(evaluation.to_json()) == evaluation

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
    by_ranks = evaluate(model, split, full=True)
    assert by_ranks == by_lists
    assert by_ranks.values.keys() == by_lists.values.keys()
    for name, column in by_ranks.values.items():
        assert column.tolist() == by_lists.values[name].tolist()
    assert evaluate(model, split).metrics.items() < by_ranks.metrics.items()


def test_a_full_evaluation_knows_each_case_and_what_the_lists_hold() -> None:
    split = split_of([[1, 2, 3], [2, 1, 5], [1, 1, 4], [2, 3, 2]])
    found = evaluate(Fixed([0.0, 7.0, 5.0, 5.0, 6.0]), split, ks=(1, 2), full=True)  # best first: 2 5 3 4 1
    assert found.values["recall@2"].tolist() == [1, 1, 0, 0]  # lists 5 3, 5 3, 2 5, 5 4; targets 3, 5, 4, 2
    assert found.values["mrr@2"].tolist() == [1 / 2, 1 / 1, 0, 0]
    assert found.metrics["coverage@1"] == 2 / 5
    assert found.metrics["coverage@2"] == 4 / 5
    assert found.metrics["average_popularity@1"] == (0 + 0 + 2 + 0) / 4  # training holds 1, 2, 1 and 2
    shares = {5: 1 / 4, 2: 2 / 4}  # an item unknown to training counts as one seen once
    assert found.metrics["novelty@1"] == -(3 * math.log2(shares[5]) + math.log2(shares[2])) / 4
    result = found.result("fixed", split, {"model": "fixed"})
    assert result.users.tolist() == [0, 1, 2, 3]
    assert result.protocol["seen_filter"].startswith("every item of the whole history")
    with pytest.raises(ValueError, match="evaluate with full=True"):
        evaluate(Fixed([0.0] * 5), split).result("fixed", split, {})


def test_lists_end_where_only_the_history_is_left() -> None:
    split = split_of([[1, 2, 3, 4, 5], [2, 1, 5]])
    found = evaluate(Fixed([1.0, 2.0, 3.0, 4.0, 5.0]), split, ks=(9,), full=True)
    assert found.metrics["recall@9"] == 1
    assert found.metrics["coverage@9"] == 3 / 5  # 5; and 5, 4, 3: nobody was given 1 or 2


def test_an_id_that_the_split_does_not_know_takes_a_place_and_is_no_item() -> None:
    split = split_of([[1, 2, 3], [2, 1, 3]])
    found = evaluate_lists(lambda rows, k: [["zz", "c"], ["d"]], split, ks=(1, 2))
    assert found.values["mrr@2"].tolist() == [1 / 2, 0]
    assert (found.metrics["coverage@1"], found.metrics["coverage@2"]) == (1 / 5, 2 / 5)
    with pytest.raises(ValueError, match="gave 1 lists for 2 histories"):
        evaluate_lists(lambda rows, k: [["c"]], split)


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


def test_a_model_that_scores_all_alike_scores_what_the_lowest_numbers_score_not_perfection(split: Split) -> None:
    found = evaluate(Fixed([0.0] * 5), split_of([[1, 2, 3], [4, 5, 1], [5, 4, 3]]), ks=(1, 2))
    assert found.metrics["recall@1"] == 2 / 3  # unseen, by number: 3 4 5; 1 2 3; 1 2 3
    assert found.metrics["recall@2"] == 2 / 3
    constant = Fixed([0.0] * len(split.data.items))
    constant.num_items = len(split.data.items)
    targets, histories = split.targets(split.test), split.histories(split.test).rows()
    places = [
        target - len({item for item in row if item < target}) for target, row in zip(targets, histories, strict=True)
    ]
    unseen = [target not in row for target, row in zip(targets, histories, strict=True)]
    hits = sum(place <= 10 and new for place, new in zip(places, unseen, strict=True))
    assert evaluate(constant, split, ks=(10,)).metrics["recall@10"] == hits / len(split.test)

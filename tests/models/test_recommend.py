"""The trainer's own path from raw ids to raw ids."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genrec.histories import Catalogue, ItemIds, Ragged, user_index
from genrec_models import Popularity, TorchRecommender


class Echo(nn.Module):
    """Scores an item by 10 ** (its age in the window), so that a score tells what the model was shown."""

    max_seq_length = 3

    def __init__(self) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))

    def scores(self, item_ids: Tensor) -> Tensor:
        weights = 10.0 ** torch.arange(item_ids.shape[1] - 1, -1, -1)
        shown = torch.zeros(item_ids.shape[0], 6)
        shown[:, 5] = (item_ids * weights).sum(dim=1)  # item 5 carries the digits of the window
        return shown


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue(ItemIds(["a", "b", "c", "d", "e"]), np.array([3, 1, 2, 5, 4]))


def test_the_window_holds_the_newest_known_items(catalogue: Catalogue) -> None:
    answers = TorchRecommender(Echo(), catalogue).recommend([["a", "b", "?", "c", "d"], ["b"], ["?", "a", "a"]], k=1)
    assert answers == [(["e"], [234.0]), (["e"], [2.0]), (["e"], [11.0])]


def test_the_whole_history_is_left_out_and_ties_go_to_the_lower_number(catalogue: Catalogue) -> None:
    (items, scores), (rest, _) = TorchRecommender(Echo(), catalogue).recommend([["b"], ["a", "b", "c", "d"]], k=9)
    assert items == ["e", "a", "c", "d"]
    assert scores == [2.0, 0.0, 0.0, 0.0]
    assert rest == ["e"]


def test_a_user_who_has_everything_gets_nothing(catalogue: Catalogue) -> None:
    assert TorchRecommender(Echo(), catalogue).recommend([list("abcde")]) == [([], [])]


def test_histories_without_a_known_item_get_the_most_popular(catalogue: Catalogue) -> None:
    answers = TorchRecommender(Echo(), catalogue).recommend([[], ["?"]], k=2)
    assert answers == [(["c", "a"], [1.0, 1 / 2])] * 2


def test_answers_do_not_hang_on_the_batch() -> None:
    model = Popularity(5)
    model.fit_events(Ragged.from_rows([[1, 2, 2], [5]]))
    catalogue = Catalogue(ItemIds([10, 20, 30, 40, 50]), np.array([2, 1, 5, 3, 4]))
    histories = [[10], [], [20, 30], [50, 40], [7]]
    one_by_one = TorchRecommender(model, catalogue, batch_size=1).recommend(histories, k=3)
    assert TorchRecommender(model, catalogue, batch_size=4).recommend(histories, k=3) == one_by_one
    assert one_by_one[0] == ([20, 50, 30], [2.0, 1.0, 0.0])


def test_k_below_one_is_refused(catalogue: Catalogue) -> None:
    with pytest.raises(ValueError, match=r"k \(0\) must be at least 1"):
        TorchRecommender(Echo(), catalogue).recommend([["a"]], k=0)


class Reader(Echo):
    """Keeps what it is handed beside the items."""

    reads, num_users = ("timestamps", "request_time", "users"), 4

    def scores(self, item_ids: Tensor, **read: Tensor) -> Tensor:
        self.read = read
        return super().scores(item_ids)


def test_unknown_items_take_their_times_with_them_and_users_become_tokens(catalogue: Catalogue) -> None:
    model = Reader()
    TorchRecommender(model, catalogue).recommend(
        [["a", "?", "b"], ["?"], ["c", "d", "a", "b"]],
        timestamps=[[5, 6, 7], [8], [1, 2, 3, 4]],
        request_time=[9, 10, 11],
        users=["u", "v", None],
    )
    assert model.read["timestamps"].tolist() == [
        [0, 5, 7],
        [2, 3, 4],
    ]  # the second row has no known item: not the model's
    assert model.read["request_time"].tolist() == [9, 11]
    assert model.read["users"].tolist() == [user_index("u", 4), 0]


def test_what_a_caller_leaves_out_is_left_out_and_times_are_asked_for(catalogue: Catalogue) -> None:
    model = Reader()
    TorchRecommender(model, catalogue).recommend([["a"]], timestamps=[[5]])
    assert model.read.keys() == {"timestamps"}
    with pytest.raises(ValueError, match="Reader reads the times of events: give timestamps"):
        TorchRecommender(model, catalogue).recommend([["a"]])

"""What models read beside items: times and users reach them aligned, in training as in evaluation, or the lack is named."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genrec.data import SequenceData, Split, leave_one_out
from genrec.histories import ItemIds, Ragged, user_index
from genrec.training import FitConfig, evaluate, evaluate_lists, fit
from genrec.training.batches import Windows, case_batches
from genrec.training.contract import recommender
from genrec.training.evaluation import sample_cases
from genrec.training.folder import parity_histories
from genrec.training.inputs import FurtherInputs
from genrec_models import HSTU, TIGER

ROWS = [[1, 2, 3, 4, 5, 1, 2], [3, 1, 5, 4], [2, 5, 1]]


def timed(known: bool = True) -> Split:
    """Three users; the event of item i at place p of user u has the time 1000 u + 10 p + i."""
    events = Ragged.from_rows(ROWS)
    times = [1000 * user + 10 * place + item for user, row in enumerate(ROWS) for place, item in enumerate(row)]
    data = SequenceData(ItemIds("abcde"), np.array([7, 8, 9]), events, np.array(times) if known else None)
    return leave_one_out(data)


class Reader(nn.Module):
    """Keeps what it is handed, and scores all items alike."""

    num_items, max_seq_length, config, num_users = 5, 3, None, 4

    def __init__(self, *reads: str) -> None:
        super().__init__()
        self.reads, self.seen = reads, list[dict[str, Tensor]]()

    def scores(self, item_ids: Tensor, **read: Tensor) -> Tensor:
        self.seen.append({"item_ids": item_ids, **read})
        return torch.zeros(len(item_ids), 6)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": torch.zeros((), requires_grad=True)}


def test_windows_carry_the_time_of_each_item_and_the_user_of_each_row() -> None:
    split = timed()
    further = FurtherInputs.of(Reader("timestamps", "users"), split)
    windows = Windows.cut(split.train_histories(), 3, further.train_times(split), further.tokens(split, np.arange(3)))
    batch = windows.batch(np.arange(len(windows)))
    places = {0: [[1, 2, 3], [0]], 1: [[0]], 2: []}
    for row, (user, starts) in enumerate((user, starts) for user, cuts in places.items() for starts in cuts):
        items = [ROWS[user][place] for place in starts]
        assert batch["item_ids"][row].tolist() == [0] * (3 - len(items)) + items
        times = [1000 * user + 10 * place + item for place, item in zip(starts, items, strict=True)]
        assert batch["timestamps"][row].tolist() == [0] * (3 - len(times)) + times
        assert batch["users"][row] == user_index([7, 8, 9][user], 4)


def test_nothing_further_is_made_for_models_that_read_nothing_further() -> None:
    split = timed()
    further = FurtherInputs.of(Reader(), split)
    tokens = further.tokens(split, np.arange(3))
    batch = Windows.cut(split.train_histories(), 3, further.train_times(split), tokens).batch(np.array([0]))
    assert batch.keys() == {"item_ids", "targets"}
    assert next(case_batches(split, split.test, 2, 3, further=further)).keys() == {
        "cases",
        "item_ids",
        "exclude",
        "targets",
    }


def test_an_evaluation_hands_a_model_what_it_reads_and_nothing_else() -> None:
    model = Reader("users", "exclude", "timestamps")
    evaluate(model, timed(), ks=(1,))
    (seen,) = model.seen
    assert list(seen) == ["item_ids", "users", "exclude", "timestamps"]
    assert seen["item_ids"].tolist() == [[0, 2, 5], [3, 1, 5], [4, 5, 1]]
    assert seen["timestamps"].tolist() == [[0, 2002, 2015], [1003, 1011, 1025], [34, 45, 51]]
    assert seen["exclude"].tolist() == [[0, 0, 0, 0, 2, 5], [0, 0, 0, 3, 1, 5], [1, 2, 3, 4, 5, 1]]
    assert seen["users"].tolist() == [user_index(user, 4) for user in (9, 8, 7)]
    silent = Reader()
    evaluate(silent, timed(), ks=(1,))
    assert silent.seen[0].keys() == {"item_ids"}


def test_lists_are_asked_for_with_times_and_raw_users() -> None:
    asked: dict[str, Any] = {}

    def recommend(histories: list[list[str]], k: int, **further: Any) -> list[list[str]]:
        asked.update(further, histories=histories)
        return [["a"]] * len(histories)

    evaluate_lists(recommend, timed(), ks=(1,), reads=("timestamps", "request_time", "users", "exclude"))
    assert asked == {
        "histories": [["a", "b", "c", "d", "e", "a"], ["c", "a", "e"], ["b", "e"]],
        "timestamps": [[1, 12, 23, 34, 45, 51], [1003, 1011, 1025], [2002, 2015]],
        "users": [7, 8, 9],
    }


def test_what_is_lacking_is_named() -> None:
    with pytest.raises(ValueError, match="Reader reads the times of events, and arrays has none"):
        evaluate(Reader("timestamps"), timed(known=False))
    with pytest.raises(ValueError, match="reads the times of events, and arrays has none"):
        evaluate_lists(lambda rows, k, **_: [], timed(known=False), reads=("timestamps",))
    without = Reader("users")
    without.num_users = None  # type: ignore[assignment]
    with pytest.raises(TypeError, match="must say how many tokens it has for them: num_users"):
        evaluate(without, timed())
    with pytest.raises(
        TypeError, match=r"Reader\.reads names weather; there are timestamps, request_time, users, exclude"
    ):
        recommender(Reader("users", "weather"))


def test_validation_draws_the_same_cases_every_time_and_all_where_none_are_asked_for(split: Split) -> None:
    few = sample_cases(split.valid, 7, seed=3)
    assert len(few) == 7
    assert (np.diff(few.users) > 0).all()
    assert np.array_equal(few.users, sample_cases(split.valid, 7, seed=3).users)
    assert not np.array_equal(few.users, sample_cases(split.valid, 7, seed=4).users)
    ends = dict(zip(split.valid.users, split.valid.ends, strict=True))
    assert [ends[user] for user in few.users] == few.ends.tolist()
    assert sample_cases(split.valid, 0, seed=3) is split.valid
    assert sample_cases(split.valid, 10**6, seed=3) is split.valid


def test_the_histories_of_the_proof_keep_their_times_and_users() -> None:
    kept = parity_histories(timed())
    assert kept["values"].tolist() == [2, 5, 3, 1, 5, 1, 2, 3, 4, 5, 1]
    assert kept["times"].tolist() == [2002, 2015, 1003, 1011, 1025, 1, 12, 23, 34, 45, 51]
    assert kept["users"].tolist() == [9, 8, 7]
    assert "times" not in parity_histories(timed(known=False))


def test_a_model_with_times_is_trained_measured_and_described(split: Split, tmp_path: Any) -> None:
    torch.manual_seed(0)
    model = HSTU(len(split.data.items), embedding_dim=8, head_dim=4, num_layers=1, max_seq_length=5)
    before = [weight.clone() for weight in model.encoder.layers[0].parameters()]
    result = fit(model, split, out=tmp_path / "run", config=FitConfig(max_epochs=2, batch_size=32, learning_rate=0.01))
    moved = [not torch.equal(old, new) for old, new in zip(before, model.encoder.layers[0].parameters(), strict=True)]
    assert all(moved)  # the weights of time among them
    assert result.metrics["test"]["cases"] == len(split.test)


def test_tiger_makes_its_codes_and_tells_how_good_they_are(split: Split, tmp_path: Any) -> None:
    torch.manual_seed(0)
    model = TIGER(
        len(split.data.items),
        embedding_dim=8,
        num_heads=2,
        head_dim=4,
        num_layers=1,
        ff_dim=8,
        max_seq_length=5,
        levels=3,
        codebook_size=8,
        num_users=6,
        beam=10,
    )
    config = FitConfig(max_epochs=1, batch_size=64, valid_cases=9)
    result = fit(model, split, out=tmp_path / "run", config=config)
    assert model.has_codes
    told = result.metrics["facts"]["semantic_ids"]
    distinct = len(torch.unique(model.codes[1:, :-1], dim=0))
    assert told["collision_rate"] == pytest.approx(1 - distinct / len(split.data.items))
    assert [level["used"] for level in told["levels"]] == [len(model.codes[1:, n].unique()) for n in (0, 1)]
    assert "## Semantic ids" in (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    again = TIGER(**model.arguments)
    again.load_state_dict(model.state_dict())
    codes = again.codes.clone()
    again.prepare(split.train_histories())
    assert torch.equal(again.codes, codes)


def test_a_model_that_reads_times_of_data_without_them_leaves_no_folder_behind(tmp_path: Any) -> None:
    model = HSTU(5, embedding_dim=4, head_dim=2, num_layers=1)
    with pytest.raises(ValueError, match="HSTU reads the times of events, and arrays has none; name their column"):
        fit(model, timed(known=False), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()

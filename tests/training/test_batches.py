"""Training windows, the order of an epoch, and the batches of an evaluation."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.data import Cases, Split
from genrec.histories import Ragged
from genrec.training.batches import Windows, case_batches, epoch_order

ROWS = st.lists(st.lists(st.integers(1, 99), max_size=12), min_size=1, max_size=6)


@given(ROWS, st.integers(1, 5))
def test_every_event_but_a_user_s_first_is_a_target_once_with_its_own_history(
    rows: list[list[int]], length: int
) -> None:
    windows = Windows.cut(Ragged.from_rows(rows), length)
    expected = Counter(tuple(row[max(0, i - 1) : i + 1]) for row in rows for i in range(1, len(row)))
    found: Counter[tuple[int, ...]] = Counter()
    for i in range(len(windows)):
        batch = windows.batch(np.array([i]))
        inputs, targets = batch["item_ids"][0].tolist(), batch["targets"][0].tolist()
        assert len(inputs) == windows.lengths[i] <= length
        found.update(zip(inputs, targets, strict=True))
    assert found == expected


def test_windows_are_cut_from_the_end() -> None:
    windows = Windows.cut(Ragged.from_rows([[1, 2, 3, 4, 5, 6]]), max_seq_length=2)
    rows = [windows.batch(np.array([i]))["item_ids"][0].tolist() for i in range(len(windows))]
    assert rows == [[4, 5], [2, 3], [1]]


def test_a_batch_is_left_padded_to_its_longest_window() -> None:
    windows = Windows.cut(Ragged.from_rows([[1, 2, 3, 4], [5, 6], [7]]), max_seq_length=9)
    batch = windows.batch(np.array([0, 1]))
    assert batch["item_ids"].tolist() == [[1, 2, 3], [0, 0, 5]]
    assert batch["targets"].tolist() == [[2, 3, 4], [0, 0, 6]]


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 4))
def test_the_processes_share_an_epoch_evenly(windows: int, batch_size: int, world: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 9, windows)
    if windows < world:
        with pytest.raises(ValueError, match=f"{windows} training windows cannot be shared by {world} processes"):
            epoch_order(lengths, batch_size, seed=0, epoch=0, rank=0, world=world)
        return
    shares = [epoch_order(lengths, batch_size, seed=3, epoch=1, rank=rank, world=world) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    assert all(len(part) for share in shares for part in share)
    seen = np.concatenate([part for share in shares for part in share])
    assert sorted(seen) == list(range(windows))


def test_together_the_processes_train_on_what_one_would() -> None:
    lengths = np.random.default_rng(0).integers(1, 9, 60)
    alone = epoch_order(lengths, 8, seed=3, epoch=1)
    shares = [epoch_order(lengths, 8, seed=3, epoch=1, rank=rank, world=2) for rank in range(2)]
    for step, whole in enumerate(alone):
        assert sorted(whole) == sorted(np.concatenate([share[step] for share in shares]))


def test_windows_of_like_length_train_together_in_steps_of_equally_many_targets() -> None:
    lengths = np.repeat([1, 2, 8], [32, 16, 4])
    steps = epoch_order(lengths, batch_size=18, seed=0, epoch=0)  # 52 windows in 3 steps of 32 targets
    assert sorted(lengths[step].tolist() for step in steps) == [[1] * 32, [2] * 16, [8] * 4]


def test_the_order_follows_from_seed_and_epoch() -> None:
    lengths = np.ones(50, dtype=np.int64)
    first, again, later, other = (
        np.concatenate(epoch_order(lengths, 7, seed, epoch)) for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, later)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("world", [1, 3])
def test_every_case_is_scored_once_with_its_whole_history_excluded(split: Split, world: int) -> None:
    cases = split.test
    found = []
    for rank in range(world):
        for batch in case_batches(split, cases, 7, 5, rank, world):
            assert batch["item_ids"].shape[1] == min(5, batch["exclude"].shape[1])
            for inputs, exclude, target in zip(batch["item_ids"], batch["exclude"], batch["targets"], strict=True):
                history = [item for item in exclude.tolist() if item]
                assert [item for item in inputs.tolist() if item] == history[-5:]
                found.append((history, int(target)))
    expected = [
        (row.tolist(), int(target))
        for row, target in zip(split.histories(cases).rows(), split.targets(cases), strict=True)
    ]
    assert sorted(found) == sorted(expected)


def test_no_cases_give_no_batches(split: Split) -> None:
    none = np.zeros(0, dtype=np.int64)
    assert list(case_batches(split, Cases(none, none), 7, 5)) == []

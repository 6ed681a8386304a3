"""MetricAccumulator: batches in any order and any partition give one pass's means, bit for bit."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.metrics import MetricAccumulator, evaluate

KS = [1, 3, 10]
ids = st.integers(0, 9)
some_users = st.lists(st.tuples(st.lists(ids, max_size=12), st.lists(ids, max_size=3)), min_size=1, max_size=12)


def accumulated(pairs: list[Any], ks: list[int] = KS) -> MetricAccumulator:
    metrics = MetricAccumulator(ks)
    metrics.update([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    return metrics


@given(some_users, st.randoms(use_true_random=False), st.lists(st.integers(0, 12), max_size=4))
def test_any_order_and_any_partition_equal_one_pass_exactly(pairs: list[Any], random: Any, cuts: list[int]) -> None:
    whole = accumulated(pairs)
    shuffled = random.sample(pairs, len(pairs))
    bounds = [0, *sorted(min(cut, len(pairs)) for cut in cuts), len(pairs)]
    parts = [accumulated(shuffled[start:end]) for start, end in itertools.pairwise(bounds)]
    random.shuffle(parts)
    merged = parts[0]
    for part in parts[1:]:
        merged.merge(part)
    assert merged.state().tolist() == whole.state().tolist()
    assert merged.compute() == whole.compute()
    assert len(merged) == len(pairs)


def test_thousands_of_users_in_arrays_merge_without_loss() -> None:
    rng = np.random.default_rng(0)
    predictions, targets = rng.integers(0, 300, (5000, 10)), rng.integers(0, 300, (5000, 7))
    whole = MetricAccumulator(KS)
    whole.update(predictions, targets)
    merged = MetricAccumulator(KS)
    for part in np.array_split(rng.permutation(5000), 7):
        one = MetricAccumulator(KS)
        one.update(predictions[part], targets[part].tolist())
        merged.merge(one)
    assert merged.state().tolist() == whole.state().tolist()
    per_user = evaluate(predictions, targets, KS, per_user=True)
    means = {name: float(values.mean()) for name, values in per_user.items()}
    assert whole.compute() == pytest.approx(means, rel=1e-12)  # numpy's mean rounds


@given(some_users, some_users)
def test_states_add_up_over_processes(here: list[Any], there: list[Any]) -> None:
    summed = accumulated(here).state() + accumulated(there).state()
    restored = MetricAccumulator.from_state(KS, summed)
    assert summed.dtype == np.int64
    assert restored.compute() == accumulated([*here, *there]).compute()
    assert len(restored) == len(here) + len(there)


def test_sums_hold_billions_of_users() -> None:
    one = accumulated([([1, 2, 3], [3, 9]), ([4], [4]), ([4], [])])
    many = MetricAccumulator.from_state(KS, one.state() * 2**30)
    assert len(many) == 3 * 2**30
    assert many.compute() == one.compute()


def test_a_state_is_a_copy() -> None:
    metrics = accumulated([([1], [1])])
    state = metrics.state()
    restored = MetricAccumulator.from_state(KS, state)
    state[:] = 0
    assert metrics.compute()["recall@1"] == restored.compute()["recall@1"] == 1.0


@given(st.lists(st.tuples(st.lists(ids, max_size=12, unique=True), ids), min_size=1, max_size=9))
def test_ranks_count_as_lists_with_one_target_do(cases: list[tuple[list[int], int]]) -> None:
    ranks = [top.index(one) + 1 if one in top else 99 for top, one in cases]
    counted = MetricAccumulator(KS)
    counted.update_ranks(np.array(ranks[:2], dtype=np.uint8))
    counted.update_ranks(ranks[2:])
    by_lists = accumulated([(top, [one]) for top, one in cases])
    among_others = accumulated([*((top, [one]) for top, one in cases), ([], [])])  # scored user by user
    assert counted.state().tolist() == by_lists.state().tolist()
    assert counted.state()[1:].tolist() == among_others.state()[1:].tolist()


@pytest.mark.parametrize("dtype", [np.int8, np.uint64, ">i4"])
def test_ranks_of_any_width_and_shape_count(dtype: Any) -> None:
    metrics = MetricAccumulator([2])
    metrics.update_ranks(np.array([[1, 127], [2, 3]], dtype=dtype))
    assert len(metrics) == 4
    assert metrics.compute()["mrr@2"] == (1 + 1 / 2) / 4
    if dtype is np.uint64:
        metrics.update_ranks(np.array([2**64 - 1], dtype=dtype))
        assert metrics.compute()["recall@2"] == 2 / 5


def test_ranks_in_a_tensor_count() -> None:
    metrics = MetricAccumulator([3])
    metrics.update_ranks(pytest.importorskip("torch").tensor([1, 4]))
    assert metrics.compute()["recall@3"] == 1 / 2


def test_cut_offs_in_another_order_merge() -> None:
    metrics = accumulated([([1, 2], [2])], [1, 3])
    metrics.merge(accumulated([([1, 2], [1])], [3, 1]))
    assert list(metrics.compute())[:2] == ["recall@1", "recall@3"]
    assert metrics.compute()["recall@1"] == 1 / 2
    assert metrics.compute()["recall@3"] == 1.0


def test_a_failed_update_adds_nobody() -> None:
    metrics = accumulated([([1], [1])])
    before = metrics.state().tolist()
    with pytest.raises(ValueError, match="targets end after 1 users but predictions go on"):
        metrics.update(iter([[1], [2]]), iter([[1]]))
    with pytest.raises(ValueError, match="targets end after 1 users but predictions go on"):
        metrics.update(iter([[1], [2]]), iter([[1, 2]]))
    with pytest.raises(TypeError, match=r"predictions\[1\] must be a list of ids, got 5"):
        metrics.update(iter([np.array([[1]]), 5]), [[1], [2]])
    with pytest.raises(ValueError, match="ranks count from 1, got 0"):
        metrics.update_ranks([2, 0])
    assert metrics.state().tolist() == before


def test_no_users_give_zeros() -> None:
    metrics = MetricAccumulator([5])
    metrics.update([], [])
    metrics.update_ranks([])
    assert set(metrics.compute().values()) == {0.0}
    assert len(metrics) == 0


def test_misuse_is_refused() -> None:
    metrics = MetricAccumulator([3])
    with pytest.raises(TypeError, match="ranks must be whole numbers, not float64"):
        metrics.update_ranks(np.array([1.5]))
    with pytest.raises(ValueError, match=r"cannot merge metrics at \[4\] into metrics at \[3\]"):
        metrics.merge(MetricAccumulator([4]))
    with pytest.raises(ValueError, match=r"state must have shape \(14,\) for these ks, not \(26,\)"):
        MetricAccumulator.from_state([3], MetricAccumulator([3, 4]).state())
    with pytest.raises(TypeError, match="state must hold int64, not float64"):
        MetricAccumulator.from_state([3], metrics.state().astype(float))
    with pytest.raises(ValueError, match=r"k \(-3\) must not be negative"):
        MetricAccumulator([-3])

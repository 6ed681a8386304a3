"""Windows, groups of like length, and padding to few shapes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from genrec_runtime import Recommender
from genrec_runtime.buckets import (
    GROWING,
    ITEMS_A_SLOT,
    LENGTHS,
    SLOTS_A_RUN,
    by_length,
    cut_down,
    length_bucket,
    pad_up,
    slots,
)
from genrec_runtime.manifest import Signature
from tiny import ITEMS, MAX_SEQ_LENGTH

GRAPHS = ["recommend", "score", "encode", "item_vectors", "similar"]
SIZES = [0, 1, 2, 3, 5, 16, 17]
CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # float32: other batch sizes add up in another order


def zeros(signature: Signature, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Inputs of a graph, all zeros."""
    shapes = {
        spec.name: [sizes[axis] if isinstance(axis, str) else axis for axis in spec.axes] for spec in signature.inputs
    }
    return {spec.name: np.zeros(shapes[spec.name], spec.dtype) for spec in signature.inputs}


def some(signature: Signature, sizes: dict[str, int], seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs of a graph in the ranges that it takes; where 0 is padding a part is padding, on the left."""
    random = np.random.default_rng(seed)
    inputs = zeros(signature, sizes)
    for spec in signature.inputs:
        shape = inputs[spec.name].shape
        inputs[spec.name] = random.integers(0, 2, shape) > 0 if spec.dtype == "bool" else random.integers(1, 38, shape)
        if spec.low == 0:
            real = np.arange(shape[1]) >= random.integers(0, max(1, shape[1]), (shape[0], 1))
            inputs[spec.name] *= real
    return inputs


def sizes_of(batch: int, free: int) -> dict[str, int]:
    return {"batch": batch, "length": MAX_SEQ_LENGTH - 1, "excluded": free, "candidates": free}


# --- windows


@pytest.mark.parametrize("limit", [1, 6, 50, 200, 1000, 5000])
def test_a_window_holds_the_longest_history_and_wastes_at_most_15_places_or_a_quarter(limit: int) -> None:
    windows = [length_bucket(longest, limit) for longest in range(limit + 1)]
    assert windows == sorted(windows)
    for longest, window in enumerate(windows):
        assert longest <= window <= limit
        assert window - longest <= max(15, longest / 4)


@pytest.mark.parametrize("limit", [6, 50, 200, 1000, 4096])
def test_windows_are_few(limit: int) -> None:
    windows = {length_bucket(longest, limit) for longest in range(limit + 1)}
    octaves = max(0, np.ceil(np.log2(limit / 128)))
    assert len(windows) <= 1 + min(limit, 128) / 16 + 4 * octaves + 1  # 8, every 16 up to 128, 4 an octave, the limit


def test_a_history_beyond_all_buckets_gets_its_own_window() -> None:
    assert length_bucket(LENGTHS[-1] + 1, 10**6) == LENGTHS[-1] + 1


# --- groups of like length


def total(groups: list[np.ndarray], lengths: np.ndarray, limit: int, items: int) -> float:
    """What groups cost by the stated rule."""
    run = SLOTS_A_RUN + items / ITEMS_A_SLOT
    return sum(run + len(group) * slots(length_bucket(int(lengths[group].max()), limit)) for group in groups)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("items", [37, 100_000])
def test_groups_part_the_rows_the_same_way_every_time(seed: int, items: int) -> None:
    random = np.random.default_rng(seed)
    limit = int(random.choice([6, 50, 200]))
    lengths = random.integers(0, limit + 1, random.integers(1, 600))
    groups = by_length(lengths, limit, items)
    assert np.array_equal(np.sort(np.concatenate(groups)), np.arange(len(lengths)))
    assert all(len(group) and np.all(np.diff(group) > 0) for group in groups)
    assert all(lengths[a].min() > lengths[b].max() for a, b in itertools.pairwise(groups))
    assert len(groups) <= len({length_bucket(length, limit) for length in lengths.tolist()})
    for again, group in zip(by_length(lengths.copy(), limit, items), groups, strict=True):
        assert np.array_equal(again, group)


@pytest.mark.parametrize("seed", range(12))
def test_no_other_grouping_costs_less(seed: int) -> None:
    random = np.random.default_rng(seed)
    items = int(random.choice([100, 10_000, 100_000]))
    lengths = random.choice(random.integers(1, 201, 7), random.integers(2, 300))
    order = np.argsort(-lengths, kind="stable")
    edges = [place for place in range(1, len(order)) if lengths[order[place]] < lengths[order[place - 1]]]
    every = [np.split(order, cuts) for n in range(len(edges) + 1) for cuts in itertools.combinations(edges, n)]
    least = min(total(groups, lengths, 200, items) for groups in every)
    assert total(by_length(lengths, 200, items), lengths, 200, items) == pytest.approx(least, rel=1e-12)


@pytest.mark.parametrize("items", [100, 10_000, 1_000_000])
def test_rows_are_parted_only_where_the_padding_saved_is_more_than_a_run(items: int) -> None:
    run, saved = SLOTS_A_RUN + items / ITEMS_A_SLOT, slots(200) - slots(8)
    enough = int(run / saved) + 1  # rows of length 1 beside one of length 200
    for count, groups in ((enough - 1, 1), (enough, 2)):
        assert len(by_length(np.array([200] + [1] * count), 200, items)) == groups


def test_rows_of_one_window_stay_together() -> None:
    assert [group.tolist() for group in by_length(np.array([33, 48, 40]), 200, 10)] == [[0, 1, 2]]
    assert [group.tolist() for group in by_length(np.zeros(0, np.int64), 200, 10)] == [[]]


# --- padding


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize(("batch", "free"), [*itertools.product(SIZES, SIZES)])
def test_cutting_down_undoes_padding_up(served: Recommender, graph: str, batch: int, free: int) -> None:
    signature = served.manifest.signature[graph]
    inputs = some(signature, sizes_of(batch, free))
    padded, sizes = pad_up(signature, inputs)
    back = cut_down(Signature(signature.inputs, signature.inputs), padded, sizes)
    for spec in signature.inputs:
        assert np.array_equal(back[spec.name], inputs[spec.name])
        assert padded[spec.name].dtype == inputs[spec.name].dtype
        assert padded[spec.name].sum() == inputs[spec.name].sum()  # what was added is zeros
        for axis, size, grown in zip(spec.axes, inputs[spec.name].shape, padded[spec.name].shape, strict=True):
            least = GROWING.get(str(axis))
            assert grown == size if least is None else grown in [2**n for n in range(5) if 2**n >= least] + [32]
            assert grown >= size
            assert least is None or grown == least or grown < 2 * size


def test_what_needs_no_padding_is_not_copied(served: Recommender) -> None:
    signature = served.manifest.signature["recommend"]
    inputs = some(signature, sizes_of(3, 16))
    padded, _ = pad_up(signature, inputs)
    assert padded["available"] is inputs["available"]
    assert padded["item_ids"] is not inputs["item_ids"]
    inputs = some(signature, sizes_of(4, 16))
    assert all(array is inputs[name] for name, array in pad_up(signature, inputs)[0].items())


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize(("batch", "free"), [(1, 0), (3, 5), (5, 17), (7, 1)])
def test_padded_answers_equal_unpadded_ones(served: Recommender, graph: str, batch: int, free: int) -> None:
    signature, engine = served.manifest.signature[graph], served._engine
    inputs = some(signature, sizes_of(batch, free), seed=batch)
    expected = engine.run(graph, inputs)
    padded, sizes = pad_up(signature, inputs)
    if graph in ("item_vectors", "similar"):  # a caller may not ask for item 0
        found = engine._execute(graph, engine._session(graph), padded, None)
    else:
        found = engine.run(graph, padded)
    cut = cut_down(signature, found, sizes)
    assert cut.keys() == expected.keys()
    for name, values in expected.items():
        assert cut[name].shape == values.shape
        if values.dtype == np.int64:
            assert np.array_equal(cut[name], values)
        else:
            np.testing.assert_allclose(cut[name], values, **CLOSE)


@pytest.mark.parametrize("window", [1, 2, 3, 6])
def test_an_answer_never_depends_on_its_window(served: Recommender, window: int) -> None:
    history = np.array([[4, 9, 31, 17, 2, 25]])[:, :window]
    allowed = np.arange(len(ITEMS) + 1) > 0
    answers = [
        served._engine.run(
            "recommend",
            {"item_ids": np.pad(history, ((0, 0), (wide - window, 0))), "exclude": history, "available": allowed},
        )
        for wide in range(window, MAX_SEQ_LENGTH + 1)
    ]
    for answer in answers[1:]:
        assert np.array_equal(answer["items"], answers[0]["items"])
        np.testing.assert_allclose(answer["scores"], answers[0]["scores"], **CLOSE)

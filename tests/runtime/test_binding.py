"""Buffers that stay on the device: the path of a GPU, walked on the CPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from genrec_runtime import Module, Recommender, binding
from genrec_runtime import engine as engines
from genrec_runtime.binding import Bindings
from genrec_runtime.manifest import Signature, TensorSpec
from tiny import ITEMS, Tiny

CPU = ("cpu", 0)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # float32: other shapes add up in another order
MIXED = Signature(
    inputs=(
        TensorSpec("weight", "float32", ()),
        TensorSpec("features", "float32", ("batch", 3)),
        TensorSpec("ids", "int64", ("batch", "length")),
        TensorSpec("mask", "bool", ("length",)),
    ),
    outputs=(
        TensorSpec("places", "int64", (2, "found")),  # its last axis is known when it was computed
        TensorSpec("scaled", "float32", ("batch", 3)),
        TensorSpec("kept", "int64", ("batch", "length")),
    ),
)


@pytest.fixture(scope="module")
def session() -> Any:
    """Of a graph with a scalar, floats, a mask, and an output axis that no input has; its outputs stand in another order."""
    nodes = [
        helper.make_node("Mul", ["features", "weight"], ["scaled"]),
        helper.make_node("Cast", ["mask"], ["counted"], to=7),
        helper.make_node("Mul", ["ids", "counted"], ["kept"]),
        helper.make_node("NonZero", ["kept"], ["places"]),
    ]
    inputs, outputs = (
        [
            helper.make_tensor_value_info(s.name, helper.np_dtype_to_tensor_dtype(np.dtype(s.dtype)), s.axes)
            for s in specs
        ]
        for specs in (MIXED.inputs, reversed(MIXED.outputs))
    )
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def asked(seed: int, batch: int = 2, length: int = 5) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "weight": np.array(random.normal(), np.float32),
        "features": random.normal(size=(batch, 3)).astype(np.float32),
        "ids": random.integers(0, 3, (batch, length)),
        "mask": random.integers(0, 2, length) > 0,
    }


def plain(session: Any, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the session answers without bindings."""
    names = [spec.name for spec in MIXED.outputs]
    return dict(zip(names, session.run(names, inputs), strict=True))


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Bit for bit."""
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert (found[name].dtype, found[name].shape) == (values.dtype, values.shape)
        assert found[name].tobytes() == values.tobytes()


class Spied:
    """onnxruntime, counting the values that are made and the copies to each."""

    def __init__(self) -> None:
        self.copies: list[np.ndarray] = []
        self.made = 0
        self.OrtValue = SimpleNamespace(ortvalue_from_shape_and_type=self.make)

    def __getattr__(self, name: str) -> Any:
        return getattr(onnxruntime, name)

    def make(self, *arguments: Any) -> Any:
        self.made += 1
        value, spy = onnxruntime.OrtValue.ortvalue_from_shape_and_type(*arguments), self
        update = value.update_inplace

        def spied(array: np.ndarray) -> None:
            spy.copies.append(array)
            update(array)

        value.update_inplace = spied
        return value


# --- answers


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (2, 5), (7, 3), (0, 5), (2, 0), (0, 0)])
def test_answers_equal_the_sessions_bit_for_bit(session: Any, batch: int, length: int) -> None:
    bindings = Bindings(onnxruntime, session, MIXED, CPU)
    for seed in range(4):  # again on the same buffers, with another number of places found
        inputs = asked(seed, batch, length)
        assert_same(bindings.run(inputs), plain(session, inputs))


def test_inputs_may_lie_in_memory_in_any_order(session: Any) -> None:
    inputs = asked(1, 4, 6)
    other = {
        "weight": inputs["weight"],
        "features": np.asfortranarray(inputs["features"]),
        "ids": np.repeat(inputs["ids"], 2, axis=1)[:, ::2],
        "mask": inputs["mask"][::-1][::-1],
    }
    assert_same(Bindings(onnxruntime, session, MIXED, CPU).run(other), plain(session, inputs))


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_every_whole_type_that_a_signature_may_state_is_bound(dtype: str) -> None:
    number = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    values = [helper.make_tensor_value_info(name, number, ["n"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    bindings = Bindings(
        onnxruntime, session, Signature((TensorSpec("x", dtype, ("n",)),), (TensorSpec("y", dtype, ("n",)),)), CPU
    )
    for x in (np.array([0, 1, 1], dtype), np.array([1, 0, 1], dtype)):
        assert_same(bindings.run({"x": x}), {"y": x})


def test_an_earlier_answer_is_not_changed_by_a_later_run(session: Any) -> None:
    bindings = Bindings(onnxruntime, session, MIXED, CPU)
    first = bindings.run(asked(1))
    before = {name: values.copy() for name, values in first.items()}
    second = bindings.run(asked(2))
    assert_same(first, before)
    assert any(first[name].tobytes() != second[name].tobytes() for name in first)
    for values in second.values():
        values[...] = 0  # an answer is its caller's own
    assert_same(bindings.run(asked(2)), plain(session, asked(2)))


# --- buffers


def test_buffers_of_a_shape_are_made_once(session: Any) -> None:
    build = Spied()
    bindings = Bindings(build, session, MIXED, CPU)
    for seed in range(5):
        bindings.run(asked(seed))
    assert build.made == 4 + 2  # the inputs, and the outputs whose size is known
    bindings.run(asked(0, batch=3))
    assert build.made == 2 * (4 + 2)
    bindings.run(asked(0))
    assert build.made == 2 * (4 + 2)


def test_a_read_only_input_is_copied_once_and_another_one_again(session: Any) -> None:
    build = Spied()
    bindings = Bindings(build, session, MIXED, CPU)
    masks = [np.array(mask, bool) for mask in ([1, 1, 0, 0, 1], [0, 1, 1, 1, 0])]
    for mask in masks:
        mask.setflags(write=False)
    for mask in (masks[0], masks[0], masks[1], masks[0], masks[0]):
        inputs = asked(3) | {"mask": mask}
        assert_same(bindings.run(inputs), plain(session, inputs))
    copied = [array for array in build.copies if array.dtype == np.bool_]
    assert len(copied) == 3  # of five runs, the second and the last had the mask of the one before
    assert len(build.copies) == 5 * 3 + 3


def test_a_writeable_input_that_was_changed_in_place_is_seen(session: Any) -> None:
    bindings, inputs = Bindings(onnxruntime, session, MIXED, CPU), asked(5)
    for place in range(5):
        inputs["ids"][:, place] = place + 1
        inputs["mask"][place] = ~inputs["mask"][place]
        inputs["features"] *= 2
        assert_same(bindings.run(inputs), plain(session, inputs))


def test_an_input_that_was_read_only_once_is_copied_when_it_is_writeable(session: Any) -> None:
    bindings, inputs = Bindings(onnxruntime, session, MIXED, CPU), asked(5)
    mask = inputs["mask"]
    mask.setflags(write=False)
    bindings.run(inputs)
    mask.setflags(write=True)
    mask[:] = ~mask
    assert_same(bindings.run(inputs), plain(session, inputs))


def test_a_failed_run_leaves_nothing_behind(session: Any) -> None:
    bindings = Bindings(onnxruntime, session, MIXED, CPU)
    mask = np.ones(5, bool)
    mask.setflags(write=False)
    inputs = asked(1) | {"mask": mask}
    stopped = onnxruntime.RunOptions()
    stopped.terminate = True
    stopped.log_severity_level = 4
    with pytest.raises(Exception, match="terminate"):
        bindings.run(inputs, stopped)
    with pytest.raises(Exception, match="Inplace update"):
        bindings.run(inputs | {"features": np.array([["a"] * 3] * 2)})
    assert_same(bindings.run(inputs), plain(session, inputs))


def test_the_buffers_of_the_least_recent_shapes_are_let_go(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "SHAPES", 3)
    bindings = Bindings(onnxruntime, session, MIXED, CPU)
    for batch in (1, 2, 3, 1, 4, 5):
        inputs = asked(batch, batch)
        assert_same(bindings.run(inputs), plain(session, inputs))
    assert [shapes[1][0] for shapes in bindings._free] == [1, 4, 5]


@pytest.mark.parametrize("captured", [False, True])
def test_16_threads_with_mixed_shapes_get_the_answers_of_one(session: Any, captured: bool) -> None:
    bindings = Bindings(onnxruntime, session, MIXED, CPU, captured=captured)
    shared = np.array([1, 0, 1, 1], bool)
    shared.setflags(write=False)
    requests = [asked(seed, 1 + seed % 5, 4) | ({"mask": shared} if seed % 3 else {}) for seed in range(320)]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(bindings.run, requests))
    for answer, inputs in zip(found, requests, strict=True):
        assert_same(answer, plain(session, inputs))
    made = sum(map(len, bindings._free.values()))
    assert made == bindings._made  # each came back
    assert made == 5 if captured else 5 <= made <= 5 * 16


# --- captured graphs


class Recording:
    """A session that keeps the number of the graph of each run, and whether two runs met."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._inside = threading.Lock()
        self.numbers: list[tuple[int, str]] = []
        self.met = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run_with_iobinding(self, bound: Any, options: Any) -> None:
        if not self._inside.acquire(blocking=False):
            self.met = True
            return
        try:
            self.numbers.append((id(bound), options.get_run_config_entry("gpu_graph_id")))
            self._session.run_with_iobinding(bound, options)
        finally:
            self._inside.release()


def test_captured_runs_wait_for_one_another_and_each_set_of_buffers_keeps_its_number(
    session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binding, "SHAPES", 3)
    recording = Recording(session)
    bindings = Bindings(onnxruntime, recording, MIXED, CPU, captured=True)
    kept: list[Any] = []  # buffers that were let go stay alive, so that no id is given twice
    take = bindings._take
    monkeypatch.setattr(bindings, "_take", lambda shapes: kept.append(taken := take(shapes)) or taken)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda seed: bindings.run(asked(seed, 1 + seed % 5)), range(160)))
    for seed, answer in enumerate(found):
        assert_same(answer, plain(session, asked(seed, 1 + seed % 5)))
    assert not recording.met
    assert len(recording.numbers) == 160
    pairs = set(recording.numbers)
    assert len(pairs) == len({bound for bound, _ in pairs}) == len({number for _, number in pairs})
    assert all(int(number) >= 1 for _, number in pairs)  # 0 and -1 mean something else to onnxruntime


def test_a_captured_run_with_options_keeps_them(session: Any) -> None:
    recording = Recording(session)
    bindings = Bindings(onnxruntime, recording, MIXED, CPU, captured=True)
    options = onnxruntime.RunOptions()
    bindings.run(asked(1), options)
    bindings.run(asked(2))
    assert options.get_run_config_entry("gpu_graph_id") == "1"
    assert [number for _, number in recording.numbers] == ["1", "1"]


# --- the engine's path of a GPU


def bound(served: Recommender | Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on runs go through bindings, as on a GPU."""
    engine = served._engine
    monkeypatch.setattr(engines, "CUDA", "CPUExecutionProvider")
    monkeypatch.setattr(engine, "_gpu", CPU)
    engine._sessions.clear()


@pytest.fixture
def on_device(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recommender]:
    """The tiny bundle, run through bindings as on a GPU."""
    with Recommender.load(tiny.path, device="cpu", threads=1) as recommender:
        bound(recommender, monkeypatch)
        yield recommender
        assert recommender._engine._bindings


def drawn(random: np.random.Generator, count: int) -> list[list[Any]]:
    return [
        [ITEMS[i] if i < len(ITEMS) else "?" for i in random.integers(0, len(ITEMS) + 2, random.integers(0, 12))]
        for _ in range(count)
    ]


def assert_close(found: Any, expected: Any) -> None:
    for row, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(row, other, **CLOSE)


@pytest.mark.parametrize("seed", range(20))
def test_a_device_recommends_what_the_cpu_does(served: Recommender, on_device: Recommender, seed: int) -> None:
    random = np.random.default_rng(seed)
    count = int(random.choice([1, 2, 3, 9, 33]))
    histories, k = drawn(random, count), int(random.integers(1, 21))
    options: dict[str, Any] = {"k": k, "exclude_seen": bool(seed % 2)}
    if seed % 3:
        options["exclude"] = drawn(random, count)
    if seed % 4 == 1:
        options["candidates"] = drawn(random, count)
    if seed % 4 == 2:
        options["available"] = random.choice(ITEMS, 7, replace=False).tolist()
    found, expected = (recommender.recommend(histories, **options) for recommender in (on_device, served))
    assert (found.items, found.status, found.unknown_items) == (expected.items, expected.status, expected.unknown_items)
    assert_close(found.scores, expected.scores)


def test_a_device_answers_every_kind_of_question_as_the_cpu_does(served: Recommender, on_device: Recommender) -> None:
    random = np.random.default_rng(1)
    for count in (1, 5, 16, 17):
        histories = drawn(random, count)
        pools = [random.choice(ITEMS, random.integers(0, 20)).tolist() for _ in range(count)]
        some = random.choice(ITEMS, count).tolist()
        assert_close(on_device.score(histories, pools), served.score(histories, pools))
        assert_close(on_device.encode(histories), served.encode(histories))
        assert_close(on_device.item_vectors(some), served.item_vectors(some))
        found, expected = on_device.similar(some, k=5), served.similar(some, k=5)
        assert found.items == expected.items
        assert_close(found.scores, expected.scores)
    on_device.selftest()


def test_a_device_sees_at_once_what_may_be_recommended(on_device: Recommender) -> None:
    rows = [["item 01", "item 07"]]
    everything = on_device.recommend(rows, k=20).items[0]
    for kept in (everything[::2], everything[1::2], everything[:3]):
        on_device.set_available(kept)
        assert on_device.recommend(rows, k=len(kept)).items[0] == kept
        assert on_device.recommend(rows, k=20, available=kept[1:]).items[0] == kept[1:]
    on_device.set_available(None)
    assert on_device.recommend(rows, k=20).items[0] == everything


def test_a_device_keeps_its_copy_of_what_may_be_recommended(
    on_device: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = Spied()
    on_device.recommend([["item 01"]])
    monkeypatch.setattr(on_device._engine._bindings["recommend"], "_ort", build)
    for _ in range(4):
        on_device.recommend([["item 01"]] * 3)
    assert [array.dtype.kind for array in build.copies].count("b") == 1
    assert [array.dtype.kind for array in build.copies].count("i") == 4 * 2


def test_a_device_meets_few_shapes(on_device: Recommender) -> None:
    random = np.random.default_rng(3)
    for count in range(1, 33):
        on_device.recommend([row[:11] for row in drawn(random, count) if len(row)] or [["item 01"]])
    # 1, 2, 4, 8, 16 and 32 rows; one window up to 6; exclusions up to 16; and the shape of the golden requests
    assert len(on_device._engine._bindings["recommend"]._free) <= 6 + 1


def test_warming_up_meets_every_shape_that_requests_take_later(on_device: Recommender) -> None:
    on_device.warmup(8)
    before = on_device._engine._bindings["recommend"]._made
    random = np.random.default_rng(4)
    for count in (1, 2, 3, 5, 8):
        on_device.recommend(drawn(random, count))
    assert on_device._engine._bindings["recommend"]._made == before


def test_a_module_answers_the_same_through_bindings(
    features: Path, monkeypatch: pytest.MonkeyPatch, write_module: Callable[..., Path], tmp_path: Path
) -> None:
    module = Module.load(features, device="cpu", threads=1)
    bound(module, monkeypatch)
    for rows, length in ((1, 1), (3, 5), (2, 0), (3, 5)):
        ids, mask = np.full((rows, length), 7), np.ones((rows, length), int)
        mask[:, ::2] = 0
        table = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3) / 7
        found = module.run(item_ids=ids, mask=mask, features=table)
        assert_same(found, {"kept": ids * mask, "doubled": table + table})
    assert len(module._engine._bindings["module"]._free) == 3 + 1  # three here, and that of the golden request

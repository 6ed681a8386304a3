from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec_runtime import InputError, Module, Recommender, load
from genrec_runtime.manifest import Signature, TensorSpec
from tiny import Tiny

IDS = np.array([[3, 8], [1, 2]])
MASK = np.array([[1, 0], [1, 1]])
NUMBERS = np.array([[0.5, 1, 2], [3, 4, 5]], np.float32)


@pytest.fixture(scope="module")
def module(features: Path) -> Module:
    return Module.load(features, device="cpu", threads=1)


def run(module: Module, **change: Any) -> dict[str, np.ndarray]:
    return module.run(**{"item_ids": IDS, "mask": MASK, "features": NUMBERS, **change})


def test_named_arrays_go_in_and_come_out(module: Module) -> None:
    outputs = run(module)
    assert outputs["kept"].tolist() == [[3, 0], [1, 2]]
    assert outputs["doubled"].tolist() == [[1, 2, 4], [6, 8, 10]]
    module.selftest()
    assert module.manifest.kind == "module"
    assert module.device_report.providers == ("CPUExecutionProvider",)


@pytest.mark.parametrize(
    "ids",
    [
        pytest.param(IDS.astype(np.int32), id="fault_05 int32"),
        pytest.param(IDS.astype(np.uint8), id="fault_05 uint8"),
        pytest.param(IDS.astype(np.uint64), id="fault_06 uint64"),
        pytest.param(IDS.tolist(), id="fault_14 lists"),
        pytest.param(np.asfortranarray(IDS), id="fault_23 Fortran order"),
        pytest.param(np.repeat(IDS, 3, 1)[:, ::3], id="fault_23 strided"),
        pytest.param(IDS[::-1, ::-1].copy()[::-1, ::-1], id="fault_23 reversed view"),
        pytest.param(IDS.astype(">i8"), id="fault_24 big-endian"),
        pytest.param(IDS.astype(">i2"), id="fault_24 big-endian and narrow"),
    ],
)
def test_whole_numbers_of_any_width_and_layout_give_the_same(module: Module, ids: Any) -> None:
    assert run(module, item_ids=ids)["kept"].tolist() == [[3, 0], [1, 2]]


@pytest.mark.parametrize("dtype", [np.float16, ">f4"])
def test_narrower_floats_and_other_byte_orders_are_taken(module: Module, dtype: Any) -> None:
    assert run(module, features=NUMBERS.astype(dtype))["doubled"].tolist() == [[1, 2, 4], [6, 8, 10]]


def test_a_mask_may_be_bool(module: Module) -> None:
    assert run(module, mask=MASK.astype(bool))["kept"].tolist() == [[3, 0], [1, 2]]


def test_fault_15_no_rows_give_no_rows(module: Module) -> None:
    outputs = run(module, item_ids=IDS[:0], mask=MASK[:0], features=NUMBERS[:0])
    assert (outputs["kept"].shape, outputs["doubled"].shape) == ((0, 2), (0, 3))


def test_fault_25_inputs_are_not_changed_and_fault_45_tensors_are_read(module: Module) -> None:
    torch = pytest.importorskip("torch")
    frozen = IDS.copy()
    frozen.setflags(write=False)
    assert run(module, item_ids=frozen)["kept"].tolist() == [[3, 0], [1, 2]]
    assert run(module, item_ids=torch.from_numpy(IDS))["kept"].tolist() == [[3, 0], [1, 2]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            {"item_ids": np.array([[3, 9], [1, 2]])}, r"item_ids holds 9 at \(0, 1\), allowed are 1", id="fault_01"
        ),
        pytest.param({"item_ids": -IDS}, "item_ids holds -3", id="fault_02 negative"),
        pytest.param(
            {"item_ids": (IDS.astype(np.uint64) + 2**63)}, "must be int64, not uint64", id="fault_06 beyond int64"
        ),
        pytest.param({"item_ids": IDS > 2}, "item_ids must be int64, not bool", id="fault_07 bools"),
        pytest.param({"item_ids": IDS * 1.0}, "must be int64, not float64", id="fault_08 floats"),
        pytest.param({"item_ids": [[3, 2**64], [1, 2]]}, "must be int64, not object", id="fault_10 beyond 64 bits"),
        pytest.param({"item_ids": [["3", "8"], ["1", "2"]]}, "must be int64, not <U1", id="fault_11 strings"),
        pytest.param({"item_ids": [[3, None], [1, 2]]}, "must be int64, not object", id="fault_12 None"),
        pytest.param({"item_ids": [[3, 8], [1]]}, "item_ids cannot be read as an array", id="fault_14 ragged"),
        pytest.param({"item_ids": np.ma.masked_equal(IDS, 3)}, "is a MaskedArray", id="fault_27 masked"),
        pytest.param(
            {"item_ids": np.ones((2, 6), int), "mask": np.ones((2, 6), int)}, "at most 5 are served", id="fault_18"
        ),
        pytest.param(
            {"features": NUMBERS.astype(np.float64)}, "must be float32, not float64", id="fault_08 wider floats"
        ),
        pytest.param({"features": NUMBERS * np.float32(np.inf)}, r"features holds inf at \(0, 0\)", id="fault_41 inf"),
        pytest.param({"feature": NUMBERS}, "must be item_ids, mask, features; got .*feature", id="fault_42 misspelt"),
        pytest.param({"features": NUMBERS[:1]}, "features has 1 along 'batch' where 2 is needed", id="fault_43 rows"),
        pytest.param(
            {"mask": np.ones((2, 3), int)}, "mask has 3 along 'length' where 2 is needed", id="fault_43 length"
        ),
    ],
)
def test_inputs_that_do_not_fit_are_refused(module: Module, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(module, **change)


def test_load_opens_a_bundle_as_what_it_is(features: Path, tiny: Tiny) -> None:
    assert isinstance(load(features, device="cpu", threads=1), Module)
    assert isinstance(load(tiny.path, device="cpu", threads=1), Recommender)


def test_a_module_may_take_nothing_but_floats(write_module: Callable[..., Path], tmp_path: Path) -> None:
    from onnx import helper

    signature = Signature((TensorSpec("x", "float64", ("n",)),), (TensorSpec("y", "float64", ("n",)),))
    goldens = {"0.in.x": np.array([4.0]), "0.out.y": np.array([2.0])}
    node = helper.make_node("Sqrt", ["x"], ["y"])
    module = Module.load(write_module(tmp_path / "b", [node], signature, goldens=goldens), device="cpu", threads=1)
    module.selftest()
    assert module.run(x=np.array([9, 16], np.float32))["y"].tolist() == [3, 4]

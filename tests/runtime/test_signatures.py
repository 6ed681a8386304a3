from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from genrec_runtime import BundleCorrupt, InputError
from genrec_runtime.manifest import Signature, TensorSpec
from genrec_runtime.signatures import check_inputs, check_session

IDS = TensorSpec("item_ids", "int64", ("batch", "length"), 1, 8)
FEATURES = TensorSpec("features", "float32", ("batch", 3))
SCORES = TensorSpec("scores", "float32", ("batch", 8))
SIGNATURE = Signature((IDS, FEATURES), (SCORES,), {"length": 5})


def inputs(**change: Any) -> dict[str, Any]:
    given = {"item_ids": np.ones((2, 4), np.int64), "features": np.ones((2, 3), np.float32), **change}
    return {name: value for name, value in given.items() if value is not None}


def test_inputs_that_fit_pass() -> None:
    check_inputs(SIGNATURE, inputs())
    check_inputs(SIGNATURE, inputs(item_ids=np.zeros((0, 5), np.int64), features=np.zeros((0, 3), np.float32)))


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        pytest.param(
            {"item_ids": np.array([[9]])}, "id_out_of_range", r"9 at \(0, 0\), allowed are 1 to 8", id="fault_01"
        ),
        pytest.param({"item_ids": np.array([[1], [-1]])}, "id_out_of_range", r"-1 at \(1, 0\)", id="fault_02"),
        pytest.param({"item_ids": np.array([[-(2**63)]])}, "id_out_of_range", "-9223372036854775808", id="fault_03"),
        pytest.param(
            {"item_ids": np.array([[1, 0]])}, "id_out_of_range", r"0 at \(0, 1\)", id="fault_04 the padding id"
        ),
        pytest.param({"item_ids": np.ones((2, 4), np.int32)}, "input_dtype", "must be int64, not int32", id="fault_05"),
        pytest.param({"item_ids": np.ones((2, 4), bool)}, "input_dtype", "must be int64, not bool", id="fault_07"),
        pytest.param({"item_ids": np.ones((2, 4))}, "input_dtype", "must be int64, not float64", id="fault_08"),
        pytest.param({"item_ids": np.array([["a"]])}, "input_dtype", "must be int64, not <U1", id="fault_11"),
        pytest.param({"item_ids": np.array([[None]])}, "input_dtype", "must be int64, not object", id="fault_13"),
        pytest.param(
            {"item_ids": np.ones(4, np.int64)}, "input_shape", r"axes \(batch, length\), got .*\(4,\)", id="fault_20"
        ),
        pytest.param({"item_ids": np.ones((2, 4, 1), np.int64)}, "input_shape", r"shape \(2, 4, 1\)", id="fault_21"),
        pytest.param({"item_ids": np.ones((2, 4), ">i8")}, "input_dtype", "must be int64, not >i8", id="fault_24"),
        pytest.param(
            {"item_ids": np.ones((2, 6), np.int64)}, "input_shape", "6 along 'length', at most 5", id="fault_18"
        ),
        pytest.param({"features": np.float32([[1, np.inf, 1]])}, "input_values", r"inf at \(0, 1\)", id="fault_41 inf"),
        pytest.param({"features": np.float32([[np.nan, 1, 1]])}, "input_values", "nan at", id="fault_41 NaN"),
        pytest.param(
            {"features": None}, "input_names", "must be item_ids, features; got item_ids$", id="fault_42 missing"
        ),
        pytest.param({"feature": np.ones(1)}, "input_names", "got item_ids, features, feature", id="fault_42 extra"),
        pytest.param({"item_ids": None, "features": None}, "input_names", "got none", id="fault_42 nothing"),
        pytest.param(
            {"features": np.ones((3, 3), np.float32)}, "input_shape", "3 along 'batch' where 2", id="fault_43"
        ),
        pytest.param(
            {"features": np.ones((2, 4), np.float32)}, "input_shape", "4 along 3 where 3 is needed", id="fault_43 width"
        ),
    ],
)
def test_inputs_that_do_not_fit_are_refused(change: dict[str, Any], code: str, message: str) -> None:
    given = inputs(**change)
    if "item_ids" in change and change["item_ids"] is not None and len(change["item_ids"]) == 1:
        given["features"] = given["features"][:1]
    if "features" in change and change["features"] is not None and len(change["features"]) == 1:
        given["item_ids"] = given["item_ids"][:1]
    with pytest.raises(InputError, match=message) as caught:
        check_inputs(SIGNATURE, given)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("change", "field", "row", "value"),
    [
        ({"item_ids": np.array([[1, 2], [3, 9]])}, "item_ids", 1, 9),
        ({"item_ids": np.array([[1, 2], [-3, 9]])}, "item_ids", 1, -3),
        ({"features": np.float32([[1, 1, 1], [1, -np.inf, 1]])}, "features", 1, -np.inf),
        ({"item_ids": np.ones((2, 4), np.int32)}, "item_ids", None, "int32"),
        ({"features": np.ones((3, 3), np.float32)}, "features", None, "(3, 3)"),
        ({"features": None}, "features", None, None),
        ({"featurs": np.ones(1)}, "featurs", None, None),
    ],
)
def test_a_refusal_tells_the_input_the_row_and_the_value(
    change: dict[str, Any], field: str, row: int | None, value: Any
) -> None:
    with pytest.raises(InputError, match=r"item_ids|feat") as caught:
        check_inputs(SIGNATURE, inputs(**change))
    assert (caught.value.field, caught.value.row, caught.value.value) == (field, row, value)


def test_a_row_is_told_only_of_inputs_that_have_rows_and_a_range_may_be_open() -> None:
    table = Signature((TensorSpec("table", "int64", ("items",), low=0),), ())
    with pytest.raises(InputError, match=r"table holds -1 at \(2,\), allowed are 0 and above") as caught:
        check_inputs(table, {"table": np.array([1, 2, -1])})
    assert caught.value.row is None
    with pytest.raises(InputError, match="allowed are 5 and below"):
        check_inputs(Signature((TensorSpec("x", "int64", ("batch",), high=5),), ()), {"x": np.array([6])})


def test_the_closest_name_is_offered_for_a_misspelt_one() -> None:
    with pytest.raises(InputError, match=r"got item_ids, featurs; is featurs meant to be features\?$"):
        check_inputs(SIGNATURE, {"item_ids": np.ones((2, 4), np.int64), "featurs": np.ones(1)})


def session(**change: Any) -> SimpleNamespace:
    """A session with SIGNATURE's tensors; a change gives (type, shape) of one of them, None removes it."""
    tensors = {
        "item_ids": ("tensor(int64)", ["batch", "length"]),
        "features": ("tensor(float)", ["batch", 3]),
        "scores": ("tensor(float)", ["batch", 8]),
        **change,
    }
    found = {
        name: SimpleNamespace(name=name, type=value[0], shape=value[1])
        for name, value in tensors.items()
        if value is not None
    }
    outputs = [found.pop("scores")] if "scores" in found else []
    return SimpleNamespace(get_inputs=lambda: list(found.values()), get_outputs=lambda: outputs)


def test_a_graph_as_stated_passes() -> None:
    check_session("g", SIGNATURE, session())
    check_session("g", SIGNATURE, session(scores=("tensor(float)", ["s0", "8*s1"])))  # as torch's exporter names axes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": None}, "has the inputs item_ids, the manifest says item_ids, features"),
        ({"more": ("tensor(float)", [])}, "has the inputs item_ids, features, more"),
        ({"scores": None}, "has the outputs , the manifest says scores"),
        ({"item_ids": ("tensor(int32)", ["batch", "length"])}, r"has item_ids tensor\(int32\)"),
        ({"item_ids": ("tensor(int64)", ["batch"])}, r"has item_ids tensor\(int64\) \['batch'\]"),
        ({"features": ("tensor(float)", ["batch", 4])}, r"the manifest says float32 \['batch', 3\]"),
        ({"scores": ("tensor(float)", ["batch", 9])}, r"has scores tensor\(float\) \['batch', 9\]"),
    ],
)
def test_fault_73_a_graph_that_is_not_as_stated_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleCorrupt, match=message):
        check_session("g", SIGNATURE, session(**change))

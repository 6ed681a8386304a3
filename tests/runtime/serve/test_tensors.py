"""The Open Inference Protocol: a client that nobody here wrote, and requests that contradict themselves."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec_runtime import Recommender
from serving import Running, running
from tiny import Tiny

triton = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")

HISTORIES = [["item 03", "item 11", "item 07"], [], ["item 36", "nobody's"]]
REQUEST = {
    "inputs": [
        {
            "name": "history",
            "shape": [2, 3],
            "datatype": "BYTES",
            "data": ["item 03", "item 11", "", "item 05", "", ""],
        },
        {"name": "lengths", "shape": [2], "datatype": "INT64", "data": [2, 1]},
        {"name": "k", "shape": [1], "datatype": "INT64", "data": [4]},
        {"name": "exclude", "shape": [2, 2], "datatype": "BYTES", "data": ["item 01", "item 02", "item 08", ""]},
        {"name": "exclude_lengths", "shape": [2], "datatype": "INT64", "data": [2, 1]},
    ]
}


@pytest.fixture(scope="module")
def service(tiny: Tiny) -> Iterator[Running]:
    with running(tiny.path) as service:
        yield service


@pytest.fixture
def client(service: Running) -> Iterator[Any]:
    client = triton.InferenceServerClient(f"127.0.0.1:{service.port}")
    yield client
    client.close()


def tensor(name: str, values: Any, datatype: str) -> Any:
    array = np.array(values, dtype=np.object_ if datatype == "BYTES" else np.int64)
    found = triton.InferInput(name, list(array.shape), datatype)
    found.set_data_from_numpy(array, binary_data=False)
    return found


def padded(rows: list[list[Any]], fill: Any) -> list[list[Any]]:
    width = max(map(len, rows))
    return [row + [fill] * (width - len(row)) for row in rows]


# --- tritonclient


def test_tritons_client_finds_the_model_and_that_it_is_ready(client: Any, tiny: Tiny) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("sasrec")
    assert client.is_model_ready("sasrec", tiny.path.name)
    assert not client.is_model_ready("other")
    assert client.get_server_metadata()["name"] == "genrec"
    index = client.get_model_repository_index()
    assert [(entry["name"], entry["version"], entry["state"]) for entry in index] == [
        ("sasrec", tiny.path.name, "READY")
    ]
    found = client.get_model_metadata("sasrec")
    assert {entry["name"]: (entry["datatype"], entry["shape"]) for entry in found["inputs"]} == {
        "history": ("BYTES", [-1, -1]),
        "lengths": ("INT64", [-1]),
        "k": ("INT64", [1]),
        "exclude": ("BYTES", [-1, -1]),
        "exclude_lengths": ("INT64", [-1]),
    }
    assert [entry["name"] for entry in found["outputs"]] == ["items", "scores", "counts"]


@pytest.mark.parametrize("asks_for_outputs", [True, False])
def test_tritons_client_gets_what_recommend_gives(client: Any, served: Recommender, asks_for_outputs: bool) -> None:
    inputs = [
        tensor("history", padded(HISTORIES, ""), "BYTES"),
        tensor("lengths", list(map(len, HISTORIES)), "INT64"),
        tensor("k", [7], "INT64"),
        tensor("exclude", [["item 20", "item 21"], ["item 22", ""], ["", ""]], "BYTES"),
        tensor("exclude_lengths", [2, 1, 0], "INT64"),
    ]
    names = ("items", "scores", "counts")
    outputs = [triton.InferRequestedOutput(name, binary_data=False) for name in names] if asks_for_outputs else None
    found = client.infer("sasrec", inputs, outputs=outputs, request_id="mine")
    expected = served.recommend(HISTORIES, k=7, exclude=[["item 20", "item 21"], ["item 22"], []])
    assert found.as_numpy("items").tolist() == expected.items
    np.testing.assert_array_equal(found.as_numpy("scores"), np.array(expected.scores))
    assert found.as_numpy("counts").tolist() == [7, 7, 7]
    response = found.get_response()
    assert (response["model_name"], response["model_version"], response["id"]) == (
        "sasrec",
        served.manifest.version,
        "mine",
    )


def test_rows_that_are_short_are_filled_up_and_counted(client: Any, served: Recommender) -> None:
    everything = [item for item in served.catalogue.items.all() if item != "item 09"]
    found = client.infer("sasrec", [tensor("history", [everything], "BYTES"), tensor("k", [3], "INT64")])
    assert found.as_numpy("items").tolist() == [["item 09", "", ""]]
    assert found.as_numpy("scores").shape == (1, 3)
    assert found.as_numpy("scores")[0, 1:].tolist() == [0.0, 0.0]
    assert found.as_numpy("counts").tolist() == [1]


def test_int_ids_are_int64(numbers: Path) -> None:
    with running(numbers, name="mean") as service:
        client = triton.InferenceServerClient(f"127.0.0.1:{service.port}")
        found = client.infer("mean", [tensor("history", [[2**62, -7]], "INT64"), tensor("k", [4], "INT64")])
        expected = Recommender.load(numbers, device="cpu", threads=1).recommend([[2**62, -7]], k=4)
        assert found.as_numpy("items").dtype == np.int64
        assert found.as_numpy("items").tolist() == expected.items
        client.close()


@pytest.mark.parametrize(
    ("model", "inputs", "status", "said"),
    [
        ("other", [tensor("history", [["item 03"]], "BYTES")], "404", "no model 'other'"),
        ("sasrec", [tensor("history", [[3]], "INT64")], "400", "datatype ('INT64') must be BYTES"),
        ("sasrec", [tensor("k", [3], "INT64")], "400", "history is missing"),
    ],
)
def test_tritons_client_is_told_what_was_wrong(
    client: Any, model: str, inputs: list[Any], status: str, said: str
) -> None:
    with pytest.raises(Exception, match=f"(?s)\\[{status}\\].*") as caught:
        client.infer(model, inputs)
    assert said in str(caught.value)


def test_binary_tensors_are_refused_with_what_to_do(client: Any) -> None:
    binary = triton.InferInput("history", [1, 1], "BYTES")
    binary.set_data_from_numpy(np.array([["item 03"]], dtype=np.object_))
    with pytest.raises(Exception, match="binary_data=False"):
        client.infer("sasrec", [binary])


# --- the protocol itself


def infer(service: Running, body: Any) -> Any:
    return service.ask("POST", "/v2/models/sasrec/infer", body)


def test_data_may_be_nested_or_flat(service: Running, served: Recommender) -> None:
    nested = copy.deepcopy(REQUEST)
    nested["inputs"][0]["data"] = [["item 03", "item 11", ""], ["item 05", "", ""]]
    one, two = (infer(service, body).json for body in (REQUEST, nested))
    assert one == two
    histories, exclude = [["item 03", "item 11"], ["item 05"]], [["item 01", "item 02"], ["item 08"]]
    expected = served.recommend(histories, k=4, exclude=exclude)
    outputs = {entry["name"]: entry for entry in one["outputs"]}
    assert outputs["items"] == {
        "name": "items",
        "datatype": "BYTES",
        "shape": [2, 4],
        "data": [*expected.items[0], *expected.items[1]],
    }
    assert outputs["counts"] == {"name": "counts", "datatype": "INT64", "shape": [2], "data": [4, 4]}
    assert "id" not in one


def test_only_the_outputs_asked_for_are_given_in_their_order(service: Running) -> None:
    found = infer(service, {**REQUEST, "outputs": [{"name": "counts"}, {"name": "items"}]}).json
    assert [entry["name"] for entry in found["outputs"]] == ["counts", "items"]


def test_an_id_that_has_no_utf_8_comes_back(service: Running) -> None:
    assert infer(service, {**REQUEST, "id": "\ud800"}).json["id"] == "\ud800"


def test_no_rows_are_an_answer_of_no_rows(service: Running) -> None:
    body = {"inputs": [{"name": "history", "shape": [0, 3], "datatype": "BYTES", "data": []}]}
    outputs = {entry["name"]: entry["shape"] for entry in infer(service, body).json["outputs"]}
    assert outputs == {"items": [0, 10], "scores": [0, 10], "counts": [0]}


Change = Callable[[dict[str, Any]], None]


def put(place: int, **fields: Any) -> Change:
    return lambda body: body["inputs"][place].update(fields)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda body: body.pop("inputs"), "inputs (None) must be a list", id="fault_106 no inputs"),
        pytest.param(lambda body: body.update(inputs={}), "inputs ({}) must be a list", id="fault_106 inputs no list"),
        pytest.param(lambda body: body.update(inputs=["x"]), "inputs[0].name (None)", id="fault_106 a text as input"),
        pytest.param(put(1, name="length"), "inputs[1].name ('length') must be one of", id="fault_106 misspelt"),
        pytest.param(put(1, name=["x"]), "inputs[1].name (['x'])", id="fault_106 a name that is a list"),
        pytest.param(put(1, name="history"), "inputs[1].name ('history')", id="fault_106 an input twice"),
        pytest.param(lambda body: body["inputs"].pop(0), "history is missing", id="fault_106 no history"),
        pytest.param(put(0, datatype="INT64"), "history: datatype ('INT64') must be BYTES", id="fault_106 datatype"),
        pytest.param(put(0, datatype=None), "history: datatype (None)", id="fault_106 no datatype"),
        pytest.param(put(0, shape=[6]), "history: shape ([6]) must be 2 sizes", id="fault_106 axes"),
        pytest.param(put(0, shape=[2, -1]), "history: shape ([2, -1])", id="fault_106 a negative size"),
        pytest.param(put(0, shape=[2, True]), "history: shape ([2, True])", id="fault_106 a size that is a bool"),
        pytest.param(put(0, shape=[2, 2**40]), "history: shape", id="fault_106 a huge size"),
        pytest.param(put(0, shape=[3, 3]), "6 values for the shape [3, 3]", id="fault_106 the shape's product"),
        pytest.param(put(0, shape="2,3"), "history: shape ('2,3') must be a list", id="fault_106 a shape as text"),
        pytest.param(put(0, data=[["a"], ["b", "c"]]), "must be 2 lists of 3", id="fault_106 ragged"),
        pytest.param(put(0, data=[1, 2, 3, 4, 5, 6]), "holds 1, which is no BYTES", id="fault_106 ints as texts"),
        pytest.param(put(0, data=None), "history: data (None)", id="fault_106 no data"),
        pytest.param(put(1, data=[2, True]), "holds True, which is no INT64", id="fault_106 a bool as number"),
        pytest.param(put(1, data=[2, 1.0]), "holds 1.0, which is no INT64", id="fault_106 a float as number"),
        pytest.param(put(1, data=[2, 2**63]), "beyond 64 bits", id="fault_106 too large a number"),
        pytest.param(put(1, data=[2, 4]), "lengths must lie in 0..3", id="fault_106 a length above the width"),
        pytest.param(put(1, data=[2, -1]), "lengths must lie in 0..3", id="fault_106 a negative length"),
        pytest.param(
            put(1, shape=[1], data=[2]), "lengths has 1 entries, history has 2", id="fault_106 too few lengths"
        ),
        pytest.param(put(2, shape=[2], data=[4, 4]), "k: shape must be [1], not [2]", id="fault_106 two k"),
        pytest.param(put(2, data=[0]), "k (0)", id="fault_106 k is 0"),
        pytest.param(put(3, shape=[1, 4]), "exclude has 1 rows, history has 2", id="fault_106 rows of exclude"),
        pytest.param(lambda body: body.update(outputs=[{"name": "x"}]), "'x' is none of", id="fault_106 an output"),
        pytest.param(lambda body: body.update(outputs=3), "outputs (3) must be a list", id="fault_106 outputs no list"),
        pytest.param(lambda body: body.update(id=3), "id (3) must be a text", id="fault_106 an id that is no text"),
        pytest.param(lambda body: body.update(parameters=3), "parameters (3)", id="fault_106 parameters"),
        pytest.param(lambda body: body.update(parameters={"timeout": 0}), "timeout (0)", id="fault_106 timeout"),
        pytest.param(
            lambda body: body["inputs"].append(
                {"name": "users", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]}
            ),
            "inputs[5].name ('users')",
            id="fault_106 an input that the model does not read",
        ),
    ],
)
def test_what_contradicts_itself_is_refused_with_the_field(service: Running, change: Change, said: str) -> None:
    body = copy.deepcopy(REQUEST)
    change(body)
    reply = infer(service, body)
    assert reply.status == 400, reply.body
    assert said in reply.json["error"]


def test_fault_106_binary_data_without_its_extension_is_refused(service: Running) -> None:
    body = copy.deepcopy(REQUEST)
    del body["inputs"][0]["data"]
    body["inputs"][0]["parameters"] = {"binary_data_size": 8}
    reply = infer(service, body)
    assert (reply.status, "binary tensors are not taken" in reply.json["error"]) == (400, True)


def test_a_deadline_is_given_in_microseconds(service: Running) -> None:
    body = {**REQUEST, "parameters": {"timeout": 1}}
    assert infer(service, body).status == 504
    assert infer(service, {**REQUEST, "parameters": {"timeout": 60_000_000}}).status == 200

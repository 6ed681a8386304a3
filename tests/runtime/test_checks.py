from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genrec_runtime import BundleCorrupt, Unsupported
from genrec_runtime.bundle import Bundle
from genrec_runtime.checks import FURTHER, read_manifest
from timed import write_timed


@pytest.mark.parametrize(
    "name",
    [
        "../weights.bin",
        "/etc/passwd",
        "C:\\weights.bin",
        "golden/../x.npz",
        "golden\\x.npz",
        "deep/x.npz",
        "x\0.bin",
        "weights.bin.",
        "weights.bin ",
        ".hidden",
        "weіghts.bin",  # a Cyrillic letter
        "weights.bin\n",
        "manifest.json",
        "",
        "golden/",
        "..",
    ],
)
def test_fault_66_a_name_that_could_leave_the_bundle_is_refused_before_any_file_is_opened(
    copied: Path, reseal: Callable[..., None], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    reseal(copied, lambda data: data["files"].update({name: data["files"]["weights.bin"]}))
    opened: list[Any] = []
    monkeypatch.setattr("genrec_runtime.bundle._read_verified", lambda *arguments: opened.append(arguments))
    with pytest.raises(BundleCorrupt, match="is no file name of a bundle") as caught:
        Bundle.open(copied)
    assert caught.value.code == "bundle_unsafe"
    assert opened == []


def set_at(pointer: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of one value of a manifest; ``...`` removes it."""

    def change(data: Any) -> None:
        *path, last = [int(part) if part.isdigit() else part for part in pointer.split("|")]
        for part in path:
            data = data[part]
        if value is ...:
            del data[last]
        else:
            data[last] = value

    return change


@pytest.mark.parametrize(
    ("pointer", "value", "message"),
    [
        pytest.param("graphs|recommend", ..., "needs a graph 'recommend'", id="no main graph"),
        pytest.param("graphs|recommend|fp32", ..., "/graphs/recommend has no 'fp32' file", id="no fp32 variant"),
        pytest.param("graphs|score|fp32", "gone.onnx", "names 'gone.onnx', which /files does not", id="no such file"),
        pytest.param("signature|score", ..., "graph 'score' has no /signature", id="no signature"),
        pytest.param("signature|score|inputs", [], "must have inputs and outputs", id="no inputs"),
        pytest.param("signature|encode|outputs|0|dtype", "object", "states has the unknown dtype 'object'", id="dtype"),
        pytest.param("weights|gone.bin", [], "/weights names 'gone.bin'", id="no such weights file"),
        pytest.param("weights|weights.bin|0|offset", 65, "no multiple of 64", id="a crooked offset"),
        pytest.param("weights|weights.bin|0|offset", -64, "negative size", id="a negative offset"),
        pytest.param("weights|weights.bin|0|shape", [-1], "negative size", id="a negative size"),
        pytest.param("weights|weights.bin|0|shape", [2**40, 2**40], "beyond the end of weights.bin", id="a huge size"),
        pytest.param("weights|weights.bin|0|dtype", "complex64", "unknown dtype 'complex64'", id="a foreign dtype"),
        pytest.param("tolerance|atol", -1.0, "/tolerance must not be negative", id="a negative tolerance"),
        pytest.param("semantics", None, "/semantics is missing", id="no semantics"),
        pytest.param("semantics|num_items", 0, "num_items and max_seq_length must be at least 1", id="no items"),
        pytest.param("semantics|pad_id", 1, "pad_id 0", id="another padding"),
        pytest.param("semantics|k_max", 38, r"/semantics/k_max \(38\) must lie in 1\.\.37", id="k_max above V"),
        pytest.param("semantics|k_max", 0, "/semantics/k_max", id="k_max zero"),
        pytest.param("defaults|k", 21, r"/defaults/k \(21\) must lie in 1\.\.20", id="default k above k_max"),
        pytest.param("semantics|num_items", 36, "does not fit 36 items", id="fault_74 num_items"),
        pytest.param(
            "signature|recommend|inputs|0|high", 99, "item_ids does not fit 37 items", id="fault_74 index range"
        ),
        pytest.param("signature|score|inputs|1|low", None, "candidates does not fit 37", id="fault_74 no lower bound"),
        pytest.param(
            "signature|recommend|inputs|2|axes", [5], "available does not fit 37 items", id="fault_74 available"
        ),
        pytest.param("signature|recommend|outputs|0|axes|1", 19, "items does not fit 37 items", id="fault_74 k_max"),
        pytest.param("signature|encode|outputs|0|axes|1", "d", "states does not fit", id="fault_74 free width"),
        pytest.param(
            "signature|score|outputs|0|name", "points", "must take .* and give scores", id="fault_73 output's name"
        ),
        pytest.param(
            "signature|recommend|inputs|1", ..., "must take item_ids, exclude, available", id="fault_73 an input less"
        ),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    copied: Path, reseal: Callable[..., None], pointer: str, value: Any, message: str
) -> None:
    reseal(copied, set_at(pointer, value))
    with pytest.raises(BundleCorrupt, match=message):
        read_manifest((copied / "manifest.json").read_bytes())


def test_weights_may_not_share_a_name(copied: Path, reseal: Callable[..., None]) -> None:
    reseal(copied, lambda data: data["weights"]["weights.bin"].append(data["weights"]["weights.bin"][0]))
    with pytest.raises(BundleCorrupt, match="/weights: a name occurs twice"):
        read_manifest((copied / "manifest.json").read_bytes())


@pytest.mark.parametrize(("graph", "name"), [("recommend", "weather"), ("recommend", "item"), ("similar", "users")])
def test_an_input_that_this_runtime_does_not_feed_is_named_at_loading(
    copied: Path, reseal: Callable[..., None], graph: str, name: str
) -> None:
    more = {"name": name, "dtype": "int64", "axes": ["batch"], "low": 0, "high": 5}
    reseal(copied, lambda data: data["signature"][graph]["inputs"].append(more))
    with pytest.raises(Unsupported, match=f"takes {name}, which this runtime does not feed; upgrade genrec"):
        read_manifest((copied / "manifest.json").read_bytes())


# --- times and users


@pytest.mark.parametrize("reads", [FURTHER, FURTHER[:2], FURTHER[:1], FURTHER[2:], ()])
@pytest.mark.parametrize("window", ["bucketed", "fixed"])
def test_a_model_may_read_times_and_users(tmp_path: Path, reads: tuple[str, ...], window: str) -> None:
    manifest = Bundle.read_manifest(write_timed(tmp_path / "bundle", reads, window=window))
    assert set(FURTHER) & set(manifest.capabilities) == set(reads)


def at_input(graph: str, name: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    """A change of one input; none removes it."""

    def change(data: dict[str, Any]) -> None:
        inputs = data["signature"][graph]["inputs"]
        place = next(i for i, spec in enumerate(inputs) if spec["name"] == name)
        inputs[place : place + 1] = [inputs[place] | values] * bool(values)

    return change


def without(name: str) -> Callable[[dict[str, Any]], None]:
    """A change of every graph and of the capabilities."""

    def change(data: dict[str, Any]) -> None:
        data["capabilities"].remove(name)
        for graph in data["signature"]:
            at_input(graph, name)(data)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            at_input("encode", "users"), "encode takes beside the items timestamps, request_time, and", id="less"
        ),
        pytest.param(at_input("recommend", "users"), "these inputs must be the same", id="more"),
        pytest.param(at_input("score", "users", high=6), "these inputs must be the same", id="other tokens"),
        pytest.param(
            set_at("capabilities", ["recommend", "users"]), "/capabilities must name .*timestamps", id="unnamed"
        ),
        pytest.param(without("timestamps"), "takes request_time without timestamps", id="no times"),
        pytest.param(set_at("semantics|time_unit", None), "/semantics/time_unit must be 's', got None", id="no unit"),
        pytest.param(at_input("score", "users", high=0), "users does not fit", id="no token"),
        pytest.param(at_input("score", "users", high=None), "users does not fit", id="tokens without end"),
        pytest.param(at_input("score", "users", low=1), "users does not fit", id="nobody is left out"),
        pytest.param(at_input("encode", "timestamps", axes=["batch"]), "timestamps does not fit", id="a time a row"),
        pytest.param(
            at_input("encode", "timestamps", dtype="float32"), "timestamps does not fit", id="parts of seconds"
        ),
        pytest.param(at_input("encode", "timestamps", low=0), "timestamps does not fit", id="no time before 1970"),
        pytest.param(at_input("encode", "request_time", high=2**40), "request_time does not fit", id="a later end"),
    ],
)
def test_a_manifest_that_contradicts_itself_about_times_and_users_is_refused(
    tmp_path: Path, reseal: Callable[..., None], change: Callable[[dict[str, Any]], None], message: str
) -> None:
    folder = write_timed(tmp_path / "bundle")
    reseal(folder, change)
    with pytest.raises(BundleCorrupt, match=message):
        Bundle.read_manifest(folder)


@pytest.mark.parametrize(
    ("pointer", "value", "message"),
    [
        ("semantics|time_unit", "s", "/semantics/time_unit must be null, got 's'"),
        ("capabilities", ["recommend", "users"], "/capabilities must name what .*, nothing; got recommend, users"),
    ],
)
def test_a_model_that_reads_neither_times_nor_users_says_so(
    copied: Path, reseal: Callable[..., None], pointer: str, value: Any, message: str
) -> None:
    reseal(copied, set_at(pointer, value))
    with pytest.raises(BundleCorrupt, match=message):
        Bundle.read_manifest(copied)

"""What docs/format.md says a reader refuses, where no other test breaks it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from format_page import at, sealed, table, with_variant
from frozen.second_reader import bundle_id
from genrec.histories import user_index
from genrec_runtime import BundleCorrupt
from genrec_runtime.checks import FURTHER, read_manifest
from timed import LENGTH, USERS, write_timed
from tiny import ITEMS, Tiny


@pytest.fixture
def complete(tiny: Tiny) -> dict[str, Any]:
    """The tiny bundle's manifest, with a variant; one to change."""
    return with_variant(tiny.path)


def refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleCorrupt, match=message):
        read_manifest(sealed(data))


def test_a_content_id_that_is_not_that_of_the_content_is_refused(complete: dict[str, Any]) -> None:
    data = {**complete, "content_id": "0" * 64}
    data["bundle_id"] = bundle_id(data)
    with pytest.raises(BundleCorrupt, match=r"^/content_id is not that of what is served$"):
        read_manifest(json.dumps(data).encode())


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("variants", "half", "files"), ["gone.bin"], "'gone.bin' is not listed in /files"),
        (("variants", "half", "files"), ["score.onnx"], "'score.onnx' is .*another variant's graph"),
        (("variants", "half", "gate"), 1.5, "/variants/half is not described as a variant"),
        (("variants", "half", "tolerance", "atol"), -1, "/variants/half is not described as a variant"),
        (("variants", "fp32"), {"files": [], "tolerance": {"atol": 0, "rtol": 0}, "k": 1, "gate": 0}, "/variants/fp32"),
        (("graphs", "score", "int8"), "score.onnx", "a file for 'int8', which /variants does not describe"),
        (("signature", "recommend", "limits"), {"length": 5}, "only hold a length of at least 6, got {'length': 5}"),
        (("signature", "score", "limits"), {"batch": 9}, "only hold a length of at least 6, got {'batch': 9}"),
        (("signature", "encode", "limits"), {"length": 0}, "/signature/encode/limits must be at least 1"),
    ],
)
def test_variants_and_limits_that_contradict_the_page_are_refused(
    complete: dict[str, Any], place: tuple[str, ...], value: Any, message: str
) -> None:
    read_manifest(sealed(complete))
    at(complete, place[:-1])[place[-1]] = value
    refused(complete, message)


def test_a_module_needs_a_graph_of_that_name(features: Path) -> None:
    data = json.loads((features / "manifest.json").read_bytes())
    data["graphs"] = {"modules": data["graphs"]["module"]}
    data["signature"] = {"modules": data["signature"]["module"]}
    refused(data, "a bundle of kind 'module' needs a graph 'module'")


@pytest.mark.parametrize("name", ["a", "a.", "golden/a", "a/golden/b.npz"])
def test_a_name_of_one_character_or_of_another_folder_is_refused(complete: dict[str, Any], name: str) -> None:
    complete["files"][name] = complete["files"]["README.md"]
    refused(complete, "is no file name of a bundle")


def tensors() -> list[tuple[str, str, dict[str, Any]]]:
    """Graph, tensor and what the page's table says of it, with the numbers of the tiny bundle."""
    numbers = {"V": len(ITEMS), "V + 1": len(ITEMS) + 1, "k_max": 20, "a number": 12, "0": 0, "1": 1}
    found = []
    for row in table("Graphs", "tensor"):
        low, _, high = row["low, high"].partition(", ")
        spec = {
            "name": row["tensor"],
            "dtype": row["dtype"],
            "axes": [numbers.get(axis, axis) for axis in row["axes"].split(", ")],
            "low": numbers.get(low),
            "high": numbers.get(high),
        }
        found += [(graph, row["tensor"], spec) for graph in row["of the graphs"].split(", ")]
    return found


def test_the_table_of_tensors_is_that_of_a_bundle(complete: dict[str, Any]) -> None:
    for graph, signature in complete["signature"].items():
        real = {spec["name"]: spec for way in ("inputs", "outputs") for spec in signature[way]}
        assert real == {tensor: spec for of, tensor, spec in tensors() if of == graph}


@pytest.mark.parametrize(
    ("graph", "tensor", "spec"), tensors(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_recommenders_tensor_must_be_as_the_table_says(
    complete: dict[str, Any], graph: str, tensor: str, spec: dict[str, Any]
) -> None:
    for change in (
        {"dtype": "float64"},
        {"axes": [*spec["axes"], 1]},
        {"axes": ["rows", *spec["axes"][1:]]},
        {"axes": [*spec["axes"][:-1], "another"]},
        {"low": 2},
        {"high": 5},
    ):
        data = json.loads(json.dumps(complete))
        signature = data["signature"][graph]
        place = next(one for way in ("inputs", "outputs") for one in signature[way] if one["name"] == tensor)
        place |= change
        refused(data, f"/signature/{graph}: {tensor} does not fit 37 items")


def test_the_table_of_times_and_users_is_that_of_a_bundle(tmp_path: Path) -> None:
    for window, length in (("bucketed", "length"), ("fixed", LENGTH)):
        data = json.loads((write_timed(tmp_path / window, window=window) / "manifest.json").read_bytes())
        numbers = {"-10^11": -(10**11), "10^11": 10**11, "0": 0, "U": USERS, "length": length}
        stated = []
        for row in table("Times and users", "further input"):
            low, _, high = row["low, high"].partition(", ")
            axes = [numbers.get(axis, axis) for axis in row["axes"].split(", ")]
            spec = {"name": row["further input"], "dtype": row["dtype"], "axes": axes}
            stated.append({**spec, "low": numbers[low], "high": numbers[high]})
        for graph in ("recommend", "score", "encode"):
            found = [spec for spec in data["signature"][graph]["inputs"] if spec["name"] in FURTHER]
            assert found == stated
        read_manifest(sealed(data))


def test_a_users_token_is_hashed_as_the_page_says() -> None:
    for raw in ("ann", "Zoë", 17, -3):
        number = int.from_bytes(hashlib.blake2b(str(raw).encode("utf-8"), digest_size=8).digest(), "big")
        assert user_index(raw, 7) == 1 + number % 7


def test_a_fixed_window_has_a_fixed_length(complete: dict[str, Any]) -> None:
    complete["semantics"]["window"] = "fixed"
    refused(complete, "item_ids does not fit 37 items")
    for graph in ("recommend", "score", "encode"):
        complete["signature"][graph]["inputs"][0]["axes"][1] = complete["semantics"]["max_seq_length"]
    assert read_manifest(sealed(complete)).semantics.window == "fixed"  # type: ignore[union-attr]

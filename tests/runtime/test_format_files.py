"""Bundles are read as docs/format.md says, without genrec: weights, items, recorded requests, graphs, and whole requests."""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from format_page import FROZEN, ROOT, blocks, section, table
from frozen.second_reader import SecondReader, bundle_id, content_id, goldens, items, weights
from genrec_export.interface import GOLDEN_HISTORIES
from genrec_export.surgery import EXTERNAL_FROM
from genrec_runtime import Recommender
from genrec_runtime.bundle import Bundle
from genrec_runtime.checks import ALIGNMENT
from genrec_runtime.compare import compare_lists
from genrec_runtime.graphcheck import MICROSOFT, OPERATORS
from genrec_runtime.manifest import Manifest, Signature, Weight
from genrec_runtime.store import CURRENT, PREVIOUS, hidden_name
from timed import USERS, write_timed
from tiny import ITEMS, Tiny


@pytest.fixture(params=["tiny", "numbers", "features", "timed", "frozen recommender", "frozen module"])
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Bundles of all kinds, one after the other."""
    name = request.param
    if name == "timed":
        return write_timed(tmp_path / "bundle")
    if name.startswith("frozen"):
        return FROZEN / name.split()[1]
    found = request.getfixturevalue(name)
    return found.path if name == "tiny" else found


def test_ids_are_computed_as_the_page_says(bundle: Path) -> None:
    blob = (bundle / "manifest.json").read_bytes()
    data = json.loads(blob)
    assert (data["content_id"], data["bundle_id"]) == (content_id(data), bundle_id(data))
    assert blob == json.dumps(data, indent=2, sort_keys=True).encode() + b"\n"
    assert Bundle.read_manifest(bundle).version == data["content_id"][:12]


def test_the_page_has_the_operators_that_the_writer_allows() -> None:
    operators = blocks("Graphs")[0].split()
    assert sorted(operators) == sorted(OPERATORS[""])
    assert len(set(operators)) == len(operators)
    further = re.findall(r"`([\w.]+)::(\w+)`", section("Graphs"))
    assert sorted(further) == sorted((MICROSOFT, name) for name in OPERATORS[MICROSOFT])
    assert OPERATORS.keys() == {"", MICROSOFT}


def test_weights_read_by_the_page_are_the_models(tiny: Tiny) -> None:
    found = weights(tiny.path)
    parameters = {name: tensor.detach().numpy() for name, tensor in tiny.model.named_parameters()}
    width = parameters["encoder.embedding.weight"].shape[1]
    expected = [parameters["encoder.embedding.weight"]]
    for layer in (0, 1):  # linear maps lie as they multiply: transposed, and without the query's, which is below 1 KiB
        own = f"encoder.transformer.layers.{layer}"
        expected.append(parameters[f"{own}.self_attn.in_proj_weight"][width:].T)
        expected += [parameters[f"{own}.linear{i}.weight"].T for i in (1, 2)]
    assert [array.shape for array in found.values()] == [array.shape for array in expected]
    for array, parameter in zip(found.values(), expected, strict=True):
        np.testing.assert_array_equal(array, parameter)


def test_weights_lie_one_after_the_other_with_zeros_between(bundle: Path) -> None:
    manifest = Bundle.read_manifest(bundle)
    for file, listed in manifest.weights.items():
        content, end = (bundle / file).read_bytes(), 0
        for weight in listed:
            assert weight.offset == -(-end // ALIGNMENT) * ALIGNMENT
            assert not any(content[end : weight.offset])
            end = weight.offset + int(np.prod(weight.shape)) * np.dtype(weight.dtype).itemsize
        assert end == len(content) == manifest.files[file].size


def test_item_files_read_by_the_page_are_the_catalogue(tiny: Tiny) -> None:
    assert items(tiny.path) == ITEMS
    assert items(tiny.path, "titles") == [f"Title of {item}" for item in ITEMS]
    names = {row["file"] for row in table("Items", "file")}
    listed = {name for name, entry in tiny.exported.manifest.files.items() if entry.role == "items"}
    assert {f"`{name}`" for name in listed} | {"`items.npy`"} == {name for cell in names for name in cell.split(", ")}


def test_golden_requests_read_by_the_page_are_those_that_are_replayed(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    for graph, signature in opened.manifest.signature.items():
        cases = goldens(bundle, graph)
        for (inputs, outputs), case in zip(opened.golden(graph), cases.values(), strict=True):
            assert set(case["in"]) == set(inputs) == {spec.name for spec in signature.inputs}
            assert set(case["out"]) == set(outputs) == {spec.name for spec in signature.outputs}


def test_the_cases_of_the_page_are_recorded(tiny: Tiny) -> None:
    named = [row["case"] for row in table("Golden requests", "case")]
    for graph in tiny.exported.manifest.graphs:
        assert list(goldens(tiny.path, graph)) == named
    case = goldens(tiny.path, "recommend")["scarce"]
    assert case["in"]["available"].sum() == 3
    assert np.sum(case["out"]["scores"] > -np.inf) == 2  # one of the three is excluded
    assert len(goldens(tiny.path, "recommend")["edges"]["in"]["item_ids"]) == 5
    assert 1 < len(goldens(tiny.path, "recommend")["lengths"]["in"]["item_ids"]) <= GOLDEN_HISTORIES


def test_graphs_keep_to_the_page(bundle: Path) -> None:
    manifest = Bundle.read_manifest(bundle)
    places = {weight.name: (file, weight) for file, listed in manifest.weights.items() for weight in listed}
    used: dict[str, set[str]] = {}
    for graph, files in manifest.graphs.items():
        for variant, file in files.items():
            model = onnx.load(bundle / file, load_external_data=False)
            check_model(model, manifest, variant)
            for node in model.graph.node:
                used.setdefault(node.domain, set()).add(node.op_type)
            check_values(model, manifest.signature[graph])
            check_tensors(model, places)
    assert manifest.ops in ({domain: tuple(sorted(names)) for domain, names in used.items()}, {})


def check_model(model: onnx.ModelProto, manifest: Manifest, variant: str) -> None:
    domains = {node.domain for node in model.graph.node}
    assert (
        domains == {entry.domain for entry in model.opset_import} <= {"", *([MICROSOFT] if variant == "int8" else [])}
    )
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": manifest.opset} | dict.fromkeys(
        domains - {""}, 1
    )
    assert model.ir_version <= manifest.ir_version
    assert not model.functions
    assert not model.graph.sparse_initializer
    for node in model.graph.node:
        assert node.op_type in OPERATORS[node.domain]
        assert not any(attribute.g.node or attribute.graphs for attribute in node.attribute)


def check_values(model: onnx.ModelProto, signature: Signature) -> None:
    for values, specs in ((model.graph.input, signature.inputs), (model.graph.output, signature.outputs)):
        found = {
            value.name: tuple(axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim)
            for value in values
        }
        assert found == {spec.name: spec.axes for spec in specs}


def check_tensors(model: onnx.ModelProto, places: Mapping[str, tuple[str, Weight]]) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            assert onnx.numpy_helper.to_array(tensor).nbytes < EXTERNAL_FROM
            continue
        file, weight = places[tensor.name]
        size = int(np.prod(weight.shape)) * np.dtype(weight.dtype).itemsize
        entries = {entry.key: entry.value for entry in tensor.external_data}
        assert entries == {"location": file, "offset": str(weight.offset), "length": str(size)}
        assert size >= EXTERNAL_FROM
        assert tuple(tensor.dims) == weight.shape


def test_a_store_is_laid_out_as_the_page_says(tiny: Tiny) -> None:
    store, text = tiny.path.parent, section("A store")
    assert re.fullmatch("[0-9a-f]{12}", tiny.path.name)
    assert sorted(path.name for path in store.iterdir()) == sorted([CURRENT, tiny.path.name])
    assert os.readlink(store / CURRENT) == tiny.path.name
    assert f"`{CURRENT}` and `{PREVIOUS}`" in text
    assert re.fullmatch(rf"\.tmp-{os.getpid()}-[0-9a-f]+", hidden_name())
    assert "`.tmp-PID-HEX`" in text


@pytest.mark.parametrize("name", ["tiny", "numbers", "frozen"])
def test_a_reader_written_from_the_page_alone_recommends_the_same(name: str, request: pytest.FixtureRequest) -> None:
    folder = FROZEN / "recommender" if name == "frozen" else request.getfixturevalue(name)
    folder = folder.path if name == "tiny" else folder
    ours, second = Recommender.load(folder, device="cpu", threads=1), SecondReader(folder)
    raw = ours.catalogue.items.all()
    random = np.random.default_rng(0)
    stranger = "no such item" if isinstance(raw[0], str) else 12345
    for length in (0, 1, 2, 5, 11, 14):
        history = [raw[i] for i in random.integers(0, len(raw), length)]
        exclude, pool = raw[:3], [raw[i] for i in random.integers(0, len(raw), 8)]
        for given in (history, [stranger, *history]):
            same_list(ours.recommend([given], k=8).to_list()[0], second.recommend(given, 8), ours)
            same_list(
                ours.recommend([given], k=5, exclude=[exclude]).to_list()[0], second.recommend(given, 5, exclude), ours
            )
            if given and length:
                found = ours.recommend([given], k=5, candidates=[pool]).to_list()[0]
                same_list(found, second.recommend(given, 5, candidates=pool), ours)


class SecondReaderOfTimes(SecondReader):
    """The second reader for a bundle that takes times and users, as "Times and users" says; all ids are known."""

    def asked(
        self, history: Sequence[Any], times: Sequence[int], now: int | None, user: Any, k: int, **options: Any
    ) -> list[tuple[Any, float]]:
        """One row: (raw id, score), best first."""
        token = int.from_bytes(hashlib.blake2b(str(user).encode("utf-8"), digest_size=8).digest(), "big")
        self.further = {
            "timestamps": self.window([time for time, one in zip(times, history, strict=True) if one in self.items]),
            "request_time": [next(t for t, i in zip(times[::-1], history[::-1], strict=True) if i in self.items)],
            "users": [0 if user is None else 1 + token % USERS],
        }
        if now is not None:
            self.further["request_time"] = [now]
        return self.recommend(history, k, **options)

    def run(self, graph: str, **inputs: Any) -> dict[str, np.ndarray]:
        return super().run(graph, **self.further, **inputs)


@pytest.mark.parametrize(("window", "side"), [("bucketed", "left"), ("fixed", "right")])
def test_times_and_users_are_read_by_the_page_alone(tmp_path: Path, window: str, side: str) -> None:
    folder = write_timed(tmp_path / "bundle", window=window, padding=side)
    ours, second = Recommender.load(folder, device="cpu", threads=1), SecondReaderOfTimes(folder)
    history = ["item 2", "?", "item 0", "item 5", "item 5", "item 1", "item 8", "?"]
    times = [3, 40, 40, 500, 650, 700, 777, 900]
    for length in (2, 3, 5, 8):
        for now, user in ((None, None), (1000, "Zoë"), (0, 17)):
            given: dict[str, Any] = {"timestamps": [times[:length]], "request_time": [now], "users": [user]}
            for options in ({}, {"candidates": ["item 3", "item 7", "item 0"]}):
                rows = {name: [values] for name, values in options.items()}
                found = ours.recommend([history[:length]], k=5, **given, **rows).to_list()[0]
                same_list(found, second.asked(history[:length], times[:length], now, user, 5, **options), ours)


def same_list(found: list[tuple[Any, float]], expected: list[tuple[Any, float]], ours: Recommender) -> None:
    """Equal by the bundle's own rule: two sessions of onnxruntime may add up in another order."""
    lists = [np.array([ours.catalogue.items.index([raw for raw, _ in one])]) for one in (found, expected)]
    scores = [np.array([[score for _, score in one]]) for one in (found, expected)]
    assert compare_lists(lists[0], scores[0], lists[1], scores[1], ours.manifest.tolerance).same


def test_the_second_reader_imports_nothing_of_genrec() -> None:
    source = (ROOT / "tests" / "frozen" / "second_reader.py").read_text(encoding="utf-8")
    assert not re.search(r"^\s*(import|from) genrec", source, flags=re.MULTILINE)

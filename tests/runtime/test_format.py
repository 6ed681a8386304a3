"""docs/format.md is true: its tables are the dataclasses', its rules the reader's, and it is enough to read a bundle by."""

import ast
import dataclasses
import json
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pytest

from frozen.second_reader import SecondReader, goldens, ids, items, weights
from genrec_export.checks import ALLOWED
from genrec_export.interface import GOLDEN_HISTORIES
from genrec_export.surgery import EXTERNAL_FROM
from genrec_export.tracing import OPSETS
from genrec_export.writer import ROLES
from genrec_runtime import BundleCorrupt, Recommender, load
from genrec_runtime.bundle import MAX_GOLDEN_BYTES, Bundle
from genrec_runtime.checks import ALIGNMENT, FILE_NAME, ONNX_TYPES, read_manifest
from genrec_runtime.compare import compare_lists
from genrec_runtime.manifest import (
    FORMAT_VERSION,
    Defaults,
    FileEntry,
    Manifest,
    Semantics,
    Signature,
    TensorSpec,
    Tolerance,
    Variant,
    Weight,
)
from genrec_runtime.strictjson import MAX_BYTES, MAX_DEPTH, decode
from tiny import ITEMS, Tiny

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
FROZEN = ROOT / "tests" / "frozen" / "1.0"
PARTS = {  # each dataclass, and where one lies in ``complete``
    Manifest: (),
    Signature: ("signature", "recommend"),
    TensorSpec: ("signature", "recommend", "outputs", 0),
    Semantics: ("semantics",),
    Defaults: ("defaults",),
    FileEntry: ("files", "report.json"),
    Weight: ("weights", "weights.bin", 0),
    Tolerance: ("tolerance",),
    Variant: ("variants", "half"),
}
IDS = ("content_id", "bundle_id")


# --- the page, taken apart


def section(title: str) -> str:
    """What stands under a heading, up to the next of its level or above."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,3}} |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[2]


def table(title: str, first: str) -> list[dict[str, str]]:
    """The rows of a section's table whose first column is called ``first``."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    begin = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[begin:])
    return [dict(zip(head, row, strict=True)) for row in rows]


def fields_of(kind: type) -> dict[str, dict[str, str]]:
    """The page's rows of a dataclass, by field."""
    return {row["field"]: row for row in table(kind.__name__, "field")}


def blocks(title: str) -> list[str]:
    return re.findall(r"^```\w*\n(.*?)^```", section(title), re.MULTILINE | re.DOTALL)


FIELDS = [(kind, field) for kind in PARTS for field in dataclasses.fields(kind)]
EACH_FIELD = pytest.mark.parametrize(
    ("kind", "field"), [pytest.param(kind, field, id=f"{kind.__name__}.{field.name}") for kind, field in FIELDS]
)


def worded(hint: Any) -> str:
    """A type in the page's words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    plain = {str: "string", int: "integer", float: "number", bool: "true or false", type(None): "null"}
    if origin is Literal:
        return " or ".join(json.dumps(value) for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(worded(argument) for argument in arguments)
    if origin is tuple:
        return f"list of {worded(arguments[0])}"
    if origin is Mapping:
        return "object" if arguments[1] is Any else f"object of {worded(arguments[1])}"
    return plain.get(hint, hint.__name__)


# --- a manifest to try things on


@pytest.fixture
def complete(tiny: Tiny) -> dict[str, Any]:
    """The tiny bundle's manifest as JSON values, with a variant; one to change."""
    data = json.loads((tiny.path / "manifest.json").read_bytes())
    data["variants"] = {"half": {"files": ["README.md"], "tolerance": {"atol": 0, "rtol": 0.5}, "k": 3, "gate": 0.5}}
    return data


def at(data: Any, place: tuple[str | int, ...]) -> Any:
    for step in place:
        data = data[step]
    return data


def sealed(data: dict[str, Any]) -> bytes:
    """Manifest bytes with the ids that the page asks for."""
    named = {**data, "content_id": ids(data)[0]}
    return json.dumps({**named, "bundle_id": ids(named)[1]}).encode()


def refused(data: dict[str, Any], message: str, kind: type[Exception] = BundleCorrupt) -> None:
    with pytest.raises(kind, match=message):
        read_manifest(sealed(data))


# --- fields


@pytest.mark.parametrize("kind", PARTS, ids=lambda kind: kind.__name__)
def test_the_page_has_every_field_once_and_no_other(kind: type) -> None:
    listed = [row["field"] for row in table(kind.__name__, "field")]
    assert sorted(listed) == sorted(field.name for field in dataclasses.fields(kind))


def test_every_dataclass_of_the_manifest_is_in_the_page() -> None:
    def inside(hint: Any) -> Iterator[type]:
        if dataclasses.is_dataclass(hint):
            yield hint
        for part in typing.get_type_hints(hint).values() if dataclasses.is_dataclass(hint) else typing.get_args(hint):
            yield from inside(part)

    assert set(inside(Manifest)) == set(PARTS)


@EACH_FIELD
def test_a_field_has_the_type_that_the_page_says(kind: type, field: Any) -> None:
    assert fields_of(kind)[field.name]["type"] == worded(typing.get_type_hints(kind)[field.name])


@EACH_FIELD
def test_a_field_that_is_absent_has_the_default_that_the_page_says(
    kind: type, field: Any, complete: dict[str, Any]
) -> None:
    part, stated = at(complete, PARTS[kind]), fields_of(kind)[field.name]["default"]
    complete |= dict(zip(IDS, ids(complete), strict=True))
    del part[field.name]
    content_id, bundle_id = ids(complete)
    complete |= {"content_id": content_id} if field.name not in IDS else {}
    complete |= {"bundle_id": ids(complete)[1]} if field.name != "bundle_id" else {}
    blob = json.dumps(complete).encode()
    if stated == "required":
        with pytest.raises(BundleCorrupt, match=rf"/?{field.name}( is missing| is not that|)|genrec-bundle"):
            read_manifest(blob)
        return
    found: Any = read_manifest(blob)
    for step in PARTS[kind]:
        found = found[step] if isinstance(found, Mapping | tuple) else getattr(found, str(step))
    assert getattr(found, field.name) == decode(typing.get_type_hints(kind)[field.name], json.loads(stated), "")


@EACH_FIELD
def test_a_field_is_of_a_version_that_there_is(kind: type, field: Any) -> None:
    row = fields_of(kind)[field.name]
    since = tuple(map(int, row["since"].split(".")))
    assert (1, 0) <= since <= FORMAT_VERSION
    assert row["ignore"] in ("yes", "no")
    assert row["meaning"]


def test_the_fields_since_1_0_are_those_that_were_frozen_with_it() -> None:
    frozen = json.loads((FROZEN / "recommender" / "manifest.json").read_bytes())
    places = {**PARTS, FileEntry: ("files", "README.md"), Variant: ("variants", "int8")}
    for kind, place in places.items():
        assert set(at(frozen, place)) == {name for name, row in fields_of(kind).items() if row["since"] == "1.0"}


def test_what_may_be_ignored_changes_no_answer(tiny: Tiny, copied: Path, served: Recommender) -> None:
    data = json.loads((copied / "manifest.json").read_bytes())
    others = {str: "another", int: 7, object: {}, list: []}
    for kind, place in PARTS.items():
        for name, row in fields_of(kind).items() if kind is not Variant else ():
            if row["ignore"] == "no":
                continue
            part, value = at(data, place), at(data, place)[name]
            if row["default"] != "required":
                del part[name]
            elif name == "score":
                part[name] = "log_probability"
            elif value is not None:
                part[name] = others.get(type(value), {})
    (copied / "manifest.json").write_bytes(sealed(data))
    assert Bundle.read_manifest(copied) != tiny.exported.manifest
    again = Recommender.load(copied, device="cpu", threads=1).recommend(tiny.histories)
    assert again.to_list() == served.recommend(tiny.histories).to_list()


# --- numbers and words


def test_the_page_has_the_readers_numbers() -> None:
    stated = " ".join(PAGE.split())
    for text in (
        f"at most 1 MiB ({MAX_BYTES:,} bytes)",
        f"nested deeper than {MAX_DEPTH}",
        f"the next multiple of {ALIGNMENT} on",
        f"a multiple of {ALIGNMENT};",
        f"at most {MAX_GOLDEN_BYTES >> 20} MiB unpacked",
        f"1 KiB ({EXTERNAL_FROM:,} bytes) or more are external",
        f"opset {' or '.join(map(str, OPSETS))} of ONNX's own domain",
        f"# The bundle format, version {'.'.join(map(str, FORMAT_VERSION))}",
    ):
        assert text in stated, text


def test_the_page_has_the_readers_file_names_and_the_writers_roles() -> None:
    assert f"`{FILE_NAME.pattern.removeprefix('(golden/)?')}`" in section("The folder")
    roles = {row["role"].strip("`") for row in table("The folder", "file")} - {""}
    assert roles == set(ROLES.values())


def test_the_page_has_the_readers_dtypes() -> None:
    assert re.findall(r"\w+\d|bool", fields_of(TensorSpec)["dtype"]["meaning"]) == list(ONNX_TYPES)


def test_the_page_has_the_operators_that_the_writer_allows() -> None:
    operators = blocks("Graphs")[0].split()
    assert sorted(operators) == sorted(ALLOWED)
    assert len(set(operators)) == len(operators)


# --- ids


@pytest.fixture(params=["tiny", "numbers", "features", "frozen recommender", "frozen module"])
def bundle(request: pytest.FixtureRequest) -> Path:
    """Bundles of all kinds, one after the other."""
    name = request.param
    if name.startswith("frozen"):
        return FROZEN / name.split()[1]
    found = request.getfixturevalue(name)
    return found.path if name == "tiny" else found


def test_ids_are_computed_as_the_page_says(bundle: Path) -> None:
    blob = (bundle / "manifest.json").read_bytes()
    data = json.loads(blob)
    assert (data["content_id"], data["bundle_id"]) == ids(data)
    assert blob == json.dumps(data, indent=2, sort_keys=True).encode() + b"\n"
    assert Bundle.read_manifest(bundle).version == data["content_id"][:12]


def test_numbers_are_written_as_the_page_says() -> None:
    examples = re.search(r"from 1e16 on: ([^.]*\..*?)\. That is", " ".join(section("Ids").split()))
    assert examples
    shown = [text.strip("`") for text in examples[1].split(", ")]
    assert shown == [json.dumps(number) for number in (0.00001, 0.0001, 0.5, 3.0, 1e16)]


def test_a_content_id_that_is_not_that_of_the_content_is_refused(complete: dict[str, Any]) -> None:
    data = {**complete, "content_id": "0" * 64}
    data["bundle_id"] = ids(data)[1]
    with pytest.raises(BundleCorrupt, match="^/content_id is not that of what is served$"):
        read_manifest(json.dumps(data).encode())


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda data: data.update(created="2001"), ("content_id", "bundle_id")),
        (lambda data: data.update(parity={}, measured={"x": 1}), ("content_id",)),
        (lambda data: data["files"].pop("golden/score.npz"), ("content_id",)),
        (lambda data: data["files"].pop("README.md"), ("content_id",)),
        (lambda data: data["files"].pop("titles.utf8"), ()),
        (lambda data: data.update(provenance={}), ()),
        (lambda data: data.update(novelty=1), ()),
    ],
)
def test_each_id_covers_what_the_page_says(
    complete: dict[str, Any], change: Callable[[dict[str, Any]], Any], same: tuple[str, ...]
) -> None:
    complete["variants"] = {}  # it names README.md
    before = json.loads(sealed(complete))
    change(complete)
    after = json.loads(sealed(complete))
    assert tuple(key for key in IDS if before[key] == after[key]) == same
    read_manifest(sealed(complete))


# --- refusals that no other test has


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


@pytest.mark.parametrize("name", ["a", "a.", "golden/a", "a/golden/b.npz"])
def test_a_name_of_one_character_or_of_another_folder_is_refused(complete: dict[str, Any], name: str) -> None:
    complete["files"][name] = complete["files"]["README.md"]
    refused(complete, "is no file name of a bundle")


def tensors() -> list[tuple[str, str, dict[str, Any]]]:
    """Graph, tensor and what the page's table says of it, with the numbers of the tiny bundle."""
    numbers = {"V": len(ITEMS), "V + 1": len(ITEMS) + 1, "k_max": 20, "a number": 12, "0": 0}
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
        {"low": 1},
        {"high": 5},
    ):
        data = json.loads(json.dumps(complete))
        signature = data["signature"][graph]
        place = next(one for way in ("inputs", "outputs") for one in signature[way] if one["name"] == tensor)
        place |= change
        refused(data, f"/signature/{graph}: {tensor} does not fit 37 items")


def test_a_fixed_window_has_a_fixed_length(complete: dict[str, Any]) -> None:
    complete["semantics"]["window"] = "fixed"
    refused(complete, "item_ids does not fit 37 items")
    for signature in complete["signature"].values():
        signature["inputs"][0]["axes"][1] = complete["semantics"]["max_seq_length"]
    assert read_manifest(sealed(complete)).semantics.window == "fixed"  # type: ignore[union-attr]


# --- files


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
    used: set[str] = set()
    for graph, files in manifest.graphs.items():
        for file in files.values():
            model = onnx.load(bundle / file, load_external_data=False)
            assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", manifest.opset)]
            assert model.ir_version <= manifest.ir_version
            assert not model.functions
            assert not model.graph.sparse_initializer
            for node in model.graph.node:
                assert node.op_type in ALLOWED
                assert not any(attribute.g.node or attribute.graphs for attribute in node.attribute)
                used.add(node.op_type)
            check_values(model, manifest.signature[graph])
            check_tensors(model, places)
    assert manifest.ops in ({"": tuple(sorted(used))}, {})


def check_values(model: onnx.ModelProto, signature: Signature) -> None:
    for values, specs in ((model.graph.input, signature.inputs), (model.graph.output, signature.outputs)):
        assert [value.name for value in values] == [spec.name for spec in specs]
        for value, spec in zip(values, specs, strict=True):
            axes = [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
            assert axes == list(spec.axes)


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


# --- a second implementation


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


def same_list(found: list[tuple[Any, float]], expected: list[tuple[Any, float]], ours: Recommender) -> None:
    """Equal by the bundle's own rule: two sessions of onnxruntime may add up in another order."""
    lists = [np.array([ours.catalogue.items.index([raw for raw, _ in one])]) for one in (found, expected)]
    scores = [np.array([[score for _, score in one]]) for one in (found, expected)]
    assert compare_lists(lists[0], scores[0], lists[1], scores[1], ours.manifest.tolerance).same


def test_the_second_reader_imports_nothing_of_genrec() -> None:
    source = (ROOT / "tests" / "frozen" / "second_reader.py").read_text(encoding="utf-8")
    assert not re.search(r"^\s*(import|from) genrec", source, flags=re.MULTILINE)


# --- the example, and the table of refusals


def test_the_example_is_the_frozen_modules_manifest() -> None:
    example = json.loads(blocks("An example")[0])
    assert example == json.loads((FROZEN / "module" / "manifest.json").read_bytes())
    assert read_manifest(json.dumps(example).encode()).kind == "module"
    load(FROZEN / "module", device="cpu").selftest()


def functions(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_refusal_names_a_test_that_exists_and_a_code_that_is_documented() -> None:
    errors = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    codes = set(re.findall(r"^\| `(\w+)` \|", errors, flags=re.MULTILINE))
    rows = table("What a reader refuses", "what")
    for row in rows:
        assert set(re.findall(r"`(\w+)`", row["error's code"])) <= codes, row
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row["held by"])
        assert named, row
        for file, name in named:
            assert name in functions(file), f"{file}::{name}"
    stated = set(re.findall(r"`(\w+)`", " ".join(row["error's code"] for row in rows)))
    assert {code for code in codes if code.startswith("bundle_")} <= stated

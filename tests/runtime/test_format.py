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

import pytest

from format_page import FROZEN, PAGE, ROOT, at, blocks, sealed, section, table, with_variant
from frozen.second_reader import bundle_id, content_id
from genrec_export.surgery import EXTERNAL_FROM
from genrec_export.tracing import OPSETS
from genrec_export.writer import ROLES
from genrec_runtime import BundleCorrupt, Recommender, load
from genrec_runtime.bundle import MAX_GOLDEN_BYTES, Bundle
from genrec_runtime.checks import ALIGNMENT, FILE_NAME, ONNX_TYPES, read_manifest
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
from tiny import Tiny

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


def fields_of(kind: type) -> dict[str, dict[str, str]]:
    """The page's rows of a dataclass, by field."""
    return {row["field"]: row for row in table(kind.__name__, "field")}


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
    """The tiny bundle's manifest, with a variant; one to change."""
    return with_variant(tiny.path)


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
    stated = fields_of(kind)[field.name]["default"]
    complete = json.loads(sealed(complete))
    del at(complete, PARTS[kind])[field.name]
    if stated != "required":
        complete["content_id"] = content_id(complete)
    if field.name != "bundle_id":
        complete["bundle_id"] = bundle_id(complete)
    blob = json.dumps(complete).encode()
    if stated == "required":
        with pytest.raises(BundleCorrupt, match=rf"/{field.name} (is missing|is not that|must be)|a genrec-bundle"):
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
    others: dict[type, Any] = {str: "another", int: 7, dict: {}}
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
                part[name] = others[type(value)]
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


# --- ids


def test_numbers_are_written_as_the_page_says() -> None:
    examples = re.search(r"from 1e16 on: ([^.]*\..*?)\. That is", " ".join(section("Ids").split()))
    assert examples
    shown = [text.strip("`") for text in examples[1].split(", ")]
    assert shown == [json.dumps(number) for number in (0.00001, 0.0001, 0.5, 3.0, 1e16)]


def test_strings_are_escaped_as_the_page_says() -> None:
    short = dict(zip("\n\r\t\b\f", "nrtbf", strict=True))
    for char in map(chr, (*range(0x100), 0x9774, 0x1F9E6)):
        units = char.encode("utf-16-be").hex()
        if char in '"\\':
            escaped = "\\" + char
        elif char in short:
            escaped = "\\" + short[char]
        else:
            escaped = (
                char if " " <= char < "\x7f" else "".join("\\u" + units[i : i + 4] for i in range(0, len(units), 4))
            )
        assert json.dumps(char) == f'"{escaped}"'


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


# --- the example, and the table of refusals


def test_the_example_is_the_frozen_modules_manifest() -> None:
    example = json.loads(blocks("An example")[0])
    assert example == json.loads((FROZEN / "module" / "manifest.json").read_bytes())
    assert read_manifest(json.dumps(example).encode()).kind == "module"
    load(FROZEN / "module", device="cpu").selftest()


def functions(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def named(row: dict[str, str]) -> list[tuple[str, str]]:
    return re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row["held by"])


def test_every_rule_names_a_test_that_exists_and_every_refusal_a_code_that_is_documented() -> None:
    refusals, taken = table("What a reader refuses", "what"), table("What a reader takes", "what it must not refuse")
    for row in (*refusals, *taken, *table("What a writer keeps", "what")):
        assert named(row), row
        for file, name in named(row):
            assert name in functions(file), f"{file}::{name}"
    errors = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    codes = set(re.findall(r"^\| `(\w+)` \|", errors, flags=re.MULTILINE))
    stated = {code for row in refusals for code in re.findall(r"`(\w+)`", row["error's code"])}
    assert stated <= codes
    assert {code for code in codes if code.startswith("bundle_")} <= stated

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genrec_runtime import BundleCorrupt, BundleVersionError, Unsupported
from genrec_runtime.checks import read_manifest
from tiny import Tiny


@pytest.fixture(scope="module")
def data(tiny: Tiny) -> dict[str, Any]:
    """The tiny manifest as JSON values; do not change it."""
    return json.loads((tiny.path / "manifest.json").read_bytes())


def test_a_manifest_comes_back_from_its_json(tiny: Tiny) -> None:
    blob = (tiny.path / "manifest.json").read_bytes()
    manifest = read_manifest(blob)
    assert manifest == tiny.exported.manifest
    assert manifest.to_json() == blob
    assert manifest.version == tiny.path.name


def test_the_id_is_that_of_all_but_the_creation_time(tiny: Tiny) -> None:
    manifest = tiny.exported.manifest
    later = dataclasses.replace(manifest, created="2031-01-01T00:00:00+00:00")
    assert later.identified().bundle_id == manifest.bundle_id
    assert read_manifest(later.to_json()) == later
    other = dataclasses.replace(manifest, provenance={"seed": 1})
    assert other.identified().bundle_id != manifest.bundle_id


def test_keys_of_newer_minor_versions_are_ignored_and_count_for_the_id(
    copied: Path, reseal: Callable[..., None], tiny: Tiny
) -> None:
    reseal(copied, lambda data: data.update(format_version=[1, 9], novelty={"x": 1}))
    blob = (copied / "manifest.json").read_bytes()
    newer = read_manifest(blob)
    assert newer.semantics == tiny.exported.manifest.semantics
    with pytest.raises(BundleCorrupt, match="bundle_id is not that of its content"):
        read_manifest(blob.replace(b'"x": 1', b'"x": 2'))


@pytest.mark.parametrize(
    "change",
    [
        {"trained_until": "2031"},
        {"bundle_id": ""},
        {"semantics": {"max_seq_length": 7}},
        {"defaults": {"exclude_seen": False}},
        {"tolerance": {"atol": 1.0}},
    ],
)
def test_fault_55_a_changed_manifest_is_found_by_its_id(data: dict[str, Any], change: dict[str, Any]) -> None:
    changed = {key: {**data[key], **value} if isinstance(value, dict) else value for key, value in change.items()}
    with pytest.raises(BundleCorrupt, match=r"manifest\.json was changed: /bundle_id is not that of its content"):
        read_manifest(json.dumps({**data, **changed}).encode())


def test_fault_55_no_flipped_bit_of_a_manifest_goes_unseen(tiny: Tiny) -> None:
    blob = (tiny.path / "manifest.json").read_bytes()
    created = blob.index(b'"created"'), blob.index(b"\n", blob.index(b'"created"'))
    blind = range(*created)  # the time is no part of the identity, and its quotes and colon would not parse
    found = 0
    for place in range(3, len(blob), 17):
        flipped = blob[:place] + bytes([blob[place] ^ 1 << place % 7]) + blob[place + 1 :]
        if place in blind or values_of(flipped) == values_of(blob):  # another white space, or 1E-05 for 1e-05
            continue
        with pytest.raises((BundleCorrupt, BundleVersionError, Unsupported)):
            read_manifest(flipped)
        found += 1
    assert found > 100


def values_of(blob: bytes) -> Any:
    """What JSON says; None where it is none."""
    try:
        return json.loads(blob)
    except ValueError:
        return None


@pytest.mark.parametrize("blob", [b"[]", b"5", b'{"format": "another"}', b"{}"])
def test_fault_60_other_json_is_no_manifest(blob: bytes) -> None:
    with pytest.raises(BundleCorrupt, match=r"manifest\.json does not describe a genrec-bundle"):
        read_manifest(blob)


@pytest.mark.parametrize(("version", "shown"), [([2, 0], "2.0"), ([0, 9], "0.9"), ([], "")])
def test_fault_64_another_major_is_refused_with_both_numbers(
    data: dict[str, Any], version: list[int], shown: str
) -> None:
    newer = {"format": data["format"], "format_version": version}  # what else it holds is not even looked at
    with pytest.raises(BundleVersionError, match=rf"has format {shown}, this runtime reads majors 1; upgrade genrec"):
        read_manifest(json.dumps(newer).encode())


@pytest.mark.parametrize("version", [None, "1.0", [True, 0], ["1"], 1])
def test_fault_61_the_version_must_be_numbers(data: dict[str, Any], version: Any) -> None:
    with pytest.raises(BundleCorrupt, match=r"^/format_version"):
        read_manifest(json.dumps({**data, "format_version": version}).encode())


def test_fault_65_a_feature_that_must_be_understood_is_named(data: dict[str, Any]) -> None:
    with pytest.raises(
        Unsupported, match="needs encryption, teleport, which this runtime does not have; upgrade genrec"
    ):
        read_manifest(json.dumps({**data, "must_understand": ["encryption", "teleport"]}).encode())


@pytest.mark.parametrize(
    ("pointer", "value", "message"),
    [
        ("files/weights.bin/size", "5", "^/files/weights.bin/size must be int, not str"),
        ("files/golden~1score.npz/sha256", None, "^/files/golden~1score.npz/sha256 must be str, not NoneType"),
        ("semantics/window", "wide", "^/semantics/window must be one of 'fixed', 'bucketed', not 'wide'"),
        ("semantics/padding", 5, "^/semantics/padding must be one of"),
        ("signature/recommend/inputs/0/axes", "batch", "^/signature/recommend/inputs/0/axes must be list"),
        ("defaults/k", 5.0, "^/defaults/k must be int, not float"),
        ("capabilities", None, "^/capabilities must be list, not NoneType"),
        ("kind", "thing", "^/kind must be one of 'recommender', 'module', not 'thing'"),
        ("weights/weights.bin/0/shape/0", "3", "^/weights/weights.bin/0/shape/0 must be int, not str"),
    ],
)
def test_fault_61_a_wrong_type_is_named_by_its_pointer(
    data: dict[str, Any], pointer: str, value: Any, message: str
) -> None:
    changed = json.loads(json.dumps(data))
    *path, last = [part.replace("~1", "/") for part in pointer.split("/")]
    place = changed
    for part in path:
        place = place[int(part)] if isinstance(place, list) else place[part]
    place[int(last) if isinstance(place, list) else last] = value
    with pytest.raises(BundleCorrupt, match=message):
        read_manifest(json.dumps(changed).encode())


@pytest.mark.parametrize("key", ["kind", "model", "files", "weights", "signature", "tolerance", "requires", "ops"])
def test_fault_61_a_missing_key_is_named(data: dict[str, Any], key: str) -> None:
    with pytest.raises(BundleCorrupt, match=f"^/{key} is missing$"):
        read_manifest(json.dumps({k: v for k, v in data.items() if k != key}).encode())

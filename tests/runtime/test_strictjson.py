import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from genrec_runtime import BundleCorrupt
from genrec_runtime.strictjson import MAX_BYTES, MAX_DEPTH, decode, parse


@dataclass(frozen=True)
class Part:
    size: int
    side: Literal["left", "right"] = "left"


@dataclass(frozen=True)
class Whole:
    parts: Mapping[str, Part]
    axes: tuple[str | int, ...]
    rate: float
    until: str | None = None
    more: Any = None


GOOD = {"parts": {"a/b": {"size": 3}}, "axes": ["batch", 4], "rate": 0.5}


@pytest.mark.parametrize(
    ("blob", "message", "code"),
    [
        pytest.param(b'{"a": NaN}', "NaN is no JSON number", "bundle_corrupt", id="fault_62 NaN"),
        pytest.param(b'{"a": -Infinity}', "-Infinity is no JSON number", "bundle_corrupt", id="fault_62 infinity"),
        pytest.param(b'{"a": 1e999}', "/a is too large a number", "bundle_unsafe", id="fault_62 infinity in digits"),
        pytest.param(
            b'{"a": 1, "b": {"c": 1, "c": 2}}', "a key occurs twice", "bundle_corrupt", id="fault_62 a key twice"
        ),
        pytest.param(b"[" * 200_000, "is not strict JSON", "bundle_corrupt", id="fault_63 depth bomb"),
        pytest.param(b"[" * 40 + b"]" * 40, "nests deeper than 32", "bundle_unsafe", id="fault_63 too deep"),
        pytest.param(
            b'{"a": ' + b"9" * 5000 + b"}", "is not strict JSON", "bundle_corrupt", id="fault_63 5,000 digits"
        ),
        pytest.param(
            b'{"a": [1, 9223372036854775808]}', "/a/1 does not fit 64 bits", "bundle_unsafe", id="fault_63 2**63"
        ),
        pytest.param(
            b" " * (MAX_BYTES + 1), "1048577 bytes, more than 1048576", "bundle_unsafe", id="fault_63 too large"
        ),
        pytest.param(b"\xff\xfe{}", "is not strict JSON: 'utf-8' codec", "bundle_corrupt", id="fault_60 not UTF-8"),
        pytest.param(b"\xef\xbb\xbf{}", "is not strict JSON", "bundle_corrupt", id="fault_60 a byte order mark"),
        pytest.param(b'{"a": 1,\n "b": }', "line 2 column 7", "bundle_corrupt", id="fault_60 no JSON"),
        pytest.param(b"", "is not strict JSON", "bundle_corrupt", id="fault_60 empty"),
    ],
)
def test_what_is_no_strict_json_is_refused(blob: bytes, message: str, code: str) -> None:
    with pytest.raises(BundleCorrupt, match=message) as caught:
        parse(blob)
    assert caught.value.code == code


def test_strict_json_is_read() -> None:
    assert parse(json.dumps(GOOD).encode()) == GOOD
    deep: Any = 1
    for _ in range(MAX_DEPTH):
        deep = [deep]
    assert parse(json.dumps(deep).encode()) == deep


def test_values_become_what_the_types_say() -> None:
    whole = decode(Whole, {**GOOD, "rate": 1, "unknown": "ignored"}, "")
    assert whole == Whole({"a/b": Part(3)}, ("batch", 4), 1.0)
    assert type(whole.rate) is float
    assert decode(Whole, {**GOOD, "until": "x", "more": [1]}, "").more == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"parts": {"a/b": {}}}, "^/parts/a~1b/size is missing$", id="a missing key"),
        pytest.param({"parts": {"~": {"size": "3"}}}, r"^/parts/~0/size must be int, not str \('3'\)$", id="a string"),
        pytest.param({"parts": {"a": {"size": True}}}, "^/parts/a/size must be int, not bool", id="a bool"),
        pytest.param({"parts": {"a": {"size": 3.0}}}, "^/parts/a/size must be int, not float", id="a float"),
        pytest.param({"parts": {"a": None}}, "^/parts/a must be dict, not NoneType", id="null"),
        pytest.param({"parts": []}, "^/parts must be dict, not list", id="a list"),
        pytest.param(
            {"parts": {"a": {"size": 1, "side": "up"}}}, "^/parts/a/side must be one of 'left', 'right'", id="word"
        ),
        pytest.param({"parts": {"a": {"size": 1, "side": []}}}, "^/parts/a/side must be one of", id="no word"),
        pytest.param({"axes": ["batch", None]}, "^/axes/1 must be str, not NoneType", id="one of several"),
        pytest.param({"axes": {"0": 1}}, "^/axes must be list, not dict", id="a dictionary"),
        pytest.param({"rate": "0.5"}, "^/rate must be float, not str", id="a number as text"),
        pytest.param({"until": 5}, "^/until must be str, not int", id="one type or null"),
    ],
)
def test_fault_61_a_wrong_type_is_named_by_its_pointer(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleCorrupt, match=message):
        decode(Whole, {**GOOD, **change}, "")


def test_fault_61_the_whole_may_be_of_a_wrong_type() -> None:
    with pytest.raises(BundleCorrupt, match=r"^manifest\.json must be dict, not list"):
        decode(Whole, [], "")

"""Strict JSON into frozen dataclasses: no key twice, no NaN, no wrong type, no depth or number that harms a reader."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from genrec_runtime.errors import BundleCorrupt

MAX_BYTES = 1 << 20
MAX_DEPTH = 32


def parse(blob: bytes) -> Any:
    """JSON values from bytes.

    Raises:
        BundleCorrupt: if the bytes are more than 1 MiB, no JSON in UTF-8, hold a key twice or a number that is none, or
            nest deeper than 32.
    """
    if len(blob) > MAX_BYTES:
        raise BundleCorrupt(f"manifest.json has {len(blob)} bytes, more than {MAX_BYTES}", code="bundle_unsafe")
    try:
        data = json.loads(blob.decode(), object_pairs_hook=unique, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise BundleCorrupt(f"manifest.json is not strict JSON: {str(error)[:200]}") from error
    _check_values(data, "", 0)
    return data


def decode(kind: Any, value: Any, pointer: str) -> Any:
    """``value`` as ``kind``: a dataclass, a container or a plain type. Keys that a dataclass does not know are ignored.

    Args:
        kind: the type wanted.
        value: what ``parse`` gave.
        pointer: where it stands, a JSON pointer, for errors.

    Raises:
        BundleCorrupt: naming the pointer, if a key is missing or a value has another type.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, pointer)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        options = [option for option in arguments if option is not type(None)]
        chosen = [option for option in options if type(value) is option]
        return decode(chosen[0] if chosen else options[0], value, pointer)
    if origin is Literal:
        if value not in arguments or type(value) is not type(arguments[0]):
            raise BundleCorrupt(f"{pointer} must be one of {', '.join(map(repr, arguments))}, not {value!r:.80}")
        return value
    if origin is tuple:
        entries = _expect(list, value, pointer)
        return tuple(decode(arguments[0], entry, f"{pointer}/{i}") for i, entry in enumerate(entries))
    if origin is Mapping:
        entries = _expect(dict, value, pointer)
        return {key: decode(arguments[1], entry, _below(pointer, key)) for key, entry in entries.items()}
    if kind is Any:
        return value
    if kind is float and type(value) is int:
        return float(value)
    return _expect(kind, value, pointer)


def _decode_dataclass(kind: Any, value: Any, pointer: str) -> Any:
    entries = _expect(dict, value, pointer)
    hints = _hints(kind)
    known = {}
    for member in dataclasses.fields(kind):
        if member.name in entries:
            known[member.name] = decode(hints[member.name], entries[member.name], f"{pointer}/{member.name}")
        elif member.default is dataclasses.MISSING and member.default_factory is dataclasses.MISSING:
            raise BundleCorrupt(f"{pointer}/{member.name} is missing")
    return kind(**known)


_hints = functools.cache(typing.get_type_hints)


def _expect(kind: type, value: Any, pointer: str) -> Any:
    if type(value) is not kind:
        where = pointer or "manifest.json"
        raise BundleCorrupt(f"{where} must be {kind.__name__}, not {type(value).__name__} ({value!r:.80})")
    return value


def _check_values(value: Any, pointer: str, depth: int) -> None:
    """Refuses what json takes and we do not: too deep, an int beyond 64 bits, a float beyond the largest (1e999)."""
    if depth > MAX_DEPTH:
        raise BundleCorrupt(f"manifest.json nests deeper than {MAX_DEPTH}: {pointer:.80}", code="bundle_unsafe")
    if isinstance(value, dict):
        for key, entry in value.items():
            _check_values(entry, _below(pointer, key), depth + 1)
    elif isinstance(value, list):
        for i, entry in enumerate(value):
            _check_values(entry, f"{pointer}/{i}", depth + 1)
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise BundleCorrupt(f"{pointer} does not fit 64 bits", code="bundle_unsafe")
    elif isinstance(value, float) and not math.isfinite(value):
        raise BundleCorrupt(f"{pointer} is too large a number", code="bundle_unsafe")


def _below(pointer: str, key: str) -> str:
    return f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For json's ``object_pairs_hook``: refuses an object that has a key twice."""
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise ValueError("a key occurs twice")
    return keys


def no_constant(name: str) -> Any:
    """For json's ``parse_constant``: refuses NaN and the infinities."""
    raise ValueError(f"{name} is no JSON number")

"""protobuf's wire format, read strictly.

protobuf forgives much: a field twice counts once or is merged, an unknown one is skipped, a number too large is cut. A reader
that forgives otherwise than onnxruntime's would see another graph than the one that runs, so here all of that is an error.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from genrec_runtime.errors import BundleCorrupt

VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5  # wire types; 3 and 4, groups, were given up before ONNX was made
SIZES = {FOUR_BYTES: 4, EIGHT_BYTES: 8}

Raw = int | bytes  # of a varint its 64 bits without sign, of all else the bytes
Read = Callable[
    [int, Raw], Any
]  # from a wire type and what lies there to a value, or to a list where it may stand more than once
Field = tuple[str, Read, bool]  # its name in a dataclass, how it is read, whether it may stand more than once


def fields(content: bytes) -> Iterator[tuple[int, int, Raw]]:
    """Each field of a message: its number, its wire type and what lies there.

    Raises:
        BundleCorrupt: if the bytes are no message.
    """
    place, end = 0, len(content)
    while place < end:
        tag, place = _varint(content, place)
        number, wire = tag >> 3, tag & 7
        if not 1 <= number < 1 << 29:
            raise BundleCorrupt(f"no field has the number {number}")
        if wire == VARINT:
            value, place = _varint(content, place)
            yield number, wire, value
            continue
        if wire == LENGTH:
            size, place = _varint(content, place)
        elif wire in SIZES:
            size = SIZES[wire]
        else:
            raise BundleCorrupt(f"field {number} has the wire type {wire}")
        if size > end - place:
            raise BundleCorrupt(f"field {number} has {size} bytes, of which {end - place} are there")
        yield number, wire, content[place : place + size]
        place += size


def message(kind: Callable[..., Any], table: Mapping[int, Field], content: bytes) -> Any:
    """A message as a dataclass.

    Args:
        kind: the dataclass; of a field that may stand more than once it gets a tuple.
        table: the fields by their numbers.
        content: the message's bytes.

    Raises:
        BundleCorrupt: if the bytes are no such message, hold another field, or one twice that may stand once.
    """
    once: dict[str, Any] = {}
    many: dict[str, list[Any]] = {}
    for number, wire, raw in fields(content):
        if number not in table:
            raise BundleCorrupt(f"field {number} is unknown here")
        name, read, repeated = table[number]
        if repeated:
            many.setdefault(name, []).extend(read(wire, raw))
        elif name in once:
            raise BundleCorrupt(f"field {number} stands twice")
        else:
            once[name] = read(wire, raw)
    return kind(**once, **{name: tuple(values) for name, values in many.items()})


def integer(bits: int, *, signed: bool = True) -> Read:
    """Reads a whole number that must fit."""
    low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)

    def read(wire: int, raw: Raw) -> int:
        if not isinstance(raw, int):
            raise BundleCorrupt(f"a whole number has the wire type {wire}")
        number = raw - (1 << 64) if signed and raw >> 63 else raw
        if not low <= number < high:
            raise BundleCorrupt(f"the number {number} has more than {bits} bits")
        return number

    return read


def real(wire: int, raw: Raw) -> float:
    """Reads a float of 32 bits."""
    if wire != FOUR_BYTES:
        raise BundleCorrupt(f"a float has the wire type {wire}")
    number: float = struct.unpack("<f", raw)[0]  # type: ignore[arg-type]  # four bytes, as the wire type says
    return number


def octets(wire: int, raw: Raw) -> bytes:
    """Reads bytes."""
    if wire != LENGTH or isinstance(raw, int):
        raise BundleCorrupt(f"bytes have the wire type {wire}")
    return raw


def text(wire: int, raw: Raw) -> str:
    """Reads UTF-8."""
    try:
        return octets(wire, raw).decode()
    except UnicodeDecodeError as error:
        raise BundleCorrupt(f"a name is no UTF-8: {error}") from error


def part(kind: Callable[..., Any], table: Mapping[int, Field]) -> Read:
    """Reads a message within a message."""
    return lambda wire, raw: message(kind, table, octets(wire, raw))


def each(read: Read) -> Read:
    """Reads one of several of the same number."""
    return lambda wire, raw: [read(wire, raw)]


def integers(read: Read) -> Read:
    """Reads whole numbers, one alone or any number in one field."""

    def several(wire: int, raw: Raw) -> list[int]:
        if isinstance(raw, int):
            return [read(wire, raw)]
        content, place, numbers = octets(wire, raw), 0, []
        while place < len(content):
            number, place = _varint(content, place)
            numbers.append(read(VARINT, number))
        return numbers

    return several


def reals(letter: str) -> Read:
    """Reads floats, one alone or any number in one field; ``letter`` is ``struct``'s, "f" or "d"."""
    alone = {"f": FOUR_BYTES, "d": EIGHT_BYTES}[letter]

    def several(wire: int, raw: Raw) -> list[float]:
        if isinstance(raw, int) or wire not in (alone, LENGTH) or len(raw) % SIZES[alone]:
            raise BundleCorrupt(f"floats have the wire type {wire}, or do not fill their bytes")
        return list(struct.unpack(f"<{len(raw) // SIZES[alone]}{letter}", raw))

    return several


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """A number in groups of seven bits, lowest first, and the place behind it."""
    number = shift = 0
    for byte in content[place : place + 10]:
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            if number >> 64:
                raise BundleCorrupt("a number has more than 64 bits")
            return number, place + shift // 7
    raise BundleCorrupt("a number does not end")

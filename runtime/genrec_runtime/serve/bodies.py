"""Request bodies: read within limits of size and time, then as strict JSON."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.requests import ClientDisconnect, Request

from genrec_runtime.serve.refusals import Refusal
from genrec_runtime.strictjson import no_constant, unique

_decode = json.JSONDecoder(object_pairs_hook=unique, parse_constant=no_constant).decode
SWALLOWED = 8  # a body up to so many times too large is read and thrown away: else its sender may never see the answer


async def read_json(request: Request, most: int, slow: float) -> dict[str, Any]:
    """The JSON object that is a request's body.

    Args:
        request: whose body was not read yet.
        most: bytes.
        slow: seconds that the client may take to send it.

    Raises:
        Refusal: 413 if it is larger, before it is held; 408 if it comes slower; 415 if it is compressed; 400 if it is no
            JSON object.
        ClientDisconnect: if the client went away meanwhile.
    """
    return parse(await _read(request, most, slow))


def parse(body: bytes) -> dict[str, Any]:
    """A JSON object from bytes: UTF-8, no key twice, no NaN, no number beyond Python's limits, no bottomless nesting.

    Raises:
        Refusal: 400 if it is none.

    >>> parse(b'{"k": 3}')
    {'k': 3}
    """
    try:
        value = _decode(body.decode())
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise Refusal(400, "json", f"the body is no JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise Refusal(400, "json", f"the body must be a JSON object, not {type(value).__name__}")
    return value


async def _read(request: Request, most: int, slow: float) -> bytes:
    headers = dict(request.scope["headers"])
    encoding = headers.get(b"content-encoding", b"identity").decode("latin-1")
    if encoding != "identity":
        raise Refusal(415, "encoding", f"Content-Encoding {encoding[:40]!r} is not taken; send the body as it is")
    stated = headers.get(b"content-length", b"0")
    if stated.isdigit() and int(stated[:20]) > SWALLOWED * most:
        raise _too_large(most)
    parts, size, is_whole = [], 0, False
    try:
        async with asyncio.timeout(slow):
            while not is_whole:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                part, is_whole = message.get("body", b""), not message.get("more_body", False)
                size += len(part)
                if size > SWALLOWED * most:
                    raise _too_large(most)
                if size <= most:
                    parts.append(part)
    except TimeoutError:
        raise Refusal(408, "slow_body", f"the body was not there within {slow:g} s") from None
    if size > most:
        raise _too_large(most)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(most: int) -> Refusal:
    return Refusal(413, "body_too_large", f"a body may have {most:,} bytes; send several requests")

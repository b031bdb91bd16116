"""Read the body of a request within its limits."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any

from st_connectors.server.faults import Fault, FaultKind
from st_connectors.server.settings import Limits

__all__ = ["ClientLeft", "discard_body", "read_body"]

DISCARDED = 10
"""How many times the largest body is read and dropped, so that the client sees why it is refused."""

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class ClientLeft(Exception):
    """The client closed the connection."""


async def read_body(receive: Receive, headers: Mapping[str, str], limits: Limits) -> bytes:
    """Return the body of a request; raise Fault if it is too large, late, compressed or not JSON by its type.

    Raises ClientLeft if the connection ends before the body.
    """
    _check_headers(headers, limits)
    return await _read(receive, limits)


async def discard_body(receive: Receive, headers: Mapping[str, str], limits: Limits) -> None:
    """Read the body of a request that is refused by its headers, if it is not many times too long.

    A connection that is closed with bytes unread is reset, and the client may not see the reason of the refusal.
    """
    if _announced(headers) > DISCARDED * limits.body_bytes:
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(limits.body_s):
            while (await receive()).get("more_body", False):
                pass


async def _read(receive: Receive, limits: Limits) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeft
                part = message.get("body", b"")
                size += len(part)
                if size > limits.body_bytes:
                    raise _too_large(limits)
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise Fault(FaultKind.TIMEOUT, f"the body did not arrive within {limits.body_s:g} seconds") from None


def _check_headers(headers: Mapping[str, str], limits: Limits) -> None:
    kind = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Fault(FaultKind.MEDIA_TYPE, "content-type: expected application/json")
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise Fault(FaultKind.MEDIA_TYPE, "content-encoding: a compressed body is not accepted; send it as it is")
    if "content-length" in headers and _announced(headers) > limits.body_bytes:
        raise _too_large(limits)


def _announced(headers: Mapping[str, str]) -> float:
    """Return the length of a body by its header; infinity if it is not known in advance."""
    length = headers.get("content-length", "")
    return int(length) if length.isdecimal() and len(length) < 19 else math.inf


def _too_large(limits: Limits) -> Fault:
    return Fault(FaultKind.TOO_MANY, f"the body has more than {limits.body_bytes} bytes; divide the request")

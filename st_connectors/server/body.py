"""Read the body of a request within its limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from st_connectors.server.faults import Fault, FaultKind
from st_connectors.server.settings import Limits

__all__ = ["ClientLeft", "read_body"]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class ClientLeft(Exception):
    """The client closed the connection."""


async def read_body(receive: Receive, headers: Mapping[str, str], limits: Limits) -> bytes:
    """Return the body of a request; raise Fault if it is too large, late, compressed or not JSON by its type.

    Raises ClientLeft if the connection ends before the body.
    """
    _check_headers(headers, limits)
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
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) > limits.body_bytes:
        raise _too_large(limits)


def _too_large(limits: Limits) -> Fault:
    return Fault(FaultKind.TOO_MANY, f"the body has more than {limits.body_bytes} bytes; divide the request")

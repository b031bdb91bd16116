"""Pass requests and answers through, unchanged and unread."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import h11

from st_connectors.gateway.exchanges import AnsweredError, Exchange, body_events
from st_connectors.gateway.peers import end_to_end
from st_connectors.gateway.upstream import Link, NodesDownError, Upstream

__all__ = ["pass_on", "send_on"]

SMALL = 65_536
"""The number of bytes of a body up to which it is read before it is sent, so that it can be sent again."""
DRAINED = 16_000_000
"""The number of bytes of a body that are read after a node has answered early."""
_SAFE = (b"GET", b"HEAD")
_BROKEN = (OSError, h11.RemoteProtocolError)


async def pass_on(upstream: Upstream, exchange: Exchange) -> None:
    """Pass a request and its answer through; raises NodesDownError, and AnsweredError after a part of the answer."""
    length = exchange.length
    if length is None or length > SMALL or exchange.client.http.they_are_waiting_for_100_continue:
        await _stream(upstream, exchange)
    else:
        await send_on(upstream, exchange, await exchange.client.body(SMALL))


async def send_on(upstream: Upstream, exchange: Exchange, body: bytes, request: h11.Request | None = None) -> None:
    """Send a request whose body has been read, or ``request`` in its place, and pass the answer through.

    If a node closed an idle connection at this moment, a request that changes nothing is sent again. Raises
    NodesDownError, and AnsweredError after a part of the answer.
    """
    while True:
        link = await upstream.link()
        try:
            head = _to_node(link, exchange.request if request is None else request)
            await link.peer.send(head, *body_events(body), h11.EndOfMessage())
            await _relay(exchange, link)
        except _BROKEN as error:
            _check_unanswered(exchange, error)
            if not (link.is_reused and exchange.request.method in _SAFE):
                raise _closed(link, error) from error
        else:
            return
        finally:
            link.end()


async def _stream(upstream: Upstream, exchange: Exchange) -> None:
    """Pass a request through while its body arrives, and its answer, which may come before the end of the body."""
    link = await upstream.link()
    sending = asyncio.create_task(_pump(exchange, link))
    try:
        await _relay(exchange, link)
    except _BROKEN as error:
        _check_unanswered(exchange, error)
        raise _closed(link, error) from error
    finally:
        sending.cancel()
        with suppress(asyncio.CancelledError, OSError, h11.ProtocolError):
            await sending
        link.end()
    await exchange.drain(DRAINED)


async def _pump(exchange: Exchange, link: Link) -> None:
    """Send the head and the body of a request as it arrives."""
    event: object = None
    with suppress(h11.RemoteProtocolError, OSError):
        await link.peer.send(_to_node(link, exchange.request))
        while isinstance(event := await exchange.client.receive(), h11.Data):
            await link.peer.send(h11.Data(data=bytes(event.data)))
        if isinstance(event, h11.EndOfMessage):
            await link.peer.send(event)
            return
    link.peer.close()  # the body was cut off: the node must not take it for a whole one


async def _relay(exchange: Exchange, link: Link) -> None:
    """Pass the answer of a node through as it arrives; what has arrived is sent together."""
    client = exchange.client
    ready: list[h11.Event] = []
    while True:
        event = link.peer.ready()
        match event:
            case None:
                await _send(exchange, ready)
                ready = []
                await link.peer.read()
            case h11.InformationalResponse():
                if client.http.they_are_waiting_for_100_continue:
                    ready.append(
                        h11.InformationalResponse(status_code=event.status_code, headers=[], reason=event.reason)
                    )
            case h11.Response():
                ready.append(_to_client(event))
            case h11.Data():
                ready.append(h11.Data(data=bytes(event.data)))
            case h11.EndOfMessage():
                await _send(exchange, [*ready, event])
                return
            case _:
                raise ConnectionError("the node closed the connection")


async def _send(exchange: Exchange, events: list[h11.Event]) -> None:
    """Send parts of an answer; an error of the client is none of the node."""
    try:
        await exchange.client.send(*events)
    except OSError as error:
        raise AnsweredError from error


def _check_unanswered(exchange: Exchange, error: Exception) -> None:
    if exchange.has_begun:
        raise AnsweredError from error


def _closed(link: Link, error: Exception) -> NodesDownError:
    return NodesDownError(f"{link.node.name} closed the connection: {error or type(error).__name__}")


def _to_node(link: Link, request: h11.Request) -> h11.Request:
    """Return a request as it is sent to a node."""
    headers = end_to_end(list(request.headers.raw_items()))
    if not any(name.lower() == b"host" for name, _ in headers):
        headers.insert(0, (b"Host", link.node.name.encode()))
    return h11.Request(method=request.method, target=link.node.prefix + request.target, headers=headers)


def _to_client(response: h11.Response) -> h11.Response:
    """Return an answer as it is sent to a client."""
    headers = end_to_end(list(response.headers.raw_items()))
    return h11.Response(status_code=response.status_code, headers=headers, reason=response.reason)

"""Add vectors to single documents and to bulk requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import h11

from st_connectors.gateway.answers import Problem
from st_connectors.gateway.bulk import Item, Lines, parts_of
from st_connectors.gateway.documents import Outcome, add_vectors
from st_connectors.gateway.exchanges import Exchange
from st_connectors.gateway.passing import send_on
from st_connectors.gateway.peers import Headers, end_to_end
from st_connectors.gateway.settings import Limits
from st_connectors.gateway.targets import Target, Targets
from st_connectors.gateway.upstream import Answer, NodesDownError, Upstream

__all__ = ["Writes"]

OK, MALFORMED = 200, 400
DAY_S = 86_400.0
"""A part of a bulk request may take as long as its client waits."""
_OF_BODY = frozenset({b"content-length", b"content-encoding", b"transfer-encoding", b"expect"})
_OF_ANSWER = frozenset({b"accept-encoding", b"host"})


class _RepeatedError(Exception):
    """The answer of the engine to a part is the answer to the whole request."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.answer = answer


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Items of a bulk request, and what becomes of each."""

    items: Sequence[Item]
    outcomes: Sequence[Outcome]

    @property
    def has_problems(self) -> bool:
        """Whether some items are not sent."""
        return any(isinstance(each, Problem) for each in self.outcomes)

    @property
    def body(self) -> bytes:
        """The lines to send."""
        return b"".join(each.line + each.source for each in self.outcomes if isinstance(each, Item))

    @property
    def sent(self) -> int:
        """The number of results that the engine returns."""
        return sum(isinstance(each, Item) and each.action is not None for each in self.outcomes)

    def results(self, answered: Sequence[Any]) -> list[Any]:
        """Return the result of each item, in order, with those of the engine."""
        rest = iter(answered)
        results = []
        for item, outcome in zip(self.items, self.outcomes, strict=True):
            if isinstance(outcome, Problem):
                results.append(_result(item, outcome.status, outcome.error))
            elif outcome.action is not None:
                results.append(next(rest))
        return results

    def failed(self, status: int, error: Any) -> list[Any]:
        """Return the results of items of which the engine wrote none."""
        sent = [_result(item, status, error) for item in self._written()]
        return self.results(sent)

    def _written(self) -> list[Item]:
        return [each for each in self.outcomes if isinstance(each, Item) and each.action is not None]


@dataclass(frozen=True, slots=True, eq=False)
class Writes:
    """The writes of a gateway; ``run`` calls a function on a thread."""

    upstream: Upstream
    targets: Targets
    limits: Limits
    run: Callable[..., Awaitable[Any]]

    async def document(self, exchange: Exchange, target: Target) -> None:
        """Write one document with its vectors; raises Problem for one that is not written."""
        exchange.check_media_type()
        route, limit = exchange.route, self.limits.whole_bytes
        body = exchange.inflated(await exchange.read(limit), limit)
        [outcome] = await self.run(add_vectors, target, [Item(b"", body, route.action, route.index, route.id)])
        if isinstance(outcome, Problem):
            raise outcome
        method, path = exchange.request.method, exchange.request.target
        if outcome.id is not None and route.id is None:
            method, path = b"PUT", route.target("_create", outcome.id).encode()
        await self._send_on(exchange, outcome.source, method, path)

    async def bulk(self, exchange: Exchange) -> None:
        """Write the items of a bulk request with their vectors; one without vectors is passed on as it is.

        It is read up to a limit before that is decided, and a larger one is sent in parts.
        """
        exchange.check_media_type()
        lines = Lines(exchange.route.index)
        items: list[Item] = []
        pieces = exchange.pieces(self.limits.bulk_bytes)
        size, is_whole = 0, True
        async for piece in pieces:
            items += lines.feed(piece)
            size += len(piece)
            if size > self.limits.whole_bytes:
                is_whole = False
                break
        if is_whole:
            items += lines.finish()
            if not any((await self._targets_of(items, exchange.credentials)).values()):
                await send_on(self.upstream, exchange, b"".join(exchange.raw))
                return
        await self._in_parts(exchange, self._parts(exchange, items, None if is_whole else pieces, lines))

    async def _parts(
        self, exchange: Exchange, items: list[Item], pieces: AsyncIterator[bytes] | None, lines: Lines
    ) -> AsyncIterator[tuple[list[Item], bool]]:
        """Yield the items of a request in parts as they arrive, each with whether it is the last."""
        waiting: list[Item] = []
        async for more in _arriving(exchange, items, pieces, lines):
            *complete, waiting = parts_of([*waiting, *more], self.limits.part_documents, self.limits.part_bytes)
            for part in complete:
                yield part, False
        yield waiting, True

    async def _in_parts(self, exchange: Exchange, parts: AsyncIterator[tuple[list[Item], bool]]) -> None:
        """Send parts, each while the next is encoded, and answer with the results of all."""
        results: list[Any] = []
        took = 0
        sending: asyncio.Task[tuple[list[Any], int]] | None = None
        try:
            async for items, is_last in parts:
                part = await self._rewritten(items, exchange.credentials)
                if is_last and sending is None and not part.has_problems:
                    await self._send_on(exchange, part.body, exchange.request.method, exchange.request.target)
                    return
                if sending is not None:
                    own, own_took = await sending
                    results, took = results + own, took + own_took
                sending = asyncio.create_task(self._send_part(exchange, part, is_first=not results))
            assert sending is not None
            own, own_took = await sending
            results, took = results + own, took + own_took
        except _RepeatedError as error:
            await exchange.drain(self.limits.bulk_bytes)
            await exchange.repeat(error.answer)
            return
        finally:
            if sending is not None and not sending.done():
                sending.cancel()
                with suppress(asyncio.CancelledError):
                    await sending
        has_errors = any("error" in result for item in results for result in item.values())
        await exchange.respond(200, {"errors": has_errors, "took": took, "items": results})

    async def _send_part(self, exchange: Exchange, part: _Part, *, is_first: bool) -> tuple[list[Any], int]:
        """Send a part, and return the results of its items and the milliseconds that the engine took.

        If the engine refuses the whole part, its items fail; raises _RepeatedError if nothing was written before, or
        the request is malformed.
        """
        if not part.body:
            return part.results([]), 0
        try:
            answer = await self._call(exchange, part.body)
        except (NodesDownError, TimeoutError, ValueError) as error:
            if is_first:
                raise NodesDownError(str(error) or type(error).__name__) from error
            return part.failed(502, _gateway_error(str(error))), 0
        if answer.status != OK and (is_first or answer.status == MALFORMED):
            raise _RepeatedError(answer)
        parsed = _parsed(answer)
        if answer.status != OK:
            return part.failed(answer.status, parsed.get("error") or _gateway_error("the engine refused the part")), 0
        if len(parsed.get("items", ())) != part.sent:
            return part.failed(502, _gateway_error("the engine answered with another number of items")), 0
        return part.results(parsed["items"]), int(parsed.get("took", 0))

    async def _call(self, exchange: Exchange, body: bytes) -> Answer:
        headers = [each for each in end_to_end(exchange.headers) if each[0].lower() not in _OF_BODY | _OF_ANSWER]
        target = exchange.route.without("_bulk", "filter_path")
        limit = self.limits.bulk_bytes
        return await self.upstream.call("POST", target, headers, body, limit=limit, timeout_s=DAY_S)

    async def _send_on(self, exchange: Exchange, body: bytes, method: bytes, target: bytes) -> None:
        """Send a rewritten request, and pass its answer through."""
        headers: Headers = [each for each in exchange.headers if each[0].lower() not in _OF_BODY]
        own = h11.Request(method=method, target=target, headers=[*headers, (b"Content-Length", b"%d" % len(body))])
        await send_on(self.upstream, exchange, body, own)

    async def _targets_of(self, items: Sequence[Item], credentials: Headers) -> dict[str, Target | Problem | None]:
        """Return the target of every index in which items store documents, or why it is unknown."""
        targets: dict[str, Target | Problem | None] = {}
        for name in dict.fromkeys(each.index for each in items if each.index and each.stores):
            try:
                targets[name] = await self.targets.of(name, credentials)
            except Problem as problem:
                targets[name] = problem
        return targets

    async def _rewritten(self, items: Sequence[Item], credentials: Headers) -> _Part:
        """Return items with vectors, and the reasons for which some are not sent."""
        outcomes: list[Outcome] = list(items)
        for name, target in (await self._targets_of(items, credentials)).items():
            if target is None:
                continue
            places = [at for at, each in enumerate(items) if each.index == name and each.stores]
            own: Sequence[Outcome] = [target] * len(places) if isinstance(target, Problem) else []
            if isinstance(target, Target):
                own = await self.run(add_vectors, target, [items[at] for at in places])
            for at, outcome in zip(places, own, strict=True):
                outcomes[at] = outcome
        return _Part(items, outcomes)


async def _arriving(
    exchange: Exchange, items: list[Item], pieces: AsyncIterator[bytes] | None, lines: Lines
) -> AsyncIterator[list[Item]]:
    """Yield the items that have arrived, and then those that arrive, whose bytes are not stored."""
    yield items
    exchange.raw.clear()
    if pieces is None:
        return
    async for piece in pieces:
        exchange.raw.clear()
        yield lines.feed(piece)
    yield lines.finish()


def _result(item: Item, status: int, error: Any) -> dict[str, Any]:
    """Return the result of an item that was not written, in the form of the engines."""
    return {str(item.action): {"_index": item.index, "_id": item.id, "status": status, "error": error}}


def _gateway_error(reason: str) -> dict[str, Any]:
    return {"type": "st_connectors_gateway_exception", "reason": reason or "a node did not answer"}


def _parsed(answer: Answer) -> dict[str, Any]:
    try:
        value = json.loads(answer.body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}

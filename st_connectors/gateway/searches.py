"""Answer searches with the query of the gateway; other searches pass through."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from st_connectors.errors import StoreError, Unavailable
from st_connectors.gateway.answers import Problem, error_body
from st_connectors.gateway.exchanges import Exchange
from st_connectors.gateway.passing import pass_on, send_on
from st_connectors.gateway.queries import QUERY, TextSearch, has_query, loads, read_lines, read_search, write_answer
from st_connectors.gateway.routes import Kind
from st_connectors.gateway.settings import Limits
from st_connectors.gateway.targets import Target, Targets
from st_connectors.gateway.upstream import Upstream
from st_connectors.search import SearchResult
from st_connectors.server.faults import Fault, FaultKind
from st_core.errors import ModelError

__all__ = ["Searches"]

_SEVERAL = frozenset(",*<")


@dataclass(frozen=True, slots=True, eq=False)
class Searches:
    """The searches of a gateway; ``run`` calls a function on a thread."""

    upstream: Upstream
    targets: Targets
    limits: Limits
    run: Callable[..., Awaitable[Any]]

    async def search(self, exchange: Exchange) -> None:
        """Answer a request that contains the query of the gateway; pass another, and a larger one, on as it is."""
        limit = self.limits.whole_bytes
        if exchange.length == 0 or (exchange.length or 0) > limit:
            await pass_on(self.upstream, exchange)
            return
        raw = await exchange.read(limit)
        try:
            body = exchange.inflated(raw, limit)
        except Problem:
            body = b""
        answer = await self._answer(exchange, body) if has_query(body) else None
        if answer is None:
            await send_on(self.upstream, exchange, raw)
        else:
            await exchange.respond(200, answer)

    async def _answer(self, exchange: Exchange, body: bytes) -> dict[str, Any] | None:
        """Return the answer to a search or multi-search; None if it does not contain the query of the gateway."""
        if exchange.route.kind is Kind.MULTI_SEARCH:
            return await self._multi_search(exchange, body)
        search = read_search(loads(body), exchange.route.params)
        return None if search is None else await self._single(search, exchange.route.index, exchange)

    async def _single(self, search: TextSearch, index: Any, exchange: Exchange) -> dict[str, Any]:
        """Return the answer to one search."""
        began = time.monotonic()
        if not isinstance(index, str) or _SEVERAL & set(index):
            raise Problem(400, "illegal_argument_exception", f"the query [{QUERY}] needs the name of one collection")
        target = await self.targets.of(index, exchange.credentials)
        if target is None:
            reason = f"the index [{index}] has no vectors of st-connectors, and no rule names it"
            raise Problem(400, "illegal_argument_exception", reason)
        result = await self.run(_search, target, search)
        return write_answer(search, result, index, round((time.monotonic() - began) * 1000))

    async def _multi_search(self, exchange: Exchange, body: bytes) -> dict[str, Any] | None:
        """Return the answer to a multi-search; None if no search contains the query of the gateway."""
        began = time.monotonic()
        pairs = read_lines(body)
        searches = [_read(line, exchange) for _, line in pairs]
        if not any(searches):
            return None
        others = [pair for pair, own in zip(pairs, searches, strict=True) if own is None]
        rest = iter(await self._others(exchange, others))
        responses = [
            next(rest) if own is None else await self._response(own, line, exchange)
            for (line, _), own in zip(pairs, searches, strict=True)
        ]
        return {"took": round((time.monotonic() - began) * 1000), "responses": responses}

    async def _response(self, search: TextSearch | Problem, line: bytes, exchange: Exchange) -> dict[str, Any]:
        """Return the response to one search of a multi-search, which may be an error."""
        try:
            if isinstance(search, Problem):
                raise search
            named = (loads(line) or {}).get("index", exchange.route.index)
            index = named[0] if isinstance(named, list) and len(named) == 1 else named
            return {**await self._single(search, index, exchange), "status": 200}
        except Problem as problem:
            return error_body(problem)

    async def _others(self, exchange: Exchange, pairs: Sequence[tuple[bytes, bytes]]) -> list[Any]:
        """Return the responses of the engine to the other searches of a multi-search."""
        if not pairs:
            return []
        body = b"".join(line + b"\n" for pair in pairs for line in pair)
        headers = [*exchange.credentials, (b"content-type", b"application/x-ndjson")]
        limits = self.limits
        answer = await self.upstream.call(
            "POST",
            exchange.route.target("_msearch"),
            headers,
            body,
            limit=limits.bulk_bytes,
            timeout_s=limits.timeout_s,
        )
        if answer.status != 200:
            reason = f"the engine answered {answer.status} to the other searches"
            raise Problem(answer.status, "st_connectors_gateway_exception", reason)
        return list(json.loads(answer.body)["responses"])


def _read(line: bytes, exchange: Exchange) -> TextSearch | Problem | None:
    try:
        return read_search(loads(line), exchange.route.params)
    except Problem as problem:
        return problem


def _search(target: Target, search: TextSearch) -> SearchResult:
    """Return the result of a search; raises Problem for one that cannot be answered."""
    try:
        return target.index.search(search.text, **search.options)
    except StoreError as error:
        status = error.status or (503 if isinstance(error, Unavailable) else 400)
        raise Problem(status, "search_phase_execution_exception", error.message) from error
    except Fault as fault:
        status = 429 if fault.kind is FaultKind.OVERLOADED else 503
        raise Problem(status, "st_connectors_encoding_exception", fault.message) from fault
    except (TypeError, ValueError) as error:
        raise Problem(400, "illegal_argument_exception", str(error)) from error
    except (ModelError, OSError, ImportError, RuntimeError) as error:
        raise Problem(503, "st_connectors_encoding_exception", str(error) or type(error).__name__) from error

"""What the index of a request asks for: its collection with its models, read with the credentials of the client."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

from st_connectors._lucene import store as lucene
from st_connectors._lucene.client import Connection, Request
from st_connectors._lucene.encoding import encode_json
from st_connectors._lucene.engine import Engine
from st_connectors._lucene.faults import foreign_answer
from st_connectors._lucene.forms import stored_schema
from st_connectors.errors import StoreError, Unavailable
from st_connectors.gateway.answers import ENCODING, Problem
from st_connectors.gateway.encoding import BatchedModel, Models
from st_connectors.gateway.peers import Headers
from st_connectors.gateway.settings import OnFailure, Rule, Settings, rule_for
from st_connectors.gateway.upstream import Answer, NodesDownError
from st_connectors.index import Index
from st_connectors.layers.retry import RetryPolicy
from st_connectors.models import LazyModel, ModelOptions
from st_connectors.plugin import Address
from st_connectors.registry import wrapped
from st_connectors.schema import Schema, successor_of
from st_connectors.schemas import adopted_models, stored_models, stored_reranker, text_key_of
from st_core.errors import ModelError, ModelUnavailable
from st_core.protocols import ModelKind, ModelRef

__all__ = ["Call", "Target", "Targets", "open_engine"]

RETRY = RetryPolicy(attempts=2, timeout=5.0)
"""For searches: a client waits for them."""
MOST = 4096
"""The number of indices that are remembered."""
OPTIONS = ModelOptions(None, None)
RERANKER = "reranker"
FAILED = 300
"""The lowest status of an answer that is not the expected one."""

Call = Callable[[str, str, Headers, bytes], Awaitable[Answer]]
"""A function that sends a request with a method, a target, headers and a body."""
Opener = Callable[[Address, object | None], Engine[Any]]
"""A function that opens an engine."""


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A collection that asks for vectors.

    ``store`` is the store without layers, and ``rule`` is None for a collection that st-connectors created.
    """

    name: str
    index: Index
    store: lucene.LuceneStore[Any]
    rule: Rule | None = None


def open_engine(address: Address) -> Engine[Any]:
    """Return the engine of an address, whose own connection is not used."""
    if address.name == "opensearch":
        from st_connectors.opensearch.store import open_engine as open_opensearch

        return open_opensearch(address, None)
    from st_connectors.elasticsearch.store import open_engine as open_elasticsearch

    return open_elasticsearch(address, None)


class Targets:
    """The targets by index and credentials, remembered for a short time."""

    def __init__(self, settings: Settings, address: Address, call: Call, run: Callable[..., Awaitable[Any]]) -> None:
        """Store the arguments; ``call`` sends requests, and ``run`` calls a function on a thread."""
        self._settings = settings
        self._address = address
        self._engine = open_engine(address)
        self._call = call
        self._run = run
        self._models = Models()
        self._known: dict[tuple[str, Headers], tuple[float, Target | None]] = {}
        self._looking: dict[tuple[str, Headers], asyncio.Task[Target | None]] = {}

    def forget(self) -> None:
        """Look every index up again."""
        self._known.clear()

    async def of(self, name: str, credentials: Headers) -> Target | None:
        """Return the target of an index or alias; None if it asks for no vectors.

        Raises Problem if the gateway cannot decide that.
        """
        key = (name, tuple(credentials))
        valid, target = self._known.get(key, (0.0, None))
        if time.monotonic() < valid:
            return target
        if key not in self._looking:
            self._looking[key] = asyncio.create_task(self._look_up(*key))
            self._looking[key].add_done_callback(lambda _: self._looking.pop(key, None))
        return await asyncio.shield(self._looking[key])

    async def _look_up(self, name: str, credentials: Headers) -> Target | None:
        mappings = await self._mappings(name, credentials)
        if mappings is None:
            return None
        opener = self._opener(credentials)
        target: Target | None = await self._run(self._open, name, mappings, opener)
        if len(self._known) >= MOST:
            self._known.clear()
        self._known[name, credentials] = time.monotonic() + self._settings.limits.mapping_s, target
        return target

    async def _mappings(self, name: str, credentials: Headers) -> Mapping[str, Any] | None:
        """Return the mappings of an index by the names of its indices; None if there is none, or no one may know."""
        rule = rule_for(self._settings.rules, name)
        try:
            answer = await self._call("GET", f"/{quote(name, safe='')}/_mapping", credentials, b"")
        except (NodesDownError, TimeoutError, ValueError) as error:
            raise Problem(503, "st_connectors_gateway_exception", f"the mapping cannot be read: {error}") from error
        match answer.status:
            case 200:
                return dict(json.loads(answer.body))
            case 404 if rule is not None:
                reason = f"there is no index {name!r}, and the rule {rule.index!r} needs its mapping: create it first"
                raise Problem(404, "index_not_found_exception", reason)
            case 403 if self._settings.unreadable is OnFailure.FAIL:
                reason = f"the mapping of {name!r} cannot be read: permit view_index_metadata, or set unreadable"
                raise Problem(403, "security_exception", reason)
            case status if status == 429 or status >= 500:
                reason = f"the mapping of {name!r} cannot be read: the engine answered {status}"
                raise Problem(503, "st_connectors_gateway_exception", reason)
            case _:
                return None

    def _open(self, name: str, mappings: Mapping[str, Any], opener: Opener) -> Target | None:
        """Return the target of an index by its mappings; raises Problem for a collection that cannot be opened."""
        try:
            stored = [stored_schema(each.get("mappings") or {}) for each in mappings.values()]
            own = next((each[0] for each in stored if each is not None), None)
            if own is not None:
                return self._own(own, opener)
            rule = rule_for(self._settings.rules, name, *mappings)
            return None if rule is None else self._adopted(name, rule, opener)
        except StoreError as error:
            status = error.status or (503 if isinstance(error, Unavailable) else 400)
            raise Problem(status, "st_connectors_collection_exception", error.message) from error
        except ModelUnavailable as error:
            raise Problem(503, ENCODING, str(error)) from error
        except (ModelError, OSError, LookupError, TypeError, ValueError) as error:
            reason = f"the collection {name!r} cannot be opened: {error}"
            raise Problem(400, "st_connectors_collection_exception", reason) from error

    def _own(self, schema: Schema, opener: Opener) -> Target:
        collection = schema.collection
        if successor := successor_of(schema):
            reason = f"the collection {collection!r} has been migrated to {successor!r}: use this name"
            raise Problem(400, "st_connectors_collection_exception", reason)
        adapter = lucene.connect(opener, self._address, collection, None, None)
        lazy = stored_models(adapter.schema, {}, OPTIONS, trust=False)
        refs = adapter.schema.models
        models = {name: self._lazy(_key(refs[name]), model) for name, model in lazy.items()}
        reranker = stored_reranker(adapter.schema, None, OPTIONS)
        index = Index(
            wrapped(adapter, name=self._address.name, retry=RETRY),
            models,
            reranker=None if reranker is None else self._lazy(_key(refs[RERANKER]), reranker),
            text_key=text_key_of(adapter.schema),
        )
        return Target(collection, index, adapter)

    def _adopted(self, name: str, rule: Rule, opener: Opener) -> Target:
        adapter = lucene.adopt(opener, self._address, name, {}, None)
        dense = self._named(ModelKind.DENSE, rule.dense, rule.dense_model, rule)
        sparse = self._named(ModelKind.SPARSE, rule.sparse, rule.sparse_model, rule)
        reranker = self._named(ModelKind.RERANKER, RERANKER, rule.reranker, rule)
        adopted_models(adapter.schema, _loaded(dense), _loaded(sparse), OPTIONS)
        models = {field: _as_lazy(model) for field, model in filter(None, (dense, sparse))}
        index = Index(
            wrapped(adapter, name=self._address.name, retry=RETRY),
            models,
            reranker=None if reranker is None else _as_lazy(reranker[1]),
            text_key=rule.text,
            fields=[*models, *({rule.text} & adapter.schema.fields.keys())],
        )
        return Target(name, index, adapter, rule)

    def _lazy(self, key: str, model: LazyModel) -> LazyModel:
        return _as_lazy(self._models.shared(key, lambda: model))

    def _named(
        self, kind: ModelKind, field: str | None, name: str | None, rule: Rule
    ) -> tuple[str, BatchedModel] | None:
        """Return the model of a field of a rule; None if the rule names none."""
        if field is None or name is None:
            return None
        options = ModelOptions(rule.backend, rule.dtype)
        key = json.dumps([kind, name, rule.backend, rule.dtype])
        return field, self._models.shared(key, lambda: LazyModel(kind, name, options=options))

    def _opener(self, credentials: Headers) -> Opener:
        """Return the function that opens the engine with connections of the gateway and the client's credentials."""
        names = {"name": self._address.name, "product": self._engine.connection.product}
        exchange = partial(self._exchange, asyncio.get_running_loop(), credentials)
        engine = replace(
            self._engine, connection=Connection(**names, exchange=exchange, close=lambda: None, sends_smile=False)
        )
        return lambda _address, _client: engine

    def _exchange(self, loop: asyncio.AbstractEventLoop, credentials: Headers, request: Request) -> Any:
        """Send a request of a store from its thread, and return the parsed answer."""
        names: dict[str, Any] = {"store": self._address.name, "operation": request.operation}
        headers, body = _encoded(request)
        target = f"{request.path}?{urlencode(request.params)}" if request.params else request.path
        call = self._call(request.method, target, [*credentials, *headers], body)
        try:
            answer = asyncio.run_coroutine_threadsafe(_awaited(call), loop).result()
        except (NodesDownError, TimeoutError, ValueError) as error:
            raise Unavailable(f"the engine cannot be reached: {error}", **names) from error
        try:
            parsed = json.loads(answer.body)
        except ValueError as error:
            if answer.status < FAILED:
                raise foreign_answer(self._engine.connection.product, "it is not JSON", answer.body, **names) from error
            parsed = answer.body
        if answer.status >= FAILED:
            raise self._engine.error_of(answer.status, parsed, **names)
        return parsed

    def close(self) -> None:
        """Stop the models."""
        self._engine.connection.close()
        self._models.close()


async def _awaited(call: Awaitable[Answer]) -> Answer:
    return await call


def _encoded(request: Request) -> tuple[Headers, bytes]:
    """Return the headers and the body of a request of a store."""
    if request.lines:
        lines = (each if isinstance(each, bytes) else encode_json(each) for each in request.lines)
        return [(b"content-type", b"application/x-ndjson")], b"".join(line + b"\n" for line in lines)
    if request.body is None:
        return [], b""
    return [(b"content-type", b"application/json")], encode_json(request.body)


def _as_lazy(model: BatchedModel) -> LazyModel:
    return LazyModel(model.kind, model, options=OPTIONS)


def _loaded(pair: tuple[str, BatchedModel] | None) -> tuple[str, Any] | None:
    return None if pair is None else (pair[0], pair[1].loaded())


def _key(ref: ModelRef) -> str:
    return json.dumps(ref.to_json(), sort_keys=True)

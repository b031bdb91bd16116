"""Connect to servers and to local mode through qdrant-client.

REST bodies are converted to the models of the client, which sends them over REST or gRPC, or evaluates them in local
mode. ``qdrant+memory:NAME`` is the local mode: brute force in Python, for tests with up to 2,000 records. All stores of
this process with the same name use the same collections.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from qdrant_client import QdrantClient, models
from qdrant_client.local.qdrant_local import QdrantLocal

from st_connectors.errors import NotFound, StoreError
from st_connectors.plugin import Address, Description
from st_connectors.qdrant import faults, server, wire
from st_connectors.qdrant.layout import PointId
from st_connectors.store import Capabilities

__all__ = ["ClientEngine", "Connection", "collections", "open_client"]

Body = dict[str, Any]

_log = logging.getLogger(__name__)

API_KEY = "ST_QDRANT_API_KEY"
TIMEOUT = 60
"""The default timeout in seconds; the client's default of 5 is too short for a large batch, because writes wait until
they are applied."""


@dataclass(frozen=True, slots=True, eq=False)
class Connection:
    """A client and its properties.

    ``name`` is the scheme of the address and ``place`` the host and port of the server; both are used in messages.
    ``lock`` serialises calls in local mode, whose arrays are not safe for use from several threads.
    """

    client: QdrantClient
    name: str
    local: bool = False
    grpc: bool = False
    owned: bool = False
    place: str = ""
    lock: AbstractContextManager[Any] = field(default_factory=nullcontext)


_LOCAL: dict[str, Connection] = {}
_LOCK = threading.Lock()


def open_client(address: Address, client: object | None) -> Connection:
    """Return a connection that uses the client of the caller, or a new client for the address if ``client`` is None.

    No request is sent. Raises ValueError for unknown options.
    """
    if unknown := address.options.keys() - {"timeout"}:
        raise ValueError(f"unknown option {min(unknown)!r} of {address.scheme}; expected timeout, in seconds")
    if client is not None:
        return _use_client(address, client)
    if "memory" in address.variants:
        return _open_local(address.path)
    return _open_server(address)


def _use_client(address: Address, client: object) -> Connection:
    if not isinstance(client, QdrantClient):
        raise TypeError(f"{address.scheme}: expected a qdrant_client.QdrantClient, got {type(client).__name__}")
    inner: Any = client._client  # noqa: SLF001  # no public attribute tells local mode from a server
    local = isinstance(inner, QdrantLocal)
    lock = threading.RLock() if local else nullcontext()
    return Connection(client, address.scheme, local, getattr(inner, "_prefer_grpc", False), owned=False, lock=lock)


def _open_local(name: str) -> Connection:
    with _LOCK:
        if name not in _LOCAL:
            client = QdrantClient(":memory:")
            # Otherwise the __del__ method of the client prints an error at exit.
            atexit.register(client.close)
            _LOCAL[name] = Connection(client, "qdrant+memory", local=True, lock=threading.RLock())
        return _LOCAL[name]


def _open_server(address: Address) -> Connection:
    grpc, tls, key = "grpc" in address.variants, "https" in address.variants, os.environ.get(API_KEY)
    place = f"{address.host}:{address.port or (6334 if grpc else 6333)}"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Api key is used with an insecure connection")
        client = QdrantClient(
            host=address.host,
            port=6333 if grpc else address.port or 6333,
            grpc_port=address.port or 6334 if grpc else 6334,
            prefer_grpc=grpc,
            https=tls,
            prefix=address.path or None,
            api_key=key,
            timeout=_parse_timeout(address),
            # The retry layer repeats calls, so that the client must not; its version check would print warnings from
            # another thread.
            grpc_options={"grpc.enable_retries": 0},
            check_compatibility=False,
        )
    if key and not tls:
        _warn_unencrypted(address.scheme, place)
    return Connection(client, address.scheme, grpc=grpc, owned=True, place=place)


@cache
def _warn_unencrypted(scheme: str, place: str) -> None:
    """Log that the key is sent without TLS, once for each server; the warning of qdrant-client shows source code."""
    _log.warning(
        "%s: the key in %s is sent to %s without encryption; if the server speaks TLS, write %s+https://",
        scheme,
        API_KEY,
        place,
        scheme,
    )


def _parse_timeout(address: Address) -> int:
    value = address.options.get("timeout", str(TIMEOUT))
    if not value.isdecimal() or int(value) == 0:
        raise ValueError(f"timeout: expected a whole number of seconds above 0, got {value!r}")
    return int(value)


class ClientEngine:
    """One collection of a server or of local mode. Safe for use from several threads."""

    def __init__(self, connection: Connection, collection: str, capabilities: Capabilities) -> None:
        """Store the arguments. No request is sent to the server."""
        self.name = connection.name
        self.capabilities = capabilities
        self._connection = connection
        self._client = connection.client
        self._collection = collection

    def translate(self, error: Exception, operation: str) -> StoreError | None:
        """Translate an error of qdrant-client; return None for any other error."""
        return faults.from_client(error, store=self.name, operation=operation, place=self._connection.place)

    def sibling(self, collection: str) -> ClientEngine:
        """Return the engine of another collection of the same client."""
        return ClientEngine(self._connection, collection, self.capabilities)

    def metadata(self) -> Mapping[str, Any] | None:
        """Return the metadata of the collection, or None if the collection does not exist."""
        config = self._config()
        return None if config is None else (config.metadata or {})

    def description(self) -> Body | None:
        """Return Qdrant's description of the vectors, or None if the collection does not exist."""
        config = self._config()
        return None if config is None else dict(config.params.model_dump(mode="json", exclude_none=True))

    def _config(self) -> Any:
        info = self._info()
        return None if info is None else info.config

    def _info(self) -> Any:
        try:
            with self._connection.lock:
                return self._client.get_collection(self._collection)
        except Exception as error:
            if isinstance(self.translate(error, "connect"), NotFound):
                return None
            raise

    def own_name(self) -> str:
        """Return the name of the collection, or the collection of the alias."""
        return self._targets().get(self._collection, self._collection)

    def _targets(self) -> dict[str, str]:
        """Return the collection of each alias."""
        with self._connection.lock:
            listed = self._client.get_aliases().aliases
        return {each.alias_name: each.collection_name for each in listed}

    def describe(self) -> Description | None:
        """Return the own name, aliases and settings of the collection, or None if it does not exist."""
        targets = self._targets()
        name = targets.get(self._collection, self._collection)
        info = self._info()
        if info is None:
            return None
        aliases = tuple(sorted(alias for alias, target in targets.items() if target == name))
        return Description(name, aliases, options={} if self._connection.local else wire.to_settings(info))

    def indexed(self) -> dict[str, str]:
        """Return the payload indexes as a mapping from JSON path to kind."""
        with self._connection.lock:
            schema = self._client.get_collection(self._collection).payload_schema
        return {key: info.data_type.value for key, info in schema.items()}

    def open(self) -> None:
        """Do nothing, because each request connects by itself."""

    def create(self, body: Body, indexes: Mapping[str, str]) -> None:
        """Create the collection, then its payload indexes; local mode has no indexes."""
        if not self._connection.local:
            server.check_version(self._client.info().version, store=self.name, operation="create")
        with self._connection.lock:
            try:
                self._client.create_collection(
                    self._collection,
                    vectors_config={name: models.VectorParams(**params) for name, params in body["vectors"].items()},
                    sparse_vectors_config={
                        name: models.SparseVectorParams(**params) for name, params in body["sparse_vectors"].items()
                    },
                    metadata=body["metadata"],
                )
            except Exception as error:
                if "already exists" in str(error):
                    return
                raise
        if not self._connection.local:
            self.create_indexes(indexes)

    def drop(self) -> None:
        """Remove the collection."""
        with self._connection.lock:
            self._client.delete_collection(self._collection)

    def create_indexes(self, indexes: Mapping[str, str]) -> None:
        """Create payload indexes and wait until they are built; local mode has none."""
        for key, kind in indexes.items() if not self._connection.local else ():
            self._client.create_payload_index(self._collection, key, models.PayloadSchemaType(kind), wait=True)

    def set_payloads(self, payloads: Mapping[PointId, Body]) -> None:
        """Write keys of payloads in one request and wait until they are applied."""
        operations = [
            models.SetPayloadOperation(set_payload=models.SetPayload(payload=payload, points=[point_id]))
            for point_id, payload in payloads.items()
        ]
        with self._connection.lock:
            self._client.batch_update_points(self._collection, operations, wait=True)

    def update(self, metadata: Body, quantizations: Mapping[str, Body | None]) -> None:
        """Send one request that replaces the schema and the quantizations; the server then rebuilds its segments."""
        vectors = {
            name: models.VectorParamsDiff(quantization_config=_quantization(body))
            for name, body in quantizations.items()
        }
        with self._connection.lock:
            self._client.update_collection(self._collection, vectors_config=vectors or None, metadata=metadata)

    def upsert(self, points: Iterable[Body]) -> None:
        """Write points and wait until they are applied."""
        structs = [models.PointStruct(**point) for point in points]
        with self._connection.lock:
            self._client.upsert(self._collection, structs, wait=True)

    def delete(self, ids: Sequence[PointId]) -> None:
        """Remove points and wait until they are removed."""
        with self._connection.lock:
            self._client.delete(self._collection, list(ids), wait=True)

    def retrieve(self, ids: Sequence[PointId], body: Body) -> list[Any]:
        """Return points by id."""
        with self._connection.lock:
            return self._client.retrieve(
                self._collection, list(ids), with_payload=body["with_payload"], with_vectors=body["with_vector"]
            )

    def query(self, bodies: Sequence[Body]) -> list[list[Any]]:
        """Send all queries as one request and return their results, in order."""
        if not bodies:
            return []
        requests = [models.QueryRequest(**self._plain(body)) for body in bodies]
        with self._connection.lock:
            if self._connection.local:
                return [self._query_one(request) for request in requests]
            results = self._client.query_batch_points(self._collection, requests)
        return [result.points for result in results]

    def _query_one(self, request: models.QueryRequest) -> list[Any]:
        """Return the result of one query in local mode.

        Batch calls are not used: in qdrant-client 1.20 they first copy every number of the queries, and then also
        compute the results one by one.
        """
        return self._client.query_points(
            self._collection,
            query=request.query,
            using=request.using,
            prefetch=request.prefetch,
            query_filter=request.filter,
            limit=request.limit or 0,
            with_payload=request.with_payload or False,
            with_vectors=request.with_vector or False,
        ).points

    def scroll(self, body: Body) -> tuple[list[Any], PointId | None]:
        """Return one page, and the id at which the next page starts."""
        with self._connection.lock:
            points, next_id = self._client.scroll(
                self._collection,
                scroll_filter=_filter(body.get("filter")),
                limit=body["limit"],
                offset=body.get("offset"),
                with_payload=body["with_payload"],
                with_vectors=body["with_vector"],
            )
        return list(points), next_id if next_id is None or isinstance(next_id, int) else str(next_id)

    def count(self, body: Body | None) -> int:
        """Count the points that pass a filter."""
        with self._connection.lock:
            return self._client.count(self._collection, count_filter=_filter(body), exact=True).count

    def refresh(self) -> None:
        """Verify that the collection exists; writes need no refresh, because they wait until they are applied."""
        with self._connection.lock:
            self._client.get_collection(self._collection)

    def indexing_threshold(self) -> int | None:
        """Return the size of vectors in kilobytes above which a segment gets a graph, or None if not set.

        For servers only.
        """
        config = self._client.get_collection(self._collection).config
        threshold: int | None = config.optimizer_config.indexing_threshold
        return threshold

    def set_indexing_threshold(self, kilobytes: int) -> None:
        """Set the indexing threshold and change no other setting; for servers only."""
        self._client.update_collection(
            self._collection, optimizers_config=models.OptimizersConfigDiff(indexing_threshold=kilobytes)
        )

    def close(self) -> None:
        """Close the client, unless the caller passed it."""
        if self._connection.owned:
            self._client.close()

    def _plain(self, body: Body) -> Body:
        """Return the body; for local mode, which is exact and warns about search parameters, return it without them."""
        if not self._connection.local:
            return body
        body = {key: value for key, value in body.items() if key != "params"}
        if "prefetch" in body:
            body["prefetch"] = [self._plain(leg) for leg in body["prefetch"]]
        return body


def collections(address: Address, client: object | None) -> list[str]:
    """Return the names of the collections that this package created at an address."""
    connection = open_client(address, client)
    try:
        with connection.lock:
            names = [each.name for each in connection.client.get_collections().collections]
            configs = {name: connection.client.get_collection(name).config for name in names}
    except Exception as error:
        translated = faults.from_client(error, store=connection.name, operation="collections", place=connection.place)
        if translated is None:
            raise
        raise translated from error
    finally:
        if connection.owned:
            connection.client.close()
    return sorted(name for name, config in configs.items() if wire.METADATA in (config.metadata or {}))


def _filter(body: Body | None) -> models.Filter | None:
    return None if body is None else models.Filter(**body)


def _quantization(body: Body | None) -> models.QuantizationConfigDiff:
    """Return the change to a quantization; None turns quantization off."""
    if body is None:
        return models.Disabled.DISABLED
    if "binary" in body:
        return models.BinaryQuantization(**body)
    return models.ScalarQuantization(**body)

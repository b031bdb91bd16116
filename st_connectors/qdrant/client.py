"""Servers and local mode by qdrant-client: REST bodies become its models, which it sends over REST or gRPC or answers itself.

``qdrant+memory:NAME`` is the client's local mode: brute force in Python, good for tests up to 2,000 records; whoever opens the same
name in this process sees the same collections.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from qdrant_client import QdrantClient, models
from qdrant_client.local.qdrant_local import QdrantLocal

from st_connectors.errors import NotFound, StoreError, Unsupported
from st_connectors.plugin import Address
from st_connectors.qdrant import faults
from st_connectors.qdrant.layout import PointId
from st_connectors.store import Capabilities

__all__ = ["ClientEngine", "Opened", "collections", "open_client"]

Body = dict[str, Any]

API_KEY = "ST_QDRANT_API_KEY"
TIMEOUT = 60
"""Seconds; the client's own 5 are too few for a large batch that waits until it is applied."""
OLDEST = (1, 16)
"""Collection metadata and the k of reciprocal rank fusion came with Qdrant 1.16."""


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A client and what is known of it.

    ``place`` is the server's host and port, for messages; ``lock`` serialises local mode, whose arrays are not safe in threads.
    """

    client: QdrantClient
    name: str
    local: bool = False
    grpc: bool = False
    owned: bool = False
    place: str = ""
    lock: AbstractContextManager[Any] = field(default_factory=nullcontext)


_LOCAL: dict[str, Opened] = {}
_LOCK = threading.Lock()


def open_client(address: Address, client: object | None) -> Opened:
    """The client for an address, or what there is to know of one handed in; nothing is sent. Raises ValueError for unknown options."""
    if unknown := address.options.keys() - {"timeout"}:
        raise ValueError(f"{address.scheme} has no option {min(unknown)!r}; there is timeout, in seconds")
    if client is not None:
        return _handed_in(address, client)
    if "memory" in address.variants:
        if address.host is not None:
            raise ValueError(f"{address.scheme} is no server: write {address.scheme}:NAME, without //, not {address}")
        return _local(address.path)
    if address.host is None:
        raise ValueError(
            f"{address.scheme} is a server: write {address.scheme}://HOST:PORT, or for a folder qdrant+edge:PATH"
        )
    return _remote(address)


def _handed_in(address: Address, client: object) -> Opened:
    if not isinstance(client, QdrantClient):
        raise TypeError(f"{address.scheme} takes a qdrant_client.QdrantClient, not {type(client).__name__}")
    inner: Any = client._client  # noqa: SLF001  # the only place that says which of its two lives it leads
    local = isinstance(inner, QdrantLocal)
    lock = threading.RLock() if local else nullcontext()
    return Opened(client, address.scheme, local, getattr(inner, "_prefer_grpc", False), owned=False, lock=lock)


def _local(name: str) -> Opened:
    with _LOCK:
        if name not in _LOCAL:
            client = QdrantClient(":memory:")
            # The client complains from its __del__ at exit otherwise.
            atexit.register(client.close)
            _LOCAL[name] = Opened(client, "qdrant+memory", local=True, lock=threading.RLock())
        return _LOCAL[name]


def _remote(address: Address) -> Opened:
    grpc = "grpc" in address.variants
    client = QdrantClient(
        host=address.host,
        port=6333 if grpc else address.port or 6333,
        grpc_port=address.port or 6334 if grpc else 6334,
        prefer_grpc=grpc,
        https="https" in address.variants,
        prefix=address.path or None,
        api_key=os.environ.get(API_KEY),
        timeout=_timeout(address),
        # Repeating is the retrying wrapper's; a version check in a thread of its own would print to the user's screen.
        grpc_options={"grpc.enable_retries": 0},
        check_compatibility=False,
    )
    place = f"{address.host}:{address.port or (6334 if grpc else 6333)}"
    return Opened(client, address.scheme, grpc=grpc, owned=True, place=place)


def _timeout(address: Address) -> int:
    given = address.options.get("timeout", str(TIMEOUT))
    if not given.isdecimal() or int(given) == 0:
        raise ValueError(f"timeout is a whole number of seconds above 0, not {given!r}")
    return int(given)


class ClientEngine:
    """One collection of a server or of local mode; safe in threads."""

    def __init__(self, opened: Opened, collection: str, capabilities: Capabilities) -> None:
        """Nothing is sent."""
        self.name = opened.name
        self.capabilities = capabilities
        self._opened = opened
        self._client = opened.client
        self._collection = collection

    def translate(self, error: Exception, operation: str) -> StoreError | None:
        """Our error for qdrant-client's, None for one that is not."""
        return faults.from_client(error, store=self.name, operation=operation, place=self._opened.place)

    def metadata(self) -> Mapping[str, Any] | None:
        """The collection's metadata, or None where there is no collection."""
        config = self._config()
        return None if config is None else (config.metadata or {})

    def description(self) -> Body | None:
        """Qdrant's description of the vectors, or None where there is no collection."""
        config = self._config()
        return None if config is None else dict(config.params.model_dump(mode="json", exclude_none=True))

    def _config(self) -> Any:
        try:
            with self._opened.lock:
                return self._client.get_collection(self._collection).config
        except Exception as error:
            if isinstance(self.translate(error, "connect"), NotFound):
                return None
            raise

    def indexed(self) -> dict[str, str]:
        """Payload indexes: JSON path to kind."""
        with self._opened.lock:
            schema = self._client.get_collection(self._collection).payload_schema
        return {key: info.data_type.value for key, info in schema.items()}

    def open(self) -> None:
        """Nothing is to be done: a connection is made by each request."""

    def create(self, body: Body, indexes: Mapping[str, str]) -> None:
        """Make the collection, then its payload indexes, which local mode does not have."""
        if not self._opened.local:
            self._check_version()
        with self._opened.lock:
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
        if not self._opened.local:
            for key, kind in indexes.items():
                self._client.create_payload_index(self._collection, key, models.PayloadSchemaType(kind), wait=True)

    def drop(self) -> None:
        """Remove the collection."""
        with self._opened.lock:
            self._client.delete_collection(self._collection)

    def upsert(self, points: Iterable[Body]) -> None:
        """Write points and wait until they are applied."""
        made = [models.PointStruct(**point) for point in points]
        with self._opened.lock:
            self._client.upsert(self._collection, made, wait=True)

    def delete(self, ids: Sequence[PointId]) -> None:
        """Remove points and wait until it is done."""
        with self._opened.lock:
            self._client.delete(self._collection, list(ids), wait=True)

    def retrieve(self, ids: Sequence[PointId], body: Body) -> list[Any]:
        """Points by id."""
        with self._opened.lock:
            return self._client.retrieve(
                self._collection, list(ids), with_payload=body["with_payload"], with_vectors=body["with_vector"]
            )

    def query(self, bodies: Sequence[Body]) -> list[list[Any]]:
        """Answers to queries, in order, in one request."""
        if not bodies:
            return []
        requests = [models.QueryRequest(**self._plain(body)) for body in bodies]
        with self._opened.lock:
            if self._opened.local:
                return [self._query_one(request) for request in requests]
            answers = self._client.query_batch_points(self._collection, requests)
        return [answer.points for answer in answers]

    def _query_one(self, request: models.QueryRequest) -> list[Any]:
        """One answer of local mode: for a batch, too, it works them out one by one, once qdrant-client 1.20 has copied every query number by number."""
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
        """One page and the id that the next begins with."""
        with self._opened.lock:
            found, following = self._client.scroll(
                self._collection,
                scroll_filter=_filter(body.get("filter")),
                limit=body["limit"],
                offset=body.get("offset"),
                with_payload=body["with_payload"],
                with_vectors=body["with_vector"],
            )
        return list(found), following if following is None or isinstance(following, int) else str(following)

    def count(self, body: Body | None) -> int:
        """Points that pass a filter."""
        with self._opened.lock:
            return self._client.count(self._collection, count_filter=_filter(body), exact=True).count

    def refresh(self) -> None:
        """Every write waited until it was applied; make sure only that the collection is there."""
        with self._opened.lock:
            self._client.get_collection(self._collection)

    def indexing_threshold(self) -> int | None:
        """Kilobytes of vectors above which a segment gets a graph; None where the collection does not say. For servers."""
        found: int | None = self._client.get_collection(self._collection).config.optimizer_config.indexing_threshold
        return found

    def set_indexing_threshold(self, kilobytes: int) -> None:
        """Set it, and leave the other settings as they are. For servers."""
        self._client.update_collection(
            self._collection, optimizers_config=models.OptimizersConfigDiff(indexing_threshold=kilobytes)
        )

    def close(self) -> None:
        """Close the client that was opened for this collection."""
        if self._opened.owned:
            self._client.close()

    def _plain(self, body: Body) -> Body:
        """The body without search parameters in local mode, which is exact and warns of them."""
        if not self._opened.local:
            return body
        body = {key: value for key, value in body.items() if key != "params"}
        if "prefetch" in body:
            body["prefetch"] = [self._plain(leg) for leg in body["prefetch"]]
        return body

    def _check_version(self) -> None:
        version = self._client.info().version
        parts = version.partition("-")[0].split(".")
        if [int(part) for part in parts[:2] if part.isdecimal()] < list(OLDEST):
            raise Unsupported(
                f"the server is Qdrant {version}, and 1.16 is the oldest that keeps a collection's metadata",
                store=self.name,
                operation="create",
            )


def collections(address: Address, client: object | None) -> list[str]:
    """The names of our collections."""
    from st_connectors.qdrant import wire

    opened = open_client(address, client)
    try:
        with opened.lock:
            names = [each.name for each in opened.client.get_collections().collections]
            configs = {name: opened.client.get_collection(name).config for name in names}
    except Exception as error:
        told = faults.from_client(error, store=opened.name, operation="collections", place=opened.place)
        if told is None:
            raise
        raise told from error
    finally:
        if opened.owned:
            opened.client.close()
    return sorted(name for name, config in configs.items() if wire.METADATA in (config.metadata or {}))


def _filter(body: Body | None) -> models.Filter | None:
    return None if body is None else models.Filter(**body)

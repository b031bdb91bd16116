"""Run the Qdrant engine in this process through qdrant-edge-py, for addresses ``qdrant+edge:PATH``.

A collection is the folder ``PATH/<name>/``, which contains the shard and a JSON sidecar with the schema. The sidecar is
written last and atomically, so that a folder without a sidecar is an interrupted creation and is created again. A shard
can be open only once and in one process; all stores of the collection in that process share it.

An acknowledged write is in the write-ahead log and is not lost if the process is killed; ``refresh`` and ``close``
flush it to the segments.
"""

from __future__ import annotations

import json
import shutil
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import qdrant_edge as edge

from st_connectors.disk import check_space, explain_unwritable, has_space, write_atomically
from st_connectors.errors import NotFound, StoreError, Unsupported
from st_connectors.plugin import Description
from st_connectors.qdrant import faults
from st_connectors.qdrant.layout import PointId
from st_connectors.sizing import folder_size
from st_connectors.store import Capabilities

__all__ = ["EdgeEngine", "collections"]

Body = dict[str, Any]

SIDECAR = "schema.json"
SHARD = "shard"
FOREIGN = "edge_config.json"
"""A file of qdrant-edge. If the folder of a collection contains it, the shard was created without this package."""

FLUSH_EVERY = 10_000
"""The number of points after which writes are flushed. After a crash, opening a shard with a log of 40,000 points takes
10 s."""
COPIES = 4
"""The bound for the bytes on disk per byte of records: two measured, for the log and the segment, and as many again."""
PER_FILE = 2_000_000
"""The bound for the bytes of the empty files of a vector or an index, as measured for an index."""
INDEXING_THRESHOLD_KB = 200_000
"""The size of dense vectors in kilobytes above which the next ``refresh`` builds an HNSW graph. Smaller collections are
searched exactly by comparing all vectors, in about 10 ms."""


@dataclass(slots=True, eq=False)
class _Shard:
    """An open shard and the number of stores that use it."""

    shard: Any
    users: int
    is_closed: bool = False
    unflushed: int = 0
    """The number of points written since the last flush. It is counted because a flush takes tens of milliseconds even
    if there is nothing to flush."""

    def flush(self) -> None:
        """Flush writes to the segments."""
        if self.unflushed:
            self.unflushed = 0  # reset first, so that a write during the flush counts towards the next flush
            self.shard.flush()

    def update(self, operation: Any, points: int) -> None:
        """Write points, and flush after every ``FLUSH_EVERY`` points, so that the write-ahead log stays short."""
        self.unflushed += points
        self.shard.update(operation)
        self.unflushed += points
        # Each point is counted before and after the update, so that a concurrent flush does not lose it.
        if self.unflushed >= 2 * FLUSH_EVERY:
            self.flush()


_SHARDS: dict[Path, _Shard] = {}
_LOCK = threading.RLock()


class EdgeEngine:
    """One collection in a folder. Safe for use from several threads."""

    name = "qdrant+edge"

    def __init__(self, root: str, collection: str, capabilities: Capabilities) -> None:
        """Store the arguments; the shard is not opened yet."""
        self.capabilities = capabilities
        self._collection = collection
        self._folder = _folder(Path(root).resolve(), collection)
        self._shard: _Shard | None = None
        self._lease: weakref.finalize[..., EdgeEngine] | None = None

    def translate(self, error: Exception, operation: str) -> StoreError | None:
        """Translate an error of qdrant-edge; return None for any other error."""
        return faults.from_edge(error, operation=operation, folder=str(self._folder))

    def sibling(self, collection: str) -> EdgeEngine:
        """Return the engine of another collection in the same folder, whose shard is not opened."""
        return EdgeEngine(str(self._folder.parent), collection, self.capabilities)

    def metadata(self) -> Mapping[str, Any] | None:
        """Return the content of the sidecar, or None if the collection does not exist."""
        try:
            return _read_object(self._folder / SIDECAR)
        except FileNotFoundError:
            return {} if (self._folder / FOREIGN).exists() else None

    def description(self) -> Body | None:
        """Return the vector configuration of a shard that another program created; None for a shard of this package."""
        try:
            return _read_object(self._folder / FOREIGN)
        except FileNotFoundError:
            return None

    def own_name(self) -> str:
        """Return the name of the collection; a folder has no aliases."""
        return self._collection

    def describe(self) -> Description | None:
        """Return the folder of the collection and the size of its files; None if the collection does not exist."""
        if self.metadata() is None:
            return None
        return Description(self._collection, size=folder_size(self._folder), options={"folder": str(self._folder)})

    def indexed(self) -> dict[str, str]:
        """Return the payload indexes as a mapping from JSON path to kind."""
        schema = self._open("adopt").shard.info().payload_schema
        return {key: str(info.data_type).rpartition(".")[2].lower() for key, info in schema.items()}

    def open(self) -> None:
        """Open the shard, so that a lock of another process is reported at once."""
        self._open("connect")

    def create(self, body: Body, indexes: Mapping[str, str]) -> None:
        """Create the shard, then the sidecar."""
        with _LOCK:
            if self.metadata() is not None:
                return
            path = self._folder / SHARD
            if path.exists():
                _check_unlocked(path)
                shutil.rmtree(path)
            # Each vector and each index has files of a fixed size.
            files = len(body["vectors"]) + len(body["sparse_vectors"]) + len(indexes)
            self._check_space(PER_FILE * (1 + files), "create")
            path.parent.mkdir(parents=True, exist_ok=True)
            shard = edge.EdgeShard.create(str(path), _config(body))
            for key, kind in indexes.items():
                shard.update(edge.UpdateOperation.create_field_index(key, _INDEXES[kind]))
            shard.flush()
            self._release()
            _SHARDS[self._folder] = opened = _Shard(shard, 0)
            self._use(opened)
            write_atomically(self._folder / SIDECAR, [_format_sidecar(body["metadata"])])

    def drop(self) -> None:
        """Close the shard for every store of this process, and remove the sidecar, then the rest of the folder."""
        with _LOCK:
            if self.metadata() is None:
                return
            self._open("drop")
            shard = _SHARDS.pop(self._folder)
            shard.is_closed = True
            (self._folder / SIDECAR).unlink(missing_ok=True)
            shard.shard.close()
            shutil.rmtree(self._folder)

    def create_indexes(self, indexes: Mapping[str, str]) -> None:
        """Create payload indexes."""
        shard = self._open("alter")
        for key, kind in indexes.items():
            shard.update(edge.UpdateOperation.create_field_index(key, _INDEXES[kind]), 1)

    def set_payloads(self, payloads: Mapping[PointId, Body]) -> None:
        """Write keys of payloads, one point after the other."""
        shard = self._open("alter")
        for point_id, payload in payloads.items():
            shard.update(edge.UpdateOperation.set_payload([point_id], payload), 1)

    def update(self, metadata: Body, quantizations: Mapping[str, Body | None]) -> None:
        """Flush the shard, then replace the sidecar; the capabilities exclude other quantizations."""
        del quantizations
        self._open("alter").flush()
        write_atomically(self._folder / SIDECAR, [_format_sidecar(metadata)])

    def upsert(self, points: Iterable[Body]) -> None:
        """Write points."""
        bodies = list(points)
        converted = [edge.Point(each["id"], _vectors(each["vector"]), each["payload"]) for each in bodies]
        shard = self._open("upsert")
        self._check_space(COPIES * sum(map(_size_of, bodies)), "upsert")
        shard.update(edge.UpdateOperation.upsert_points(converted), len(converted))

    def delete(self, ids: Sequence[PointId]) -> None:
        """Remove points."""
        shard = self._open("delete")
        self._check_space(0, "delete")
        shard.update(edge.UpdateOperation.delete_points(list(ids)), len(ids))

    def retrieve(self, ids: Sequence[PointId], body: Body) -> list[Any]:
        """Return points by id."""
        return list(self._open("get").shard.retrieve(list(ids), body["with_payload"], body["with_vector"]))

    def query(self, bodies: Sequence[Body]) -> list[list[Any]]:
        """Return the results of queries, in order."""
        shard = self._open("search").shard
        if not bodies:
            return []
        return list(shard.query_batch(edge.QueryBatchRequest([_query(body) for body in bodies])))

    def scroll(self, body: Body) -> tuple[list[Any], PointId | None]:
        """Return one page, and the id at which the next page starts."""
        request = edge.ScrollRequest(
            offset=body.get("offset"),
            limit=body["limit"],
            filter=_filter(body.get("filter")),
            with_payload=body["with_payload"],
            with_vector=body["with_vector"],
        )
        points, next_id = self._open("scan").shard.scroll(request)
        return list(points), next_id

    def count(self, body: Body | None) -> int:
        """Count the points that pass a filter."""
        return int(self._open("count").shard.count(edge.CountRequest(exact=True, filter=_filter(body))))

    def refresh(self) -> None:
        """Flush writes, remove deleted points and build the indexes that are due."""
        shard = self._open("refresh")
        if shard.unflushed:
            # Optimizing writes segments again. Without space for a copy, a later refresh does it.
            if has_space(self._folder, _folder_size(self._folder)):
                shard.shard.optimize()
            shard.flush()

    def _check_space(self, size: int, operation: str) -> None:
        check_space(self._folder, size, store=self.name, operation=operation)

    def close(self) -> None:
        """Release the shard; the shard is closed when the last store of the process releases it."""
        with _LOCK:
            self._release()

    def _open(self, operation: str) -> _Shard:
        shard = self._shard
        if shard is None or shard.is_closed:
            with _LOCK:
                shard = self._acquire(operation)
        return shard

    def _acquire(self, operation: str) -> _Shard:
        while True:
            shard = _SHARDS.get(self._folder)
            if shard is None:
                shard = _SHARDS[self._folder] = _Shard(self._load(operation), 0)
            self._use(shard)
            if not shard.is_closed:  # the garbage collector may have deleted its last user in the meantime
                return shard

    def _load(self, operation: str) -> Any:
        """Open the shard of an existing collection."""
        if self.metadata() is None:
            raise NotFound(
                f"there is no collection {self._collection!r} in {self._folder.parent}; create it first",
                store=self.name,
                operation=operation,
            )
        path = self._folder / SHARD if (self._folder / SIDECAR).exists() else self._folder
        try:
            return edge.EdgeShard.load(str(path))
        except Exception as error:
            unwritable = explain_unwritable(path, store=self.name, operation=operation)
            if unwritable is None:
                raise
            raise unwritable from error

    def _use(self, shard: _Shard) -> None:
        """Use a shard until ``close``, or until this object is deleted without it."""
        shard.users += 1
        self._shard = shard
        self._lease = weakref.finalize(self, _release_quietly, self._folder, shard)
        self._lease.atexit = False  # a process that ends releases its locks, and its writes are in the log

    def _release(self) -> None:
        shard, self._shard = self._shard, None
        if shard is not None and self._lease is not None and self._lease.detach():
            _release(self._folder, shard)


def _release(folder: Path, shard: _Shard) -> None:
    """Release a shard for one store; flush and close it if no other store uses it."""
    with _LOCK:
        if shard.is_closed:
            return
        shard.users -= 1
        if shard.users == 0:
            shard.is_closed = True
            del _SHARDS[folder]
            try:
                shard.flush()
            finally:
                shard.shard.close()


def _release_quietly(folder: Path, shard: _Shard) -> None:
    """Release a shard for a store that was deleted; errors have no receiver, and acknowledged writes are in the log."""
    with suppress(Exception):
        _release(folder, shard)


def _size_of(body: Body) -> int:
    """Return the approximate size of a point in bytes, as the engine stores it once."""
    numbers = sum(
        len(vector["indices"]) * 2 if isinstance(vector, dict) else len(vector) for vector in body["vector"].values()
    )
    return 4 * numbers + len(json.dumps(body["payload"], ensure_ascii=False).encode())


def _folder_size(folder: Path) -> int:
    """Return the size in bytes that the files of a folder occupy, which is less than their length if they have gaps."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def _check_unlocked(path: Path) -> None:
    """Raise the error of qdrant-edge if another process is creating this shard; ignore errors of a damaged shard."""
    try:
        edge.EdgeShard.load(str(path)).close()
    except Exception as error:
        if faults.LOCKED in str(error):
            raise


def collections(root: str) -> list[str]:
    """Return the names of the collections that this package created in a folder; none if there is no folder.

    Raises ``Permanent`` if the path is no folder, or one that cannot be read.
    """
    try:
        names = [path.name for path in Path(root).iterdir() if (path / SIDECAR).is_file()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise faults.unusable_folder(root, error, operation="collections") from error
    return sorted(unquote(name) for name in names)


def _folder(root: Path, collection: str) -> Path:
    """Return the folder of a collection; a collection name that is not a plain file name is escaped."""
    name = quote(collection, safe=" ")
    return root / (name if name.strip(". ") else name.replace(".", "%2E").replace(" ", "%20"))


def _read_object(path: Path) -> Body:
    """Return a JSON object from a file; raise JSONDecodeError or UnicodeDecodeError for any other content."""
    value = json.loads(path.read_text("utf-8"))
    if not isinstance(value, dict):
        raise json.JSONDecodeError("expected an object", path.name, 0)
    return value


def _format_sidecar(metadata: Body) -> str:
    return json.dumps(metadata, ensure_ascii=False, indent=1)


_DISTANCES = {"Cosine": edge.Distance.Cosine, "Dot": edge.Distance.Dot, "Euclid": edge.Distance.Euclid}
_INDEXES = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "float": edge.PayloadSchemaType.Float,
    "bool": edge.PayloadSchemaType.Bool,
    "datetime": edge.PayloadSchemaType.Datetime,
}


def _config(body: Body) -> Any:
    vectors = {
        name: edge.EdgeVectorParams(
            size=params["size"],
            distance=_DISTANCES[params["distance"]],
            quantization_config=_quantization(params.get("quantization_config")),
        )
        for name, params in body["vectors"].items()
    }
    sparse = {
        name: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf if "modifier" in params else None)
        for name, params in body["sparse_vectors"].items()
    }
    optimizers = edge.EdgeOptimizersConfig(indexing_threshold=INDEXING_THRESHOLD_KB)
    return edge.EdgeConfig(vectors=vectors, sparse_vectors=sparse, optimizers=optimizers)


def _quantization(body: Body | None) -> Any:
    if body is None:
        return None
    if "binary" in body:
        return edge.BinaryQuantizationConfig(always_ram=True)
    return edge.ScalarQuantizationConfig(type=edge.ScalarType.Int8, always_ram=True)


def _vectors(body: Body) -> Any:
    return {
        name: edge.SparseVector(value["indices"], value["values"]) if isinstance(value, dict) else value
        for name, value in body.items()
    }


def _query(body: Body) -> Any:
    query: Any = edge.Fusion.Rrf(k=body["query"]["rrf"]["k"]) if "prefetch" in body else _nearest(body)
    return edge.QueryRequest(
        limit=body["limit"],
        query=query,
        prefetches=[
            edge.Prefetch(
                limit=leg["limit"], query=_nearest(leg), params=_params(leg), filter=_filter(leg.get("filter"))
            )
            for leg in body.get("prefetch", ())
        ],
        with_payload=body["with_payload"],
        with_vector=body["with_vector"],
        filter=_filter(body.get("filter")),
        params=_params(body),
    )


def _nearest(body: Body) -> Any:
    query = body["query"]
    vector = edge.SparseVector(query["indices"], query["values"]) if isinstance(query, dict) else query
    return edge.Query.Nearest(vector, using=body["using"])


def _params(body: Body) -> Any:
    params = body.get("params")
    if params is None:
        return None
    quantization = params.get("quantization")
    return edge.SearchParams(
        hnsw_ef=params.get("hnsw_ef"),
        exact=params.get("exact", False),
        quantization=None if quantization is None else edge.QuantizationSearchParams(**quantization),
    )


def _filter(body: Body | None) -> Any:
    """Convert a filter body to the object that qdrant-edge expects."""
    if body is None:
        return None
    clauses: Any = {clause: [_condition(part) for part in parts] for clause, parts in body.items()}
    return edge.Filter(**clauses)


def _condition(body: Body) -> Any:
    if "has_id" in body:
        return edge.HasIdCondition(set(body["has_id"]))
    if "is_empty" in body:
        return edge.IsEmptyCondition(body["is_empty"]["key"])
    if "match" in body:
        match = body["match"]
        if isinstance(match.get("value"), bool):
            raise Unsupported(
                "qdrant-edge 0.9 cannot match booleans in an adopted collection: its client sends True as 1",
                store="qdrant+edge",
                operation="search",
            )
        kind = edge.MatchAny(match["any"]) if "any" in match else edge.MatchValue(match["value"])
        return edge.FieldCondition(key=body["key"], match=kind)
    if "range" in body:
        bounds = body["range"]
        has_dates = any(isinstance(bound, str) for bound in bounds.values())
        return edge.FieldCondition(
            key=body["key"], range=edge.RangeDateTime(**bounds) if has_dates else edge.RangeFloat(**bounds)
        )
    return _filter(body)

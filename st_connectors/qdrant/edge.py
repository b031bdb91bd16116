"""``qdrant+edge:PATH``: the engine of the server in this process, by qdrant-edge-py.

A collection is the folder ``PATH/<name>/`` with the shard and a JSON sidecar that holds the schema, written last and atomically: a folder
without one is a creation that was cut off, and is made anew. A shard can be open once only, in one process; within the process all
stores of a collection share it.

An acknowledged write is in the write-ahead log and survives the death of the process; ``refresh`` and ``close`` bring it to disk for good.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import qdrant_edge as edge

from st_connectors.errors import NotFound, StoreError, Unsupported
from st_connectors.qdrant import faults
from st_connectors.qdrant.layout import PointId
from st_connectors.store import Capabilities

__all__ = ["EdgeEngine", "collections"]

Body = dict[str, Any]

SIDECAR = "schema.json"
SHARD = "shard"
FOREIGN = "edge_config.json"
"""What qdrant-edge itself writes: in the collection's own folder it marks a shard that somebody else made."""

FLUSH_EVERY = 10_000
"""Points. A log of 40,000 takes 10 s to read when a shard is opened after a crash."""
INDEXING_THRESHOLD_KB = 200_000
"""Dense vectors above this get an HNSW graph at the next ``refresh``. Below it comparing with every one takes about 10 ms and is exact."""


@dataclass(slots=True, eq=False)
class _Shard:
    """An open shard and how many stores hold it."""

    shard: Any
    holders: int
    gone: bool = False
    unflushed: int = 0
    """Points written since the last flush, which takes tens of milliseconds even where there is nothing to do."""

    def flush(self) -> None:
        """Bring writes to disk."""
        if self.unflushed:
            self.unflushed = 0  # first, so that a write during the flush counts as one after it
            self.shard.flush()

    def update(self, operation: Any, points: int) -> None:
        """Write that many points; with a flush now and then, so that the log which a killed process leaves is soon read again."""
        self.unflushed += points
        self.shard.update(operation)
        self.unflushed += points
        if (
            self.unflushed >= 2 * FLUSH_EVERY
        ):  # each point counts before and after, whichever side of a flush it falls on
            self.flush()


_SHARDS: dict[Path, _Shard] = {}
_LOCK = threading.RLock()


class EdgeEngine:
    """One collection under a folder; safe in threads."""

    name = "qdrant+edge"

    def __init__(self, root: str, collection: str, capabilities: Capabilities) -> None:
        """Nothing is opened yet."""
        self.capabilities = capabilities
        self._collection = collection
        self._folder = _folder(Path(root).resolve(), collection)
        self._held: _Shard | None = None

    def translate(self, error: Exception, operation: str) -> StoreError | None:
        """Our error for qdrant-edge's, None for one that is not."""
        return faults.from_edge(error, operation=operation, folder=str(self._folder))

    def metadata(self) -> Mapping[str, Any] | None:
        """The sidecar's content."""
        try:
            return dict(json.loads((self._folder / SIDECAR).read_text("utf-8")))
        except FileNotFoundError:
            return {} if (self._folder / FOREIGN).exists() else None

    def description(self) -> Body | None:
        """What qdrant-edge wrote about the vectors of a shard that somebody else made."""
        try:
            return dict(json.loads((self._folder / FOREIGN).read_text("utf-8")))
        except FileNotFoundError:
            return None

    def indexed(self) -> dict[str, str]:
        """Payload indexes: JSON path to kind."""
        schema = self._shard("adopt").shard.info().payload_schema
        return {key: str(info.data_type).rpartition(".")[2].lower() for key, info in schema.items()}

    def open(self) -> None:
        """Open the shard, so that a lock held elsewhere is told at once."""
        self._shard("connect")

    def create(self, body: Body, indexes: Mapping[str, str]) -> None:
        """Make the shard, then the sidecar."""
        with _LOCK:
            if self.metadata() is not None:
                return
            path = self._folder / SHARD
            if path.exists():
                _check_unlocked(path)
                shutil.rmtree(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            shard = edge.EdgeShard.create(str(path), _config(body))
            for key, kind in indexes.items():
                shard.update(edge.UpdateOperation.create_field_index(key, _INDEXES[kind]))
            shard.flush()
            self._release()
            _SHARDS[self._folder] = self._held = _Shard(shard, 1)
            _write_atomically(self._folder / SIDECAR, json.dumps(body["metadata"], ensure_ascii=False, indent=1))

    def drop(self) -> None:
        """Close the shard for every store of this process and remove the folder; the sidecar goes first."""
        with _LOCK:
            if self.metadata() is None:
                return
            self._shard("drop")
            held = _SHARDS.pop(self._folder)
            held.gone = True
            (self._folder / SIDECAR).unlink(missing_ok=True)
            held.shard.close()
            shutil.rmtree(self._folder)

    def upsert(self, points: Iterable[Body]) -> None:
        """Write points."""
        made = [edge.Point(each["id"], _vectors(each["vector"]), each["payload"]) for each in points]
        self._shard("upsert").update(edge.UpdateOperation.upsert_points(made), len(made))

    def delete(self, ids: Sequence[PointId]) -> None:
        """Remove points."""
        self._shard("delete").update(edge.UpdateOperation.delete_points(list(ids)), len(ids))

    def retrieve(self, ids: Sequence[PointId], body: Body) -> list[Any]:
        """Points by id."""
        return list(self._shard("get").shard.retrieve(list(ids), body["with_payload"], body["with_vector"]))

    def query(self, bodies: Sequence[Body]) -> list[list[Any]]:
        """Answers to queries, in order."""
        shard = self._shard("search").shard
        if not bodies:
            return []
        return list(shard.query_batch(edge.QueryBatchRequest([_query(body) for body in bodies])))

    def scroll(self, body: Body) -> tuple[list[Any], PointId | None]:
        """One page and the id that the next begins with."""
        request = edge.ScrollRequest(
            offset=body.get("offset"),
            limit=body["limit"],
            filter=_filter(body.get("filter")),
            with_payload=body["with_payload"],
            with_vector=body["with_vector"],
        )
        found, following = self._shard("scan").shard.scroll(request)
        return list(found), following

    def count(self, body: Body | None) -> int:
        """Points that pass a filter."""
        return int(self._shard("count").shard.count(edge.CountRequest(exact=True, filter=_filter(body))))

    def refresh(self) -> None:
        """Bring writes to disk; clear away deleted points and build indexes where it is time."""
        held = self._shard("refresh")
        if held.unflushed:
            held.shard.optimize()
            held.flush()

    def close(self) -> None:
        """Let go of the shard; the last store of the process closes it."""
        with _LOCK:
            self._release()

    def _shard(self, operation: str) -> _Shard:
        held = self._held
        if held is None or held.gone:
            with _LOCK:
                held = self._acquire(operation)
        return held

    def _acquire(self, operation: str) -> _Shard:
        held = _SHARDS.get(self._folder)
        if held is None:
            if self.metadata() is None:
                raise NotFound(
                    f"there is no collection {self._collection!r} in {self._folder.parent}: create it first",
                    store=self.name,
                    operation=operation,
                )
            path = self._folder / SHARD if (self._folder / SIDECAR).exists() else self._folder
            held = _SHARDS[self._folder] = _Shard(edge.EdgeShard.load(str(path)), 0)
        held.holders += 1
        self._held = held
        return held

    def _release(self) -> None:
        held, self._held = self._held, None
        if held is None or held.gone:
            return
        held.holders -= 1
        if held.holders == 0:
            held.gone = True
            del _SHARDS[self._folder]
            held.flush()
            held.shard.close()


def _check_unlocked(path: Path) -> None:
    """Raise qdrant-edge's error where another process is making this shard; one that is cut off or damaged may go."""
    try:
        edge.EdgeShard.load(str(path)).close()
    except Exception as error:
        if faults.LOCKED in str(error):
            raise


def collections(root: str) -> list[str]:
    """The names of our collections under a folder."""
    found = (path.parent.name for path in Path(root).glob(f"*/{SIDECAR}"))
    return sorted(unquote(name) for name in found)


def _folder(root: Path, collection: str) -> Path:
    """The collection's folder; a name that is no plain file name is escaped."""
    name = quote(collection, safe=" ")
    return root / (name if name.strip(". ") else name.replace(".", "%2E").replace(" ", "%20"))


def _write_atomically(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all, even after a power cut."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(name).replace(path)


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
    ranked: Any = edge.Fusion.Rrf(k=body["query"]["rrf"]["k"]) if "prefetch" in body else _nearest(body)
    return edge.QueryRequest(
        limit=body["limit"],
        query=ranked,
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
    """A filter body as qdrant-edge's."""
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
                "qdrant-edge 0.9 cannot match booleans in other people's payloads: its client sends True as 1",
                store="qdrant+edge",
                operation="search",
            )
        kind = edge.MatchAny(match["any"]) if "any" in match else edge.MatchValue(match["value"])
        return edge.FieldCondition(key=body["key"], match=kind)
    if "range" in body:
        bounds = body["range"]
        dated = any(isinstance(bound, str) for bound in bounds.values())
        return edge.FieldCondition(
            key=body["key"], range=edge.RangeDateTime(**bounds) if dated else edge.RangeFloat(**bounds)
        )
    return _filter(body)

"""Convert records, searches and results to and from Qdrant's REST bodies, without a driver.

The same bodies are sent over REST, and are converted to the objects of the drivers for gRPC, local mode and the
embedded engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from st_connectors import bm25
from st_connectors.qdrant.filters import filter_to_qdrant
from st_connectors.qdrant.layout import INDEXES, Layout
from st_connectors.schema import (
    DenseField,
    Field,
    FilterKind,
    Metric,
    Quantization,
    Rrf,
    Schema,
    SparseField,
    TextField,
)
from st_connectors.store import (
    Candidates,
    Default,
    Effort,
    Exact,
    Fuse,
    Hit,
    Leg,
    Match,
    Near,
    Parts,
    Record,
    SearchRequest,
    Vector,
    is_empty_leg,
    is_empty_vector,
)
from st_core.vectors import SparseVector

__all__ = [
    "Point",
    "changed_quantizations",
    "select_vectors",
    "to_adopted_schema",
    "to_collection_body",
    "to_hits",
    "to_metadata",
    "to_point",
    "to_query_body",
    "to_record",
    "to_settings",
    "to_sparse_body",
]

METADATA = "st_connectors"
"""The key in the metadata of a collection that contains the schema."""

DISTANCES: Mapping[Metric, str] = {Metric.COSINE: "Cosine", Metric.DOT: "Dot", Metric.EUCLIDEAN: "Euclid"}

Body = dict[str, Any]


class Point(Protocol):
    """A point as the drivers return it, with or without a score."""

    @property
    def id(self) -> Any:
        """An integer or a UUID."""
        ...

    @property
    def payload(self) -> Any:
        """The payload, or None if it was not requested."""
        ...

    @property
    def vector(self) -> Any:
        """The vectors by name, a plain list for a single unnamed vector, or None if not requested."""
        ...


def to_collection_body(schema: Schema) -> Body:
    """Return the body of the request that creates the collection."""
    vectors: Body = {}
    sparse: Body = {}
    for name, field in schema.fields.items():
        match field:
            case DenseField(dimension, metric, quantization):
                vectors[name] = {"size": dimension, "distance": DISTANCES[metric]}
                if body := _quantized(quantization):
                    vectors[name]["quantization_config"] = body
            case SparseField():
                sparse[name] = {}
            case TextField():
                # The server computes the rarity of words, because it changes with every record.
                sparse[name] = {"modifier": "idf"}
    return {"vectors": vectors, "sparse_vectors": sparse, "metadata": to_metadata(schema)}


def to_metadata(schema: Schema) -> Body:
    """Return the metadata of a collection, which contains its schema."""
    return {METADATA: schema.to_json()}


def changed_quantizations(stored: Schema, requested: Schema) -> dict[str, Body | None]:
    """Return the new quantization of each dense field for which it differs; None for full vectors only."""
    return {
        name: _quantized(field.quantization)
        for name, field in requested.fields.items()
        if isinstance(field, DenseField) and field != stored.fields[name]
    }


def to_adopted_schema(
    collection: str, description: Body, indexed: Mapping[str, str], filterable: Mapping[str, FilterKind]
) -> Schema:
    """Read the schema of a collection created by someone else from Qdrant's description.

    ``filterable`` adds filterable fields to those that have an index. Multivectors and vectors with an unknown metric
    are omitted.
    """
    described = description.get("vectors") or {}
    # The description of a single unnamed vector contains no name.
    vectors = {"": described} if "size" in described else described
    metrics = {name: metric for metric, name in DISTANCES.items()}
    fields: dict[str, Field] = {
        name: DenseField(params["size"], metrics[params["distance"]])
        for name, params in vectors.items()
        if params["distance"] in metrics and not params.get("multivector_config")
    }
    fields |= {name: SparseField() for name in description.get("sparse_vectors") or {}}
    kinds = {name: kind for kind, name in INDEXES.items()}
    known = {key: kinds[kind] for key, kind in indexed.items() if kind in kinds}
    return Schema(collection, fields, {**known, **filterable})


def to_settings(info: Any) -> Body:
    """Convert a description of a collection by a server to its state and the settings of its shards and indexes."""
    config = info.config.model_dump(mode="json", exclude_none=True)
    params = {name: value for name, value in config.get("params", {}).items() if not name.endswith("vectors")}
    indexes = {
        name: config[name] for name in ("hnsw_config", "quantization_config", "optimizer_config") if name in config
    }
    state = {
        "status": str(getattr(info.status, "value", info.status)),
        "segments": info.segments_count,
        "indexed_vectors": info.indexed_vectors_count,
    }
    return {**state, **params, **indexes}


def _quantized(quantization: Quantization) -> Body | None:
    match quantization:
        case Quantization.NONE:
            return None
        case Quantization.INT8:
            return {"scalar": {"type": "int8", "always_ram": True}}
        case Quantization.BINARY:
            return {"binary": {"always_ram": True}}


def to_sparse_body(vector: SparseVector) -> Body:
    """Convert a sparse vector to a mapping of its indices and values."""
    return {"indices": vector.indices.tolist(), "values": vector.values.tolist()}


def to_point(schema: Schema, layout: Layout, record: Record) -> Body:
    """Convert a record to a point; text fields become the weights of their words."""
    vectors: Body = {}
    for name, vector in record.vectors.items():
        if not isinstance(vector, SparseVector):
            vectors[name] = vector.tolist()
        elif not is_empty_vector(vector):
            vectors[name] = to_sparse_body(vector)
    for name, field in schema.fields.items():
        text = record.payload.get(field.source) if isinstance(field, TextField) else None
        if isinstance(text, str) and (weights := bm25.document_weights(text)):
            vectors[name] = {"indices": list(weights), "values": list(weights.values())}
    return {
        "id": layout.point_id(record.id),
        "vector": vectors[""] if list(vectors) == [""] else vectors,
        "payload": layout.to_payload(record.id, record.payload),
    }


def to_record(schema: Schema, layout: Layout, point: Point) -> Record:
    """Convert the requested parts of a point to a record."""
    record_id, payload = layout.from_payload(point.id, point.payload)
    return Record(record_id, _vectors(schema, point.vector), payload)


def _vectors(schema: Schema, value: Any) -> dict[str, Vector]:
    if value is None:
        return {}
    # A collection with a single unnamed vector returns a plain list.
    named = value if isinstance(value, Mapping) else {"": value}
    vectors: dict[str, Vector] = {}
    for name, field in schema.fields.items():
        vector = named.get(name)
        if vector is None:
            continue
        match field:
            case DenseField():
                vectors[name] = np.asarray(vector, dtype=np.float32)
            case SparseField():
                vectors[name] = SparseVector.from_arrays(
                    np.asarray(vector.indices, np.int64), np.asarray(vector.values, np.float32)
                )
            case TextField():
                pass  # word weights are derived from the text and not part of the record
    return vectors


def select_vectors(schema: Schema, parts: Parts) -> bool | list[str]:
    """Return the option ``with_vector`` for requests: the names of the vectors that records contain."""
    names = [name for name, field in schema.fields.items() if not isinstance(field, TextField)]
    if Parts.VECTORS not in parts or not names:
        return False
    return True if names == [""] else names


def to_query_body(schema: Schema, layout: Layout, request: SearchRequest) -> Body | None:
    """Convert a search to a query body; return None if the query of every leg is empty, so that there are no hits.

    The first ``offset`` hits are requested too: Qdrant does not define the order of equal scores, so that the offset
    can only be applied after sorting the complete list.
    """
    where = None if request.where is None else filter_to_qdrant(request.where, layout)
    common: Body = {
        "limit": request.offset + request.limit,
        "with_payload": layout.selector(payload=Parts.PAYLOAD in request.parts),
        "with_vector": select_vectors(schema, request.parts),
    }
    match request.rank:
        case Fuse(legs, depth, Rrf(k, None)):
            prefetch = [_leg(schema, leg, where, request.effort) for leg in legs]
            searched = [leg | {"limit": depth} for leg in prefetch if leg is not None]
            # Qdrant counts positions from 0: 1 / (position + k). Its k is therefore one more than that of Rrf.
            return {"prefetch": searched, "query": {"rrf": {"k": k + 1}}, **common} if searched else None
        case Fuse():
            raise ValueError("expected unweighted Rrf, the only fusion of Qdrant that equals the reference")
        case Near() | Match() as leg:
            body = _leg(schema, leg, where, request.effort)
            return None if body is None else body | common


def _leg(schema: Schema, leg: Leg, where: Body | None, effort: Effort) -> Body | None:
    field = schema.fields[leg.field]
    if is_empty_leg(leg, field):
        return None
    params = _params(field, effort)
    match leg:
        case Near(name, SparseVector() as vector):
            query: Any = to_sparse_body(vector)
        case Near(name, vector):
            query = np.asarray(vector, np.float32).tolist()
        case Match(name, text):
            weights = bm25.query_vector(text)
            if is_empty_vector(weights):
                return None
            query = to_sparse_body(weights)
    body: Body = {"query": query, "using": name}
    if where is not None:
        body["filter"] = where
    return body | ({"params": params} if params else {})


def _params(field: object, effort: Effort) -> Body:
    if not isinstance(field, DenseField):
        return {}  # the sparse index is exact
    match effort:
        case Exact():
            return {"exact": True, "quantization": {"ignore": True}}
        case Candidates(count):
            params: Body = {"hnsw_ef": count}
        case Default():
            params = {}
    if field.quantization is Quantization.BINARY:
        # One bit per dimension ranks too coarsely for final results; see Qdrant's guide on quantization.
        params["quantization"] = {"rescore": True, "oversampling": 3.0}
    return params


def to_hits(schema: Schema, layout: Layout, request: SearchRequest, points: Sequence[Any]) -> list[Hit]:
    """Convert scored points to sorted hits, and skip the first ``offset`` hits."""
    is_distance = isinstance(request.rank, Near) and _is_euclidean(schema, request.rank.field)
    hits = []
    for point in points:
        record_id, payload = layout.from_payload(point.id, point.payload)
        score = -float(point.score) if is_distance else float(point.score)
        hits.append(Hit(record_id, score + 0.0, payload, _vectors(schema, point.vector)))
    hits.sort(key=lambda hit: (-hit.score, hit.id))
    return hits[request.offset : request.offset + request.limit]


def _is_euclidean(schema: Schema, name: str) -> bool:
    field = schema.fields[name]
    return isinstance(field, DenseField) and field.metric is Metric.EUCLIDEAN

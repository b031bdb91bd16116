"""Build the bodies of requests to Elasticsearch, and read fields from its mappings, without requests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from st_connectors._lucene.filters import filter_query
from st_connectors._lucene.forms import STRING, Form, analysers, check_payload, own_mapping
from st_connectors._lucene.layout import Body, Layout
from st_connectors._lucene.options import check_choice
from st_connectors._lucene.queries import Collection, Dialect, filtered, rank_features_query, to_floats
from st_connectors._lucene.scores import precision_of
from st_connectors.elasticsearch.server import UNKNOWN, Server
from st_connectors.schema import DenseField, Field, FieldKind, Metric, Quantization, Rrf, Schema, SparseField, TextField
from st_connectors.store import Candidates, Capabilities, Default, Effort, Exact, Fuse, SearchRequest, Vector

__all__ = [
    "DENSE_INDEXES",
    "DIALECT",
    "SPARSE",
    "capabilities_of",
    "form_for",
    "index_body",
    "rrf_retriever",
    "scan_order",
    "sparse_vector_query",
    "too_old",
    "vector_field",
    "vector_properties",
]

SPARSE = ("sparse_vector", "rank_features")
DENSE_INDEXES = ("hnsw", "flat", "int8_hnsw", "int4_hnsw", "bbq_hnsw", "int8_flat", "int4_flat", "bbq_flat")
_QUANTIZED = {Quantization.INT8: "int8", Quantization.BINARY: "bbq"}
_SIMILARITY = {Metric.COSINE: "cosine", Metric.DOT: "max_inner_product", Metric.EUCLIDEAN: "l2_norm"}
_METRICS = {similarity: metric for metric, similarity in _SIMILARITY.items()}

MOST = 10_000
"""The maximum number of candidates and of results of a knn query."""
_OVERSAMPLING = {"int8": 1, "int4": 2, "bbq": 3}
"""The factor by which quantization multiplies the default number of candidates. All candidates are then compared by
their full vectors."""
OLDEST = {8: 19, 9: 1}
"""The first minor version of each major version whose mappings have the option to turn token pruning off."""


def form_for(
    schema: Schema,
    *,
    sparse: str = "sparse_vector",
    dense_index: str = "hnsw",
    analyzer: str = "standard",
    payload: str = STRING,
) -> Form:
    """Return the form of a new collection, in which all fields of a kind have the same type, index kind or analyser.

    A dense field with a quantization gets the quantized index that is a graph or flat, as ``dense_index`` is.
    """
    check_choice("sparse", sparse, SPARSE)
    check_choice("dense_index", dense_index, DENSE_INDEXES)
    kinds = {}
    for name, spec in schema.fields.items():
        if isinstance(spec, DenseField):
            quantized = _QUANTIZED.get(spec.quantization)
            kinds[name] = f"{quantized}_{dense_index.rpartition('_')[2]}" if quantized else dense_index
    return Form(
        dict.fromkeys(schema.of_kind(FieldKind.SPARSE), sparse),
        kinds,
        text=analysers(schema, analyzer),
        payload=check_payload(schema, payload),
    )


def _major_minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def too_old(version: str) -> str | None:
    """Return a sentence that states why a version is not supported; None for a supported version."""
    major, minor = _major_minor(version)
    if major > max(OLDEST) or minor >= OLDEST.get(major, math.inf):
        return None
    supported = "8.19, 9.1 or newer, which can search sparse vectors without pruning"
    return f"the server is Elasticsearch {version}; expected {supported}"


def index_body(schema: Schema, form: Form, version: str, settings: Mapping[str, int]) -> Body:
    """Return the settings and the mapping of a new collection's index.

    They depend on the version of the server. ``settings`` are further index settings.
    """
    index: Body = dict(settings)
    if _major_minor(version) >= (9, 2):
        # By default, 9.2 and newer exclude vectors from the source and rebuild sparse vectors from 9-bit weights.
        index["mapping"] = {"exclude_source_vectors": False}
    return {
        "settings": {"index": index},
        "mappings": own_mapping(schema, form, vector_properties(schema.fields, form)),
    }


def vector_properties(fields: Mapping[str, Field], form: Form) -> dict[str, Body]:
    """Return the mapping properties of dense and sparse fields by field name.

    ``form`` contains the type of each sparse field and the index kind of each dense field. All index settings are
    explicit, because defaults differ between Elasticsearch versions.
    """
    properties: dict[str, Body] = {}
    for name, spec in fields.items():
        match spec:
            case DenseField(dimension, metric):
                kind = form.dense[name]
                graph = {"m": 16, "ef_construction": 100} if kind.endswith("hnsw") else {}
                properties[name] = {
                    "type": "dense_vector",
                    "dims": dimension,
                    "index": True,
                    "similarity": _SIMILARITY[metric],
                    "index_options": {"type": kind, **graph},
                }
            case SparseField() if form.sparse[name] == "rank_features":
                properties[name] = {"type": "rank_features"}
            case SparseField():
                properties[name] = {"type": "sparse_vector", "index_options": {"prune": False}}
            case TextField():
                pass
    return properties


def capabilities_of(bound: Capabilities, schema: Schema, form: Form, server: Server = UNKNOWN) -> Capabilities:
    """Return the capabilities for a collection of this form on this server.

    ``bound`` contains the capabilities of the adapter, which the result restricts.
    """
    fields = {
        # A query that uses a graph visits all records of a segment only if it has at least as many candidates as the
        # segment has records.
        name: replace(
            precision_of(bound, spec), exact=not isinstance(spec, DenseField) or form.dense.get(name) == "flat"
        )
        for name, spec in schema.fields.items()
    }
    fusion = bound.fusion & server.fusion(has_text=bool(schema.of_kind(FieldKind.TEXT)))
    return replace(bound, fusion=fusion, fields=fields)


def sparse_vector_query(path: str, weights: Mapping[str, float]) -> Body:
    """Return a query that scores by the inner product of weights by key with a ``sparse_vector`` field.

    Token pruning, which ignores frequent tokens, is off.
    """
    return {"sparse_vector": {"field": path, "query_vector": dict(weights), "prune": False}}


def _sparse_leg(collection: Collection[Server], name: str, weights: dict[str, float], request: SearchRequest) -> Body:
    query = rank_features_query if collection.form.sparse[name] == "rank_features" else sparse_vector_query
    return filtered(query(collection.layout.vector(name), weights), request.where, collection.layout)


def _dense_leg(collection: Collection[Server], name: str, vector: Vector, request: SearchRequest) -> Body:
    path, is_exact = collection.layout.vector(name), isinstance(request.effort, Exact)
    oversampling = _OVERSAMPLING.get(collection.form.dense[name].partition("_")[0])
    reach = request.offset + request.limit
    candidates = _candidates(request.effort, reach, oversampling or 1)
    knn: Body = {
        "field": path,
        "query_vector": to_floats(vector),
        "k": candidates if is_exact or oversampling else reach,
        "num_candidates": candidates,
    }
    if oversampling:
        knn["rescore_vector"] = {"oversample": 1.0}
    if request.where is not None:
        knn["filter"] = filter_query(request.where, collection.layout)
    elif is_exact:
        # Lucene compares all documents that pass a filter if there are at most as many as candidates. Without a filter
        # it always uses the graph.
        knn["filter"] = {"exists": {"field": path}}
    return {"knn": knn}


def _candidates(effort: Effort, reach: int, oversampling: int) -> int:
    match effort:
        case Exact():
            return MOST
        case Candidates(count):
            return min(MOST, max(reach, count))
        case Default():
            # The default of the server, one and a half times the number of hits, misses many of the nearest documents.
            return min(MOST, max(100, 2 * reach) * oversampling)


def _fused_body(fuse: Fuse, queries: list[Body], page: Body) -> Body:
    if not isinstance(fuse.method, Rrf):
        raise TypeError("the server fuses by reciprocal ranks only: open the store with open_store")
    retriever = rrf_retriever(queries, k=fuse.method.k, weights=fuse.method.weights, depth=fuse.depth)
    return {"retriever": retriever, **page}


DIALECT = Dialect(_sparse_leg, _dense_leg, _fused_body)


def rrf_retriever(
    queries: Sequence[Body], *, k: int = 60, weights: Sequence[float] | None = None, depth: int = 100
) -> Body:
    """Return a retriever that fuses queries by reciprocal ranks.

    ``client.search(retriever=rrf_retriever([sparse_vector_query("splade", vector), other]))`` runs the search. It
    requires at least two queries, each of which contributes its best ``depth`` hits, and an Enterprise or trial
    licence; without the licence, fuse with :mod:`st_connectors.fusion`. ``weights``, one for each query, require
    Elasticsearch 9.2. The retriever has not been tested on a server. Raises ValueError unless there are as many weights
    as queries.
    """
    legs: list[Body] = [{"standard": {"query": query}} for query in queries]
    if weights is not None:
        legs = [{"retriever": leg, "weight": weight} for leg, weight in zip(legs, weights, strict=True)]
    return {"rrf": {"retrievers": legs, "rank_constant": k, "rank_window_size": depth}}


def scan_order(_: Layout) -> list[Body]:
    """Return the sort order of a scan, the number that a point in time assigns to each document of each shard."""
    return [{"_shard_doc": "asc"}]


def vector_field(body: Mapping[str, Any]) -> tuple[Field, str] | None:
    """Return the field and form of a vector property of an adopted mapping; None for other properties."""
    kind = str(body.get("type"))
    if kind in SPARSE:
        return SparseField(), kind
    dense = _dense_field(body) if kind == "dense_vector" else None
    return (dense, (body.get("index_options") or {}).get("type", "hnsw")) if dense else None


def _dense_field(body: Mapping[str, Any]) -> DenseField | None:
    """Return the dense field of an indexed float32 property, or None for another property.

    The metric ``dot_product`` is cosine, because its vectors have length 1 and their inner product is the cosine.
    """
    similarity = body.get("similarity", "cosine")
    metric = _METRICS.get("cosine" if similarity == "dot_product" else similarity)
    if metric is None or not body.get("index", True) or body.get("element_type", "float") != "float":
        return None
    return DenseField(body["dims"], metric) if "dims" in body else None

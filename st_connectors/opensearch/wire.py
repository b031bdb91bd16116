"""Build the bodies of requests to OpenSearch, and read fields from its mappings, without requests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from st_connectors._lucene.filters import NOTHING, filter_query
from st_connectors._lucene.forms import STRING, Form, analysers, check_payload, own_mapping
from st_connectors._lucene.layout import Body, Layout, OwnLayout
from st_connectors._lucene.options import CollectionOptions, check_choice
from st_connectors._lucene.queries import Collection, Dialect, filtered, rank_features_query, to_floats
from st_connectors._lucene.scores import precision_of
from st_connectors.opensearch.server import SPARE, Server
from st_connectors.schema import DenseField, Field, FieldKind, Metric, Quantization, Rrf, Schema, SparseField, TextField
from st_connectors.store import (
    Candidates,
    Capabilities,
    Default,
    Effort,
    Exact,
    Fuse,
    Precision,
    Record,
    SearchRequest,
    Vector,
)
from st_core.vectors import SparseVector

__all__ = [
    "DIALECT",
    "SEISMIC",
    "SEISMIC_TERMS",
    "adoption_problem",
    "capabilities_of",
    "form_for",
    "index_body",
    "knn_query",
    "neural_sparse_query",
    "record_problem",
    "rrf_pipeline",
    "scan_order",
    "seismic_parameters",
    "seismic_query",
    "unfit",
    "vector_field",
    "vector_properties",
]

SPARSE = ("rank_features", "seismic")
ENGINES = ("lucene", "faiss", "lucene_int8", "faiss_fp16")
_ENCODERS: Mapping[str, Body] = {
    "lucene_int8": {"name": "sq", "parameters": {"bits": 7, "confidence_interval": 1.0}},
    "faiss_fp16": {"name": "sq", "parameters": {"type": "fp16", "clip": False}},
}
"""The quantizer of each engine that has one: Lucene stores 7 bits for each number, and faiss 16."""
_SPACES = {Metric.COSINE: "cosinesimil", Metric.DOT: "innerproduct", Metric.EUCLIDEAN: "l2"}
_METRICS = {space: metric for metric, space in _SPACES.items()}

SEISMIC: Mapping[str, tuple[type[int | float], float, float]] = {
    "n_postings": (int, 1, math.inf),
    "cluster_ratio": (float, 0, 1),
    "summary_prune_ratio": (float, 0, 1),
    "approximate_threshold": (int, 0, math.inf),
    "quantization_ceiling_ingest": (float, 0, math.inf),
    "quantization_ceiling_search": (float, 0, math.inf),
}
"""The parameters of a SEISMIC index, each with its type, minimum and maximum."""
SEISMIC_TERMS = 2**15
"""The lowest index that SEISMIC maps onto a smaller one, because it stores indices as signed 16-bit integers."""
SEISMIC_SINCE = (3, 3)

MOST = 10_000
"""The maximum number of results of a knn query."""
HEAVIEST = 64.0
"""The maximum weight of a token in ``neural_sparse``, set by Lucene's ``FeatureField.newLinearQuery``."""


def form_for(
    schema: Schema,
    *,
    sparse: str = "rank_features",
    engine: str = "lucene",
    analyzer: str = "standard",
    payload: str = STRING,
) -> Form:
    """Return the form of a new collection, in which all fields of a kind have the same type, engine or analyser.

    Raises ValueError for an unknown ``sparse`` or ``engine``, and for an ``analyzer`` that is no name.
    """
    check_choice("sparse", sparse, SPARSE)
    check_choice("engine", engine, ENGINES)
    return Form(
        dict.fromkeys(schema.of_kind(FieldKind.SPARSE), sparse),
        {name: _engine_of(spec, engine) for name, spec in schema.fields.items() if isinstance(spec, DenseField)},
        text=analysers(schema, analyzer),
        payload=check_payload(schema, payload),
    )


def _engine_of(spec: DenseField, engine: str) -> str:
    """Return the engine of a field: that of the address, or Lucene with quantization if the field has one."""
    if spec.quantization is Quantization.NONE:
        return engine
    if engine.startswith("faiss"):
        raise ValueError(f"engine={engine} has no {spec.quantization} quantization: leave engine out of the address")
    return "lucene_int8"


def seismic_parameters(texts: Mapping[str, str]) -> dict[str, float]:
    """Return the parameters of SEISMIC as numbers, from the text of address options; raise ValueError if invalid."""
    parameters: dict[str, float] = {}
    for name, text in texts.items():
        kind, least, most = SEISMIC[name]
        try:
            value = kind(text)
        except ValueError as error:
            expected = "a whole number" if kind is int else "a number"
            raise ValueError(f"{name} must be {expected}, not {text!r}") from error
        is_at_open_end = name == "cluster_ratio" and value >= most
        if not least <= value <= most or is_at_open_end or (kind is float and not 0 < value < math.inf):
            raise ValueError(f"{name} must be between {least} and {most}, not {text}")
        parameters[name] = value
    return parameters


def unfit(schema: Schema, form: Form, server: Server) -> str | None:
    """Return a sentence that states why this server cannot store a collection of this form; None if it can."""
    plugins = server.plugins
    if form.dense and plugins is not None and "opensearch-knn" not in plugins:
        return "dense vectors need the plugin opensearch-knn, which not every node of this server has"
    for name, kind in form.sparse.items():
        if kind != "seismic":
            continue
        if server.version < SEISMIC_SINCE:
            version = ".".join(map(str, server.version))
            return f"sparse=seismic needs OpenSearch 3.3, and the server is {version}: leave it out of the address"
        if plugins is not None and not server.has_neural_search:
            return "sparse=seismic needs the plugin opensearch-neural-search, which not every node of this server has"
        model = schema.models.get(name)
        if model is not None and (model.dimension or 0) > SEISMIC_TERMS:
            return (
                f"the model of field {name!r} has {model.dimension} terms, and sparse=seismic maps those from "
                f"{SEISMIC_TERMS} onto others: use sparse=rank_features"
            )
    return None


def record_problem(form: Form, record: Record) -> str | None:
    """Return a sentence about a sparse index that SEISMIC would map onto a smaller one; None if the record has none."""
    for name, kind in form.sparse.items():
        vector = record.vectors.get(name)
        if kind != "seismic" or not isinstance(vector, SparseVector) or not len(vector):
            continue
        if vector.indices[-1] >= SEISMIC_TERMS:
            return (
                f"field {name!r} has index {vector.indices[-1]}, and sparse=seismic maps those from {SEISMIC_TERMS} "
                "onto others: create the collection with sparse=rank_features"
            )
    return None


def adoption_problem(form: Form, options: CollectionOptions) -> str | None:
    """Return a sentence about address options that an adopted index of this form does not support; None if all fit."""
    if options.vocabulary is None or "seismic" not in form.sparse.values():
        return None
    return "the index has a field of type sparse_vector, whose keys are indices: leave vocabulary out of the address"


def index_body(schema: Schema, form: Form, settings: Mapping[str, int], seismic: Mapping[str, float]) -> Body:
    """Return the body of the request that creates the index of a collection with its alias.

    ``form`` contains the type of each sparse field and the engine of each dense field. ``settings`` are further index
    settings. ``seismic`` contains the parameters of SEISMIC indexes.
    """
    index: Body = dict(settings)
    if form.dense:
        index["knn"] = True
    if "seismic" in form.sparse.values():
        index["sparse"] = True
    return {
        "settings": {"index": index},
        "aliases": {schema.collection: {"is_write_index": True}},
        "mappings": own_mapping(schema, form, vector_properties(schema.fields, form, seismic), objects="flat_object"),
    }


def vector_properties(fields: Mapping[str, Field], form: Form, seismic: Mapping[str, float]) -> dict[str, Body]:
    """Return the mapping properties of dense and sparse fields by field name.

    ``form`` contains the type of each sparse field and the engine of each dense field. ``seismic`` contains the
    parameters of SEISMIC indexes; the server uses its defaults for parameters that are not set. All settings of dense
    indexes are explicit, because defaults differ between OpenSearch versions.
    """
    properties: dict[str, Body] = {}
    for name, spec in fields.items():
        match spec:
            case DenseField(dimension, metric):
                properties[name] = {
                    "type": "knn_vector",
                    "dimension": dimension,
                    "method": {
                        "name": "hnsw",
                        "engine": form.dense[name].partition("_")[0],
                        "space_type": _SPACES[metric],
                        "parameters": {"m": 16, "ef_construction": 100, **_encoder(form.dense[name])},
                    },
                }
            case SparseField() if form.sparse[name] == "seismic":
                method = {"name": "seismic", **({"parameters": dict(seismic)} if seismic else {})}
                properties[name] = {"type": "sparse_vector", "method": method}
            case SparseField():
                properties[name] = {"type": "rank_features"}
            case TextField():
                pass
    return properties


def _encoder(engine: str) -> Body:
    return {"encoder": dict(_ENCODERS[engine])} if engine in _ENCODERS else {}


def capabilities_of(bound: Capabilities, schema: Schema, form: Form, server: Server) -> Capabilities:
    """Return the capabilities for a collection of this form on this server.

    ``bound`` contains the capabilities of the adapter, which the result restricts. A ``hybrid`` query ranks the
    documents of each shard separately, so that its fusion equals the fusion of the client on one shard only. The fusion
    of the server is used only with the engine ``lucene`` and ``rank_features``, because it has not been tested with
    others.
    """
    is_verified = {*form.dense.values(), *form.sparse.values()} <= {"lucene", "rank_features"}
    fuses = server.shards == 1 and server.has_neural_search and is_verified
    return replace(
        bound,
        fusion=bound.fusion if fuses else frozenset(),
        max_query_terms=max(1, server.clauses - SPARE),
        max_clauses=server.clauses,
        fields={name: _precision(bound, name, spec, form) for name, spec in schema.fields.items()},
    )


def _precision(bound: Capabilities, name: str, spec: Field, form: Form) -> Precision:
    if form.sparse.get(name) == "seismic":
        # SEISMIC stores one byte per weight, and a query may skip clusters.
        return Precision(exact=False, score_rtol=0.01)
    precision = precision_of(bound, spec)
    # The graph scores quantized vectors; exact effort scores the original ones.
    return replace(precision, score_rtol=0.02) if form.dense.get(name) in _ENCODERS else precision


def neural_sparse_query(path: str, weights: Mapping[str, float]) -> Body:
    """Return a query that scores by the inner product with a ``rank_features`` field, for the plugin neural-search.

    ``weights`` contains the weight of each key. If a weight is above 64, which Lucene rejects, all weights are divided
    by a power of two, and the query is boosted by it.
    """
    if not weights:
        return dict(NOTHING)
    divisor = 2.0 ** max(0, math.ceil(math.log2(max(weights.values()) / HEAVIEST)))
    scaled = {token: weight / divisor for token, weight in weights.items()}
    if np.float32(min(scaled.values())) <= 0:
        # Dividing all weights by one divisor would make the smallest weight zero; a clause accepts any boost.
        return rank_features_query(path, weights)
    inner: Body = {"query_tokens": scaled}
    return {"neural_sparse": {path: inner if divisor == 1 else {**inner, "boost": divisor}}}


def seismic_query(
    path: str,
    weights: Mapping[str, float],
    k: int,
    where: Body | None,
    *,
    top_n: int | None = None,
    heap_factor: float = 1.0,
) -> Body:
    """Return a query for the ``k`` best documents by the inner product with a field of type ``sparse_vector``.

    If ``top_n`` is None, all tokens count; the default of the server is ten.
    """
    if not weights:
        return dict(NOTHING)
    parameters: Body = {"k": k, "top_n": len(weights) if top_n is None else top_n, "heap_factor": heap_factor}
    if where is not None:
        parameters["filter"] = where
    return {"neural_sparse": {path: {"query_tokens": dict(weights), "method_parameters": parameters}}}


def knn_query(
    field: str,
    vector: Any,
    k: int = 10,
    *,
    candidates: int | None = 100,
    where: Body | None = None,
) -> Body:
    """Return a query for the ``k`` documents nearest to ``vector`` (float32 [dimension]), by a ``knn_vector`` field.

    Only documents that match the query ``where`` are compared. ``candidates`` is the parameter ``ef_search`` of the
    engines lucene and faiss; with the server's default for lucene, ``k``, about one in ten of the nearest documents is
    missed. Lucene may return more than ``k`` documents; limit them by the ``size`` of the search.
    """
    knn: Body = {"vector": to_floats(vector), "k": k}
    if candidates is not None:
        knn["method_parameters"] = {"ef_search": candidates}
    if where is not None:
        knn["filter"] = where
    return {"knn": {field: knn}}


def _exact_query(path: str, vector: Vector, metric: Metric, where: Body | None) -> Body:
    """Return a query that compares ``vector`` with every document that passes a filter.

    Documents without the vector would score 0 and are excluded.
    """
    exists: list[Body] = [{"exists": {"field": path}}]
    params = {"field": path, "query_value": to_floats(vector), "space_type": _SPACES[metric]}
    return {
        "script_score": {
            "query": {"bool": {"filter": exists if where is None else [*exists, where]}},
            "script": {"source": "knn_score", "lang": "knn", "params": params},
        }
    }


def _sparse_leg(collection: Collection[Server], name: str, weights: dict[str, float], request: SearchRequest) -> Body:
    path = collection.layout.vector(name)
    if collection.form.sparse[name] == "seismic":
        return seismic_query(path, weights, request.offset + request.limit, _condition(collection, request))
    query = neural_sparse_query if collection.server.has_neural_search else rank_features_query
    return filtered(query(path, weights), request.where, collection.layout)


def _dense_leg(collection: Collection[Server], name: str, vector: Vector, request: SearchRequest) -> Body:
    path, condition = collection.layout.vector(name), _condition(collection, request)
    reach, spec = request.offset + request.limit, collection.schema.fields[name]
    if isinstance(request.effort, Exact) and isinstance(spec, DenseField):
        return _exact_query(path, vector, spec.metric, condition)
    has_candidates = collection.form.dense[name] in ENGINES
    candidates = _candidates(request.effort, reach) if has_candidates else None
    return knn_query(path, vector, reach, candidates=candidates, where=condition)


def _condition(collection: Collection[Server], request: SearchRequest) -> Body | None:
    return None if request.where is None else filter_query(request.where, collection.layout)


def _candidates(effort: Effort, reach: int) -> int:
    match effort:
        case Candidates(count):
            return min(MOST, max(reach, count))
        case Default() | Exact():
            # The server's default, the number of requested results, misses about one of the nearest ten.
            return min(MOST, max(100, reach + reach // 2))


def _fused_body(fuse: Fuse, queries: list[Body], page: Body) -> Body:
    if not isinstance(fuse.method, Rrf) or fuse.method.weights is not None:
        raise TypeError("the server fuses by unweighted reciprocal ranks only: open the store with open_store")
    hybrid = {"hybrid": {"queries": queries, "pagination_depth": fuse.depth}}
    return {"query": hybrid, **page, "search_pipeline": rrf_pipeline(fuse.method.k)}


DIALECT = Dialect(_sparse_leg, _dense_leg, _fused_body)


def rrf_pipeline(k: int) -> Body:
    """Return the search pipeline that fuses by reciprocal ranks.

    OpenSearch 2.19 ignores a ``rank_constant`` outside of ``parameters`` and uses 60.
    """
    combination = {"technique": "rrf", "parameters": {"rank_constant": k}}
    return {"phase_results_processors": [{"score-ranker-processor": {"combination": combination}}]}


def scan_order(layout: Layout) -> list[Body]:
    """Return the sort order of a scan, in which no two documents may be equal.

    ``_seq_no`` is unique only within a shard, so that the id follows it. ``_doc`` is not used, because a scan of
    several shards in that order loses documents.
    """
    return [{"_seq_no": "asc"}, {layout.id if isinstance(layout, OwnLayout) else "_id": "asc"}]


def vector_field(body: Mapping[str, Any]) -> tuple[Field, str] | None:
    """Return the field and form of a vector property of an adopted mapping; None for other properties."""
    match body.get("type"):
        case "rank_features":
            return SparseField(), "rank_features"
        case "sparse_vector":
            return SparseField(), "seismic"
        case "knn_vector" if dense := _dense_field(body):
            return dense, _engine(body)
        case _:
            return None


def _dense_field(body: Mapping[str, Any]) -> DenseField | None:
    """Return the dense field of a property, or None unless its vectors are float32 and its metric is known."""
    method = body.get("method") or {}
    metric = _METRICS.get(method.get("space_type") or body.get("space_type") or "l2")
    if metric is None or "dimension" not in body or body.get("data_type", "float") != "float":
        return None
    return DenseField(body["dimension"], metric)


def _engine(body: Mapping[str, Any]) -> str:
    """Return the engine of a property if it accepts ``ef_search``, else an empty string."""
    method = body.get("method") or {}
    engine = str(method.get("engine", "faiss"))
    return engine if engine in ("lucene", "faiss") and method.get("name", "hnsw") == "hnsw" else ""

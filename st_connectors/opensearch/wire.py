"""Values to OpenSearch's bodies and back; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from st_connectors._lucene.filters import NOTHING, filter_query
from st_connectors._lucene.forms import Form, own_mapping
from st_connectors._lucene.layout import ID, Body, Hidden, Layout
from st_connectors._lucene.queries import filtered, match_query, rank_features_query, search_body, where_query
from st_connectors.filters import Filter
from st_connectors.opensearch.server import Server
from st_connectors.schema import DenseField, Field, Metric, Rrf, Schema, SparseField, TextField, kind_of
from st_connectors.store import (
    Candidates,
    Capabilities,
    Default,
    Effort,
    Exact,
    Fuse,
    Match,
    Near,
    Precision,
    Record,
    SearchRequest,
)
from st_core.vectors import SparseVector

__all__ = [
    "SEISMIC",
    "SEISMIC_TERMS",
    "Collection",
    "can",
    "exact_query",
    "folded",
    "form_for",
    "hybrid_query",
    "index_body",
    "knn_query",
    "msearch_lines",
    "neural_sparse_query",
    "rrf_pipeline",
    "scan_body",
    "seismic_parameters",
    "seismic_query",
    "unfit",
    "vector_field",
    "vector_properties",
]

SPARSE = ("rank_features", "seismic")
ENGINES = ("lucene", "faiss")
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
"""The parameters of a SEISMIC index, each with its type and what it lies between."""
SEISMIC_TERMS = 2**15
"""From here on SEISMIC folds indices onto others: it keeps one in a signed number of 16 bits."""
SEISMIC_SINCE = (3, 3)

MOST = 10_000
"""The most neighbours that a knn query finds."""
HEAVIEST = 64.0
"""The most that a token of ``neural_sparse`` may weigh: Lucene's ``FeatureField.newLinearQuery`` takes no more."""
_SPARE = 24
"""Clauses that are kept for the filter, since those of a whole search are counted together, and comparisons of numbers count twice."""


@dataclass(frozen=True, slots=True)
class Collection:
    """All that decides how a search is written."""

    schema: Schema
    form: Form
    layout: Layout
    server: Server


def form_for(schema: Schema, *, sparse: str = "rank_features", engine: str = "lucene") -> Form:
    """The form of a new collection."""
    if sparse not in SPARSE:
        raise ValueError(f"sparse is one of {', '.join(SPARSE)}, not {sparse!r}")
    if engine not in ENGINES:
        raise ValueError(f"engine is one of {', '.join(ENGINES)}, not {engine!r}")
    return Form(dict.fromkeys(schema.of_kind(_SPARSE), sparse), dict.fromkeys(schema.of_kind(_DENSE), engine))


_SPARSE, _DENSE = kind_of(SparseField()), kind_of(DenseField(1))


def seismic_parameters(given: Mapping[str, str]) -> dict[str, float]:
    """The parameters of SEISMIC from an address; raises ValueError for what they cannot be."""
    made: dict[str, float] = {}
    for name, text in given.items():
        kind, least, most = SEISMIC[name]
        try:
            value = kind(text)
        except ValueError as error:
            raise ValueError(f"{name} is {'a whole number' if kind is int else 'a number'}, not {text!r}") from error
        open_end = name == "cluster_ratio" and value >= most
        if not least <= value <= most or open_end or (kind is float and not 0 < value < math.inf):
            raise ValueError(f"{name} lies between {least} and {most}, and {text} does not")
        made[name] = value
    return made


def unfit(schema: Schema, form: Form, server: Server) -> str | None:
    """Why this server cannot hold a collection of this form, in a sentence; None where it can."""
    known = server.plugins
    if form.dense and known is not None and "opensearch-knn" not in known:
        return "dense vectors need the plugin opensearch-knn, which not every node of this server has"
    for name, kind in form.sparse.items():
        if kind != "seismic":
            continue
        if server.version < SEISMIC_SINCE:
            version = ".".join(map(str, server.version))
            return f"sparse=seismic came with OpenSearch 3.3, and the server is {version}: leave it out of the address"
        if known is not None and not server.neural:
            return "sparse=seismic needs the plugin opensearch-neural-search, which not every node of this server has"
        model = schema.models.get(name)
        if model is not None and (model.dimension or 0) > SEISMIC_TERMS:
            return (
                f"the model of field {name!r} has {model.dimension} terms, and sparse=seismic folds those from {SEISMIC_TERMS} on onto others: "
                "use sparse=rank_features"
            )
    return None


def index_body(schema: Schema, form: Form, settings: Mapping[str, int], seismic: Mapping[str, float]) -> Body:
    """The body that makes a collection's index behind the alias of its name."""
    index: Body = dict(settings)
    if form.dense:
        index["knn"] = True
    if "seismic" in form.sparse.values():
        index["sparse"] = True
    return {
        "settings": {"index": index},
        "aliases": {schema.collection: {"is_write_index": True}},
        "mappings": own_mapping(schema, form, vector_properties(schema.fields, form, seismic)),
    }


def vector_properties(fields: Mapping[str, Field], form: Form, seismic: Mapping[str, float]) -> dict[str, Body]:
    """The properties of dense and sparse fields by field name; choices are written out, since defaults move from version to version."""
    made: dict[str, Body] = {}
    for name, spec in fields.items():
        match spec:
            case DenseField(dimension, metric):
                made[name] = {
                    "type": "knn_vector",
                    "dimension": dimension,
                    "method": {
                        "name": "hnsw",
                        "engine": form.dense[name],
                        "space_type": _SPACES[metric],
                        "parameters": {"m": 16, "ef_construction": 100},
                    },
                }
            case SparseField() if form.sparse[name] == "seismic":
                method = {"name": "seismic", **({"parameters": dict(seismic)} if seismic else {})}
                made[name] = {"type": "sparse_vector", "method": method}
            case SparseField():
                made[name] = {"type": "rank_features"}
            case TextField():
                pass
    return made


def can(most: Capabilities, schema: Schema, form: Form, server: Server, shards: int | None = None) -> Capabilities:
    """What a collection of this form on this server can do.

    ``hybrid`` ranks each shard for itself, so that it is the reference's fusion on one shard only; with other than Lucene's own engine it was never run.
    """
    plain = {*form.dense.values(), *form.sparse.values()} <= {"lucene", "rank_features"}
    return replace(
        most,
        fusion=most.fusion if shards == 1 and server.neural and plain else frozenset(),
        max_query_terms=max(1, server.clauses - _SPARE),
        fields={name: _precision(most, name, spec, form) for name, spec in schema.fields.items()},
    )


def _precision(most: Capabilities, name: str, spec: Field, form: Form) -> Precision:
    known = most.fields[kind_of(spec).value]
    if isinstance(spec, DenseField) and spec.metric is Metric.EUCLIDEAN:
        # 1 / (1 + d ** 2) in float32 leaves half the digits of a small distance.
        return replace(known, score_rtol=5e-4)
    if form.sparse.get(name) == "seismic":
        # One byte a weight, and clusters that are looked at or not.
        return Precision(exact=False, score_rtol=0.01)
    return known


def neural_sparse_query(path: str, weights: Mapping[str, float]) -> Body:
    """The inner product of ``weights`` with a field of type ``rank_features``, by token, by the plugin neural-search.

    Where a weight is over 64, which Lucene does not take, all are divided by a power of two that the boost brings back.
    """
    if not weights:
        return dict(NOTHING)
    scale = 2.0 ** max(0, math.ceil(math.log2(max(weights.values()) / HEAVIEST)))
    scaled = {token: weight / scale for token, weight in weights.items()}
    if np.float32(min(scaled.values())) <= 0:
        return rank_features_query(path, weights)  # too far apart for one scale, and any boost will do there
    inner: Body = {"query_tokens": scaled}
    return {"neural_sparse": {path: inner if scale == 1 else {**inner, "boost": scale}}}


def seismic_query(
    path: str,
    weights: Mapping[str, float],
    k: int,
    where: Body | None,
    *,
    top_n: int | None = None,
    heap_factor: float = 1.0,
) -> Body:
    """The inner product with a field of type ``sparse_vector``; where ``top_n`` is None no token is left out, of which the server keeps but ten if not told."""
    if not weights:
        return dict(NOTHING)
    parameters: Body = {"k": k, "top_n": len(weights) if top_n is None else top_n, "heap_factor": heap_factor}
    if where is not None:
        parameters["filter"] = where
    return {"neural_sparse": {path: {"query_tokens": dict(weights), "method_parameters": parameters}}}


def knn_query(path: str, vector: Any, k: int, candidates: int | None, where: Body | None) -> Body:
    """The nearest by the graph, among those that a filter lets through."""
    knn: Body = {"vector": _floats(vector), "k": k}
    if candidates is not None:
        knn["method_parameters"] = {"ef_search": candidates}
    if where is not None:
        knn["filter"] = where
    return {"knn": {path: knn}}


def exact_query(path: str, vector: Any, metric: Metric, where: Body | None) -> Body:
    """The nearest by comparison with all that a filter lets through; documents without the vector would score 0 if they were not left out."""
    there: list[Body] = [{"exists": {"field": path}}]
    params = {"field": path, "query_value": _floats(vector), "space_type": _SPACES[metric]}
    return {
        "script_score": {
            "query": {"bool": {"filter": there if where is None else [*there, where]}},
            "script": {"source": "knn_score", "lang": "knn", "params": params},
        }
    }


def _floats(vector: Any) -> list[float]:
    values: list[float] = np.asarray(vector, np.float32).tolist()
    return values


def msearch_lines(held: Collection, requests: Sequence[SearchRequest]) -> list[Body]:
    """A header and a body for each search; an answer from some of the shards only is an error."""
    lines: list[Body] = []
    for request in requests:
        header: Body = {"allow_partial_search_results": False}
        if isinstance(request.rank, Match):
            # Else each shard reckons by how often a word is in its own documents.
            header["search_type"] = "dfs_query_then_fetch"
        lines += [header, _body(held, request)]
    return lines


def _body(held: Collection, request: SearchRequest) -> Body:
    """A search for one leg, or for several that the server fuses."""
    if not isinstance(request.rank, Fuse):
        return search_body(held.layout, request, _query(held, request))
    if not isinstance(request.rank.method, Rrf) or request.rank.method.weights is not None:
        raise TypeError(
            "only unweighted reciprocal rank fusion means the same here as everywhere: open the store with open_store"
        )
    body = search_body(held.layout, request, hybrid_query(held, request, request.rank))
    # Fused hits come in the order of their scores and cannot be sorted; equal ones are put in order when they are read.
    del body["sort"]
    return {**body, "search_pipeline": rrf_pipeline(request.rank.method.k)}


def hybrid_query(held: Collection, request: SearchRequest, rank: Fuse) -> Body:
    """The legs as one query, each with the filter and cut at ``depth``."""
    legs = [_query(held, replace(request, rank=leg, limit=rank.depth, offset=0)) for leg in rank.legs]
    return {"hybrid": {"queries": legs, "pagination_depth": rank.depth}}


def rrf_pipeline(k: int) -> Body:
    """The search pipeline that fuses by reciprocal ranks; a ``rank_constant`` outside of ``parameters`` is silently 60 on 2.19."""
    combination = {"technique": "rrf", "parameters": {"rank_constant": k}}
    return {"phase_results_processors": [{"score-ranker-processor": {"combination": combination}}]}


def _query(held: Collection, request: SearchRequest) -> Body:
    """A leg with its filter; an empty sparse vector matches nothing."""
    layout, where, reach = held.layout, request.where, request.offset + request.limit
    match request.rank:
        case Fuse():
            raise TypeError("a leg of a fusion is no fusion")
        case Match(name, text):
            return filtered(match_query(layout.text(name), text), where, layout)
        case Near(name, SparseVector() as vector):
            path, weights = layout.vector(name), layout.keys.weights(name, vector)
            if held.form.sparse[name] == "seismic":
                return seismic_query(path, weights, reach, _condition(where, layout))
            query = neural_sparse_query if held.server.neural else rank_features_query
            return filtered(query(path, weights), where, layout) if weights else dict(NOTHING)
        case Near(name, vector):
            path, condition, spec = layout.vector(name), _condition(where, layout), held.schema.fields[name]
            if isinstance(request.effort, Exact) and isinstance(spec, DenseField):
                return exact_query(path, vector, spec.metric, condition)
            graph = held.form.dense[name] in ENGINES
            return knn_query(path, vector, reach, _candidates(request.effort, reach) if graph else None, condition)


def _condition(where: Filter | None, layout: Layout) -> Body | None:
    return None if where is None else filter_query(where, layout)


def _candidates(effort: Effort, reach: int) -> int:
    match effort:
        case Candidates(count):
            return min(MOST, max(reach, count))
        case Default() | Exact():
            # As many as are asked for, the server's own choice, miss one in ten of the nearest ten.
            return min(MOST, max(100, reach + reach // 2))


def scan_body(layout: Layout, where: Filter | None, source: object, batch: int) -> Body:
    """One page of a walk through a point in time, without its place.

    The order of a walk must be total: ``_seq_no`` counts in each shard for itself, and ``_doc`` loses documents where there are several.
    """
    return {
        "query": where_query(where, layout),
        "size": batch,
        "sort": [{"_seq_no": "asc"}, {ID if isinstance(layout, Hidden) else "_id": "asc"}],
        "track_total_hits": False,
        "_source": source,
    }


def folded(form: Form, record: Record) -> str | None:
    """Why a record cannot be kept apart from others, in a sentence; None where it can."""
    for name, kind in form.sparse.items():
        vector = record.vectors.get(name)
        if (
            kind == "seismic"
            and isinstance(vector, SparseVector)
            and len(vector)
            and vector.indices[-1] >= SEISMIC_TERMS
        ):
            return (
                f"field {name!r} has index {vector.indices[-1]}, and sparse=seismic folds those from {SEISMIC_TERMS} on onto others: "
                "make the collection with sparse=rank_features"
            )
    return None


def vector_field(body: Mapping[str, Any]) -> tuple[Field, str] | None:
    """A property of somebody else's mapping as a field of ours and the form it is kept in; None where it is no vector that can be searched."""
    match body.get("type"):
        case "rank_features":
            return SparseField(), "rank_features"
        case "sparse_vector":
            return SparseField(), "seismic"
        case "knn_vector" if found := _dense_field(body):
            return found, _engine(body)
        case _:
            return None


def _dense_field(body: Mapping[str, Any]) -> DenseField | None:
    """The field, where its vectors are float32 and compared by a metric of ours."""
    method = body.get("method") or {}
    metric = _METRICS.get(method.get("space_type") or body.get("space_type") or "l2")
    if metric is None or "dimension" not in body or body.get("data_type", "float") != "float":
        return None
    return DenseField(body["dimension"], metric)


def _engine(body: Mapping[str, Any]) -> str:
    """The engine, where it is one that takes ``ef_search``; else nothing."""
    method = body.get("method") or {}
    engine = str(method.get("engine", "faiss"))
    return engine if engine in ENGINES and method.get("name", "hnsw") == "hnsw" else ""

"""Values to Elasticsearch's bodies and back; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from st_connectors._lucene.filters import NOTHING, filter_query
from st_connectors._lucene.forms import Form, own_mapping
from st_connectors._lucene.layout import Body, Layout
from st_connectors._lucene.queries import filtered, match_query, rank_features_query, search_body
from st_connectors.elasticsearch.server import UNKNOWN, Server
from st_connectors.schema import DenseField, Field, Metric, Quantization, Rrf, Schema, SparseField, TextField, kind_of
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
    SearchRequest,
    is_empty_vector,
)
from st_core.vectors import SparseVector

__all__ = [
    "DENSE_INDEXES",
    "can",
    "form_for",
    "index_body",
    "msearch_lines",
    "rrf_retriever",
    "scan_body",
    "sparse_vector_query",
    "too_old",
    "vector_field",
    "vector_properties",
]

SPARSE = ("sparse_vector", "rank_features")
DENSE_INDEXES = ("hnsw", "flat", "int8_hnsw", "int4_hnsw", "bbq_hnsw", "int8_flat", "int4_flat", "bbq_flat")
_QUANTIZED = {Quantization.INT8: "int8", Quantization.BINARY: "bbq"}
_SIMILARITY = {Metric.COSINE: "cosine", Metric.DOT: "max_inner_product", Metric.EUCLIDEAN: "l2_norm"}
_METRICS = {"cosine": Metric.COSINE, "max_inner_product": Metric.DOT, "l2_norm": Metric.EUCLIDEAN}

MOST = 10_000
"""The most candidates that a knn query looks at, and the most that it finds."""
_WIDER = {"int8": 1, "int4": 2, "bbq": 3}
"""How many times more candidates an index of shortened vectors is asked for, all of which are then compared by their full vectors."""
OLDEST = {8: 19, 9: 1}
"""The first minor version of each major in which token pruning can be turned off in a mapping; before it there is none to turn off in 9.0."""


def form_for(schema: Schema, *, sparse: str = "sparse_vector", dense_index: str = "hnsw") -> Form:
    """The form of a new collection; a field that asks for a quantisation gets it, as a graph or flat as ``dense_index`` is."""
    if sparse not in SPARSE:
        raise ValueError(f"sparse is one of {', '.join(SPARSE)}, not {sparse!r}")
    if dense_index not in DENSE_INDEXES:
        raise ValueError(f"dense_index is one of {', '.join(DENSE_INDEXES)}, not {dense_index!r}")
    kinds = {}
    for name, spec in schema.fields.items():
        if isinstance(spec, DenseField):
            short = _QUANTIZED.get(spec.quantization)
            kinds[name] = f"{short}_{dense_index.rpartition('_')[2]}" if short else dense_index
    return Form({name: sparse for name, spec in schema.fields.items() if isinstance(spec, SparseField)}, kinds)


def too_old(version: str) -> str | None:
    """Why a server of this version is not supported, in a sentence; None where it is."""
    major, minor = (int(part) for part in version.split(".")[:2])
    if major > max(OLDEST) or minor >= OLDEST.get(major, math.inf):
        return None
    return f"the server is Elasticsearch {version}; 8.19 and 9.1 are the oldest whose sparse vectors can be searched unpruned"


def index_body(schema: Schema, form: Form, version: str, settings: Mapping[str, int]) -> Body:
    """The body that makes a collection's index; ``version`` is the server's."""
    index: Body = dict(settings)
    if tuple(int(part) for part in version.split(".")[:2]) >= (9, 2):
        # From 9.2 vectors would be left out of the source and sparse ones be rebuilt from nine bits a weight.
        index["mapping"] = {"exclude_source_vectors": False}
    return {
        "settings": {"index": index},
        "mappings": own_mapping(schema, form, vector_properties(schema.fields, form)),
    }


def vector_properties(fields: Mapping[str, Field], form: Form) -> dict[str, Body]:
    """The properties of dense and sparse fields by field name; every choice is written out, since defaults move from version to version."""
    made: dict[str, Body] = {}
    for name, spec in fields.items():
        match spec:
            case DenseField(dimension, metric):
                kind = form.dense[name]
                graph = {"m": 16, "ef_construction": 100} if kind.endswith("hnsw") else {}
                made[name] = {
                    "type": "dense_vector",
                    "dims": dimension,
                    "index": True,
                    "similarity": _SIMILARITY[metric],
                    "index_options": {"type": kind, **graph},
                }
            case SparseField():
                if form.sparse[name] == "rank_features":
                    made[name] = {"type": "rank_features"}
                else:
                    made[name] = {"type": "sparse_vector", "index_options": {"prune": False}}
            case TextField():
                pass
    return made


def can(most: Capabilities, schema: Schema, form: Form, server: Server = UNKNOWN) -> Capabilities:
    """What a collection of this form on this server can do."""
    text = any(isinstance(spec, TextField) for spec in schema.fields.values())
    fusion = most.fusion & server.fusion(text=text)
    return replace(
        most, fusion=fusion, fields={name: _precision(most, name, spec, form) for name, spec in schema.fields.items()}
    )


def _precision(most: Capabilities, name: str, spec: Field, form: Form) -> Precision:
    known = most.fields[kind_of(spec).value]
    if not isinstance(spec, DenseField):
        return known
    # A graph is left for a comparison with all only where a segment holds no more records than a query has candidates.
    return Precision(
        exact=form.dense.get(name) == "flat",
        # 1 / (1 + d ** 2) in float32 leaves half the digits of a small distance.
        score_rtol=5e-4 if spec.metric is Metric.EUCLIDEAN else known.score_rtol,
    )


def sparse_vector_query(path: str, weights: Mapping[str, float]) -> Body:
    """The inner product of ``weights`` with a field of type ``sparse_vector``, by token, without leaving out frequent tokens."""
    return {"sparse_vector": {"field": path, "query_vector": dict(weights), "prune": False}}


def msearch_lines(form: Form, layout: Layout, requests: Sequence[SearchRequest]) -> list[Body]:
    """A header and a body for each search; an answer from some of the shards only is an error."""
    lines: list[Body] = []
    for request in requests:
        header: Body = {"allow_partial_search_results": False}
        if isinstance(request.rank, Match):
            # Words are as rare as they are in the whole collection, not in the shard that a record happens to be in.
            header["search_type"] = "dfs_query_then_fetch"
        lines.append(header)
        lines.append(_body(form, layout, request))
    return lines


def _body(form: Form, layout: Layout, request: SearchRequest) -> Body:
    """A search for one leg, or for several that the server fuses."""
    rank = request.rank
    if not isinstance(rank, Fuse):
        return search_body(layout, request, _query(form, layout, request))
    if not isinstance(rank.method, Rrf):
        raise TypeError("only reciprocal rank fusion means the same here as everywhere: open the store with open_store")
    legs = [_query(form, layout, replace(request, rank=leg, limit=rank.depth, offset=0)) for leg in rank.legs]
    body = search_body(layout, request, {})
    # Beside a retriever there is no query and no order; equal hits are put in order when they are read.
    del body["query"], body["sort"]
    return {"retriever": rrf_retriever(legs, k=rank.method.k, weights=rank.method.weights, depth=rank.depth), **body}


def rrf_retriever(
    queries: Sequence[Body], *, k: int = 60, weights: Sequence[float] | None = None, depth: int = 100
) -> Body:
    """Queries fused by reciprocal ranks, each cut at ``depth``, which is 10 where it is not said."""
    legs: list[Body] = [{"standard": {"query": query}} for query in queries]
    if weights is not None:
        legs = [{"retriever": leg, "weight": weight} for leg, weight in zip(legs, weights, strict=True)]
    return {"rrf": {"retrievers": legs, "rank_constant": k, "rank_window_size": depth}}


def _query(form: Form, layout: Layout, request: SearchRequest) -> Body:
    """A leg with its filter; an empty sparse vector matches nothing."""
    where = request.where
    match request.rank:
        case Fuse():
            raise TypeError("a leg of a fusion is no fusion")
        case Match(name, text):
            return filtered(match_query(layout.text(name), text), where, layout)
        case Near(name, SparseVector() as vector):
            if is_empty_vector(vector):
                return dict(NOTHING)
            query = rank_features_query if form.sparse[name] == "rank_features" else sparse_vector_query
            return filtered(query(layout.vector(name), layout.keys.weights(name, vector)), where, layout)
        case Near(name, vector):
            return _knn(layout.vector(name), form.dense[name], vector, request, layout)


def _knn(path: str, kind: str, vector: Any, request: SearchRequest, layout: Layout) -> Body:
    exact = isinstance(request.effort, Exact)
    wider = _WIDER.get(kind.partition("_")[0])
    reach = request.offset + request.limit
    candidates = _candidates(request.effort, reach, wider or 1)
    knn: Body = {
        "field": path,
        "query_vector": np.asarray(vector, np.float32).tolist(),
        "k": candidates if exact or wider else reach,
        "num_candidates": candidates,
    }
    if wider:
        knn["rescore_vector"] = {"oversample": 1.0}
    if request.where is not None:
        knn["filter"] = filter_query(request.where, layout)
    elif exact:
        # Lucene compares all that a filter leaves where they are no more than the candidates, and without a filter asks its graph.
        knn["filter"] = {"exists": {"field": path}}
    return {"knn": knn}


def _candidates(effort: Effort, reach: int, wider: int) -> int:
    match effort:
        case Exact():
            return MOST
        case Candidates(count):
            return min(MOST, max(reach, count))
        case Default():
            # The server's own choice, one and a half times the hits, misses many of the nearest.
            return min(MOST, max(100, 2 * reach) * wider)


def scan_body(query: Body, source: object, batch: int) -> Body:
    """One page of a walk through a point in time, without its place."""
    return {
        "query": query,
        "size": batch,
        "sort": [{"_shard_doc": "asc"}],
        "track_total_hits": False,
        "_source": source,
    }


def vector_field(body: Mapping[str, Any]) -> tuple[Field, str] | None:
    """A property of somebody else's mapping as a field of ours and the form it is kept in; None where it is no vector that can be searched."""
    kind = str(body.get("type"))
    if kind in SPARSE:
        return SparseField(), kind
    found = _dense_field(body) if kind == "dense_vector" else None
    return (found, (body.get("index_options") or {}).get("type", "hnsw")) if found else None


def _dense_field(body: Mapping[str, Any]) -> DenseField | None:
    """The field, where its vectors are float32 and can be searched; vectors of length 1 have their cosine as inner product."""
    similarity = body.get("similarity", "cosine")
    metric = _METRICS.get("cosine" if similarity == "dot_product" else similarity)
    if metric is None or not body.get("index", True) or body.get("element_type", "float") != "float":
        return None
    return DenseField(body["dims"], metric) if "dims" in body else None

"""Values to Qdrant's REST bodies and back; pure. The same bodies are sent over REST and turned into objects for gRPC, local mode and edge."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, assert_never

import numpy as np

from st_connectors import bm25
from st_connectors.filters import And, Eq, Exists, Filter, In, Not, Or, Range
from st_connectors.qdrant.layout import INDEXES, Layout, Plain, instant
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
    "Answer",
    "adopted_schema",
    "collection_body",
    "filter_to_qdrant",
    "hits",
    "point",
    "query_body",
    "record",
    "sparse_body",
]

METADATA = "st_connectors"
"""The key of the collection's metadata that holds the schema."""

DISTANCES: Mapping[Metric, str] = {Metric.COSINE: "Cosine", Metric.DOT: "Dot", Metric.EUCLIDEAN: "Euclid"}

NEVER: Mapping[str, Any] = {"must": [{"has_id": []}]}
"""Matches nothing; an empty ``should`` would match everything."""

Body = dict[str, Any]


class Answer(Protocol):
    """A point as edge and the client give it back, scored or not."""

    @property
    def id(self) -> Any:
        """Integer or UUID."""
        ...

    @property
    def payload(self) -> Any:
        """A mapping, or None where not asked for."""
        ...

    @property
    def vector(self) -> Any:
        """By name, or a bare list for a nameless one, or None."""
        ...


def collection_body(schema: Schema) -> Body:
    """The body that makes the collection."""
    vectors: Body = {}
    sparse: Body = {}
    for name, field in schema.fields.items():
        match field:
            case DenseField(dimension, metric, quantization):
                vectors[name] = {"size": dimension, "distance": DISTANCES[metric], **_quantized(quantization)}
            case SparseField():
                sparse[name] = {}
            case TextField():
                # The words' rarity is the server's to know, since it changes with every record.
                sparse[name] = {"modifier": "idf"}
    return {"vectors": vectors, "sparse_vectors": sparse, "metadata": {METADATA: schema.to_json()}}


def adopted_schema(
    collection: str, description: Body, indexed: Mapping[str, str], asked: Mapping[str, FilterKind]
) -> Schema:
    """The schema of a collection that somebody else made, from Qdrant's description of it: what is no single vector is left out."""
    given = description.get("vectors") or {}
    # One nameless vector is described without its name.
    vectors = {"": given} if "size" in given else given
    metrics = {name: metric for metric, name in DISTANCES.items()}
    fields: dict[str, Field] = {
        name: DenseField(params["size"], metrics[params["distance"]])
        for name, params in vectors.items()
        if params["distance"] in metrics and not params.get("multivector_config")
    }
    fields |= {name: SparseField() for name in description.get("sparse_vectors") or {}}
    kinds = {name: kind for kind, name in INDEXES.items()}
    known = {key: kinds[kind] for key, kind in indexed.items() if kind in kinds}
    return Schema(collection, fields, {**known, **asked})


def _quantized(quantization: Quantization) -> Body:
    match quantization:
        case Quantization.NONE:
            return {}
        case Quantization.INT8:
            return {"quantization_config": {"scalar": {"type": "int8", "always_ram": True}}}
        case Quantization.BINARY:
            return {"quantization_config": {"binary": {"always_ram": True}}}


def sparse_body(vector: SparseVector) -> Body:
    """A sparse vector as Qdrant writes it."""
    return {"indices": vector.indices.tolist(), "values": vector.values.tolist()}


def point(schema: Schema, layout: Layout, given: Record) -> Body:
    """A record as a point; text fields become the weights of their words."""
    vectors: Body = {}
    for name, vector in given.vectors.items():
        if not isinstance(vector, SparseVector):
            vectors[name] = vector.tolist()
        elif not is_empty_vector(vector):
            vectors[name] = sparse_body(vector)
    for name, field in schema.fields.items():
        text = given.payload.get(field.source) if isinstance(field, TextField) else None
        if isinstance(text, str) and (weights := bm25.document_weights(text)):
            vectors[name] = {"indices": list(weights), "values": list(weights.values())}
    return {
        "id": layout.point_id(given.id),
        "vector": vectors[""] if list(vectors) == [""] else vectors,
        "payload": layout.to_payload(given.id, given.payload),
    }


def record(schema: Schema, layout: Layout, answer: Answer) -> Record:
    """The record that a point holds, with what was asked for of it."""
    record_id, payload = layout.from_payload(answer.id, answer.payload)
    return Record(record_id, _vectors(schema, answer.vector), payload)


def _vectors(schema: Schema, given: Any) -> dict[str, Vector]:
    if given is None:
        return {}
    # A collection with one nameless vector answers with the bare list.
    named = given if isinstance(given, Mapping) else {"": given}
    kept: dict[str, Vector] = {}
    for name, field in schema.fields.items():
        value = named.get(name)
        if value is None:
            continue
        match field:
            case DenseField():
                kept[name] = np.asarray(value, dtype=np.float32)
            case SparseField():
                kept[name] = SparseVector.from_arrays(
                    np.asarray(value.indices, np.int64), np.asarray(value.values, np.float32)
                )
            case TextField():
                pass  # words' weights are ours to make, not the caller's
    return kept


def vector_selector(schema: Schema, parts: Parts) -> bool | list[str]:
    """``with_vector``: the fields that the caller gave vectors for."""
    names = [name for name, field in schema.fields.items() if not isinstance(field, TextField)]
    if Parts.VECTORS not in parts or not names:
        return False
    return True if names == [""] else names


def query_body(schema: Schema, layout: Layout, request: SearchRequest) -> Body | None:
    """A search as a query; None where nothing can match because a leg's vector is empty.

    The first ``offset`` hits are asked for too: Qdrant breaks ties as it likes, and only a whole list can be put in order before it is cut.
    """
    where = None if request.where is None else filter_to_qdrant(request.where, layout)
    answer: Body = {
        "limit": request.offset + request.limit,
        "with_payload": layout.selector(payload=Parts.PAYLOAD in request.parts),
        "with_vector": vector_selector(schema, request.parts),
    }
    match request.rank:
        case Fuse(legs, depth, Rrf(k, None)):
            prefetch = [_leg(schema, leg, where, request.effort) for leg in legs]
            kept = [leg | {"limit": depth} for leg in prefetch if leg is not None]
            # Qdrant counts positions from 0: 1 / (position + k). Its k is therefore the textbook's plus one.
            return {"prefetch": kept, "query": {"rrf": {"k": k + 1}}, **answer} if kept else None
        case Fuse():
            raise ValueError("only unweighted reciprocal rank fusion means the same here as everywhere")
        case Near() | Match() as leg:
            body = _leg(schema, leg, where, request.effort)
            return None if body is None else body | answer


def _leg(schema: Schema, leg: Leg, where: Body | None, effort: Effort) -> Body | None:
    field = schema.fields[leg.field]
    if is_empty_leg(leg, field):
        return None
    params = _params(field, effort)
    match leg:
        case Near(name, SparseVector() as vector):
            query: Any = sparse_body(vector)
        case Near(name, vector):
            query = np.asarray(vector, np.float32).tolist()
        case Match(name, text):
            weights = bm25.query_vector(text)
            if is_empty_vector(weights):
                return None
            query = sparse_body(weights)
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
        # One bit per dimension orders too roughly to keep its own first hits; see Qdrant's guide on quantization.
        params["quantization"] = {"rescore": True, "oversampling": 3.0}
    return params


def hits(schema: Schema, layout: Layout, request: SearchRequest, answers: Sequence[Any]) -> list[Hit]:
    """Scored points as hits, in order, the first ``offset`` cut off."""
    euclidean = isinstance(request.rank, Near) and _is_euclidean(schema, request.rank.field)
    found = []
    for answer in answers:
        record_id, payload = layout.from_payload(answer.id, answer.payload)
        score = -float(answer.score) if euclidean else float(answer.score)
        found.append(Hit(record_id, score + 0.0, payload, _vectors(schema, answer.vector)))
    found.sort(key=lambda hit: (-hit.score, hit.id))
    return found[request.offset : request.offset + request.limit]


def _is_euclidean(schema: Schema, name: str) -> bool:
    field = schema.fields[name]
    return isinstance(field, DenseField) and field.metric is Metric.EUCLIDEAN


def filter_to_qdrant(where: Filter, layout: Layout | None = None) -> Body:
    """A filter as Qdrant's, for plain payload keys where no layout says otherwise; field names are then JSON paths.

    Without a declared kind a value's own type decides, and strings in ranges are dates.
    """
    body = _condition(where, Plain({}) if layout is None else layout)
    return {"must": [body]} if "key" in body else body


def _condition(where: Filter, layout: Layout) -> Body:  # noqa: PLR0911  # one return for each member of the family
    match where:
        case Eq(field, value):
            return _one_of(field, (value,), layout)
        case In(field, values):
            return _one_of(field, values, layout)
        case Range():
            return _within(where, layout)
        case Exists(field):
            return layout.exists(field)
        case And(parts):
            return {"must": [_condition(part, layout) for part in parts]}
        case Or(parts):
            return {"should": [_condition(part, layout) for part in parts]} if parts else dict(NEVER)
        case Not(part):
            return {"must_not": [_condition(part, layout)]}
        case _:
            assert_never(where)


def _kind_of(layout: Layout, field: str, value: object) -> FilterKind:
    """The declared kind, else that of the value."""
    if field in layout.filterable:
        return layout.filterable[field]
    match value:
        case bool():
            return FilterKind.BOOL
        case int():
            return FilterKind.INT
        case float():
            return FilterKind.FLOAT
        case _:
            return FilterKind.KEYWORD


def _one_of(field: str, values: Sequence[object], layout: Layout) -> Body:
    """The field holds one of these values."""
    key = layout.key(field)
    conditions: list[Body] = []
    for value in values:
        kind = _kind_of(layout, field, value)
        for item in layout.typed(kind, value):
            # Qdrant matches strings, integers and booleans only; a range of one point is equality for the others.
            one_point = kind in (FilterKind.FLOAT, FilterKind.DATE)
            conditions.append(_range(key, item, item) if one_point else {"key": key, "match": {"value": item}})
    listed = [condition["match"]["value"] for condition in conditions if "match" in condition]
    one_kind = len(listed) == len(conditions) and {type(item) for item in listed} in ({str}, {int})
    if len(listed) > 1 and one_kind:
        return {"key": key, "match": {"any": listed}}
    if not conditions:
        return dict(NEVER)
    return conditions[0] if len(conditions) == 1 else {"should": conditions}


def _range(key: str, least: object, most: object) -> Body:
    bounds = {name: bound for name, bound in (("gte", least), ("lte", most)) if bound is not None}
    return {"key": key, "range": bounds}


def _within(where: Range, layout: Layout) -> Body:
    key = layout.key(where.field)
    bounds: Mapping[str, float | str] = {
        name: bound
        for name, bound in (("gt", where.gt), ("gte", where.gte), ("lt", where.lt), ("lte", where.lte))
        if bound is not None
    }
    kind = _kind_of(layout, where.field, next(iter(bounds.values()), None))
    if not bounds:
        bounds = _ANY_VALUE.get(kind, {})
    if any(isinstance(bound, str) for bound in bounds.values()):
        moments = {name: instant(bound) for name, bound in bounds.items()}
        if kind in (FilterKind.KEYWORD, FilterKind.DATE) and all(moments.values()):
            return {"key": key, "range": {name: found[0] for name, found in moments.items()}}
        return dict(NEVER)
    numbers = {name: bound for name, bound in bounds.items() if not isinstance(bound, str)}
    if kind is FilterKind.INT:
        return _whole_range(key, numbers)
    if kind is FilterKind.FLOAT and numbers:
        return {"key": key, "range": {name: float(bound) for name, bound in numbers.items()}}
    return dict(NEVER)


_ANY_VALUE: Mapping[FilterKind, Mapping[str, float | str]] = {
    FilterKind.FLOAT: {"gte": -sys.float_info.max},
    FilterKind.DATE: {"gte": "0001-01-01"},
}
"""Bounds that let every value of a kind through, for a range without any."""


def _whole_range(key: str, bounds: Mapping[str, float]) -> Body:
    """Integers within bounds, exactly: Qdrant's bounds are float64, so what lies between the last float64 and a bound is listed one by one."""
    low = max([-(2**63), *(math.ceil(bounds[n]) for n in ("gte",) if n in bounds), *(math.floor(bounds[n]) + 1 for n in ("gt",) if n in bounds)])  # fmt: skip
    high = min([2**63 - 1, *(math.floor(bounds[n]) for n in ("lte",) if n in bounds), *(math.ceil(bounds[n]) - 1 for n in ("lt",) if n in bounds)])  # fmt: skip
    if low > high:
        return dict(NEVER)
    from_float, to_float = _float_at_least(low), -_float_at_least(-high)
    if from_float > to_float:
        return {"key": key, "match": {"any": list(range(low, high + 1))}}
    edges = [*range(low, from_float), *range(to_float + 1, high + 1)]
    inside = _range(key, float(from_float), float(to_float))
    return {"should": [inside, {"key": key, "match": {"any": edges}}]} if edges else inside


def _float_at_least(number: int) -> int:
    """The least integer that float64 holds and that is not below ``number``."""
    nearest = float(number)
    return int(nearest if int(nearest) >= number else math.nextafter(nearest, math.inf))

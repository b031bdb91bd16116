"""Values to what ``pymilvus`` is told and back; pure, and without ``pymilvus``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from st_connectors.milvus import layout
from st_connectors.milvus.expressions import Expression, both, expression
from st_connectors.schema import DenseField, Field, FilterKind, Metric, Schema, SparseField, TextField
from st_connectors.store import (
    Candidates,
    Effort,
    Fuse,
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
    "Column",
    "Index",
    "Plan",
    "columns",
    "filtered",
    "indexes",
    "lacking",
    "leg_of",
    "metadata",
    "outputs",
    "plan",
    "planned",
    "record",
    "row",
    "sparse_row",
    "stored",
    "vector_value",
]

METADATA = "st_connectors"
"""The property of the collection that holds the schema."""

METRICS: Mapping[Metric, str] = {Metric.COSINE: "COSINE", Metric.DOT: "IP", Metric.EUCLIDEAN: "L2"}
FILLER = "vec_st_filler"
"""Milvus makes no collection without a vector; one without any of ours gets this."""

HNSW = {"M": 16, "efConstruction": 200}
EF = 64
"""How many candidates a search of an HNSW graph looks at where nothing is said."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a collection: the name of Milvus's type, and its parameters."""

    name: str
    type: str
    params: Mapping[str, Any] = field(default_factory=dict)
    words_of: str | None = None
    """The text column whose words the BM25 function puts here."""


@dataclass(frozen=True, slots=True)
class Index:
    """An index on a column."""

    column: str
    type: str
    metric: str
    params: Mapping[str, Any] = field(default_factory=dict)


_WORD = {"max_length": layout.LONGEST}
_WORDS = {"element_type": "VARCHAR", "max_capacity": layout.CAPACITY, **_WORD}


def columns(schema: Schema, *, packed: bool) -> list[Column]:
    """Every column of a collection, the primary key first."""
    made = [
        Column(layout.ID, "VARCHAR", {"is_primary": True, "max_length": 512}),
        Column(layout.PAYLOAD, "ARRAY", _WORDS),
    ]
    for name, spec in schema.fields.items():
        made += _field_columns(name, spec)
    for name, kind in schema.filterable.items():
        made += _filter_columns(layout.Kept(kind, name, packed))
    return made if schema.fields else [*made, Column(FILLER, "FLOAT_VECTOR", {"dim": 2})]


def _field_columns(name: str, spec: Field) -> list[Column]:
    column = layout.vector_column(name)
    has = [Column(layout.has_column(name), "BOOL")]
    match spec:
        case DenseField(dimension, optional=optional):
            return [Column(column, "FLOAT_VECTOR", {"dim": dimension}), *(has if optional else [])]
        case SparseField(optional):
            return [Column(column, "SPARSE_FLOAT_VECTOR"), *(has if optional else [])]
        case TextField():
            text = layout.text_column(name)
            analysed = {**_WORD, "enable_analyzer": True, "analyzer_params": {"type": "standard"}}
            return [Column(text, "VARCHAR", analysed), Column(column, "SPARSE_FLOAT_VECTOR", words_of=text)]


def _filter_columns(kept: layout.Kept) -> list[Column]:
    match kept.kind:
        case FilterKind.KEYWORD:
            return [Column(kept.words, "VARCHAR", _WORD) if kept.packed else Column(kept.words, "ARRAY", _WORDS)]
        case FilterKind.BOOL:
            return [Column(kept.yes, "BOOL"), Column(kept.no, "BOOL")]
        case _:
            number = "DOUBLE" if kept.kind is FilterKind.FLOAT else "INT64"
            prefixes = {"element_type": "VARCHAR", "max_capacity": layout.CAPACITY, "max_length": 16}
            inner = Column(kept.inner, "VARCHAR", _WORD) if kept.packed else Column(kept.inner, "ARRAY", prefixes)
            return [Column(kept.low, number), Column(kept.high, number), inner]


def indexes(schema: Schema, dense: str) -> list[Index]:
    """The index of every vector column: ``dense`` is FLAT or HNSW. Only what 2.5 to 3.0 take alike is said."""
    params = dict(HNSW) if dense == "HNSW" else {}
    sparse = {"inverted_index_algo": "DAAT_MAXSCORE"}
    made = []
    for name, spec in schema.fields.items():
        column = layout.vector_column(name)
        match spec:
            case DenseField(_, metric):
                made.append(Index(column, dense, METRICS[metric], params))
            case SparseField():
                made.append(Index(column, "SPARSE_INVERTED_INDEX", "IP", sparse))
            case TextField():
                bm25 = {"bm25_k1": 1.2, "bm25_b": 0.75}
                made.append(Index(column, "SPARSE_INVERTED_INDEX", "BM25", {**sparse, **bm25}))
    return made or [Index(FILLER, "FLAT", "L2")]


def filter_indexes(schema: Schema) -> list[Index]:
    """An inverted index on every column that filters ask; a server's only, since Milvus Lite compares in memory."""
    filters = [
        column for name, kind in schema.filterable.items() for column in _filter_columns(layout.Kept(kind, name))
    ]
    return [Index(column.name, "INVERTED", "") for column in filters]


def metadata(schema: Schema, laid: layout.Layout) -> str:
    """What the collection's property holds."""
    held = {"schema": schema.to_json(), "dense": laid.dense, "packed": laid.packed}
    return json.dumps(held, ensure_ascii=True, separators=(",", ":"))


def stored(description: Mapping[str, Any]) -> tuple[Schema, layout.Layout] | None:
    """The schema and the layout of a collection by its description; None where it is not one of ours."""
    text = (description.get("properties") or {}).get(METADATA)
    if text is None:
        return None
    held = json.loads(text)
    return Schema.from_json(held["schema"]), layout.Layout(held["dense"], held["packed"])


def sparse_row(vector: SparseVector) -> dict[int, float]:
    """A sparse vector as Milvus takes it."""
    return dict(zip(vector.indices.tolist(), vector.values.tolist(), strict=True))


def row(schema: Schema, given: Record, *, packed: bool) -> dict[str, Any]:
    """A record as a row with every column, since Milvus Lite keeps the old value of a column that is not there.

    A vector that a record lacks is filled in, and the column beside it says so; no search sees the row by that field then. Raises ValueError for what
    Milvus cannot hold.
    """
    made: dict[str, Any] = {layout.ID: given.id, layout.PAYLOAD: layout.pieces(given.payload)}
    if len(made[layout.PAYLOAD]) > layout.CAPACITY:
        raise ValueError(f"the payload has more than {layout.CAPACITY * layout.LONGEST} bytes")
    for name, spec in schema.fields.items():
        if isinstance(spec, TextField):
            made[layout.text_column(name)] = _text(name, given.payload.get(spec.source))
            continue
        vector = given.vectors.get(name)
        lacks = vector is None or is_empty_vector(vector)
        if spec.optional:
            made[layout.has_column(name)] = not lacks
        elif lacks:
            raise ValueError(f"the vector of field {name!r} is missing, and the field is not optional")
        made[layout.vector_column(name)] = _filler(spec) if vector is None or lacks else vector_value(vector)
    if not schema.fields:
        made[FILLER] = [0.0, 0.0]
    return made | layout.filter_values(schema, given.payload, packed=packed)


def vector_value(vector: Vector) -> Any:
    """A vector as Milvus takes it."""
    return sparse_row(vector) if isinstance(vector, SparseVector) else vector.tolist()


def _filler(spec: DenseField | SparseField) -> Any:
    return {0: 1.0} if isinstance(spec, SparseField) else [1.0] * spec.dimension


def _text(name: str, value: object) -> str:
    text = value if isinstance(value, str) else ""
    size = len(text.encode())
    if size > layout.LONGEST:
        raise ValueError(
            f"the text of field {name!r} has {size} bytes, and Milvus searches at most {layout.LONGEST}: split it"
        )
    return text


def outputs(schema: Schema, parts: Parts) -> list[str]:
    """The columns to ask for."""
    asked = [layout.ID]
    if Parts.PAYLOAD in parts:
        asked.append(layout.PAYLOAD)
    if Parts.VECTORS in parts:
        for name, spec in schema.fields.items():
            if not isinstance(spec, TextField):
                asked.append(layout.vector_column(name))
                asked += [layout.has_column(name)] if spec.optional else []
    return asked


def record(schema: Schema, answer: Mapping[str, Any]) -> Record:
    """The record that a row holds, with what was asked for of it."""
    return Record(answer[layout.ID], _vectors(schema, answer), _payload(answer))


def _payload(answer: Mapping[str, Any]) -> dict[str, Any]:
    kept = answer.get(layout.PAYLOAD)
    return {} if kept is None else layout.join(kept)


def _vectors(schema: Schema, answer: Mapping[str, Any]) -> dict[str, Vector]:
    kept: dict[str, Vector] = {}
    for name, spec in schema.fields.items():
        value = answer.get(layout.vector_column(name))
        if value is None or isinstance(spec, TextField) or not answer.get(layout.has_column(name), True):
            continue
        kept[name] = (
            SparseVector.from_mapping(value) if isinstance(spec, SparseField) else np.asarray(value, np.float32)
        )
    return kept


@dataclass(frozen=True, slots=True)
class Plan:
    """One search of one column; those that differ only in ``data`` go as one request."""

    column: str
    data: Any
    params: Mapping[str, Any]
    limit: int
    where: Expression
    outputs: tuple[str, ...]
    present: str | None = None
    """The column, among ``outputs``, that says whether a row has the vector; None where all rows do."""

    @property
    def key(self) -> str:
        """What requests that go together have in common."""
        return json.dumps([self.column, self.params, self.limit, self.where.text, self.where.values, self.outputs])


def leg_of(request: SearchRequest) -> Leg:
    """What a request ranks by."""
    if isinstance(request.rank, Fuse):
        raise TypeError("legs are searched one by one and fused above the adapter")
    return request.rank


def plan(schema: Schema, request: SearchRequest, laid: layout.Layout) -> Plan | None:
    """A search as Milvus's; None where nothing can match because the query is empty."""
    name = leg_of(request).field
    spec = schema.fields[name]
    where = Expression("")
    if request.where is not None:
        where = expression(request.where, schema.filterable, packed=laid.packed)
    column, asked = layout.vector_column(name), outputs(schema, request.parts)
    present = None if isinstance(spec, TextField) or not spec.optional else layout.has_column(name)
    if present is not None:
        asked = [*asked, present] if present not in asked else asked
    return planned(request, spec, where, column=column, index=laid.dense, asked=asked, present=present)


def lacking(plan: Plan, answer: Sequence[Mapping[str, Any]]) -> bool:
    """Whether rows without the vector are among the hits, where each keeps one out that has it.

    Milvus compares such rows by what fills their column. They are kept out by a filter only where they come up, since it costs Milvus Lite 5 % of a
    search among 6,600 rows: hits that all have the vector are those that the filter would have left.
    """
    return plan.present is not None and not all(hit["entity"][plan.present] for hit in answer)


def filtered(plan: Plan) -> Plan:
    """The same search among the rows that have the vector."""
    return replace(plan, where=both(f"{plan.present} == true", plan.where), present=None)


def planned(
    request: SearchRequest,
    spec: Field,
    where: Expression,
    *,
    column: str,
    index: str,
    asked: Sequence[str],
    present: str | None = None,
) -> Plan | None:
    """A search of one column, whose dense index is of a type; None where nothing can match because the query is empty.

    The first ``offset`` hits are asked for too: Milvus breaks ties as it likes, and only a whole list can be put in order before it is cut.
    """
    leg = leg_of(request)
    if is_empty_leg(leg, spec):
        return None
    limit = request.offset + request.limit
    data: Any
    params: dict[str, Any]
    match leg:
        case Match(_, text):
            data, params = text, {"metric_type": "BM25"}
        case Near(_, SparseVector() as vector):
            data, params = sparse_row(vector), {"metric_type": "IP", "params": {}}
        case Near(_, vector):
            metric = spec.metric if isinstance(spec, DenseField) else Metric.DOT
            data = np.asarray(vector, np.float32).tolist()
            params = {"metric_type": METRICS[metric], "params": _effort(index, request.effort, limit)}
    return Plan(column, data, params, limit, where, tuple(asked), present)


def _effort(dense: str, effort: Effort, limit: int) -> dict[str, int]:
    if not dense.startswith("HNSW"):
        return {}
    asked = effort.count if isinstance(effort, Candidates) else EF
    return {"ef": max(asked, limit)}  # Milvus refuses fewer candidates than hits

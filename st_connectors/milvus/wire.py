"""Convert schemas, searches and results to and from pymilvus payloads, without importing pymilvus."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from st_connectors.milvus import columns
from st_connectors.milvus.columns import METRICS, FilterColumns, PrimaryKey, Scalar, collection_name
from st_connectors.milvus.filters import Expression, conjoin
from st_connectors.milvus.layout import AdoptedLayout, Layout, StorageOptions
from st_connectors.plugin import Description
from st_connectors.schema import DenseField, Field, FilterKind, Metric, Schema, SparseField, TextField
from st_connectors.store import Candidates, Effort, Fuse, Hit, Leg, Match, Near, Parts, SearchRequest, is_empty_leg
from st_core.vectors import SparseVector

__all__ = [
    "Column",
    "Index",
    "Plan",
    "filter_indexes",
    "format_metadata",
    "own_name",
    "parse_metadata",
    "parse_name",
    "plan_search",
    "require_vector",
    "shows_missing_vector",
    "to_adopted_layout",
    "to_columns",
    "to_description",
    "to_hits",
    "vector_indexes",
]

METADATA = "st_connectors"
"""The collection property that contains the schema."""

HNSW = {"M": 16, "efConstruction": 200}
EF = 64
"""Candidates per search of an HNSW graph with default effort."""

_CONTENT = Parts.PAYLOAD | Parts.VECTORS


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a collection: its name, the name of its Milvus type, and the parameters of the type."""

    name: str
    type: str
    params: Mapping[str, Any] = field(default_factory=dict)
    bm25_source: str | None = None
    """The text column from which a BM25 function computes the values of this column; None for other columns."""


@dataclass(frozen=True, slots=True)
class Index:
    """An index on a column."""

    column: str
    type: str
    metric: str
    params: Mapping[str, Any] = field(default_factory=dict)


_TEXT = {"max_length": columns.MAX_TEXT_BYTES}
_TEXTS = {"element_type": "VARCHAR", "max_capacity": columns.MAX_ELEMENTS, **_TEXT}


def to_columns(schema: Schema, *, packed: bool) -> list[Column]:
    """Return every column of a collection, the primary key first."""
    result = [
        Column(columns.ID, "VARCHAR", {"is_primary": True, "max_length": 512}),
        Column(columns.PAYLOAD, "ARRAY", _TEXTS),
    ]
    for name, spec in schema.fields.items():
        result += _field_columns(name, spec)
    for name, kind in schema.filterable.items():
        result += _filter_columns(FilterColumns(kind, name, packed))
    return result if schema.fields else [*result, Column(columns.FILLER, "FLOAT_VECTOR", {"dim": 2})]


def _field_columns(name: str, spec: Field) -> list[Column]:
    column = columns.vector_column(name)
    presence = [Column(columns.presence_column(name), "BOOL")]
    match spec:
        case DenseField(dimension, optional=optional):
            return [Column(column, "FLOAT_VECTOR", {"dim": dimension}), *(presence if optional else [])]
        case SparseField(optional):
            return [Column(column, "SPARSE_FLOAT_VECTOR"), *(presence if optional else [])]
        case TextField():
            text = columns.text_column(name)
            analysed = {**_TEXT, "enable_analyzer": True, "analyzer_params": {"type": "standard"}}
            return [Column(text, "VARCHAR", analysed), Column(column, "SPARSE_FLOAT_VECTOR", bm25_source=text)]


def _filter_columns(names: FilterColumns) -> list[Column]:
    match names.kind:
        case FilterKind.KEYWORD:
            return [
                Column(names.keywords, "VARCHAR", _TEXT) if names.packed else Column(names.keywords, "ARRAY", _TEXTS)
            ]
        case FilterKind.BOOL:
            return [Column(names.has_true, "BOOL"), Column(names.has_false, "BOOL")]
        case _:
            number = "DOUBLE" if names.kind is FilterKind.FLOAT else "INT64"
            prefixes = {"element_type": "VARCHAR", "max_capacity": columns.MAX_ELEMENTS, "max_length": 16}
            between = (
                Column(names.between, "VARCHAR", _TEXT) if names.packed else Column(names.between, "ARRAY", prefixes)
            )
            return [Column(names.minimum, number), Column(names.maximum, number), between]


def vector_indexes(schema: Schema, dense: str) -> list[Index]:
    """Return the index of every vector column; ``dense`` is FLAT or HNSW.

    Only parameters that have the same meaning in Milvus 2.5 to 3.0 are used.
    """
    params = dict(HNSW) if dense == "HNSW" else {}
    sparse = {"inverted_index_algo": "DAAT_MAXSCORE"}
    indexes = []
    for name, spec in schema.fields.items():
        column = columns.vector_column(name)
        match spec:
            case DenseField(_, metric):
                indexes.append(Index(column, dense, METRICS[metric], params))
            case SparseField():
                indexes.append(Index(column, "SPARSE_INVERTED_INDEX", "IP", sparse))
            case TextField():
                bm25 = {"bm25_k1": 1.2, "bm25_b": 0.75}
                indexes.append(Index(column, "SPARSE_INVERTED_INDEX", "BM25", {**sparse, **bm25}))
    return indexes or [Index(columns.FILLER, "FLAT", "L2")]


def filter_indexes(schema: Schema) -> list[Index]:
    """Return an inverted index for every filter column; for servers only, because Milvus Lite compares in memory."""
    names = [
        column.name for name, kind in schema.filterable.items() for column in _filter_columns(FilterColumns(kind, name))
    ]
    return [Index(name, "INVERTED", "") for name in names]


def format_metadata(schema: Schema, options: StorageOptions) -> str:
    """Serialise schema and storage options for the collection property."""
    value = {"schema": schema.to_json(), "dense": options.index, "packed": options.packed}
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))


def parse_name(description: Mapping[str, Any]) -> str | None:
    """Read the name of a collection from Milvus's description, whatever the version of its format.

    Returns None for a collection created by someone else.
    """
    text = (description.get("properties") or {}).get(METADATA)
    return None if text is None else str(json.loads(text)["schema"]["collection"])


def parse_metadata(description: Mapping[str, Any]) -> tuple[Schema, StorageOptions] | None:
    """Read schema and options from Milvus's description of a collection.

    Returns None for a collection created by someone else.
    """
    text = (description.get("properties") or {}).get(METADATA)
    if text is None:
        return None
    value = json.loads(text)
    return Schema.from_json(value["schema"]), StorageOptions(value["dense"], value["packed"])


def own_name(description: Mapping[str, Any]) -> str:
    """Return the name of a collection from Milvus's description, which may have been requested by an alias.

    It is that of the stored schema if Milvus's name is derived from it.
    """
    name, stored = str(description["collection_name"]), parse_metadata(description)
    return stored[0].collection if stored is not None and collection_name(stored[0].collection) == name else name


def to_description(
    description: Mapping[str, Any], indexes: Sequence[Mapping[str, Any]], aliases: Sequence[str]
) -> Description:
    """Convert Milvus's descriptions of a collection and its indexes."""
    stored = parse_metadata(description)
    options: dict[str, Any] = {
        name: description[name] for name in ("num_shards", "num_partitions", "consistency_level") if name in description
    }
    if stored is not None:
        options["lists"] = "text" if stored[1].packed else "arrays"
    options["indexes"] = {
        str(each["field_name"]): {name: each[name] for name in ("index_type", "metric_type") if name in each}
        for each in indexes
    }
    return Description(own_name(description), tuple(sorted(aliases)), options=options)


@dataclass(frozen=True, slots=True)
class Plan:
    """One search of one column; plans that differ only in ``data`` are sent as one request."""

    column: str
    data: Any
    params: Mapping[str, Any]
    limit: int
    where: Expression
    outputs: tuple[str, ...]
    presence: str | None = None
    """The output column that states whether a row has the vector; None if every ranked row has it."""

    @property
    def key(self) -> str:
        """A text that is equal for plans that can be sent as one request."""
        return json.dumps([self.column, self.params, self.limit, self.where.text, self.where.values, self.outputs])


def plan_search(layout: Layout, request: SearchRequest) -> Plan | None:
    """Plan a search among all rows; return None if the query is empty and therefore has no hits.

    The first ``offset`` hits are requested too: Milvus does not define the order of equal scores, so that the offset
    can only be applied after sorting the complete list.
    """
    leg, limit = leg_of(request), request.offset + request.limit
    spec = layout.schema.fields[leg.field]
    if is_empty_leg(leg, spec):
        return None
    data: Any
    params: dict[str, Any]
    match leg:
        case Match(_, text):
            data, params = text, {"metric_type": "BM25"}
        case Near(_, SparseVector() as vector):
            data, params = columns.encode_sparse(vector), {"metric_type": "IP", "params": {}}
        case Near(_, vector):
            metric = spec.metric if isinstance(spec, DenseField) else Metric.DOT
            data = np.asarray(vector, np.float32).tolist()
            effort = _effort(layout.index(leg.field), request.effort, limit)
            params = {"metric_type": METRICS[metric], "params": effort}
    where = Expression("") if request.where is None else layout.where(request.where)
    presence, outputs = layout.presence_column(leg.field), layout.outputs(request.parts)
    if presence is not None and presence not in outputs:
        outputs.append(presence)
    return Plan(layout.vector_column(leg.field), data, params, limit, where, tuple(outputs), presence)


def require_vector(plan: Plan) -> Plan:
    """Return a plan that is restricted to the rows that have the vector."""
    if plan.presence is None:
        return plan
    return replace(plan, where=conjoin(f"{plan.presence} == true", plan.where), presence=None)


def shows_missing_vector(plan: Plan, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a result contains rows that lack the vector, which Milvus ranks by their placeholder.

    Each such row displaces a row that has the vector. A result without such rows equals the result of the plan that
    ``require_vector`` returns.
    """
    return plan.presence is not None and not all(row["entity"][plan.presence] for row in rows)


def leg_of(request: SearchRequest) -> Leg:
    """Return the leg that a request ranks by."""
    if isinstance(request.rank, Fuse):
        raise TypeError("expected a single leg, got Fuse; the layer above the adapter searches each leg and fuses them")
    return request.rank


def _effort(index: str, effort: Effort, limit: int) -> dict[str, int]:
    if not index.startswith("HNSW"):
        return {}
    candidates = effort.count if isinstance(effort, Candidates) else EF
    return {"ef": max(candidates, limit)}  # Milvus refuses fewer candidates than hits


def to_hits(layout: Layout, request: SearchRequest, rows: Sequence[Mapping[str, Any]]) -> list[Hit]:
    """Convert scored rows to sorted hits, and skip the first ``offset`` hits."""
    spec, key = layout.schema.fields[leg_of(request).field], layout.key
    has_content = bool(request.parts & _CONTENT)
    hits = []
    for row in rows:
        score = _score(spec, float(row["distance"])) + 0.0
        if has_content:
            record = layout.record({**row["entity"], key: row[key]})
            hits.append(Hit(record.id, score, record.payload, record.vectors))
        else:
            hits.append(Hit(str(row[key]), score))
    hits.sort(key=lambda hit: (-hit.score, hit.id))
    return hits[request.offset : request.offset + request.limit]


def _score(spec: Field, distance: float) -> float:
    match spec:
        case DenseField(metric=Metric.EUCLIDEAN):
            return -math.sqrt(max(distance, 0.0))  # Milvus returns the squared distance
        case TextField():
            return abs(distance)  # Milvus Lite 3.2 returns a distance, with the sign changed
        case _:
            return distance


_FLOAT_VECTOR, _SPARSE_VECTOR, _ARRAY, _INT64, _BM25 = 101, 104, 22, 5, 1
_KINDS: Mapping[int, FilterKind] = {
    1: FilterKind.BOOL,
    **dict.fromkeys((2, 3, 4, _INT64), FilterKind.INT),
    11: FilterKind.FLOAT,
    21: FilterKind.KEYWORD,
}
"""The kind of each Milvus type, by its number in schema.proto. FLOAT (10) is omitted, because float32 cannot represent
most filter values, such as 0.1."""
_METRIC_NAMES = {name: metric for metric, name in METRICS.items()}
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def to_adopted_layout(
    collection: str,
    description: Mapping[str, Any],
    indexes: Sequence[Mapping[str, Any]],
    filterable: Mapping[str, FilterKind],
) -> AdoptedLayout:
    """Read the layout from Milvus's descriptions of a collection and its indexes.

    ``filterable`` adds filterable fields to those of the scalar columns. Vectors that a schema cannot describe are
    omitted. Raises ValueError for a kind that Milvus cannot compare and for a key of the dynamic field that is not an
    identifier.
    """
    described = {column["name"]: column for column in description["fields"]}
    by_field = {index["field_name"]: index for index in indexes}
    sources = _bm25_sources(description)
    fields = {
        name: spec
        for name, column in described.items()
        if (spec := _field(column, by_field.get(name, {}), sources.get(name))) is not None
    }
    payload = {
        name: column for name, column in described.items() if int(column["type"]) < 100 and not column.get("is_primary")
    }
    known = {name: kind for name, column in payload.items() if (kind := _KINDS.get(_element(column))) is not None}
    dynamic = bool(description.get("enable_dynamic_field"))
    _check_filterable(filterable, payload, dynamic=dynamic)
    return AdoptedLayout(
        Schema(collection, fields, {**known, **filterable}),
        next(_primary_key(column, description) for column in described.values() if column.get("is_primary")),
        {name: Scalar(_may_be_missing(column), int(column["type"]) == _ARRAY) for name, column in payload.items()},
        dynamic,
        {name: by_field[name]["index_type"] for name, spec in fields.items() if isinstance(spec, DenseField)},
    )


def _bm25_sources(description: Mapping[str, Any]) -> dict[str, str]:
    """Return the source text column of each column whose values a BM25 function computes."""
    return {
        str(output): str(next(iter(function["input_field_names"])))
        for function in description.get("functions") or []
        if int(function["type"]) == _BM25
        for output in function["output_field_names"]
    }


def _element(column: Mapping[str, Any]) -> int:
    kind = int(column["type"])
    return int(column["element_type"]) if kind == _ARRAY else kind


def _may_be_missing(column: Mapping[str, Any]) -> bool:
    return bool(column.get("nullable")) or column.get("default_value") is not None


def _primary_key(column: Mapping[str, Any], description: Mapping[str, Any]) -> PrimaryKey:
    is_generated = bool(description.get("auto_id") or column.get("auto_id"))
    return PrimaryKey(column["name"], int(column["type"]) == _INT64, is_generated)


def _field(column: Mapping[str, Any], index: Mapping[str, Any], source: str | None) -> Field | None:
    metric = str(index.get("metric_type", ""))
    kind = int(column["type"])
    if kind == _FLOAT_VECTOR and metric in _METRIC_NAMES:
        return DenseField(int(column["params"]["dim"]), _METRIC_NAMES[metric], optional=False)
    if kind == _SPARSE_VECTOR and source is not None:
        return TextField(source)
    return SparseField(optional=False) if kind == _SPARSE_VECTOR and metric == "IP" else None


def _check_filterable(filterable: Mapping[str, FilterKind], payload: Mapping[str, Any], *, dynamic: bool) -> None:
    for name, kind in filterable.items():
        if kind is FilterKind.DATE:
            raise ValueError(f"filterable {name!r}: Milvus has no dates to compare; store seconds and filter by int")
        if name in payload:
            continue
        if not dynamic:
            raise ValueError(f"filterable {name!r}: the collection has no such column and no dynamic field")
        if not _IDENTIFIER.fullmatch(name):
            raise ValueError(
                f"filterable {name!r}: a key of the dynamic field consists of letters, digits and underscores"
            )

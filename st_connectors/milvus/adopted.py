"""Other people's collections: their columns as they stand, ids of either type as strings, scalar columns and the dynamic field as the payload; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, assert_never

import numpy as np

from st_connectors.filters import And, Eq, Exists, Filter, In, Not, Or, Range
from st_connectors.milvus import wire
from st_connectors.milvus.expressions import Expression, Values
from st_connectors.schema import DenseField, Field, FilterKind, Schema, SparseField, TextField, kind_of
from st_connectors.store import Capabilities, Parts, Precision, Record, SearchRequest, Vector
from st_core.vectors import SparseVector

__all__ = ["Key", "Scalar", "Theirs", "theirs"]

_FLOAT_VECTOR, _SPARSE_VECTOR, _ARRAY, _INT64, _BM25 = 101, 104, 22, 5, 1
_KINDS: Mapping[int, FilterKind] = {
    1: FilterKind.BOOL,
    **dict.fromkeys((2, 3, 4, _INT64), FilterKind.INT),
    11: FilterKind.FLOAT,
    21: FilterKind.KEYWORD,
}
"""By the numbers of Milvus's types (schema.proto). FLOAT, 10, is left out: half of what is asked of it, such as 0.1, is not what it holds."""
_METRICS = {name: metric for metric, name in wire.METRICS.items()}
_INT64S = range(-(2**63), 2**63)
_WHOLE = re.compile(r"0|-?[1-9][0-9]*")


@dataclass(frozen=True, slots=True)
class Key:
    """The primary key: its column, whether it holds whole numbers, and whether Milvus makes them."""

    name: str
    whole: bool = False
    auto: bool = False


@dataclass(frozen=True, slots=True)
class Scalar:
    """A column of the payload: whether it may be null or be left out, and whether it holds arrays."""

    nullable: bool = False
    array: bool = False


@dataclass(frozen=True, slots=True)
class Theirs:
    """A collection's columns; every method is what :class:`st_connectors.milvus.rows.Ours` has under its name."""

    schema: Schema
    primary: Key
    scalars: Mapping[str, Scalar]
    dynamic: bool
    indexes: Mapping[str, str]
    """The type of each dense field's index."""

    @property
    def collection(self) -> str:
        """The name as it was given."""
        return self.schema.collection

    @property
    def key(self) -> str:
        """The column of the primary key."""
        return self.primary.name

    def capabilities(self, most: Capabilities) -> Capabilities:
        """Milvus 2.5 holds no row without each of its vectors; efforts are those that every dense index can make."""
        kinds = set(self.indexes.values())
        efforts = {"default"}
        efforts |= {"exact"} if kinds <= {"FLAT"} else set()
        efforts |= {"candidates"} if all(kind.startswith("HNSW") for kind in kinds) and kinds else set()
        precision = {
            name: Precision(self.indexes.get(name, "FLAT") == "FLAT", most.fields[kind_of(spec).value].score_rtol)
            for name, spec in self.schema.fields.items()
        }
        return replace(most, optional_vectors=False, efforts=frozenset(efforts), fields=precision)

    def row(self, given: Record) -> dict[str, Any]:
        """A record as a row; raises ValueError for what its columns cannot hold."""
        if self.primary.auto:
            raise ValueError(
                "the collection makes its ids itself, so that no record can be put under one: search it only"
            )
        row: dict[str, Any] = {self.key: self._id(given.id)}
        for name, scalar in self.scalars.items():
            row[name] = given.payload.get(name)
            if row[name] is None and not scalar.nullable:
                raise ValueError(f"payload[{name!r}] is missing, and that column takes no null")
        others = given.payload.keys() - self.scalars.keys()
        if others and not self.dynamic:
            raise ValueError(f"the collection has no column {min(others)!r} and no dynamic field")
        if taken := others & {self.key, *self.schema.fields}:
            raise ValueError(f"payload[{min(taken)!r}] has the name of a column that is no payload")
        row |= {name: given.payload[name] for name in given.payload if name in others}
        return row | {name: wire.vector_value(vector) for name, vector in given.vectors.items()}

    def _id(self, given: str) -> int | str:
        if not self.primary.whole:
            return given
        if not _WHOLE.fullmatch(given) or int(given) not in _INT64S:
            raise ValueError(f"an adopted collection with whole numbers as ids takes those, not {given!r}")
        return int(given)

    def ids(self, ids: Sequence[str]) -> Expression:
        """The rows of these ids; those that none can have are left out."""
        kept: list[Any] = list(ids)
        if self.primary.whole:
            kept = [int(each) for each in ids if _WHOLE.fullmatch(each) and int(each) in _INT64S]
        return Expression(f"{self.key} in {{p0}}", {"p0": kept}) if kept else self._never()

    def outputs(self, parts: Parts) -> list[str]:
        """The columns to ask for."""
        payload = [*self.scalars, *(["$meta"] if self.dynamic else [])] if Parts.PAYLOAD in parts else []
        vectors = [name for name, spec in self.schema.fields.items() if not isinstance(spec, TextField)]
        return [self.key, *payload, *(vectors if Parts.VECTORS in parts else [])]

    def record(self, answer: Mapping[str, Any]) -> Record:
        """The record that a row holds, with what was asked for of it; null columns are null in the payload."""
        vectors: dict[str, Vector] = {}
        for name, spec in self.schema.fields.items():
            if answer.get(name) is not None and not isinstance(spec, TextField):
                vectors[name] = _vector(spec, answer[name])
        payload = {
            name: list(value) if name in self.scalars and self.scalars[name].array and value is not None else value
            for name, value in answer.items()
            if name != self.key and name not in self.schema.fields
        }
        return Record(str(answer[self.key]), vectors, payload)

    def everything(self) -> Expression:
        """Every row."""
        return (
            Expression(f"{self.key} >= {{p0}}", {"p0": _INT64S[0]})
            if self.primary.whole
            else Expression(f'{self.key} != ""')
        )

    def _never(self) -> Expression:
        return (
            Expression(f"{self.key} < {{p0}}", {"p0": _INT64S[0]})
            if self.primary.whole
            else Expression(f'{self.key} == ""')
        )

    def where(self, where: Filter) -> Expression:
        """A filter, its negations written out to the columns: for Milvus the negation of null is null, for us it is true."""
        values = Values()
        return Expression(self._condition(where, values, negated=False), values.values)

    def _condition(self, where: Filter, values: Values, *, negated: bool) -> str:
        match where:
            case Not(part):
                return self._condition(part, values, negated=not negated)
            case And(parts) | Or(parts):
                both = isinstance(where, And) is not negated
                if not parts:
                    return self._constant(values, both)
                joined = [f"({self._condition(part, values, negated=negated)})" for part in parts]
                return (" and " if both else " or ").join(joined)
            case Eq() | In() | Range() | Exists():
                made = self._leaf(where, values)
                if made is None:
                    return self._constant(values, negated)
                return self._negation(where, made) if negated else made
            case _:
                assert_never(where)

    def _constant(self, values: Values, truth: bool) -> str:
        made = self.everything() if truth else self._never()
        return made.text.replace("{p0}", values.bind(made.values["p0"])) if made.values else made.text

    def _negation(self, where: Eq | In | Range | Exists, made: str) -> str:
        scalar = self.scalars.get(where.field)
        if scalar is None:
            return f"not exists {where.field} or not ({made})"
        return f"{where.field} is null or not ({made})" if scalar.nullable else f"not ({made})"

    def _leaf(self, where: Eq | In | Range | Exists, values: Values) -> str | None:
        """A comparison, or None where nothing can pass."""
        name, scalar = where.field, self.scalars.get(where.field)
        kind = self.schema.filterable[name]
        match where:
            case Exists():
                if scalar is None:
                    return f"exists {name}"
                return f"array_length({name}) > 0" if scalar.array else f"{name} is not null"
            case Eq(_, value):
                return _one_of(name, scalar, _typed(kind, [value]), values)
            case In(_, many):
                return _one_of(name, scalar, _typed(kind, many), values)
            case Range(_, gt, gte, lt, lte):
                if scalar is not None and scalar.array:
                    raise ValueError(
                        f"Milvus compares no elements of arrays, such as {name!r}: Eq, In and Exists are what it has"
                    )
                bounds = [(">", gt), (">=", gte), ("<", lt), ("<=", lte)]
                parts = [f"{name} {sign} {values.bind(bound)}" for sign, bound in bounds if bound is not None]
                return " and ".join(parts)

    def plan(self, request: SearchRequest) -> wire.Plan | None:
        """A search as Milvus's; None where nothing can match because the query is empty."""
        name = wire.leg_of(request).field
        where = Expression("") if request.where is None else self.where(request.where)
        index, asked = self.indexes.get(name, "FLAT"), self.outputs(request.parts)
        return wire.planned(request, self.schema.fields[name], where, column=name, index=index, asked=asked)


def _one_of(name: str, scalar: Scalar | None, given: Sequence[Any], values: Values) -> str | None:
    if not given:
        return None
    if scalar is not None and scalar.array:
        return f"array_contains_any({name}, {values.bind(list(given))})"
    if scalar is not None:
        return f"{name} in {values.bind(list(given))}" if len(given) > 1 else f"{name} == {values.bind(given[0])}"
    # A key of the dynamic field holds anything, lists too.
    bound = [values.bind(value) for value in given]
    return " or ".join(f"{name} == {each} or json_contains({name}, {each})" for each in bound)


def _typed(kind: FilterKind, given: Iterable[object]) -> list[Any]:
    """The values that something of the kind can equal, in its type."""
    match kind:
        case FilterKind.KEYWORD:
            return [value for value in given if isinstance(value, str)]
        case FilterKind.BOOL:
            return [value for value in given if isinstance(value, bool)]
        case _:
            numbers = [value for value in given if isinstance(value, int | float) and not isinstance(value, bool)]
            if kind is FilterKind.FLOAT:
                return [float(value) for value in numbers]
            return [int(value) for value in numbers if value == int(value) and int(value) in _INT64S]


def _vector(spec: Field, value: Any) -> Vector:
    return SparseVector.from_mapping(value) if isinstance(spec, SparseField) else np.asarray(value, np.float32)


def theirs(
    collection: str,
    description: Mapping[str, Any],
    indexes: Sequence[Mapping[str, Any]],
    asked: Mapping[str, FilterKind],
) -> Theirs:
    """What there is to know of a collection from its description and those of its indexes; vectors that this contract cannot name are left out.

    Raises ValueError for a kind that Milvus has no comparison for, and for a key of the dynamic field that is no identifier.
    """
    columns = {column["name"]: column for column in description["fields"]}
    by_field = {index["field_name"]: index for index in indexes}
    words = {
        str(output): str(next(iter(function["input_field_names"])))
        for function in description.get("functions") or []
        if int(function["type"]) == _BM25
        for output in function["output_field_names"]
    }
    fields = {
        name: spec
        for name, column in columns.items()
        if (spec := _field(column, by_field.get(name, {}), words.get(name))) is not None
    }
    payload = {
        name: column for name, column in columns.items() if int(column["type"]) < 100 and not column.get("is_primary")
    }
    known = {name: kind for name, column in payload.items() if (kind := _KINDS.get(_element(column))) is not None}
    dynamic = bool(description.get("enable_dynamic_field"))
    _check_asked(asked, payload, dynamic=dynamic)
    return Theirs(
        Schema(collection, fields, {**known, **asked}),
        next(_key(column, description) for column in columns.values() if column.get("is_primary")),
        {name: Scalar(_may_lack(column), int(column["type"]) == _ARRAY) for name, column in payload.items()},
        dynamic,
        {name: by_field[name]["index_type"] for name, spec in fields.items() if isinstance(spec, DenseField)},
    )


def _element(column: Mapping[str, Any]) -> int:
    kind = int(column["type"])
    return int(column["element_type"]) if kind == _ARRAY else kind


def _may_lack(column: Mapping[str, Any]) -> bool:
    return bool(column.get("nullable")) or column.get("default_value") is not None


def _key(column: Mapping[str, Any], description: Mapping[str, Any]) -> Key:
    auto = bool(description.get("auto_id") or column.get("auto_id"))
    return Key(column["name"], int(column["type"]) == _INT64, auto)


def _field(column: Mapping[str, Any], index: Mapping[str, Any], source: str | None) -> Field | None:
    metric = str(index.get("metric_type", ""))
    match int(column["type"]):
        case 101 if metric in _METRICS:
            return DenseField(int(column["params"]["dim"]), _METRICS[metric], optional=False)
        case 104 if source is not None:
            return TextField(source)
        case 104 if metric == "IP":
            return SparseField(optional=False)
        case _:
            return None


def _check_asked(asked: Mapping[str, FilterKind], payload: Mapping[str, Any], *, dynamic: bool) -> None:
    for name, kind in asked.items():
        if kind is FilterKind.DATE:
            raise ValueError(f"filterable {name!r}: Milvus has no dates to compare; keep seconds, and filter by int")
        if name in payload:
            continue
        if not dynamic:
            raise ValueError(f"filterable {name!r}: the collection has no such column and no dynamic field")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"filterable {name!r}: a key of the dynamic field is of letters, digits and underscores")

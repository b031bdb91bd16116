"""What searches, filters and schemas must be before a store sees them; pure.

ValueError and TypeError tell what is wrong anywhere, ``Unsupported`` what this store cannot do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeGuard, assert_never

from st_connectors.errors import Unsupported
from st_connectors.filters import And, Eq, Exists, Filter, FilterValue, In, Not, Or, Range, parse_date
from st_connectors.layers.records import INT64, dense_vector, encoded, names, sparse_vector
from st_connectors.schema import DenseField, FilterKind, Fusion, Rrf, Schema, SparseField, TextField, Weighted
from st_connectors.store import (
    Candidates,
    Capabilities,
    Default,
    Effort,
    Exact,
    Fuse,
    Leg,
    Match,
    Near,
    Parts,
    SearchRequest,
)

__all__ = ["Limits", "whole"]

_DEPTH = 100
"""How deep filters nest; evaluating one recurses as deep."""


def whole(value: object, least: int, what: str) -> int:
    """A whole number of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{what} is a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{what} must be at least {least}, not {value}")
    return value


@dataclass(frozen=True, slots=True)
class Limits:
    """What one store takes; each method gives the clean value or raises."""

    store: str
    schema: Schema
    can: Capabilities

    def cannot(self, what: str, operation: str) -> Unsupported:
        """The error for what this store lacks."""
        return Unsupported(what, store=self.store, operation=operation)

    def check_schema(self) -> None:
        """Raise unless the schema's fields can be made here."""
        if not self.schema.collection or not isinstance(self.schema.collection, str):
            raise ValueError("a collection needs a name")
        for name in (*self.schema.fields, *self.schema.filterable):
            if not name:
                raise ValueError("a field needs a name; this one is empty")
            encoded(name, "the name of a field")
        for name, spec in self.schema.fields.items():
            match spec:
                case DenseField():
                    self._check_dense(name, spec)
                case SparseField():
                    if not self.can.sparse:
                        raise self.cannot(f"field {name!r}: this store has no sparse vectors", "create")
                case TextField():
                    if not self.can.text:
                        raise self.cannot(f"field {name!r}: this store has no text search", "create")
                case _:
                    assert_never(spec)

    def _check_dense(self, name: str, spec: DenseField) -> None:
        whole(spec.dimension, 1, f"the dimension of field {name!r}")
        if self.can.max_dimension is not None and spec.dimension > self.can.max_dimension:
            raise self.cannot(
                f"field {name!r} has {spec.dimension} dimensions, and the most here is {self.can.max_dimension}",
                "create",
            )
        for what, asked, known in (
            ("metric", spec.metric, self.can.metrics),
            ("quantization", spec.quantization, self.can.quantizations),
        ):
            if asked not in known:
                here = ", ".join(sorted(known)) or "none"
                raise self.cannot(f"field {name!r} asks for {what} {asked}; this store has {here}", "create")

    def request(self, request: SearchRequest) -> SearchRequest:
        """A search whose vectors and filter are in their normal form."""
        if not isinstance(request, SearchRequest):
            raise TypeError(f"a search is a SearchRequest, not {type(request).__name__}")
        limit, offset = whole(request.limit, 1, "limit"), whole(request.offset, 0, "offset")
        if not isinstance(request.parts, Parts):
            raise TypeError(f"parts is of Parts, not {request.parts!r}")
        self._check_effort(request.effort)
        rank = request.rank
        if isinstance(rank, Fuse):
            rank = self._fuse(rank, offset + limit)
            self._check_reach(rank.depth, "depth")
        else:
            rank = self._leg(rank)
            self._check_reach(offset + limit, "offset + limit")
        where = None if request.where is None else self.filter(request.where, "search")
        return replace(request, rank=rank, where=where)

    def _check_reach(self, reach: int, what: str) -> None:
        if self.can.max_limit is not None and reach > self.can.max_limit:
            raise self.cannot(f"{what} is {reach}, and the most this store gives is {self.can.max_limit}", "search")

    def _check_effort(self, effort: Effort) -> None:
        match effort:
            case Exact():
                name = "exact"
            case Default():
                name = "default"
            case Candidates(count):
                whole(count, 1, "the count of Candidates")
                name = "candidates"
            case _:
                raise TypeError(f"effort is Exact(), Default() or Candidates(n), not {effort!r}")
        if name not in self.can.efforts:
            raise self.cannot(
                f"effort {name} is not for this store, which has {', '.join(sorted(self.can.efforts))}", "search"
            )

    def _fuse(self, rank: Fuse, reach: int) -> Fuse:
        depth = whole(rank.depth, 1, "depth")
        if reach > depth:
            raise ValueError(f"offset + limit is {reach}, beyond depth {depth}: ask for a depth of at least {reach}")
        if not rank.legs:
            raise ValueError("a Fuse needs at least one leg")
        _check_fusion(rank.method, len(rank.legs))
        return replace(rank, legs=tuple(self._leg(leg) for leg in rank.legs))

    def _leg(self, leg: Leg) -> Leg:
        if not isinstance(leg, Near | Match):
            raise TypeError(f"a leg is Near or Match, not {type(leg).__name__}")
        spec = self.schema.fields.get(leg.field)
        if spec is None:
            raise ValueError(
                f"there is no field {leg.field!r} to search; the collection has {names(self.schema.fields)}"
            )
        if isinstance(leg, Match):
            return self._match(leg, isinstance(spec, TextField))
        match spec:
            case DenseField():
                return Near(leg.field, dense_vector(leg.vector, spec, leg.field))
            case SparseField():
                vector = sparse_vector(leg.vector, leg.field)
                most = self.can.max_query_terms
                if most is not None and len(vector) > most:
                    raise self.cannot(
                        f"the query has {len(vector)} terms, and the most here is {most}: keep the heaviest with vector.top({most})",
                        "search",
                    )
                return Near(leg.field, vector)
            case TextField():
                raise ValueError(f"field {leg.field!r} is text: search it with Match, not Near")
            case _:
                assert_never(spec)

    def _match(self, leg: Match, is_text: bool) -> Match:
        if not is_text:
            raise ValueError(f"field {leg.field!r} holds vectors: search it with Near, not Match")
        if not self.can.text:
            raise self.cannot(f"field {leg.field!r}: this store has no text search", "search")
        if not isinstance(leg.text, str):
            raise TypeError(f"Match takes a text, not {type(leg.text).__name__}")
        encoded(leg.text, "the text of Match")
        return leg

    def filter(self, where: Filter, operation: str, depth: int = 0) -> Filter:
        """A filter whose fields are declared and whose values are of their kinds."""
        if depth > _DEPTH:
            raise ValueError(f"the filter nests deeper than {_DEPTH} levels")
        kind = type(where).__name__.lower()
        if not isinstance(where, Eq | In | Range | Exists | And | Or | Not):
            raise TypeError(f"a filter is one of Eq, In, Range, Exists, And, Or, Not; got {where!r}")
        if kind not in self.can.filters:
            here = ", ".join(sorted(self.can.filters)) or "none"
            raise self.cannot(f"filter {kind} is not for this store, which has {here}", operation)
        match where:
            case And(parts):
                return And(tuple(self.filter(part, operation, depth + 1) for part in parts))
            case Or(parts):
                return Or(tuple(self.filter(part, operation, depth + 1) for part in parts))
            case Not(part):
                return Not(self.filter(part, operation, depth + 1))
            case _:
                return self._leaf(where)

    def _leaf(self, where: Eq | In | Range | Exists) -> Filter:
        match where:
            case Eq(name, value):
                return Eq(name, self._value(name, value))
            case In(name, values):
                if isinstance(values, str):
                    raise TypeError(f"In({name!r}, …) takes a tuple of values, not a string")
                self._kind(name)
                return In(name, tuple(self._value(name, value) for value in values))
            case Range():
                return self._range(where)
            case Exists(name):
                self._kind(name)
                return where
            case _:
                assert_never(where)

    def _kind(self, name: str) -> FilterKind:
        kind = self.schema.filterable.get(name)
        if kind is None:
            raise ValueError(
                f"field {name!r} is not filterable; this collection filters on {names(self.schema.filterable)}"
            )
        return kind

    def _value(self, name: str, value: FilterValue) -> FilterValue:
        """A value as its field's kind: 2020.0 as 2020 on int fields, 1 as 1.0 on float fields, dates in UTC."""
        kind = self._kind(name)
        wrong = f"field {name!r} holds {kind.value}: {value!r} cannot be compared with it"
        match kind:
            case FilterKind.KEYWORD if isinstance(value, str):
                encoded(value, f"the value for {name!r}")
                return value
            case FilterKind.BOOL if isinstance(value, bool):
                return value
            case FilterKind.DATE if isinstance(value, str):
                return parse_date(value).isoformat().replace("+00:00", "Z")
            case FilterKind.INT if _is_number(value) and (isinstance(value, int) or float(value).is_integer()):
                return _int64(int(value), name)
            case FilterKind.FLOAT if _is_number(value):
                return _finite(value, name)
            case _:
                raise ValueError(wrong if value is not None else f"{wrong}; ask for null with Not(Exists({name!r}))")

    def _range(self, where: Range) -> Range:
        kind = self._kind(where.field)
        if kind in {FilterKind.KEYWORD, FilterKind.BOOL}:
            raise ValueError(f"field {where.field!r} holds {kind.value}: Range is for numbers and dates")
        bounds = {name: getattr(where, name) for name in ("gt", "gte", "lt", "lte")}
        given = {name: bound for name, bound in bounds.items() if bound is not None}
        if not given:
            raise ValueError(f"Range({where.field!r}) has no bound: give gt, gte, lt or lte, or ask Exists")
        if kind is FilterKind.INT:  # x > 1.5 is x > 1, and x >= 1.5 is x >= 2
            given = {
                name: _rounded(bound, math.floor if name in {"gt", "lte"} else math.ceil)
                for name, bound in given.items()
            }
        return Range(where.field, **{name: self._value(where.field, bound) for name, bound in given.items()})


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _rounded(value: object, to: Callable[[float], int]) -> object:
    """A finite float as a whole number; anything else as it is."""
    return to(value) if isinstance(value, float) and math.isfinite(value) else value


def _int64(value: int, name: str) -> int:
    if value not in INT64:
        raise ValueError(f"{value} is beyond the 64 bits of field {name!r}")
    return value


def _finite(value: float, name: str) -> float:
    try:
        wide = float(value)
    except OverflowError:
        wide = math.inf
    if not math.isfinite(wide):
        raise ValueError(f"field {name!r} holds finite numbers: {wide} cannot be compared with it")
    return wide


def _check_fusion(method: Fusion, legs: int) -> None:
    match method:
        case Rrf(k, weights):
            whole(k, 1, "k of Rrf")
        case Weighted(weights, normalise):
            if normalise != "min_max":
                raise ValueError(f"Weighted normalises by 'min_max', not {normalise!r}")
        case _:
            raise TypeError(f"a Fuse is fused by Rrf or Weighted, not {method!r}")
    if weights is None:
        return
    if len(weights) != legs:
        raise ValueError(f"{len(weights)} weights for {legs} legs: give one weight per leg")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not any(weights):
        raise ValueError(f"weights are finite, none below 0 and one above it; got {weights}")

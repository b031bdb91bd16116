"""Validate and normalise searches, filters and schemas before they are sent.

Invalid arguments raise ValueError or TypeError, and operations that the store does not support raise ``Unsupported``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeGuard, assert_never

import numpy as np

from st_connectors._clauses import count_comparisons, count_values
from st_connectors.arguments import check_int
from st_connectors.errors import Unsupported
from st_connectors.filters import And, Eq, Exists, Filter, FilterValue, In, Not, Or, Range, parse_date
from st_connectors.fusion import check_fusion, check_weights
from st_connectors.layers.limits import count_terms, term_room
from st_connectors.layers.records import INT64, check_dense, check_sparse, encode_text, list_names
from st_connectors.schema import DenseField, FilterKind, Schema, SparseField, TextField, alterations
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

__all__ = ["RequestChecks"]

_DEPTH = 100
"""The maximum depth of nesting in filters; the evaluation of a filter recurses to the same depth."""


@dataclass(frozen=True, slots=True)
class RequestChecks:
    """The checks of one store's requests; each method returns the normalised value or raises."""

    store: str
    schema: Schema
    capabilities: Capabilities

    def _unsupported(self, what: str, operation: str) -> Unsupported:
        """Return the error for ``what``, which this store does not support."""
        return Unsupported(what, store=self.store, operation=operation)

    def check_schema(self) -> None:
        """Raise an error unless this store supports the fields of the schema."""
        if not self.schema.collection or not isinstance(self.schema.collection, str):
            raise ValueError("a collection needs a name, a string that is not empty")
        for name in (*self.schema.fields, *self.schema.filterable):
            if not name:
                raise ValueError("a field needs a name; this one is empty")
            encode_text(name, "the name of a field")
        for name, spec in self.schema.fields.items():
            match spec:
                case DenseField():
                    self._check_dense(name, spec)
                case SparseField():
                    if not self.capabilities.sparse:
                        raise self._unsupported(f"field {name!r}: this store has no sparse vectors", "create")
                case TextField():
                    if not self.capabilities.text:
                        raise self._unsupported(f"field {name!r}: this store has no text search", "create")
                case _:
                    assert_never(spec)

    def _check_dense(self, name: str, spec: DenseField) -> None:
        check_int(spec.dimension, 1, f"the dimension of field {name!r}")
        if self.capabilities.max_dimension is not None and spec.dimension > self.capabilities.max_dimension:
            raise self._unsupported(
                f"field {name!r} has {spec.dimension} dimensions; this store allows {self.capabilities.max_dimension}",
                "create",
            )
        for option, value, known in (
            ("metric", spec.metric, self.capabilities.metrics),
            ("quantization", spec.quantization, self.capabilities.quantizations),
        ):
            if value not in known:
                expected = ", ".join(sorted(known)) or "none"
                raise self._unsupported(f"field {name!r} has {option} {value}; this store has {expected}", "create")

    def check_alteration(self, requested: Schema) -> None:
        """Raise ``Unsupported`` unless this store can change its schema to ``requested`` in place."""
        changed = alterations(self.schema, requested)
        if "models" in self.capabilities.alterable:  # both are metadata only
            changed -= {"migration"}
        name = self.schema.collection
        if "schema" in changed:
            what = "only models, fusion and quantization can be changed, and filterable fields added"
            how = f"for other fields or kinds, create another collection than {name!r} and ingest into it"
            raise self._unsupported(f"{what}; {how}", "alter")
        if fixed := sorted(changed - self.capabilities.alterable):
            names = {"filterable": "filterable fields"}
            what = " and ".join(names.get(each, each) for each in fixed)
            options = " ".join(f"--{each}" for each in fixed if each != "models")
            how = f"copy it with its vectors under another name: st-connectors copy --into NAME {options}"
            if changed <= self.capabilities.alterable | self.capabilities.alterable_by_copy:
                how = f"let a copy take its place: st-connectors alter {options} (st_connectors.altering.alter_by_copy)"
            how = how if options else "pass the model when the collection is opened"
            raise self._unsupported(f"this store cannot change the {what} of {name!r} in place; {how}", "alter")
        if requested.fusion is not None:
            check_weights(check_fusion(requested.fusion), list(requested.fields))

    def check_request(self, request: SearchRequest) -> SearchRequest:
        """Return the search with normalised vectors and filter."""
        if not isinstance(request, SearchRequest):
            raise TypeError(f"expected a SearchRequest, not {type(request).__name__}")
        limit, offset = check_int(request.limit, 1, "limit"), check_int(request.offset, 0, "offset")
        if not isinstance(request.parts, Parts):
            raise TypeError(f"parts must be of Parts, not {request.parts!r}")
        effort = self._check_effort(request.effort)
        where = None if request.where is None else self.check_filter(request.where, "search")
        rank, room = request.rank, term_room(self.capabilities, where)
        if isinstance(rank, Fuse):
            rank = self._fuse(rank, offset + limit, room)
            self._check_reach(rank.depth, "depth")
        else:
            rank = self._leg(rank, room)
            self._check_reach(offset + limit, "offset + limit")
        return replace(request, rank=rank, where=where, limit=limit, offset=offset, effort=effort)

    def _check_reach(self, reach: int, name: str) -> None:
        if self.capabilities.max_limit is not None and reach > self.capabilities.max_limit:
            raise self._unsupported(
                f"{name} is {reach}, and this store returns at most {self.capabilities.max_limit}", "search"
            )

    def _check_effort(self, effort: Effort) -> Effort:
        match effort:
            case Exact():
                name = "exact"
            case Default():
                name = "default"
            case Candidates(count):
                effort = Candidates(check_int(count, 1, "the count of Candidates"))
                name = "candidates"
            case _:
                raise TypeError(f"effort must be Exact(), Default() or Candidates(n), not {effort!r}")
        if name not in self.capabilities.efforts:
            raise self._unsupported(
                f"unsupported effort {name}; this store has {', '.join(sorted(self.capabilities.efforts))}", "search"
            )
        return effort

    def _fuse(self, rank: Fuse, reach: int, room: int | None) -> Fuse:
        depth = check_int(rank.depth, 1, "depth")
        if reach > depth:
            raise ValueError(f"offset + limit is {reach}, beyond depth {depth}: use a depth of at least {reach}")
        if not rank.legs:
            raise ValueError("a Fuse needs at least one leg")
        legs = tuple(self._leg(leg, room) for leg in rank.legs)
        method = check_fusion(rank.method)
        check_weights(method, [leg.field for leg in legs])
        return replace(rank, legs=legs, depth=depth, method=method)

    def _leg(self, leg: Leg, room: int | None) -> Leg:
        """Return the leg with a normalised vector; ``room`` is the number of query terms that the store allows."""
        if not isinstance(leg, Near | Match):
            raise TypeError(f"a leg must be Near or Match, not {type(leg).__name__}")
        spec = self.schema.fields.get(leg.field)
        if spec is None:
            raise ValueError(f"unknown field {leg.field!r}; the collection has {list_names(self.schema.fields)}")
        if isinstance(leg, Match):
            return self._fitting(self._match(leg, isinstance(spec, TextField)), room)
        match spec:
            case DenseField():
                return Near(leg.field, check_dense(leg.vector, spec, leg.field))
            case SparseField():
                return self._fitting(Near(leg.field, check_sparse(leg.vector, leg.field)), room)
            case TextField():
                raise ValueError(f"field {leg.field!r} is text: search it with Match, not Near")
            case _:
                assert_never(spec)

    def _fitting(self, leg: Leg, room: int | None) -> Leg:
        """Return the leg; raise ``Unsupported`` if it has more terms than there is room for."""
        if room is None or (count := count_terms(leg)) <= room:
            return leg
        what, way = ("words", "shorten the text") if isinstance(leg, Match) else ("terms", f"use vector.top({room})")
        hint = f"{way}, or search by Index with shorten=True"
        raise self._unsupported(f"the query has {count} {what}, and this store allows {room}: {hint}", "search")

    def _match(self, leg: Match, is_text: bool) -> Match:
        if not is_text:
            raise ValueError(f"field {leg.field!r} has vectors: search it with Near, not Match")
        if not self.capabilities.text:
            raise self._unsupported(f"field {leg.field!r}: this store has no text search", "search")
        if not isinstance(leg.text, str):
            raise TypeError(f"the text of Match must be a string, not {type(leg.text).__name__}")
        encode_text(leg.text, "the text of Match")
        return leg

    def check_filter(self, where: Filter, operation: str) -> Filter:
        """Return the filter with its values converted to the kinds of their fields."""
        checked = self._filter(where, operation, 0)
        self._check_size(checked, operation)
        return checked

    def _check_size(self, where: Filter, operation: str) -> None:
        """Raise ``Unsupported`` for a filter with more values or comparisons than the store allows."""
        values, clauses = self.capabilities.max_filter_values, self.capabilities.max_clauses
        if values is not None and (count := count_values(where)) > values:
            what, most, hint = "values", values, "split them over several requests"
        elif clauses is not None and 2 * (count := count_comparisons(where)) > clauses:
            what, most, hint = "comparisons", clauses // 2, "compare with several values by In, or split the filter"
        else:
            return
        raise self._unsupported(f"the filter has {count} {what}, and this store allows {most}: {hint}", operation)

    def _filter(self, where: Filter, operation: str, depth: int) -> Filter:
        if depth > _DEPTH:
            raise ValueError(f"the filter nests deeper than {_DEPTH} levels")
        kind = type(where).__name__.lower()
        if not isinstance(where, Eq | In | Range | Exists | And | Or | Not):
            raise TypeError(f"expected a filter, one of Eq, In, Range, Exists, And, Or, Not; got {where!r}")
        if kind not in self.capabilities.filters:
            known = ", ".join(sorted(self.capabilities.filters)) or "none"
            raise self._unsupported(f"unsupported filter {kind}; this store has {known}", operation)
        match where:
            case And(parts):
                return And(tuple(self._filter(part, operation, depth + 1) for part in parts))
            case Or(parts):
                return Or(tuple(self._filter(part, operation, depth + 1) for part in parts))
            case Not(part):
                return Not(self._filter(part, operation, depth + 1))
            case _:
                return self._leaf(where)

    def _leaf(self, where: Eq | In | Range | Exists) -> Filter:
        match where:
            case Eq(name, value):
                return Eq(name, self._value(name, value))
            case In(name, values):
                if isinstance(values, str) or not isinstance(values, Iterable):
                    what = "a string" if isinstance(values, str) else repr(values)
                    raise TypeError(f"In({name!r}, …) expects a tuple of values, not {what}")
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
                f"field {name!r} is not filterable; this collection filters on {list_names(self.schema.filterable)}"
            )
        return kind

    def _value(self, name: str, value: FilterValue) -> FilterValue:
        """Convert a value to its field's kind: 2020.0 to 2020 on int fields, 1 to 1.0 on float fields, dates to UTC.

        Scalars of numpy, such as the maximum of a column, become values of Python.
        """
        kind = self._kind(name)
        value = _plain(value)
        wrong = f"field {name!r} is of kind {kind.value}: {value!r} cannot be compared with it"
        match kind:
            case FilterKind.KEYWORD if isinstance(value, str):
                encode_text(value, f"the value for {name!r}")
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
                raise ValueError(wrong if value is not None else f"{wrong}; to match null, use Not(Exists({name!r}))")

    def _range(self, where: Range) -> Range:
        kind = self._kind(where.field)
        if kind in {FilterKind.KEYWORD, FilterKind.BOOL}:
            raise ValueError(f"field {where.field!r} is of kind {kind.value}: Range is for numbers and dates")
        bounds = {name: getattr(where, name) for name in ("gt", "gte", "lt", "lte")}
        bounds = {name: _plain(bound) for name, bound in bounds.items() if bound is not None}
        if not bounds:
            raise ValueError(f"Range({where.field!r}) has no bound: add gt, gte, lt or lte, or use Exists")
        if kind is FilterKind.INT:  # x > 1.5 is x > 1, and x >= 1.5 is x >= 2
            bounds = {
                name: _round(bound, math.floor if name in {"gt", "lte"} else math.ceil)
                for name, bound in bounds.items()
            }
        return Range(where.field, **{name: self._value(where.field, bound) for name, bound in bounds.items()})


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _round(value: object, to: Callable[[float], int]) -> object:
    """Round a finite float with the function ``to``; return any other value unchanged."""
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
        raise ValueError(f"field {name!r} is of finite numbers: {wide} cannot be compared with it")
    return wide

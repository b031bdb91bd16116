"""Translate filters to Qdrant's filter bodies, without a driver."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from st_connectors._matching import INT64
from st_connectors.filters import And, Eq, Exists, Filter, In, Not, Or, Range
from st_connectors.qdrant.layout import AdoptedLayout, Layout, to_rfc3339
from st_connectors.schema import FilterKind

__all__ = ["filter_to_qdrant"]

Body = dict[str, Any]

NEVER: Mapping[str, Any] = {"must": [{"has_id": []}]}
"""A filter that matches nothing; an empty ``should`` would match everything."""
_ANY_VALUE: Mapping[FilterKind, Mapping[str, float | str]] = {
    FilterKind.FLOAT: {"gte": -sys.float_info.max},
    FilterKind.DATE: {"gte": "0001-01-01"},
}
"""The bounds for a ``Range`` without bounds, which every value of the kind passes."""


def filter_to_qdrant(where: Filter, layout: Layout | None = None) -> Body:
    """Translate a filter to a filter body; if ``layout`` is None, field names are JSON paths of plain payload keys.

    For a field without a declared kind, the type of the value determines the kind, and strings in ranges are dates.
    """
    body = _condition(where, AdoptedLayout({}) if layout is None else layout)
    return {"must": [body]} if "key" in body else body


def _condition(where: Filter, layout: Layout) -> Body:  # noqa: PLR0911  # one return per filter class
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
    """Return the declared kind of a field, or the kind of the value if none is declared."""
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
    """Return the condition that a field contains at least one of the values."""
    key = layout.key(field)
    matched: list[Any] = []
    compared: list[Any] = []
    for value in values:
        kind = _kind_of(layout, field, value)
        # Qdrant matches only strings, integers and booleans; values of other kinds are matched by a range with equal
        # bounds.
        (compared if kind in (FilterKind.FLOAT, FilterKind.DATE) else matched).extend(layout.convert(kind, value))
    conditions = [*_match_any(key, matched), *_equal_any(key, sorted(set(compared)))]
    if not conditions:
        return dict(NEVER)
    return conditions[0] if len(conditions) == 1 else {"should": conditions}


def _match_any(key: str, values: Sequence[Any]) -> list[Body]:
    """Return one condition for several strings or several integers, which Qdrant looks up in a set, or one for each."""
    if len(values) > 1 and {type(value) for value in values} in ({str}, {int}):
        return [{"key": key, "match": {"any": list(values)}}]
    return [{"key": key, "match": {"value": value}} for value in values]


_GROUPS = 16


def _equal_any(key: str, values: Sequence[Any]) -> list[Body]:
    """Return conditions of which one is true if the field contains one of the values, which are sorted and distinct.

    The conditions form a tree of ranges, so that Qdrant compares a record with a few dozen ranges and not with all.
    """
    if len(values) <= _GROUPS:
        return [_range(key, value, value) for value in values]
    size = -(-len(values) // _GROUPS)
    groups = [values[at : at + size] for at in range(0, len(values), size)]
    return [{"must": [_range(key, group[0], group[-1]), {"should": _equal_any(key, group)}]} for group in groups]


def _range(key: str, low: object, high: object) -> Body:
    bounds = {name: bound for name, bound in (("gte", low), ("lte", high)) if bound is not None}
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
        dates = {name: to_rfc3339(bound) for name, bound in bounds.items()}
        if kind in (FilterKind.KEYWORD, FilterKind.DATE) and all(dates.values()):
            return {"key": key, "range": {name: date[0] for name, date in dates.items()}}
        return dict(NEVER)
    numbers = {name: bound for name, bound in bounds.items() if not isinstance(bound, str)}
    if kind is FilterKind.INT:
        return _integer_range(key, numbers)
    if kind is FilterKind.FLOAT and numbers:
        return {"key": key, "range": {name: float(bound) for name, bound in numbers.items()}}
    return dict(NEVER)


_TO_LOW = {"gte": math.ceil, "gt": lambda bound: math.floor(bound) + 1}
_TO_HIGH = {"lte": math.floor, "lt": lambda bound: math.ceil(bound) - 1}


def _integer_range(key: str, bounds: Mapping[str, float]) -> Body:
    """Return the condition that a field contains an integer within bounds, exactly.

    Qdrant's bounds are float64; therefore the integers between a bound and the nearest float64 inside the range are
    listed one by one.
    """
    low = max([INT64[0], *(to_low(bounds[name]) for name, to_low in _TO_LOW.items() if name in bounds)])
    high = min([INT64[-1], *(to_high(bounds[name]) for name, to_high in _TO_HIGH.items() if name in bounds)])
    if low > high:
        return dict(NEVER)
    first_float, last_float = _float_at_least(low), -_float_at_least(-high)
    if first_float > last_float:
        return {"key": key, "match": {"any": list(range(low, high + 1))}}
    edges = [*range(low, first_float), *range(last_float + 1, high + 1)]
    inside = _range(key, float(first_float), float(last_float))
    return {"should": [inside, {"key": key, "match": {"any": edges}}]} if edges else inside


def _float_at_least(number: int) -> int:
    """Return the lowest integer from ``number`` that float64 can represent."""
    nearest = float(number)
    return int(nearest if int(nearest) >= number else math.nextafter(nearest, math.inf))

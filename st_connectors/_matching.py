"""Evaluate filters on a payload: the truth table of :mod:`st_connectors.filters` as code."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, assert_never

from st_connectors.filters import And, Eq, Exists, Filter, In, Not, Or, Range, parse_date
from st_connectors.schema import FilterKind

__all__ = ["INT64", "matches", "to_float", "to_int64"]

INT64 = range(-(2**63), 2**63)


def to_int64(value: object) -> int | None:
    """Return the 64-bit integer that equals a number; None for fractions, larger numbers, booleans and other types."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value in INT64 else None


def to_float(value: object) -> float | None:
    """Return a number as a float; None for booleans and other types."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def matches(where: Filter, payload: Mapping[str, Any], filterable: Mapping[str, FilterKind]) -> bool:
    """Return whether a payload passes a filter, by the truth table of :mod:`st_connectors.filters`.

    Values are compared as the declared kind of their field; values of another kind match nothing. Raises KeyError for
    an undeclared field.
    """
    match where:
        case And(parts):
            return all(matches(part, payload, filterable) for part in parts)
        case Or(parts):
            return any(matches(part, payload, filterable) for part in parts)
        case Not(part):
            return not matches(part, payload, filterable)
        case _:
            kind = filterable[where.field]
            values = (_convert(value, kind) for value in _values(payload, where.field))
            return any(value is not None and _passes(where, value, kind) for value in values)


def _passes(where: Eq | In | Range | Exists, converted: Any, kind: FilterKind) -> bool:
    """Return whether a converted value satisfies a single comparison."""
    match where:
        case Eq(_, value):
            return bool(converted == _convert(value, kind))
        case In(_, values):
            return any(converted == _convert(value, kind) for value in values)
        case Range():
            return _within(converted, where, kind)
        case Exists():
            return True
        case _:
            assert_never(where)


def _values(payload: Mapping[str, Any], name: str) -> list[Any]:
    value = payload.get(name)
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _convert(value: object, kind: FilterKind) -> Any:
    """Convert a value to the type in which values of its kind are compared; None for a value of another kind."""
    match kind:
        case FilterKind.KEYWORD:
            return value if isinstance(value, str) else None
        case FilterKind.BOOL:
            return value if isinstance(value, bool) else None
        case FilterKind.INT:
            return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
        case FilterKind.FLOAT:
            return to_float(value)
        case FilterKind.DATE:
            return _date(value)
        case _:
            assert_never(kind)


def _date(value: object) -> Any:
    try:
        return parse_date(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _within(converted: Any, bounds: Range, kind: FilterKind) -> bool:
    tests = ((bounds.gt, operator.gt), (bounds.gte, operator.ge), (bounds.lt, operator.lt), (bounds.lte, operator.le))
    for bound, test in tests:
        if bound is not None:
            limit = _convert(bound, kind)
            if limit is None or not test(converted, limit):
                return False
    return True

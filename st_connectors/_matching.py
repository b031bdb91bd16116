"""What filters mean, evaluated on one payload: the truth table of :mod:`st_connectors.filters` as code."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, assert_never

from st_connectors.filters import And, Eq, Exists, Filter, In, Not, Or, Range, parse_date
from st_connectors.schema import FilterKind

__all__ = ["matches"]


def matches(where: Filter, payload: Mapping[str, Any], filterable: Mapping[str, FilterKind]) -> bool:
    """Whether a payload passes a filter, by the truth table of :mod:`st_connectors.filters`.

    Values are compared as the kind their field is declared with; what is not of that kind matches nothing. Raises KeyError for an
    undeclared field.
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
            values = (_as(value, kind) for value in _values(payload, where.field))
            return any(value is not None and _holds(where, value, kind) for value in values)


def _holds(where: Eq | In | Range | Exists, one: Any, kind: FilterKind) -> bool:
    """Whether one value, in the form of its kind, passes a leaf."""
    match where:
        case Eq(_, value):
            return bool(one == _as(value, kind))
        case In(_, values):
            return any(one == _as(value, kind) for value in values)
        case Range():
            return _within(one, where, kind)
        case Exists():
            return True
        case _:
            assert_never(where)


def _values(payload: Mapping[str, Any], name: str) -> list[Any]:
    value = payload.get(name)
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _as(value: object, kind: FilterKind) -> Any:
    """A value in the form in which its kind is compared, or None where it is not of that kind."""
    match kind:
        case FilterKind.KEYWORD:
            return value if isinstance(value, str) else None
        case FilterKind.BOOL:
            return value if isinstance(value, bool) else None
        case FilterKind.INT:
            return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
        case FilterKind.FLOAT:
            return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
        case FilterKind.DATE:
            return _date(value)
        case _:
            assert_never(kind)


def _date(value: object) -> Any:
    try:
        return parse_date(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _within(one: Any, bounds: Range, kind: FilterKind) -> bool:
    tests = ((bounds.gt, operator.gt), (bounds.gte, operator.ge), (bounds.lt, operator.lt), (bounds.lte, operator.le))
    for bound, test in tests:
        if bound is not None:
            limit = _as(bound, kind)
            if limit is None or not test(one, limit):
                return False
    return True

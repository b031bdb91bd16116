"""Evaluate filters on a payload: the truth table of :mod:`st_connectors.filters` as code."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, assert_never

from st_connectors.filters import And, Eq, Exists, Filter, In, Not, Or, Range, parse_date
from st_connectors.schema import FilterKind

__all__ = ["INT64", "matcher", "matches", "to_float", "to_int64", "values_at"]

INT64 = range(-(2**63), 2**63)


def to_int64(value: object) -> int | None:
    """Return the 64-bit integer that equals a number; None for fractions, larger numbers, booleans and other types."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value in INT64 else None


def to_float(value: object) -> float | None:
    """Return a number as a float; None for booleans and other types."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def values_at(payload: Mapping[str, Any], field: str) -> list[Any]:
    """Return the values of a filterable field: the elements of a list, else the value, or nothing if it is null.

    The field is a key of the payload. If the payload has no such key and the field contains dots, it is a path through
    nested objects: ``meta.year`` is the key ``year`` of the object ``meta``. A path through a list of objects has the
    values of all of them. Each step of a path is one key, or the longest of several keys that exist and contain dots
    themselves.
    """
    if field in payload:
        return _as_list(payload[field])
    return _values_inside(payload, field) if "." in field else []


def _values_inside(value: Mapping[str, Any], path: str) -> list[Any]:
    """Return the values at a path of at least two steps."""
    step, dot, rest = path.rpartition(".")
    while dot:
        if step in value:
            return _values_below(value[step], rest)
        step, dot, last = step.rpartition(".")
        rest = f"{last}.{rest}"
    return []


def _values_below(value: object, path: str) -> list[Any]:
    if isinstance(value, list | tuple):
        return [each for item in value if isinstance(item, Mapping) for each in values_at(item, path)]
    return values_at(value, path) if isinstance(value, Mapping) else []


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def matches(where: Filter, payload: Mapping[str, Any], filterable: Mapping[str, FilterKind]) -> bool:
    """Return whether a payload passes a filter; to test many payloads, call ``matcher`` once."""
    return matcher(where, filterable)(payload)


def matcher(where: Filter, filterable: Mapping[str, FilterKind]) -> Callable[[Mapping[str, Any]], bool]:
    """Return the function that tests payloads by a filter, by the truth table of :mod:`st_connectors.filters`.

    Values are compared as the declared kind of their field; values of another kind match nothing. The time of a test
    does not depend on the number of values of ``In``. Raises KeyError for an undeclared field.
    """
    match where:
        case And(parts):
            return _combine(all, [matcher(part, filterable) for part in parts])
        case Or(parts):
            return _combine(any, [matcher(part, filterable) for part in parts])
        case Not(part):
            test = matcher(part, filterable)
            return lambda payload: not test(payload)
        case _:
            return _leaf(where, filterable[where.field])


def _combine(
    combine: Callable[[Iterable[bool]], bool], tests: Sequence[Callable[[Mapping[str, Any]], bool]]
) -> Callable[[Mapping[str, Any]], bool]:
    return lambda payload: combine(test(payload) for test in tests)


def _leaf(where: Eq | In | Range | Exists, kind: FilterKind) -> Callable[[Mapping[str, Any]], bool]:
    """Return the test of one comparison, which at least one value of the field must pass."""
    passes, name = _comparison(where, kind), where.field

    def test(payload: Mapping[str, Any]) -> bool:
        values = (_convert(value, kind) for value in values_at(payload, name))
        return any(value is not None and passes(value) for value in values)

    return test


def _comparison(where: Eq | In | Range | Exists, kind: FilterKind) -> Callable[[Any], bool]:
    """Return the test of one value, which is not None and converted to the kind of the field."""
    match where:
        case Eq(_, value):
            return _is_one_of((value,), kind)
        case In(_, values):
            return _is_one_of(values, kind)
        case Range():
            return _is_within(where, kind)
        case Exists():
            return lambda _: True
        case _:
            assert_never(where)


def _is_one_of(values: Iterable[object], kind: FilterKind) -> Callable[[Any], bool]:
    # NaN equals nothing, but a set finds it by its identity.
    accepted = {one for value in values if (one := _convert(value, kind)) is not None and one == one}  # noqa: PLR0124
    return frozenset(accepted).__contains__


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


_TESTS: tuple[tuple[str, Callable[[Any, Any], bool]], ...] = (
    ("gt", operator.gt),
    ("gte", operator.ge),
    ("lt", operator.lt),
    ("lte", operator.le),
)


def _is_within(bounds: Range, kind: FilterKind) -> Callable[[Any], bool]:
    limits = [
        (_convert(getattr(bounds, name), kind), test) for name, test in _TESTS if getattr(bounds, name) is not None
    ]
    if any(limit is None for limit, _ in limits):
        return lambda _: False  # no value can be compared with a bound of another kind
    return lambda value: all(test(value, limit) for limit, test in limits)

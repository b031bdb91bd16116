"""Filters to Milvus's boolean expressions; pure. Values go into templates, never into the text, and column names are ours.

Every expression has two values, since no column is null; ``not`` is then the complement on every version. Milvus Lite has no templates: there
the values are written as literals of its grammar, by :func:`rendered`, in the one place that knows how to quote.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

from st_connectors.filters import And, Eq, Exists, Filter, In, Not, Or, Range
from st_connectors.milvus.layout import ID, Kept, above, below, cover, number, token
from st_connectors.schema import FilterKind

__all__ = ["ALWAYS", "NEVER", "Expression", "Values", "after", "both", "expression", "of_ids", "rendered"]

ALWAYS = f'{ID} != ""'
NEVER = f'{ID} == ""'
"""No id is empty."""


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression and the values of its templates."""

    text: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Values:
    """Values as they are met; each gets a name."""

    packed: bool = False
    values: dict[str, Any] = field(default_factory=dict)

    def kept(self, name: str, filterable: Mapping[str, FilterKind]) -> Kept:
        """The columns of a field."""
        return Kept(filterable[name], name, self.packed)

    def bind(self, value: object) -> str:
        """The template that stands for a value."""
        name = f"p{len(self.values)}"
        self.values[name] = value
        return "{" + name + "}"


def expression(where: Filter, filterable: Mapping[str, FilterKind], *, packed: bool = False) -> Expression:
    """A filter on the columns of :mod:`st_connectors.milvus.layout`; raises KeyError for an undeclared field."""
    values = Values(packed)
    return Expression(_condition(where, filterable, values), values.values)


def of_ids(ids: Sequence[str]) -> Expression:
    """The rows of these ids."""
    return Expression(f"{ID} in {{p0}}", {"p0": list(ids)})


def after(last: object, where: Expression, key: str = ID) -> Expression:
    """The rows behind an id that pass a filter."""
    return both(f"{key} > {{last}}", Expression(where.text, {**where.values, "last": last}))


def both(condition: str, where: Expression) -> Expression:
    """A condition of ours and an expression, which may be empty."""
    return Expression(f"{condition} and ({where.text})" if where.text else condition, where.values)


def rendered(given: Expression) -> str:
    """The expression with its values as literals, for Milvus Lite."""
    return re.sub(r"\{(\w+)\}", lambda found: _literal(given.values[found[1]]), given.text)


_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _literal(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float() if math.isfinite(value):
            # repr writes 1e+300 and 5e-324, which Lite's grammar takes; a bare 1e300 has no dot but an exponent, which it takes too.
            return repr(value)
        case str():
            return '"' + re.sub(r'[\\"\n\r\t]', lambda found: _ESCAPES[found[0]], value) + '"'
        case list():
            return "[" + ", ".join(map(_literal, value)) + "]"
        case _:
            raise TypeError(f"{json.dumps(value, default=str)} cannot stand in an expression")


def _condition(where: Filter, filterable: Mapping[str, FilterKind], values: Values) -> str:  # noqa: PLR0911  # one return for each member of the family
    match where:
        case Eq(name, value):
            return _one_of(values.kept(name, filterable), (value,), values)
        case In(name, many):
            return _one_of(values.kept(name, filterable), many, values)
        case Range(name):
            return _within(values.kept(name, filterable), where, values)
        case Exists(name):
            return _exists(values.kept(name, filterable), values)
        case And(parts):
            return _joined(" and ", [_condition(part, filterable, values) for part in parts], ALWAYS)
        case Or(parts):
            return _joined(" or ", [_condition(part, filterable, values) for part in parts], NEVER)
        case Not(part):
            return f"not ({_condition(part, filterable, values)})"
        case _:
            assert_never(where)


def _joined(word: str, parts: Sequence[str], empty: str) -> str:
    return word.join(f"({part})" for part in parts) if parts else empty


def _exists(kept: Kept, values: Values) -> str:
    match kept.kind:
        case FilterKind.KEYWORD:
            return f'{kept.words} != ""' if kept.packed else f"array_length({kept.words}) > 0"
        case FilterKind.BOOL:
            return f"{kept.yes} == true or {kept.no} == true"
        case _:
            span = kept.span
            return f"{kept.low} < {values.bind(span.most)} or {kept.high} > {values.bind(span.least)}"


def _one_of(kept: Kept, given: Sequence[object], values: Values) -> str:
    match kept.kind:
        case FilterKind.KEYWORD:
            words = [value for value in given if isinstance(value, str)]
            if kept.packed:
                return _like(kept.words, [f"{word.encode().hex()}|" for word in words], values)
            return _contains(kept.words, words, values)
        case FilterKind.BOOL:
            columns = [kept.yes if value else kept.no for value in given if isinstance(value, bool)]
            return " or ".join(f"{column} == true" for column in columns) or NEVER
        case _:
            numbers = [one for value in given for one in number(kept.kind, value)]
            if len(numbers) == 1:
                return _between(kept, numbers[0], numbers[0], values)
            return _any_number(kept, numbers, values) if numbers else NEVER


def _contains(column: str, words: Sequence[str], values: Values) -> str:
    """An array has one of these elements."""
    if len(words) == 1:
        return f"array_contains({column}, {values.bind(words[0])})"
    return f"array_contains_any({column}, {values.bind(list(words))})" if words else NEVER


def _like(column: str, starts: Sequence[str], values: Values) -> str:
    """A text of words between bars has one that begins so."""
    return " or ".join(f"{column} like {values.bind(f'%|{start}%')}" for start in starts) or NEVER


def _inner(kept: Kept, prefixes: Sequence[str], values: Values) -> str:
    """Some number between the least and the greatest has one of these prefixes."""
    return (_like if kept.packed else _contains)(kept.inner, prefixes, values)


def _any_number(kept: Kept, numbers: Sequence[float], values: Values) -> str:
    span = kept.span
    if span.least in numbers or span.most in numbers:  # which also stand for "no value"
        return " or ".join(f"({_between(kept, one, one, values)})" for one in numbers)
    listed = values.bind(list(numbers))
    return (
        f"{kept.low} in {listed} or {kept.high} in {listed} or {_inner(kept, [token(one) for one in numbers], values)}"
    )


def _within(kept: Kept, where: Range, values: Values) -> str:
    low, high = kept.span.least, kept.span.most
    bounds: list[tuple[float | str | None, Callable[[float], float], bool]] = [
        (where.gte, lambda bound: bound, True),
        (where.gt, lambda bound: above(kept.kind, bound), True),
        (where.lte, lambda bound: bound, False),
        (where.lt, lambda bound: below(kept.kind, bound), False),
    ]
    for bound, moved, is_low in bounds:
        if bound is None:
            continue
        limit = number(kept.kind, bound)
        if not limit:
            return NEVER
        low, high = (max(low, moved(limit[0])), high) if is_low else (low, min(high, moved(limit[0])))
    return _between(kept, low, high, values) if low <= high else NEVER


def _between(kept: Kept, low: float, high: float, values: Values) -> str:
    """Some number of the field lies from ``low`` to ``high``, both included."""
    span = kept.span
    if low == span.least and high == span.most:
        return _exists(kept, values)
    if high == span.most:
        return f"{kept.high} >= {values.bind(low)}"
    if low == span.least:
        return f"{kept.low} <= {values.bind(high)}"
    least, most = values.bind(low), values.bind(high)
    inside = _inner(kept, cover(low, high), values)
    return (
        f"({kept.low} >= {least} and {kept.low} <= {most}) or ({kept.high} >= {least} and {kept.high} <= {most})"
        f" or ({kept.low} < {least} and {kept.high} > {most} and ({inside}))"
    )

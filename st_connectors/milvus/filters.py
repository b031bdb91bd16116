"""Translate filters to Milvus's boolean expressions.

Values are passed as template parameters, never in the text, and every name in the text is a column name. Milvus Lite
has no templates; for Milvus Lite, :func:`with_literals` writes the values as literals. Values are quoted nowhere else.

The columns of this package are never null, so that ``not`` is the complement on every version. In filters on adopted
collections, negations are pushed down to the columns, because Milvus evaluates the negation of null to null.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

from st_connectors._matching import to_float, to_int64
from st_connectors.filters import And, Eq, Exists, Filter, In, Not, Or, Range
from st_connectors.milvus.columns import (
    ID,
    FilterColumns,
    PrimaryKey,
    Scalar,
    covering_prefixes,
    next_above,
    next_below,
    to_numbers,
    to_token,
)
from st_connectors.schema import FilterKind

__all__ = [
    "ALWAYS",
    "NEVER",
    "AdoptedFilters",
    "Bindings",
    "Expression",
    "conjoin",
    "ids_expression",
    "page_after",
    "to_expression",
    "with_literals",
]

ALWAYS = f'{ID} != ""'
NEVER = f'{ID} == ""'
"""No id is empty."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A boolean expression and its template values by name."""

    text: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bindings:
    """Template values, named in the order of their use."""

    values: dict[str, Any] = field(default_factory=dict)

    def bind(self, value: object) -> str:
        """Add a value and return the template that refers to it, such as ``{p0}``."""
        name = f"p{len(self.values)}"
        self.values[name] = value
        return "{" + name + "}"


def to_expression(where: Filter, filterable: Mapping[str, FilterKind], *, packed: bool = False) -> Expression:
    """Translate a filter to the columns of :class:`FilterColumns`; raise KeyError for an undeclared field."""
    bindings = Bindings()
    columns = {name: FilterColumns(kind, name, packed) for name, kind in filterable.items()}
    return Expression(_condition(where, columns, bindings), bindings.values)


def ids_expression(ids: Sequence[Any], key: str = ID) -> Expression:
    """Return the expression for the rows with these ids."""
    return Expression(f"{key} in {{p0}}", {"p0": list(ids)})


def page_after(last: object, where: Expression, key: str = ID) -> Expression:
    """Return the expression for the rows that pass a filter and whose id is greater than ``last``."""
    return conjoin(f"{key} > {{last}}", Expression(where.text, {**where.values, "last": last}))


def conjoin(condition: str, where: Expression) -> Expression:
    """Return the conjunction of a condition without template values and an expression, which may be empty."""
    return Expression(f"{condition} and ({where.text})" if where.text else condition, where.values)


def with_literals(expression: Expression) -> str:
    """Return the text with its values as literals, for Milvus Lite."""
    return re.sub(r"\{(\w+)\}", lambda match: _literal(expression.values[match[1]]), expression.text)


_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _literal(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float() if math.isfinite(value):
            # repr writes 1e+300 and 5e-324; the grammar of Milvus Lite accepts both, although they have no decimal
            # point.
            return repr(value)
        case str():
            return '"' + re.sub(r'[\\"\n\r\t]', lambda match: _ESCAPES[match[0]], value) + '"'
        case list():
            return "[" + ", ".join(map(_literal, value)) + "]"
        case _:
            raise TypeError(
                "expected a boolean, a finite number, a string or a list in an expression, "
                f"got {json.dumps(value, default=str)}"
            )


def _condition(where: Filter, columns: Mapping[str, FilterColumns], bindings: Bindings) -> str:  # noqa: PLR0911  # one return per filter class
    match where:
        case Eq(name, value):
            return _one_of(columns[name], (value,), bindings)
        case In(name, values):
            return _one_of(columns[name], values, bindings)
        case Range(name):
            return _within(columns[name], where, bindings)
        case Exists(name):
            return _exists(columns[name], bindings)
        case And(parts):
            return _join(" and ", [_condition(part, columns, bindings) for part in parts], ALWAYS)
        case Or(parts):
            return _join(" or ", [_condition(part, columns, bindings) for part in parts], NEVER)
        case Not(part):
            return f"not ({_condition(part, columns, bindings)})"
        case _:
            assert_never(where)


def _join(word: str, parts: Sequence[str], empty: str) -> str:
    return word.join(f"({part})" for part in parts) if parts else empty


def _exists(column: FilterColumns, bindings: Bindings) -> str:
    match column.kind:
        case FilterKind.KEYWORD:
            return f'{column.keywords} != ""' if column.packed else f"array_length({column.keywords}) > 0"
        case FilterKind.BOOL:
            return f"{column.has_true} == true or {column.has_false} == true"
        case _:
            bounds = column.bounds
            low, high = bindings.bind(bounds.highest), bindings.bind(bounds.lowest)
            return f"{column.minimum} < {low} or {column.maximum} > {high}"


def _one_of(column: FilterColumns, values: Sequence[object], bindings: Bindings) -> str:
    match column.kind:
        case FilterKind.KEYWORD:
            words = [value for value in values if isinstance(value, str)]
            if column.packed:
                return _like(column.keywords, [f"{word.encode().hex()}|" for word in words], bindings)
            return _contains(column.keywords, words, bindings)
        case FilterKind.BOOL:
            flags = [column.has_true if value else column.has_false for value in values if isinstance(value, bool)]
            return " or ".join(f"{flag} == true" for flag in flags) or NEVER
        case _:
            numbers = [number for value in values for number in to_numbers(column.kind, value)]
            if len(numbers) == 1:
                return _between(column, numbers[0], numbers[0], bindings)
            return _any_number(column, numbers, bindings) if numbers else NEVER


def _contains(name: str, words: Sequence[str], bindings: Bindings) -> str:
    """Return the condition that an array contains at least one of the words."""
    if len(words) == 1:
        return f"array_contains({name}, {bindings.bind(words[0])})"
    return f"array_contains_any({name}, {bindings.bind(list(words))})" if words else NEVER


def _like(name: str, prefixes: Sequence[str], bindings: Bindings) -> str:
    """Return the condition that a packed text contains a word that starts with one of the prefixes."""
    return " or ".join(f"{name} like {bindings.bind(f'%|{prefix}%')}" for prefix in prefixes) or NEVER


def _any_prefix(column: FilterColumns, prefixes: Sequence[str], bindings: Bindings) -> str:
    """Return the condition that the token of a number between minimum and maximum starts with one of the prefixes."""
    return (_like if column.packed else _contains)(column.between, prefixes, bindings)


def _any_number(column: FilterColumns, numbers: Sequence[float], bindings: Bindings) -> str:
    bounds = column.bounds
    if bounds.lowest in numbers or bounds.highest in numbers:  # rows without a value store these two
        return " or ".join(f"({_between(column, number, number, bindings)})" for number in numbers)
    listed = bindings.bind(list(numbers))
    between = _any_prefix(column, [to_token(number) for number in numbers], bindings)
    return f"{column.minimum} in {listed} or {column.maximum} in {listed} or {between}"


def _within(column: FilterColumns, where: Range, bindings: Bindings) -> str:
    low, high = column.bounds.lowest, column.bounds.highest
    limits: list[tuple[float | str | None, Callable[[float], float], bool]] = [
        (where.gte, lambda limit: limit, True),
        (where.gt, lambda limit: next_above(column.kind, limit), True),
        (where.lte, lambda limit: limit, False),
        (where.lt, lambda limit: next_below(column.kind, limit), False),
    ]
    for limit, shift, is_low in limits:
        if limit is None:
            continue
        numbers = to_numbers(column.kind, limit)
        if not numbers:
            return NEVER
        low, high = (max(low, shift(numbers[0])), high) if is_low else (low, min(high, shift(numbers[0])))
    return _between(column, low, high, bindings) if low <= high else NEVER


def _between(column: FilterColumns, low: float, high: float, bindings: Bindings) -> str:
    """Return the condition that the field contains a number from ``low`` to ``high``, both included."""
    bounds, minimum, maximum = column.bounds, column.minimum, column.maximum
    if low == bounds.lowest and high == bounds.highest:
        return _exists(column, bindings)
    if high == bounds.highest:
        return f"{maximum} >= {bindings.bind(low)}"
    if low == bounds.lowest:
        return f"{minimum} <= {bindings.bind(high)}"
    least, most = bindings.bind(low), bindings.bind(high)
    inside = _any_prefix(column, covering_prefixes(low, high), bindings)
    return (
        f"({minimum} >= {least} and {minimum} <= {most}) or ({maximum} >= {least} and {maximum} <= {most})"
        f" or ({minimum} < {least} and {maximum} > {most} and ({inside}))"
    )


@dataclass(frozen=True, slots=True)
class AdoptedFilters:
    """Filters on an adopted collection; a field without a column is a key of the dynamic field."""

    key: PrimaryKey
    scalars: Mapping[str, Scalar]
    filterable: Mapping[str, FilterKind]

    def to_expression(self, where: Filter) -> Expression:
        """Translate a filter; raise ValueError for a range on an array."""
        bindings = Bindings()
        return Expression(self._condition(where, bindings, negated=False), bindings.values)

    def _condition(self, where: Filter, bindings: Bindings, *, negated: bool) -> str:
        match where:
            case Not(part):
                return self._condition(part, bindings, negated=not negated)
            case And(parts) | Or(parts):
                is_and = isinstance(where, And) is not negated
                if not parts:
                    return self._constant(bindings, is_and)
                conditions = [f"({self._condition(part, bindings, negated=negated)})" for part in parts]
                return (" and " if is_and else " or ").join(conditions)
            case Eq() | In() | Range() | Exists():
                condition = self._leaf(where, bindings)
                if condition is None:
                    return self._constant(bindings, negated)
                return self._negate(where, condition) if negated else condition
            case _:
                assert_never(where)

    def _constant(self, bindings: Bindings, truth: bool) -> str:
        text = self.key.always if truth else self.key.never
        for value in self.key.values.values():
            text = text.replace("{p0}", bindings.bind(value))
        return text

    def _negate(self, where: Eq | In | Range | Exists, condition: str) -> str:
        scalar = self.scalars.get(where.field)
        if scalar is None:
            return f"not exists {where.field} or not ({condition})"
        return f"{where.field} is null or not ({condition})" if scalar.nullable else f"not ({condition})"

    def _leaf(self, where: Eq | In | Range | Exists, bindings: Bindings) -> str | None:
        """Return a comparison, or None if no row can pass."""
        name, scalar = where.field, self.scalars.get(where.field)
        kind = self.filterable[name]
        match where:
            case Exists():
                if scalar is None:
                    return f"exists {name}"
                return f"array_length({name}) > 0" if scalar.is_array else f"{name} is not null"
            case Eq(_, value):
                return _equals_any(name, scalar, _comparable(kind, [value]), bindings)
            case In(_, values):
                return _equals_any(name, scalar, _comparable(kind, values), bindings)
            case Range(_, gt, gte, lt, lte):
                if scalar is not None and scalar.is_array:
                    raise ValueError(f"Milvus has no ranges over arrays such as {name!r}; use Eq, In or Exists")
                bounds = [(">", gt), (">=", gte), ("<", lt), ("<=", lte)]
                parts = [f"{name} {sign} {bindings.bind(bound)}" for sign, bound in bounds if bound is not None]
                return " and ".join(parts)


def _equals_any(name: str, scalar: Scalar | None, values: Sequence[Any], bindings: Bindings) -> str | None:
    if not values:
        return None
    if scalar is not None and scalar.is_array:
        return f"array_contains_any({name}, {bindings.bind(list(values))})"
    if scalar is not None:
        many = len(values) > 1
        return f"{name} in {bindings.bind(list(values))}" if many else f"{name} == {bindings.bind(values[0])}"
    # A key of the dynamic field may contain anything, lists included.
    bound = [bindings.bind(value) for value in values]
    return " or ".join(f"{name} == {each} or json_contains({name}, {each})" for each in bound)


def _comparable(kind: FilterKind, values: Iterable[object]) -> list[Any]:
    """Return the values that a field of this kind can equal, converted to the type of the field."""
    match kind:
        case FilterKind.KEYWORD:
            return [value for value in values if isinstance(value, str)]
        case FilterKind.BOOL:
            return [value for value in values if isinstance(value, bool)]
        case _:
            convert = to_float if kind is FilterKind.FLOAT else to_int64
            return [number for value in values if (number := convert(value)) is not None]

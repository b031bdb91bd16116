"""Convert filters to queries.

On the typed copies that ``OwnLayout`` writes, the queries follow the truth table of :mod:`st_connectors.filters`
exactly.
"""

from __future__ import annotations

from typing import Any, assert_never

from st_connectors._clauses import flatten, merge_values
from st_connectors._lucene.layout import Body, Layout
from st_connectors.filters import And, Eq, Exists, Filter, In, Not, Or, Range

__all__ = ["EVERYTHING", "NOTHING", "filter_query"]

EVERYTHING: Body = {"match_all": {}}
NOTHING: Body = {"match_none": {}}
_MOST_TERMS = 65_536
"""The maximum number of values in one ``terms`` query, ``index.max_terms_count``."""


def filter_query(where: Filter, layout: Layout) -> Body:  # noqa: PLR0911  # one return for each member of the family
    """Return a filter as a query for filter context; its fields must be filterable fields of the schema."""
    match where:
        case Eq(field, value):
            return _one_of(layout, field, (value,))
        case In(field, values):
            return _one_of(layout, field, values)
        case Range():
            return _within(layout, where)
        case Exists(field):
            return {"exists": {"field": layout.filter(field)}}
        case And(parts):
            return _all(parts, layout)
        case Or(parts):
            return _any([filter_query(part, layout) for part in merge_values(flatten(parts, Or))])
        case Not(Not(part)):
            return filter_query(part, layout)
        case Not(part):
            return {"bool": {"must_not": [filter_query(part, layout)]}}
        case _:
            assert_never(where)


def _all(parts: tuple[Filter, ...], layout: Layout) -> Body:
    flat = flatten(parts, And)  # the engines accept only 20 or 30 levels of nesting
    positive = [filter_query(part, layout) for part in flat if not isinstance(part, Not)]
    negative = [filter_query(part.part, layout) for part in flat if isinstance(part, Not)]
    if not negative:
        return positive[0] if len(positive) == 1 else {"bool": {"filter": positive}} if positive else dict(EVERYTHING)
    return {"bool": {"filter": positive, "must_not": negative}} if positive else {"bool": {"must_not": negative}}


def _any(queries: list[Body]) -> Body:
    if not queries:
        return dict(NOTHING)
    return queries[0] if len(queries) == 1 else {"bool": {"should": queries, "minimum_should_match": 1}}


def _one_of(layout: Layout, field: str, values: tuple[object, ...]) -> Body:
    """Return a query for documents whose field has one of the values."""
    path, kind = layout.filter(field), layout.filterable[field]
    terms: list[Any] = [term for value in values for term in layout.typed(kind, value)]
    if len(terms) == 1:
        return {"term": {path: {"value": terms[0]}}}
    return _any([{"terms": {path: terms[at : at + _MOST_TERMS]}} for at in range(0, len(terms), _MOST_TERMS)])


def _within(layout: Layout, where: Range) -> Body:
    kind = layout.filterable[where.field]
    bounds: Body = {}
    for name in ("gt", "gte", "lt", "lte"):
        bound = getattr(where, name)
        if bound is None:
            continue
        typed = layout.typed(kind, bound)
        if not typed:
            return dict(NOTHING)  # no value can be compared with a bound of another type
        bounds[name] = typed[0]
    return {"range": {layout.filter(where.field): bounds}}

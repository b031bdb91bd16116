"""Filters as queries, exact by the truth table of :mod:`st_connectors.filters` on the typed copies of ``Hidden``."""

from __future__ import annotations

from typing import Any, assert_never

from st_connectors._lucene.layout import Body, Layout
from st_connectors.filters import And, Eq, Exists, Filter, FilterValue, In, Not, Or, Range

__all__ = ["EVERYTHING", "NOTHING", "filter_query"]

EVERYTHING: Body = {"match_all": {}}
NOTHING: Body = {"match_none": {}}
_MOST_TERMS = 65_536
"""``index.max_terms_count``: values that one ``terms`` query takes."""


def filter_query(where: Filter, layout: Layout) -> Body:  # noqa: PLR0911  # one return for each member of the family
    """A filter as a query for filter context; its fields must be declared, which *guarded* has seen to."""
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
            return _any([filter_query(part, layout) for part in _gathered(_flat(parts, Or))])
        case Not(Not(part)):
            return filter_query(part, layout)
        case Not(part):
            return {"bool": {"must_not": [filter_query(part, layout)]}}
        case _:
            assert_never(where)


def _flat(parts: tuple[Filter, ...], kind: type[And | Or]) -> list[Filter]:
    """Parts with those of the same kind opened up, since engines nest only 20 or 30 deep."""
    flat: list[Filter] = []
    for part in parts:
        flat += _flat(part.parts, kind) if isinstance(part, And | Or) and isinstance(part, kind) else [part]
    return flat


def _gathered(parts: list[Filter]) -> list[Filter]:
    """Equalities of one field as one ``In``: each clause counts towards OpenSearch's 1,024, values do not."""
    values: dict[str, list[FilterValue]] = {}
    others: list[Filter] = []
    for part in parts:
        match part:
            case Eq(field, value):
                values.setdefault(field, []).append(value)
            case In(field, several):
                values.setdefault(field, []).extend(several)
            case _:
                others.append(part)
    return [*(In(field, tuple(kept)) for field, kept in values.items()), *others]


def _all(parts: tuple[Filter, ...], layout: Layout) -> Body:
    flat = _flat(parts, And)
    holds = [filter_query(part, layout) for part in flat if not isinstance(part, Not)]
    fails = [filter_query(part.part, layout) for part in flat if isinstance(part, Not)]
    if not fails:
        return holds[0] if len(holds) == 1 else {"bool": {"filter": holds}} if holds else dict(EVERYTHING)
    return {"bool": {"filter": holds, "must_not": fails}} if holds else {"bool": {"must_not": fails}}


def _any(queries: list[Body]) -> Body:
    if not queries:
        return dict(NOTHING)
    return queries[0] if len(queries) == 1 else {"bool": {"should": queries, "minimum_should_match": 1}}


def _one_of(layout: Layout, field: str, values: tuple[object, ...]) -> Body:
    """The field holds one of these values."""
    path, kind = layout.filter(field), layout.filterable[field]
    kept: list[Any] = [one for value in values for one in layout.typed(kind, value)]
    if len(kept) == 1:
        return {"term": {path: {"value": kept[0]}}}
    return _any([{"terms": {path: kept[at : at + _MOST_TERMS]}} for at in range(0, len(kept), _MOST_TERMS)])


def _within(layout: Layout, where: Range) -> Body:
    kind = layout.filterable[where.field]
    bounds: Body = {}
    for name in ("gt", "gte", "lt", "lte"):
        bound = getattr(where, name)
        if bound is None:
            continue
        kept = layout.typed(kind, bound)
        if not kept:
            return dict(NOTHING)  # a bound of another kind is beyond comparison
        bounds[name] = kept[0]
    return {"range": {layout.filter(where.field): bounds}}

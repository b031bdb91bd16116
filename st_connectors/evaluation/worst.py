"""The queries that went worst: what came first, what was wanted, and which leg lost it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from st_connectors.evaluation.evaluating import Variant, search_run
from st_connectors.schema import kind_of

if TYPE_CHECKING:
    from st_connectors.evaluation.evaluating import RunResult
    from st_connectors.evaluation.judged import Judged
    from st_connectors.index import Index

__all__ = ["Lost", "Worst", "leg_variants", "worst_queries"]

FOUND = 3
"""The number of first hits that are shown."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A relevant document: its grade, its rank in the run and in each leg (None if it is not there), and the reason."""

    id: str
    text: str
    grade: float
    rank: int | None
    legs: Mapping[str, int | None]
    reason: str


@dataclass(frozen=True, slots=True)
class Worst:
    """A query with its value, the first hits with their texts and grades, and the relevant documents."""

    id: str
    query: str
    value: float
    found: tuple[tuple[str, str, float], ...]
    wanted: tuple[Lost, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def leg_variants(index: Index) -> list[Variant]:
    """Return a variant for each kind of leg of a collection, named after it."""
    kinds = dict.fromkeys(kind_of(field).value for field in index.schema.fields.values())
    return [Variant(kind, index, {"mode": kind}) for kind in kinds]


def worst_queries(
    variant: Variant, result: RunResult, judged: Judged, *, measure: str, count: int = 10, depth: int = 100
) -> list[Worst]:
    """Return the queries of the lowest values of a measure, the lowest first.

    The legs of the collection are searched for these queries once more, ``depth`` documents deep, with the filter and
    the effort of the variant.
    """
    shared = {name: variant.options[name] for name in ("where", "effort") if name in variant.options}
    values = result.per_query[measure]
    queries = list(judged.queries)
    order = np.lexsort((np.arange(values.size), values))[:count]
    chosen = judged.part(queries[place] for place in order)
    legs = {
        each.name: search_run(replace(each, options={**each.options, **shared}), chosen.queries, depth).rankings
        for each in leg_variants(variant.index)
        if chosen.queries
    }
    return [
        _worst(query, variant.index, result, chosen, {name: _ranks(each[query]) for name, each in legs.items()}, value)
        for query, value in zip(chosen.queries, values[order].tolist(), strict=True)
    ]


def _worst(  # noqa: PLR0917 - all that is known of a query
    query: str,
    index: Index,
    result: RunResult,
    judged: Judged,
    legs: Mapping[str, Mapping[str, int]],
    value: float,
) -> Worst:
    ranks, grades = _ranks(result.run.rankings[query]), judged.grades[query]
    first = list(ranks)[:FOUND]
    relevant = sorted((document for document, grade in grades.items() if grade > 0), key=lambda each: -grades[each])
    texts = _texts(index, [*first, *relevant])
    return Worst(
        query,
        judged.queries[query],
        value,
        tuple((each, texts.get(each, ""), grades.get(each, 0.0)) for each in first),
        tuple(_lost(each, texts.get(each, ""), grades[each], ranks.get(each), legs) for each in relevant),
    )


def _lost(document: str, text: str, grade: float, rank: int | None, legs: Mapping[str, Mapping[str, int]]) -> Lost:
    places = {name: ranks.get(document) for name, ranks in legs.items()}
    return Lost(document, text, grade, rank, places, _reason(rank, places))


def _reason(rank: int | None, legs: Mapping[str, int | None]) -> str:
    """Return which part of a search a document was lost by, or how far it came."""
    present = {name: place for name, place in legs.items() if place is not None}
    if not present:
        return f"no leg returns it: {', '.join(legs)}"
    best = min(present, key=lambda name: present[name])
    missing = [name for name in legs if name not in present]
    if rank is not None and rank <= present[best]:
        return "returned" if not missing else f"returned, but not by {' and '.join(missing)}"
    result = "the result does not have it" if rank is None else f"the result ranks it {rank}"
    if missing:
        return f"lost by {' and '.join(missing)}: {best} ranks it {present[best]}, {result}"
    if len(legs) == 1:
        return f"lost by what follows the leg: {best} ranks it {present[best]}, {result}"
    return f"lost by the fusion: {best} ranks it {present[best]}, {result}"


def _ranks(ranking: Sequence[tuple[str, float]]) -> dict[str, int]:
    return {document: rank for rank, (document, _) in enumerate(ranking, 1)}


def _texts(index: Index, ids: Sequence[str]) -> dict[str, str]:
    from st_connectors.chunks import parent_of

    records = index.get(list(dict.fromkeys(ids)))
    return {parent_of(each.id, each.payload): str(each.payload.get(index.text_key, "")) for each in records}

"""Turns a hybrid request into its legs, fuses their answers, and cuts the page out; the reference for every store's own fusion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from st_connectors.filters import Filter
from st_connectors.fusion import fuse
from st_connectors.schema import DenseField, Fusion, FusionMethod, Metric, Rrf, Schema
from st_connectors.store import (
    Capabilities,
    Fuse,
    Hit,
    Leg,
    LegHit,
    Match,
    Near,
    Parts,
    Record,
    Rejected,
    SearchRequest,
    Store,
)
from st_core.vectors import SparseVector

__all__ = ["fusing"]

_CONTENT = Parts.PAYLOAD | Parts.VECTORS


def fusing(store: Store) -> Store:
    """The same store, which also takes ``Fuse`` and fills ``Hit.legs``.

    All legs of all requests go to the store in one ``search``. Where that is less to move, legs are asked for ids and scores only, and the content of
    the final page is read by id in one more call: a record deleted in between is then left out, and one replaced in between comes with its
    new payload. A store's own fusion is used where it is declared and leg ranks are not asked for.
    """
    return _Fusing(store)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What of the flat list of store requests answers one request: ``at`` counts into it, None for a leg that cannot match anything."""

    request: SearchRequest
    at: tuple[int | None, ...]
    late: bool = False
    native: bool = False


class _Fusing:
    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def schema(self) -> Schema:
        return self._store.schema

    @property
    def capabilities(self) -> Capabilities:
        return self._store.capabilities

    def create(self) -> None:
        self._store.create()

    def drop(self) -> None:
        self._store.drop()

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        return self._store.upsert(records)

    def delete(self, ids: Sequence[str]) -> None:
        self._store.delete(ids)

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        return self._store.get(ids, parts=parts)

    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        schema, can = self._store.schema, self._store.capabilities
        sent: list[SearchRequest] = []
        plans = [_plan(request, schema, can, sent) for request in requests]
        answers = self._store.search(sent)
        pages = [_page(plan, answers) for plan in plans]
        self._fill(plans, pages)
        return pages

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        return self._store.scan(where=where, parts=parts, batch=batch)

    def count(self, where: Filter | None = None) -> int:
        return self._store.count(where)

    def refresh(self) -> None:
        self._store.refresh()

    def close(self) -> None:
        self._store.close()

    def _fill(self, plans: Sequence[_Plan], pages: list[list[Hit]]) -> None:
        """Put payloads and vectors into the pages that were searched without them."""
        wanted = Parts.NONE
        ids: dict[str, None] = {}
        for plan, page in zip(plans, pages, strict=True):
            if plan.late:
                wanted |= plan.request.parts & _CONTENT
                ids.update(dict.fromkeys(hit.id for hit in page))
        if not ids:
            return
        found = {record.id: record for record in self._store.get(list(ids), parts=wanted)}
        for at, plan in enumerate(plans):
            if plan.late:
                pages[at] = [
                    _with_content(hit, found[hit.id], plan.request.parts) for hit in pages[at] if hit.id in found
                ]


def _plan(request: SearchRequest, schema: Schema, can: Capabilities, sent: list[SearchRequest]) -> _Plan:
    """Append to ``sent`` what the store is to be asked for a request."""
    rank = request.rank
    if not isinstance(rank, Fuse):
        if _matches_nothing(rank, schema):
            return _Plan(request, (None,))
        sent.append(replace(request, parts=request.parts & _CONTENT))
        return _Plan(request, (len(sent) - 1,))
    empty = [_matches_nothing(leg, schema) for leg in rank.legs]
    if Parts.LEGS not in request.parts and not any(empty) and _fuses(can, rank):
        sent.append(replace(request, parts=request.parts & _CONTENT))
        return _Plan(request, (len(sent) - 1,), native=True)
    late = bool(request.parts & _CONTENT) and len(rank.legs) * rank.depth > 2 * request.limit
    parts = Parts.NONE if late else request.parts & _CONTENT
    at: list[int | None] = []
    for leg, nothing in zip(rank.legs, empty, strict=True):
        at.append(None if nothing else len(sent))
        if not nothing:
            sent.append(replace(request, rank=leg, limit=rank.depth, offset=0, parts=parts))
    return _Plan(request, tuple(at), late)


def _fuses(can: Capabilities, rank: Fuse) -> bool:
    """Whether the store itself does what a fusion asks for."""
    most_legs, most_terms = can.max_fused_legs, can.max_query_terms
    return (
        _method(rank.method) in can.fusion
        and all(rank.method.weights or ())  # a leg of weight 0 takes no part, and what only it holds must not be found
        and len(rank.legs) > 1
        and (most_legs is None or len(rank.legs) <= most_legs)
        and (most_terms is None or sum(map(_terms, rank.legs)) <= most_terms)
    )


def _terms(leg: Leg) -> int:
    """How many sparse terms a leg has."""
    return len(leg.vector) if isinstance(leg, Near) and isinstance(leg.vector, SparseVector) else 0


def _matches_nothing(leg: Leg, schema: Schema) -> bool:
    """Whether a leg finds nothing whatever is stored: no terms, or a direction asked for and none given."""
    match leg:
        case Match(_, text):
            return not text.strip()
        case Near(_, SparseVector() as vector):
            return len(vector) == 0
        case Near(name, vector):
            field = schema.fields.get(name)
            return isinstance(field, DenseField) and field.metric is Metric.COSINE and not np.any(np.asarray(vector))


def _method(method: Fusion) -> FusionMethod:
    if isinstance(method, Rrf):
        return FusionMethod.RRF if method.weights is None else FusionMethod.RRF_WEIGHTED
    return FusionMethod.WEIGHTED


def _page(plan: _Plan, answers: Sequence[list[Hit]]) -> list[Hit]:
    """The hits of one request from the store's answers."""
    request, rank = plan.request, plan.request.rank
    legs = [[] if at is None else answers[at] for at in plan.at]
    with_legs = Parts.LEGS in request.parts
    if not isinstance(rank, Fuse):
        if not with_legs:
            return legs[0]
        start = request.offset + 1
        return [replace(hit, legs=(LegHit(0, rank.field, at, hit.score),)) for at, hit in enumerate(legs[0], start)]
    if plan.native:
        return legs[0]
    return _fused(request, rank, legs, with_legs=with_legs)


def _fused(request: SearchRequest, rank: Fuse, legs: Sequence[Sequence[Hit]], *, with_legs: bool) -> list[Hit]:
    scores = [{hit.id: hit.score for hit in leg} for leg in legs]
    content = {hit.id: hit for leg in legs for hit in leg}
    order = fuse(scores, rank.method)[request.offset : request.offset + request.limit]
    places = _places(rank, legs) if with_legs else {}
    return [replace(content[key], score=score, legs=places.get(key, ())) for key, score in order]


def _places(rank: Fuse, legs: Sequence[Sequence[Hit]]) -> Mapping[str, tuple[LegHit, ...]]:
    """By id, where each leg had it."""
    places: dict[str, tuple[LegHit, ...]] = {}
    for number, (leg, hits) in enumerate(zip(rank.legs, legs, strict=True)):
        for at, hit in enumerate(hits, 1):
            places[hit.id] = (*places.get(hit.id, ()), LegHit(number, leg.field, at, hit.score))
    return places


def _with_content(hit: Hit, record: Record, parts: Parts) -> Hit:
    payload = record.payload if Parts.PAYLOAD in parts else {}
    vectors = record.vectors if Parts.VECTORS in parts else {}
    return replace(hit, payload=payload, vectors=vectors)

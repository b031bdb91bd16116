"""Split hybrid requests into legs, fuse their hits and return one page; the reference for fusion in stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from st_connectors.filters import Filter
from st_connectors.fusion import fuse
from st_connectors.layers.limits import count_clauses, count_terms, term_room
from st_connectors.layers.passing import Passing
from st_connectors.schema import Fusion, FusionMethod, Rrf, Schema
from st_connectors.store import (
    Capabilities,
    Fuse,
    Hit,
    LegHit,
    Parts,
    Record,
    SearchRequest,
    Store,
    is_empty_leg,
)

__all__ = ["fusing"]

_CONTENT = Parts.PAYLOAD | Parts.VECTORS


def fusing(store: Store) -> Store:
    """Return a store that also accepts ``Fuse`` and fills ``Hit.legs``.

    All legs of all requests are sent to ``store`` in one ``search``, except legs that cannot match. If that transfers
    less data, the legs return ids and scores only, and one ``get`` reads the content of the final page; a record that
    is deleted in between is omitted, and a record that is replaced in between has its new payload. The fusion of the
    store is used if its capabilities declare it and the request does not ask for ``Parts.LEGS``.
    """
    return _Fusing(store)


@dataclass(frozen=True, slots=True)
class _Plan:
    """The store requests that are necessary for one request.

    ``sent`` contains their positions in the batch, and None for a leg that cannot match. ``is_late`` states whether the
    content of the page is read by id afterwards, and ``is_native`` whether the store fuses the legs itself.
    """

    request: SearchRequest
    sent: tuple[int | None, ...]
    is_late: bool = False
    is_native: bool = False


class _Fusing(Passing):
    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        schema, capabilities = self.store.schema, self.store.capabilities
        batch: list[SearchRequest] = []
        plans = [_plan(request, schema, capabilities, batch) for request in requests]
        answers = self.store.search(batch)
        pages = [_page(plan, answers) for plan in plans]
        self._fill(plans, pages)
        return pages

    def _fill(self, plans: Sequence[_Plan], pages: list[list[Hit]]) -> None:
        """Add payloads and vectors to the pages whose searches returned ids and scores only."""
        parts = Parts.NONE
        ids: dict[str, None] = {}
        for plan, page in zip(plans, pages, strict=True):
            if plan.is_late:
                parts |= plan.request.parts & _CONTENT
                ids.update(dict.fromkeys(hit.id for hit in page))
        if not ids:
            return
        records = {record.id: record for record in self.store.get(list(ids), parts=parts)}
        for at, plan in enumerate(plans):
            if plan.is_late:
                pages[at] = [
                    _with_content(hit, records[hit.id], plan.request.parts) for hit in pages[at] if hit.id in records
                ]


def _plan(request: SearchRequest, schema: Schema, capabilities: Capabilities, batch: list[SearchRequest]) -> _Plan:
    """Plan one request, and append the store requests that it requires to ``batch``."""
    rank = request.rank
    if not isinstance(rank, Fuse):
        if is_empty_leg(rank, schema.fields.get(rank.field)):
            return _Plan(request, (None,))
        batch.append(replace(request, parts=request.parts & _CONTENT))
        return _Plan(request, (len(batch) - 1,))
    empty = [is_empty_leg(leg, schema.fields.get(leg.field)) for leg in rank.legs]
    if Parts.LEGS not in request.parts and not any(empty) and _can_fuse(capabilities, rank, request.where):
        batch.append(replace(request, parts=request.parts & _CONTENT))
        return _Plan(request, (len(batch) - 1,), is_native=True)
    is_late = bool(request.parts & _CONTENT) and len(rank.legs) * rank.depth > 2 * request.limit
    parts = Parts.NONE if is_late else request.parts & _CONTENT
    sent: list[int | None] = []
    for leg, is_empty in zip(rank.legs, empty, strict=True):
        sent.append(None if is_empty else len(batch))
        if not is_empty:
            batch.append(replace(request, rank=leg, limit=rank.depth, offset=0, parts=parts))
    return _Plan(request, tuple(sent), is_late)


def _can_fuse(capabilities: Capabilities, rank: Fuse, where: Filter | None) -> bool:
    """Return whether the store itself can fuse these legs by this method."""
    max_legs, room = capabilities.max_fused_legs, term_room(capabilities, where)
    others = count_clauses(where) * (len(rank.legs) - 1)  # each leg contains the filter, and the room is for one leg
    return (
        _method(rank.method) in capabilities.fusion
        and all(rank.method.weights or ())  # a leg of weight 0 is ignored: records that only it matches are not hits
        and len(rank.legs) > 1
        and (max_legs is None or len(rank.legs) <= max_legs)
        and (room is None or sum(map(count_terms, rank.legs)) + others <= room)
    )


def _method(fusion: Fusion) -> FusionMethod:
    if isinstance(fusion, Rrf):
        return FusionMethod.RRF if fusion.weights is None else FusionMethod.RRF_WEIGHTED
    return FusionMethod.WEIGHTED


def _page(plan: _Plan, answers: Sequence[list[Hit]]) -> list[Hit]:
    """Build the hits of one request from the store's answers."""
    request, rank = plan.request, plan.request.rank
    legs = [[] if at is None else answers[at] for at in plan.sent]
    with_legs = Parts.LEGS in request.parts
    if not isinstance(rank, Fuse):
        if not with_legs:
            return legs[0]
        start = request.offset + 1
        return [replace(hit, legs=(LegHit(0, rank.field, at, hit.score),)) for at, hit in enumerate(legs[0], start)]
    if plan.is_native:
        return legs[0]
    return _fuse(request, rank, legs, with_legs=with_legs)


def _fuse(request: SearchRequest, rank: Fuse, legs: Sequence[Sequence[Hit]], *, with_legs: bool) -> list[Hit]:
    scores = [{hit.id: hit.score for hit in leg} for leg in legs]
    content = {hit.id: hit for leg in legs for hit in leg}
    order = fuse(scores, rank.method)[request.offset : request.offset + request.limit]
    leg_hits = _leg_hits(rank, legs) if with_legs else {}
    return [replace(content[key], score=score, legs=leg_hits.get(key, ())) for key, score in order]


def _leg_hits(rank: Fuse, legs: Sequence[Sequence[Hit]]) -> Mapping[str, tuple[LegHit, ...]]:
    """Map each id to its rank and score in every leg that matched it."""
    leg_hits: dict[str, tuple[LegHit, ...]] = {}
    for number, (leg, hits) in enumerate(zip(rank.legs, legs, strict=True)):
        for at, hit in enumerate(hits, 1):
            leg_hits[hit.id] = (*leg_hits.get(hit.id, ()), LegHit(number, leg.field, at, hit.score))
    return leg_hits


def _with_content(hit: Hit, record: Record, parts: Parts) -> Hit:
    payload = record.payload if Parts.PAYLOAD in parts else {}
    vectors = record.vectors if Parts.VECTORS in parts else {}
    return replace(hit, payload=payload, vectors=vectors)

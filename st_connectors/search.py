"""Encode text queries, search each leg, optionally rerank."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from st_connectors.arguments import set_ints
from st_connectors.chunks import CHUNK_KEY, parent_of, window_id
from st_connectors.errors import ModelWarning
from st_connectors.explaining import LegExplanation, Term, describe_legs, highlights_of, matched_terms
from st_connectors.fusion import check_fusion, check_weights
from st_connectors.highlight import Highlight
from st_connectors.layers.limits import Fitted, fit
from st_connectors.schema import FieldKind, Fusion, Rrf, Schema, fusion_to_json, kind_of
from st_connectors.store import (
    Default,
    Effort,
    Fuse,
    Hit,
    Leg,
    LegHit,
    Match,
    Near,
    Parts,
    SearchRequest,
    Store,
    is_empty_vector,
)
from st_connectors.vectorise import FieldEncoder

if TYPE_CHECKING:
    from st_connectors.filters import Filter
    from st_core.protocols import Reranker

__all__ = ["Highlight", "LegExplanation", "Mode", "SearchHit", "SearchOptions", "SearchResult", "Term", "search"]


class Mode(StrEnum):
    """The legs of a search."""

    DENSE = "dense"
    SPARSE = "sparse"
    TEXT = "text"
    HYBRID = "hybrid"
    """Every leg of the collection."""


@dataclass(frozen=True, slots=True, eq=False)
class SearchHit:
    """One result; ``score`` is the score of the reranker if there is one, else of the fusion or of the single leg.

    ``legs`` contains the rank and score in each leg, ``retrieved`` is the score before reranking, and ``terms`` are the
    shared terms with the largest contributions if the hit is explained. ``highlights`` are the parts of the text that
    matched in sparse and text legs, if they were requested. ``score`` is NaN if the reranker gave NaN, or if there was
    no text to rerank; such hits are last.
    """

    id: str
    score: float
    payload: Mapping[str, Any] = field(default_factory=dict)
    legs: tuple[LegHit, ...] = ()
    retrieved: float | None = None
    terms: tuple[Term, ...] = ()
    highlights: tuple[Highlight, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON; ``retrieved``, ``terms`` and ``highlights`` only if the hit has them."""
        value: dict[str, Any] = {
            "id": self.id,
            "score": None if math.isnan(self.score) else self.score,
            "payload": self.payload,
            "legs": {leg.field: {"rank": leg.rank, "score": leg.score} for leg in self.legs},
        }
        if self.retrieved is not None:
            value["retrieved"] = self.retrieved
        if self.terms:
            value["terms"] = [{"field": t.field, "term": t.term, "weight": t.weight} for t in self.terms]
        if self.highlights:
            value["highlights"] = [each.to_json() for each in self.highlights]
        return value


@dataclass(frozen=True, slots=True, eq=False)
class SearchResult(Sequence[SearchHit]):
    """The hits of one query, best first.

    ``legs`` describes each leg of an explained search, and ``fusion`` is the fusion of several legs.
    ``notes`` state what the limits of the store left out: query terms, or hits beyond its reach.
    """

    query: str
    hits: tuple[SearchHit, ...]
    legs: tuple[LegExplanation, ...] = ()
    fusion: Fusion | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.hits)

    def __getitem__(self, key: Any) -> Any:
        return self.hits[key]

    def __iter__(self) -> Iterator[SearchHit]:
        return iter(self.hits)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON; ``legs`` and ``fusion`` of an explained search, ``notes`` if there are any."""
        value: dict[str, Any] = {"query": self.query, "hits": [hit.to_json() for hit in self.hits]}
        if self.legs:
            value |= {"legs": [leg.to_json() for leg in self.legs], "fusion": fusion_to_json(self.fusion)}
        if self.notes:
            value["notes"] = list(self.notes)
        return value


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """The options of a search.

    A ``mode`` of None means hybrid if the collection has several legs. A ``fusion`` of None means the fusion of the
    collection, or ``Rrf()`` if it has none. ``depth`` is the number of candidates of each leg, and of candidates that a
    reranker scores; it is raised to ``offset + limit`` if that is greater. ``fold`` returns each document once, under
    its own id, with the score of its best window. ``fields`` are the fields to search, in order; None means all.
    ``min_score`` omits hits whose final score is lower, before the page is cut. ``explain`` adds the terms that matched
    and descriptions of the legs, and ``highlight`` the parts of texts that matched; both read the sparse vectors of the
    hits.
    ``shorten`` leaves out query terms beyond the number that the store allows, instead of raising ``Unsupported``.
    """

    mode: Mode | None = None
    limit: int = 10
    offset: int = 0
    where: Filter | None = None
    fusion: Fusion | None = None
    depth: int = 100
    effort: Effort = field(default_factory=Default)
    explain: bool = False
    fold: bool = False
    text_key: str = "text"
    fields: tuple[str, ...] | None = None
    min_score: float | None = None
    highlight: bool = False
    shorten: bool = True

    def __post_init__(self) -> None:
        set_ints(self, {"limit": 1, "offset": 0, "depth": 1})
        if self.fusion is not None:
            check_fusion(self.fusion)
        if self.min_score is not None:
            _check_score(self.min_score)

    @property
    def window(self) -> int:
        """The number of hits from which the page is cut."""
        return self.offset + self.limit


def _check_score(value: object) -> None:
    """Raise an error unless ``min_score`` is a number that scores can be compared with."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"min_score must be a number, not {value!r}")
    if math.isnan(float(value)):
        raise ValueError("min_score must be a number that scores can be compared with, not NaN")


def search(
    store: Store,
    encoders: Sequence[FieldEncoder],
    queries: Sequence[str],
    options: SearchOptions,
    reranker: Reranker | None = None,
) -> list[SearchResult]:
    """Return the results of queries, in order, from one search of the store.

    Folded results may need more searches. Raises ValueError for a mode of which the collection has no leg, and for a
    field without an encoder.
    """
    for query in queries:
        if not isinstance(query, str):
            raise TypeError(f"a query must be a string, not {type(query).__name__}")
    if not queries:
        return []
    fields = _searched_fields(store.schema, options)
    legs = _build_legs(store.schema, fields, encoders, list(queries))
    answers = _search_legs(store, fields, legs, options, options.depth if reranker is not None else 0)
    results = []
    for query, own, answer in zip(queries, legs, answers, strict=True):
        ranked = _rerank(query, answer.hits, options.text_key, reranker)
        passing = _above(_fold(ranked, options.fold), options.min_score)
        page = _finish(store, encoders, own, passing[options.offset : options.window], options)
        result = SearchResult(query, tuple(page), notes=answer.notes)
        if options.explain:
            explained = describe_legs(store.schema, fields, encoders, own, query)
            result = replace(result, legs=explained, fusion=_fusion_of(store.schema, fields, options))
        results.append(result)
    return results


def _searched_fields(schema: Schema, options: SearchOptions) -> list[str]:
    """Return the fields to search, in order."""
    known = list(schema.fields) if options.fields is None else list(options.fields)
    mode = options.mode
    if mode is None or mode is Mode.HYBRID:
        return known
    fields = [name for name in known if kind_of(schema.fields[name]).value == mode.value]
    if not fields:
        have = ", ".join(map(repr, known)) or "none"
        raise ValueError(f"collection {schema.collection!r} has no {mode.value} field; its fields are {have}")
    return fields


def _build_legs(
    schema: Schema, fields: Sequence[str], encoders: Sequence[FieldEncoder], queries: list[str]
) -> list[dict[str, Leg]]:
    """Return the legs of each query by field; legs with empty query vectors are omitted."""
    by_field = {encoder.field: encoder for encoder in encoders}
    legs: list[dict[str, Leg]] = [{} for _ in queries]
    texts = set(schema.of_kind(FieldKind.TEXT))
    for name in fields:
        if name in texts:
            for own, query in zip(legs, queries, strict=True):
                own[name] = Match(name, query)
            continue
        if name not in by_field:
            raise ValueError(f"no encoder for field {name!r} of {schema.collection!r}: pass one, or use another mode")
        for own, vector in zip(legs, by_field[name].queries(queries), strict=True):
            if not is_empty_vector(vector):
                own[name] = Near(name, vector)
    return legs


@dataclass(frozen=True, slots=True, eq=False)
class _Answer:
    """The hits of one query, before the page is cut, and the notes of its result."""

    hits: Sequence[Hit] = ()
    notes: tuple[str, ...] = ()


def _search_legs(
    store: Store, fields: Sequence[str], legs: Sequence[dict[str, Leg]], options: SearchOptions, candidates: int
) -> list[_Answer]:
    """Return the hits of every query, enough of them for the page if the store reaches that far.

    With ``fold``, queries whose page is not full of distinct documents are searched again, deeper.
    """
    reach = _reach(store, options)
    wanted = min(max(options.window, candidates), reach)
    answers = [_Answer() for _ in legs]
    open_queries = [index for index, own in enumerate(legs) if own]
    while open_queries:
        requests = [_request(store, fields, legs[index], options, wanted) for index in open_queries]
        pages = store.search([each.request for each in requests])
        for index, request, hits in zip(open_queries, requests, pages, strict=True):
            depth = options.depth if candidates or isinstance(request.request.rank, Fuse) else 0
            answers[index] = _Answer(hits, (*request.notes, *_reach_notes(hits, options, reach, depth)))
        if not options.fold or wanted == reach:
            break
        open_queries = [index for index in open_queries if _is_short(answers[index].hits, options, wanted)]
        wanted = min(4 * wanted, reach)
    return answers


def _reach(store: Store, options: SearchOptions) -> int:
    """Return the number of hits to which a search is limited; a page beyond the store's reach is left to the guard."""
    most = store.capabilities.max_limit
    return sys.maxsize if most is None or options.offset >= most else most


def _is_short(hits: Sequence[Hit], options: SearchOptions, wanted: int) -> bool:
    """Return whether there may be further hits, and the current ones do not fill the page."""
    distinct = {parent_of(hit.id, hit.payload) for hit in hits} if options.fold else hits
    return len(hits) >= wanted and len(distinct) < options.window


def _reach_notes(hits: Sequence[Hit], options: SearchOptions, reach: int, depth: int) -> tuple[str, ...]:
    """Return what the reach of the store left out; ``depth`` is 0 if the search has no candidates to fuse or rerank."""
    most = f"this store returns at most {reach:,} records of a search"
    notes = [f"depth is {depth:,}, and {most}"] if depth > reach else []
    if _is_short(hits, options, reach):
        notes.append(f"the page is not full, although there may be more hits: {most}")
    return tuple(notes)


def _request(
    store: Store, fields: Sequence[str], legs: Mapping[str, Leg], options: SearchOptions, wanted: int
) -> Fitted:
    """Return the request for one query, fitted to the limits of the store unless the options forbid that."""
    own = tuple(legs.values())
    if len(own) == 1 and len(fields) == 1:
        rank: Leg | Fuse = own[0]
    else:
        weighted = fields if options.fusion is not None else list(options.fields or store.schema.fields)
        method = _select_weights(options.fusion or store.schema.fusion or Rrf(), weighted, legs)
        rank = Fuse(own, max(min(options.depth, _reach(store, options)), wanted), method)
    request = SearchRequest(
        rank, limit=wanted, where=options.where, parts=Parts.PAYLOAD | Parts.LEGS, effort=options.effort
    )
    return fit(request, store.capabilities) if options.shorten else Fitted(request)


def _select_weights(method: Fusion, fields: Sequence[str], legs: Mapping[str, Leg]) -> Fusion:
    """Return the fusion, which has weights for ``fields``, with the weights of ``legs`` alone."""
    weights = method.weights
    if weights is None:
        return method
    check_weights(method, fields)
    return replace(method, weights=tuple(w for w, name in zip(weights, fields, strict=True) if name in legs))


def _rerank(query: str, hits: Sequence[Hit], text_key: str, reranker: Reranker | None) -> list[SearchHit]:
    """Return the hits sorted by the scores of the reranker, ties by id; without a reranker, return them unchanged.

    Hits without a score keep their order and come last: those whose text is missing or null, which the reranker does
    not see, and those for which it gives NaN, with a warning.
    """
    if reranker is None or not hits:
        return [SearchHit(hit.id, hit.score, hit.payload, hit.legs) for hit in hits]
    texts = {at: str(text) for at, hit in enumerate(hits) if (text := hit.payload.get(text_key)) is not None}
    predicted = _predict(reranker, [(query, text) for text in texts.values()])
    scores = dict(zip(texts, predicted, strict=True))
    ranked = [
        SearchHit(hit.id, scores.get(at, math.nan), hit.payload, hit.legs, retrieved=hit.score)
        for at, hit in enumerate(hits)
    ]
    scored = [hit for hit in ranked if not math.isnan(hit.score)]
    rest = [hit for hit in ranked if math.isnan(hit.score)]
    return [*sorted(scored, key=lambda hit: (-hit.score, hit.id)), *rest]


def _predict(reranker: Reranker, pairs: list[tuple[str, str]]) -> list[float]:
    """Return the scores of pairs; warn if some are NaN, and raise ValueError unless there is one for each pair."""
    if not pairs:
        return []
    scores = np.asarray(reranker.predict(pairs), dtype=np.float64)
    if scores.shape != (len(pairs),):
        raise ValueError(f"expected one score per pair from the reranker, [{len(pairs)}], not {list(scores.shape)}")
    if unknown := int(np.isnan(scores).sum()):
        warnings.warn(
            f"the reranker gave NaN for {unknown} of {len(pairs)} candidates, which are ranked last",
            ModelWarning,
            stacklevel=2,
        )
    values: list[float] = scores.tolist()
    return values


def _fold(hits: Sequence[SearchHit], fold: bool) -> Sequence[SearchHit]:
    """Return each document once, by its best window, under the document's id."""
    if not fold:
        return hits
    best: dict[str, SearchHit] = {}
    for hit in hits:
        parent = parent_of(hit.id, hit.payload)
        best.setdefault(parent, replace(hit, id=parent))
    return list(best.values())


def _fusion_of(schema: Schema, fields: Sequence[str], options: SearchOptions) -> Fusion | None:
    """Return the fusion of a search of these fields; None for a single field."""
    return options.fusion or schema.fusion or Rrf() if len(fields) > 1 else None


def _above(hits: Sequence[SearchHit], least: float | None) -> Sequence[SearchHit]:
    """Return the hits with a score of at least ``least``; all if it is None."""
    return hits if least is None else [hit for hit in hits if hit.score >= least]


def _finish(
    store: Store,
    encoders: Sequence[FieldEncoder],
    legs: Mapping[str, Leg],
    page: Sequence[SearchHit],
    options: SearchOptions,
) -> list[SearchHit]:
    """Return the hits of a page with their terms and highlights, if the options ask for them."""
    if not (options.explain or options.highlight) or not page:
        return list(page)
    terms = matched_terms(store, encoders, legs, [_stored_id(hit) for hit in page])
    finished = []
    for hit in page:
        shared = terms.get(_stored_id(hit), ())
        text = hit.payload.get(options.text_key) if options.highlight else None
        highlights = highlights_of(text, encoders, legs, shared)
        finished.append(replace(hit, terms=shared if options.explain else (), highlights=highlights))
    return finished


def _stored_id(hit: SearchHit) -> str:
    """Return the id of a hit's record, folded or not."""
    chunk = hit.payload.get(CHUNK_KEY)
    return window_id(chunk["parent"], chunk["number"]) if isinstance(chunk, Mapping) else hit.id

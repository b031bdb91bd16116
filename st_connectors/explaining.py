"""Explain the hits of a search: how each leg ranks, and which terms and passages matched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from st_connectors import bm25
from st_connectors.highlight import Highlight, term_highlights, word_highlights
from st_connectors.schema import DenseField, FieldKind, Metric, Schema, kind_of
from st_connectors.store import Leg, Match, Near, Parts, Store
from st_connectors.vectorise import FieldEncoder, tokenizer_of
from st_core.vectors import SparseMatrix, SparseVector

if TYPE_CHECKING:
    from st_connectors.store import Vector

__all__ = ["LegExplanation", "Term", "Terms", "describe_legs", "highlights_of", "matched_terms"]

TOP_TERMS = 8
"""The number of terms of a sparse leg that are shown, those with the largest contributions."""
LEAST_SHARE = 0.1
"""The share of the heaviest term from which a term is highlighted; below are mostly words such as "a" and "of"."""

SIMILARITIES = {
    Metric.COSINE: "cosine similarity",
    Metric.DOT: "inner product",
    Metric.EUCLIDEAN: "minus the Euclidean distance",
}


@dataclass(frozen=True, slots=True)
class Term:
    """A term that query and document share, and its contribution to the score of the sparse leg."""

    field: str
    term: str
    weight: float


@dataclass(frozen=True, slots=True)
class LegExplanation:
    """How one leg of a search ranks records.

    ``score`` says in words what the score of the leg is. ``model`` and ``dimension`` are those of the vectors, None for
    a text leg. ``terms`` are the terms of the query: those of a sparse leg with the largest weights, and the words of a
    text leg with their numbers of occurrences. A leg that ``is_empty`` can match no record.
    """

    field: str
    kind: FieldKind
    score: str
    model: str | None = None
    dimension: int | None = None
    terms: tuple[Term, ...] = ()
    is_empty: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "field": self.field,
            "kind": self.kind.value,
            "score": self.score,
            "model": self.model,
            "dimension": self.dimension,
            "terms": [{"term": each.term, "weight": each.weight} for each in self.terms],
            "empty": self.is_empty,
        }


Terms = Mapping[str, tuple[Term, ...]]
"""The shared terms of records, by the ids of the records."""


def describe_legs(
    schema: Schema, fields: Sequence[str], encoders: Sequence[FieldEncoder], legs: Mapping[str, Leg], query: str
) -> tuple[LegExplanation, ...]:
    """Return an explanation of each leg of a query, in the order of ``fields``."""
    by_field = {encoder.field: encoder for encoder in encoders}
    return tuple(_describe_leg(schema, name, by_field.get(name), legs.get(name), query) for name in fields)


def _describe_leg(
    schema: Schema, name: str, encoder: FieldEncoder | None, leg: Leg | None, query: str
) -> LegExplanation:
    spec, model = schema.fields[name], schema.models.get(name)
    model_name = None if model is None else model.name
    if isinstance(spec, DenseField):
        score = SIMILARITIES[spec.metric]
        return LegExplanation(name, FieldKind.DENSE, score, model_name, spec.dimension, is_empty=leg is None)
    if kind_of(spec) is FieldKind.TEXT:
        counts = word_counts(query)
        words = tuple(Term(name, word, float(count)) for word, count in counts.items())
        return LegExplanation(name, FieldKind.TEXT, "BM25 of the store", terms=words, is_empty=not words)
    terms: tuple[Term, ...] = ()
    if encoder is not None and isinstance(leg, Near) and isinstance(leg.vector, SparseVector):
        terms = tuple(_decode(encoder, leg.vector.top(TOP_TERMS)))
    dimension = None if model is None else model.dimension
    return LegExplanation(
        name, FieldKind.SPARSE, "inner product of weighted terms", model_name, dimension, terms, is_empty=leg is None
    )


def word_counts(query: str) -> dict[str, int]:
    """Return the normalised words of a text with their numbers of occurrences, in order."""
    counts: dict[str, int] = {}
    for word in bm25.words(query):
        counts[word] = counts.get(word, 0) + 1
    return counts


def matched_terms(store: Store, encoders: Sequence[FieldEncoder], legs: Mapping[str, Leg], ids: Sequence[str]) -> Terms:
    """Return the terms that query and records share in sparse legs whose model can decode; reads the vectors."""
    queries = [
        (encoder, leg.vector)
        for encoder in encoders
        if encoder.kind is FieldKind.SPARSE
        and hasattr(encoder.model, "decode")
        and isinstance(leg := legs.get(encoder.field), Near)
        and isinstance(leg.vector, SparseVector)
    ]
    if not queries or not ids:
        return {}
    records = store.get(ids, parts=Parts.VECTORS)
    return {
        record.id: tuple(
            term
            for encoder, query in queries
            for term in _shared_terms(encoder, query, record.vectors.get(encoder.field))
        )
        for record in records
    }


def _shared_terms(encoder: FieldEncoder, query: SparseVector, document: Vector | None) -> list[Term]:
    """Return the contribution of each shared term to the inner product, heaviest first."""
    if not isinstance(document, SparseVector):
        return []
    shared, mine, theirs = np.intersect1d(query.indices, document.indices, assume_unique=True, return_indices=True)
    return _decode(
        encoder, SparseVector.from_arrays(shared, query.values[mine] * document.values[theirs]).top(TOP_TERMS)
    )


def _decode(encoder: FieldEncoder, vector: SparseVector) -> list[Term]:
    """Return the terms of a sparse vector, heaviest first; none if the model cannot decode."""
    decode: Any = getattr(encoder.model, "decode", None)
    if decode is None:
        return []
    width = int(vector.indices[-1]) + 1 if len(vector) else 1
    [decoded] = decode(SparseMatrix.from_rows([vector], width))
    return [Term(encoder.field, str(term), float(weight)) for term, weight in decoded]


def highlights_of(
    text: object, encoders: Sequence[FieldEncoder], legs: Mapping[str, Leg], terms: Sequence[Term]
) -> tuple[Highlight, ...]:
    """Return the parts of a hit's text that matched in its sparse and text legs, in order.

    ``terms`` are the terms that the hit shares with the query.
    """
    if not isinstance(text, str):
        return ()
    highlights: list[Highlight] = []
    for leg in legs.values():
        if isinstance(leg, Match):
            highlights += word_highlights(leg.field, text, dict.fromkeys(bm25.words(leg.text), 1.0))
    by_field = {encoder.field: encoder for encoder in encoders}
    for name in dict.fromkeys(term.field for term in terms):
        weights = {term.term: term.weight for term in terms if term.field == name}
        heaviest = max(weights.values())
        shares = {term: weight / heaviest for term, weight in weights.items() if weight >= LEAST_SHARE * heaviest}
        highlights += term_highlights(name, text, shares, tokenizer_of(by_field[name].model))
    return tuple(sorted(highlights, key=lambda each: (each.start, each.end, each.field)))

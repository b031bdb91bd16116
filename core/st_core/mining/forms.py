"""The rows in which mined negatives are returned, in the forms of sentence-transformers 6.2."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from st_core.mining.pairs import Query

__all__ = ["FORMATS", "Mined", "rows_of"]

FORMATS: Final = ("triplet", "n-tuple", "labeled-pair", "labeled-list")


@dataclass(frozen=True, slots=True)
class Mined:
    """A query with the scores of its positives, and its negatives with theirs, the highest first."""

    query: Query
    positive_scores: tuple[float, ...]
    negatives: tuple[str, ...]
    negative_scores: tuple[float, ...]


def rows_of(
    mined: Mined, form: str, count: int, anchor: str, positive: str, *, has_scores: bool
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a query.

    A ``triplet`` is a query, a positive and a negative; an ``n-tuple`` has ``count`` negatives, and a query with fewer
    has none; a ``labeled-pair`` is a query, a document and a label; a ``labeled-list`` a query, its documents with the
    positive first, and their labels. With scores these replace the labels, or are a further column.
    """
    match form:
        case "triplet":
            yield from _triplets(mined, anchor, positive, has_scores=has_scores)
        case "n-tuple":
            if len(mined.negatives) >= count:
                yield from _tuples(mined, anchor, positive, has_scores=has_scores)
        case "labeled-pair":
            yield from _pairs(mined, anchor, positive, has_scores=has_scores)
        case _:
            yield from _lists(mined, anchor, positive, has_scores=has_scores)


def _triplets(mined: Mined, anchor: str, positive: str, *, has_scores: bool) -> Iterator[dict[str, Any]]:
    for text, score in zip(mined.query.positives, mined.positive_scores, strict=True):
        for negative, other in zip(mined.negatives, mined.negative_scores, strict=True):
            row: dict[str, Any] = {anchor: mined.query.text, positive: text, "negative": negative}
            yield row | ({"scores": [score, other]} if has_scores else {})


def _tuples(mined: Mined, anchor: str, positive: str, *, has_scores: bool) -> Iterator[dict[str, Any]]:
    negatives = {f"negative_{place}": text for place, text in enumerate(mined.negatives, 1)}
    for text, score in zip(mined.query.positives, mined.positive_scores, strict=True):
        row: dict[str, Any] = {anchor: mined.query.text, positive: text, **negatives}
        yield row | ({"scores": [score, *mined.negative_scores]} if has_scores else {})


def _pairs(mined: Mined, anchor: str, positive: str, *, has_scores: bool) -> Iterator[dict[str, Any]]:
    positives = [(text, score, 1) for text, score in zip(mined.query.positives, mined.positive_scores, strict=True)]
    negatives = [(text, score, 0) for text, score in zip(mined.negatives, mined.negative_scores, strict=True)]
    for text, score, label in (*positives, *negatives):
        row: dict[str, Any] = {anchor: mined.query.text, positive: text}
        yield row | ({"score": score} if has_scores else {"label": label})


def _lists(mined: Mined, anchor: str, positive: str, *, has_scores: bool) -> Iterator[dict[str, Any]]:
    if not mined.negatives:
        return
    for text, score in zip(mined.query.positives, mined.positive_scores, strict=True):
        row: dict[str, Any] = {anchor: mined.query.text, positive: [text, *mined.negatives]}
        labels = {"labels": [1, *(0 for _ in mined.negatives)]}
        yield row | ({"scores": [score, *mined.negative_scores]} if has_scores else labels)

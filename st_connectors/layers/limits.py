"""Fit queries to the number of terms that a store declares, and describe what was left out.

The guard refuses what exceeds a limit; ``fit`` shortens a request beforehand, so that the guard accepts it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace

from st_connectors._clauses import count_comparisons
from st_connectors.bm25 import IDEOGRAPHS, MARKS
from st_connectors.filters import Filter
from st_connectors.store import Capabilities, Fuse, Leg, Match, Near, SearchRequest
from st_core.vectors import SparseVector

__all__ = ["Fitted", "count_clauses", "count_terms", "fit", "term_room"]

_PIECE = re.compile(rf"[{IDEOGRAPHS}]|[^\s{IDEOGRAPHS}]{{1,255}}")
"""The pieces of which a shortened text consists: an ideograph, or characters between spaces."""
_WORD = re.compile(
    rf"[{IDEOGRAPHS}]|\d+(?:[.,]\d+)+|(?:[^\W{IDEOGRAPHS}]|[{MARKS}]|(?<=\w)['\u2019](?=\w))+"
    "|[\u2600-\u27bf\U0001f000-\U0001faff]"
)
"""A word as Lucene's standard tokenizer splits a text (Unicode Standard Annex 29), or a part of it: an ideograph, a
number with its separators, letters with inner apostrophes, or an emoji."""


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A request within the limits of a store, and a note for each leg that was shortened."""

    request: SearchRequest
    notes: tuple[str, ...] = ()


def fit(request: SearchRequest, capabilities: Capabilities) -> Fitted:
    """Return the request with as many query terms as the store allows.

    A sparse vector keeps its heaviest terms. A text keeps the first occurrence of its words before any repetition, in
    the order of the text.
    """
    room = term_room(capabilities, request.where)
    if room is None:
        return Fitted(request)
    rank = request.rank
    fitted = [_fit_leg(leg, room) for leg in (rank.legs if isinstance(rank, Fuse) else (rank,))]
    notes = tuple(note for _, note in fitted if note)
    if not notes:
        return Fitted(request)
    legs = tuple(leg for leg, _ in fitted)
    return Fitted(replace(request, rank=replace(rank, legs=legs) if isinstance(rank, Fuse) else legs[0]), notes)


def term_room(capabilities: Capabilities, where: Filter | None) -> int | None:
    """Return the number of terms that a leg with this filter may have; None if the store has no limit."""
    limits = [] if capabilities.max_query_terms is None else [capabilities.max_query_terms]
    if capabilities.max_clauses is not None:
        limits.append(capabilities.max_clauses - count_clauses(where))
    return max(1, min(limits)) if limits else None


def count_clauses(where: Filter | None) -> int:
    """Return the number of clauses of a filter, of which a comparison has at most two."""
    return 0 if where is None else 2 * count_comparisons(where)


def count_terms(leg: Leg) -> int:
    """Return the number of terms of a sparse vector or words of a text, repetitions included; 0 for a dense vector."""
    match leg:
        case Match(_, text):
            return _count_words(text)
        case Near(_, SparseVector() as vector):
            return len(vector)
        case _:
            return 0


def _count_words(text: str) -> int:
    return sum(1 for _ in _WORD.finditer(text))


def _fit_leg(leg: Leg, room: int) -> tuple[Leg, str]:
    """Return a leg with at most ``room`` terms, and a note if it had more."""
    count = count_terms(leg)
    if count <= room:
        return leg, ""
    match leg:
        case Match(name, text):
            short = _shorten(text, room)
            searched = (
                f"{_count_words(short):,} of {count:,} words were searched, repetitions and the last words omitted"
            )
            return Match(name, short), f"field {name!r}: {searched}, because the store allows {room:,}"
        case Near(name, SparseVector() as vector):
            searched = f"the {room:,} heaviest of {count:,} terms were searched"
            return Near(name, vector.top(room)), f"field {name!r}: {searched}, because the store allows {room:,}"
        case _:
            return leg, ""


def _shorten(text: str, most: int) -> str:
    """Return pieces of a text with at most ``most`` words: first occurrences before second ones, in their order."""
    seen: Counter[str] = Counter()
    ranked = []
    for at, match in enumerate(_PIECE.finditer(text)):
        piece = match[0].casefold()
        ranked.append((seen[piece], at, match[0]))
        seen[piece] += 1
    distinct = []
    for _, at, piece in sorted(ranked):
        size = _count_words(piece)
        if 0 < size <= most:
            distinct.append((at, piece))
            most -= size
    return " ".join(piece for _, piece in sorted(distinct))

"""Queries derived from the documents of a collection, each of which seeks its own document.

They say how well a document is found again, and not how well the questions of users are answered.
"""

from __future__ import annotations

import random
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_connectors.chunks import parent_of, window_number
from st_connectors.evaluation.judged import Judged
from st_connectors.store import Parts

if TYPE_CHECKING:
    from st_connectors.index import Index
    from st_connectors.store import Record

__all__ = ["known_items"]

SENTENCE = re.compile(r"(.+?[.!?])(?:\s|$)", re.DOTALL)
SHORTEST = 2
"""The smallest number of words of a query."""

FUNCTION = "query"
"""The function that a file of the user defines."""

Make = Callable[["Record"], str | None]


def known_items(index: Index, kind: str, *, count: int = 200, seed: int = 0) -> Judged:
    """Return queries derived from documents that are drawn at random.

    ``kind`` is ``title``, the value of that payload key; ``first-sentence``, that of the text; or a Python file with a
    function ``query`` from a record to a query, or to None for a document to leave out. Documents are read once, and
    ``count`` of them are in memory. Raises ValueError for another kind, a file without the function, and a collection
    in which no document gives a query.
    """
    make, origin = _maker(index, kind)
    drawn = _drawn(index, make, count, seed)
    if not drawn:
        raise ValueError(f"no document of {index.collection!r} gives a query of at least {SHORTEST} words by {kind!r}")
    queries = {f"q-{document}": text for document, text in sorted(drawn)}
    return Judged(
        queries,
        {f"q-{document}": {document: 1.0} for document, _ in drawn},
        origin=f"synthetic known-item queries derived from {origin}",
        notes=(
            "synthetic queries: the values say how well documents are found again, not how well users are answered",
        ),
    )


def _drawn(index: Index, make: Make, count: int, seed: int) -> list[tuple[str, str]]:
    """Return documents with their queries, drawn from all of them in one pass (reservoir sampling)."""
    generator = random.Random(seed)  # noqa: S311 - a sample, no secret
    drawn: list[tuple[str, str]] = []
    number = 0
    for record in index.store.scan(parts=Parts.PAYLOAD):
        query = make(record) if window_number(record.payload) == 0 else None
        if query is None or len(query.split()) < SHORTEST:
            continue
        number += 1
        pair = (parent_of(record.id, record.payload), " ".join(query.split()))
        if len(drawn) < count:
            drawn.append(pair)
        elif (place := generator.randrange(number)) < count:
            drawn[place] = pair
    return drawn


def _maker(index: Index, kind: str) -> tuple[Make, str]:
    if kind == "title":
        return _title, "titles"
    if kind == "first-sentence":
        return lambda record: _first_sentence(str(record.payload.get(index.text_key, ""))), "first sentences"
    path = Path(kind)
    if path.suffix != ".py":
        raise ValueError(f"unknown kind of synthetic queries {kind!r}; expected title, first-sentence or FILE.py")
    function: Any = runpy.run_path(str(path)).get(FUNCTION)
    if not callable(function):
        raise ValueError(  # noqa: TRY004 - a fault of the file
            f"{path} defines no function {FUNCTION}(record); define one that returns a query or None"
        )
    return function, f"documents by {path.name}"


def _title(record: Record) -> str | None:
    title = record.payload.get("title")
    return title if isinstance(title, str) else None


def _first_sentence(text: str) -> str | None:
    match = SENTENCE.match(text.strip())
    return match[1] if match else text.strip() or None

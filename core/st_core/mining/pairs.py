"""The queries of a data set of pairs, each with all its positives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Query", "columns_of_pairs", "queries_of"]


@dataclass(frozen=True, slots=True)
class Query:
    """A query with its positives, each once, in the order of the data."""

    text: str
    positives: tuple[str, ...]


def columns_of_pairs(columns: Sequence[str], anchor: str | None, positive: str | None) -> tuple[str, str]:
    """Return the columns of queries and positives: those that were chosen, else the first two.

    Raises ValueError for a column that does not exist, and for fewer than two columns.
    """
    for name in (anchor, positive):
        if name is not None and name not in columns:
            raise ValueError(f"the data has no column {name!r}; its columns are {', '.join(columns)}")
    if len(columns) < 2:
        raise ValueError(f"negatives are mined for pairs, and the data has the columns {', '.join(columns) or 'none'}")
    first = anchor or columns[0]
    second = positive or next(name for name in (columns[1], *columns) if name != first)
    return first, second


def queries_of(rows: Sequence[Mapping[str, Any]], anchor: str, positive: str) -> list[Query]:
    """Return the queries of rows in order; rows of equal queries are one query with several positives.

    Raises ValueError for a row without both texts, and for no row at all.
    """
    found: dict[str, dict[str, None]] = {}
    for place in range(len(rows)):
        query, text = rows[place].get(anchor), rows[place].get(positive)
        if not isinstance(query, str) or not isinstance(text, str):
            name, value = (anchor, query) if not isinstance(query, str) else (positive, text)
            raise ValueError(  # noqa: TRY004 - a fault of the data
                f"row {place}, column {name!r}: expected text, got {value!r}"
            )
        found.setdefault(query, {})[text] = None
    if not found:
        raise ValueError("the data set has no rows; pass pairs of queries and positives")
    return [Query(query, tuple(texts)) for query, texts in found.items()]

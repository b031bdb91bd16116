"""Which documents of a batch are known to be relevant for which of its queries, and so are no negatives."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from st_core.evaluation.files import read_judgements
from st_core.training.columns import Matching

__all__ = ["Known", "known_positives"]


@dataclass(frozen=True, slots=True)
class Known:
    """The column of the ids of each text column, None for texts without ids, and the positives of each query by id."""

    columns: tuple[str | None, ...]
    positives: Mapping[str, frozenset[str]]

    def ids_of(self, row: Mapping[str, Any]) -> tuple[str | None, ...]:
        """Return the ids of the texts of a row."""
        return tuple(None if column is None else str(row[column]) for column in self.columns)

    def mask(self, ids: Sequence[tuple[str | None, ...]]) -> Tensor:
        """Return for the query of each row the documents of all rows [n, documents * n] that are known positives.

        Documents are those of the first column of documents, then those of the next. The positive of the row itself is
        not among them.
        """
        documents = [row[place] for place in range(1, len(self.columns)) for row in ids]
        known = [self.positives.get(row[0] or "", frozenset()) for row in ids]
        mask = torch.tensor([[document in each for document in documents] for each in known])
        mask[torch.arange(len(ids)), torch.arange(len(ids))] = False
        return mask


def known_positives(
    rows: Any, matching: Matching, id_columns: Mapping[str, str], judgements: Any, name: str = ""
) -> Known:
    """Return the positives of each query, from the ids of the rows and from judgements.

    ``id_columns`` are the columns of the ids by text column; those of queries and positives are needed. ``judgements``
    are the ids of relevant documents by query, their grades, or a file of them. Raises ValueError for a missing column
    and a row without an id.
    """
    columns = tuple(id_columns.get(text) for text in matching.texts)
    missing = [text for text, column in zip(matching.texts[:2], columns, strict=False) if column is None]
    if missing:
        raise ValueError(
            f"id_columns needs the ids of queries and positives, and {missing[0]!r} has none; pass "
            f"id_columns={{{matching.texts[0]!r}: …, {matching.texts[1]!r}: …}}"
        )
    positives: dict[str, set[str]] = {}
    for position in range(len(rows)):
        query, document = (_id_of(rows[position], column, position, name) for column in columns[:2])
        positives.setdefault(query, set()).add(document)
    for query, documents in _judged(judgements).items():
        positives.setdefault(query, set()).update(documents)
    return Known(columns, {query: frozenset(documents) for query, documents in positives.items()})


def _id_of(row: Mapping[str, Any], column: str | None, position: int, name: str) -> str:
    value = None if column is None else row.get(column)
    if not isinstance(value, (str, int)):
        where = f" of {name!r}" if name else ""
        raise ValueError(  # noqa: TRY004 - a fault of the data
            f"row {position}, column {column!r}{where}: expected an id, got {value!r}"
        )
    return str(value)


def _judged(judgements: Any) -> dict[str, list[str]]:
    """Return the ids of relevant documents by query."""
    if judgements is None:
        return {}
    if isinstance(judgements, (str, PathLike)):
        judgements = read_judgements(judgements)
    return {str(query): _relevant(documents) for query, documents in judgements.items()}


def _relevant(documents: Mapping[Any, float] | Collection[Any]) -> list[str]:
    if isinstance(documents, Mapping):
        return [str(document) for document, grade in documents.items() if grade > 0]
    return [str(document) for document in documents]

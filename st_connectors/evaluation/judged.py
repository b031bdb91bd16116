"""Queries with judgements, compared with the collection that they are for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from st_core.evaluation.files import read_judgements, read_queries

if TYPE_CHECKING:
    from st_connectors.index import Index

__all__ = ["Judged", "check_documents", "read_folder", "read_judged"]

UNKNOWN_SHARE = 0.05
"""The share of judgements for unknown queries or documents above which an evaluation is refused."""

SHOWN = 3
BATCH = 1000


@dataclass(frozen=True, slots=True)
class Judged:
    """Queries by id, and the grades of documents by query and document.

    ``origin`` says what the judgements are, in words that every report repeats. ``notes`` say what was left out.
    Queries without a document of a grade above 0 are no part of it.
    """

    queries: Mapping[str, str]
    grades: Mapping[str, Mapping[str, float]]
    origin: str = "judgements"
    notes: tuple[str, ...] = field(default=())

    @property
    def pairs(self) -> int:
        """The number of judgements."""
        return sum(map(len, self.grades.values()))

    def part(self, ids: Iterable[str]) -> Judged:
        """Return some of the queries."""
        kept = list(ids)
        return replace(
            self,
            queries={query: self.queries[query] for query in kept},
            grades={query: self.grades[query] for query in kept},
        )


def read_judged(queries: str | PathLike[str], judgements: str | PathLike[str]) -> Judged:
    """Return the judged queries of two files; see :mod:`st_core.evaluation.files` for their formats.

    Raises ValueError for files that cannot be read, if more than a twentieth of the judgements are for unknown queries,
    and if no query has a relevant document.
    """
    return _combined(read_queries(queries), read_judgements(judgements), str(judgements))


def read_folder(folder: str | PathLike[str], split: str = "test") -> Judged:
    """Return the judged queries of a folder in BEIR's form.

    It has ``queries.jsonl``, and ``qrels/SPLIT.tsv`` or ``qrels.tsv``.
    Raises ValueError as :func:`read_judged` does, and for a folder without these files.
    """
    folder = Path(folder)
    places = [folder / "qrels" / f"{split}.tsv", folder / "qrels.tsv"]
    judgements = next((path for path in places if path.is_file()), None)
    if judgements is None or not (folder / "queries.jsonl").is_file():
        raise ValueError(f"{folder}: expected queries.jsonl, and qrels/{split}.tsv or qrels.tsv")
    return read_judged(folder / "queries.jsonl", judgements)


def _combined(queries: Mapping[str, str], grades: Mapping[str, Mapping[str, float]], source: str) -> Judged:
    unknown = [query for query in grades if query not in queries]
    count = sum(len(grades[query]) for query in unknown)
    total = sum(map(len, grades.values()))
    note = f"{count} of {total} judgements of {source} are for unknown queries: {_listed(unknown)}"
    if count > UNKNOWN_SHARE * total:
        raise ValueError(f"{note}; pass the queries that they belong to")
    used = {
        query: text for query, text in queries.items() if any(grade > 0 for grade in grades.get(query, {}).values())
    }
    if not used:
        raise ValueError(f"no query has a relevant document in {source}; pass judgements of these queries")
    left_out = len(queries) - len(used)
    notes = [note] if unknown else []
    notes += [f"{left_out} of {len(queries)} queries have no relevant document and are left out"] if left_out else []
    return Judged(used, {query: dict(grades[query]) for query in used}, notes=tuple(notes))


def check_documents(judged: Judged, index: Index) -> Judged:
    """Return the judged queries with a note on judgements for documents that the collection does not have.

    Raises ValueError if these are more than a twentieth.
    """
    wanted = list(dict.fromkeys(document for grades in judged.grades.values() for document in grades))
    known = _known_documents(wanted, index)
    unknown = [document for document in wanted if document not in known]
    if not unknown:
        return judged
    count = sum(document not in known for grades in judged.grades.values() for document in grades)
    note = f"{count} of {judged.pairs} judgements are for documents that the collection lacks: {_listed(unknown)}"
    if count > UNKNOWN_SHARE * judged.pairs:
        raise ValueError(f"{note}; pass judgements of this collection")
    return replace(judged, notes=(*judged.notes, note))


def _known_documents(ids: Sequence[str], index: Index) -> set[str]:
    from st_connectors.chunks import parent_of

    known: set[str] = set()
    for batch in _batches(ids, BATCH):
        known.update(parent_of(record.id, record.payload) for record in index.get(batch))
    return known


def _batches(values: Iterable[str], size: int) -> Iterator[list[str]]:
    rest = iter(values)
    while batch := list(islice(rest, size)):
        yield batch


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")

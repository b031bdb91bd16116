"""Queries and judgements in files: those of BEIR, those of TREC, and tables."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import TypeAlias

__all__ = ["Grades", "read_judgements", "read_queries"]

Grades: TypeAlias = dict[str, dict[str, float]]
"""The grades of documents by query and document."""

_QUERY_IDS = ("query-id", "query_id", "qid", "topic")
_DOCUMENT_IDS = ("corpus-id", "corpus_id", "document-id", "document_id", "docid", "doc_id")
_GRADES = ("score", "grade", "relevance", "label", "rel")
_IDS = ("_id", "id", *_QUERY_IDS)
_TEXTS = ("text", "query", "question", "title")


def read_queries(path: str | PathLike[str]) -> dict[str, str]:
    """Return the queries of a file by id.

    A JSON Lines file has ``_id`` or ``id`` and ``text`` or ``query``; so have the columns of a CSV or TSV file, which
    without a header are the id and the text, as in the topics of TREC. Raises ValueError for a repeated id, an empty
    text or file, and a line without both.
    """
    path = Path(path)
    pairs = _json_queries(path) if path.suffix.lower() in (".jsonl", ".ndjson") else _table_queries(path)
    queries: dict[str, str] = {}
    for line, identifier, text in pairs:
        if identifier in queries:
            raise ValueError(f"{path} line {line}: the query id {identifier!r} is repeated; every query needs its own")
        if not text.strip():
            raise ValueError(f"{path} line {line}: query {identifier!r} has no text; leave it out")
        queries[identifier] = text
    if not queries:
        raise ValueError(f"{path}: no queries")
    return queries


def read_judgements(path: str | PathLike[str]) -> Grades:
    """Return the grades of a file by query and document.

    The columns are those of TREC (query, iteration, document, grade), those of BEIR (query, document, grade), or named
    by a header. Without a grade it is 1. Raises ValueError for a line of another form, a document that is judged twice
    with different grades, and an empty file.
    """
    path = Path(path)
    judged: Grades = {}
    for line, query, document, grade in _judgements(path):
        before = judged.setdefault(query, {}).setdefault(document, grade)
        if before != grade:
            raise ValueError(
                f"{path} line {line}: document {document!r} of query {query!r} has the grade {grade:g}, and "
                f"{before:g} before; leave out one"
            )
    if not judged:
        raise ValueError(f"{path}: no judgements")
    return judged


def _json_queries(path: Path) -> Iterator[tuple[int, str, str]]:
    for line, text in _text_lines(path):
        try:
            row = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{path} line {line}: not JSON: {error}") from error
        row = row if isinstance(row, dict) else {}
        identifier, query = _first(row, _IDS), _first(row, _TEXTS)
        if identifier is None or not isinstance(query, str):
            raise ValueError(f"{path} line {line}: expected an object with _id and text, got {text.strip()[:60]}")
        yield line, str(identifier), query


def _table_queries(path: Path) -> Iterator[tuple[int, str, str]]:
    rows = _cells(path)
    line, first = next(rows, (0, []))
    names = [each.strip().lower() for each in first]
    places = [_place(names, _IDS), _place(names, _TEXTS)]
    if None in places:
        places = [0, 1]
        if first:
            yield line, *_two(path, line, first, places)
    for line, cells in rows:
        yield line, *_two(path, line, cells, places)


def _two(path: Path, line: int, cells: list[str], places: list[int | None]) -> tuple[str, str]:
    if len(cells) <= max(place or 0 for place in places):
        raise ValueError(f"{path} line {line}: expected the id and the text of a query, got {len(cells)} columns")
    return cells[places[0] or 0].strip(), cells[places[1] or 0].strip()


def _judgements(path: Path) -> Iterator[tuple[int, str, str, float]]:
    rows = _cells(path)
    line, first = next(rows, (0, []))
    names = [each.strip().lower() for each in first]
    query, document = _place(names, _QUERY_IDS), _place(names, _DOCUMENT_IDS)
    if (query is None or document is None) and first:
        yield line, *_judgement(path, line, first, _places(path, line, first))
    for line, cells in rows:
        places = (query, document, _place(names, _GRADES)) if query is not None and document is not None else None
        yield line, *_judgement(path, line, cells, places or _places(path, line, cells))


def _places(path: Path, line: int, cells: list[str]) -> tuple[int, int, int | None]:
    """Return the columns of query, document and grade in a file without a header."""
    if len(cells) == 4:
        return 0, 2, 3
    if len(cells) == 3:
        return 0, 1, 2
    raise ValueError(
        f"{path} line {line}: expected query, iteration, document and grade, or query, document and grade, or a header "
        f"with query-id and corpus-id; got {len(cells)} columns"
    )


def _judgement(path: Path, line: int, cells: list[str], places: tuple[int, int, int | None]) -> tuple[str, str, float]:
    query, document, grade = places
    if len(cells) <= max(query, document, grade or 0):
        raise ValueError(f"{path} line {line}: expected {max(query, document, grade or 0) + 1} columns")
    try:
        value = 1.0 if grade is None else float(cells[grade])
    except ValueError as error:
        raise ValueError(f"{path} line {line}: the grade {cells[grade or 0]!r} is not a number") from error
    if not math.isfinite(value):
        raise ValueError(f"{path} line {line}: the grade {cells[grade or 0]!r} is not a finite number")
    return cells[query].strip(), cells[document].strip(), value


def _cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each line that is not blank: by tabs where it has any, by commas in CSV, else by spaces."""
    is_csv = path.suffix.lower() == ".csv"
    for line, text in _text_lines(path):
        if is_csv:
            yield line, next(csv.reader([text]))
        elif "\t" in text:
            yield line, text.rstrip("\r\n").split("\t")
        else:
            yield line, text.split()


def _text_lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open(encoding="utf-8-sig") as file:
        try:
            yield from ((number, line) for number, line in enumerate(file, 1) if not line.isspace())
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from error


def _first(row: dict[str, object], names: tuple[str, ...]) -> object:
    return next((row[name] for name in names if name in row), None)


def _place(columns: list[str], names: tuple[str, ...]) -> int | None:
    return next((columns.index(name) for name in names if name in columns), None)

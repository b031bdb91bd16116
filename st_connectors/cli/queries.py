"""Read the queries of ``search --queries``, and print their results as a TREC run or as JSON lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from st_connectors.cli.output import print_json, print_line

if TYPE_CHECKING:
    from st_connectors.search import SearchResult

__all__ = ["OutputFormat", "Query", "batches", "print_results", "read_judgements", "read_queries"]

BATCH = 64
"""The number of queries that are encoded and sent together."""
TAG = "st-connectors"
"""The name of the run, the last column of a TREC run."""


class OutputFormat(StrEnum):
    """How the results of several queries are printed."""

    TREC = "trec"
    JSONL = "jsonl"


@dataclass(frozen=True, slots=True)
class Query:
    """A query and the id under which its results are printed."""

    id: str
    text: str


def read_queries(source: str) -> list[Query]:
    """Read queries from a file, or from standard input if ``source`` is ``-``.

    A line is a JSON object with ``id`` and ``text``, or an id and a text separated by a tab; blank lines are skipped.
    Raises ValueError with the number of an invalid line, and for a repeated id.
    """
    try:
        text = sys.stdin.read() if source == "-" else Path(source).expanduser().read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--queries {source}: cannot read the queries: {error}") from error
    queries: dict[str, Query] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            query = _parse(line.rstrip("\r"))
        except ValueError as error:
            raise ValueError(f"--queries {source}, line {number}: {error}") from error
        if query.id in queries:
            raise ValueError(f"--queries {source}, line {number}: repeats the id {query.id!r}")
        queries[query.id] = query
    if not queries:
        raise ValueError(f"--queries {source}: there is no query")
    return list(queries.values())


def read_judgements(path: str) -> dict[str, dict[str, float]]:
    """Read relevance judgements in the format of TREC: lines of a query's id, 0, a document's id and a gain.

    Returns gains by documents' ids, by queries' ids. Raises ValueError with the number of an invalid line.
    """
    try:
        lines = Path(path).expanduser().read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--judgements {path}: cannot read the judgements: {error}") from error
    judgements: dict[str, dict[str, float]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            query, _, document, gain = line.split()
            judgements.setdefault(query, {})[document] = float(gain)
        except ValueError as error:
            message = f"--judgements {path}, line {number}: expected QUERY-ID 0 DOCUMENT-ID GAIN, got {line!r}"
            raise ValueError(message) from error
    return judgements


def _parse(line: str) -> Query:
    if not line.lstrip().startswith("{"):
        identifier, tab, text = line.partition("\t")
        if not tab:
            raise ValueError("expected a JSON object, or an id and a text separated by a tab")
        return _check(identifier.strip(), text)
    value: dict[str, object] = json.loads(line)
    return _check(value.get("id"), value.get("text"))


def _check(identifier: object, text: object) -> Query:
    if isinstance(identifier, int) and not isinstance(identifier, bool):
        identifier = str(identifier)
    if not isinstance(identifier, str) or not identifier:
        raise ValueError("expected an id, a string or an integer under 'id'")
    if not isinstance(text, str):
        raise ValueError("expected a text, a string under 'text'")  # noqa: TRY004  # the file is invalid, not the call
    return Query(identifier, text)


def batches(queries: Iterable[Query]) -> Iterator[list[Query]]:
    """Yield lists of up to ``BATCH`` queries."""
    rest = iter(queries)
    while batch := list(islice(rest, BATCH)):
        yield batch


def print_results(
    queries: Sequence[Query], results: Sequence[SearchResult], output: OutputFormat, *, offset: int = 0
) -> None:
    """Print the results of queries, one line per hit (TREC) or per query (JSON lines).

    Raises ValueError for an id that cannot be a column of a TREC run.
    """
    for query, result in zip(queries, results, strict=True):
        if output is OutputFormat.JSONL:
            print_json({"id": query.id, **result.to_json()})
            continue
        for rank, hit in enumerate(result.hits, offset + 1):
            columns = (_column(query.id), "Q0", _column(hit.id), str(rank), repr(hit.score), TAG)
            print_line(" ".join(columns))


def _column(identifier: str) -> str:
    """Return an id; raise ValueError if it contains white space, which separates the columns of a run."""
    if identifier.split() != [identifier]:
        raise ValueError(f"the id {identifier!r} contains white space, which a TREC run cannot: use --output jsonl")
    return identifier

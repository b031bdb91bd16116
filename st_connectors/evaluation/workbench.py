"""Judged queries as requests of OpenSearch's Search Relevance Workbench, which is part of OpenSearch 3.1 and later.

The functions only return bodies. Their shapes are those of opensearch-project/search-relevance since 3.1; they were
not sent to a server with the workbench.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from st_connectors.evaluation.judged import Judged

__all__ = [
    "NAME_LENGTH",
    "PATHS",
    "SEARCH_TEXT",
    "Request",
    "experiment",
    "judgments",
    "query_set",
    "search_configuration",
    "write_workbench",
]

SEARCH_TEXT = "%SearchText%"
"""What the workbench replaces by the text of a query."""

PATHS = {
    name: f"/_plugins/_search_relevance/{name}"
    for name in ("query_sets", "judgments", "search_configurations", "experiments")
}
"""The path of each kind of request; all are sent by PUT."""

Body = dict[str, Any]

_REFUSED = re.compile(r'["\\<>\s]+')
"""What the workbench refuses in the text of a query: quotes, backslashes, tags and line breaks."""

NAME_LENGTH = 50
"""The largest number of characters of a name."""

_LONGEST_TEXT = 2000


@dataclass(frozen=True, slots=True)
class Request:
    """A request by PUT."""

    path: str
    body: Body


def query_set(judged: Judged, name: str, description: str | None = None) -> Request:
    """Return the request that stores the queries.

    The workbench has no ids of queries: queries of the same text are one. Quotes, backslashes and tags, which it
    refuses, become spaces. Raises ValueError for a query or a name that it refuses otherwise.
    """
    queries = [{"queryText": text} for text in _by_text(judged)]
    body = _named(name, description) | {"sampling": "manual", "querySetQueries": queries}
    return Request(PATHS["query_sets"], body)


def judgments(judged: Judged, name: str, description: str | None = None) -> Request:
    """Return the request that stores the judgements, by the texts of :func:`query_set`.

    Of several grades of a document for queries of the same text the highest is stored. Ratings are strings, which all
    versions read.
    """
    ratings = [
        {"query": text, "ratings": [{"docId": key, "rating": f"{grade:.3f}"} for key, grade in grades.items()]}
        for text, grades in _by_text(judged).items()
    ]
    body = _named(name, description) | {"type": "IMPORT_JUDGMENT", "judgmentRatings": ratings}
    return Request(PATHS["judgments"], body)


def search_configuration(
    name: str, index: str, query: Mapping[str, Any], *, search_pipeline: str | None = None
) -> Request:
    """Return the request that stores a way of searching an index.

    ``query`` is the body of a search, in which :data:`SEARCH_TEXT` stands for the text of a query; raises ValueError if
    it does not.
    """
    text = json.dumps(query, ensure_ascii=False)
    if SEARCH_TEXT not in text:
        raise ValueError(f"the query of {name!r} has no {SEARCH_TEXT}; write it where the text of a query belongs")
    pipeline = {} if search_pipeline is None else {"searchPipeline": search_pipeline}
    return Request(PATHS["search_configurations"], _named(name, None) | {"index": index, "query": text} | pipeline)


def experiment(
    query_set_id: str, judgment_ids: Sequence[str], configuration_ids: Sequence[str], *, size: int = 10
) -> Request:
    """Return the request that measures each search configuration; the ids are those of the earlier answers."""
    body: Body = {
        "querySetId": query_set_id,
        "searchConfigurationList": list(configuration_ids),
        "judgmentList": list(judgment_ids),
        "size": size,
        "type": "POINTWISE_EVALUATION",
    }
    return Request(PATHS["experiments"], body)


def write_workbench(judged: Judged, folder: str | PathLike[str], name: str) -> list[Path]:
    """Write the bodies of the query set and of the judgements to a folder, and return their paths."""
    folder = Path(folder)
    bodies = {
        folder / "query_set.json": query_set(judged, name, _description(judged)).body,
        folder / "judgments.json": judgments(judged, name, _description(judged)).body,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for path, body in bodies.items():
        path.write_text(json.dumps(body, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return list(bodies)


def _description(judged: Judged) -> str:
    return _REFUSED.sub(" ", f"{len(judged.queries)} queries with {judged.origin}")[:250]


def _named(name: str, description: str | None) -> Body:
    """Return the name and the description of a request; raise ValueError for a name that the workbench refuses."""
    if not 0 < len(name) <= NAME_LENGTH or re.search(r'["\\<>]', name):
        raise ValueError(f"the name {name!r} is refused by the workbench; expected 1 to 50 characters without quotes")
    return {"name": name} | ({} if description is None else {"description": description})


def _by_text(judged: Judged) -> dict[str, dict[str, float]]:
    """Return the grades of documents by the text of a query as the workbench accepts it."""
    found: dict[str, dict[str, float]] = {}
    for query, original in judged.queries.items():
        text = _REFUSED.sub(" ", original).strip()
        if not 0 < len(text) <= _LONGEST_TEXT:
            raise ValueError(f"query {query!r} has {len(text)} characters; the workbench stores 1 to {_LONGEST_TEXT}")
        grades = found.setdefault(text, {})
        for document, grade in judged.grades[query].items():
            grades[document] = max(grade, grades.get(document, grade))
    return found

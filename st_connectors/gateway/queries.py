"""The query ``st_connectors`` of a search request, and the answer in the form of the engines."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from st_connectors.gateway.answers import Problem
from st_connectors.schema import Fusion, fusion_from_json
from st_connectors.search import Mode, SearchResult

__all__ = ["QUERY", "TextSearch", "has_query", "read_lines", "read_search", "write_answer"]

QUERY = "st_connectors"
"""The name of the query."""
MARK = b'"st_connectors"'
"""What every body with the query contains."""

_CLAUSE: Mapping[str, tuple[type, ...]] = {
    "query": (str,),
    "mode": (str,),
    "where": (str,),
    "fusion": (dict,),
    "depth": (int,),
    "rerank": (bool,),
    "fold": (bool,),
    "min_score": (int, float),
    "legs": (bool,),
}
_BODY = frozenset({"query", "size", "from", "_source", "track_total_hits", "timeout"})
_REFUSED = frozenset(
    {"scroll", "sort", "filter_path", "docvalue_fields", "stored_fields", "q", "source", "search_type"}
)


@dataclass(frozen=True, slots=True)
class TextSearch:
    """A search: the text, the options of ``Index.search``, and what the answer contains.

    ``source`` is whether hits have their payload, or patterns of its keys to include and to exclude. ``legs`` adds the
    rank and score of each leg to hits.
    """

    text: str
    options: Mapping[str, Any]
    size: int
    source: bool | tuple[tuple[str, ...], tuple[str, ...]] = True
    legs: bool = False
    total_as_int: bool = False


def has_query(body: bytes) -> bool:
    """Return whether a body may contain the query; cheap, and True for some without it."""
    return MARK in body


def read_search(body: Any, params: Mapping[str, str] | None = None) -> TextSearch | None:
    """Return the search of a body, None if its query is another; raises Problem for a malformed one."""
    query = body.get("query") if isinstance(body, dict) else None
    if not isinstance(query, dict) or QUERY not in query:
        return None
    params = params or {}
    if len(query) > 1 or not isinstance(query[QUERY], dict):
        raise _malformed(f"[{QUERY}] is the whole query, with an object: filters are its field [where]")
    if unknown := sorted(body.keys() - _BODY):
        raise _malformed(f"[{unknown[0]}] does not work with the query [{QUERY}]")
    if refused := sorted(_REFUSED & params.keys()):
        raise _malformed(f"the parameter [{refused[0]}] does not work with the query [{QUERY}]")
    clause = _clause(query[QUERY])
    size, offset = _number(body, params, "size", 10), _number(body, params, "from", 0)
    options: dict[str, Any] = {"limit": max(size, 1), "offset": offset}
    options |= {
        name: clause[name] for name in ("mode", "where", "depth", "rerank", "fold", "min_score") if name in clause
    }
    if "fusion" in clause:
        options["fusion"] = _fusion(clause["fusion"])
    return TextSearch(
        clause["query"],
        options,
        size,
        _source(body.get("_source", params.get("_source", True))),
        clause.get("legs", False),
        params.get("rest_total_hits_as_int") in ("", "true"),
    )


def _clause(clause: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields of the query; raises Problem for an unknown one and a wrong type."""
    for name, value in clause.items():
        if name not in _CLAUSE:
            raise _malformed(f"[{QUERY}] has no field [{name}]; its fields are {', '.join(_CLAUSE)}")
        is_bool = isinstance(value, bool)
        if not isinstance(value, _CLAUSE[name]) or is_bool != (_CLAUSE[name] == (bool,)):
            raise _malformed(f"[{QUERY}.{name}]: expected {_CLAUSE[name][-1].__name__}, got {type(value).__name__}")
    if "query" not in clause:
        raise _malformed(f"[{QUERY}] needs the field [query], a text")
    if "mode" in clause and clause["mode"] not in list(Mode):
        raise _malformed(f"[{QUERY}.mode]: expected one of {', '.join(Mode)}, got {clause['mode']}")
    return clause


def _number(body: Mapping[str, Any], params: Mapping[str, str], name: str, default: int) -> int:
    value = body.get(name, params.get(name, default))
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = -1
    if number < 0 or isinstance(value, bool | float):
        raise _malformed(f"[{name}]: expected a whole number from 0, got {value!r}")
    return number


def _fusion(value: Mapping[str, Any]) -> Fusion | None:
    try:
        return fusion_from_json({"method": "rrf", "k": 60, "weights": None, "normalise": "min_max", **value})
    except (TypeError, ValueError) as error:
        raise _malformed(f"[{QUERY}.fusion]: expected method rrf with k, or weighted with weights: {error}") from error


def _source(value: Any) -> bool | tuple[tuple[str, ...], tuple[str, ...]]:
    """Return whether hits have their payload, or the patterns of keys to include and to exclude."""
    match value:
        case bool():
            return value
        case "true" | "false":
            return bool(value == "true")
        case str():
            return tuple(value.split(",")), ()
        case list() if all(isinstance(each, str) for each in value):
            return tuple(value), ()
        case {**names} if names.keys() <= {"includes", "include", "excludes", "exclude"}:
            both = [_source(names.get(f"{name}s", names.get(name, []))) for name in ("include", "exclude")]
            included, excluded = (each[0] if isinstance(each, tuple) else () for each in both)
            return included or ("*",), excluded
        case _:
            raise _malformed("[_source]: expected true, false, keys, or an object with includes and excludes")


def read_lines(body: bytes) -> list[tuple[bytes, bytes]]:
    """Return the pairs of lines of a multi-search: header and body."""
    lines = [line for line in body.split(b"\n") if line.strip()]
    if len(lines) % 2:
        raise _malformed("the last search of the multi-search has no body")
    return list(zip(lines[::2], lines[1::2], strict=True))


def write_answer(search: TextSearch, result: SearchResult, index: str, took: int) -> dict[str, Any]:
    """Return the body of the answer to a search."""
    hits = result.hits[: search.size]
    found = search.options["offset"] + len(result.hits)
    is_all = len(result.hits) < search.options["limit"]
    total: Any = found if search.total_as_int else {"value": found, "relation": "eq" if is_all else "gte"}
    return {
        "took": took,
        "timed_out": False,
        "_shards": {"total": 1, "successful": 1, "skipped": 0, "failed": 0},
        "hits": {
            "total": total,
            "max_score": _score(hits[0].score) if hits else None,
            "hits": [_hit(search, hit, index) for hit in hits],
        },
    }


def _hit(search: TextSearch, hit: Any, index: str) -> dict[str, Any]:
    written: dict[str, Any] = {"_index": index, "_id": hit.id, "_score": _score(hit.score)}
    if search.source is True:
        written["_source"] = hit.payload
    elif search.source:
        written["_source"] = _selected(hit.payload, *search.source)
    if search.legs:
        written["st_connectors"] = {
            name: value for name, value in hit.to_json().items() if name in ("legs", "retrieved")
        }
    return written


def _selected(payload: Mapping[str, Any], included: tuple[str, ...], excluded: tuple[str, ...]) -> dict[str, Any]:
    """Return the entries whose key fits one of the patterns to include and none to exclude."""
    return {
        key: value
        for key, value in payload.items()
        if any(fnmatchcase(key, each) for each in included) and not any(fnmatchcase(key, each) for each in excluded)
    }


def _score(value: float) -> float | None:
    return None if math.isnan(value) else value


def _malformed(reason: str) -> Problem:
    return Problem(400, "parsing_exception", reason)


def loads(body: bytes) -> Any:
    """Return the value of a body; None if it is not JSON, which the engine answers."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None

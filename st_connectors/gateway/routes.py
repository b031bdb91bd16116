"""What a request asks for, by its method and path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from urllib.parse import parse_qsl, quote, unquote, urlencode

__all__ = ["HEALTH", "Kind", "Route", "parse_route"]

HEALTH = "_st_connectors"
"""The first part of the path of the gateway's own state; no index can have this name."""


class Kind(Enum):
    """What the gateway does with a request."""

    PASS = auto()
    BULK = auto()
    WRITE = auto()
    SEARCH = auto()
    MULTI_SEARCH = auto()
    HEALTH = auto()


@dataclass(frozen=True, slots=True)
class Route:
    """A request: the index, action and id of a write, and the parameters.

    ``changes_indices`` is whether the request may change what the gateway knows of an index.
    """

    kind: Kind
    index: str | None = None
    action: str | None = None
    id: str | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    changes_indices: bool = False

    def target(self, action: str, identifier: str | None = None) -> str:
        """Return the target of the same request with another action."""
        parts = [each for each in (self.index, action, identifier) if each is not None]
        return "".join(f"/{quote(each, safe='')}" for each in parts) + _query(self.params)

    def without(self, action: str, parameter: str) -> str:
        """Return the target of the same request without a parameter."""
        left = {name: value for name, value in self.params.items() if name != parameter}
        return replace(self, params=left).target(action)


def _query(params: Mapping[str, str]) -> str:
    return f"?{urlencode(params)}" if params else ""


_WRITES = {"_doc": "index", "_create": "create", "_update": "update"}
_READS = {"GET", "HEAD"}
_OF_DOCUMENTS = {"_doc", "_count", "_mget", "_refresh", "_pit", "_explain", "_field_caps", "_search", "_msearch"}


def parse_route(method: str, target: str) -> Route:
    """Return the route of a request."""
    path, _, query = target.partition("?")
    parts = [unquote(each) for each in path.split("/") if each]
    params = dict(parse_qsl(query, keep_blank_values=True))
    index = parts[0] if parts and not parts[0].startswith("_") else None
    own = _own_route(method, index, parts[0 if index is None else 1 :], params)
    return own or Route(Kind.PASS, changes_indices=method not in _READS and not _is_about_documents(method, parts))


def _own_route(method: str, index: str | None, parts: list[str], params: Mapping[str, str]) -> Route | None:
    """Return the route of a request that may concern vectors; None for any other."""
    route = None
    match method, parts:
        case "GET" | "HEAD", [name, "health"] if name == HEALTH:
            route = Route(Kind.HEALTH)
        case "POST" | "PUT", ["_bulk"]:
            route = Route(Kind.BULK, index, params=params)
        case "GET" | "POST", ["_search" | "_msearch" as name]:
            route = Route(Kind.SEARCH if name == "_search" else Kind.MULTI_SEARCH, index, params=params)
        case "POST" | "PUT", ["_doc" | "_create" | "_update" as name, *rest] if index and len(rest) <= 1:
            action = "create" if params.get("op_type") == "create" else _WRITES[name]
            route = Route(Kind.WRITE, index, action, rest[0] if rest else None, params)
    return route


def _is_about_documents(method: str, parts: list[str]) -> bool:
    """Return whether a request reads or deletes documents, so that it does not change what is known of indices."""
    return any(part in _OF_DOCUMENTS for part in parts[:2]) and method in ("POST", "DELETE")

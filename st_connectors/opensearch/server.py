"""Interpret what a server reports about its version, plugins, limits and shards, without requests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["UNKNOWN", "Server", "server_from"]

OLDEST = (2, 19)
"""The oldest supported version, on which the scores of ``knn_score`` scripts equal those of ``knn``."""
CLAUSES = 1024
"""The default of ``indices.query.bool.max_clause_count``."""
SPARE = 24
"""The number of clauses that a query leaves to the filter, because the limit applies to the complete search."""


@dataclass(frozen=True, slots=True)
class Server:
    """The properties of a server: version, plugins, limit of clauses, and the number of shards of a collection.

    ``plugins`` contains the plugins that every node has. ``clauses`` is the maximum number of clauses in a query.
    ``plugins`` and ``shards`` are None if the server has not reported them.
    """

    version: tuple[int, int]
    plugins: frozenset[str] | None = None
    clauses: int = CLAUSES
    shards: int | None = None

    @property
    def has_neural_search(self) -> bool:
        """Whether the server supports ``neural_sparse`` and ``hybrid`` queries."""
        return self.plugins is not None and "opensearch-neural-search" in self.plugins


UNKNOWN = Server(OLDEST)
"""A server that has not been queried yet, with the properties that every supported server has."""


def server_from(info: Mapping[str, Any], plugins: object, settings: object) -> Server | str:
    """Return the properties of a server, or a sentence that states why the server is not supported.

    The arguments are the responses to ``/``, ``/_nodes/plugins`` and ``/_cluster/settings``. The last two may have any
    form, because managed services reject these requests.
    """
    version = info.get("version")
    number = str(version.get("number")) if isinstance(version, Mapping) else ""
    parts = re.match(r"(\d+)\.(\d+)", number)
    if parts is None or not isinstance(version, Mapping):
        return "the server reports no version of OpenSearch: is this the right address?"
    if version.get("distribution") != "opensearch":
        return (
            f"expected OpenSearch, got Elasticsearch {number} by its version: write elasticsearch:// for opensearch://"
        )
    major_minor = int(parts[1]), int(parts[2])
    if major_minor < OLDEST:
        return f"the server is OpenSearch {number}; 2.19 is the oldest that is supported"
    return Server(major_minor, _common_plugins(plugins), _clauses(settings))


def _common_plugins(answer: object) -> frozenset[str] | None:
    nodes = answer.get("nodes") if isinstance(answer, Mapping) else None
    if not nodes:
        return None
    return frozenset.intersection(
        *(frozenset(plugin["name"] for plugin in node.get("plugins", ())) for node in nodes.values())
    )


def _clauses(answer: object) -> int:
    """Return the maximum number of clauses in a query.

    A transient setting takes precedence over a persistent one, and that over the default.
    """
    for level in ("transient", "persistent", "defaults"):
        value: Any = answer
        for step in (level, "indices", "query", "bool", "max_clause_count"):
            value = value.get(step) if isinstance(value, Mapping) else None
        if value is not None:
            return int(value)
    return CLAUSES

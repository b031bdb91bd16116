"""What depends on the server, from what it says of itself; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["UNKNOWN", "Server", "server_from"]

OLDEST = (2, 19)
"""The oldest that this was run on, with scores of ``knn_score`` scripts that are those of ``knn``."""
CLAUSES = 1024
"""``indices.query.bool.max_clause_count`` where nobody changed it."""


@dataclass(frozen=True, slots=True)
class Server:
    """What depends on the server: its version, the plugins that all its nodes have (None where it does not say), and how many clauses a search may have."""

    version: tuple[int, int]
    plugins: frozenset[str] | None = None
    clauses: int = CLAUSES

    @property
    def neural(self) -> bool:
        """Whether it knows ``neural_sparse``."""
        return self.plugins is not None and "opensearch-neural-search" in self.plugins


UNKNOWN = Server(OLDEST)
"""A server that was not asked yet: what every one can do."""


def server_from(info: Mapping[str, Any], plugins: object, settings: object) -> Server | str:
    """What a server says of itself by ``/``, ``/_nodes/plugins`` and ``/_cluster/settings``, or why it is not supported, in a sentence.

    The last two may be anything: managed services answer them with an error.
    """
    version = info.get("version")
    number = str(version.get("number")) if isinstance(version, Mapping) else ""
    found = re.match(r"(\d+)\.(\d+)", number)
    if found is None or not isinstance(version, Mapping):
        return "the server does not tell a version as OpenSearch does: is this the right address?"
    if version.get("distribution") != "opensearch":
        return f"the server is no OpenSearch but, by its version {number}, Elasticsearch: write elasticsearch:// for opensearch://"
    major, minor = int(found[1]), int(found[2])
    if (major, minor) < OLDEST:
        return f"the server is OpenSearch {number}; 2.19 is the oldest that is supported"
    return Server((major, minor), _plugins(plugins), _clauses(settings))


def _plugins(answer: object) -> frozenset[str] | None:
    nodes = answer.get("nodes") if isinstance(answer, Mapping) else None
    if not nodes:
        return None
    return frozenset.intersection(
        *(frozenset(each["name"] for each in node.get("plugins", ())) for node in nodes.values())
    )


def _clauses(answer: object) -> int:
    """The setting's value: transient before persistent before default."""
    for level in ("transient", "persistent", "defaults"):
        found: Any = answer
        for step in (level, "indices", "query", "bool", "max_clause_count"):
            found = found.get(step) if isinstance(found, Mapping) else None
        if found is not None:
            return int(found)
    return CLAUSES

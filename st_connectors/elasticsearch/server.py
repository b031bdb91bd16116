"""What a server reports about its licence, version and shards; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from st_connectors._lucene.answers import count_shards
from st_connectors.schema import FusionMethod

__all__ = ["UNKNOWN", "Server", "server_from"]

_LICENCES = frozenset({"enterprise", "trial"})
"""Licences with the ``rrf`` retriever; for others it answers 403 with "current license is non-compliant"."""
_WEIGHTS_SINCE = (9, 2)


@dataclass(frozen=True, slots=True)
class Server:
    """Whether the licence includes fusion, the version, and the shards of a collection; None where not reported."""

    is_licensed: bool = False
    version: tuple[int, int] = (0, 0)
    shards: int | None = None

    def fusion(self, *, has_text: bool) -> frozenset[FusionMethod]:
        """Return the methods that fuse exactly as :mod:`st_connectors.fusion` does.

        With text, there are none on several shards, because each shard computes word frequencies for itself.
        """
        if not self.is_licensed or (has_text and self.shards != 1):
            return frozenset()
        weighted = {FusionMethod.RRF_WEIGHTED} if self.version >= _WEIGHTS_SINCE else set()
        return frozenset({FusionMethod.RRF, *weighted})


UNKNOWN = Server()
"""A server that was not queried."""


def server_from(licence: Mapping[str, Any], info: Mapping[str, Any], settings: object) -> Server:
    """Return the server of the answers to ``/_license``, ``/`` and ``_settings`` of a collection."""
    entry = licence.get("license")
    fields = entry if isinstance(entry, Mapping) else {}
    number = re.match(r"(\d+)\.(\d+)", str((info.get("version") or {}).get("number")))
    return Server(
        fields.get("status") == "active" and fields.get("type") in _LICENCES,
        (int(number[1]), int(number[2])) if number else (0, 0),
        count_shards(settings),
    )

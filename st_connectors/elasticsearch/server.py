"""What depends on the server's licence and version, from what it says of itself; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from st_connectors._lucene.answers import shards_in
from st_connectors.schema import FusionMethod

__all__ = ["UNKNOWN", "Server", "server_from"]

_LICENCES = frozenset({"enterprise", "trial"})
"""Those with which the ``rrf`` retriever answers; all others answer 403 with "current license is non-compliant"."""
_WEIGHTS_SINCE = (9, 2)


@dataclass(frozen=True, slots=True)
class Server:
    """Whether the licence has retrievers that fuse, the version, and over how many shards a collection is spread (None where that is not known)."""

    licensed: bool = False
    version: tuple[int, int] = (0, 0)
    shards: int | None = None

    def fusion(self, *, text: bool) -> frozenset[FusionMethod]:
        """What fuses as the reference does for a collection with or without text, whose rarity of words each shard would count for itself."""
        if not self.licensed or (text and self.shards != 1):
            return frozenset()
        weights = {FusionMethod.RRF_WEIGHTED} if self.version >= _WEIGHTS_SINCE else set()
        return frozenset({FusionMethod.RRF, *weights})


UNKNOWN = Server()
"""A server that was not asked."""


def server_from(licence: Mapping[str, Any], info: Mapping[str, Any], settings: object) -> Server:
    """What a server says by ``/_license``, ``/`` and ``_settings`` of a collection."""
    told = licence.get("license")
    known = told if isinstance(told, Mapping) else {}
    number = re.match(r"(\d+)\.(\d+)", str((info.get("version") or {}).get("number")))
    return Server(
        known.get("status") == "active" and known.get("type") in _LICENCES,
        (int(number[1]), int(number[2])) if number else (0, 0),
        shards_in(settings),
    )

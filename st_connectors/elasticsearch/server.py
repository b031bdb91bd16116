"""Interpret what a server reports about its licence, version and shards, without requests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from st_connectors._lucene.answers import count_shards
from st_connectors.schema import FusionMethod

__all__ = ["UNKNOWN", "Server", "server_from"]

_LICENCES = frozenset({"enterprise", "trial"})
"""The licences that include the ``rrf`` retriever; with other licences the server returns the status 403 and the
message "current license is non-compliant"."""
_WEIGHTS_SINCE = (9, 2)


@dataclass(frozen=True, slots=True)
class Server:
    """The properties of a server: whether its licence includes fusion, its version, and the shards of a collection.

    ``shards`` is None if the server has not reported it.
    """

    is_licensed: bool = False
    version: tuple[int, int] = (0, 0)
    shards: int | None = None

    def fusion(self, *, has_text: bool) -> frozenset[FusionMethod]:
        """Return the fusion methods of the server whose results equal those of :mod:`st_connectors.fusion`.

        For a collection with text fields on several shards there are none, because each shard computes word frequencies
        from its own documents only.
        """
        if not self.is_licensed or (has_text and self.shards != 1):
            return frozenset()
        weighted = {FusionMethod.RRF_WEIGHTED} if self.version >= _WEIGHTS_SINCE else set()
        return frozenset({FusionMethod.RRF, *weighted})


UNKNOWN = Server()
"""A server that has not been queried yet."""


def server_from(licence: Mapping[str, Any], info: Mapping[str, Any], settings: object) -> Server:
    """Return the server that the responses to ``/_license``, ``/`` and ``_settings`` of a collection describe."""
    entry = licence.get("license")
    fields = entry if isinstance(entry, Mapping) else {}
    number = re.match(r"(\d+)\.(\d+)", str((info.get("version") or {}).get("number")))
    return Server(
        fields.get("status") == "active" and fields.get("type") in _LICENCES,
        (int(number[1]), int(number[2])) if number else (0, 0),
        count_shards(settings),
    )

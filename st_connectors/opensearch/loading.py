"""An index's loading settings by opensearch-py's connections."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from st_connectors._lucene import loading as lucene
from st_connectors.opensearch.client import Opened, open_client
from st_connectors.plugin import Address

__all__ = ["loading"]


@dataclass(frozen=True, slots=True, eq=False)
class _Settings:
    """The settings of the indices behind a name."""

    opened: Opened
    name: str

    def read(self) -> Mapping[str, Mapping[str, Any]]:
        """By index."""
        path = f"/{quote(self.name, safe='')}/_settings"
        answer = self.opened.send("bulk_loading", "GET", path, params={"flat_settings": "true"})
        return {index: held["settings"] for index, held in answer.items()}

    def write(self, index: str, settings: Mapping[str, Any]) -> None:
        """Set."""
        path = f"/{quote(index, safe='')}/_settings"
        self.opened.send("bulk_loading", "PUT", path, dict(settings), holds="acknowledged")

    def refresh(self) -> None:
        """Make what was written visible."""
        self.opened.send("bulk_loading", "POST", f"/{quote(self.name, safe='')}/_refresh")

    def close(self) -> None:
        """Give back the client."""
        self.opened.close()


def loading(address: Address, collection: str, client: object | None) -> AbstractContextManager[None]:
    """Loading settings for the block."""
    return lucene.loading(_Settings(open_client(address, client), collection))

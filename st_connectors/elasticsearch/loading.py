"""An index's loading settings by elasticsearch-py."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from st_connectors._lucene import loading as lucene
from st_connectors.elasticsearch.client import Opened, border, open_client
from st_connectors.plugin import Address

__all__ = ["loading"]


@dataclass(frozen=True, slots=True, eq=False)
class _Settings:
    """The settings of the indices behind a name."""

    opened: Opened
    name: str

    def read(self) -> Mapping[str, Mapping[str, Any]]:
        """By index."""
        with border(self.opened.name, "bulk_loading"):
            answer = self.opened.client.indices.get_settings(index=self.name, flat_settings=True)
        return {index: held["settings"] for index, held in answer.body.items()}

    def write(self, index: str, settings: Mapping[str, Any]) -> None:
        """Set."""
        with border(self.opened.name, "bulk_loading"):
            self.opened.client.indices.put_settings(index=index, settings=dict(settings))

    def refresh(self) -> None:
        """Make what was written visible."""
        with border(self.opened.name, "bulk_loading"):
            self.opened.client.indices.refresh(index=self.name)

    def close(self) -> None:
        """Give back the client."""
        self.opened.close()


def loading(address: Address, collection: str, client: object | None) -> AbstractContextManager[None]:
    """Loading settings for the block."""
    return lucene.loading(_Settings(open_client(address, client), collection))

"""The functions of a plugin, which import the modules that need the client when they are called."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from st_connectors.plugin import Address
from st_connectors.schema import FilterKind, Schema
from st_connectors.store import Capabilities, Store

__all__ = ["Entry"]


@dataclass(frozen=True, slots=True)
class Entry:
    """The way into an engine's package with its modules ``store`` and ``loading``; ``drivers`` are the client's modules, which ``extra`` installs."""

    package: str
    extra: str
    drivers: tuple[str, ...]
    capabilities: Capabilities

    def _module(self, name: str) -> Any:
        try:
            return import_module(f"{self.package}.{name}")
        except ModuleNotFoundError as error:
            if error.name not in self.drivers:
                raise
            raise ImportError(f"{error.name} is missing: pip install 'st-connectors[{self.extra}]'") from error

    def connect(self, address: Address, collection: str, schema: Schema | None, client: object | None) -> Store:
        """A store for a schema, or of a collection that is there."""
        connected: Store = self._module("store").connected(address, collection, schema, client, self.capabilities)
        return connected

    def adopt(
        self, address: Address, collection: str, filterable: Mapping[str, FilterKind], client: object | None
    ) -> Store:
        """A store on an index that somebody else made."""
        adopted: Store = self._module("store").adopted(address, collection, filterable, client, self.capabilities)
        return adopted

    def loading(self, address: Address, collection: str, client: object | None) -> AbstractContextManager[None]:
        """A block in which an index has the settings for loading much at once."""
        block: AbstractContextManager[None] = self._module("loading").loading(address, collection, client)
        return block

    def collections(self, address: Address, client: object | None) -> list[str]:
        """The names of our collections."""
        return list(self._module("store").collections(address, client))

"""Plugins: how a store is found, opened and adopted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlencode

from st_connectors.schema import FilterKind, Schema
from st_connectors.sizing import Sizing
from st_connectors.store import Capabilities, Store

__all__ = ["CONTRACT", "Address", "Adopt", "Connect", "Loading", "Plugin"]


CONTRACT = 1
"""The number of this contract; a plugin names the one it was written for."""


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed store address such as ``qdrant+grpc://host:6334?timeout=5`` or ``qdrant+edge:./library``.

    ``name`` is the plugin's; ``variants`` what follows it after plus signs; ``path`` is for embedded stores, ``host`` and ``port`` for servers. No secrets.
    """

    name: str
    variants: tuple[str, ...] = ()
    host: str | None = None
    port: int | None = None
    path: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def scheme(self) -> str:
        """The part before the colon."""
        return "+".join((self.name, *self.variants))

    def __str__(self) -> str:
        where = self.path
        if self.host:
            host = f"[{self.host}]" if ":" in self.host else self.host
            where = f"//{host}{f':{self.port}' if self.port else ''}{self.path}"
        options = urlencode(self.options)
        return f"{self.scheme}:{where}{'?' if options else ''}{options}"


class Connect(Protocol):
    """Opens one collection of a store."""

    def __call__(self, address: Address, collection: str, schema: Schema | None, client: object | None) -> Store:
        """With a schema, a store on which ``create`` may be called; without, the existing collection, or ``NotFound``.

        ``client`` is the driver's own client object where the caller brings one; the store then does not close it.
        """
        ...


class Adopt(Protocol):
    """Opens a collection that somebody else made, as it is: its fields are read from the store, its payloads and ids left as they are."""

    def __call__(
        self, address: Address, collection: str, filterable: Mapping[str, FilterKind], client: object | None
    ) -> Store:
        """A store whose schema has every vector field that this contract can name; ``create`` makes nothing and ``drop`` is refused.

        ``filterable`` says of what kind payload keys are, beside those that the store has an index for. Raises ``NotFound``.
        """
        ...


class Loading(Protocol):
    """Sets a collection for loading much at once."""

    def __call__(self, address: Address, collection: str, client: object | None) -> AbstractContextManager[None]:
        """A block in which the collection has the store's settings for loading; after it, it has those that were found, whatever happened."""
        ...


@dataclass(frozen=True, slots=True)
class Plugin:
    """How a store is found and opened; importing one must not import its client.

    ``variants`` are the scheme variants it understands ("", "edge", "memory", "grpc", "https"), with one line about each; ``extra`` is what to install.
    ``sizing`` has the figures that advice reckons with by variant, "" for all others.
    """

    name: str
    extra: str | None
    variants: Mapping[str, str]
    capabilities: Capabilities
    connect: Connect
    collections: Callable[[Address, object | None], list[str]]
    contract: int = CONTRACT
    adopt: Adopt | None = None
    loading: Loading | None = None
    sizing: Mapping[str, Sizing] = field(default_factory=dict)

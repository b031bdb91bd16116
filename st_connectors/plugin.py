"""Plugins: how a store type is found, opened and adopted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol
from urllib.parse import urlencode

from st_connectors.schema import FilterKind, Schema
from st_connectors.sizing import Sizing
from st_connectors.store import Capabilities, Store

__all__ = [
    "CONTRACT",
    "Address",
    "Adopt",
    "Connect",
    "DescribedStore",
    "Description",
    "Loading",
    "Place",
    "Plugin",
    "Replacement",
    "Replacing",
    "SchemaStore",
]


CONTRACT = 1
"""The version of the plugin contract; a plugin states the version for which it was written."""


class Place(StrEnum):
    """What an address names after its scheme."""

    SERVER = "server"
    """A server: ``//HOST:PORT``."""
    PATH = "path"
    """A folder or a file; ``~`` at its start is replaced by the home folder."""
    NAME = "name"
    """A name that is valid in this process."""


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed store address without secrets: ``qdrant+grpc://host:6334?timeout=5``, ``qdrant+edge:./library``.

    ``name`` is the name of the plugin, and ``variants`` are the parts of the scheme that follow it after plus signs.
    Embedded stores have a ``path``, servers a ``host`` and a ``port``.
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
    """Open one collection of a store."""

    def __call__(self, address: Address, collection: str, schema: Schema | None, client: object | None) -> Store:
        """Return a store.

        If ``schema`` is passed, the collection need not exist, and ``create`` creates it; without a schema the
        collection must exist, else ``NotFound`` is raised. ``client`` is a client object of the driver to use instead
        of a new one; the store does not close it.
        """
        ...


class Adopt(Protocol):
    """Open a collection that someone else created, with its own fields, payloads and ids."""

    def __call__(
        self, address: Address, collection: str, filterable: Mapping[str, FilterKind], client: object | None
    ) -> Store:
        """Return a store whose schema has every vector field that this contract can describe.

        ``create`` does nothing and ``drop`` raises ``Unsupported``. ``filterable`` maps further payload keys to kinds,
        in addition to those that the store has an index for. Raises ``NotFound`` if the collection does not exist.
        """
        ...


@dataclass(frozen=True, slots=True)
class Description:
    """What a store reports about a collection.

    ``name`` is the collection's own name, which differs from the requested name if that is an alias. ``aliases`` are
    its other names, sorted. ``size`` is the size of its files in bytes, None if the store does not report it.
    ``options`` are the settings that the store reports, as plain values for JSON.
    """

    name: str
    aliases: tuple[str, ...] = ()
    size: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


class DescribedStore(Store, Protocol):
    """A store that has aliases, files or settings to report; an adapter without them has no such method."""

    def own_name(self) -> str:
        """Return the collection's own name, which differs from the name by which it was opened if that is an alias."""
        ...

    def describe(self) -> Description:
        """Return the description of the collection; raise ``NotFound`` if it does not exist."""
        ...


class SchemaStore(Store, Protocol):
    """A store that reads the schemas of collections at its address; without it, another connection is made for each."""

    def stored_schema(self, collection: str) -> Schema | None:
        """Return the schema that a collection of exactly this name stores now, or None if it does not exist."""
        ...


class Loading(Protocol):
    """Change a collection's settings for bulk loading."""

    def __call__(self, address: Address, collection: str, client: object | None) -> AbstractContextManager[None]:
        """Return a context manager that applies the settings for bulk loading and restores the previous settings."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Replacement:
    """A store for a new collection, and the function that puts it in the place of the existing one.

    ``put_in_place`` is atomic: searches use either collection completely, and the old one is deleted.
    """

    store: Store
    put_in_place: Callable[[], None]


class Replacing(Protocol):
    """Prepare the replacement of a collection."""

    def __call__(
        self, address: Address, collection: str, schema: Schema, client: object | None
    ) -> AbstractContextManager[Replacement]:
        """Return a context manager that yields the replacement, which is not created yet.

        Inside the block the existing collection refuses writes. If the block ends before the replacement is in place,
        the replacement is deleted and the existing collection is what it was. A replacement that a process left when it
        was killed is deleted first. Raises ``NotFound`` if the collection does not exist.
        """
        ...


@dataclass(frozen=True, slots=True)
class Plugin:
    """A store type: how it is found and opened; importing a plugin must not import its client.

    ``variants`` maps the variants of the scheme ("", "edge", "memory", "grpc", "https") to a description of one line.
    ``extra`` is the extra to install. ``sizing`` maps variants to sizing figures; "" applies to all other variants.
    ``places`` maps variants to what their addresses name; addresses of other variants are parsed without this check.
    ``replacing`` prepares a collection that takes the place of another one; None if the store has no such step.
    ``secrets`` are the environment variables of keys and passwords, for messages; empty for a store without any.
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
    places: Mapping[str, Place] = field(default_factory=dict)
    replacing: Replacing | None = None
    secrets: tuple[str, ...] = ()

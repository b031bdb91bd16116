"""Open stores by address: ``open_store("qdrant+edge:./library", "books")``.

Stores are entry points of the group ``st_connectors.stores``; any package can add one. Parsing an address and listing
the stores imports no store's client.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import cast
from urllib.parse import parse_qsl, urlsplit

from st_connectors.errors import NotFound, Refused, SchemaMismatch, StoreError, Unavailable, Unsupported
from st_connectors.layers.fusing import fusing
from st_connectors.layers.guard import guarded
from st_connectors.layers.isolate import isolating
from st_connectors.layers.passing import Passing
from st_connectors.layers.retry import RetryPolicy, retried, retrying
from st_connectors.layers.speculate import speculating
from st_connectors.plugin import (
    CONTRACT,
    Address,
    DescribedStore,
    Description,
    Place,
    Plugin,
    Replacement,
    SchemaStore,
)
from st_connectors.schema import FilterKind, Migration, Schema, successor_of
from st_connectors.store import Store
from st_core.home import expand_home

__all__ = [
    "absolute_address",
    "adopt_store",
    "bulk_loading",
    "check_current",
    "check_own_name",
    "collections",
    "describe_collection",
    "explain_missing",
    "open_store",
    "parse_address",
    "plugins",
    "replacing",
    "stored_schema",
    "wrapped",
]

GROUP = "st_connectors.stores"
_SCHEME = re.compile(r"[a-z][a-z0-9_-]*(?:\+[a-z0-9_-]+)*")
_SECRET = re.compile(r"(?i)key|token|secret|passw|auth|credential")


def open_store(
    url: str,
    collection: str,
    schema: Schema | None = None,
    *,
    client: object | None = None,
    retry: RetryPolicy | None = None,
    follow: bool = True,
) -> Store:
    """Open a collection.

    If ``schema`` is passed, the collection need not exist, and ``create`` creates it; without a schema the collection
    must exist, else ``NotFound`` is raised. ``client`` is a client object of the store's driver to use instead of a new
    one; the store does not close it. Raises ValueError for an invalid address and ImportError if the extra of the store
    is not installed.

    Without a schema, a name that was migrated opens the collection for which it stands now, and the store stays with
    this collection if the name is migrated again; its ``drop`` drops all collections of the name. With
    ``follow=False`` the collection of exactly this name is opened.
    """
    if not collection:
        raise ValueError("a collection needs a name, and this one is empty")
    if schema is not None and schema.collection != collection:
        raise ValueError(f"the schema is for collection {schema.collection!r}, not {collection!r}")
    address = _parse(url, client)
    plugin = _plugin_of(address)
    with _explain_missing(plugin):
        adapter = plugin.connect(address, collection, schema, client)
    check_drop = partial(_check_drop, adapter, collection, plugin, address, client)
    migration = adapter.schema.migration if follow and schema is None and successor_of(adapter.schema) else None
    if migration is not None:
        adapter.close()
        adapter = _connect_current(plugin, address, migration, client)
        check_drop = partial(_drop_others, plugin, address, migration, client)
    store = wrapped(adapter, name=plugin.name, retry=retry, check_drop=check_drop)
    if hasattr(adapter, "stored_schema"):
        return store
    return _Connecting(store, partial(stored_schema, url, client=client, retry=retry))


def _connect_current(plugin: Plugin, address: Address, migration: Migration, client: object | None) -> Store:
    """Connect to the collection for which a name stands since a migration."""
    try:
        return plugin.connect(address, migration.current, None, client)
    except NotFound as error:
        message = (
            f"{migration.root!r} was migrated to {migration.current!r}, and this collection does not exist: undo the "
            "migration (st-connectors migrate --back)"
        )
        raise NotFound(message, store=plugin.name, operation="connect") from error


def _drop_others(plugin: Plugin, address: Address, migration: Migration, client: object | None) -> None:
    """Drop the collections of a name that are not its current one; the first one, so that the name is gone, first."""
    for name in dict.fromkeys((migration.root, migration.previous or migration.root)):
        try:
            with closing(plugin.connect(address, name, None, client)) as adapter:
                adapter.drop()
        except NotFound:
            continue


def stored_schema(
    url: str, collection: str, *, client: object | None = None, retry: RetryPolicy | None = None
) -> Schema:
    """Return the schema that a collection of exactly this name stores now; raise ``NotFound`` if it does not exist."""

    def read() -> Schema:
        with closing(open_store(url, collection, client=client, follow=False)) as store:
            return store.schema

    return retried(read, retry)


def check_current(store: Store) -> None:
    """Raise an error unless the name of a store's collection stands for this collection, and accepts writes.

    ``store`` is the result of ``open_store``. Raises ``SchemaMismatch`` if the name was migrated to another collection,
    and ``Unavailable`` while a migration is about to do so.
    """
    own_name, known = store.schema.collection, store.schema.migration
    is_further = known is not None and known.current == own_name
    schema = cast("SchemaStore", store).stored_schema(known.root if known is not None and is_further else own_name)
    migration = None if schema is None else schema.migration
    if migration is None or schema is None or migration.root != schema.collection:
        return
    if migration.current != own_name:
        message = (
            f"{migration.root!r} has been migrated from {own_name!r} to {migration.current!r}, which may lack this "
            "write: open the collection again and repeat it"
        )
        raise SchemaMismatch(message, store="index", operation="write")
    if migration.is_switching:
        message = (
            f"a migration of {migration.root!r} is about to complete and may lack this write: repeat it in a moment; "
            "if the migration was killed, run it again, or undo it (st-connectors migrate --back)"
        )
        raise Unavailable(message, store="index", operation="write")


class _Connecting(Passing):
    """A store whose adapter cannot read schemas, so that another connection is made for each."""

    def __init__(self, store: Store, read: Callable[[str], Schema]) -> None:
        super().__init__(store)
        self._read = read

    def stored_schema(self, collection: str) -> Schema | None:
        try:
            return self._read(collection)
        except NotFound:
            return None


def adopt_store(
    url: str,
    collection: str,
    *,
    filterable: Mapping[str, FilterKind] | None = None,
    client: object | None = None,
    retry: RetryPolicy | None = None,
) -> Store:
    """Open a collection that someone else created, without changing it.

    ``filterable`` maps further payload keys to kinds, in addition to those that the store has an index for. Raises
    ``NotFound`` if the collection does not exist and ``Unsupported`` if the store cannot adopt collections.
    """
    address = _parse(url, client)
    plugin = _plugin_of(address)
    if plugin.adopt is None:
        message = "this store opens only collections created by st-connectors: use Index.open"
        raise Unsupported(message, store=plugin.name, operation="adopt")
    with _explain_missing(plugin):
        adapter = plugin.adopt(address, collection, filterable or {}, client)
    return wrapped(adapter, name=plugin.name, retry=retry)


@contextmanager
def bulk_loading(url: str, collection: str, *, client: object | None = None) -> Iterator[None]:
    """Apply the bulk-loading settings of a store to a collection for the duration of a ``with`` block.

    Elasticsearch and OpenSearch pause refreshes and replicas, so that searches return the written records only after
    the block; a Qdrant server builds no graph until then. ``Capabilities.bulk_loading`` lists the settings; if it is
    empty, this context manager does nothing. All settings are restored afterwards, also if the block raises an error,
    but not if the process is killed. Blocks may be nested. Raises ``NotFound`` if the collection does not exist.
    """
    address = _parse(url, client)
    plugin = _plugin_of(address)
    if plugin.loading is None:
        yield
        return
    with _explain_missing(plugin):
        block = plugin.loading(address, collection, client)
    with block:
        yield


@contextmanager
def replacing(
    url: str, collection: str, schema: Schema, *, client: object | None = None, retry: RetryPolicy | None = None
) -> Iterator[Replacement]:
    """Prepare the replacement of a collection by another one for the duration of a ``with`` block.

    Yields the store of the new collection, which is not created yet, with all layers, and the function that puts it in
    place. Inside the block the existing collection refuses writes. Raises ``Unsupported`` for stores that cannot put a
    collection in the place of another.
    """
    address = _parse(url, client)
    plugin = _plugin_of(address)
    if plugin.replacing is None:
        message = "this store cannot put a copy in the place of a collection: copy it under another name"
        raise Unsupported(f"{message} (st-connectors copy --into NAME)", store=plugin.name, operation="alter")
    with _explain_missing(plugin):
        block = plugin.replacing(address, collection, schema, client)
    with block as replacement:
        yield replace(replacement, store=wrapped(replacement.store, name=plugin.name, retry=retry))


def wrapped(
    adapter: Store, *, name: str, retry: RetryPolicy | None = None, check_drop: Callable[[], None] | None = None
) -> Store:
    """Return an adapter wrapped in all layers; adapters are always used in this form.

    ``name`` is used in messages. ``check_drop`` is called before the collection is dropped, and raises to prevent it.
    """
    return guarded(fusing(isolating(retrying(speculating(adapter), retry))), name=name, check_drop=check_drop)


def describe_collection(url: str, collection: str, *, client: object | None = None) -> Description:
    """Return what a store reports about a collection: its own name, aliases, size and settings.

    A name that was migrated is that of the collection for which it stands. Raises ``NotFound`` if there is neither a
    collection nor an alias of this name.
    """
    address = _parse(url, client)
    plugin = _plugin_of(address)
    with _explain_missing(plugin):
        adapter = plugin.connect(address, collection, None, client)
    with closing(adapter):
        successor = successor_of(adapter.schema)
        if successor is None:
            return _describe(adapter, collection)
    with closing(plugin.connect(address, successor, None, client)) as adapter:
        return _describe(adapter, successor)


def _describe(adapter: Store, collection: str) -> Description:
    return cast("DescribedStore", adapter).describe() if hasattr(adapter, "describe") else Description(collection)


def check_own_name(collection: str, own_name: str, *, store: str) -> None:
    """Raise ``Refused`` if a collection that is to be dropped was named by an alias."""
    if own_name != collection:
        message = (
            f"{collection!r} is an alias of the collection {own_name!r}: drop the collection by its own name, "
            "or remove only the alias with a tool of the store"
        )
        raise Refused(message, store=store, operation="drop")


def _check_drop(adapter: Store, collection: str, plugin: Plugin, address: Address, client: object | None) -> None:
    """Raise ``Refused`` if ``collection`` is an alias, or a name was migrated to it; an absent one is accepted."""
    if hasattr(adapter, "own_name"):
        try:
            own_name = cast("DescribedStore", adapter).own_name()
        except NotFound:
            return
        except StoreError as error:
            error.operation = "drop"  # the operation that the caller requested
            raise
        check_own_name(collection, own_name, store=plugin.name)
    migration = adapter.schema.migration
    if migration is None or migration.root == collection or migration.current != collection:
        return
    try:
        with closing(plugin.connect(address, migration.root, None, client)) as root:
            is_current = successor_of(root.schema) == collection
    except NotFound:
        return
    if is_current:
        message = f"{migration.root!r} stands for {collection!r} since a migration: drop {migration.root!r}"
        raise Refused(message, store=plugin.name, operation="drop")


def collections(url: str, *, client: object | None = None) -> list[str]:
    """Return the sorted names of the collections that this package created at an address."""
    address = _parse(url, client)
    plugin = _plugin_of(address)
    with _explain_missing(plugin):
        return sorted(plugin.collections(address, client))


def plugins() -> Mapping[str, Plugin]:
    """Return the installed plugins by name.

    Raises RuntimeError if two packages have plugins of the same name, or if a plugin was written for another version of
    the contract.
    """
    return {name: _load(name) for name in _points()}


@cache
def _points() -> Mapping[str, EntryPoint]:
    points: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        known = points.setdefault(point.name, point)
        if known.value != point.value:
            raise RuntimeError(
                f"two packages have the store {point.name!r}: {known.value} and {point.value}; uninstall one"
            )
    return points


@cache
def _load(name: str) -> Plugin:
    point = _points()[name]
    plugin = point.load()
    what = f"the entry point {name} = {point.value} of group {GROUP}"
    if not isinstance(plugin, Plugin):
        raise TypeError(f"{what} must be a Plugin, not {type(plugin).__name__}")
    if plugin.contract != CONTRACT:
        raise RuntimeError(
            f"{what} is written for contract {plugin.contract}, not {CONTRACT}: install matching versions"
        )
    return plugin


def parse_address(url: str) -> Address:
    """Parse an address: ``memory:``, ``qdrant+edge:PATH``, ``qdrant+grpc+https://host:6334/prefix?timeout=5``.

    ``~`` at the start of a path is replaced by the home folder. Raises ValueError for a scheme or variant that no
    installed store has, for a server without ``//``, for a path with ``//``, and for secrets, which an address must not
    contain.
    """
    return _parse(url)


def _parse(url: str, client: object | None = None) -> Address:
    """Parse an address; with a client, which has its own connection, the address may end after its scheme."""
    if not isinstance(url, str):
        raise TypeError(f"an address must be a string such as qdrant+edge:PATH, not {type(url).__name__}")
    scheme, colon, rest = url.partition(":")
    if not colon or not _SCHEME.fullmatch(scheme):
        raise ValueError(f"expected an address SCHEME:PATH or SCHEME://HOST:PORT{_list_schemes()}")
    name, *variants = scheme.split("+")
    body, _, query = rest.partition("?")
    address = Address(name, tuple(variants), options=_options(query, name))
    place = _place_of(address)
    host, port, path = _server(scheme, body) if body.startswith("//") else (None, None, body)
    if body or client is None:
        _check_place(address, place, body, host)
    return replace(address, host=host, port=port, path=expand_home(path) if place is Place.PATH else path)


def absolute_address(url: str) -> str:
    """Return an address that is valid in any folder: the path of an embedded store becomes absolute."""
    address = _parse(url)
    if _place_of(address) is Place.PATH:
        address = replace(address, path=str(Path(address.path).absolute()))
    return str(address)


def _place_of(address: Address) -> Place | None:
    """Return what an address names; None if its plugin does not say."""
    places = _plugin_of(address).places
    return next((places[variant] for variant in address.variants or ("",) if variant in places), None)


def _check_place(address: Address, place: Place | None, body: str, host: str | None) -> None:
    """Raise ValueError if the part of an address after its scheme, ``body``, does not fit what the address names."""
    scheme = address.scheme
    if place is None:
        if body.startswith("//") and not host:
            raise ValueError(f"the address {scheme}:{body} has no host: write {scheme}://HOST:PORT, or {scheme}:PATH")
    elif place is Place.SERVER and not host:
        raise ValueError(f"{scheme} is a server: write {scheme}://HOST:PORT{_or_path(address.name)}")
    elif place is not Place.SERVER and body.startswith("//"):
        raise ValueError(f"{scheme} is not a server: write {scheme}:{place.upper()}, without //, not {scheme}:{body}")
    elif place is Place.PATH and not body:
        raise ValueError(f"{scheme} needs a path: write {scheme}:PATH, with . for the current folder")


def _or_path(name: str) -> str:
    """Return the end of a message: the addresses of a plugin that are paths."""
    places = _load(name).places
    return "".join(
        f", or for a folder {name}+{variant}:PATH" for variant, place in places.items() if place is Place.PATH
    )


def _server(scheme: str, body: str) -> tuple[str | None, int | None, str]:
    try:
        parts = urlsplit(body)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"the address {scheme}://… has no valid host and port") from error
    if "@" in parts.netloc:
        raise ValueError(f"an address must not contain a user or password: {_how_to_sign_in(scheme.partition('+')[0])}")
    return host, port, parts.path


def _how_to_sign_in(store: str) -> str:
    """Return the end of a message: where the keys and passwords of a store come from."""
    secrets = _load(store).secrets if store in _points() else ()
    variables = f"use the environment ({', '.join(secrets)}), or " if secrets else ""
    return f"{variables}pass a client object"


def _options(query: str, store: str) -> dict[str, str]:
    options: dict[str, str] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError as error:
        raise ValueError("expected options of an address as ?name=value&name=value") from error
    for name, value in pairs:
        if _SECRET.search(name):
            raise ValueError(
                f"option {name!r} looks like a secret, which an address must not contain: {_how_to_sign_in(store)}"
            )
        if name in options:
            raise ValueError(f"the address repeats option {name!r}")
        options[name] = value
    return options


def _plugin_of(address: Address) -> Plugin:
    """Return the plugin with the scheme of an address."""
    plugin = _load(address.name) if address.name in _points() else None
    if plugin is None or any(variant not in plugin.variants for variant in address.variants or ("",)):
        raise ValueError(f"unknown scheme {address.scheme!r}{_list_schemes(address.scheme)}")
    return plugin


def _list_schemes(scheme: str = "") -> str:
    """Return the end of a message: the known scheme that is most similar to ``scheme``, and all known schemes."""
    known = sorted(
        f"{name}+{variant}" if variant else name for name, plugin in plugins().items() for variant in plugin.variants
    )
    near = difflib.get_close_matches(scheme, known, n=1)
    guess = f"; did you mean {near[0]}:" if near else ""
    return f"{guess}; expected one of {', '.join(f'{one}:' for one in known)}"


@contextmanager
def explain_missing(address: Address) -> Iterator[None]:
    """Convert an error about a missing package of the store of an address to an ImportError that says what to do."""
    with _explain_missing(_plugin_of(address)):
        yield


@contextmanager
def _explain_missing(plugin: Plugin) -> Iterator[None]:
    """Convert an error about a missing package to an ImportError with the command that installs the store's extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        if plugin.extra is None or (error.name or "").split(".")[0] in {"st_connectors", "st_core"}:
            raise
        from st_core.install import install_command

        raise ImportError(
            f"the store {plugin.name!r} needs {error.name}: {install_command(plugin.extra)}", name=error.name
        ) from error

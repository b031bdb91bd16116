"""Finds stores by address: ``open_store("qdrant+edge:./library", "books")``.

Stores are entry points of the group ``st_connectors.stores``; anyone can add one. Reading an address and listing the stores loads no store's client.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from urllib.parse import parse_qsl, urlsplit

from st_connectors.errors import Unsupported
from st_connectors.layers.fusing import fusing
from st_connectors.layers.guard import guarded
from st_connectors.layers.isolate import isolating
from st_connectors.layers.retry import RetryPolicy, retrying
from st_connectors.layers.speculate import speculating
from st_connectors.plugin import CONTRACT, Address, Plugin
from st_connectors.schema import FilterKind, Schema
from st_connectors.store import Store

__all__ = ["adopt_store", "bulk_loading", "collections", "open_store", "parse_address", "plugins", "wrapped"]

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
) -> Store:
    """Open a collection; with a schema ``create`` may be called on it, without one it must exist, else ``NotFound``.

    ``client`` is the driver's own client object where the caller has one; the store does not close it. Raises ValueError for an address that
    is not understood and ImportError where the store's extra is not installed.
    """
    if not collection:
        raise ValueError("a collection needs a name; this one is empty")
    if schema is not None and schema.collection != collection:
        raise ValueError(f"the schema is for collection {schema.collection!r}, not {collection!r}")
    address = parse_address(url)
    plugin = _plugin_of(address)
    with _extra(plugin):
        adapter = plugin.connect(address, collection, schema, client)
    return wrapped(adapter, name=plugin.name, retry=retry)


def adopt_store(
    url: str,
    collection: str,
    *,
    filterable: Mapping[str, FilterKind] | None = None,
    client: object | None = None,
    retry: RetryPolicy | None = None,
) -> Store:
    """Open a collection that somebody else made, as it is; ``filterable`` names payload keys to filter by, beside those the store has an index for.

    Raises ``NotFound`` where there is none and ``Unsupported`` where the store cannot adopt.
    """
    address = parse_address(url)
    plugin = _plugin_of(address)
    if plugin.adopt is None:
        message = "this store holds only collections made here: use Index.open"
        raise Unsupported(message, store=plugin.name, operation="adopt")
    with _extra(plugin):
        adapter = plugin.adopt(address, collection, filterable or {}, client)
    return wrapped(adapter, name=plugin.name, retry=retry)


@contextmanager
def bulk_loading(url: str, collection: str, *, client: object | None = None) -> Iterator[None]:
    """Keep a collection in its store's settings for loading much at once while the block of a ``with`` runs.

    Elasticsearch and OpenSearch make no new segment a second and no copies meanwhile, so that searches see what is written after the block only;
    a Qdrant server builds no graph until then. A store's ``Capabilities.bulk_loading`` names the settings; one that names none has nothing to set,
    and the block does nothing. After it, also when it raises, every setting is as it was found; blocks may lie inside one another, ended in the
    opposite order. Killing the process leaves the settings. Raises NotFound.
    """
    address = parse_address(url)
    plugin = _plugin_of(address)
    if plugin.loading is None:
        yield
        return
    with _extra(plugin):
        block = plugin.loading(address, collection, client)
    with block:
        yield


def wrapped(adapter: Store, *, name: str, retry: RetryPolicy | None = None) -> Store:
    """An adapter in its wrappers, as everyone should use it."""
    return guarded(fusing(isolating(retrying(speculating(adapter), retry))), name=name)


def collections(url: str, *, client: object | None = None) -> list[str]:
    """The names of the collections at an address that this package made, sorted."""
    address = parse_address(url)
    plugin = _plugin_of(address)
    with _extra(plugin):
        return sorted(plugin.collections(address, client))


def plugins() -> Mapping[str, Plugin]:
    """The installed stores by name.

    Raises RuntimeError where two packages give one name or a plugin was written for another contract.
    """
    return {name: _load(name) for name in _points()}


@cache
def _points() -> Mapping[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        known = found.setdefault(point.name, point)
        if known.value != point.value:
            raise RuntimeError(
                f"two packages give the store {point.name!r}: {known.value} and {point.value}; uninstall one"
            )
    return found


@cache
def _load(name: str) -> Plugin:
    point = _points()[name]
    plugin = point.load()
    what = f"the entry point {name} = {point.value} of group {GROUP}"
    if not isinstance(plugin, Plugin):
        raise TypeError(f"{what} must be a Plugin, not {type(plugin).__name__}")
    if plugin.contract != CONTRACT:
        raise RuntimeError(
            f"{what} is written for contract {plugin.contract}, and this is {CONTRACT}: install matching versions"
        )
    return plugin


def parse_address(url: str) -> Address:
    """Take an address apart: ``memory:``, ``qdrant+edge:PATH``, ``qdrant+grpc+https://host:6334/prefix?timeout=5``.

    Raises ValueError for a scheme or variant that no installed store has, and for secrets, which do not belong in an address.
    """
    if not isinstance(url, str):
        raise TypeError(f"an address is a string such as qdrant+edge:PATH, not {type(url).__name__}")
    scheme, colon, rest = url.partition(":")
    if not colon or not _SCHEME.fullmatch(scheme):
        raise ValueError(f"an address is SCHEME:PATH or SCHEME://HOST:PORT{_known()}")
    name, *variants = scheme.split("+")
    body, _, query = rest.partition("?")
    options = _options(query)
    if body.startswith("//"):
        host, port, path = _server(scheme, body)
        address = Address(name, tuple(variants), host, port, path, options)
    else:
        address = Address(name, tuple(variants), path=body, options=options)
    _plugin_of(address)
    return address


def _server(scheme: str, body: str) -> tuple[str, int | None, str]:
    try:
        parts = urlsplit(body)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"the address {scheme}://… has no valid host and port") from error
    if "@" in parts.netloc:
        variable = f"ST_{scheme.partition('+')[0].upper()}_API_KEY"
        raise ValueError(
            f"an address holds no user or password: give them in the environment ({variable}) or hand in a client object"
        )
    if not host:
        raise ValueError(
            f"the address {scheme}:{body} has no host: write {scheme}://HOST:PORT, or for a folder {scheme}:PATH"
        )
    return host, port, parts.path


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError as error:
        raise ValueError("the options of an address are written ?name=value&name=value") from error
    for name, value in pairs:
        if _SECRET.search(name):
            raise ValueError(
                f"option {name!r} looks like a secret, which an address does not hold: give it in the environment or hand in a client object"
            )
        if name in options:
            raise ValueError(f"option {name!r} of the address stands twice")
        options[name] = value
    return options


def _plugin_of(address: Address) -> Plugin:
    """The plugin that understands the scheme of an address."""
    plugin = _load(address.name) if address.name in _points() else None
    if plugin is None or any(variant not in plugin.variants for variant in address.variants or ("",)):
        raise ValueError(f"no store has the scheme {address.scheme!r}{_known(address.scheme)}")
    return plugin


def _known(scheme: str = "") -> str:
    """The known schemes, and the one nearest to what was written."""
    known = sorted(
        f"{name}+{variant}" if variant else name for name, plugin in plugins().items() for variant in plugin.variants
    )
    near = difflib.get_close_matches(scheme, known, n=1)
    guess = f"; did you mean {near[0]}:" if near else ""
    return f"{guess}; known are {', '.join(f'{one}:' for one in known)}"


@contextmanager
def _extra(plugin: Plugin) -> Iterator[None]:
    """Tell how to install what a store needs, where it is not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        if plugin.extra is None or (error.name or "").split(".")[0] in {"st_connectors", "st_core"}:
            raise
        raise ImportError(
            f"the store {plugin.name!r} needs {error.name}: pip install 'st-connectors[{plugin.extra}]'",
            name=error.name,
        ) from error

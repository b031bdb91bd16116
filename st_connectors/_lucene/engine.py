"""The differences between Elasticsearch and OpenSearch, as data and functions that the shared store uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol

from st_connectors._lucene.client import Connection
from st_connectors._lucene.forms import Form, VectorField
from st_connectors._lucene.layout import Body, Layout
from st_connectors._lucene.options import CollectionOptions
from st_connectors._lucene.queries import Dialect, ServerT
from st_connectors.errors import StoreError
from st_connectors.plugin import Address
from st_connectors.schema import Schema
from st_connectors.store import Capabilities, Record

__all__ = ["Engine", "OpenEngine", "PointInTime"]


@dataclass(frozen=True, slots=True)
class PointInTime:
    """The requests of a scan by a point in time.

    ``path`` is the path that opens a point in time, and ``key`` the key of its id in the response. ``closing`` returns
    the body of the request that closes the point in time with an id. ``params`` are the parameters of a page request.
    """

    path: str
    key: str
    closing: Callable[[str], Body]
    params: Mapping[str, str]


class ErrorOf(Protocol):
    """A function that converts an HTTP status and an error body to a store error."""

    def __call__(self, status: int, body: Any, *, store: str, operation: str) -> StoreError:
        """Return the store error for a response, or for one item of a bulk response."""
        ...


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Engine(Generic[ServerT]):
    """An engine with an open connection.

    ``ServerT`` is the type that describes a server. ``unknown`` describes a server that has not been queried yet,
    ``identify`` queries the server before a collection is read, and ``inspect`` adds what the server reports about an
    existing collection. The other functions send no requests, except ``index_body``, which may query the version.
    """

    connection: Connection
    options: CollectionOptions
    dense_option: str
    """The address option that selects the form of dense fields."""
    dialect: Dialect[ServerT]
    scan_order: Callable[[Layout], list[Body]]
    point_in_time: PointInTime
    unknown: ServerT
    identify: Callable[[Connection, str], ServerT]
    inspect: Callable[[Connection, ServerT, str, str], ServerT]
    capabilities: Callable[[Schema, Form, ServerT], Capabilities]
    form_for: Callable[..., Form]
    vector_field: VectorField
    index_body: Callable[[Connection, Schema, Form, ServerT], Body]
    error_of: ErrorOf
    record_problem: Callable[[Form, Record], str | None] = lambda _form, _record: None
    adoption_problem: Callable[[Form, CollectionOptions], str | None] = lambda _form, _options: None


OpenEngine = Callable[[Address, object | None], Engine[ServerT]]
"""A function that opens the engine of an address, with the client of the caller unless it is None; it sends no
request."""

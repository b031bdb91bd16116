"""What Elasticsearch and OpenSearch do differently, as data and functions that the shared store calls."""

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
    """Requests of a scan.

    ``path`` opens a point in time, ``key`` is the key of its id, ``closing`` the body that closes it, ``params`` are
    those of a page.
    """

    path: str
    key: str
    closing: Callable[[str], Body]
    params: Mapping[str, str]


class ErrorOf(Protocol):
    """Function that turns an HTTP status and an error body into a store error."""

    def __call__(self, status: int, body: Any, *, store: str, operation: str) -> StoreError:
        """Return the error of an answer or of one of its items."""
        ...


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Engine(Generic[ServerT]):
    """An engine behind an open connection.

    ``ServerT`` describes a server: ``unknown`` is one that was not queried, ``identify`` queries it before a collection
    is read, and ``inspect`` adds what the server reports about an existing collection. The other functions are pure,
    except ``index_body``, which may query a version.
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
"""Opens the engine of an address, with the caller's client where there is one; nothing is sent."""

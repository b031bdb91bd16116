"""Open the engine of an Elasticsearch address, and provide the functions of the plugin."""

from __future__ import annotations

from functools import partial

from st_connectors._lucene import store
from st_connectors._lucene.client import Connection
from st_connectors._lucene.engine import Engine, PointInTime
from st_connectors._lucene.forms import Form
from st_connectors._lucene.layout import Body
from st_connectors._lucene.names import index_path
from st_connectors._lucene.options import check_choice, check_names, read_collection_options
from st_connectors._lucene.replacing import replacing as replacing_index
from st_connectors.elasticsearch import CAPABILITIES, wire
from st_connectors.elasticsearch.client import open_connection
from st_connectors.elasticsearch.faults import error_of
from st_connectors.elasticsearch.server import UNKNOWN, Server, server_from
from st_connectors.errors import Unsupported
from st_connectors.plugin import Address
from st_connectors.schema import Schema

__all__ = ["adopt", "collections", "connect", "loading", "open_engine", "replacing"]

_OPTIONS = (
    "analyzer",
    "ca",
    "dense_index",
    "fusion",
    "payload",
    "replicas",
    "shards",
    "sparse",
    "timeout",
    "vocabulary",
)
_POINT_IN_TIME = PointInTime("_pit", "id", lambda place: {"id": place}, {})


def open_engine(address: Address, client: object | None) -> Engine[Server]:
    """Return the engine of an address; no request is sent.

    Raises ValueError for unknown or invalid options.
    """
    check_names(address, _OPTIONS)
    fusion = address.options.get("fusion", "client")
    check_choice("fusion", fusion, ("client", "native"))
    options = read_collection_options(address, "sparse", "dense_index", "analyzer", "payload")

    def index_body(connection: Connection, schema: Schema, form: Form, _: Server) -> Body:
        version = str(connection.send("create", "GET", "/", expect="version")["version"]["number"])
        if problem := wire.too_old(version):
            raise Unsupported(problem, store=connection.name, operation="create")
        return wire.index_body(schema, form, version, options.settings)

    return Engine(
        connection=open_connection(address, client),
        options=options,
        dense_option="dense_index",
        dialect=wire.DIALECT,
        scan_order=wire.scan_order,
        point_in_time=_POINT_IN_TIME,
        unknown=UNKNOWN,
        identify=lambda _connection, _operation: UNKNOWN,
        inspect=_inspect if fusion == "native" else lambda _connection, server, _collection, _operation: server,
        capabilities=partial(wire.capabilities_of, CAPABILITIES),
        form_for=wire.form_for,
        vector_field=wire.vector_field,
        index_body=index_body,
        error_of=error_of,
    )


def _inspect(connection: Connection, _: Server, collection: str, operation: str) -> Server:
    """Return the properties of the server that decide whether it can fuse the legs of a collection."""
    licence = connection.send_optional(operation, "/_license")
    if licence is None:
        return UNKNOWN
    only = {"filter_path": "*.settings.index.number_of_shards"}
    settings = connection.send(operation, "GET", f"{index_path(collection)}/_settings", params=only)
    return server_from(licence, connection.send(operation, "GET", "/"), settings)


connect = partial(store.connect, open_engine)
adopt = partial(store.adopt, open_engine)
collections = partial(store.collections, open_engine)
loading = partial(store.loading, open_engine)
replacing = partial(replacing_index, open_engine)

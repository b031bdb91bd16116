"""Open the engine of an OpenSearch address, and provide the functions of the plugin."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from st_connectors._lucene import store
from st_connectors._lucene.answers import count_shards
from st_connectors._lucene.client import Connection
from st_connectors._lucene.engine import Engine, PointInTime
from st_connectors._lucene.forms import Form
from st_connectors._lucene.layout import Body
from st_connectors._lucene.names import index_path
from st_connectors._lucene.options import check_names, read_collection_options
from st_connectors._lucene.replacing import replacing as replacing_index
from st_connectors.errors import Unsupported
from st_connectors.opensearch import CAPABILITIES, wire
from st_connectors.opensearch.client import open_connection
from st_connectors.opensearch.faults import error_of
from st_connectors.opensearch.server import UNKNOWN, Server, server_from
from st_connectors.plugin import Address
from st_connectors.schema import Schema

__all__ = ["adopt", "collections", "connect", "loading", "open_engine", "replacing"]

_OPTIONS = (
    "analyzer",
    "ca",
    "engine",
    "payload",
    "replicas",
    "shards",
    "sparse",
    "timeout",
    "vocabulary",
    *wire.SEISMIC,
)
_POINT_IN_TIME = PointInTime(
    "_search/point_in_time",
    "pit_id",
    lambda place: {"pit_id": [place]},
    {"allow_partial_search_results": "false"},
)


def open_engine(address: Address, client: object | None) -> Engine[Server]:
    """Return the engine of an address; no request is sent.

    Raises ValueError for unknown or invalid options.
    """
    check_names(address, _OPTIONS)
    seismic = wire.seismic_parameters({name: address.options[name] for name in wire.SEISMIC if name in address.options})
    if seismic and address.options.get("sparse") != "seismic":
        raise ValueError(f"{min(seismic)} is for sparse=seismic, which the address does not set")
    if address.options.get("sparse") == "seismic" and "vocabulary" in address.options:
        raise ValueError("the keys of sparse=seismic are indices: leave vocabulary out, or use sparse=rank_features")
    options = read_collection_options(address, "sparse", "engine", "analyzer", "payload")

    def index_body(connection: Connection, schema: Schema, form: Form, server: Server) -> Body:
        if problem := wire.unfit(schema, form, server):
            raise Unsupported(problem, store=connection.name, operation="create")
        return wire.index_body(schema, form, options.settings, seismic)

    return Engine(
        connection=open_connection(address, client),
        options=options,
        dense_option="engine",
        dialect=wire.DIALECT,
        scan_order=wire.scan_order,
        point_in_time=_POINT_IN_TIME,
        unknown=UNKNOWN,
        identify=_identify,
        inspect=_inspect,
        capabilities=partial(wire.capabilities_of, CAPABILITIES),
        form_for=wire.form_for,
        vector_field=wire.vector_field,
        index_body=index_body,
        error_of=error_of,
        record_problem=wire.record_problem,
        adoption_problem=wire.adoption_problem,
    )


def _identify(connection: Connection, operation: str) -> Server:
    """Return the properties of the server; raise ``Unsupported`` unless it is a supported version of OpenSearch."""
    info = connection.send(operation, "GET", "/", expect="version")
    plugins = connection.send_optional(operation, "/_nodes/plugins", {"filter_path": "nodes.*.plugins.name"})
    only = {"include_defaults": "true", "filter_path": "*.indices.query.bool.max_clause_count"}
    server = server_from(info, plugins, connection.send_optional(operation, "/_cluster/settings", only))
    if isinstance(server, str):
        raise Unsupported(server, store=connection.name, operation=operation)
    return server


def _inspect(connection: Connection, server: Server, collection: str, operation: str) -> Server:
    """Return ``server`` with the number of shards of a collection."""
    only = {"filter_path": "*.settings.index.number_of_shards"}
    settings = connection.send_optional(operation, f"{index_path(collection)}/_settings", only)
    return replace(server, shards=count_shards(settings))


connect = partial(store.connect, open_engine)
adopt = partial(store.adopt, open_engine)
collections = partial(store.collections, open_engine)
loading = partial(store.loading, open_engine)
replacing = partial(replacing_index, open_engine)

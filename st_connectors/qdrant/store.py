"""Open Qdrant collections and execute store operations on them through an engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from st_connectors.errors import NotFound, Permanent, Refused, SchemaMismatch, Unsupported
from st_connectors.filters import Filter
from st_connectors.plugin import Address, Description
from st_connectors.qdrant import EDGE, GRPC, MEMORY, REST, wire
from st_connectors.qdrant.engine import Engine, translate_errors
from st_connectors.qdrant.filters import filter_to_qdrant
from st_connectors.qdrant.layout import AdoptedLayout, Layout, OwnLayout, PointId
from st_connectors.schema import FilterKind, Schema, kind_of, reading_schema, schema_difference
from st_connectors.store import Capabilities, Hit, Parts, Record, Rejected, SearchRequest

__all__ = ["QdrantStore", "adopt", "collections", "connect", "open_engine"]

Body = dict[str, Any]

ALTER_BATCH = 200
"""The number of points whose copies of filterable fields are written together."""


def connect(address: Address, collection: str, schema: Schema | None, client: object | None) -> QdrantStore:
    """Open a collection; without a schema the collection must exist.

    Raises ``NotFound`` if it does not exist, and closes the engine before any error is raised.
    """
    engine = open_engine(address, collection, client)
    if schema is not None:
        return QdrantStore(engine, schema)
    with _closing_on_error(engine):
        stored = read_schema(engine, collection, "connect")
        if stored is None:
            raise _not_found(engine, collection, address, "connect")
        with translate_errors(engine, "connect"):
            engine.open()
        return QdrantStore(engine, stored)


def adopt(
    address: Address, collection: str, filterable: Mapping[str, FilterKind], client: object | None
) -> QdrantStore:
    """Open a collection created by someone else; raise ``NotFound`` if it does not exist."""
    engine = open_engine(address, collection, client)
    with _closing_on_error(engine), translate_errors(engine, "adopt"):
        description = engine.description()
        if description is None:
            raise _not_found(engine, collection, address, "adopt")
        schema = wire.to_adopted_schema(collection, description, engine.indexed(), filterable)
        return QdrantStore(engine, schema, AdoptedLayout(schema.filterable))


def collections(address: Address, client: object | None) -> list[str]:
    """Return the names of the collections that this package created at an address."""
    if "edge" in address.variants:
        from st_connectors.qdrant import embedded

        return embedded.collections(_edge_folder(address))
    from st_connectors.qdrant import client as remote

    return remote.collections(address, client)


def open_engine(address: Address, collection: str, client: object | None) -> Engine:
    """Return the engine of an address; no request is sent, and only the driver of this engine is imported."""
    if "edge" in address.variants:
        if client is not None:
            raise TypeError("qdrant+edge connect: the embedded engine has no client object; pass only the folder")
        from st_connectors.qdrant.embedded import EdgeEngine

        return EdgeEngine(_edge_folder(address), collection, EDGE)
    from st_connectors.qdrant.client import ClientEngine, open_client

    connection = open_client(address, client)
    return ClientEngine(connection, collection, MEMORY if connection.local else GRPC if connection.grpc else REST)


def _edge_folder(address: Address) -> str:
    """Return the folder of an embedded store; raise ValueError for an address with options."""
    if address.options:
        raise ValueError(f"qdrant+edge has no options, got {min(address.options)!r}: write qdrant+edge:PATH")
    return address.path


def read_schema(engine: Engine, collection: str, operation: str) -> Schema | None:
    """Read the schema of a collection of this package; return None if the collection does not exist.

    Raises ``SchemaMismatch`` for a collection created by someone else.
    """
    with translate_errors(engine, operation):
        metadata = engine.metadata()
    if metadata is None:
        return None
    if wire.METADATA not in metadata:
        raise SchemaMismatch(
            f"the collection {collection!r} was not created by st-connectors: "
            "use it as it is with Index.adopt (--adopt), or choose another name",
            store=engine.name,
            operation=operation,
        )
    with reading_schema(collection, store=engine.name, operation=operation):
        return Schema.from_json(metadata[wire.METADATA])


def _not_found(engine: Engine, collection: str, address: Address, operation: str) -> NotFound:
    message = f"there is no collection {collection!r} at {address}; create it, or check the name and the address"
    return NotFound(message, store=engine.name, operation=operation)


@contextmanager
def _closing_on_error(engine: Engine) -> Iterator[None]:
    """Close the engine if the block raises an error, because then no store is returned that closes it."""
    try:
        yield
    except BaseException:
        engine.close()
        raise


class QdrantStore:
    """One Qdrant collection, without layers. Safe for use from several threads."""

    def __init__(self, engine: Engine, schema: Schema, layout: AdoptedLayout | None = None) -> None:
        """Store the arguments. No request is sent to the server.

        ``layout`` is passed for adopted collections only.
        """
        self._engine = engine
        self._schema = schema
        self._layout: Layout = OwnLayout(schema) if layout is None else layout
        precision = engine.capabilities.fields
        self._capabilities = replace(
            engine.capabilities,
            fields={name: precision[kind_of(field).value] for name, field in schema.fields.items()},
            alterable=engine.capabilities.alterable if layout is None else frozenset(),
        )
        self._is_closed = False

    @property
    def schema(self) -> Schema:
        """The schema passed to the store; ``create`` verifies that the stored one equals it."""
        return self._schema

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of the engine."""
        return self._capabilities

    def create(self) -> None:
        """Create the collection with its payload indexes; accept an existing one with the same schema."""
        if not isinstance(self._layout, OwnLayout):
            return
        stored = read_schema(self._engine, self._schema.collection, "create")
        if stored is None:
            with self._operation("create"):
                self._engine.create(wire.to_collection_body(self._schema), self._layout.indexes())
            # Another process may have created it first; the stored schema decides.
            stored = read_schema(self._engine, self._schema.collection, "create")
        difference = None if stored is None else schema_difference(stored, self._schema)
        if difference:
            raise SchemaMismatch(difference, store=self._engine.name, operation="create")

    def drop(self) -> None:
        """Remove the collection; raise ``Unsupported`` if it was adopted."""
        if not isinstance(self._layout, OwnLayout):
            message = "the collection was adopted, not created here; remove it with the tool that created it"
            raise Unsupported(message, store=self._engine.name, operation="drop")
        if read_schema(self._engine, self._schema.collection, "drop") is None:
            return
        with self._operation("drop"):
            self._engine.drop()

    def own_name(self) -> str:
        """Return the name of the collection; the name by which it was opened can be an alias."""
        with self._operation("describe"):
            return self._engine.own_name()

    def describe(self) -> Description:
        """Return the own name, aliases, size and settings of the collection."""
        with self._operation("describe"):
            description = self._engine.describe()
        if description is None:
            message = f"there is no collection {self._schema.collection!r}; create it first"
            raise NotFound(message, store=self._engine.name, operation="describe")
        return description

    def alter(self, schema: Schema) -> None:
        """Index further filterable fields, copy their values out of the payloads, then replace the stored schema."""
        if read_schema(self._engine, schema.collection, "alter") is None:
            raise NotFound(f"there is no collection {schema.collection!r}", store=self._engine.name, operation="alter")
        layout = OwnLayout(schema)
        if new := {key: kind for key, kind in layout.indexes().items() if key not in self._layout.indexes()}:
            with self._operation("alter"):
                self._engine.create_indexes(new)
            self._copy_filterable(layout)
        with self._operation("alter"):
            self._engine.update(wire.to_metadata(schema), wire.changed_quantizations(self._schema, schema))
        self._schema, self._layout = schema, layout

    def _copy_filterable(self, layout: OwnLayout) -> None:
        """Write the copies of filterable fields of every point, page by page."""
        body: Body = {"limit": ALTER_BATCH, "with_payload": layout.selector(payload=True), "with_vector": False}
        while True:
            with self._operation("alter"):
                points, next_id = self._engine.scroll(body)
                copies = {point.id: layout.copies(layout.from_payload(point.id, point.payload)[1]) for point in points}
                if changed := {point_id: payload for point_id, payload in copies.items() if payload}:
                    self._engine.set_payloads(changed)
            if next_id is None:
                return
            body = body | {"offset": next_id}

    def stored_schema(self, collection: str) -> Schema | None:
        """Return the schema in the metadata of a collection; None if it does not exist."""
        return read_schema(self._engine.sibling(collection), collection, "describe")

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        """Write complete points; they are acknowledged once they are in the write-ahead log and visible."""
        accepted, rejected = [], []
        for position, record in enumerate(records):
            reason = self._refusal(record.id)
            if reason is None:
                accepted.append(record)
            else:
                error = Refused(reason, store=self._engine.name, operation="upsert")
                rejected.append(Rejected(position, record.id, error))
        if accepted:
            with self._operation("upsert"):
                # Points are converted one by one, because converting a list of a thousand takes 50 % longer.
                self._engine.upsert(wire.to_point(self._schema, self._layout, record) for record in accepted)
        return rejected

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points."""
        with self._operation("delete"):
            self._engine.delete(self._point_ids(ids, "delete"))

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        """Fetch points and return their records in the order of ``ids``."""
        with self._operation("get"):
            points = self._engine.retrieve(self._point_ids(ids, "get"), self._selectors(parts))
        records = {
            record.id: record for record in (wire.to_record(self._schema, self._layout, point) for point in points)
        }
        return [records[each] for each in ids if each in records]

    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        """Send all requests as one batch, except those that cannot have hits because their query is empty."""
        bodies = [wire.to_query_body(self._schema, self._layout, request) for request in requests]
        with self._operation("search"):
            results = iter(self._engine.query([body for body in bodies if body is not None]))
        return [
            [] if body is None else wire.to_hits(self._schema, self._layout, request, next(results))
            for request, body in zip(requests, bodies, strict=True)
        ]

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        """Read all points page by page, in the order of their ids."""
        body: Body = {"limit": batch, **self._selectors(parts), **self._filter(where)}
        while True:
            with self._operation("scan"):
                points, next_id = self._engine.scroll(body)
            yield from (wire.to_record(self._schema, self._layout, point) for point in points)
            if next_id is None:
                return
            body = body | {"offset": next_id}

    def count(self, where: Filter | None = None) -> int:
        """Return the exact number of records that pass a filter."""
        with self._operation("count"):
            return self._engine.count(self._filter(where).get("filter"))

    def refresh(self) -> None:
        """Make writes durable and update the indexes; acknowledged writes are visible without it."""
        with self._operation("refresh"):
            self._engine.refresh()

    def close(self) -> None:
        """Close the engine."""
        if not self._is_closed:
            self._is_closed = True
            self._engine.close()

    @contextmanager
    def _operation(self, operation: str) -> Iterator[None]:
        """Raise ``Permanent`` if the store is closed, and convert errors of the driver to store errors."""
        if self._is_closed:
            raise Permanent("the store is closed; open it again", store=self._engine.name, operation=operation)
        with translate_errors(self._engine, operation):
            yield

    def _refusal(self, record_id: str) -> str | None:
        """Return why the collection cannot have a record with this id; None if it can."""
        stored = self._layout.stored_as(record_id)
        if stored is None:
            return f"an adopted collection expects unsigned integers and UUIDs as ids, got {record_id!r}"
        return None if stored == record_id else f"the id {record_id!r} is another spelling of {stored!r}: write that"

    def _point_ids(self, ids: Sequence[str], operation: str) -> list[PointId]:
        """Return the point id of each distinct record id; record ids that no point can have are skipped.

        Raises ``Refused`` for an id in another spelling than that of its point, because two ids would become one.
        """
        points = {each: self._layout.point_id(each) for each in ids}
        known = {each: point for each, point in points.items() if point is not None}
        for each in known:
            if reason := self._refusal(each):
                raise Refused(reason, store=self._engine.name, operation=operation)
        return list(known.values())

    def _selectors(self, parts: Parts) -> Body:
        return {
            "with_payload": self._layout.selector(payload=Parts.PAYLOAD in parts),
            "with_vector": wire.select_vectors(self._schema, parts),
        }

    def _filter(self, where: Filter | None) -> Body:
        return {} if where is None else {"filter": filter_to_qdrant(where, self._layout)}

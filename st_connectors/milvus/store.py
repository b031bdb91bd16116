"""Open Milvus collections and execute store operations on them.

Milvus Lite and servers differ in how filter values are sent (literals or templates) and in flushing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pymilvus import DataType, Function, FunctionType, MilvusClient
from pymilvus.milvus_client.index import IndexParams

from st_connectors.errors import NotFound, Refused, SchemaMismatch, StoreError, Unsupported
from st_connectors.filters import Filter
from st_connectors.layers.records import size_of
from st_connectors.milvus import CAPABILITIES, embedded, faults, wire
from st_connectors.milvus.client import Connection, open_client
from st_connectors.milvus.columns import collection_name
from st_connectors.milvus.faults import translate_errors
from st_connectors.milvus.filters import Expression, page_after, with_literals
from st_connectors.milvus.layout import Layout, OwnLayout, StorageOptions
from st_connectors.plugin import Address, Description
from st_connectors.schema import FilterKind, Schema, reading_schema, schema_difference
from st_connectors.store import Capabilities, Hit, Parts, Record, Rejected, SearchRequest

__all__ = ["MilvusStore", "adopt", "collections", "connect"]

FLUSH_FROM = 200
"""The number of unflushed rows of Milvus Lite from which ``refresh`` flushes them. Milvus Lite compares unflushed rows
one by one in Python: 200 rows take 30 ms, 20,000 rows take seconds."""


def connect(address: Address, collection: str, schema: Schema | None, client: object | None) -> MilvusStore:
    """Open a collection; without a schema the collection must exist.

    Raises ``NotFound`` if it does not exist, and closes the connection before any error is raised.
    """
    if schema is None and _is_missing_folder(address, client):
        raise _not_found(address, collection, "connect")
    connection = open_client(address, client)
    if schema is not None:
        return MilvusStore(connection, OwnLayout(schema, connection.storage))
    try:
        store = _open_existing(connection, address, collection)
        store.load("connect")
    except BaseException:
        connection.close()
        raise
    return store


def _open_existing(connection: Connection, address: Address, collection: str) -> MilvusStore:
    stored = read_schema(connection, collection, "connect")
    if stored is None:
        raise _not_found(address, collection, "connect")
    return MilvusStore(connection, OwnLayout(*stored))


def adopt(
    address: Address, collection: str, filterable: Mapping[str, FilterKind], client: object | None
) -> MilvusStore:
    """Open a collection created by someone else and load it if necessary; raise ``NotFound`` if it does not exist."""
    if _is_missing_folder(address, client):
        raise _not_found(address, collection, "adopt")
    connection = open_client(address, client)
    driver, options = connection.client, connection.call_options
    try:
        try:
            with translate_errors(connection.name, "adopt"):
                description = driver.describe_collection(collection, **options)
                names = driver.list_indexes(collection, **options)
                indexes = [driver.describe_index(collection, name, **options) for name in names]
        except NotFound as error:
            raise _not_found(address, collection, "adopt") from error
        layout = wire.to_adopted_layout(collection, description, [each for each in indexes if each], filterable)
        store = MilvusStore(connection, layout)
        with translate_errors(connection.name, "adopt"):
            driver.load_collection(collection, **options)
    except BaseException:
        connection.close()
        raise
    return store


def collections(address: Address, client: object | None) -> list[str]:
    """Return the names of the collections created by this package."""
    if _is_missing_folder(address, client):
        return []
    connection = open_client(address, client)
    driver, options = connection.client, connection.call_options
    try:
        with translate_errors(connection.name, "collections"):
            names = driver.list_collections(**options)
            stored = [wire.parse_name(driver.describe_collection(name, **options)) for name in names]
    finally:
        connection.close()
    return [name for name in stored if name is not None]


def _is_missing_folder(address: Address, client: object | None) -> bool:
    """Return whether opening the address would create new files of Milvus Lite."""
    return client is None and "lite" in address.variants and not embedded.exists(address)


def _not_found(address: Address, collection: str, operation: str) -> NotFound:
    message = f"there is no collection {collection!r} at {address}; create it, or check the name and the address"
    return NotFound(message, store=address.scheme, operation=operation)


def read_schema(connection: Connection, collection: str, operation: str) -> tuple[Schema, StorageOptions] | None:
    """Read the schema and storage options of a collection of this package; return None if it does not exist.

    Raises ``SchemaMismatch`` for a collection created by someone else.
    """
    try:
        with translate_errors(connection.name, operation):
            description = connection.client.describe_collection(collection_name(collection), **connection.call_options)
    except NotFound:
        return None
    with reading_schema(collection, store=connection.name, operation=operation):
        stored = wire.parse_metadata(description)
    if stored is None:
        raise SchemaMismatch(
            f"the collection {collection!r} was not created by st-connectors: "
            "use it as it is with Index.adopt (--adopt), or choose another name",
            store=connection.name,
            operation=operation,
        )
    return stored


class MilvusStore:
    """One Milvus collection, without layers. Safe for use from several threads."""

    def __init__(self, connection: Connection, layout: Layout) -> None:
        """Store the connection and the layout. No request is sent to the server.

        ``layout`` describes the columns of the collection, which may not exist yet.
        """
        self._connection = connection
        self._client = connection.client
        self._layout = layout
        self._collection = layout.collection
        self._capabilities = layout.capabilities(CAPABILITIES)
        self._is_closed = False

    @property
    def schema(self) -> Schema:
        """The schema passed to the store; ``create`` verifies that the stored one equals it."""
        return self._layout.schema

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities for this collection and its indexes."""
        return self._capabilities

    def create(self) -> None:
        """Create the collection with its indexes and load it; accept an existing one with the same schema."""
        if not isinstance(self._layout, OwnLayout):
            return
        # Milvus Lite 3.2.2 creates a collection's folder without checking whether another thread does the same.
        with self._connection.write_lock:
            stored = read_schema(self._connection, self.schema.collection, "create")
            if stored is None:
                self._create(self._layout)
                stored = read_schema(self._connection, self.schema.collection, "create")
            if stored is not None:
                difference = schema_difference(stored[0], self.schema)
                if difference:
                    raise SchemaMismatch(difference, store=self._connection.name, operation="create")
                self._layout = OwnLayout(self.schema, stored[1])
                self._capabilities = self._layout.capabilities(CAPABILITIES)
            self._load(self._layout, "create")

    def _create(self, layout: OwnLayout) -> None:
        """Create the collection; do nothing if another client has created it in the meantime."""
        self._connection.check_space(0, "create")
        columns = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        for column in wire.to_columns(layout.schema, packed=layout.options.packed):
            columns.add_field(column.name, DataType[column.type], **_field_params(column.params))
            if column.bm25_source is not None:
                name = f"bm25_{column.name}"
                columns.add_function(Function(name, FunctionType.BM25, [column.bm25_source], [column.name]))
        # pymilvus 3.0 scans with the consistency level of the collection and ignores the level of the request. All
        # other reads request a level.
        properties = {wire.METADATA: wire.format_metadata(layout.schema, layout.options)}
        options = {"properties": properties, "consistency_level": "Strong"}
        try:
            with translate_errors(self._connection.name, "create"):
                self._client.create_collection(
                    self._collection, schema=columns, **options, **self._connection.call_options
                )
        except StoreError as error:
            if not faults.is_already_there(error):
                raise

    def load(self, operation: str) -> None:
        """Load a collection of this package, so that it can be searched."""
        if isinstance(self._layout, OwnLayout):
            self._load(self._layout, operation)

    def _load(self, layout: OwnLayout, operation: str) -> None:
        """Load the collection, after creating any indexes that are missing because its creation was interrupted."""
        try:
            with translate_errors(self._connection.name, operation):
                self._create_indexes(layout)
        except StoreError as error:
            if not faults.is_already_there(error):
                raise
        with translate_errors(self._connection.name, operation):
            self._client.load_collection(self._collection, **self._connection.call_options)

    def _create_indexes(self, layout: OwnLayout) -> None:
        existing = set(self._client.list_indexes(self._collection, **self._connection.call_options))
        missing = [index for index in self._indexes(layout) if index.column not in existing]
        if not missing:
            return
        params = IndexParams()
        for index in missing:
            params.add_index(index.column, index.type, index.column, **_metric(index), params=dict(index.params))
        self._client.create_index(self._collection, params, sync=False, **self._connection.call_options)

    def _indexes(self, layout: OwnLayout) -> list[wire.Index]:
        vectors = wire.vector_indexes(layout.schema, layout.options.index)
        return vectors if self._connection.lite else [*vectors, *wire.filter_indexes(layout.schema)]

    def drop(self) -> None:
        """Remove the collection; raise ``Unsupported`` if it was adopted."""
        if not isinstance(self._layout, OwnLayout):
            message = "the collection was adopted, not created here; remove it with the tool that created it"
            raise Unsupported(message, store=self._connection.name, operation="drop")
        if read_schema(self._connection, self.schema.collection, "drop") is None:
            return
        with self._connection.write_lock, translate_errors(self._connection.name, "drop"):
            self._client.drop_collection(self._collection, **self._connection.call_options)
        self._connection.unflushed.pop(self._collection, None)

    def own_name(self) -> str:
        """Return the name of the collection; the name by which it was opened can be an alias."""
        with translate_errors(self._connection.name, "describe"):
            description = self._client.describe_collection(self._collection, **self._connection.call_options)
        return wire.own_name(description)

    def describe(self) -> Description:
        """Return the own name, aliases, indexes and settings of the collection."""
        driver, options = self._client, self._connection.call_options
        with translate_errors(self._connection.name, "describe"):
            description = driver.describe_collection(self._collection, **options)
            names = driver.list_indexes(self._collection, **options)
            indexes = [driver.describe_index(self._collection, name, **options) for name in names]
            aliases = description["aliases"]
            if self._connection.lite:  # its descriptions lack aliases
                aliases = driver.list_aliases(description["collection_name"], **options)["aliases"]
        return wire.to_description(description, [each for each in indexes if each], aliases)

    def alter(self, schema: Schema) -> None:
        """Replace the schema in the properties of the collection; its columns stay as they are."""
        stored = read_schema(self._connection, schema.collection, "alter")
        if stored is None:
            message = f"there is no collection {schema.collection!r}"
            raise NotFound(message, store=self._connection.name, operation="alter")
        properties = {wire.METADATA: wire.format_metadata(schema, stored[1])}
        with self._connection.write_lock, translate_errors(self._connection.name, "alter"):
            self._client.alter_collection_properties(self._collection, properties, **self._connection.call_options)
        self._layout = OwnLayout(schema, stored[1])

    def stored_schema(self, collection: str) -> Schema | None:
        """Return the schema in the properties of a collection; None if it does not exist."""
        stored = read_schema(self._connection, collection, "describe")
        return None if stored is None else stored[0]

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        """Write complete rows; Milvus acknowledges them once they are in its log."""
        rows: list[dict[str, Any]] = []
        rejected: list[Rejected] = []
        for position, record in enumerate(records):
            try:
                rows.append(self._layout.row(record))
            except ValueError as error:
                refused = Refused(str(error), store=self._connection.name, operation="upsert")
                refused.__cause__ = error
                rejected.append(Rejected(position, record.id, refused))
        if rows:
            self._connection.check_space(sum(map(size_of, records)), "upsert")
            with self._connection.write_lock, translate_errors(self._connection.name, "upsert"):
                self._send_rows(rows)
            self._count_unflushed(len(rows))
        return rejected

    def _send_rows(self, rows: list[dict[str, Any]]) -> None:
        """Send rows, column by column for a collection of this package, whose rows all have the same columns.

        pymilvus 3.0 needs less than half the time to build a message from columns that it needs for rows.
        """
        options = self._connection.call_options
        if not isinstance(self._layout, OwnLayout):
            self._client.upsert(self._collection, rows, **options)
            return
        types = {
            column.name: column.type for column in wire.to_columns(self.schema, packed=self._layout.options.packed)
        }
        columns = [
            {"name": name, "type": DataType[types[name]], "values": [row[name] for row in rows]} for name in rows[0]
        ]
        # Neither public function of pymilvus 3.0.2 can be used: MilvusClient.upsert accepts only rows; orm.Collection
        # accepts columns but looks up connections by an alias, which a MilvusClient does not have. The internal handler
        # of both accepts columns since 2.0, and the context, which contains the database, since 2.6.8.
        context = self._client._generate_call_context()  # noqa: SLF001
        self._client._get_connection().upsert(self._collection, columns, context=context, **options)  # noqa: SLF001

    def _count_unflushed(self, rows: int) -> None:
        if self._connection.lite:
            unflushed = self._connection.unflushed
            unflushed[self._collection] = unflushed.get(self._collection, 0) + rows

    def delete(self, ids: Sequence[str]) -> None:
        """Remove rows by their ids."""
        where = self._filter_options(self._with_ids(ids, "delete"))
        self._connection.check_space(0, "delete")
        with self._connection.write_lock, translate_errors(self._connection.name, "delete"):
            self._client.delete(self._collection, **where, **self._connection.call_options)

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        """Fetch rows and return their records in the order of ``ids``."""
        rows = self._query("get", self._with_ids(ids, "get"), self._layout.outputs(parts))
        records = {record.id: record for record in map(self._layout.record, rows)}
        return [records[each] for each in ids if each in records]

    def _with_ids(self, ids: Sequence[str], operation: str) -> Expression:
        """Return the expression for the rows with these ids; raise ``Refused`` for an id that could be mistaken."""
        try:
            return self._layout.ids(ids)
        except ValueError as error:
            raise Refused(str(error), store=self._connection.name, operation=operation) from error

    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        """Search the rows that have the vector of the leg."""
        plans = [wire.plan_search(self._layout, request) for request in requests]
        results = self._search([plan and wire.require_vector(plan) for plan in plans])
        return [wire.to_hits(self._layout, *each) for each in zip(requests, results, strict=True)]

    def search_speculatively(self, requests: Sequence[SearchRequest]) -> list[list[Hit] | None]:
        """Search all rows; return None for each request whose result contains rows that lack the vector.

        Such rows displace rows that have the vector, so that the result may be incomplete.
        """
        plans = [wire.plan_search(self._layout, request) for request in requests]
        results = self._search(plans)
        return [
            None
            if plan is not None and wire.shows_missing_vector(plan, rows)
            else wire.to_hits(self._layout, request, rows)
            for request, plan, rows in zip(requests, plans, results, strict=True)
        ]

    def _search(self, plans: Sequence[wire.Plan | None]) -> list[Sequence[Mapping[str, Any]]]:
        """Send plans that differ only in their vectors as one request.

        A plan of None is a search that is known to have no hits.
        """
        groups: dict[str, list[int]] = {}
        for position, plan in enumerate(plans):
            if plan is not None:
                groups.setdefault(plan.key, []).append(position)
        if not groups:
            self._check_exists("search")
        results: list[Sequence[Mapping[str, Any]]] = [[] for _ in plans]
        for positions in groups.values():
            sent = self._send_search([plan for position in positions if (plan := plans[position]) is not None])
            for position, rows in zip(positions, sent, strict=True):
                results[position] = rows
        return results

    def _send_search(self, plans: Sequence[wire.Plan]) -> Sequence[Sequence[Mapping[str, Any]]]:
        first = plans[0]
        with translate_errors(self._connection.name, "search"):
            results: Sequence[Sequence[Mapping[str, Any]]] = self._client.search(
                self._collection,
                data=[plan.data for plan in plans],
                anns_field=first.column,
                search_params=dict(first.params),
                limit=first.limit,
                output_fields=list(first.outputs),
                consistency_level=self._connection.consistency,
                **self._filter_options(first.where),
                **self._connection.call_options,
            )
        return results

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        """Read pages in the order of the primary key; each page starts after the last id of the previous page."""
        passing = self._layout.everything() if where is None else self._layout.where(where)
        outputs, page = self._layout.outputs(parts), passing
        while True:
            # ``iterator`` requests the order of the keys; pymilvus's own iterator writes ids into its expressions
            # unquoted.
            rows = self._query("scan", page, outputs, limit=batch, iterator="True", reduce_stop_for_best="True")
            yield from map(self._layout.record, rows)
            if len(rows) < batch:
                return
            page = page_after(rows[-1][self._layout.key], passing, self._layout.key)

    def count(self, where: Filter | None = None) -> int:
        """Return the exact number of records that pass a filter."""
        return self._count("count", where)

    def _count(self, operation: str, where: Filter | None = None, **options: Any) -> int:
        passing = Expression("") if where is None else self._layout.where(where)
        rows = self._query(operation, passing, ["count(*)"], **options)
        return int(rows[0]["count(*)"])

    def refresh(self) -> None:
        """Make earlier writes visible by one read with strong consistency.

        On Milvus Lite writes are visible at once; there, ``FLUSH_FROM`` or more unflushed rows are flushed instead, if
        the disk has space for the files.
        """
        if self._connection.unflushed.get(self._collection, 0) >= FLUSH_FROM and self._connection.has_space():
            self._flush("refresh")
        else:
            self._count("refresh", consistency_level="Strong")

    def _flush(self, operation: str) -> None:
        self._connection.unflushed.pop(self._collection, None)
        with self._connection.write_lock, translate_errors(self._connection.name, operation):
            self._client.flush(self._collection, **self._connection.call_options)

    def close(self) -> None:
        """Close the connection, unless the caller passed its client."""
        if not self._is_closed:
            self._is_closed = True
            self._connection.close()

    def _query(
        self, operation: str, where: Expression, outputs: Sequence[str], **options: Any
    ) -> Sequence[Mapping[str, Any]]:
        options = {
            "consistency_level": self._connection.consistency,
            **options,
            **self._filter_options(where),
            **self._connection.call_options,
        }
        with translate_errors(self._connection.name, operation):
            rows: Sequence[Mapping[str, Any]] = self._client.query(
                self._collection, output_fields=list(outputs), **options
            )
        return rows

    def _filter_options(self, where: Expression) -> dict[str, Any]:
        if self._connection.lite:
            return {"filter": with_literals(where)}
        return {"filter": where.text, "filter_params": dict(where.values)}

    def _check_exists(self, operation: str) -> None:
        """Raise ``NotFound`` if the collection does not exist."""
        with translate_errors(self._connection.name, operation):
            self._client.describe_collection(self._collection, **self._connection.call_options)


def _field_params(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: DataType[value] if name == "element_type" else value for name, value in params.items()}


def _metric(index: wire.Index) -> dict[str, str]:
    return {"metric_type": index.metric} if index.metric else {}

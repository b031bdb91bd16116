"""The store of both Lucene engines, and the functions that open, adopt, load and list collections.

The functions are the plugin functions of both engines; their first argument is the function that opens the engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, Generic

from st_connectors._lucene import bulk
from st_connectors._lucene.answers import check_shards, read_pages, read_records, to_description
from st_connectors._lucene.client import Connection
from st_connectors._lucene.encoding import encode_json
from st_connectors._lucene.engine import Engine, OpenEngine
from st_connectors._lucene.forms import (
    Form,
    adopted_schema,
    form_difference,
    keys_of,
    layout_of,
    metadata_change,
    property_change,
    stored_name,
    stored_schema,
    token_difference,
    with_tokens,
)
from st_connectors._lucene.layout import AdoptedLayout, Layout, OwnLayout
from st_connectors._lucene.loading import IndexSettings, bulk_loading
from st_connectors._lucene.names import METADATA, check_collection, index_of, index_path, is_index_of
from st_connectors._lucene.queries import (
    Collection,
    ServerT,
    scan_body,
    search_lines,
    sparse_legs,
    unknown_index,
    where_query,
)
from st_connectors.errors import NotFound, Permanent, Refused, SchemaMismatch, StoreError, Unsupported
from st_connectors.filters import Filter
from st_connectors.plugin import Address, Description
from st_connectors.schema import FilterKind, Schema, reading_schema, schema_difference
from st_connectors.store import Capabilities, Hit, Parts, Record, Rejected, SearchRequest

__all__ = [
    "IndexPlace",
    "LuceneStore",
    "adopt",
    "closing_on_error",
    "collections",
    "connect",
    "loading",
    "look_up",
    "own_schema",
]

KEEP_ALIVE = "5m"
"""The maximum time between two pages of a scan, after which the server closes the point in time."""

ALTER_BATCH = 200
"""The number of documents that are indexed together when filterable fields are added."""


@dataclass(frozen=True, slots=True)
class IndexPlace:
    """The name of a new index, the alias by which it is used, and its settings unless the address has others."""

    index: str
    alias: str
    settings: Mapping[str, Any] = field(default_factory=dict)


class LuceneStore(Generic[ServerT]):
    """One collection of either engine, without layers. Safe for use from several threads."""

    def __init__(
        self,
        engine: Engine[ServerT],
        schema: Schema,
        form: Form,
        layout: Layout,
        *,
        server: ServerT | None = None,
        place: IndexPlace | None = None,
    ) -> None:
        """Store the arguments. No request is sent to the server.

        ``form`` and ``layout`` describe the collection. ``server`` is None if the server has not been queried yet.
        ``place`` is that of an index that is to replace the index of the collection; None for the collection itself.
        """
        self._engine = engine
        self._connection = engine.connection
        self._schema = schema
        self._name = schema.collection
        self._place = place or IndexPlace(index_of(self._name), self._name)
        self._path = index_path(self._place.alias)
        self._form = form
        self._layout = layout
        self._server = server
        self._sends_smile = engine.connection.sends_smile
        self._is_closed = False

    @property
    def schema(self) -> Schema:
        """The schema passed to the store; ``create`` compares it with the stored schema."""
        return self._schema

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities for this collection; before ``create``, those that every supported server has."""
        server = self._engine.unknown if self._server is None else self._server
        capabilities = self._engine.capabilities(self._schema, self._form, server)
        return (
            capabilities
            if isinstance(self._layout, OwnLayout)
            else replace(capabilities, alterable=frozenset(), alterable_by_copy=frozenset())
        )

    @property
    def layout(self) -> Layout:
        """The layout of the documents."""
        return self._layout

    def on_connection(self, connection: Connection) -> LuceneStore[ServerT]:
        """Return the store of the same collection on another connection."""
        engine = replace(self._engine, connection=connection)
        return LuceneStore(engine, self._schema, self._form, self._layout, server=self._server, place=self._place)

    def create(self) -> None:
        """Create the index with its alias; compare an existing index with the schema and the address options."""
        if isinstance(self._layout, AdoptedLayout):
            return
        server = self._identify("create")
        stored = self._stored("create")
        if stored is None:
            self._create_index(server)
            stored = self._stored("create")
        if stored is None:
            message = f"the index {self._place.index!r} exists without the alias {self._place.alias!r}"
            raise self._error(SchemaMismatch, f"{message}: add the alias, or remove the index", "create")
        schema, form = stored
        options = self._engine.options
        difference = (
            schema_difference(schema, self._schema)
            or form_difference(form, self._form, options.form, dense=self._engine.dense_option)
            or token_difference(form, options.vocabulary)
        )
        if difference:
            raise self._error(SchemaMismatch, difference, "create")
        self._form = form
        self._layout = layout_of(self._schema, form, options.vocabulary)
        self._server = self._engine.inspect(self._connection, server, self._place.alias, "create")

    def _create_index(self, server: ServerT) -> None:
        body = self._engine.index_body(self._connection, self._schema, self._form, server)
        body["aliases"] = {self._place.alias: {"is_write_index": True}}
        body["settings"]["index"] = {**self._place.settings, **body["settings"]["index"]}
        try:
            self._send("create", "PUT", index_path(self._place.index), body, expect="acknowledged")
        except Refused as error:
            # Another client has created the index; the caller compares it with the schema.
            if "resource_already_exists_exception" not in str(error):
                raise

    def _stored(self, operation: str) -> tuple[Schema, Form] | None:
        self._check_open(operation)
        indices = _read_mappings(self._connection, self._place.alias, operation)
        return None if indices is None else own_schema(self._connection, self._name, indices, operation)

    def drop(self) -> None:
        """Delete the index with its alias; raise ``Unsupported`` if it was adopted."""
        if isinstance(self._layout, AdoptedLayout):
            message = "the index was adopted, not created here: delete it with the tool that created it"
            raise self._error(Unsupported, message, "drop")
        self._check_open("drop")
        indices = _read_mappings(self._connection, self._place.alias, "drop")
        if indices is None:
            return
        own_schema(self._connection, self._name, indices, "drop")
        if foreign := [index for index in indices if not is_index_of(index, self._name)]:
            message = f"the alias {self._name!r} also covers {', '.join(foreign)}, which is no index of this collection"
            raise self._error(Refused, f"{message}: remove the alias from it first", "drop")
        path = index_path(*indices)
        self._send("drop", "DELETE", path, params={"ignore_unavailable": "true"}, expect="acknowledged")

    def own_name(self) -> str:
        """Return the name of the collection; the name by which it was opened can be an alias."""
        return self._description({}, {}).name

    def describe(self) -> Description:
        """Return the own name, aliases, size and settings of the collection."""
        self._check_open("describe")
        send_optional = partial(self._connection.send_optional, "describe")
        statistics = send_optional(f"{self._path}/_stats/store", {"filter_path": "_all.total.store"})
        settings = send_optional(f"{self._path}/_settings", {"flat_settings": "true"})
        return self._description(statistics or {}, settings or {})

    def _description(self, statistics: Mapping[str, Any], settings: Mapping[str, Any]) -> Description:
        """Return the description with the aliases that the server reports."""
        aliases = self._send("describe", "GET", f"{self._path}/_alias")
        try:
            description = to_description(self._name, aliases, statistics, settings)
        except (LookupError, TypeError, AttributeError) as error:
            raise self._connection.unexpected("describe") from error
        return replace(description, options={"payload": self._form.payload, **description.options})

    def alter(self, schema: Schema) -> None:
        """Declare further filterable fields, index every document again with them, then replace the stored schema."""
        stored = self._stored("alter")
        if stored is None:
            raise self._error(NotFound, f"there is no collection {self._name!r}", "alter")
        layout = layout_of(schema, stored[1], self._engine.options.vocabulary)
        if schema.filterable != self._schema.filterable:
            self._put_mapping(property_change(layout))
            self._index_again(layout)
        self._put_mapping(metadata_change(schema, stored[1]))
        self._schema, self._layout = schema, layout

    def _put_mapping(self, body: Mapping[str, Any]) -> None:
        self._send("alter", "PUT", f"{self._path}/_mapping", body, expect="acknowledged")

    def _index_again(self, layout: OwnLayout) -> None:
        """Index every document by another layout, from what a scan of the current layout returns."""
        records = self.scan(batch=ALTER_BATCH)
        while page := list(islice(records, ALTER_BATCH)):
            answer = self._index("alter", layout, page)
            for rejected in bulk.read_rejections(page, answer, self._item_error("alter")):
                raise rejected.error
        self.refresh()

    def stored_schema(self, collection: str) -> Schema | None:
        """Return the schema in the mapping of a collection; None if it does not exist."""
        mappings = _read_mappings(self._connection, collection, "describe")
        return None if mappings is None else own_schema(self._connection, collection, mappings, "describe")[0]

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        """Index complete documents; the server acknowledges each document once it is in the translog."""
        return bulk.upsert_valid(records, self._record_problem, self._upsert, store=self._connection.name)

    def _record_problem(self, record: Record) -> str | None:
        return self._engine.record_problem(self._form, record) or self._layout.keys.unknown_index_of(record)

    def _upsert(self, records: Sequence[Record]) -> list[Rejected]:
        answer = self._index("upsert", self._layout, records)
        try:
            return bulk.read_rejections(records, answer, self._item_error("upsert"))
        except (LookupError, TypeError, ValueError) as error:
            raise self._connection.unexpected("upsert") from error

    def delete(self, ids: Sequence[str]) -> None:
        """Delete documents; absent ids are ignored."""
        if not ids:
            return
        lines = bulk.delete_lines(ids)
        answer = self._bulk("delete", lines=lines)
        try:
            bulk.raise_for_deletions(len(lines), answer, self._item_error("delete"))
        except (LookupError, TypeError, ValueError) as error:
            raise self._connection.unexpected("delete") from error

    def _index(self, operation: str, layout: Layout, records: Sequence[Record]) -> Any:
        """Send a bulk request that indexes records, in SMILE unless the server does not accept it."""
        if self._sends_smile and layout.is_private:
            try:
                return self._bulk(operation, smile=bulk.upsert_documents(layout, records))
            except Permanent as error:
                if not bulk.is_about_media_type(error):
                    raise
            answer = self._bulk(operation, lines=bulk.upsert_lines(layout, records))
            self._sends_smile = False
            return answer
        return self._bulk(operation, lines=bulk.upsert_lines(layout, records))

    def _bulk(self, operation: str, *, lines: Sequence[object] = (), smile: bytes = b"") -> Any:
        """Send a bulk request that never creates an index.

        For a collection of this package the request sets ``require_alias``. An adopted collection has no alias, so its
        index is checked for existence first.
        """
        params = {"filter_path": bulk.ITEMS}
        if isinstance(self._layout, OwnLayout):
            params["require_alias"] = "true"
        else:
            self._send(operation, "GET", f"{self._path}/_alias")
        path = f"{self._path}/_bulk"
        return self._send(operation, "POST", path, lines=lines, smile=smile, params=params, expect="items")

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        """Return records by id; written records are returned at once, without a refresh."""
        if not ids:
            return []
        source = self._layout.selector(parts)
        body = {"docs": [{"_id": record_id, "_source": source} for record_id in ids]}
        answer = self._send("get", "POST", f"{self._path}/_mget", body, expect="docs")
        return read_records(self._layout, answer, parts, self._item_error("get"))

    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        """Send all requests in one multi-search."""
        if not requests:
            return []
        if problem := unknown_index(self._layout.keys, requests):
            raise self._error(Refused, problem, "search")
        # Only the queries of sparse legs depend on the server, so that other searches need not query its properties.
        server = self._identify("search") if any(map(sparse_legs, requests)) else self._engine.unknown
        collection = Collection(self._schema, self._form, self._layout, server)
        lines = [encode_json(line) for line in search_lines(self._engine.dialect, collection, requests)]
        answer = self._send("search", "POST", f"{self._path}/_msearch", lines=lines, expect="responses")
        return read_pages(self._schema, self._layout, requests, answer, self._item_error("search"))

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        """Read a point in time page by page."""
        point = self._engine.point_in_time
        path = f"{self._path}/{point.path}"
        place = self._send("scan", "POST", path, params={"keep_alive": KEEP_ALIVE}, expect=point.key)[point.key]
        body = scan_body(self._layout, where, parts, batch, self._engine.scan_order(self._layout))
        try:
            while True:
                page = body | {"pit": {"id": place, "keep_alive": KEEP_ALIVE}}
                answer = self._send("scan", "POST", "/_search", page, params=point.params, expect="hits")
                place = answer.get("pit_id", place)
                documents = answer["hits"]["hits"]
                yield from (self._layout.from_source(each["_id"], each.get("_source"), parts) for each in documents)
                if len(documents) < batch:
                    return
                body = body | {"search_after": documents[-1]["sort"]}
        finally:
            # If this request fails, the server closes the point in time after KEEP_ALIVE.
            with suppress(StoreError):
                self._connection.send("scan", "DELETE", f"/{point.path}", point.closing(place))

    def count(self, where: Filter | None = None) -> int:
        """Return the exact number of documents."""
        body = {"query": where_query(where, self._layout)}
        answer = self._send("count", "POST", f"{self._path}/_count", body, expect="count")
        check_shards(answer, store=self._connection.name, operation="count")
        return int(answer["count"])

    def refresh(self) -> None:
        """Make earlier writes visible to searches."""
        answer = self._send("refresh", "POST", f"{self._path}/_refresh", expect="_shards")
        check_shards(answer, store=self._connection.name, operation="refresh")

    def close(self) -> None:
        """Close the connection, unless the caller passed its client."""
        if not self._is_closed:
            self._is_closed = True
            self._connection.close()

    def _identify(self, operation: str) -> ServerT:
        """Return the properties of the server, which are queried on first use.

        If two threads query the server at the same time, they get equal results.
        """
        self._check_open(operation)
        if self._server is None:
            self._server = self._engine.identify(self._connection, operation)
        return self._server

    def _send(self, operation: str, method: str, path: str, body: object = None, **options: Any) -> Any:
        self._check_open(operation)
        return self._connection.send(operation, method, path, body, **options)

    def _check_open(self, operation: str) -> None:
        if self._is_closed:
            raise self._error(Permanent, "the store is closed; open it again", operation)

    def _error(self, kind: type[StoreError], message: str, operation: str) -> StoreError:
        return kind(message, store=self._connection.name, operation=operation)

    def _item_error(self, operation: str) -> bulk.ItemError:
        def error_of(status: int, body: Any) -> StoreError:
            error = self._engine.error_of(status, body, store=self._connection.name, operation=operation)
            # A 404 that is not about the index is about this document.
            is_refused = isinstance(error, Refused) or (status == 404 and not isinstance(error, NotFound))
            if operation not in {"upsert", "alter"} or not is_refused:
                return error
            hint = self._layout.refusal_hint if isinstance(self._layout, OwnLayout) else None
            message = f"{error.message}; {hint}" if hint else error.message
            return Refused(message, store=error.store, operation=operation, status=error.status)

        return error_of


def _read_mappings(connection: Connection, collection: str, operation: str) -> dict[str, Mapping[str, Any]] | None:
    """Return the mappings of the indices of an alias or index name; None if there is no such index."""
    try:
        answer = connection.send(operation, "GET", f"{index_path(collection)}/_mapping")
    except NotFound:
        return None
    try:
        return {index: answer[index]["mappings"] for index in sorted(answer)} or None
    except (LookupError, TypeError) as error:
        raise connection.unexpected(operation) from error


def own_schema(
    connection: Connection, collection: str, mappings: Mapping[str, Mapping[str, Any]], operation: str
) -> tuple[Schema, Form]:
    """Return the schema and form that a mapping contains.

    Raises ``SchemaMismatch`` for an index that another program created.
    """
    with reading_schema(collection, store=connection.name, operation=operation):
        stored = stored_schema(next(iter(mappings.values())))
    if stored is None:
        message = (
            f"the index {collection!r} was not created by st-connectors; use Index.adopt (--adopt) to search or fill it"
        )
        raise SchemaMismatch(message, store=connection.name, operation=operation)
    return stored


def connect(
    open_engine: OpenEngine[ServerT], address: Address, collection: str, schema: Schema | None, client: object | None
) -> LuceneStore[ServerT]:
    """Return a store for a schema, or for an existing collection if ``schema`` is None.

    A store for a schema sends no request until it is used. Raises ``NotFound`` if ``schema`` is None and the collection
    does not exist.
    """
    check_collection(collection)
    engine = open_engine(address, client)
    vocabulary = engine.options.vocabulary
    if schema is not None:
        form = with_tokens(engine.form_for(schema, **engine.options.form), vocabulary)
        return LuceneStore(engine, schema, form, layout_of(schema, form, vocabulary))
    with closing_on_error(engine.connection):
        server, mappings = look_up(engine, address, collection, "connect")
        schema, form = own_schema(engine.connection, collection, mappings, "connect")
        if difference := token_difference(form, vocabulary):
            raise SchemaMismatch(difference, store=engine.connection.name, operation="connect")
        server = engine.inspect(engine.connection, server, collection, "connect")
        return LuceneStore(engine, schema, form, layout_of(schema, form, vocabulary), server=server)


def adopt(
    open_engine: OpenEngine[ServerT],
    address: Address,
    collection: str,
    filterable: Mapping[str, FilterKind],
    client: object | None,
) -> LuceneStore[ServerT]:
    """Return a store for an index that another program created; its schema is read from the mapping."""
    check_collection(collection)
    engine = open_engine(address, client)
    with closing_on_error(engine.connection):
        server, mappings = look_up(engine, address, collection, "adopt")
        mapping = next(iter(mappings.values()))
        schema, form = adopted_schema(collection, mapping, filterable, engine.vector_field)
        if problem := engine.adoption_problem(form, engine.options):
            raise Unsupported(problem, store=engine.connection.name, operation="adopt")
        server = engine.inspect(engine.connection, server, collection, "adopt")
        layout = AdoptedLayout(schema, keys_of(form, engine.options.vocabulary))
        return LuceneStore(engine, schema, form, layout, server=server)


def look_up(
    engine: Engine[ServerT], address: Address, collection: str, operation: str
) -> tuple[ServerT, Mapping[str, Mapping[str, Any]]]:
    """Return the server and the mappings of a collection; raise ``NotFound`` if the collection does not exist."""
    server = engine.identify(engine.connection, operation)
    mappings = _read_mappings(engine.connection, collection, operation)
    if mappings is None:
        message = f"there is no collection {collection!r} at {address}: create it first, or check its spelling"
        raise NotFound(message, store=engine.connection.name, operation=operation)
    return server, mappings


@contextmanager
def closing_on_error(connection: Connection) -> Iterator[None]:
    """Close the connection if the block raises an error, because then no store is returned that closes it."""
    try:
        yield
    except BaseException:
        connection.close()
        raise


def collections(open_engine: OpenEngine[ServerT], address: Address, client: object | None) -> list[str]:
    """Return the sorted names of the collections that this package created at an address."""
    connection = open_engine(address, client).connection
    try:
        params = {"filter_path": f"*.mappings._meta.{METADATA}"}
        answer = connection.send("collections", "GET", "/_mapping", params=params)
        stored = [stored_name(each["mappings"]) for each in answer.values()]
    except (LookupError, TypeError, AttributeError) as error:
        raise connection.unexpected("collections") from error
    finally:
        connection.close()
    # The index that an unfinished alter by copy leaves has the name of its collection too.
    return sorted({name for name in stored if name is not None})


def loading(
    open_engine: OpenEngine[ServerT], address: Address, collection: str, client: object | None
) -> AbstractContextManager[None]:
    """Return a context manager that applies the settings for bulk loading to an index."""
    return bulk_loading(IndexSettings(open_engine(address, client).connection, collection))

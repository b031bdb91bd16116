"""The store: sends what ``wire`` makes and reads what comes back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from elasticsearch import ApiError, BadRequestError, NotFoundError, TransportError

from st_connectors._lucene import bulk, faults
from st_connectors._lucene.answers import ITEMS, KEEP_ALIVE, check_shards, docs, pages, records
from st_connectors._lucene.encoding import encoded
from st_connectors._lucene.existing import closing_on_error, no_alias, not_there, ours, refuse_drop
from st_connectors._lucene.forms import Form, adopted_schema, keys_of, other_form, other_tokens, stored, with_tokens
from st_connectors._lucene.layout import Hidden, Layout, Plain
from st_connectors._lucene.names import METADATA, index_of, problem_with
from st_connectors._lucene.queries import unknown_index, where_query
from st_connectors.elasticsearch import wire
from st_connectors.elasticsearch.client import API_KEY, Opened, border, open_client
from st_connectors.elasticsearch.server import UNKNOWN, Server, server_from
from st_connectors.errors import Permanent, Refused, SchemaMismatch, StoreError, Unsupported
from st_connectors.filters import Filter
from st_connectors.plugin import Address
from st_connectors.schema import FilterKind, Schema, schema_difference
from st_connectors.store import Capabilities, Hit, Parts, Record, Rejected, SearchRequest

__all__ = ["ElasticsearchStore", "adopted", "collections", "connected"]


def connected(
    address: Address, collection: str, schema: Schema | None, client: object | None, most: Capabilities
) -> ElasticsearchStore:
    """A store on which ``create`` may be called, or without a schema one of our collections; ``NotFound`` where there is none."""
    if problem := problem_with(collection):
        raise ValueError(problem)
    opened = open_client(address, client)
    if schema is not None:
        return ElasticsearchStore(
            opened, schema, with_tokens(wire.form_for(schema, **opened.form), opened.vocabulary), most
        )
    with closing_on_error(opened):
        _, mappings = _mappings(opened, collection, "connect") or not_there(
            collection, address, store=opened.name, operation="connect"
        )
        kept, form = ours(collection, mappings, store=opened.name, operation="connect")
        if difference := other_tokens(form, opened.vocabulary):
            raise SchemaMismatch(difference, store=opened.name, operation="connect")
        return ElasticsearchStore(opened, kept, form, most, server=_server(opened, collection, "connect"))


def adopted(
    address: Address,
    collection: str,
    filterable: Mapping[str, FilterKind],
    client: object | None,
    most: Capabilities,
) -> ElasticsearchStore:
    """An index that somebody else made, as it is; ``NotFound`` where there is none."""
    if problem := problem_with(collection):
        raise ValueError(problem)
    opened = open_client(address, client)
    with closing_on_error(opened):
        _, mappings = _mappings(opened, collection, "adopt") or not_there(
            collection, address, store=opened.name, operation="adopt"
        )
        schema, form = adopted_schema(collection, mappings, filterable, wire.vector_field)
        server = _server(opened, collection, "adopt")
        return ElasticsearchStore(
            opened, schema, form, most, server=server, layout=Plain(schema, keys_of(form, opened.vocabulary))
        )


def collections(address: Address, client: object | None) -> list[str]:
    """The names of our collections."""
    opened = open_client(address, client)
    try:
        with border(opened.name, "collections"):
            answer = opened.client.indices.get_mapping(filter_path=f"*.mappings._meta.{METADATA}")
    finally:
        opened.close()
    found = (stored(each["mappings"]) for each in answer.body.values())
    return sorted(kept[0].collection for kept in found if kept is not None)


def _server(opened: Opened, collection: str, operation: str) -> Server:
    """What the server and its licence allow, asked only where the address wants the server's own fusion."""
    if not opened.native:
        return UNKNOWN
    with border(opened.name, operation):
        try:
            licence = opened.client.license.get().body
        except ApiError as error:
            if error.meta.status not in _UNTOLD:
                raise
            return UNKNOWN
        only = "*.settings.index.number_of_shards"
        settings = opened.client.indices.get_settings(index=collection, filter_path=only).body
        return server_from(licence, opened.client.info().body, settings)


_UNTOLD = (400, 401, 403, 404, 405, 410)
"""Statuses of servers that do not tell their licence, or not to this user."""


def _mappings(opened: Opened, collection: str, operation: str) -> tuple[list[str], Mapping[str, Any]] | None:
    """The indices behind a name and the mapping of the first; None where there are none."""
    with border(opened.name, operation):
        try:
            answer = opened.client.indices.get_mapping(index=collection)
        except NotFoundError as error:
            if faults.is_missing(error.body):
                return None
            raise
    names = sorted(answer.body)
    return (names, answer.body[names[0]]["mappings"]) if names else None


class ElasticsearchStore:
    """One collection; the adapter without its wrappers. Safe in threads."""

    def __init__(
        self,
        opened: Opened,
        schema: Schema,
        form: Form,
        most: Capabilities,
        *,
        server: Server = UNKNOWN,
        layout: Plain | None = None,
    ) -> None:
        """Nothing is sent. ``layout`` is given for indices that are not ours, ``server`` where it was asked already."""
        self._server = server
        self._opened = opened
        self._client = opened.client
        self._schema = schema
        self._name = schema.collection
        self._form = form
        self._most = most
        self._layout: Layout = Hidden(schema, keys_of(form, opened.vocabulary)) if layout is None else layout
        self._is_ours = layout is None
        self._closed = False

    @property
    def schema(self) -> Schema:
        """The schema as asked for, which ``create`` makes sure is the stored one."""
        return self._schema

    @property
    def capabilities(self) -> Capabilities:
        """What this collection can do; whether the server fuses is known from ``create`` on, or when opened by name."""
        return wire.can(self._most, self._schema, self._form, self._server)

    def create(self) -> None:
        """Make the index and its alias, or find it with the same schema and in the form that the address asks for."""
        if not self._is_ours:
            return
        found = self._stored("create")
        if found is None:
            self._make()
            found = self._stored("create")
        if found is None:
            no_alias(self._name, store=self._opened.name)
        kept, form = found
        difference = (
            schema_difference(kept, self._schema)
            or other_form(form, self._form, self._opened.form, dense="dense_index")
            or other_tokens(form, self._opened.vocabulary)
        )
        if difference:
            raise SchemaMismatch(difference, store=self._opened.name, operation="create")
        self._form = form
        self._layout = replace(self._layout, keys=keys_of(form, self._opened.vocabulary))
        self._server = _server(self._opened, self._name, "create")

    def _stored(self, operation: str) -> tuple[Schema, Form] | None:
        self._check_open(operation)
        found = _mappings(self._opened, self._name, operation)
        return None if found is None else ours(self._name, found[1], store=self._opened.name, operation=operation)

    def _make(self) -> None:
        with self._border("create"):
            version = str(self._client.info()["version"]["number"])
            if problem := wire.too_old(version):
                raise Unsupported(problem, store=self._opened.name, operation="create")
            body = wire.index_body(self._schema, self._form, version, self._opened.settings)
            try:
                self._client.indices.create(
                    index=index_of(self._name), aliases={self._name: {"is_write_index": True}}, **body
                )
            except BadRequestError as error:
                # Whoever was quicker has made it; what is there now counts.
                if "resource_already_exists_exception" not in str(error.body):
                    raise

    def drop(self) -> None:
        """Remove the index with its alias, if it is ours."""
        if not self._is_ours:
            refuse_drop(store=self._opened.name)
        self._check_open("drop")
        found = _mappings(self._opened, self._name, "drop")
        if found is None:
            return
        ours(self._name, found[1], store=self._opened.name, operation="drop")
        with self._border("drop"):
            self._client.indices.delete(index=found[0], ignore_unavailable=True)

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        """Index whole documents, acknowledged item by item when they are in the translog."""
        return bulk.upserted(records, self._layout.keys.unknown_in, self._put, store=self._opened.name)

    def _put(self, records: Sequence[Record]) -> list[Rejected]:
        lines: list[Any] = bulk.writes(
            self._layout, records
        )  # the client passes on what is encoded, which its types do not say
        return bulk.rejections(records, self._bulk("upsert", lines), self._error_of("upsert"))

    def _bulk(self, operation: str, lines: list[Any]) -> Any:
        """Send a bulk that makes no index where there is none: ours has an alias, which is required; of others it is asked first whether they are there."""
        with self._border(operation):
            if not self._is_ours:
                self._client.indices.get_alias(index=self._name)
            answer = self._client.bulk(
                index=self._name, operations=lines, require_alias=self._is_ours, filter_path=ITEMS
            )
        return answer.body

    def delete(self, ids: Sequence[str]) -> None:
        """Remove documents."""
        if ids:
            bulk.raise_for_deletions(self._bulk("delete", bulk.deletions(ids)), self._error_of("delete"))

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        """Fetch documents; they are seen as soon as they are written."""
        if not ids:
            return []
        with self._border("get"):
            answer = self._client.mget(index=self._name, docs=docs(self._layout, ids, parts))
        return records(self._layout, answer.body, parts, self._error_of("get"))

    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        """Send all requests as one multi-search."""
        if not requests:
            return []
        if told := unknown_index(self._layout.keys, requests):
            raise Refused(told, store=self._opened.name, operation="search")
        lines: list[Any] = [encoded(line) for line in wire.msearch_lines(self._form, self._layout, requests)]
        with self._border("search"):
            answer = self._client.msearch(index=self._name, searches=lines)
        return pages(self._schema, self._layout, requests, answer.body, self._error_of("search"))

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        """Walk through a point in time, page after page."""
        with self._border("scan"):
            place = self._client.open_point_in_time(index=self._name, keep_alive=KEEP_ALIVE)["id"]
        body = wire.scan_body(where_query(where, self._layout), self._layout.selector(parts), batch)
        try:
            while True:
                with self._border("scan"):
                    answer = self._client.search(pit={"id": place, "keep_alive": KEEP_ALIVE}, **body)
                place = answer.get("pit_id", place)
                found = answer["hits"]["hits"]
                yield from (self._layout.from_source(each["_id"], each.get("_source"), parts) for each in found)
                if len(found) < batch:
                    return
                body = body | {"search_after": found[-1]["sort"]}
        finally:
            # The server gives it up by itself in the end.
            with suppress(ApiError, TransportError):
                self._client.close_point_in_time(id=place)

    def count(self, where: Filter | None = None) -> int:
        """Count exactly."""
        with self._border("count"):
            answer = self._client.count(index=self._name, query=where_query(where, self._layout))
        check_shards(answer.body, store=self._opened.name, operation="count")
        return int(answer["count"])

    def refresh(self) -> None:
        """Make what was written visible to searches."""
        with self._border("refresh"):
            answer = self._client.indices.refresh(index=self._name)
        check_shards(answer.body, store=self._opened.name, operation="refresh")

    def close(self) -> None:
        """Close what was opened for this store."""
        if not self._closed:
            self._closed = True
            self._opened.close()

    @contextmanager
    def _border(self, operation: str) -> Iterator[None]:
        self._check_open(operation)
        with border(self._opened.name, operation):
            yield

    def _check_open(self, operation: str) -> None:
        if self._closed:
            raise Permanent("the store is closed; open it again", store=self._opened.name, operation=operation)

    def _error_of(self, operation: str) -> bulk.ItemError:
        """The error of one item of an answer."""

        def error(status: int, body: Any) -> StoreError:
            return faults.from_status(status, body, store=self._opened.name, operation=operation, key=API_KEY)

        return error

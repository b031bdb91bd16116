"""The store: sends what ``wire`` makes and reads what comes back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from elasticsearch import ApiError, BadRequestError, NotFoundError, TransportError

from st_connectors._lucene import bulk, faults
from st_connectors._lucene.layout import Hidden, Layout, Plain
from st_connectors._lucene.names import METADATA, index_of, problem_with
from st_connectors._lucene.queries import hits, where_query
from st_connectors.elasticsearch import wire
from st_connectors.elasticsearch.client import API_KEY, Opened, border, open_client
from st_connectors.errors import NotFound, Permanent, SchemaMismatch, StoreError, Unavailable, Unsupported
from st_connectors.filters import Filter
from st_connectors.store import (
    Address,
    Capabilities,
    FilterKind,
    Hit,
    Parts,
    Record,
    Rejected,
    Schema,
    SearchRequest,
    schema_difference,
)

__all__ = ["ElasticsearchStore", "adopted", "collections", "connected"]

KEEP_ALIVE = "5m"
"""How long the server keeps a scan's place between two pages."""
_ITEMS = "errors,items.*.status,items.*.error"
_FOUND = (
    "responses.status,responses.error,responses.hits.hits._id,responses.hits.hits._score,responses.hits.hits._source"
)


def connected(
    address: Address, collection: str, schema: Schema | None, client: object | None, most: Capabilities
) -> ElasticsearchStore:
    """A store on which ``create`` may be called, or without a schema one of our collections; ``NotFound`` where there is none."""
    if problem := problem_with(collection):
        raise ValueError(problem)
    opened = open_client(address, client)
    if schema is not None:
        return ElasticsearchStore(opened, schema, wire.form_for(schema, **opened.form), most)
    with _closing_on_error(opened):
        _, mappings = _mappings(opened, collection, "connect") or _absent(opened, collection, address, "connect")
        kept, form = _ours(opened, collection, mappings, "connect")
        return ElasticsearchStore(opened, kept, form, most)


def adopted(
    address: Address,
    collection: str,
    filterable: Mapping[str, FilterKind],
    client: object | None,
    most: Capabilities,
) -> ElasticsearchStore:
    """An index that somebody else made, as it is; ``NotFound`` where there is none."""
    opened = open_client(address, client)
    with _closing_on_error(opened):
        _, mappings = _mappings(opened, collection, "adopt") or _absent(opened, collection, address, "adopt")
        schema, form = wire.adopted_schema(collection, mappings, filterable)
        return ElasticsearchStore(opened, schema, form, most, Plain(schema))


def collections(address: Address, client: object | None) -> list[str]:
    """The names of our collections."""
    opened = open_client(address, client)
    try:
        with border(opened.name, "collections"):
            answer = opened.client.indices.get_mapping(filter_path=f"*.mappings._meta.{METADATA}")
    finally:
        opened.close()
    found = (wire.stored(each["mappings"]) for each in answer.body.values())
    return sorted(kept[0].collection for kept in found if kept is not None)


@contextmanager
def _closing_on_error(opened: Opened) -> Iterator[None]:
    """Close what was opened if there will be no store to close it."""
    try:
        yield
    except BaseException:
        opened.close()
        raise


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


def _ours(opened: Opened, collection: str, mappings: Mapping[str, Any], operation: str) -> tuple[Schema, wire.Form]:
    kept = wire.stored(mappings)
    if kept is None:
        told = f"the index {collection!r} was not made by st-connectors; use Index.adopt to search or fill it as it is"
        raise SchemaMismatch(told, store=opened.name, operation=operation)
    return kept


def _absent(opened: Opened, collection: str, address: Address, operation: str) -> tuple[list[str], Mapping[str, Any]]:
    told = f"there is no collection {collection!r} at {address}: create it first, or look at its spelling"
    raise NotFound(told, store=opened.name, operation=operation)


class ElasticsearchStore:
    """One collection; the adapter without its wrappers. Safe in threads."""

    def __init__(
        self, opened: Opened, schema: Schema, form: wire.Form, most: Capabilities, layout: Plain | None = None
    ) -> None:
        """Nothing is sent. ``layout`` is given for indices that are not ours."""
        self._opened = opened
        self._client = opened.client
        self._schema = schema
        self._name = schema.collection
        self._form = form
        self._most = most
        self._layout: Layout = Hidden(schema) if layout is None else layout
        self._is_ours = layout is None
        self._closed = False

    @property
    def schema(self) -> Schema:
        """The schema as asked for, which ``create`` makes sure is the stored one."""
        return self._schema

    @property
    def capabilities(self) -> Capabilities:
        """What this collection can do."""
        return wire.can(self._most, self._schema, self._form)

    def create(self) -> None:
        """Make the index and its alias, or find it with the same schema and in the form that the address asks for."""
        if not self._is_ours:
            return
        found = self._stored("create")
        if found is None:
            self._make()
            found = self._stored("create")
        if found is None:
            told = f"the index {index_of(self._name)!r} is there without the alias {self._name!r}: add the alias, or remove the index"
            raise SchemaMismatch(told, store=self._opened.name, operation="create")
        kept, form = found
        difference = schema_difference(kept, self._schema) or wire.other_form(form, self._form, self._opened.form)
        if difference:
            raise SchemaMismatch(difference, store=self._opened.name, operation="create")
        self._form = form

    def _stored(self, operation: str) -> tuple[Schema, wire.Form] | None:
        self._check_open(operation)
        found = _mappings(self._opened, self._name, operation)
        return None if found is None else _ours(self._opened, self._name, found[1], operation)

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
            told = "the index was adopted, not made here: remove it with the tool that made it"
            raise Unsupported(told, store=self._opened.name, operation="drop")
        self._check_open("drop")
        found = _mappings(self._opened, self._name, "drop")
        if found is None:
            return
        _ours(self._opened, self._name, found[1], "drop")
        with self._border("drop"):
            self._client.indices.delete(index=found[0], ignore_unavailable=True)

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        """Index whole documents, acknowledged item by item when they are in the translog."""
        if not records:
            return []
        with self._border("upsert"):
            answer = self._client.bulk(
                index=self._name,
                operations=bulk.writes(self._layout, records),
                require_alias=self._is_ours,
                filter_path=_ITEMS,
            )
        return bulk.rejections(records, answer.body, self._error_of("upsert"))

    def delete(self, ids: Sequence[str]) -> None:
        """Remove documents."""
        if not ids:
            return
        with self._border("delete"):
            answer = self._client.bulk(index=self._name, operations=bulk.deletions(ids), filter_path=_ITEMS)
        bulk.raise_for_deletions(answer.body, self._error_of("delete"))

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        """Fetch documents; they are seen as soon as they are written."""
        if not ids:
            return []
        with self._border("get"):
            answer = self._client.mget(
                index=self._name, docs=[{"_id": each, "_source": self._layout.selector(parts)} for each in ids]
            )
        error_of = self._error_of("get")
        found = []
        for each in answer["docs"]:
            if "error" in each:
                raise error_of(404 if faults.is_missing(each["error"]) else 500, each["error"])
            if each["found"]:
                found.append(self._layout.from_source(each["_id"], each.get("_source"), parts))
        return found

    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        """Send all requests as one multi-search."""
        if not requests:
            return []
        lines = wire.msearch_lines(self._form, self._layout, requests)
        with self._border("search"):
            answer = self._client.msearch(index=self._name, searches=lines, filter_path=_FOUND)
        error_of = self._error_of("search")
        found = []
        for request, each in zip(requests, answer["responses"], strict=True):
            if "error" in each:
                raise error_of(each["status"], each["error"])
            found.append(hits(self._schema, self._layout, request, each.get("hits", {}).get("hits", [])))
        return found

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
        self._check_shards(answer, "count")
        return int(answer["count"])

    def refresh(self) -> None:
        """Make what was written visible to searches."""
        with self._border("refresh"):
            answer = self._client.indices.refresh(index=self._name)
        self._check_shards(answer, "refresh")

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

    def _check_shards(self, answer: Any, operation: str) -> None:
        failed = answer["_shards"]["failures"][:1] if answer["_shards"]["failed"] else []
        if failed:
            told = f"not all shards answered: {faults.reason(failed[0].get('reason'))}"
            raise Unavailable(told, store=self._opened.name, operation=operation)

    def _error_of(self, operation: str) -> bulk.ItemError:
        """The error of one item of an answer."""

        def error(status: int, body: Any) -> StoreError:
            return faults.from_status(status, body, store=self._opened.name, operation=operation, key=API_KEY)

        return error

"""The store: sends what ``wire`` makes and reads what comes back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from st_connectors._lucene import bulk
from st_connectors._lucene.answers import ITEMS, KEEP_ALIVE, check_shards, docs, pages, records, shards_in
from st_connectors._lucene.existing import closing_on_error, no_alias, not_there, ours, refuse_drop
from st_connectors._lucene.forms import Form, adopted_schema, keys_of, other_form, other_tokens, stored, with_tokens
from st_connectors._lucene.layout import Hidden, Layout, Plain
from st_connectors._lucene.names import METADATA, index_of, problem_with
from st_connectors._lucene.queries import unknown_index, where_query
from st_connectors.errors import (
    NotFound,
    Permanent,
    Refused,
    SchemaMismatch,
    StoreError,
    Temporary,
    Unsupported,
)
from st_connectors.filters import Filter
from st_connectors.opensearch import wire
from st_connectors.opensearch.client import Opened, open_client
from st_connectors.opensearch.faults import error_of
from st_connectors.opensearch.server import UNKNOWN, Server, server_from
from st_connectors.plugin import Address
from st_connectors.schema import FilterKind, Schema, SparseField, schema_difference
from st_connectors.store import Capabilities, Fuse, Hit, Near, Parts, Record, Rejected, SearchRequest

__all__ = ["OpenSearchStore", "adopted", "collections", "connected"]


def connected(
    address: Address, collection: str, schema: Schema | None, client: object | None, most: Capabilities
) -> OpenSearchStore:
    """A store on which ``create`` may be called, or without a schema one of our collections; ``NotFound`` where there is none."""
    if problem := problem_with(collection):
        raise ValueError(problem)
    opened = open_client(address, client)
    if schema is not None:
        return OpenSearchStore(
            opened, schema, with_tokens(wire.form_for(schema, **opened.form), opened.vocabulary), most
        )
    with closing_on_error(opened):
        server = _ask(opened, "connect")
        _, mappings = _mappings(opened, collection, "connect") or not_there(
            collection, address, store=opened.name, operation="connect"
        )
        kept, form = ours(collection, mappings, store=opened.name, operation="connect")
        if difference := other_tokens(form, opened.vocabulary):
            raise SchemaMismatch(difference, store=opened.name, operation="connect")
        return OpenSearchStore(opened, kept, form, most, server=server, shards=_shards(opened, collection, "connect"))


def adopted(
    address: Address,
    collection: str,
    filterable: Mapping[str, FilterKind],
    client: object | None,
    most: Capabilities,
) -> OpenSearchStore:
    """An index that somebody else made, as it is; ``NotFound`` where there is none."""
    if problem := problem_with(collection):
        raise ValueError(problem)
    opened = open_client(address, client)
    with closing_on_error(opened):
        server = _ask(opened, "adopt")
        _, mappings = _mappings(opened, collection, "adopt") or not_there(
            collection, address, store=opened.name, operation="adopt"
        )
        schema, form = adopted_schema(collection, mappings, filterable, wire.vector_field)
        if opened.vocabulary is not None and "seismic" in form.sparse.values():
            told = "the index has a field of type sparse_vector, whose keys are indices: leave vocabulary out of the address"
            raise Unsupported(told, store=opened.name, operation="adopt")
        shards = _shards(opened, collection, "adopt")
        return OpenSearchStore(
            opened,
            schema,
            form,
            most,
            server=server,
            shards=shards,
            layout=Plain(schema, keys_of(form, opened.vocabulary)),
        )


def collections(address: Address, client: object | None) -> list[str]:
    """The names of our collections."""
    opened = open_client(address, client)
    try:
        params = {"filter_path": f"*.mappings._meta.{METADATA}"}
        answer = opened.send("collections", "GET", "/_mapping", params=params)
        found = [stored(each["mappings"]) for each in answer.values()]
    except (LookupError, TypeError, AttributeError) as error:
        raise opened.strange("collections") from error
    finally:
        opened.close()
    return sorted(kept[0].collection for kept in found if kept is not None)


def _ask(opened: Opened, operation: str) -> Server:
    """What the server is; ``Unsupported`` where it is not one of ours."""
    info = opened.send(operation, "GET", "/", holds="version")
    plugins = _asked(opened, operation, "/_nodes/plugins", {"filter_path": "nodes.*.plugins.name"})
    only = {"include_defaults": "true", "filter_path": "*.indices.query.bool.max_clause_count"}
    found = server_from(info, plugins, _asked(opened, operation, "/_cluster/settings", only))
    if isinstance(found, str):
        raise Unsupported(found, store=opened.name, operation=operation)
    return found


def _asked(opened: Opened, operation: str, path: str, params: Mapping[str, str]) -> object:
    """An answer that a user may have no right to, and that managed services do not give."""
    try:
        return opened.send(operation, "GET", path, params=params)
    except Temporary:
        raise
    except Permanent:
        return None


def _shards(opened: Opened, collection: str, operation: str) -> int | None:
    """How many shards are behind a name."""
    only = {"filter_path": "*.settings.index.number_of_shards"}
    return shards_in(_asked(opened, operation, f"/{_step(collection)}/_settings", only))


def _mappings(opened: Opened, collection: str, operation: str) -> tuple[list[str], Mapping[str, Any]] | None:
    """The indices behind a name and the mapping of the first; None where there are none."""
    try:
        answer = opened.send(operation, "GET", f"/{_step(collection)}/_mapping")
    except NotFound:
        return None
    try:
        names = sorted(answer)
        return (names, answer[names[0]]["mappings"]) if names else None
    except (LookupError, TypeError) as error:
        raise opened.strange(operation) from error


def _step(name: str) -> str:
    """A name as one step of a path."""
    return quote(name, safe="")


class OpenSearchStore:
    """One collection; the adapter without its wrappers. Safe in threads."""

    def __init__(
        self,
        opened: Opened,
        schema: Schema,
        form: Form,
        most: Capabilities,
        *,
        server: Server | None = None,
        shards: int | None = None,
        layout: Plain | None = None,
    ) -> None:
        """Nothing is sent. ``layout`` is given for indices that are not ours, ``server`` and ``shards`` where they were asked for already."""
        self._opened = opened
        self._schema = schema
        self._name = schema.collection
        self._path = f"/{_step(self._name)}"
        self._form = form
        self._most = most
        self._server = server
        self._shards = shards
        self._layout: Layout = Hidden(schema, keys_of(form, opened.vocabulary)) if layout is None else layout
        self._is_ours = layout is None
        self._closed = False

    @property
    def schema(self) -> Schema:
        """The schema as asked for, which ``create`` makes sure is the stored one."""
        return self._schema

    @property
    def capabilities(self) -> Capabilities:
        """What this collection can do; how many terms a query may have and what the server fuses is known from ``create`` on, or when opened by name."""
        return wire.can(self._most, self._schema, self._form, self._server or UNKNOWN, self._shards)

    def create(self) -> None:
        """Make the index and its alias, or find it with the same schema and in the form that the address asks for."""
        if not self._is_ours:
            return
        server = self._known("create")
        found = self._stored("create")
        if found is None:
            self._make(server)
            found = self._stored("create")
        if found is None:
            no_alias(self._name, store=self._opened.name)
        kept, form = found
        difference = (
            schema_difference(kept, self._schema)
            or other_form(form, self._form, self._opened.form, dense="engine")
            or other_tokens(form, self._opened.vocabulary)
        )
        if difference:
            raise SchemaMismatch(difference, store=self._opened.name, operation="create")
        self._form = form
        self._layout = replace(self._layout, keys=keys_of(form, self._opened.vocabulary))
        self._shards = _shards(self._opened, self._name, "create")

    def _stored(self, operation: str) -> tuple[Schema, Form] | None:
        self._check_open(operation)
        found = _mappings(self._opened, self._name, operation)
        return None if found is None else ours(self._name, found[1], store=self._opened.name, operation=operation)

    def _make(self, server: Server) -> None:
        if problem := wire.unfit(self._schema, self._form, server):
            raise Unsupported(problem, store=self._opened.name, operation="create")
        body = wire.index_body(self._schema, self._form, self._opened.settings, self._opened.seismic)
        try:
            self._send("create", "PUT", f"/{_step(index_of(self._name))}", body, holds="acknowledged")
        except Refused as error:
            # Whoever was quicker has made it; what is there now counts.
            if "resource_already_exists_exception" not in str(error):
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
        names = ",".join(map(_step, found[0]))
        self._send("drop", "DELETE", f"/{names}", params={"ignore_unavailable": "true"}, holds="acknowledged")

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        """Index whole documents, acknowledged item by item when they are in the translog."""
        return bulk.upserted(records, self._problem, self._put, store=self._opened.name)

    def _problem(self, record: Record) -> str | None:
        return wire.folded(self._form, record) or self._layout.keys.unknown_in(record)

    def _put(self, records: Sequence[Record]) -> list[Rejected]:
        answer = self._bulk("upsert", bulk.writes(self._layout, records))
        return bulk.rejections(records, answer, self._error_of("upsert"))

    def _bulk(self, operation: str, lines: Sequence[object]) -> Any:
        """Send a bulk that makes no index where there is none: ours has an alias, which is required; of others it is asked first whether they are there."""
        params = {"filter_path": ITEMS}
        if self._is_ours:
            params["require_alias"] = "true"
        else:
            self._send(operation, "GET", f"{self._path}/_alias")
        return self._send(operation, "POST", f"{self._path}/_bulk", lines=lines, params=params, holds="items")

    def delete(self, ids: Sequence[str]) -> None:
        """Remove documents."""
        if ids:
            answer = self._bulk("delete", bulk.deletions(ids))
            bulk.raise_for_deletions(answer, self._error_of("delete"))

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        """Fetch documents; they are seen as soon as they are written."""
        if not ids:
            return []
        body = {"docs": docs(self._layout, ids, parts)}
        answer = self._send("get", "POST", f"{self._path}/_mget", body, holds="docs")
        return records(self._layout, answer, parts, self._error_of("get"))

    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        """Send all requests as one multi-search."""
        if not requests:
            return []
        if told := unknown_index(self._layout.keys, requests):
            raise Refused(told, store=self._opened.name, operation="search")
        sparse = any(
            isinstance(self._schema.fields.get(name), SparseField) for each in requests for name in _near(each)
        )
        server = self._known("search") if sparse else UNKNOWN
        lines = wire.msearch_lines(wire.Collection(self._schema, self._form, self._layout, server), requests)
        answer = self._send("search", "POST", f"{self._path}/_msearch", lines=lines, holds="responses")
        return pages(self._schema, self._layout, requests, answer, self._error_of("search"))

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        """Walk through a point in time, page after page."""
        path, params = f"{self._path}/_search/point_in_time", {"keep_alive": KEEP_ALIVE}
        place = self._send("scan", "POST", path, params=params, holds="pit_id")["pit_id"]
        body = wire.scan_body(self._layout, where, self._layout.selector(parts), batch)
        try:
            while True:
                page = body | {"pit": {"id": place, "keep_alive": KEEP_ALIVE}}
                params = {"allow_partial_search_results": "false"}
                found = self._send("scan", "POST", "/_search", page, params=params, holds="hits")["hits"]["hits"]
                yield from (self._layout.from_source(each["_id"], each.get("_source"), parts) for each in found)
                if len(found) < batch:
                    return
                body = body | {"search_after": found[-1]["sort"]}
        finally:
            # The server gives it up by itself in the end.
            with suppress(StoreError):
                self._opened.send("scan", "DELETE", "/_search/point_in_time", {"pit_id": [place]})

    def count(self, where: Filter | None = None) -> int:
        """Count exactly."""
        body = {"query": where_query(where, self._layout)}
        answer = self._send("count", "POST", f"{self._path}/_count", body, holds="count")
        check_shards(answer, store=self._opened.name, operation="count")
        return int(answer["count"])

    def refresh(self) -> None:
        """Make what was written visible to searches."""
        answer = self._send("refresh", "POST", f"{self._path}/_refresh", holds="_shards")
        check_shards(answer, store=self._opened.name, operation="refresh")

    def close(self) -> None:
        """Close what was opened for this store."""
        if not self._closed:
            self._closed = True
            self._opened.close()

    def _known(self, operation: str) -> Server:
        """What the server is, asked once; two threads that ask at the same time learn the same."""
        self._check_open(operation)
        if self._server is None:
            self._server = _ask(self._opened, operation)
        return self._server

    def _send(self, operation: str, method: str, path: str, body: object = None, **options: Any) -> Any:
        self._check_open(operation)
        return self._opened.send(operation, method, path, body, **options)

    def _check_open(self, operation: str) -> None:
        if self._closed:
            raise Permanent("the store is closed; open it again", store=self._opened.name, operation=operation)

    def _error_of(self, operation: str) -> bulk.ItemError:
        """The error of one item of an answer."""

        def error(status: int, body: Any) -> StoreError:
            return error_of(status, body, store=self._opened.name, operation=operation)

        return error


def _near(request: SearchRequest) -> list[str]:
    """The fields of the sparse and dense legs of a request."""
    legs = request.rank.legs if isinstance(request.rank, Fuse) else (request.rank,)
    return [leg.field for leg in legs if isinstance(leg, Near)]

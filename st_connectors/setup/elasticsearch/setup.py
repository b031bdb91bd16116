"""The set-up of Elasticsearch as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from st_connectors._lucene.client import Connection
from st_connectors.elasticsearch.client import open_connection
from st_connectors.errors import NotFound, Permanent, SchemaMismatch, StoreError, Unsupported
from st_connectors.plugin import Address
from st_connectors.setup.base import Done, Report
from st_connectors.setup.comparing import SAMPLE, Finding, compare_dense, compare_sparse, library_tokens, library_vector
from st_connectors.setup.elasticsearch.plan import META, TASKS, endpoint_of, licence_problem, plan, search_body
from st_connectors.setup.encoder import Encoder
from st_connectors.setup.filled import Filled
from st_connectors.setup.options import Options, is_made_by
from st_connectors.setup.requests import KEY, Request, resolve
from st_connectors.setup.stores import Wish

__all__ = ["ElasticsearchSetUp", "open_setup"]


@dataclass(frozen=True)
class ElasticsearchSetUp:
    """Inference endpoints, a pipeline and an index on one cluster.

    ``local`` is the address of the encoder server as seen from here, and ``key`` its key.
    """

    connection: Connection
    options: Options
    encoder: Encoder
    local: str
    key: str | None = None

    def requests(self) -> Sequence[Request]:
        """Return the requests; raise Unsupported if the licence does not permit them."""
        self._check_licence()
        return plan(self.options, self.encoder)

    def notes(self) -> Sequence[str]:
        """Return what has not been run."""
        return ("the requests follow the documentation of Elasticsearch and have not been run with a licence",)

    def apply(self, report: Report) -> None:
        """Create what is missing; raise SchemaMismatch before anything if a name is in use."""
        requests = self.requests()
        found = {request.path: self._existing(request.path) for request in requests}
        for request in requests:
            _check_ours(self.options, request, found[request.path])
        for request in requests:
            outcome = self._take(request, found[request.path])
            report(Done(_what(request.path), request.path.rpartition("/")[2], outcome))

    def _take(self, request: Request, existing: Mapping[str, Any] | None) -> str:
        body = resolve(request.body, {f"${KEY}": self.key or ""})
        if existing is not None and _is_same(request, existing):
            return "unchanged"
        if existing is not None and "/_inference/" in request.path:
            self._send("DELETE", f"{request.path}?force=true")
        self._send("PUT", request.path, body)
        return "created" if existing is None else "replaced"

    def _check_licence(self) -> None:
        """Raise Unsupported unless the licence permits inference. Serverless projects have none, and permit it."""
        try:
            licence = self._send("GET", "/_license")["license"]
        except Permanent as error:
            if error.status in (400, 404, 410):
                return
            raise
        if (problem := licence_problem(licence)) is not None:
            raise Unsupported(problem, store="elasticsearch", operation="setup")

    def _send(self, method: str, path: str, body: object = None) -> Any:
        place, _, query = path.partition("?")
        params = dict(part.split("=") for part in query.split("&")) if query else {}
        return self.connection.send("setup", method, place, body, params=params)

    def _existing(self, path: str) -> Mapping[str, Any] | None:
        """Return what the server has under a path, None if there is nothing."""
        try:
            answer = self._send("GET", path)
        except Permanent as error:
            if error.status == 404:
                return None
            raise
        if "/_inference/" in path:
            return next(iter(answer["endpoints"]), None)
        return next(iter(answer.values()), None)

    def _paths(self) -> list[str]:
        """Return the paths of all objects that a set-up can create, in the order in which they are deleted."""
        endpoints = [f"/_inference/{task}/{endpoint_of(self.options, kind)}" for kind, task in TASKS.items()]
        return [f"/{self.options.collection}", f"/_ingest/pipeline/{self.options.name}-ingest", *endpoints]

    def count(self) -> int | None:
        """Return the number of documents in the index; None if there is none."""
        existing = self._existing(f"/{self.options.collection}")
        if existing is None or not _is_ours(self.options, f"/{self.options.collection}", existing):
            return None
        return int(self._send("GET", f"/{self.options.collection}/_count")["count"])

    def remove(self, report: Report, *, keeps_collection: bool) -> None:
        """Delete what the set-up created; other objects stay, whatever their names are."""
        for path in self._paths():
            existing = self._existing(path)
            if existing is None or not _is_ours(self.options, path, existing):
                continue
            what, name = _what(path), path.rpartition("/")[2]
            if what == "index" and keeps_collection:
                self._send("PUT", f"{path}/_settings", {"index.default_pipeline": "_none"})
                report(Done(what, name, "detached from its pipeline"))
                continue
            self._send("DELETE", path)
            report(Done(what, name, "removed"))

    def check(self) -> Iterator[Finding]:
        """Yield how vectors of documents and queries differ from those of the library, and whether a search works."""
        if self.count() is None:
            message = f"there is no set-up {self.options.name!r}: run setup without --check"
            raise NotFound(message, store="elasticsearch", operation="setup")
        for input_type, role in (("ingest", "document"), ("search", "query")):
            yield from self._check_vectors(input_type, role)
        try:
            self._send("POST", f"/{self.options.collection}/_search", self._search(SAMPLE))
        except StoreError as error:
            yield Finding("a search", problem=error.message)
        else:
            yield Finding("a search")

    def _check_vectors(self, input_type: str, role: str) -> Iterator[Finding]:
        body = {"input": [SAMPLE], "input_type": input_type}
        if (dense := self.encoder.dense) is not None:
            answer = self._send("POST", f"/_inference/text_embedding/{endpoint_of(self.options, 'dense')}", body)
            expected = library_vector(dense, self.local, self.key, SAMPLE, role)
            yield compare_dense(f"dense vector of a {role}", answer["text_embedding"][0]["embedding"], expected)
        if (sparse := self.encoder.sparse) is not None:
            answer = self._send("POST", f"/_inference/sparse_embedding/{endpoint_of(self.options, 'sparse')}", body)
            expected = library_tokens(sparse, self.local, self.key, SAMPLE, role)
            yield compare_sparse(f"sparse vector of a {role}", answer["sparse_embedding"][0]["embedding"], expected)

    def fill(self, source: str, *, by_scan: bool) -> Filled:
        """Copy the documents of another index through the pipeline."""
        from st_connectors.setup.fill import by_reindex
        from st_connectors.setup.fill import by_scan as scan

        return (scan if by_scan else by_reindex)(self.connection, source, self.options.collection)

    def example(self) -> Sequence[Request]:
        """Return requests that store a document and search."""
        collection = self.options.collection
        return (
            Request("PUT", f"/{collection}/_doc/1?refresh=true", {self.options.text: "copy a directory tree"}),
            Request("POST", f"/{collection}/_search", self._search("copy a folder")),
        )

    def _search(self, query: str) -> dict[str, Any]:
        return search_body(self.options, self.encoder, query)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


def _what(path: str) -> str:
    if "/_inference/" in path:
        return "inference endpoint"
    return "ingest pipeline" if "/_ingest/" in path else "index"


def _is_ours(options: Options, path: str, existing: Mapping[str, Any]) -> bool:
    """Return whether a set-up created an object; an endpoint has no description, and is recognised by its address."""
    if "/_inference/" in path:
        url = str(existing.get("service_settings", {}).get("url", ""))
        return existing.get("service") == "custom" and "/elasticsearch/" in url
    meta = existing.get("_meta") or existing.get("mappings", {}).get("_meta") or {}
    return is_made_by(options.name, meta.get(META, {}).get("description"))


def _check_ours(options: Options, request: Request, existing: Mapping[str, Any] | None) -> None:
    if existing is None:
        return
    what, name = _what(request.path), request.path.rpartition("/")[2]
    if not _is_ours(options, request.path, existing):
        hint = f"choose another --collection; --backfill {name} copies its documents"
        hint = hint if what == "index" else "choose another --name"
        message = f"the {what} {name!r} exists and was not created by this set-up: {hint}"
        raise SchemaMismatch(message, store="elasticsearch", operation="setup")
    if what == "index" and (problem := _field_problem(request, existing)) is not None:
        message = f"the index {name!r} {problem}: choose another --collection, and copy with --backfill {name}"
        raise SchemaMismatch(message, store="elasticsearch", operation="setup")


def _field_problem(request: Request, existing: Mapping[str, Any]) -> str | None:
    stored = existing["mappings"].get("properties", {})
    for name, wanted in request.body["mappings"]["properties"].items():
        for key in ("type", "dims"):
            if stored.get(name, {}).get(key) != wanted.get(key):
                return (
                    f"has {key} {stored.get(name, {}).get(key)} of the field {name!r}, and {wanted.get(key)} is needed"
                )
    return None


def _is_same(request: Request, existing: Mapping[str, Any]) -> bool:
    match _what(request.path):
        case "index":
            return True
        case "ingest pipeline":
            return bool(dict(existing) == request.body)
        case _:
            stored, wanted = existing["service_settings"], request.body["service_settings"]
            compared = ("url", "request", "dimensions", "similarity")
            return [stored.get(name) for name in compared] == [wanted.get(name) for name in compared]


def open_setup(address: Address, wish: Wish) -> ElasticsearchSetUp:
    """Return the set-up of Elasticsearch; nothing is sent."""
    return ElasticsearchSetUp(open_connection(address, None), wish.options, wish.encoder, wish.local, wish.key)

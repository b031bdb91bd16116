"""Set up Milvus: a collection whose text field a function of the server encodes, and the function that reranks.

The requests follow the documentation of 2.6; they have not been run on a server. Milvus computes no learned sparse
vectors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from st_connectors.errors import NotFound, Permanent, SchemaMismatch, StoreError, Unsupported
from st_connectors.plugin import Address
from st_connectors.setup.base import Done, Report
from st_connectors.setup.comparing import SAMPLE, Finding, compare_dense, library_vector
from st_connectors.setup.encoder import Encoder, Model
from st_connectors.setup.filled import Filled
from st_connectors.setup.http import HttpStore, url_of
from st_connectors.setup.options import DENSE, Options, is_made_by, mark
from st_connectors.setup.requests import Request
from st_connectors.setup.stores import Wish

__all__ = ["MilvusSetUp", "creation", "open_setup", "rerank_function"]

TOKEN = "ST_MILVUS_TOKEN"  # noqa: S105  # the name of the variable
_METRICS = {None: "COSINE", "cosine": "COSINE", "dot": "IP", "euclidean": "L2"}
_LONGEST = 65_535
_CHECKED = "st-connectors-check"
"""The id of the row that a check stores and deletes."""


def creation(options: Options, encoder: Encoder) -> Request:
    """Return the request that creates the collection; raise Unsupported for what Milvus lacks."""
    dense = _dense(options, encoder)
    fields = [
        {"fieldName": "id", "dataType": "VarChar", "isPrimary": True, "elementTypeParams": {"max_length": "512"}},
        {"fieldName": options.text, "dataType": "VarChar", "elementTypeParams": {"max_length": str(_LONGEST)}},
        {"fieldName": DENSE, "dataType": "FloatVector", "elementTypeParams": {"dim": str(dense.dimension)}},
    ]
    function = {
        "name": f"{options.name}-dense",
        "type": "TextEmbedding",
        "inputFieldNames": [options.text],
        "outputFieldNames": [DENSE],
        # Milvus sets the path of the call and sends no model, so that the model is in the query string.
        "params": {
            "provider": "TEI",
            "endpoint": _endpoint(encoder, dense),
            "max_client_batch_size": str(options.batch),
            **_prompts(dense),
        },
    }
    schema = {"autoID": False, "enableDynamicField": True, "fields": fields, "functions": [function]}
    index = {
        "fieldName": DENSE,
        "indexName": DENSE,
        "metricType": _METRICS[dense.similarity],
        "params": {"index_type": "AUTOINDEX"},
    }
    body = {
        "collectionName": options.collection,
        "description": mark(options.name),
        "schema": {**schema, "description": mark(options.name)},
        "indexParams": [index],
    }
    return Request("POST", "/v2/vectordb/collections/create", body)


def _dense(options: Options, encoder: Encoder) -> Model:
    problem = None
    if encoder.dense is None:
        problem = "Milvus needs a dense model: its functions compute no sparse vectors"
    elif encoder.dense.similarity not in _METRICS:
        problem = f"the model {encoder.dense.name} compares by {encoder.dense.similarity}: choose another one"
    elif options.is_semantic or options.is_two_phase:
        problem = "--semantic and --two-phase are not for Milvus"
    elif encoder.has_key:
        problem = (
            "Milvus reads keys from its own milvus.yaml: serve without keys, on a network that only Milvus reaches"
        )
    if problem is not None or encoder.dense is None:
        raise Unsupported(problem or "", store="milvus", operation="setup")
    return encoder.dense


def _prompts(model: Model) -> dict[str, str]:
    """Return the prompts that Milvus puts in front of texts itself."""
    names = {"ingestion_prompt": "document", "search_prompt": "query"}
    return {parameter: model.prompts[name] for parameter, name in names.items() if model.prompts.get(name)}


def _endpoint(encoder: Encoder, model: Model) -> str:
    return encoder.url("", model)


def rerank_function(options: Options, encoder: Encoder, query: str) -> dict[str, Any] | None:
    """Return the function that a search passes as ``ranker``, None without a reranker."""
    if encoder.reranker is None:
        return None
    return {
        "name": f"{options.name}-rerank",
        "type": "Rerank",
        "inputFieldNames": [options.text],
        "params": {
            "reranker": "model",
            "provider": "tei",
            "queries": json.dumps([query]),
            "endpoint": _endpoint(encoder, encoder.reranker),
            "max_client_batch_size": str(options.batch),
        },
    }


def search(options: Options, encoder: Encoder, query: str, *, limit: int = 10) -> Request:
    """Return the request that searches for a text, reranked if there is a reranker."""
    body: dict[str, Any] = {
        "collectionName": options.collection,
        "data": [query],
        "annsField": DENSE,
        "limit": limit,
        "outputFields": [options.text],
        "consistencyLevel": "Strong",
    }
    if (function := rerank_function(options, encoder, query)) is not None:
        body["functionScore"] = {"functions": [function]}
    return Request("POST", "/v2/vectordb/entities/search", body)


def insertion(options: Options, identity: str, text: str) -> Request:
    """Return the request that stores a text."""
    body = {"collectionName": options.collection, "data": [{"id": identity, options.text: text}]}
    return Request("POST", "/v2/vectordb/entities/upsert", body)


@dataclass(frozen=True)
class MilvusSetUp:
    """A collection on one server. ``local`` is the address of the encoder server as seen from here."""

    server: HttpStore
    options: Options
    encoder: Encoder
    local: str
    key: str | None = None

    def requests(self) -> Sequence[Request]:
        """Return the request that creates the collection."""
        return [creation(self.options, self.encoder)]

    def notes(self) -> Sequence[str]:
        """Return what Milvus does not do."""
        skipped = [] if self.encoder.sparse is None else ["Milvus functions compute no sparse vectors"]
        return ["the requests follow the documentation of Milvus 2.6 and have not been run on a server", *skipped]

    def apply(self, report: Report) -> None:
        """Create the collection unless it exists; raise SchemaMismatch if another program created it."""
        [request] = self.requests()
        existing = self._existing()
        if existing is None:
            self._send(request)
            self._send(self._named("collections/load"))
        else:
            self._check_layout(existing)
        report(Done("collection", self.options.collection, "created" if existing is None else "unchanged"))

    def _send(self, request: Request) -> Any:
        """Send a request; Milvus answers 200 for errors too, with a code."""
        answer = self.server.send(request.method, request.path, request.body)
        if not isinstance(answer, Mapping) or answer.get("code") not in (0, 200):
            reason = answer.get("message", answer) if isinstance(answer, Mapping) else answer
            kind = NotFound if isinstance(answer, Mapping) and answer.get("code") == _NO_COLLECTION else Permanent
            raise kind(f"the server refused {request.path}: {reason}", store="milvus", operation="setup")
        return answer.get("data")

    def _named(self, path: str, **more: Any) -> Request:
        return Request("POST", f"/v2/vectordb/{path}", {"collectionName": self.options.collection, **more})

    def _existing(self) -> Mapping[str, Any] | None:
        try:
            found = self._send(self._named("collections/describe"))
        except NotFound:
            return None
        if not is_made_by(self.options.name, found.get("description")):
            message = f"the collection {self.options.collection!r} exists and was not created by this set-up: "
            raise SchemaMismatch(f"{message}choose another --collection", store="milvus", operation="setup")
        return dict(found)

    def _check_layout(self, existing: Mapping[str, Any]) -> None:
        dense = _dense(self.options, self.encoder)
        for each in existing.get("fields", ()):
            stored = {item["key"]: item["value"] for item in each.get("params") or ()}
            if each.get("name") == DENSE and stored.get("dim") != str(dense.dimension):
                message = (
                    f"the collection {self.options.collection!r} has vectors of dimension {stored.get('dim')}, and the "
                    f"model has {dense.dimension}: choose another --collection"
                )
                raise SchemaMismatch(message, store="milvus", operation="setup")

    def count(self) -> int | None:
        """Return the number of rows; None if there is no collection of this set-up."""
        if self._existing() is None:
            return None
        [row] = self._send(self._named("entities/query", filter="", outputFields=["count(*)"]))
        return int(row["count(*)"])

    def remove(self, report: Report, *, keeps_collection: bool) -> None:
        """Delete the collection, which is all that the set-up created."""
        if self._existing() is None or keeps_collection:
            return
        self._send(self._named("collections/drop"))
        report(Done("collection", self.options.collection, "removed"))

    def check(self) -> Iterator[Finding]:
        """Yield how the vector of a row differs from that of the library, and whether a search works."""
        if self._existing() is None:
            message = f"there is no collection {self.options.collection!r}: run setup without --check"
            raise NotFound(message, store="milvus", operation="setup")
        dense = _dense(self.options, self.encoder)
        self._send(insertion(self.options, _CHECKED, SAMPLE))
        chosen = f'id == "{_CHECKED}"'
        try:
            rows = self._send(
                self._named("entities/query", filter=chosen, outputFields=[DENSE], consistencyLevel="Strong")
            )
            expected = library_vector(dense, self.local, self.key, SAMPLE, "plain")
            yield compare_dense("dense vector of a text", rows[0][DENSE] if rows else None, expected)
            yield self._search_works()
        finally:
            self._send(self._named("entities/delete", filter=chosen))

    def _search_works(self) -> Finding:
        try:
            self._send(search(self.options, self.encoder, SAMPLE))
        except StoreError as error:
            return Finding("a search", problem=error.message)
        return Finding("a search")

    def fill(self, source: str, *, by_scan: bool) -> Filled:
        """Raise Unsupported: Milvus copies no rows between collections."""
        del by_scan
        message = f"Milvus copies no rows: fill the collection with your own client, not by --backfill {source}"
        raise Unsupported(message, store="milvus", operation="setup")

    def example(self) -> Sequence[Request]:
        """Return requests that store a document and search."""
        return insertion(self.options, "1", "copy a directory tree"), search(
            self.options, self.encoder, "copy a folder"
        )

    def close(self) -> None:
        """Nothing is open."""


_NO_COLLECTION = 100
"""The code of Milvus for a collection that does not exist."""


def open_setup(address: Address, wish: Wish) -> MilvusSetUp:
    """Return the set-up of Milvus; nothing is sent."""
    token = os.environ.get(TOKEN)
    server = HttpStore("milvus", url_of(address, 19530), {"authorization": f"Bearer {token}"} if token else {})
    return MilvusSetUp(server, wish.options, wish.encoder, wish.local, wish.key)

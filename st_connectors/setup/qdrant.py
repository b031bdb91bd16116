"""Set up Qdrant: a collection, and a check that the server calls the encoder server.

Qdrant has this call in its open-source server since 1.13, without documentation. It was tried on 1.18.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from st_connectors.errors import NotFound, Refused, SchemaMismatch, StoreError, Unsupported
from st_connectors.plugin import Address
from st_connectors.setup.base import Done, Report
from st_connectors.setup.comparing import SAMPLE, Finding, compare_dense, compare_sparse, library_vector
from st_connectors.setup.encoder import Encoder, Model
from st_connectors.setup.filled import Filled
from st_connectors.setup.http import HttpStore, url_of
from st_connectors.setup.options import DENSE, SPARSE, Options, is_made_by, mark
from st_connectors.setup.requests import KEY, Request
from st_connectors.setup.stores import Wish

__all__ = ["QdrantSetUp", "creation", "open_setup", "server_settings"]

API_KEY = "ST_QDRANT_API_KEY"
META = "st_connectors_setup"
_DISTANCES = {None: "Cosine", "cosine": "Cosine", "dot": "Dot", "euclidean": "Euclid", "manhattan": "Manhattan"}
_POINT = str(uuid.uuid5(uuid.NAMESPACE_URL, "st-connectors:setup:check"))
"""The id of the point that a check stores and deletes."""


def server_settings(options: Options, encoder: Encoder) -> dict[str, str]:
    """Return the environment of the Qdrant server by which it calls the encoder server."""
    token = {"QDRANT__INFERENCE__TOKEN": f"${KEY}"} if encoder.has_key else {"QDRANT__INFERENCE__TOKEN": ""}
    return {
        "QDRANT__INFERENCE__ADDRESS": f"{encoder.address}/qdrant/inference",
        "QDRANT__INFERENCE__TIMEOUT": str(options.timeout_s),
        **token,
    }


def creation(options: Options, encoder: Encoder) -> Request:
    """Return the request that creates the collection; raise Unsupported for a metric that Qdrant lacks."""
    if options.is_semantic or options.is_two_phase:
        raise Unsupported("--semantic and --two-phase are not for Qdrant", store="qdrant", operation="setup")
    vectors = {}
    if encoder.dense is not None:
        if encoder.dense.similarity not in _DISTANCES:
            message = f"the model {encoder.dense.name} compares by {encoder.dense.similarity}: choose another one"
            raise Unsupported(message, store="qdrant", operation="setup")
        vectors[DENSE] = {"size": encoder.dense.dimension, "distance": _DISTANCES[encoder.dense.similarity]}
    body = {
        "vectors": vectors,
        "sparse_vectors": {} if encoder.sparse is None else {SPARSE: {}},
        "metadata": {META: mark(options.name)},
    }
    return Request("PUT", f"/collections/{quote(options.collection)}", body)


def upsert(options: Options, encoder: Encoder, identity: str | int, text: str) -> Request:
    """Return the request that stores a text as a point, whose vectors are documents for the encoder server."""
    vectors = {kind: {"text": text, "model": model.name} for kind, model in _legs(encoder).items()}
    body = {"points": [{"id": identity, "vector": vectors, "payload": {options.text: text}}]}
    return Request("PUT", f"/collections/{quote(options.collection)}/points?wait=true", body)


def query(options: Options, encoder: Encoder, text: str) -> Request:
    """Return the request that searches for a text with all legs, fused by reciprocal ranks."""
    prefetch = [
        {"query": {"text": text, "model": model.name}, "using": kind, "limit": options.depth}
        for kind, model in _legs(encoder).items()
    ]
    body = {"prefetch": prefetch, "query": {"fusion": "rrf"}, "limit": 10, "with_payload": True}
    return Request("POST", f"/collections/{quote(options.collection)}/points/query", body)


def _legs(encoder: Encoder) -> dict[str, Model]:
    models = {DENSE: encoder.dense, SPARSE: encoder.sparse}
    return {kind: model for kind, model in models.items() if model is not None}


@dataclass(frozen=True)
class QdrantSetUp:
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
        """Return the settings that the server must have."""
        lines = [f"{name}={value}" for name, value in server_settings(self.options, self.encoder).items()]
        return ["the environment of the Qdrant server must contain (restart it after a change):", *lines]

    def apply(self, report: Report) -> None:
        """Create the collection; raise Refused, and leave none, if the server does not call the encoder server."""
        existing, [request] = self._existing(), self.requests()
        if existing is None:
            self._send(request)
        else:
            self._check_layout(existing, request)
        try:
            findings = list(self._try_out())
        except StoreError as error:
            if existing is None:
                self.server.send("DELETE", request.path)
            raise Refused(_inactive(error), store="qdrant", operation="setup") from error
        report(Done("collection", self.options.collection, "created" if existing is None else "unchanged"))
        for finding in findings:
            report(Done("check", str(finding), "problem" if finding.problem else "checked"))

    def _send(self, request: Request) -> Any:
        return self.server.send(request.method, request.path, request.body)

    def _existing(self) -> Mapping[str, Any] | None:
        """Return the collection, None if there is none; raise SchemaMismatch if another program created it."""
        try:
            found = self.server.send("GET", f"/collections/{quote(self.options.collection)}")["result"]["config"]
        except NotFound:
            return None
        if not is_made_by(self.options.name, (found.get("metadata") or {}).get(META)):
            message = f"the collection {self.options.collection!r} exists and was not created by this set-up: "
            raise SchemaMismatch(f"{message}choose another --collection", store="qdrant", operation="setup")
        return dict(found)

    def _check_layout(self, existing: Mapping[str, Any], request: Request) -> None:
        stored = existing["params"]
        for name, wanted in request.body["vectors"].items():
            found = (stored.get("vectors") or {}).get(name) or {}
            if (found.get("size"), found.get("distance")) != (wanted["size"], wanted["distance"]):
                name_of = f"the collection {self.options.collection!r} has vectors {name!r}"
                stored_as = f"{found.get('size')} {found.get('distance')}"
                needed = f"{wanted['size']} {wanted['distance']}"
                message = f"{name_of} of {stored_as}, and the model needs {needed}: choose another --collection"
                raise SchemaMismatch(message, store="qdrant", operation="setup")

    def _try_out(self) -> Iterator[Finding]:
        """Store a point by its text, compare its vectors, search by text, and delete the point."""
        self._send(upsert(self.options, self.encoder, _POINT, SAMPLE))
        place = f"/collections/{quote(self.options.collection)}/points"
        try:
            body = {"ids": [_POINT], "with_vector": True}
            [point] = self.server.send("POST", place, body)["result"]
            yield from self._compared(point["vector"])
            self._send(query(self.options, self.encoder, SAMPLE))
            yield Finding("a search")
        finally:
            self.server.send("POST", f"{place}/delete?wait=true", {"points": [_POINT]})

    def _compared(self, vectors: Mapping[str, Any]) -> Iterator[Finding]:
        for kind, model in _legs(self.encoder).items():
            expected = library_vector(model, self.local, self.key, SAMPLE, "document")
            what, found = f"{kind} vector of a document", vectors.get(kind)
            if kind == DENSE:
                yield compare_dense(what, found, expected)
            else:
                weights = None if found is None else dict(zip(found["indices"], found["values"], strict=True))
                yield compare_sparse(what, weights, expected)

    def count(self) -> int | None:
        """Return the number of points; None if there is no collection of this set-up."""
        if self._existing() is None:
            return None
        place = f"/collections/{quote(self.options.collection)}/points/count"
        return int(self.server.send("POST", place, {"exact": True})["result"]["count"])

    def remove(self, report: Report, *, keeps_collection: bool) -> None:
        """Delete the collection, which is all that the set-up created."""
        if self._existing() is None or keeps_collection:
            return
        self.server.send("DELETE", f"/collections/{quote(self.options.collection)}")
        report(Done("collection", self.options.collection, "removed"))

    def check(self) -> Iterator[Finding]:
        """Yield how the vectors of a point differ from those of the library, and whether a search works."""
        if self._existing() is None:
            message = f"there is no collection {self.options.collection!r}: run setup without --check"
            raise NotFound(message, store="qdrant", operation="setup")
        try:
            yield from self._try_out()
        except StoreError as error:
            raise Refused(_inactive(error), store="qdrant", operation="setup") from error

    def fill(self, source: str, *, by_scan: bool) -> Filled:
        """Raise Unsupported: Qdrant does not encode points that it copies."""
        del by_scan
        message = f"Qdrant does not encode stored points: fill the collection with st-connectors ingest, not {source}"
        raise Unsupported(message, store="qdrant", operation="setup")

    def example(self) -> Sequence[Request]:
        """Return requests that store a document and search; in Python they are ``models.Document(text, model)``."""
        return (
            upsert(self.options, self.encoder, 1, "copy a directory tree"),
            query(self.options, self.encoder, "copy a folder"),
        )

    def close(self) -> None:
        """Nothing is open."""


def _inactive(error: StoreError) -> str:
    """Return what to do about a server that does not call the encoder server."""
    return (
        f"the server does not encode ({error.message}): set the three QDRANT__INFERENCE__ variables that --dry-run "
        "prints and restart it, or write with st-connectors ingest, which encodes by itself"
    )


def open_setup(address: Address, wish: Wish) -> QdrantSetUp:
    """Return the set-up of Qdrant; nothing is sent."""
    key = os.environ.get(API_KEY)
    server = HttpStore("qdrant", url_of(address, 6333), {"api-key": key} if key else {})
    return QdrantSetUp(server, wish.options, wish.encoder, wish.local, wish.key)

"""Stores that accept what they should reject, or treat different names as the same."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from st_connectors.filters import Filter
from st_connectors.schema import DenseField, Field, Quantization, Schema, SparseField
from st_connectors.store import (
    Capabilities,
    Fuse,
    Hit,
    Leg,
    Near,
    Parts,
    Record,
    Rejected,
    SearchRequest,
    Store,
    Vector,
)
from st_connectors.testing.broken.base import Broken, Failed, Passing, with_schema, wrapping
from st_connectors.testing.opening import Make, Opener
from st_core.vectors import SparseVector

__all__ = ["VALIDATING"]

_DUMMY = SparseVector.from_mapping({0: 1e-6})


class _Dummies(Passing):
    """A store that writes a dummy for an empty sparse vector, as adapters for Milvus Lite were seen to do."""

    optional = True

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        optional_fields = [
            name
            for name, spec in self.schema.fields.items()
            if isinstance(spec, SparseField) and spec.optional is self.optional
        ]
        return self.store.upsert(
            [replace(record, vectors=_filled(record.vectors, optional_fields)) for record in records]
        )


class _DummiesForRequired(_Dummies):
    optional = False


def _filled(vectors: Mapping[str, Vector], names: Sequence[str]) -> dict[str, Vector]:
    empty = {name: _DUMMY for name in names if name not in vectors or len(vectors[name]) == 0}
    return {**vectors, **empty}


class _AcceptsMappings(Passing):
    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        return self.store.upsert(
            [
                replace(
                    record,
                    vectors={
                        name: SparseVector.from_mapping(vector) if isinstance(vector, Mapping) else vector
                        for name, vector in record.vectors.items()
                    },
                )
                for record in records
            ]
        )


class _AcceptsTextAsList(Passing):
    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        return self.store.get(list(ids), parts=parts)


class _IgnoresMaxLimit(Passing):
    @property
    def capabilities(self) -> Capabilities:
        return replace(self.store.capabilities, max_limit=50)


class _FoldsFields(Passing):
    """A store that turns field names into identifiers, even if two become the same."""

    def __init__(self, store: Store, schema: Schema) -> None:
        super().__init__(store)
        self.requested = schema

    @property
    def schema(self) -> Schema:
        return self.requested

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        return self.store.upsert(
            [
                replace(record, vectors={_folded(name): vector for name, vector in record.vectors.items()})
                for record in records
            ]
        )

    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        return self.store.search([replace(request, rank=_folded_leg(request.rank)) for request in requests])

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        for record in self.store.scan(where=where, parts=parts, batch=batch):
            vectors = {name: record.vectors.get(_folded(name)) for name in self.requested.fields}
            yield replace(record, vectors={name: vector for name, vector in vectors.items() if vector is not None})


def _folded(name: str) -> str:
    return re.sub(r"\W", "_", name)


def _folded_leg(rank: Leg | Fuse) -> Leg | Fuse:
    return Near(_folded(rank.field), rank.vector) if isinstance(rank, Near) else rank


def _folding_fields(make: Make) -> Make:
    def open_folded(what: Schema | str, /) -> Store:
        if isinstance(what, str):
            return make(what)
        fields: dict[str, Field] = {_folded(name): spec for name, spec in what.fields.items()}
        return _FoldsFields(make(replace(what, fields=fields)), what)

    return open_folded


class _IgnoresRequiredVectors(Passing):
    """A store that declares every vector as required, but accepts records that lack one."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(self.store.capabilities, optional_vectors=False)


class _IgnoresMaxBytes(Passing):
    @property
    def capabilities(self) -> Capabilities:
        return replace(self.store.capabilities, max_bytes=2_000)


class _StoresQuantized(Passing):
    """A store that declares quantization and scores quantized vectors at every effort."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(self.store.capabilities, quantizations=frozenset(Quantization))

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        return self.store.upsert(
            [
                replace(record, vectors={name: _quantized(vector) for name, vector in record.vectors.items()})
                for record in records
            ]
        )


def _quantized(vector: Vector) -> Vector:
    return vector if isinstance(vector, SparseVector) else np.round(vector * 30).astype(np.float32) / np.float32(30)


def _unquantized(schema: Schema) -> Schema:
    fields = {
        name: replace(spec, quantization=Quantization.NONE) if isinstance(spec, DenseField) else spec
        for name, spec in schema.fields.items()
    }
    return replace(schema, fields=fields)


@dataclass(frozen=True, slots=True)
class _UnlistedOpener(Opener):
    """Opens collections that do not appear in the list of collections."""

    make: Make

    def __call__(self, what: Schema | str, /) -> Store:
        """Open a collection of the correct store."""
        return self.make(what)


class _StoresIdInPayload(Passing):
    """A broken store that writes the id under a payload key and so overwrites the record's own value."""

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        return self.store.upsert(
            [replace(record, payload={**record.payload, "_st_id": record.id}) for record in records]
        )

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        return [_without_id(record) for record in self.store.get(ids, parts=parts)]

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        return map(_without_id, self.store.scan(where=where, parts=parts, batch=batch))


def _without_id(record: Record) -> Record:
    return replace(record, payload={key: value for key, value in record.payload.items() if key != "_st_id"})


def _in_lower_case(schema: Schema) -> Schema:
    return replace(schema, collection=schema.collection.lower())


def _with_names(schema: Schema) -> Schema:
    return replace(schema, fields={name or "unnamed": spec for name, spec in schema.fields.items()})


VALIDATING: Mapping[str, Broken] = {
    "dummies": Broken(
        "a dummy replaces an empty sparse vector",
        "test_weights_that_are_none_are_left_out[negative]",
        wrapping(_Dummies),
        "'all': expected vectors",
    ),
    "dummies-where-needed": Broken(
        "a dummy replaces a missing required sparse vector",
        "test_an_empty_sparse_vector_is_refused_where_one_is_needed",
        wrapping(_DummiesForRequired),
        r"Right contains one more item: \(0, 'empty'",
    ),
    "mappings-taken": Broken(
        "a mapping is accepted as a sparse vector",
        "test_vectors_of_another_form_are_refused[mapping]",
        wrapping(_AcceptsMappings),
        r"Right contains one more item: \(1, 'broken'",
    ),
    "collections-folded": Broken(
        "names of collections ignore case",
        "test_collections_are_kept_apart_or_refused",
        with_schema(_in_lower_case),
        "assert 1 == 0",
    ),
    "fields-folded": Broken(
        "names of vector fields become identifiers",
        "test_vector_fields_are_kept_apart_or_refused",
        _folding_fields,
        "'one': expected a.b",
    ),
    "id-in-the-payload": Broken(
        "the key under which the store keeps an id hides the payload's own",
        "test_payload_keys_may_be_those_of_the_store[undeclared]",
        wrapping(_StoresIdInPayload),
        "'all': expected payload",
    ),
    "text-for-list": Broken(
        "a string is accepted as a list of ids",
        "test_wrong_arguments_are_refused[get-text]",
        wrapping(_AcceptsTextAsList),
        "DID NOT RAISE.*TypeError",
        Failed,
    ),
    "window-forgotten": Broken(
        "the declared maximum of hits is not enforced",
        "test_candidates_over_the_stores_window_are_refused",
        wrapping(_IgnoresMaxLimit),
        "DID NOT RAISE.*Unsupported",
        Failed,
    ),
    "needed-vectors-filled": Broken(
        "a required vector may be missing",
        "test_records_that_lack_vectors_are_refused_where_undeclared",
        wrapping(_IgnoresRequiredVectors),
        r"Right contains one more item: \(0, 'r000'\)",
    ),
    "size-forgotten": Broken(
        "the declared size of a request is not enforced",
        "test_a_record_over_the_size_of_a_request_is_refused",
        wrapping(_IgnoresMaxBytes),
        r"Right contains one more item: \(1, 'r001'\)",
    ),
    "shortened-for-good": Broken(
        "exact effort compares quantized vectors",
        "test_quantized_fields_are_exact_at_exact_effort[int8]",
        lambda make: wrapping(_StoresQuantized)(with_schema(_unquantized)(make)),
        "'r000': expected dense",
    ),
    "listed-nowhere": Broken(
        "collections are not listed",
        "test_collections_are_listed",
        lambda make: _UnlistedOpener("memory:empty", None, None, make),
        "Extra items in the left set",
    ),
    "nameless-field": Broken(
        "a field without a name gets one",
        "test_wrong_schemas_are_refused[no-name]",
        with_schema(_with_names),
        " is None",
    ),
}

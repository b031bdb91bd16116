"""Stores that take what they should refuse, or fold names that are not the same."""

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
from st_connectors.testing.broken.passing import Broken, Passing, around, with_schema
from st_connectors.testing.opening import Make, Opener
from st_core.vectors import SparseVector

__all__ = ["TAKING"]

_DUMMY = SparseVector.from_mapping({0: 1e-6})


class _Dummies(Passing):
    """Milvus Lite refuses empty sparse vectors, and adapters for it were seen to write something instead."""

    optional = True

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        lacking = [
            name
            for name, spec in self.schema.fields.items()
            if isinstance(spec, SparseField) and spec.optional is self.optional
        ]
        return self.store.upsert([replace(record, vectors=_filled(record.vectors, lacking)) for record in records])


class _DummiesWhereNeeded(_Dummies):
    optional = False


def _filled(vectors: Mapping[str, Vector], names: Sequence[str]) -> dict[str, Vector]:
    empty = {name: _DUMMY for name in names if name not in vectors or len(vectors[name]) == 0}
    return {**vectors, **empty}


class _TakesMappings(Passing):
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


class _TakesOneForMany(Passing):
    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        return self.store.get(list(ids), parts=parts)


class _ForgetsItsWindow(Passing):
    @property
    def capabilities(self) -> Capabilities:
        return replace(self.store.capabilities, max_limit=50)


class _FoldsFields(Passing):
    """Field names become identifiers, whoever else becomes the same."""

    def __init__(self, store: Store, schema: Schema) -> None:
        super().__init__(store)
        self.asked = schema

    @property
    def schema(self) -> Schema:
        return self.asked

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
            found = {name: record.vectors.get(_folded(name)) for name in self.asked.fields}
            yield replace(record, vectors={name: vector for name, vector in found.items() if vector is not None})


def _folded(name: str) -> str:
    return re.sub(r"\W", "_", name)


def _folded_leg(rank: Leg | Fuse) -> Leg | Fuse:
    return Near(_folded(rank.field), rank.vector) if isinstance(rank, Near) else rank


def _folding_fields(make: Make) -> Make:
    def opened(what: Schema | str, /) -> Store:
        if isinstance(what, str):
            return make(what)
        fields: dict[str, Field] = {_folded(name): spec for name, spec in what.fields.items()}
        return _FoldsFields(make(replace(what, fields=fields)), what)

    return opened


class _FillsWhatItNeeds(Passing):
    """Declares that it needs every vector, and takes records without."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(self.store.capabilities, optional_vectors=False)


class _ForgetsItsSize(Passing):
    @property
    def capabilities(self) -> Capabilities:
        return replace(self.store.capabilities, max_bytes=2_000)


class _KeepsShortened(Passing):
    """Declares a quantisation, and scores by the shortened vectors whatever the effort."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(self.store.capabilities, quantizations=frozenset(Quantization))

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        return self.store.upsert(
            [
                replace(record, vectors={name: _shortened(vector) for name, vector in record.vectors.items()})
                for record in records
            ]
        )


def _shortened(vector: Vector) -> Vector:
    return vector if isinstance(vector, SparseVector) else np.round(vector * 30).astype(np.float32) / np.float32(30)


def _unquantized(schema: Schema) -> Schema:
    fields = {
        name: replace(spec, quantization=Quantization.NONE) if isinstance(spec, DenseField) else spec
        for name, spec in schema.fields.items()
    }
    return replace(schema, fields=fields)


@dataclass(frozen=True, slots=True)
class _Elsewhere(Opener):
    """Keeps its collections where nobody lists them."""

    make: Make

    def __call__(self, what: Schema | str, /) -> Store:
        """Open it where the good store does."""
        return self.make(what)


class _HidesItsIdInThePayload(Passing):
    """Stores that keep a record's id under a key of the payload: what the payload has there itself is lost."""

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        return self.store.upsert(
            [replace(record, payload={**record.payload, "_st_id": record.id}) for record in records]
        )

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        return [_less_its_id(record) for record in self.store.get(ids, parts=parts)]

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        return map(_less_its_id, self.store.scan(where=where, parts=parts, batch=batch))


def _less_its_id(record: Record) -> Record:
    return replace(record, payload={key: value for key, value in record.payload.items() if key != "_st_id"})


def _lower(schema: Schema) -> Schema:
    return replace(schema, collection=schema.collection.lower())


def _named(schema: Schema) -> Schema:
    return replace(schema, fields={name or "unnamed": spec for name, spec in schema.fields.items()})


TAKING: Mapping[str, Broken] = {
    "dummies": Broken(
        "a dummy stands for an empty sparse vector",
        "test_weights_that_are_none_are_left_out[negative]",
        around(_Dummies),
    ),
    "dummies-where-needed": Broken(
        "a dummy stands for a sparse vector that is needed",
        "test_an_empty_sparse_vector_is_refused_where_one_is_needed",
        around(_DummiesWhereNeeded),
    ),
    "mappings-taken": Broken(
        "anything like a sparse vector is taken for one",
        "test_vectors_of_another_form_are_refused[mapping]",
        around(_TakesMappings),
    ),
    "collections-folded": Broken(
        "names of collections are blind to case", "test_collections_are_kept_apart_or_refused", with_schema(_lower)
    ),
    "fields-folded": Broken(
        "names of vector fields are made identifiers", "test_vector_fields_are_kept_apart_or_refused", _folding_fields
    ),
    "id-in-the-payload": Broken(
        "the key under which the store keeps an id hides the payload's own",
        "test_payload_keys_may_be_those_of_the_store[undeclared]",
        around(_HidesItsIdInThePayload),
    ),
    "text-for-list": Broken(
        "a text is taken for a list of ids", "test_wrong_arguments_are_refused[get-text]", around(_TakesOneForMany)
    ),
    "window-forgotten": Broken(
        "the declared window is not kept",
        "test_candidates_over_the_stores_window_are_refused",
        around(_ForgetsItsWindow),
    ),
    "needed-vectors-filled": Broken(
        "a vector that is needed may be missing",
        "test_records_that_lack_vectors_are_refused_where_undeclared",
        around(_FillsWhatItNeeds),
    ),
    "size-forgotten": Broken(
        "the declared size of a request is not kept",
        "test_a_record_over_the_size_of_a_request_is_refused",
        around(_ForgetsItsSize),
    ),
    "shortened-for-good": Broken(
        "exact effort compares shortened vectors",
        "test_quantized_fields_are_exact_at_exact_effort[int8]",
        lambda make: around(_KeepsShortened)(with_schema(_unquantized)(make)),
    ),
    "listed-nowhere": Broken(
        "collections are not listed",
        "test_collections_are_listed",
        lambda make: _Elsewhere("memory:empty", None, None, make),
    ),
    "nameless-field": Broken(
        "a field without a name is given one", "test_wrong_schemas_are_refused[no-name]", with_schema(_named)
    ),
}

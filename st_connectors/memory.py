"""The reference store: brute force in float64, in this process.

Collections of ``memory:`` and ``memory:NAME`` live as long as the process. Every store of the same name and collection
uses the same records, so that a collection can be opened again; ``drop`` removes it.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, assert_never

import numpy as np

from st_connectors import bm25
from st_connectors._matching import matcher, matches
from st_connectors.errors import NotFound, SchemaMismatch
from st_connectors.filters import Filter
from st_connectors.plugin import Address, Place, Plugin
from st_connectors.schema import DenseField, Metric, Schema, TextField, schema_difference
from st_connectors.sizing import DenseLayout, Sizing
from st_connectors.store import (
    Capabilities,
    Fuse,
    Hit,
    Leg,
    Match,
    Near,
    Parts,
    Precision,
    Record,
    Rejected,
    SearchRequest,
    Store,
    Vector,
    is_empty_leg,
)
from st_core.vectors import SparseVector

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PLUGIN", "matcher", "matches"]

CAPABILITIES = Capabilities(
    metrics=frozenset(Metric),
    sparse=True,
    text=True,
    optional_vectors=True,
    filters=frozenset({"eq", "in", "range", "exists", "and", "or", "not"}),
    efforts=frozenset({"exact", "default", "candidates"}),
    fields={"dense": Precision(), "sparse": Precision(), "text": Precision()},
    alterable=frozenset({"models", "fusion", "filterable"}),
)

SIZING = {
    "": Sizing(
        dense=(
            DenseLayout("exact", 12, "compares with every vector", "a record's float32 and a float64 copy for scoring"),
        ),
        sparse_entry=28,
        sparse_source="a record's index and weight, and a copy of row, index and float64 weight for scoring",
    )
}


@dataclass(frozen=True, slots=True, eq=False)
class _Dense:
    """The dense vectors of one field: ids [n] and vectors, float64 [n, dimension]."""

    ids: list[str]
    rows: NDArray[np.float64]

    def scores(self, query: NDArray[np.float64], metric: Metric) -> dict[str, float]:
        """Return the score of each record by id."""
        if not self.ids:
            return {}
        match metric:
            case Metric.COSINE:
                lengths = np.linalg.norm(self.rows, axis=1) * float(np.linalg.norm(query))
                values = np.clip(self.rows @ query / lengths, -1.0, 1.0)
            case Metric.DOT:
                values = self.rows @ query
            case Metric.EUCLIDEAN:
                values = -np.linalg.norm(self.rows - query, axis=1)
            case _:
                assert_never(metric)
        return dict(zip(self.ids, values.tolist(), strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class _Sparse:
    """The weights of one sparse or text field, flattened: ``row`` is the position in ``ids``."""

    ids: list[str]
    row: NDArray[np.int64]
    indices: NDArray[np.uint32]
    values: NDArray[np.float64]

    @classmethod
    def of(cls, ids: list[str], vectors: Sequence[SparseVector]) -> _Sparse:
        """Flatten vectors."""
        empty = SparseVector.from_mapping({})
        return cls(
            ids,
            np.repeat(np.arange(len(ids)), [len(vector) for vector in vectors]),
            np.concatenate([empty.indices, *(vector.indices for vector in vectors)]),
            np.concatenate([empty.values, *(vector.values for vector in vectors)]).astype(np.float64),
        )

    def scores(self, query: SparseVector, rarity: Callable[[int], float] | None = None) -> dict[str, float]:
        """Return the inner product with each record that shares an index, by id.

        ``rarity`` returns the factor of an index from the number of records that have it.
        """
        if not len(query) or not self.indices.size:  # a text query may have no words
            return {}
        place = np.minimum(np.searchsorted(query.indices, self.indices), len(query) - 1)
        shared = query.indices[place] == self.indices
        weights = query.values.astype(np.float64)
        if rarity is not None:
            weights = weights * [rarity(int(count)) for count in np.bincount(place[shared], minlength=len(query))]
        rows = self.row[shared]
        sums = np.bincount(rows, weights=self.values[shared] * weights[place[shared]])
        return {self.ids[at]: float(sums[at]) for at in np.unique(rows)}


@dataclass(slots=True, eq=False)
class _Collection:
    """Records by id, copied on writing and reading. Writers replace entries under ``_LOCK``."""

    schema: Schema
    records: dict[str, Record] = field(default_factory=dict)
    words: dict[tuple[str, str], SparseVector] = field(default_factory=dict)
    legs: dict[str, _Dense | _Sparse] = field(default_factory=dict)
    """Flattened fields, computed by the first search after a write."""


_COLLECTIONS: dict[tuple[str, str], _Collection] = {}
_LOCK = threading.RLock()


class MemoryStore:
    """One collection in the memory of this process, without layers."""

    def __init__(self, name: str, schema: Schema) -> None:
        """Store the arguments; ``create`` creates the collection. ``name`` is the name in the address."""
        self._key = (name, schema.collection)
        self._schema = copy.deepcopy(schema)
        precision = {each: Precision() for each in schema.fields}
        self._capabilities = replace(CAPABILITIES, fields=precision)

    @property
    def schema(self) -> Schema:
        """The schema passed to the store; ``create`` verifies that the stored one equals it."""
        return self._schema

    @property
    def capabilities(self) -> Capabilities:
        """All capabilities except persistence and quantization."""
        return self._capabilities

    def create(self) -> None:
        """Create the collection; accept an existing one with the same schema."""
        with _LOCK:
            stored = _COLLECTIONS.setdefault(self._key, _Collection(self._schema))
        difference = schema_difference(stored.schema, self._schema)
        if difference:
            raise SchemaMismatch(difference, store="memory", operation="create")

    def drop(self) -> None:
        """Remove the collection."""
        with _LOCK:
            _COLLECTIONS.pop(self._key, None)

    def alter(self, schema: Schema) -> None:
        """Replace the schema; filters read payloads, so that records need no change."""
        copied = copy.deepcopy(schema)
        with _LOCK:
            self._collection("alter").schema = copied
        self._schema = copied

    def stored_schema(self, collection: str) -> Schema | None:
        """Return the schema of a collection of the same name in the address; None if it does not exist."""
        with _LOCK:
            stored = _COLLECTIONS.get((self._key[0], collection))
        return None if stored is None else stored.schema

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        """Store copies of records."""
        copies = [_copy_record(record) for record in records]
        texts = [(name, value.source) for name, value in self._schema.fields.items() if isinstance(value, TextField)]
        with _LOCK:
            collection = self._collection("upsert")
            for record in copies:
                collection.records[record.id] = record
                for name, source in texts:
                    collection.words[name, record.id] = _words(record, source)
            collection.legs.clear()
        return []

    def delete(self, ids: Sequence[str]) -> None:
        """Remove records."""
        with _LOCK:
            collection = self._collection("delete")
            for key in ids:
                collection.records.pop(key, None)
                for name in self._schema.fields:
                    collection.words.pop((name, key), None)
            collection.legs.clear()

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        """Return copies of records, in the order of ``ids``."""
        with _LOCK:
            records = self._collection("get").records
            stored = [records[key] for key in ids if key in records]
        return [_copy_parts(record, parts) for record in stored]

    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        """Compare every record with every request, on one state of the collection."""
        with _LOCK:
            collection = self._collection("search")
            return [self._answer(collection, request) for request in requests]

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        """Return every record as of the start of the scan."""
        selected = iter(self._where(where, "scan"))
        while page := list(islice(selected, batch)):
            yield from (_copy_parts(record, parts) for record in page)

    def count(self, where: Filter | None = None) -> int:
        """Return the exact number of records that pass a filter."""
        return len(self._where(where, "count"))

    def refresh(self) -> None:
        """Verify that the collection exists; writes are visible at once."""
        with _LOCK:
            self._collection("refresh")

    def close(self) -> None:
        """Do nothing: the collection stays in the process."""

    def _collection(self, operation: str) -> _Collection:
        collection = _COLLECTIONS.get(self._key)
        if collection is None:
            raise NotFound(
                f"there is no collection {self._key[1]!r}; create it first", store="memory", operation=operation
            )
        return collection

    def _where(self, where: Filter | None, operation: str) -> list[Record]:
        with _LOCK:
            records = list(self._collection(operation).records.values())
        if where is None:
            return records
        passes = matcher(where, self._schema.filterable)
        return [each for each in records if passes(each.payload)]

    def _answer(self, collection: _Collection, request: SearchRequest) -> list[Hit]:
        if isinstance(request.rank, Fuse):
            raise TypeError("memory search: expected a single leg, got Fuse; wrap the store with fusing(store)")
        scores = self._scores(collection, request.rank)
        if request.where is not None:
            records, passes = collection.records, matcher(request.where, self._schema.filterable)
            scores = {key: score for key, score in scores.items() if passes(records[key].payload)}
        best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[
            request.offset : request.offset + request.limit
        ]
        hits = []
        for key, score in best:
            record = _copy_parts(collection.records[key], request.parts)
            hits.append(Hit(key, score, record.payload, record.vectors))
        return hits

    def _scores(self, collection: _Collection, leg: Leg) -> dict[str, float]:
        name = leg.field
        if is_empty_leg(leg, self._schema.fields[name]):
            return {}
        if name not in collection.legs:
            collection.legs[name] = _flatten(collection, name)
        flat = collection.legs[name]
        match leg, flat:
            case Near(_, SparseVector() as query), _Sparse():
                return flat.scores(query)
            case Near(_, query), _Dense():
                metric = self._schema.fields[name].metric  # type: ignore[union-attr]  # only dense fields are flattened to _Dense
                return flat.scores(np.asarray(query, dtype=np.float64), metric)
            case Match(_, text), _Sparse():
                total = len(collection.records)
                return flat.scores(bm25.query_vector(text), lambda count: bm25.idf(total, count))
            case _:
                raise TypeError(f"memory search: a {type(leg).__name__} leg cannot search field {name!r}")


def _flatten(collection: _Collection, name: str) -> _Dense | _Sparse:
    """Return the flattened vectors of one field; records without a vector are skipped."""
    spec = collection.schema.fields[name]
    if isinstance(spec, TextField):
        words = {key: collection.words[name, key] for key in collection.records}
        return _Sparse.of(list(words), list(words.values()))
    having = [(key, record.vectors[name]) for key, record in collection.records.items() if name in record.vectors]
    ids = [key for key, _ in having]
    if isinstance(spec, DenseField):
        rows = np.array([vector for _, vector in having], dtype=np.float64).reshape(len(ids), spec.dimension)
        keep = np.flatnonzero(rows.any(axis=1))
        return _Dense([ids[at] for at in keep], rows[keep])
    return _Sparse.of(ids, [vector for _, vector in having if isinstance(vector, SparseVector)])


def _words(record: Record, source: str) -> SparseVector:
    text = record.payload.get(source)
    return bm25.document_vector(text if isinstance(text, str) else "")


def _copy_record(record: Record) -> Record:
    """Copy a record, so that later changes by the caller do not affect it."""
    return Record(
        record.id, {name: _copy(vector) for name, vector in record.vectors.items()}, copy.deepcopy(dict(record.payload))
    )


def _copy_parts(record: Record, parts: Parts) -> Record:
    """Copy the requested parts of a record for the caller."""
    vectors = {name: _copy(vector) for name, vector in record.vectors.items()} if Parts.VECTORS in parts else {}
    return Record(record.id, vectors, copy.deepcopy(dict(record.payload)) if Parts.PAYLOAD in parts else {})


def _copy(vector: Vector) -> Vector:
    if isinstance(vector, SparseVector):
        return SparseVector(vector.indices.copy(), vector.values.copy())
    return np.array(vector, dtype=np.float32)


def _connect(address: Address, collection: str, schema: Schema | None, client: object | None) -> Store:
    if client is not None:
        raise TypeError("memory connect: there is no client object to pass")
    name = address.path
    if schema is None:
        with _LOCK:
            stored = _COLLECTIONS.get((name, collection))
        if stored is None:
            raise NotFound(
                f"there is no collection {collection!r} at {address}; create it first",
                store="memory",
                operation="connect",
            )
        schema = stored.schema
    return MemoryStore(name, schema)


def _collections(address: Address, client: object | None) -> list[str]:
    del client
    with _LOCK:
        return sorted(collection for name, collection in _COLLECTIONS if name == address.path)


PLUGIN = Plugin(
    name="memory",
    extra=None,
    variants={"": "brute force in this process, lost when it ends (memory:NAME)"},
    capabilities=CAPABILITIES,
    connect=_connect,
    collections=_collections,
    sizing=SIZING,
    places={"": Place.NAME},
)

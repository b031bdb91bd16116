"""Validate and normalise records, requests and filters before anything is sent; the outermost layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from st_connectors.arguments import check_int
from st_connectors.errors import Refused, StoreError
from st_connectors.filters import Filter
from st_connectors.layers.passing import Passing
from st_connectors.layers.records import check_filterable, check_id, check_record, size_of
from st_connectors.layers.requests import RequestChecks
from st_connectors.schema import Schema
from st_connectors.store import Hit, Parts, Record, Rejected, SearchRequest, Store

__all__ = ["guarded"]


def guarded(store: Store, *, name: str = "store", check_drop: Callable[[], None] | None = None) -> Store:
    """Return a store that accepts only what its schema and capabilities declare; ``name`` is used in messages.

    - Invalid arguments raise ValueError or TypeError, and operations that this store does not support raise
      ``Unsupported``. An invalid record is returned as ``Rejected`` with ``Refused``; the rest of the batch is stored.
    - If a batch contains an id several times, the last valid record with this id is stored.
    - Vectors are converted to float32; those of cosine fields are scaled to unit length, in queries and in records.
      Zero and empty vectors count as absent.
    - Batches are split by ``max_batch`` and ``max_bytes``. The size of a record is estimated as 24 bytes for each
      number of a dense vector, 36 bytes for each weight of a sparse vector, and the JSON of the payload. If a part of a
      batch fails after an earlier part was stored, its records and all later records are returned as rejected with the
      error.
    - ``check_drop`` is called before the collection is dropped, and raises if it must stay.
    - ``alter`` raises ``Refused`` if a stored record has a value of another kind in a new filterable field, as an
      ``upsert`` of this record would.
    """
    return _Guarded(store, name, check_drop)


class _Clean(NamedTuple):
    """A valid record, its position in the batch of the caller, and its size in bytes (0 if the store has no limit)."""

    position: int
    record: Record
    size: int


class _Guarded(Passing):
    def __init__(self, store: Store, name: str, check_drop: Callable[[], None] | None) -> None:
        super().__init__(store)
        self._name = name
        self._check_drop = check_drop

    @property
    def _checks(self) -> RequestChecks:
        return RequestChecks(self._name, self.store.schema, self.store.capabilities)

    def create(self) -> None:
        self._checks.check_schema()
        self.store.create()

    def drop(self) -> None:
        if self._check_drop is not None:
            self._check_drop()
        self.store.drop()

    def alter(self, schema: Schema) -> None:
        self._checks.check_alteration(schema)
        RequestChecks(self._name, schema, self.capabilities).check_schema()
        new = {name: kind for name, kind in schema.filterable.items() if name not in self.schema.filterable}
        for record in self.scan(parts=Parts.PAYLOAD) if new else ():
            try:
                check_filterable(record.payload, new)
            except ValueError as error:
                message = f"record {record.id!r}: {error}; correct the record, or declare the field as another kind"
                raise Refused(message, store=self._name, operation="alter") from error
        if schema != self.schema:
            self.store.alter(schema)

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        clean, rejected = self._clean(records)
        confirmed = False
        parts = _split_batch(clean, self.capabilities.max_batch, self.capabilities.max_bytes)
        for number, part in enumerate(parts):
            try:
                answer = self.store.upsert([each.record for each in part])
            except StoreError as error:
                if not confirmed:
                    raise
                rejected += [Rejected(each.position, each.record.id, error) for rest in parts[number:] for each in rest]
                break
            confirmed = True
            rejected += [Rejected(part[item.position].position, item.id, item.error) for item in answer]
        return sorted(rejected, key=lambda item: item.position)

    def delete(self, ids: Sequence[str]) -> None:
        for part in self._id_parts(ids):
            self.store.delete(part)

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        _check_parts(parts)
        return [record for part in self._id_parts(ids) for record in self.store.get(part, parts=parts)]

    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        checks = self._checks
        checked = [checks.check_request(request) for request in requests]
        return self.store.search(checked) if checked else []

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        limit = self.capabilities.max_limit
        batch = check_int(batch, 1, "batch")
        _check_parts(parts)
        checked = None if where is None else self._checks.check_filter(where, "scan")
        return self.store.scan(where=checked, parts=parts, batch=batch if limit is None else min(batch, limit))

    def count(self, where: Filter | None = None) -> int:
        return self.store.count(None if where is None else self._checks.check_filter(where, "count"))

    def _clean(self, records: Sequence[Record]) -> tuple[list[_Clean], list[Rejected]]:
        """Return the valid records, for equal ids only the last, and the rejections of the invalid records."""
        schema, capabilities = self.schema, self.capabilities
        clean: dict[str, _Clean] = {}
        rejected: list[Rejected] = []
        for at, record in enumerate(records):
            if not isinstance(record, Record):
                raise TypeError(f"upsert expects Records; the one at position {at} is {type(record).__name__}")
            try:
                checked = check_record(record, schema, optional_vectors=capabilities.optional_vectors)
                size = 0 if capabilities.max_bytes is None else _check_size(checked, capabilities.max_bytes)
            except (ValueError, TypeError) as error:
                refused = Refused(str(error), store=self._name, operation="upsert")
                refused.__cause__ = error
                rejected.append(Rejected(at, str(record.id), refused))
                continue
            clean.pop(checked.id, None)
            clean[checked.id] = _Clean(at, checked, size)
        return list(clean.values()), rejected

    def _id_parts(self, ids: Sequence[str]) -> list[list[str]]:
        if isinstance(ids, str):
            raise TypeError("ids must be a list of strings, not one string")
        checked = [check_id(each) for each in ids]
        size = self.capabilities.max_batch or len(checked) or 1
        return [checked[at : at + size] for at in range(0, len(checked), size)]


def _split_batch(items: Sequence[_Clean], max_records: int | None, max_bytes: int | None) -> list[list[_Clean]]:
    """Split records into parts of at most ``max_records`` records and about ``max_bytes`` bytes, in order."""
    parts: list[list[_Clean]] = []
    free = 0
    for item in items:
        if not parts or len(parts[-1]) == max_records or (max_bytes is not None and item.size > free):
            parts.append([])
            free = max_bytes or 0
        parts[-1].append(item)
        free -= item.size
    return parts


def _check_size(record: Record, max_bytes: int) -> int:
    size = size_of(record)
    if size > max_bytes:
        raise ValueError(f"the record has about {size} bytes, and a request has at most {max_bytes}")
    return size


def _check_parts(parts: Parts) -> None:
    if not isinstance(parts, Parts):
        raise TypeError(f"parts must be of Parts, not {parts!r}")

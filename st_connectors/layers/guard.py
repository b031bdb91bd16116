"""Refuses the undeclared and the invalid before any byte is sent, and brings what is sent into one form; the outermost wrapper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from st_connectors.errors import Refused, StoreError
from st_connectors.filters import Filter
from st_connectors.layers.records import checked_id, checked_record, size_of
from st_connectors.layers.requests import Limits, whole
from st_connectors.schema import Schema
from st_connectors.store import Capabilities, Hit, Parts, Record, Rejected, SearchRequest, Store

__all__ = ["guarded"]


def guarded(store: Store, *, name: str = "store") -> Store:
    """The same store, which takes only what its schema and capabilities declare; ``name`` is for messages.

    - Arguments that are wrong anywhere raise ValueError or TypeError; what this store cannot do raises ``Unsupported``; a record at fault is
      returned as ``Rejected`` with ``Refused``, and the others of its batch go in.
    - The last of equal ids in a batch wins, among those that are not refused.
    - Vectors are made float32; those of cosine fields are brought to unit length, in queries as in records. Zero and empty vectors count as
      none.
    - Batches are split by ``max_batch`` and ``max_bytes``, bytes being reckoned as 24 a dense number, 36 a sparse weight, and the payload's JSON.
      Where a later part fails after an earlier one went in, its records and all after it are returned as rejected with that error.
    """
    return _Guarded(store, name)


class _Clean(NamedTuple):
    """A record that may be sent, its position in what was given, and its bytes where the store has a limit of them."""

    at: int
    record: Record
    size: int


class _Guarded:
    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name

    @property
    def schema(self) -> Schema:
        return self._store.schema

    @property
    def capabilities(self) -> Capabilities:
        return self._store.capabilities

    @property
    def _limits(self) -> Limits:
        return Limits(self._name, self._store.schema, self._store.capabilities)

    def create(self) -> None:
        self._limits.check_schema()
        self._store.create()

    def drop(self) -> None:
        self._store.drop()

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        clean, rejected = self._checked(records)
        confirmed = False
        parts = _split(clean, self.capabilities.max_batch, self.capabilities.max_bytes)
        for number, part in enumerate(parts):
            try:
                answer = self._store.upsert([each.record for each in part])
            except StoreError as error:
                if not confirmed:
                    raise
                rejected += [Rejected(each.at, each.record.id, error) for rest in parts[number:] for each in rest]
                break
            confirmed = True
            rejected += [Rejected(part[item.position].at, item.id, item.error) for item in answer]
        return sorted(rejected, key=lambda item: item.position)

    def delete(self, ids: Sequence[str]) -> None:
        for part in self._id_parts(ids):
            self._store.delete(part)

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        return [record for part in self._id_parts(ids) for record in self._store.get(part, parts=_checked_parts(parts))]

    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        limits = self._limits
        checked = [limits.request(request) for request in requests]
        return self._store.search(checked) if checked else []

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        most = self.capabilities.max_limit
        batch = whole(batch, 1, "batch")
        checked = None if where is None else self._limits.filter(where, "scan")
        return self._store.scan(
            where=checked, parts=_checked_parts(parts), batch=batch if most is None else min(batch, most)
        )

    def count(self, where: Filter | None = None) -> int:
        return self._store.count(None if where is None else self._limits.filter(where, "count"))

    def refresh(self) -> None:
        self._store.refresh()

    def close(self) -> None:
        self._store.close()

    def _checked(self, records: Sequence[Record]) -> tuple[list[_Clean], list[Rejected]]:
        """Clean records, the last of equal ids, and the rejections of the others."""
        schema, can = self.schema, self.capabilities
        clean: dict[str, _Clean] = {}
        rejected: list[Rejected] = []
        for at, record in enumerate(records):
            if not isinstance(record, Record):
                raise TypeError(f"upsert takes Records; number {at} is {type(record).__name__}")
            try:
                kept = checked_record(record, schema, optional_vectors=can.optional_vectors)
                size = 0 if can.max_bytes is None else _checked_size(kept, can.max_bytes)
            except (ValueError, TypeError) as error:
                refused = Refused(str(error), store=self._name, operation="upsert")
                refused.__cause__ = error
                rejected.append(Rejected(at, str(record.id), refused))
                continue
            clean.pop(kept.id, None)
            clean[kept.id] = _Clean(at, kept, size)
        return list(clean.values()), rejected

    def _id_parts(self, ids: Sequence[str]) -> list[list[str]]:
        if isinstance(ids, str):
            raise TypeError("ids are a list of strings, not one string")
        checked = [checked_id(each) for each in ids]
        size = self.capabilities.max_batch or len(checked) or 1
        return [checked[at : at + size] for at in range(0, len(checked), size)]


def _split(items: Sequence[_Clean], most: int | None, most_bytes: int | None) -> list[list[_Clean]]:
    """Cut into parts of at most ``most`` records and about ``most_bytes`` bytes, in order."""
    parts: list[list[_Clean]] = []
    room = 0
    for item in items:
        if not parts or len(parts[-1]) == most or (most_bytes is not None and item.size > room):
            parts.append([])
            room = most_bytes or 0
        parts[-1].append(item)
        room -= item.size
    return parts


def _checked_size(record: Record, most: int) -> int:
    size = size_of(record)
    if size > most:
        raise ValueError(f"the record takes about {size} bytes, and a request at most {most}")
    return size


def _checked_parts(parts: Parts) -> Parts:
    if not isinstance(parts, Parts):
        raise TypeError(f"parts is of Parts, not {parts!r}")
    return parts

"""Stores that lose, mix up or change what they are given."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from st_connectors.errors import NotFound, Refused, SchemaMismatch
from st_connectors.filters import Filter
from st_connectors.registry import open_store
from st_connectors.store import Hit, Parts, Record, Rejected, SearchRequest
from st_connectors.testing.broken.passing import Broken, Passing, around, with_schema

__all__ = ["KEEPING"]


class _CreateWipes(Passing):
    def create(self) -> None:
        self.store.drop()
        self.store.create()


class _CreateTakesWhatIsThere(Passing):
    def create(self) -> None:
        with suppress(SchemaMismatch):
            self.store.create()


class _DropLeavesRecords(Passing):
    def drop(self) -> None:
        """Do nothing."""


class _CreatesByItself(Passing):
    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        self.store.create()
        return self.store.upsert(records)


class _EmptyWhenAbsent(Passing):
    def count(self, where: Filter | None = None) -> int:
        try:
            return self.store.count(where)
        except NotFound:
            return 0


class _MergesPayloads(Passing):
    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        old = {record.id: record for record in self.store.get([record.id for record in records])}
        return self.store.upsert(
            [
                replace(record, payload={**old[record.id].payload, **record.payload}) if record.id in old else record
                for record in records
            ]
        )


class _KeepsOldVectors(Passing):
    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        old = {record.id: record for record in self.store.get([record.id for record in records])}
        return self.store.upsert(
            [
                replace(record, vectors={**old[record.id].vectors, **record.vectors}) if record.id in old else record
                for record in records
            ]
        )


class _NormalisesInPlace(Passing):
    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        for record in records:
            for vector in record.vectors.values():
                if isinstance(vector, np.ndarray) and vector.flags.writeable:
                    np.divide(vector, max(float(np.linalg.norm(vector)), 1e-30), out=vector)
        return self.store.upsert(records)


class _SortsPayloadInPlace(Passing):
    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        for record in records:
            for value in record.payload.values():
                if isinstance(value, list):
                    value.sort(key=str)
        return self.store.upsert(records)


class _HandsOutItsOwn(Passing):
    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.kept: dict[str, Record] = {}

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        for record in self.store.get(ids, parts=parts):
            self.kept.setdefault(record.id, record)
        return [self.kept[name] for name in ids if name in self.kept]

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        return (
            self.get([record.id], parts=parts)[0] for record in self.store.scan(where=where, parts=parts, batch=batch)
        )


class _LosesTheLastPart(Passing):
    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        whole = len(records) // 100 * 100 if len(records) > 100 else len(records)
        return self.store.upsert(records[:whole])


class _KeepsTheFirst(Passing):
    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        return self.store.upsert(list({record.id: record for record in reversed(records)}.values()))


class _RefusesWholeBatches(Passing):
    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        schema = replace(self.schema, collection=f"{self.schema.collection}_trial")
        trial = open_store("memory:trial", schema.collection, schema)
        trial.create()
        refused = trial.upsert(records)
        trial.drop()
        return refused or self.store.upsert(records)


class _HidesRefusals(Passing):
    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        self.store.upsert(records)
        return []


class _CountsRefusalsAnew(Passing):
    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        return [replace(item, position=at) for at, item in enumerate(self.store.upsert(records))]


class _OneRefreshBehind(Passing):
    """Every write is seen one ``refresh`` too late."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.waiting: list[Callable[[], object]] = []
        self.ready: list[Callable[[], object]] = []

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        kept = list(records)
        self.waiting.append(lambda: self.store.upsert(kept))
        return []

    def delete(self, ids: Sequence[str]) -> None:
        kept = list(ids)
        self.waiting.append(lambda: self.store.delete(kept))

    def refresh(self) -> None:
        for write in self.ready:
            write()
        self.ready, self.waiting = self.waiting, []
        self.store.refresh()


class _DeleteRaises(Passing):
    def delete(self, ids: Sequence[str]) -> None:
        there = {record.id for record in self.store.get(ids, parts=Parts.NONE)}
        for name in ids:
            if name not in there:
                raise Refused(f"there is no {name!r}", store="broken", operation="delete")
        self.store.delete(ids)


class _DeletesByPrefix(Passing):
    def delete(self, ids: Sequence[str]) -> None:
        self.store.delete(
            [record.id for record in self.store.scan(parts=Parts.NONE) if record.id.startswith(tuple(ids) or ("\0",))]
        )


class _GetInItsOwnOrder(Passing):
    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        return sorted(self.store.get(ids, parts=parts), key=lambda record: record.id)


class _KeepsFirstVectors(Passing):
    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        old = {record.id: record for record in self.store.get([record.id for record in records])}
        return self.store.upsert(
            [
                replace(record, vectors={**record.vectors, **old[record.id].vectors}) if record.id in old else record
                for record in records
            ]
        )


class _FindsTheDeleted(Passing):
    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.deleted: list[str] = []

    def delete(self, ids: Sequence[str]) -> None:
        self.deleted += ids

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        return [record for record in self.store.get(ids, parts=parts) if record.id not in self.deleted]

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        return (
            record for record in self.store.scan(where=where, parts=parts, batch=batch) if record.id not in self.deleted
        )

    def count(self, where: Filter | None = None) -> int:
        return sum(1 for _ in self.scan(where=where))


def _with_ids(change: Callable[[str], str]) -> type[Passing]:
    class Changed(Passing):
        def upsert(self, records: Sequence[Record]) -> list[Rejected]:
            return self.store.upsert([replace(record, id=change(record.id)) for record in records])

        def delete(self, ids: Sequence[str]) -> None:
            self.store.delete([change(name) for name in ids])

        def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
            return self.store.get([change(name) for name in ids], parts=parts)

    return Changed


def _with_payloads(change: Callable[[Any], Any]) -> type[Passing]:
    """Payload comes back with every value changed, from the innermost out."""

    def bent(value: Any) -> Any:
        if isinstance(value, Mapping):
            return change({key: bent(item) for key, item in value.items()})
        if isinstance(value, list):
            return change([bent(item) for item in value])
        return change(value)

    class Changed(Passing):
        def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
            return [replace(record, payload=bent(record.payload)) for record in self.store.get(ids, parts=parts)]

        def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
            return [[replace(hit, payload=bent(hit.payload)) for hit in hits] for hits in self.store.search(requests)]

    return Changed


def _whole_floats_as_ints(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _without_nulls(value: Any) -> Any:
    return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value


def _without_empties(value: Any) -> Any:
    return {key: item for key, item in value.items() if item not in ([], {}, "")} if isinstance(value, dict) else value


def _sorted_keys(value: Any) -> Any:
    return json.loads(json.dumps(value, sort_keys=True)) if isinstance(value, dict) else value


def _booleans_as_ints(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else value


def _ints_through_floats(value: Any) -> Any:
    return int(float(value)) if isinstance(value, int) and not isinstance(value, bool) else value


def _dots_nested(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    nested: dict[str, Any] = {}
    for key, item in value.items():
        head, dot, tail = key.partition(".")
        if dot and head and tail:
            nested.setdefault(head, {})
            nested[head] = {**nested[head], tail: item} if isinstance(nested[head], dict) else {tail: item}
        else:
            nested[key] = item
    return nested


def _without_their_keys(value: Any) -> Any:
    return {key: item for key, item in value.items() if not key.startswith("_")} if isinstance(value, dict) else value


def _datetimes(value: Any) -> Any:
    return value[:10] if isinstance(value, str) and value[4:5] == "-" and "T" in value else value


KEEPING: Mapping[str, Broken] = {
    "create-wipes": Broken(
        "``create`` makes the collection anew", "test_create_twice_keeps_the_records", around(_CreateWipes)
    ),
    "create-takes-any-schema": Broken(
        "``create`` is content with whatever is there",
        "test_create_with_another_schema_raises_schema_mismatch[dimension]",
        around(_CreateTakesWhatIsThere),
    ),
    "drop-leaves-records": Broken(
        "``drop`` removes nothing", "test_drop_removes_the_records", around(_DropLeavesRecords)
    ),
    "upsert-creates": Broken(
        "the first write makes the collection",
        "test_any_call_before_create_raises_not_found[upsert]",
        around(_CreatesByItself),
    ),
    "absent-counts-zero": Broken(
        "a collection that is not there counts as empty",
        "test_any_call_before_create_raises_not_found[count]",
        around(_EmptyWhenAbsent),
    ),
    "one-for-all": Broken(
        "all collections share one",
        "test_two_collections_do_not_see_each_other",
        with_schema(lambda schema: replace(schema, collection="shared")),
    ),
    "merges-payloads": Broken(
        "upsert merges payloads", "test_upsert_replaces_the_whole_record", around(_MergesPayloads)
    ),
    "keeps-old-vectors": Broken(
        "upsert keeps vectors that the new record lacks",
        "test_upsert_replaces_the_whole_record",
        around(_KeepsOldVectors),
    ),
    "normalises-in-place": Broken(
        "the caller's arrays are normalised in place", "test_inputs_are_not_changed", around(_NormalisesInPlace)
    ),
    "sorts-payload-in-place": Broken(
        "the caller's lists are sorted", "test_inputs_are_not_changed", around(_SortsPayloadInPlace)
    ),
    "hands-out-its-own": Broken(
        "what is handed out is what is kept", "test_what_is_kept_is_a_copy", around(_HandsOutItsOwn)
    ),
    "loses-the-last-part": Broken(
        "the last part of a large batch is lost", "test_a_large_batch_arrives_whole", around(_LosesTheLastPart)
    ),
    "keeps-the-first": Broken("the first of equal ids wins", "test_the_last_of_equal_ids_wins", around(_KeepsTheFirst)),
    "refuses-whole-batches": Broken(
        "one bad record keeps its whole batch out",
        "test_one_bad_record_is_returned_and_the_others_go_in[nan-in-payload]",
        around(_RefusesWholeBatches),
    ),
    "hides-refusals": Broken(
        "a refused record is dropped in silence",
        "test_one_bad_record_is_returned_and_the_others_go_in[wrong-dimension]",
        around(_HidesRefusals),
    ),
    "counts-refusals-anew": Broken(
        "positions count refusals, not records",
        "test_one_bad_record_is_returned_and_the_others_go_in[empty-id]",
        around(_CountsRefusalsAnew),
    ),
    "one-refresh-behind": Broken(
        "reads after ``refresh`` are stale", "test_refresh_shows_every_earlier_write", around(_OneRefreshBehind)
    ),
    "delete-raises": Broken("deleting the absent raises", "test_deleting_the_absent_is_silent", around(_DeleteRaises)),
    "deletes-by-prefix": Broken(
        "an id deletes all that begin with it", "test_deleting_the_absent_is_silent", around(_DeletesByPrefix)
    ),
    "get-in-its-own-order": Broken(
        "``get`` answers in the store's order", "test_get_answers_in_the_order_asked", around(_GetInItsOwnOrder)
    ),
    "keeps-first-vectors": Broken(
        "a replaced record keeps its first vectors",
        "test_upsert_replaces_vectors_in_the_index",
        around(_KeepsFirstVectors),
    ),
    "finds-the-deleted": Broken(
        "search finds what was deleted", "test_delete_removes_only_what_is_named", around(_FindsTheDeleted)
    ),
    "ids-trimmed": Broken(
        "ids lose their blanks", "test_ids_come_back_as_given[space-after]", around(_with_ids(str.strip))
    ),
    "ids-lower-case": Broken(
        "ids that look like UUIDs are written anew",
        "test_ids_come_back_as_given[uuid-upper]",
        around(_with_ids(str.lower)),
    ),
    "ids-composed": Broken(
        "ids are normalised",
        "test_ids_come_back_as_given[decomposed]",
        around(_with_ids(lambda name: unicodedata.normalize("NFC", name))),
    ),
    "ids-cut": Broken(
        "ids are cut at 255 characters",
        "test_ids_come_back_as_given[512-bytes]",
        around(_with_ids(lambda name: name[:255])),
    ),
    "ids-as-numbers": Broken(
        "ids of digits become numbers",
        "test_ids_come_back_as_given[digits-zero]",
        around(_with_ids(lambda name: str(int(name)) if name.isdigit() else name)),
    ),
    "floats-as-ints": Broken(
        "1.0 comes back as 1",
        "test_payloads_come_back_as_given[one-as-float]",
        around(_with_payloads(_whole_floats_as_ints)),
    ),
    "booleans-as-ints": Broken(
        "true comes back as 1", "test_payloads_come_back_as_given[booleans]", around(_with_payloads(_booleans_as_ints))
    ),
    "ints-through-floats": Broken(
        "integers pass through floats",
        "test_payloads_come_back_as_given[big-integers]",
        around(_with_payloads(_ints_through_floats)),
    ),
    "nulls-dropped": Broken(
        "null is left out", "test_payloads_come_back_as_given[null]", around(_with_payloads(_without_nulls))
    ),
    "empties-dropped": Broken(
        "empty values are left out",
        "test_payloads_come_back_as_given[empties]",
        around(_with_payloads(_without_empties)),
    ),
    "keys-sorted": Broken(
        "keys come back sorted", "test_payloads_come_back_as_given[order-of-keys]", around(_with_payloads(_sorted_keys))
    ),
    "dots-nested": Broken(
        "dotted keys come back nested",
        "test_payloads_come_back_as_given[dotted-keys]",
        around(_with_payloads(_dots_nested)),
    ),
    "own-keys-eaten": Broken(
        "keys like the store's own are eaten",
        "test_payloads_come_back_as_given[keys-like-ours]",
        around(_with_payloads(_without_their_keys)),
    ),
    "dates-rewritten": Broken(
        "dates come back in another spelling",
        "test_payloads_come_back_as_given[day-as-written]",
        around(_with_payloads(_datetimes)),
    ),
}

"""Stores that lose, mix up or change collections, records, ids and payloads."""

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
from st_connectors.testing.broken.base import Broken, Failed, Passing, with_schema, wrapping

__all__ = ["STORING"]


class _CreateWipes(Passing):
    def create(self) -> None:
        self.store.drop()
        self.store.create()


class _CreateAcceptsAnySchema(Passing):
    def create(self) -> None:
        with suppress(SchemaMismatch):
            self.store.create()


class _DropLeavesRecords(Passing):
    def drop(self) -> None:
        """Do nothing."""


class _UpsertCreates(Passing):
    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        self.store.create()
        return self.store.upsert(records)


class _AbsentCountsZero(Passing):
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


class _MergesVectors(Passing):
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


class _ReturnsSharedRecords(Passing):
    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.shared: dict[str, Record] = {}

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        for record in self.store.get(ids, parts=parts):
            self.shared.setdefault(record.id, record)
        return [self.shared[name] for name in ids if name in self.shared]

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        return (
            self.get([record.id], parts=parts)[0] for record in self.store.scan(where=where, parts=parts, batch=batch)
        )


class _LosesLastPart(Passing):
    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        count = len(records) // 100 * 100 if len(records) > 100 else len(records)
        return self.store.upsert(records[:count])


class _FirstOfEqualIdsWins(Passing):
    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        return self.store.upsert(list({record.id: record for record in reversed(records)}.values()))


class _RefusesWholeBatches(Passing):
    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        schema = replace(self.schema, collection=f"{self.schema.collection}_trial")
        trial = open_store("memory:trial", schema.collection, schema)
        trial.create()
        rejected = trial.upsert(records)
        trial.drop()
        return rejected or self.store.upsert(records)


class _HidesRejections(Passing):
    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        self.store.upsert(records)
        return []


class _CountsRejectionsOnly(Passing):
    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        return [replace(item, position=at) for at, item in enumerate(self.store.upsert(records))]


class _OneRefreshBehind(Passing):
    """A store whose writes become visible one ``refresh`` too late."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.waiting: list[Callable[[], object]] = []
        self.ready: list[Callable[[], object]] = []

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        batch = list(records)
        self.waiting.append(lambda: self.store.upsert(batch))
        return []

    def delete(self, ids: Sequence[str]) -> None:
        batch = list(ids)
        self.waiting.append(lambda: self.store.delete(batch))

    def refresh(self) -> None:
        for write in self.ready:
            write()
        self.ready, self.waiting = self.waiting, []
        self.store.refresh()


class _DeleteRaises(Passing):
    def delete(self, ids: Sequence[str]) -> None:
        existing = {record.id for record in self.store.get(ids, parts=Parts.NONE)}
        for name in ids:
            if name not in existing:
                raise Refused(f"there is no {name!r}", store="broken", operation="delete")
        self.store.delete(ids)


class _DeletesByPrefix(Passing):
    def delete(self, ids: Sequence[str]) -> None:
        self.store.delete(
            [record.id for record in self.store.scan(parts=Parts.NONE) if record.id.startswith(tuple(ids) or ("\0",))]
        )


class _GetSortsById(Passing):
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


class _SearchFindsDeleted(Passing):
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
    """Return a store whose payloads come back with every value changed, innermost first."""

    def changed(value: Any) -> Any:
        if isinstance(value, Mapping):
            return change({key: changed(item) for key, item in value.items()})
        if isinstance(value, list):
            return change([changed(item) for item in value])
        return change(value)

    class Changed(Passing):
        def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
            return [replace(record, payload=changed(record.payload)) for record in self.store.get(ids, parts=parts)]

        def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
            return [
                [replace(hit, payload=changed(hit.payload)) for hit in hits] for hits in self.store.search(requests)
            ]

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


def _without_internal_keys(value: Any) -> Any:
    return {key: item for key, item in value.items() if not key.startswith("_")} if isinstance(value, dict) else value


def _days_only(value: Any) -> Any:
    return value[:10] if isinstance(value, str) and value[4:5] == "-" and "T" in value else value


STORING: Mapping[str, Broken] = {
    "create-wipes": Broken(
        "``create`` replaces an existing collection",
        "test_create_twice_keeps_the_records",
        wrapping(_CreateWipes),
        r"expected records \['r000', 'r001', 'r002'\], got \[\]",
    ),
    "create-takes-any-schema": Broken(
        "``create`` accepts a collection with another schema",
        "test_create_with_another_schema_raises_schema_mismatch[dimension]",
        wrapping(_CreateAcceptsAnySchema),
        "DID NOT RAISE.*SchemaMismatch",
        Failed,
    ),
    "drop-leaves-records": Broken(
        "``drop`` removes nothing", "test_drop_removes_the_records", wrapping(_DropLeavesRecords), "assert 5 == 0"
    ),
    "upsert-creates": Broken(
        "the first write creates the collection",
        "test_any_call_before_create_raises_not_found[upsert]",
        wrapping(_UpsertCreates),
        "DID NOT RAISE.*NotFound",
        Failed,
    ),
    "absent-counts-zero": Broken(
        "a missing collection counts as empty",
        "test_any_call_before_create_raises_not_found[count]",
        wrapping(_AbsentCountsZero),
        "DID NOT RAISE.*NotFound",
        Failed,
    ),
    "one-for-all": Broken(
        "all collections share the same records",
        "test_two_collections_do_not_see_each_other",
        with_schema(lambda schema: replace(schema, collection="shared")),
        "expected records",
    ),
    "merges-payloads": Broken(
        "upsert merges payloads",
        "test_upsert_replaces_the_whole_record",
        wrapping(_MergesPayloads),
        "'a': expected payload",
    ),
    "keeps-old-vectors": Broken(
        "upsert keeps vectors that the new record lacks",
        "test_upsert_replaces_the_whole_record",
        wrapping(_MergesVectors),
        "'a': expected vectors",
    ),
    "normalises-in-place": Broken(
        "the caller's arrays are normalised in place",
        "test_inputs_are_not_changed",
        wrapping(_NormalisesInPlace),
        "array_equal",
    ),
    "sorts-payload-in-place": Broken(
        "the caller's lists are sorted", "test_inputs_are_not_changed", wrapping(_SortsPayloadInPlace), "same_json"
    ),
    "hands-out-its-own": Broken(
        "returned records share memory with stored ones",
        "test_what_is_kept_is_a_copy",
        wrapping(_ReturnsSharedRecords),
        "'a': expected payload",
    ),
    "loses-the-last-part": Broken(
        "the last part of a large batch is lost",
        "test_a_large_batch_arrives_whole",
        wrapping(_LosesLastPart),
        "expected records",
    ),
    "keeps-the-first": Broken(
        "the first of equal ids wins",
        "test_the_last_of_equal_ids_wins",
        wrapping(_FirstOfEqualIdsWins),
        "'same': expected payload",
    ),
    "refuses-whole-batches": Broken(
        "one bad record rejects its whole batch",
        "test_one_bad_record_is_returned_and_the_others_go_in[nan-in-payload]",
        wrapping(_RefusesWholeBatches),
        r"expected records \['r000', 'r001', 'r002'\], got \[\]",
    ),
    "hides-refusals": Broken(
        "a rejected record is dropped silently",
        "test_one_bad_record_is_returned_and_the_others_go_in[wrong-dimension]",
        wrapping(_HidesRejections),
        r"\[\] == \[\(3, 'broken'\)\]",
    ),
    "counts-refusals-anew": Broken(
        "positions count rejections, not records",
        "test_one_bad_record_is_returned_and_the_others_go_in[empty-id]",
        wrapping(_CountsRejectionsOnly),
        r"\[\(0, ''\)\] == \[\(3, ''\)\]",
    ),
    "one-refresh-behind": Broken(
        "reads after ``refresh`` are stale",
        "test_refresh_shows_every_earlier_write",
        wrapping(_OneRefreshBehind),
        "expected records",
    ),
    "delete-raises": Broken(
        "deleting a missing id raises",
        "test_deleting_the_absent_is_silent",
        wrapping(_DeleteRaises),
        "there is no 'nowhere'",
        Refused,
    ),
    "deletes-by-prefix": Broken(
        "deleting an id deletes all ids that begin with it",
        "test_deleting_the_absent_is_silent",
        wrapping(_DeletesByPrefix),
        r"expected records \['r000', 'r002'\], got \[\]",
    ),
    "get-in-its-own-order": Broken(
        "``get`` returns records in the store's order",
        "test_get_answers_in_the_order_asked",
        wrapping(_GetSortsById),
        "'r000' != 'r011'",
    ),
    "keeps-first-vectors": Broken(
        "a replaced record keeps its first vectors",
        "test_upsert_replaces_vectors_in_the_index",
        wrapping(_KeepsFirstVectors),
        "expected score",
    ),
    "finds-the-deleted": Broken(
        "search returns deleted records",
        "test_delete_removes_only_what_is_named",
        wrapping(_SearchFindsDeleted),
        "expected 8 hits, got 10",
    ),
    "ids-trimmed": Broken(
        "spaces around ids are removed",
        "test_ids_come_back_as_given[space-after]",
        wrapping(_with_ids(str.strip)),
        "'a' != 'a '",
    ),
    "ids-lower-case": Broken(
        "ids that look like UUIDs are normalised",
        "test_ids_come_back_as_given[uuid-upper]",
        wrapping(_with_ids(str.lower)),
        "'abcdef00.*' != 'ABCDEF00",
    ),
    "ids-composed": Broken(
        "ids are normalised",
        "test_ids_come_back_as_given[decomposed]",
        wrapping(_with_ids(lambda name: unicodedata.normalize("NFC", name))),
        "At index 0 diff",
    ),
    "ids-cut": Broken(
        "ids are cut at 255 characters",
        "test_ids_come_back_as_given[512-bytes]",
        wrapping(_with_ids(lambda name: name[:255])),
        "At index 0 diff",
    ),
    "ids-as-numbers": Broken(
        "ids of digits lose leading zeros",
        "test_ids_come_back_as_given[digits-zero]",
        wrapping(_with_ids(lambda name: str(int(name)) if name.isdigit() else name)),
        "'42' != '0042'",
    ),
    "floats-as-ints": Broken(
        "1.0 comes back as 1",
        "test_payloads_come_back_as_given[one-as-float]",
        wrapping(_with_payloads(_whole_floats_as_ints)),
        "expected payload .*'float': 1.0",
    ),
    "booleans-as-ints": Broken(
        "true comes back as 1",
        "test_payloads_come_back_as_given[booleans]",
        wrapping(_with_payloads(_booleans_as_ints)),
        "expected payload .*'yes': True",
    ),
    "ints-through-floats": Broken(
        "integers pass through floats",
        "test_payloads_come_back_as_given[big-integers]",
        wrapping(_with_payloads(_ints_through_floats)),
        "expected payload .*'odd': 9007199254740993",
    ),
    "nulls-dropped": Broken(
        "null values are dropped",
        "test_payloads_come_back_as_given[null]",
        wrapping(_with_payloads(_without_nulls)),
        "expected payload .*'nothing': None",
    ),
    "empties-dropped": Broken(
        "empty values are dropped",
        "test_payloads_come_back_as_given[empties]",
        wrapping(_with_payloads(_without_empties)),
        "expected payload .*'text': ''",
    ),
    "keys-sorted": Broken(
        "keys come back sorted",
        "test_payloads_come_back_as_given[order-of-keys]",
        wrapping(_with_payloads(_sorted_keys)),
        "expected payload .*'z': 1, 'a': 2",
    ),
    "dots-nested": Broken(
        "dotted keys come back nested",
        "test_payloads_come_back_as_given[dotted-keys]",
        wrapping(_with_payloads(_dots_nested)),
        "expected payload .*'a.b': 1",
    ),
    "own-keys-eaten": Broken(
        "keys like the store's internal ones are dropped",
        "test_payloads_come_back_as_given[keys-like-ours]",
        wrapping(_with_payloads(_without_internal_keys)),
        "expected payload .*'_id': 'y'",
    ),
    "dates-rewritten": Broken(
        "dates come back in another spelling",
        "test_payloads_come_back_as_given[day-as-written]",
        wrapping(_with_payloads(_days_only)),
        "expected payload .*'2020-01-01T00:00:00.120",
    ),
}

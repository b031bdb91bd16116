"""Stores that choose, count and list the wrong records."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from st_connectors.filters import And, Eq, Exists, Filter, Not, Range
from st_connectors.store import Parts, Record
from st_connectors.testing.broken.passing import Broken, Loose, Passing, around

__all__ = ["CHOOSING"]


class _CaseBlind(Loose):
    def payload(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        return _words(payload, str.lower)

    def leaf(self, where: Filter) -> Filter:
        return Eq(where.field, where.value.lower()) if isinstance(where, Eq) and isinstance(where.value, str) else where


class _Analysed(Loose):
    def payload(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        word = payload.get("word")
        return {**payload, "word": [word, *word.split()]} if isinstance(word, str) else payload


class _Composed(Loose):
    def payload(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        return _words(payload, lambda word: unicodedata.normalize("NFC", word))


class _CutsKeywords(Loose):
    def payload(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        return _words(payload, lambda word: word[:8191])


class _ListsOnlyWhole(Loose):
    def payload(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        return {key: value for key, value in payload.items() if not isinstance(value, list)}


class _EmptyTextMissing(Loose):
    def payload(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        return {key: value for key, value in payload.items() if value != ""}


class _ThroughFloats(Loose):
    def payload(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        return {
            key: float(value) if isinstance(value, int) and not isinstance(value, bool) else value
            for key, value in payload.items()
        }


class _DaysAsText(Loose):
    def lets_through(self, where: Filter | None, payload: Mapping[str, Any]) -> bool:
        if isinstance(where, Eq) and where.field == "day":
            return payload.get("day") == where.value
        return super().lets_through(where, payload)


class _NotWantsTheField(Loose):
    def bent(self, where: Filter) -> Filter:
        if isinstance(where, Not) and isinstance(where.part, Eq):
            return And((Not(where.part), Exists(where.part.field)))
        return super().bent(where)


class _BoundsIncluded(Loose):
    def leaf(self, where: Filter) -> Filter:
        return (
            Range(where.field, gte=where.gt, lte=where.lt)
            if isinstance(where, Range) and where.gt is not None
            else where
        )


class _NullExists(Loose):
    def lets_through(self, where: Filter | None, payload: Mapping[str, Any]) -> bool:
        return where.field in payload if isinstance(where, Exists) else super().lets_through(where, payload)


def _words(payload: Mapping[str, Any], change: Callable[[str], str]) -> Mapping[str, Any]:
    return {**payload, "word": change(payload["word"])} if isinstance(payload.get("word"), str) else payload


class _AnyField(Passing):
    """A filter on a field that nobody declared matches nothing, in silence."""

    def count(self, where: Filter | None = None) -> int:
        try:
            return self.store.count(where)
        except ValueError:
            return 0


class _Estimates(Passing):
    def count(self, where: Filter | None = None) -> int:
        return round(self.store.count(where) / 10) * 10


class _ScanRepeats(Passing):
    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        for at, record in enumerate(self.store.scan(where=where, parts=parts, batch=batch)):
            if at and at % batch == 0:
                yield record
            yield record


class _ScanSkips(Passing):
    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        return (
            record
            for at, record in enumerate(self.store.scan(where=where, parts=parts, batch=batch))
            if at == 0 or at % batch
        )


class _ScanByPosition(Passing):
    """Goes through pages by position, so that deleting one record hides another."""

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        at = 0
        while page := sorted(self.store.scan(where=where, parts=parts), key=lambda record: record.id)[at : at + batch]:
            yield from page
            at += batch


CHOOSING: Mapping[str, Broken] = {
    "case-blind": Broken("equality is blind to case", "test_truth_table[foo]", around(_CaseBlind)),
    "equality-by-words": Broken("equality is a match of words", "test_truth_table[foo]", around(_Analysed)),
    "keywords-composed": Broken("keywords are normalised", "test_truth_table[umlaut]", around(_Composed)),
    "keywords-cut": Broken("long keywords are cut", "test_truth_table[long]", around(_CutsKeywords)),
    "lists-only-whole": Broken(
        "a list matches no element", "test_truth_table[second-of-list]", around(_ListsOnlyWhole)
    ),
    "empty-text-missing": Broken(
        "an empty text counts as missing", "test_truth_table[exists-word]", around(_EmptyTextMissing)
    ),
    "numbers-through-floats": Broken(
        "integers are compared as floats", "test_truth_table[big-odd]", around(_ThroughFloats)
    ),
    "days-as-text": Broken(
        "dates are compared as text", "test_truth_table[same-instant-elsewhere]", around(_DaysAsText)
    ),
    "not-wants-the-field": Broken(
        "``Not`` drops records without the field", "test_truth_table[foobar]", around(_NotWantsTheField)
    ),
    "bounds-included": Broken("``gt`` is taken for ``gte``", "test_truth_table[range-gt]", around(_BoundsIncluded)),
    "null-exists": Broken("null exists", "test_truth_table[exists-flag]", around(_NullExists)),
    "any-field": Broken(
        "a filter on any field is taken", "test_a_filter_on_an_undeclared_field_is_refused", around(_AnyField)
    ),
    "count-estimated": Broken("``count`` is an estimate", "test_counts_are_exact", around(_Estimates)),
    "scan-repeats": Broken(
        "a scan repeats where pages meet", "test_scan_gives_every_record_once[7]", around(_ScanRepeats)
    ),
    "scan-skips": Broken("a scan skips where pages meet", "test_scan_gives_every_record_once[7]", around(_ScanSkips)),
    "scan-by-position": Broken(
        "a scan by position loses records to deletes",
        "test_scan_sees_unchanged_records_while_others_are_written",
        around(_ScanByPosition),
    ),
}

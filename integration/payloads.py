"""Tests of collections whose payloads are ordinary fields, on both Lucene engines."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from st_connectors.errors import Refused
from st_connectors.registry import parse_address
from st_connectors.schema import FilterKind
from st_connectors.store import Record
from st_connectors.testing.base import Lab
from st_connectors.testing.fidelity import Fidelity
from st_connectors.testing.filtering import Filtering
from st_connectors.testing.opening import Opener
from st_connectors.testing.writes import Writes

__all__ = ["PayloadFields"]

DAYS = (
    "2020-01-31",
    "2020-01-31T00:00",
    "2020-01-31 00:00",
    "2020-01-31T00:00:00",
    "2020-01-31 00:00:00.5",
    "2020-01-31T00:00:00.123456",
    "2020-01-31 00:00:00.12-00:30",
    "2020-01-31T01:00:00+01:00",
    "2020-01-31T00:00:00.1234Z",
)
"""One day in spellings that filters accept."""


class PayloadFields(Fidelity, Filtering, Writes):
    """The groups of the suite that concern payloads, filters and writes, and what other tools see."""

    payloads_apart = frozenset({"order-of-keys"})  # has a number under a key that is an object in others
    test_fields_that_are_not_filterable_may_hold_anything = None  # an index has one type for each key; see below

    def test_other_tools_find_values_by_their_native_types(self, lab: Lab, make: Opener) -> None:
        """Dates in every spelling, words of the text, and values inside declared and other objects."""
        schema = lab.schema(filterable={"day": FilterKind.DATE, "meta.year": FilterKind.INT})
        pair = lab.pair(schema, [Record(day, {}, {"day": day}) for day in (*DAYS, "0001-01-01", "9999-12-31")])
        objects = {"meta": [{"year": 1999, "odd": {"": 1}}], "labels": {"app.io/x": "tea"}, "text": "Tea time"}
        pair.upsert([Record("whole", {}, objects)])

        def found(query: dict[str, Any]) -> set[str]:
            return _search(make, schema.collection, query)

        assert found({"range": {"day": {"gte": "2020-01-31", "lte": "2020-01-31"}}}) == set(DAYS)
        assert found({"range": {"meta.year": {"gt": 1998}}}) == {"whole"}
        assert found({"term": {"labels.app.io/x": "tea"}}) == {"whole"}
        assert found({"match": {"text": "tea"}}) == {"whole"}
        pair.assert_records_agree()

    def test_a_value_that_does_not_fit_its_field_refuses_its_record_only(self, lab: Lab) -> None:
        """The message says why; the others of the batch are stored, with entries that no field can hold."""
        pair = lab.pair(records=[Record("first", {}, {"n": 1, "o": {"a": 1}})])
        bad = [Record("word", {}, {"n": "x"}), Record("flat", {}, {"o": 1})]
        good = [Record("float", {}, {"n": 1.5}), Record("hidden", {}, {"n": [1, "x"], "_id": 1, "a..b": {}})]

        rejected = pair.store.upsert([bad[0], good[0], bad[1], good[1]])

        assert [(each.id, type(each.error)) for each in rejected] == [("word", Refused), ("flat", Refused)]
        assert all("payload=fields gives each key the type of its first value" in str(each.error) for each in rejected)
        assert "[n]" in str(rejected[0].error)
        pair.oracle.upsert(good)
        pair.store.refresh()
        pair.assert_records_agree()


def _search(make: Opener, collection: str, query: dict[str, Any]) -> set[str]:
    """Return the ids of the documents that a client without this package finds."""
    address = parse_address(make.address)
    request = urllib.request.Request(
        f"http://{address.host}:{address.port}/{collection}/_search",
        data=json.dumps({"query": query, "size": 100, "_source": False}).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return {hit["_id"] for hit in json.load(answer)["hits"]["hits"]}

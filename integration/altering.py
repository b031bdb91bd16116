"""Altering by a copy that takes the place of a collection, on both Lucene engines."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import replace
from typing import Any

import pytest

from st_connectors.altering import alter_by_copy
from st_connectors.errors import Permanent
from st_connectors.filters import Eq
from st_connectors.ingest import IngestInterrupted
from st_connectors.registry import collections, describe_collection, open_store, parse_address
from st_connectors.schema import DenseField, FilterKind, Quantization, Schema, SparseField, TextField
from st_connectors.store import Match, Near, Record, SearchRequest
from st_connectors.testing import corpus
from st_connectors.testing.base import Group, Lab, Pair
from st_connectors.testing.opening import Opener

__all__ = ["AlteringByCopy"]


class AlteringByCopy(Group):
    """Complete changes, interrupted ones, and writes meanwhile."""

    def _pair(self, lab: Lab) -> Pair:
        fields = {"dense": DenseField(corpus.DIMENSION), "sparse": SparseField(), "text": TextField()}
        return lab.pair(lab.schema(fields, filterable={"word": FilterKind.KEYWORD}), corpus.library(lacking=True))

    def _altered(self, schema: Schema) -> Schema:
        """Return the schema with quantization and a further filterable field."""
        dense = DenseField(corpus.DIMENSION, quantization=Quantization.INT8)
        return replace(
            schema, fields={**schema.fields, "dense": dense}, filterable={**schema.filterable, "whole": FilterKind.INT}
        )

    def test_a_copy_has_everything_and_the_change(self, lab: Lab, make: Opener) -> None:
        """Records, vectors and searches are those of before, with quantization, a filterable field and fields."""
        pair = self._pair(lab)
        schema = pair.store.schema
        _post(make, "/_aliases", {"actions": [{"add": {"index": f"{schema.collection}@1", "alias": "live"}}]})

        report = alter_by_copy(f"{make.address}?payload=fields&shards=2", self._altered(schema))

        assert report.confirmed == corpus.SIZE
        altered = open_store(make.address, "live")
        assert altered.schema == self._altered(schema)
        described = describe_collection(make.address, schema.collection)
        assert (described.name, described.aliases, described.options["payload"]) == (
            schema.collection,
            ("live",),
            "fields",
        )
        assert described.options["indices"] == [f"{schema.collection}@2"]
        assert described.options[f"{schema.collection}@2"]["index.number_of_shards"] == "2"
        after = Pair(altered, pair.oracle)
        after.assert_records_agree()
        after.assert_search_agrees(after.near(Near("sparse", corpus.SPARSE_QUERIES["few-terms"])))
        assert altered.count(Eq("whole", 3)) == sum(each.payload.get("whole") == 3 for each in pair.oracle.scan())
        [hits] = altered.search([SearchRequest(Match("text", "amber"))])
        assert hits
        assert altered.upsert([Record("new", {}, {"word": "amber"})]) == []
        altered.close()

    def test_writes_meanwhile_are_refused_and_searches_answered(self, lab: Lab, make: Opener) -> None:
        """The writer is told why; after an interruption it can write, and nothing has changed."""
        pair = self._pair(lab)

        def meanwhile(_: object) -> None:
            [rejected] = pair.store.upsert([Record("late")])
            assert type(rejected.error) is Permanent
            assert "an alter by copy is running" in rejected.error.message
            pair.assert_records_agree()
            assert collections(make.address).count(pair.store.schema.collection) == 1
            raise KeyboardInterrupt

        with pytest.raises(IngestInterrupted):
            alter_by_copy(make.address, self._altered(pair.store.schema), progress=meanwhile)

        pair.upsert([Record("late")])
        pair.assert_records_agree()
        assert describe_collection(make.address, pair.store.schema.collection).options["indices"] == [
            f"{pair.store.schema.collection}@1"
        ]

    def test_a_killed_copy_is_started_over(self, lab: Lab, make: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
        """The process leaves a half copy and an index that refuses writes; the same call completes the change."""
        pair = self._pair(lab)
        schema = pair.store.schema
        with monkeypatch.context() as patch:
            patch.setattr("st_connectors._lucene.replacing._delete_copy", lambda *_: None)
            patch.setattr("st_connectors._lucene.replacing._refuse_writes", _only_refuse)
            with pytest.raises(IngestInterrupted):
                alter_by_copy(make.address, self._altered(schema), progress=_interrupt)
        pair.assert_records_agree()
        assert pair.store.upsert([Record("late")]) != []

        assert alter_by_copy(make.address, self._altered(schema)).confirmed == corpus.SIZE

        altered = open_store(make.address, schema.collection)
        assert altered.schema == self._altered(schema)
        Pair(altered, pair.oracle).assert_records_agree()
        assert altered.upsert([Record("new")]) == []
        altered.close()


def _interrupt(_: object) -> None:
    raise KeyboardInterrupt


def _only_refuse(connection: Any, index: str, *, refuse: bool) -> None:
    """Refuse writes, and never accept them again."""
    if refuse:
        connection.send("alter", "PUT", f"/{index}/_settings", {"index.blocks.write": True})


def _post(make: Opener, path: str, body: dict[str, Any]) -> None:
    """Send a request of another program."""
    address = parse_address(make.address)
    request = urllib.request.Request(
        f"http://{address.host}:{address.port}{path}",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60):
        pass

"""Test the lifecycle of a collection: create twice without effect, open by name, alter, keep separate, drop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from st_connectors.errors import NotFound, Refused, SchemaMismatch, Unsupported
from st_connectors.filters import Eq
from st_connectors.schema import DenseField, Field, FilterKind, Quantization, Rrf, Schema, SparseField
from st_connectors.store import Near, Record, SearchRequest, Store
from st_connectors.testing import corpus
from st_connectors.testing.base import Group, Lab, Make, Pair, dense_records, listed
from st_connectors.testing.filtering import TRUTH
from st_core.protocols import ModelKind, ModelRef

__all__ = ["CALLS", "Life"]

CALLS: Mapping[str, Callable[[Store], object]] = {
    "upsert": lambda store: store.upsert(dense_records(1)),
    "delete": lambda store: store.delete(["a"]),
    "get": lambda store: store.get(["a"]),
    "search": lambda store: store.search([SearchRequest(Near("dense", corpus.QUERIES[0]))]),
    "scan": lambda store: list(store.scan()),
    "count": lambda store: store.count(),
    "refresh": lambda store: store.refresh(),
}

_MODEL = ModelRef(
    "acme/täst-model",
    ModelKind.DENSE,
    corpus.DIMENSION,
    revision="abc",
    max_tokens=256,
    prompts={"query": "find: ", "document": ""},
    fingerprint={"weights": "00ff", "tokenizer": "11ee"},
)

_CHANGES: Mapping[str, Callable[[Schema], Schema]] = {
    "dimension": lambda schema: replace(schema, fields={"dense": DenseField(corpus.DIMENSION + 1)}),
    "field-added": lambda schema: replace(schema, fields={**schema.fields, "more": DenseField(corpus.DIMENSION)}),
    "field-renamed": lambda schema: replace(schema, fields={"thick": DenseField(corpus.DIMENSION)}),
    "filterable-added": lambda schema: replace(schema, filterable={**schema.filterable, "real": FilterKind.FLOAT}),
    "filterable-kind": lambda schema: replace(schema, filterable={"whole": FilterKind.KEYWORD}),
    "model": lambda schema: replace(schema, models={"dense": replace(_MODEL, fingerprint={"weights": "ff00"})}),
}

_ALTERATIONS: Mapping[str, Callable[[Schema], Schema]] = {
    "models": lambda schema: replace(schema, models={"dense": replace(_MODEL, name="acme/moved", revision=None)}),
    "fusion": lambda schema: replace(schema, fusion=Rrf(k=9)),
    "filterable": lambda schema: replace(schema, filterable={**schema.filterable, "real": FilterKind.FLOAT}),
    "quantization": lambda schema: replace(
        schema, fields={"dense": DenseField(corpus.DIMENSION, quantization=Quantization.INT8)}
    ),
}
"""A change for each name that the capability ``alterable`` may contain."""

_FIXED = ("dimension", "field-added", "field-renamed", "filterable-kind")
"""The changes that no store can apply in place."""


class Life(Group):
    """Creating, opening, dropping and closing collections."""

    def _schema(self, lab: Lab) -> Schema:
        return lab.schema(filterable={"whole": FilterKind.INT}, models={"dense": _MODEL}, fusion=Rrf(k=7))

    def test_create_twice_keeps_the_records(self, lab: Lab) -> None:
        """``create`` on an existing collection changes nothing."""
        pair = lab.pair(records=dense_records(3))
        pair.store.create()
        pair.store.refresh()

        pair.assert_records_agree()

    @pytest.mark.parametrize("change", list(_CHANGES))
    def test_create_with_another_schema_raises_schema_mismatch(self, lab: Lab, change: str) -> None:
        """An existing collection with another schema is never opened as if it were the same, and stays unchanged."""
        schema = self._schema(lab)
        store = lab.new(schema)
        store.upsert(dense_records(2))
        store.refresh()
        if store.capabilities.persistent:
            lab.release(store)

        with pytest.raises(SchemaMismatch):
            lab.open(_CHANGES[change](schema)).create()
        again = lab.open(schema)
        again.create()
        assert again.schema == schema
        assert again.count() == 2

    def test_drop_twice_is_fine(self, lab: Lab) -> None:
        """Dropping a missing collection is not an error, also before ``create``."""
        store = lab.open(lab.schema())
        store.drop()
        store.create()
        store.drop()
        store.drop()

    def test_drop_removes_the_records(self, lab: Lab) -> None:
        """A collection created again under the same name is empty."""
        store = lab.new()
        store.upsert(dense_records(5))
        store.refresh()
        store.drop()
        store.create()
        store.refresh()

        assert store.count() == 0
        assert store.get(["r001"]) == []
        assert store.search([SearchRequest(Near("dense", corpus.QUERIES[0]))]) == [[]]

    @pytest.mark.parametrize("change", list(_ALTERATIONS))
    def test_alter_replaces_the_schema_and_keeps_the_records(self, lab: Lab, change: str) -> None:
        """What a store declares as alterable is changed in place, for the open store and for stores opened later."""
        lab.need(change in lab.capabilities.alterable, f"that it alters {change}")
        schema = self._schema(lab)
        pair = lab.pair(schema, dense_records(5))
        altered = _ALTERATIONS[change](schema)
        pair.store.alter(altered)
        pair.store.alter(altered)
        pair.store.refresh()

        assert pair.store.schema == altered
        pair.assert_records_agree()
        pair.assert_search_agrees(pair.near(Near("dense", corpus.QUERIES[0])))
        if pair.store.capabilities.persistent:
            lab.release(pair.store)
        again = replace(pair, store=lab.open(schema.collection))
        assert again.store.schema == altered
        again.assert_records_agree()
        with pytest.raises(SchemaMismatch):
            lab.open(_CHANGES["filterable-kind"](altered)).create()

    @pytest.mark.parametrize("change", list(_ALTERATIONS))
    def test_what_is_not_alterable_is_refused(self, lab: Lab, change: str) -> None:
        """A change that a store does not declare raises ``Unsupported``, names the change, and changes nothing."""
        lab.need(change not in lab.capabilities.alterable, f"that it cannot alter {change}")
        self._assert_refused(lab, _ALTERATIONS[change])

    @pytest.mark.parametrize("change", _FIXED)
    def test_other_fields_and_kinds_are_never_altered(self, lab: Lab, change: str) -> None:
        """Other fields need other vectors, and another kind needs other values: no store changes them in place."""
        self._assert_refused(lab, _CHANGES[change])

    def _assert_refused(self, lab: Lab, change: Callable[[Schema], Schema]) -> None:
        schema = self._schema(lab)
        pair = lab.pair(schema, dense_records(2))
        with pytest.raises(Unsupported) as caught:
            pair.store.alter(change(schema))
        assert caught.value.operation == "alter"
        assert pair.store.schema == schema
        pair.assert_records_agree()

    def test_further_filterable_fields_match_stored_records(self, lab: Lab) -> None:
        """Every filter of the truth table matches records that were stored before its field was declared."""
        pair = self._stored_before(lab, {"word": FilterKind.KEYWORD})
        for store in (pair.store, pair.oracle):
            store.alter(replace(store.schema, filterable=corpus.FILTERABLE))
        pair.store.refresh()
        pair.upsert([Record("later", {"dense": corpus.QUERIES[0]}, {"whole": 1, "word": "foo", "flag": True})])

        for where, wanted in TRUTH.values():
            assert {record.id for record in pair.store.scan(where=where)} - {"later"} == wanted
        pair.assert_records_agree()
        pair.assert_records_agree(Eq("whole", 1))
        pair.assert_search_agrees(pair.near(Near("dense", corpus.QUERIES[0]), where=Eq("flag", True)))

    def test_a_stored_value_of_another_kind_prevents_a_filterable_field(self, lab: Lab) -> None:
        """The record is named, as an upsert of it would name it, and the collection stays as it was."""
        pair = self._stored_before(lab, {"whole": FilterKind.INT})
        schema = pair.store.schema
        with pytest.raises(Refused, match=r"record '.*': payload\['word'\] is filterable as int, and '.*' is not"):
            pair.store.alter(replace(schema, filterable={**schema.filterable, "word": FilterKind.INT}))

        assert pair.store.schema == schema
        pair.assert_records_agree(Eq("whole", 1))

    def _stored_before(self, lab: Lab, filterable: Mapping[str, FilterKind]) -> Pair:
        lab.need("filterable" in lab.capabilities.alterable, "that it alters filterable fields")
        return lab.pair(lab.schema(filterable=filterable), corpus.probes())

    def test_alter_of_a_collection_that_does_not_exist_raises_not_found(self, lab: Lab) -> None:
        """As every other call does before ``create``."""
        lab.need("fusion" in lab.capabilities.alterable, "that it alters the fusion")
        store = lab.open(lab.schema())

        with pytest.raises(NotFound) as caught:
            store.alter(replace(store.schema, fusion=Rrf(k=9)))
        assert caught.value.operation == "alter"
        lab.forget(store)

    @pytest.mark.parametrize("call", list(CALLS))
    def test_any_call_before_create_raises_not_found(self, lab: Lab, call: str) -> None:
        """Only ``create`` creates a collection."""
        store = lab.open(lab.schema())

        with pytest.raises(NotFound) as caught:
            CALLS[call](store)
        assert caught.value.store
        assert caught.value.operation

    @pytest.mark.parametrize("call", list(CALLS))
    def test_any_call_after_drop_raises_not_found(self, lab: Lab, call: str) -> None:
        """A dropped collection behaves as if it had never been created."""
        store = lab.new()
        store.upsert(dense_records(1))
        store.drop()

        with pytest.raises(NotFound):
            CALLS[call](store)

    def test_opening_an_unknown_name_raises_not_found(self, lab: Lab) -> None:
        """A misspelled name never creates a new collection."""
        name = lab.schema().collection

        with pytest.raises(NotFound):
            lab.open(name)

    def test_close_twice_is_fine(self, lab: Lab) -> None:
        """Closing releases resources; closing again does nothing."""
        store = lab.new()
        lab.release(store)
        store.close()

    def test_schema_is_given_back(self, lab: Lab) -> None:
        """An open store returns its schema as stored, models and fusion included."""
        schema = self._schema(lab)

        assert lab.new(schema).schema == schema

    def test_reopens_by_its_name(self, lab: Lab) -> None:
        """A persistent collection is complete when it is opened again by its name."""
        lab.need(lab.capabilities.persistent, "persistence")
        fields: dict[str, Field] = {"dense": DenseField(corpus.DIMENSION)}
        if lab.capabilities.sparse:
            fields["sparse"] = SparseField()
        records = [
            replace(record, vectors={name: vector for name, vector in record.vectors.items() if name in fields})
            for record in corpus.library(lacking=lab.capabilities.optional_vectors)
        ]
        schema = replace(self._schema(lab), fields=fields)
        pair = lab.pair(schema, records[:40])
        lab.release(pair.store)

        again = replace(pair, store=lab.open(schema.collection))
        assert again.store.schema == schema
        again.assert_records_agree()
        again.assert_search_agrees(again.near(Near("dense", corpus.QUERIES[0]), where=Eq("whole", 3)))
        again.upsert([replace(record, payload={"whole": 5}) for record in records[30:]])
        again.assert_records_agree(where=Eq("whole", 5))
        again.assert_records_agree()

    def test_collections_are_listed(self, lab: Lab, make: Make) -> None:
        """Created collections are listed under the names they were created with; dropped ones are not."""
        names = {lab.new().schema.collection, lab.new(self._schema(lab)).schema.collection}
        dropped = lab.new()
        dropped.drop()

        assert names <= set(listed(make))
        assert dropped.schema.collection not in listed(make)

    def test_two_collections_do_not_see_each_other(self, lab: Lab) -> None:
        """The same id in two collections is two records; dropping one collection keeps the other."""
        one, two = lab.pair(), lab.pair()
        one.upsert(dense_records(4))
        two.upsert(dense_records(6, start=2, other=True))
        one.assert_records_agree()
        two.assert_records_agree()
        one.delete(["r002"])
        two.assert_records_agree()

        one.store.drop()
        two.assert_records_agree()
        two.assert_search_agrees(two.near(Near("dense", corpus.QUERIES[1])))

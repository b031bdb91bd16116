"""The border: what is wrong is refused by name before it does harm, and names are kept apart or refused, never folded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from st_connectors.errors import Permanent, Refused, Unsupported
from st_connectors.filters import And, Eq, Exists, In, Not, Range
from st_connectors.schema import DenseField, Field, FilterKind, Schema, SparseField, TextField
from st_connectors.store import Fuse, Near, Record, Store, Vector
from st_connectors.testing import corpus
from st_connectors.testing.base import Group, Lab, dense_records
from st_core.vectors import SparseVector

__all__ = ["Border"]

_REFUSALS = (ValueError, TypeError, Permanent, Unsupported)

_NO_WEIGHTS: Mapping[str, float] = {
    "zero": 0.0,
    "minus-zero": -0.0,
    "negative": -1.5,
    "nan": float("nan"),
    "infinite": float("inf"),
    "minus-infinite": float("-inf"),
    "subnormal": 1e-39,
}

_NO_VECTORS: Mapping[str, tuple[str, Any]] = {
    "mapping": ("sparse", {3: 1.0}),
    "negative-mapping": ("sparse", {3: -1.0}),
    "pairs": ("sparse", [(3, 1.0)]),
    "dense-for-sparse": ("sparse", corpus.QUERIES[0]),
    "sparse-for-dense": ("dense", SparseVector.from_mapping({3: 1.0})),
    "text-for-dense": ("dense", "kettle"),
    "texts-for-dense": ("dense", ["kettle"] * corpus.DIMENSION),
    "matrix-for-dense": ("dense", corpus.QUERIES),
    "scalar-for-dense": ("dense", 1.0),
    "complex-for-dense": ("dense", np.ones(corpus.DIMENSION, np.complex64)),
    "none": ("dense", None),
}
"""What is no vector of the field that it is given for."""

_ENDINGS = (
    *("UPPER", "upper", ".dot", "_dot", "-dot", " space", "/slash", "/../up", ":colon", "*", "?", "#", "@", "%41", "A"),
    *('"', "'", "\\", "\n", "\x00", "\u00fc", "u\u0308", "\u65e5\u672c", "x" * 300, "x" * 301),
)
"""Ends of collections' names that a store may fold, cut, take for a path or a pattern, or refuse."""

_FIELDS = (
    *("a.b", "a_b", "a b", "a-b", "A_B", "a[]", "[0]", "x:y", "x/y", "$x", "*", "%", "#"),
    *(
        "\u00fcn\u00ef",
        "u\u0308ni\u0308",
        "id",
        "_id",
        "vector",
        "payload",
        "must",
        "2nd",
        '"',
        "\\",
        "y" * 300,
        "y" * 301,
    ),
)
"""Names of vector fields that a store may fold, cut or refuse."""

_KEYS = (
    *(
        "id",
        "_id",
        "pk",
        "payload",
        "filter",
        "vector",
        "vectors",
        "text",
        "dense",
        "sparse",
        "score",
        "_source",
        "_meta",
        "$meta",
    ),
    *("st_connectors", "_st_id", "_st_payload", "_st_present", "_st_f_tag", "st_id", "st_payload", "vec_dense", "x_"),
)
"""Keys that a payload may have although stores, these adapters' ways of filling them among others, use them for themselves."""

_CALLS: Mapping[str, Callable[[Store], object]] = {
    "upsert-one": lambda store: store.upsert(dense_records(1)[0]),  # type: ignore[arg-type]
    "upsert-mapping": lambda store: store.upsert([{"id": "a"}]),  # type: ignore[list-item]
    "get-text": lambda store: store.get("r000"),
    "get-number": lambda store: store.get([7]),  # type: ignore[list-item]
    "get-empty": lambda store: store.get([""]),
    "get-long": lambda store: store.get([corpus.LONG_ID + "c"]),
    "delete-text": lambda store: store.delete("r000"),
    "delete-none": lambda store: store.delete([None]),  # type: ignore[list-item]
    "search-vector": lambda store: store.search([corpus.QUERIES[0]]),
    "scan-batch": lambda store: list(store.scan(batch=0)),
    "count-text": lambda store: store.count("whole == 1"),  # type: ignore[arg-type]
    "filter-kind": lambda store: store.count(Eq("whole", "seven")),
    "filter-text-for-list": lambda store: store.count(In("word", "abc")),  # type: ignore[arg-type]
    "filter-nan": lambda store: store.count(Eq("real", float("nan"))),
    "filter-range-of-words": lambda store: store.count(Range("word", gt="a")),
    "filter-no-date": lambda store: store.count(Range("day", gt="yesterday")),
    "filter-part": lambda store: store.count(And((Eq("whole", 1), "word"))),  # type: ignore[arg-type]
}


class Border(Group):
    """Bad input."""

    @pytest.mark.parametrize("weight", list(_NO_WEIGHTS))
    def test_weights_that_are_none_are_left_out(self, lab: Lab, weight: str) -> None:
        """Zero, negative, subnormal and non-finite weights are refused as they are, and left out where a vector is made of them; they match nothing."""
        lab.need(lab.capabilities.sparse and lab.capabilities.optional_vectors, "optional sparse vectors")
        bad = _NO_WEIGHTS[weight]
        with pytest.raises(ValueError, match="from_arrays drops"):
            SparseVector(np.array([3], np.uint32), np.array([bad], np.float32))
        pair = lab.pair(lab.schema({"sparse": SparseField()}))
        made = {"all": {3: bad}, "some": {3: bad, 5: 1.0}, "none": {}, "good": {3: 0.5}}
        pair.upsert([Record(name, {"sparse": SparseVector.from_mapping(each)}) for name, each in made.items()])

        pair.assert_records_agree()
        assert {record.id for record in pair.store.scan() if record.vectors} == {"some", "good"}
        hits = pair.assert_search_agrees(
            pair.near(Near("sparse", SparseVector.from_mapping({3: 2.0, 5: bad}))),
            pair.near(Near("sparse", SparseVector.from_mapping({3: bad, 5: 2.0}))),
            pair.near(Near("sparse", SparseVector.from_mapping({3: bad}))),
        )
        assert [[hit.id for hit in found] for found in hits] == [["good"], ["some"], []]

    @pytest.mark.parametrize("form", list(_NO_VECTORS))
    def test_vectors_of_another_form_are_refused(self, lab: Lab, form: str) -> None:
        """What is no vector of its field comes back with the field's name, and is not guessed at; its neighbours go in."""
        lab.need(lab.capabilities.sparse, "sparse vectors")
        name, value = _NO_VECTORS[form]
        fields: dict[str, Field] = {"dense": DenseField(corpus.DIMENSION), "sparse": SparseField()}
        pair = lab.pair(lab.schema(fields))
        good = [
            replace(each, vectors={**each.vectors, "sparse": SparseVector.from_mapping({1: 1.0})})
            for each in dense_records(2)
        ]
        broken = replace(good[0], id="broken", vectors={**good[0].vectors, name: value})

        rejected = pair.store.upsert([good[0], broken, good[1]])

        assert [(item.position, item.id, type(item.error)) for item in rejected] == [(1, "broken", Refused)]
        assert repr(name) in str(rejected[0].error)
        pair.oracle.upsert(good)
        pair.store.refresh()
        pair.assert_records_agree()

    def test_an_empty_sparse_vector_is_refused_where_one_is_needed(self, lab: Lab) -> None:
        """A record whose sparse vector has no weights lacks it: refused by name, never given a dummy."""
        lab.need(lab.capabilities.sparse, "sparse vectors")
        pair = lab.pair(lab.schema({"sparse": SparseField(optional=False)}))
        good = Record("good", {"sparse": SparseVector.from_mapping({0: 1.0})})

        rejected = pair.store.upsert([Record("empty", {"sparse": SparseVector.from_mapping({})}), good])

        assert [(item.position, item.id, type(item.error)) for item in rejected] == [(0, "empty", Refused)]
        pair.oracle.upsert([good])
        pair.store.refresh()
        pair.assert_records_agree()

    def test_collections_are_kept_apart_or_refused(self, lab: Lab) -> None:
        """Whatever its name, a collection holds its own records and is found by that name alone; or the name is refused before it is made."""
        base = lab.schema()
        kept: dict[str, Store] = {}
        for ending in _ENDINGS:
            store = _made(lab, replace(base, collection=base.collection + ending))
            if store is not None:
                kept[ending] = store
        for row, store in enumerate(kept.values()):
            assert store.count() == 0
            assert store.upsert([replace(each, payload={"row": row}) for each in dense_records(1)]) == []
            store.refresh()
        for row, (ending, store) in enumerate(kept.items()):
            assert [record.payload for record in store.scan()] == [{"row": row}], ending
            assert store.schema.collection == base.collection + ending
        assert len(kept) >= 3, "letters, digits, dashes and underscores make a name anywhere"

    def test_vector_fields_are_kept_apart_or_refused(self, lab: Lab) -> None:
        """Whatever its name, a field holds its own vectors and is searched by that name alone; or the schema is refused, and says which name."""
        fields = _fields(_FIELDS, sparse=lab.capabilities.sparse)
        schema = lab.schema(fields)
        store = _made(lab, schema)
        if store is None:
            fields = {name: spec for name, spec in fields.items() if _made(lab, lab.schema({name: spec})) is not None}
            schema = lab.schema(fields)
            store = lab.new(schema)
        assert len(fields) >= 3, "letters and underscores make a name anywhere"
        pair = lab.beside(store)
        vectors = {name: _vector_of(row, spec) for row, (name, spec) in enumerate(fields.items())}
        names = [name for kind in (DenseField, SparseField) for name, spec in fields.items() if isinstance(spec, kind)]
        shifted = dict(zip(names, [vectors[name] for name in [*names[1:], names[0]]], strict=True))
        mixed = {name: vector for name, vector in shifted.items() if type(vector) is type(vectors[name])}
        pair.upsert([Record("one", vectors), Record("two", {**vectors, **mixed})])

        pair.assert_records_agree()
        pair.assert_search_agrees(*(pair.near(Near(name, vector)) for name, vector in vectors.items()))

    @pytest.mark.parametrize("keys", ["filterable", "undeclared"])
    def test_payload_keys_may_be_those_of_the_store(self, lab: Lab, keys: str) -> None:
        """Whatever a payload's keys are, filterable or not, they come back as given, and meet nothing that the store keeps beside them."""
        fields: dict[str, Field] = {"dense": DenseField(2)}
        fields |= {"sparse": SparseField()} if lab.capabilities.sparse else {}
        fields |= {"text": TextField("payload")} if lab.capabilities.text else {}
        names = dict.fromkeys(_KEYS, FilterKind.KEYWORD)
        pair = lab.pair(lab.schema(fields, filterable=names if keys == "filterable" else {}))
        vectors: dict[str, Vector] = {name: _vector_of(3, spec) for name, spec in fields.items() if name != "text"}
        kept = {name: f"value of {name}" for name in _KEYS}
        pair.upsert([Record("all", vectors, kept), Record("none", vectors), Record("in", vectors, {"in": kept})])

        pair.assert_records_agree()
        pair.assert_search_agrees(*(pair.near(Near(name, vector)) for name, vector in vectors.items()))
        for name in _KEYS if keys == "filterable" else ():
            pair.assert_records_agree(Eq(name, f"value of {name}"))
            pair.assert_records_agree(Not(Exists(name)))

    @pytest.mark.parametrize("call", list(_CALLS))
    def test_wrong_arguments_are_refused(self, lab: Lab, call: str) -> None:
        """A value of the wrong type or kind is the caller's mistake, told in a sentence, and changes nothing."""
        pair = lab.library()
        with pytest.raises((ValueError, TypeError), match=r".{10}"):
            _CALLS[call](pair.store)
        assert pair.store.count() == corpus.SIZE

    def test_candidates_over_the_stores_window_are_refused(self, lab: Lab) -> None:
        """Where a store gives only so many hits, a fusion cannot ask its legs for more."""
        limit = lab.capabilities.max_limit
        if limit is None:
            pytest.skip("the store declares no limit")
        pair = lab.metric(next(iter(lab.capabilities.metrics)))
        leg = Near("dense", corpus.QUERIES[0])
        with pytest.raises((ValueError, Unsupported), match=str(limit)):
            pair.store.search([pair.near(Fuse((leg, leg), limit + 1))])

    @pytest.mark.parametrize(
        "wrong", ["no-name", "surrogate", "dimension-0", "dimension-negative", "filterable-no-name"]
    )
    def test_wrong_schemas_are_refused(self, lab: Lab, wrong: str) -> None:
        """A schema that means nothing makes no collection."""
        fields: dict[str, Field] = {
            "no-name": {"": DenseField(2)},
            "surrogate": {"\ud800": DenseField(2)},
            "dimension-0": {"dense": DenseField(0)},
            "dimension-negative": {"dense": DenseField(-2)},
            "filterable-no-name": {"dense": DenseField(2)},
        }[wrong]  # type: ignore[assignment]
        schema = lab.schema(fields, filterable={"": FilterKind.INT} if wrong == "filterable-no-name" else {})
        assert _made(lab, schema) is None


def _fields(names: Sequence[str], *, sparse: bool) -> dict[str, Field]:
    """A dense field of each name, and where there are sparse ones, those of the same names with an s behind."""
    fields: dict[str, Field] = {name: DenseField(2) for name in names}
    return fields | ({f"{name}s": SparseField() for name in names} if sparse else {})


def _vector_of(row: int, spec: Field) -> Vector:
    """A vector that no other row has."""
    if isinstance(spec, SparseField):
        return SparseVector.from_mapping({row: 1.0 + row})
    return np.array([np.cos(row / 20), np.sin(row / 20)], np.float32)


def _made(lab: Lab, schema: Schema) -> Store | None:
    """An empty collection, or None where the store refuses it in a sentence."""
    store: Store | None = None
    try:
        store = lab.open(schema)
        store.create()
    except _REFUSALS as error:
        assert len(str(error)) > 10
        if store is not None:
            lab.forget(store)
        return None
    return store

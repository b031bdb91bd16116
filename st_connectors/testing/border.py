"""Test that invalid input is refused before anything is stored, and that names are never merged."""

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

_INVALID_WEIGHTS: Mapping[str, float] = {
    "zero": 0.0,
    "minus-zero": -0.0,
    "negative": -1.5,
    "nan": float("nan"),
    "infinite": float("inf"),
    "minus-infinite": float("-inf"),
    "subnormal": 1e-39,
}

_INVALID_VECTORS: Mapping[str, tuple[str, Any]] = {
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
"""Values that are not a vector of the field they are stored under."""

_ENDINGS = (
    *("UPPER", "upper", ".dot", "_dot", "-dot", " space", "/slash", "/../up", ":colon", "*", "?", "#", "@", "%41", "A"),
    *('"', "'", "\\", "\n", "\x00", "\u00fc", "u\u0308", "\u65e5\u672c", "x" * 300, "x" * 301),
)
"""Suffixes of collection names that a store may normalise, shorten, misread as a path or pattern, or refuse."""

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
"""Names of vector fields that a store may normalise, shorten or refuse."""

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
"""Payload keys that stores, or the adapters for them, use internally."""

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
    """Invalid input."""

    @pytest.mark.parametrize("weight", list(_INVALID_WEIGHTS))
    def test_weights_that_are_none_are_left_out(self, lab: Lab, weight: str) -> None:
        """Zero, negative, subnormal and non-finite weights are refused; ``from_mapping`` drops them."""
        lab.need(lab.capabilities.sparse and lab.capabilities.optional_vectors, "optional sparse vectors")
        bad = _INVALID_WEIGHTS[weight]
        with pytest.raises(ValueError, match="from_arrays drops"):
            SparseVector(np.array([3], np.uint32), np.array([bad], np.float32))
        pair = lab.pair(lab.schema({"sparse": SparseField()}))
        weights = {"all": {3: bad}, "some": {3: bad, 5: 1.0}, "none": {}, "good": {3: 0.5}}
        pair.upsert([Record(name, {"sparse": SparseVector.from_mapping(each)}) for name, each in weights.items()])

        pair.assert_records_agree()
        assert {record.id for record in pair.store.scan() if record.vectors} == {"some", "good"}
        hits = pair.assert_search_agrees(
            pair.near(Near("sparse", SparseVector.from_mapping({3: 2.0, 5: bad}))),
            pair.near(Near("sparse", SparseVector.from_mapping({3: bad, 5: 2.0}))),
            pair.near(Near("sparse", SparseVector.from_mapping({3: bad}))),
        )
        assert [[hit.id for hit in ranking] for ranking in hits] == [["good"], ["some"], []]

    @pytest.mark.parametrize("form", list(_INVALID_VECTORS))
    def test_vectors_of_another_form_are_refused(self, lab: Lab, form: str) -> None:
        """A value that is not a vector of its field is rejected with the field's name; the other records are stored."""
        lab.need(lab.capabilities.sparse, "sparse vectors")
        name, value = _INVALID_VECTORS[form]
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
        """A record with an empty sparse vector lacks it: it is rejected by name, and no dummy is stored."""
        lab.need(lab.capabilities.sparse, "sparse vectors")
        pair = lab.pair(lab.schema({"sparse": SparseField(optional=False)}))
        good = Record("good", {"sparse": SparseVector.from_mapping({0: 1.0})})

        rejected = pair.store.upsert([Record("empty", {"sparse": SparseVector.from_mapping({})}), good])

        assert [(item.position, item.id, type(item.error)) for item in rejected] == [(0, "empty", Refused)]
        pair.oracle.upsert([good])
        pair.store.refresh()
        pair.assert_records_agree()

    def test_collections_are_kept_apart_or_refused(self, lab: Lab) -> None:
        """A collection of any name has its own records and opens by that name only, or the name is refused."""
        base = lab.schema()
        created: dict[str, Store] = {}
        for ending in _ENDINGS:
            store = _create_or_none(lab, replace(base, collection=base.collection + ending))
            if store is not None:
                created[ending] = store
        for row, store in enumerate(created.values()):
            assert store.count() == 0
            assert store.upsert([replace(each, payload={"row": row}) for each in dense_records(1)]) == []
            store.refresh()
        for row, (ending, store) in enumerate(created.items()):
            assert [record.payload for record in store.scan()] == [{"row": row}], ending
            assert store.schema.collection == base.collection + ending
        assert len(created) >= 3, "letters, digits, dashes and underscores are valid in every store"

    def test_vector_fields_are_kept_apart_or_refused(self, lab: Lab) -> None:
        """A field of any name has its own vectors and is searched by that name only, or its schema is refused."""
        fields = _fields(_FIELDS, sparse=lab.capabilities.sparse)
        schema = lab.schema(fields)
        store = _create_or_none(lab, schema)
        if store is None:
            fields = {
                name: spec
                for name, spec in fields.items()
                if _create_or_none(lab, lab.schema({name: spec})) is not None
            }
            schema = lab.schema(fields)
            store = lab.new(schema)
        assert len(fields) >= 3, "letters and underscores are valid in every store"
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
        """Payload keys of any name come back unchanged and do not collide with the store's own keys."""
        fields: dict[str, Field] = {"dense": DenseField(2)}
        fields |= {"sparse": SparseField()} if lab.capabilities.sparse else {}
        fields |= {"text": TextField("payload")} if lab.capabilities.text else {}
        names = dict.fromkeys(_KEYS, FilterKind.KEYWORD)
        pair = lab.pair(lab.schema(fields, filterable=names if keys == "filterable" else {}))
        vectors: dict[str, Vector] = {name: _vector_of(3, spec) for name, spec in fields.items() if name != "text"}
        payload = {name: f"value of {name}" for name in _KEYS}
        pair.upsert([Record("all", vectors, payload), Record("none", vectors), Record("in", vectors, {"in": payload})])

        pair.assert_records_agree()
        pair.assert_search_agrees(*(pair.near(Near(name, vector)) for name, vector in vectors.items()))
        for name in _KEYS if keys == "filterable" else ():
            pair.assert_records_agree(Eq(name, f"value of {name}"))
            pair.assert_records_agree(Not(Exists(name)))

    @pytest.mark.parametrize("call", list(_CALLS))
    def test_wrong_arguments_are_refused(self, lab: Lab, call: str) -> None:
        """An argument of the wrong type or kind raises an error with a message, and changes nothing."""
        pair = lab.library()
        with pytest.raises((ValueError, TypeError), match=r".{10}"):
            _CALLS[call](pair.store)
        assert pair.store.count() == corpus.SIZE

    def test_candidates_over_the_stores_window_are_refused(self, lab: Lab) -> None:
        """If a store limits the number of hits, a fusion whose depth exceeds the limit is refused."""
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
        """An invalid schema is refused and creates no collection."""
        fields: dict[str, Field] = {
            "no-name": {"": DenseField(2)},
            "surrogate": {"\ud800": DenseField(2)},
            "dimension-0": {"dense": DenseField(0)},
            "dimension-negative": {"dense": DenseField(-2)},
            "filterable-no-name": {"dense": DenseField(2)},
        }[wrong]  # type: ignore[assignment]
        schema = lab.schema(fields, filterable={"": FilterKind.INT} if wrong == "filterable-no-name" else {})
        assert _create_or_none(lab, schema) is None


def _fields(names: Sequence[str], *, sparse: bool) -> dict[str, Field]:
    """Return a dense field for each name and, with ``sparse``, a sparse field of the same name with an s appended."""
    fields: dict[str, Field] = {name: DenseField(2) for name in names}
    return fields | ({f"{name}s": SparseField() for name in names} if sparse else {})


def _vector_of(row: int, spec: Field) -> Vector:
    """Return a vector that differs from those of all other rows."""
    if isinstance(spec, SparseField):
        return SparseVector.from_mapping({row: 1.0 + row})
    return np.array([np.cos(row / 20), np.sin(row / 20)], np.float32)


def _create_or_none(lab: Lab, schema: Schema) -> Store | None:
    """Create and return an empty collection, or return None if the store refuses it with a message."""
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

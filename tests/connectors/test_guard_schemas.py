"""Which schemas the guard lets through."""

from __future__ import annotations

import pytest
from watched import Watched

from st_connectors.errors import Unsupported
from st_connectors.layers.guard import guarded
from st_connectors.schema import DenseField, Metric, Quantization, SparseField, TextField


@pytest.mark.parametrize(
    ("fields", "capabilities", "message"),
    [
        (
            {"v": DenseField(3, Metric.DOT)},
            {"metrics": frozenset({Metric.COSINE})},
            "field 'v' has metric dot; this store has cosine",
        ),
        (
            {"v": DenseField(3, quantization=Quantization.INT8)},
            {},
            "field 'v' has quantization int8; this store has none",
        ),
        ({"v": DenseField(30)}, {"max_dimension": 29}, "field 'v' has 30 dimensions; this store allows 29"),
        ({"v": SparseField()}, {"sparse": False}, "field 'v': this store has no sparse vectors"),
        ({"v": TextField()}, {"text": False}, "field 'v': this store has no text search"),
    ],
)
def test_what_a_store_cannot_hold_is_refused_at_create(fields, capabilities, message):
    """Unsupported, naming field, wish and what there is; the store hears nothing."""
    store = Watched(fields, **capabilities)
    with pytest.raises(Unsupported) as caught:
        guarded(store, name="fake").create()
    assert str(caught.value) == f"fake create: {message}"
    assert store.calls == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"v": DenseField(0)}, "dimension of field 'v' must be at least 1"), ({"": SparseField()}, "needs a name")],
)
def test_schemas_that_mean_nothing_are_refused(fields, message):
    """Whatever the store."""
    with pytest.raises(ValueError, match=message):
        guarded(Watched(fields)).create()


def test_a_good_schema_is_created():
    """And passed on once."""
    store = Watched()
    guarded(store).create()
    assert store.calls == ["create"]

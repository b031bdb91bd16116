"""The contract's values: what is written of them is read back, and what differs is told."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_connectors import errors
from st_connectors.filters import parse_date
from st_connectors.schema import (
    DenseField,
    FieldKind,
    FilterKind,
    Metric,
    Quantization,
    Rrf,
    Schema,
    SparseField,
    TextField,
    Weighted,
    schema_difference,
)
from st_connectors.store import Parts
from st_core.protocols import ModelKind, ModelRef

NAMES = st.text(min_size=1, max_size=5)
FIELDS = st.one_of(
    st.builds(DenseField, st.integers(1, 4096), st.sampled_from(Metric), st.sampled_from(Quantization), st.booleans()),
    st.builds(SparseField, st.booleans()),
    st.builds(TextField, NAMES),
)
MODELS = st.builds(
    ModelRef,
    NAMES,
    st.sampled_from(ModelKind),
    st.integers(1, 4096),
    st.none() | NAMES,
    st.none() | st.integers(1, 512),
    st.dictionaries(NAMES, NAMES, max_size=2),
    st.sampled_from(["float32", "int8"]),
    st.dictionaries(NAMES, NAMES, max_size=2),
)
WEIGHTS = st.lists(st.floats(0, 5), min_size=1, max_size=3).map(tuple)
SCHEMAS = st.builds(
    Schema,
    NAMES,
    st.dictionaries(NAMES, FIELDS, max_size=3),
    st.dictionaries(NAMES, st.sampled_from(FilterKind), max_size=3),
    st.dictionaries(NAMES, MODELS, max_size=2),
    st.none() | st.builds(Rrf, st.integers(1, 99), st.none() | WEIGHTS) | st.builds(Weighted, WEIGHTS),
)


@given(SCHEMAS)
def test_a_schema_survives_json(schema):
    """Every field, kind, model and fusion comes back of its own type, in order."""
    back = Schema.from_json(json.loads(json.dumps(schema.to_json())))

    assert back == schema
    assert list(back.fields) == list(schema.fields)
    assert schema_difference(schema, back) is None


def test_fields_are_found_by_kind():
    """In the order of the schema."""
    schema = Schema("c", {"t": TextField(), "b": DenseField(2), "s": SparseField(), "a": DenseField(3)})
    assert [schema.of_kind(kind) for kind in FieldKind] == [["b", "a"], ["s"], ["t"]]


MODEL = ModelRef("org/model", ModelKind.DENSE, 3, fingerprint={"weights": "1", "tokenizer": "2"})
SCHEMA = Schema("c", {"v": DenseField(3)}, {"year": FilterKind.INT}, {"v": MODEL})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "schema version 1, not 2"),
        (
            {"fields": {"v": DenseField(4)}},
            "field 'v' as dense (dimension 3, metric cosine, quantization none, optional True)",
        ),
        ({"fields": {"v": DenseField(3, Metric.DOT)}}, "field 'v'"),
        ({"fields": {}}, "field 'v' as dense (dimension 3, metric cosine, quantization none, optional True)"),
        (
            {"fields": {"v": DenseField(3), "s": SparseField()}},
            "has no field 's', and the schema the field 's' as sparse (optional ",
        ),
        (
            {"filterable": {"year": FilterKind.KEYWORD}},
            "the filterable field 'year' as int, and the schema the filterable field 'year' as keyword",
        ),
        ({"filterable": {}}, "the filterable field 'year' as int, and the schema no filterable field 'year'"),
        (
            {"models": {"v": replace(MODEL, dimension=4)}},
            "of another model in field 'v': org/model (dense, 3 dimensions), not org/model (dense, 4",
        ),
        (
            {"models": {"v": replace(MODEL, name="x", fingerprint={"weights": "9"})}},
            "org/model, which differs from x in its weights",
        ),
    ],
)
def test_schemas_that_differ_say_in_what(change, message):
    """One sentence, with both sides."""
    assert message in schema_difference(SCHEMA, replace(SCHEMA, **change))


@pytest.mark.parametrize(
    "change",
    [
        {"models": {}},
        {"models": {"v": replace(MODEL, name="/a/folder")}},
        {"models": {"v": replace(MODEL, fingerprint={})}},
        {"models": {"v": replace(MODEL, fingerprint={"weights": "1", "prompts": "7"})}},
        {"fusion": Rrf(10)},
    ],
)
def test_schemas_that_agree_in_what_is_known_do_not_differ(change):
    """A model by another path, or with an unknown fingerprint, and another default fusion are no difference."""
    assert schema_difference(SCHEMA, replace(SCHEMA, **change)) is None
    assert schema_difference(replace(SCHEMA, **change), SCHEMA) is None


def test_values_are_frozen():
    """Nothing handed over can be changed by its receiver."""
    with pytest.raises(FrozenInstanceError):
        SCHEMA.version = 2
    assert Parts.ALL == Parts.PAYLOAD | Parts.VECTORS | Parts.LEGS


@pytest.mark.parametrize(
    "error",
    [
        errors.Throttled("slow down", store="s", operation="upsert", retry_after=2.5),
        errors.Unavailable("down", store="s", operation="search"),
        errors.Refused("no", store="s", operation="upsert"),
        errors.Unsupported("cannot", store="s", operation="create"),
    ],
)
@pytest.mark.parametrize("through", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_errors_survive_copies_and_other_processes(error, through):
    """Class, words and the server's wish."""
    back = through(error)
    assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))
    assert str(back).startswith(f"s {error.operation}: ")


def test_error_classes_tell_whether_to_try_again():
    """Temporary and permanent are apart, and Unsupported is neither."""
    tree = {name: set(kind.__mro__) for name, kind in vars(errors).items() if isinstance(kind, type)}
    assert {name for name, kinds in tree.items() if errors.Temporary in kinds} == {
        "Temporary",
        "Unavailable",
        "Throttled",
    }
    assert {name for name, kinds in tree.items() if errors.Permanent in kinds} == {
        "Permanent",
        "NotFound",
        "SchemaMismatch",
        "Refused",
    }


@pytest.mark.parametrize(
    "text",
    [
        "2020-01-31",
        "2020-01-31T00:00",
        "2020-01-31 00:00:00.000000",
        "2020-01-31T00:00:00Z",
        "2020-01-30T23:00:00-01:00",
    ],
)
def test_dates_are_read_as_instants(text):
    """All forms give UTC."""
    assert parse_date(text).isoformat() == "2020-01-31T00:00:00+00:00"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2020",
        "2020-1-31",
        "20200131",
        "2020-W05-5",
        "2020-02-30",
        "31.01.2020",
        "2020-01-31T8:00",
        "2020-01-31T08:00Z",
        "2020-01-31T08:00:00.1234567",
        "2020-01-31T08:00:00z",
        "0001-01-01T00:00:00+23:00",
        " 2020-01-31",
        "٢٠٢٠-01-31",
    ],
)
def test_other_spellings_are_no_dates(text):
    """Stores read them differently, so none is passed on."""
    with pytest.raises(ValueError, match="is not a date: write 2020-01-31"):
        parse_date(text)

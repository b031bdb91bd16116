"""Texts of Arrow tables to vectors: the same records as an ingest of the same documents."""

from __future__ import annotations

import numpy as np
import pytest

from st_connectors import Index
from st_connectors.encoder import Encoder
from st_connectors.errors import SchemaMismatch
from st_connectors.index import Split
from st_connectors.ingest.arrow import ArrowLayout, write_arrow
from st_connectors.ingest.arrow_task import TaskWriter
from st_connectors.ingest.dead_letters import read_letters
from st_connectors.replaying import replay
from st_core.errors import InputTooLong

pa = pytest.importorskip("pyarrow")

WORDS = "harbour ships sail over the sea at night and old boats wait in the red harbour "


def documents(count=12):
    return [
        {"id": f"d{number}", "text": f"number {number} {WORDS * (number % 4)}", "year": number}
        for number in range(count)
    ]


def records(store):
    return {record.id: (dict(record.payload), dict(record.vectors)) for record in store.scan()}


def assert_same(mine, theirs):
    assert mine.keys() == theirs.keys()
    for name, (payload, vectors) in theirs.items():
        assert mine[name][0] == payload
        assert mine[name][1].keys() == vectors.keys()
        np.testing.assert_allclose(mine[name][1]["dense"], vectors["dense"], rtol=1e-6, atol=1e-7)
        assert mine[name][1]["sparse"].to_mapping() == pytest.approx(vectors["sparse"].to_mapping(), rel=1e-6)


@pytest.fixture
def indexes(request):
    """Two empty collections with the built-in models."""
    made = [
        Index.create(f"memory:{request.node.nodeid}", collection=name, dense="builtin:dense", sparse="builtin:sparse")
        for name in ("mine", "theirs")
    ]
    yield made
    for index in made:
        index.store.drop()
        index.close()


@pytest.mark.parametrize("split", [None, Split(16, overlap=4)], ids=["whole", "windows"])
def test_encoded_tables_are_stored_as_an_ingest_stores_their_documents(indexes, split, request):
    mine, theirs = indexes
    theirs.ingest(documents(), split=split)
    encode = Encoder(url=f"memory:{request.node.nodeid}", collection="mine", split=split)
    table = pa.Table.from_pylist(documents())

    report = write_arrow(mine.store, [encode(table.slice(0, 5)), encode(table.slice(5).to_batches()[0])])

    assert report.refused == ()
    assert_same(records(mine.store), records(theirs.store))
    assert len(records(mine.store)) == (12 if split is None else 30)


@pytest.mark.parametrize("again", [None, Split(16, overlap=4)], ids=["whole", "windows"])
def test_windows_that_a_document_has_no_longer_are_deleted(indexes, again):
    """As by an ingest of the same documents, whether the second write splits texts or not."""
    mine, theirs = indexes
    shorter = [{**each, "text": each["text"][:100]} for each in documents()][::-1]
    for rows, split in [(documents(), Split(16, overlap=4)), (shorter, again)]:
        theirs.ingest(rows, split=split)
        encode = Encoder(dense="builtin:dense", sparse="builtin:sparse", split=split)
        write_arrow(mine.store, encode(pa.Table.from_pylist(rows)), batch=7)

    assert_same(records(mine.store), records(theirs.store))


def test_the_id_of_the_source_row_stays_and_all_its_windows_are_in_its_table():
    encode = Encoder(sparse="builtin:sparse", split=Split(16, overlap=4))
    encoded = encode(pa.Table.from_pylist(documents(4)))
    assert encoded.column_names == ["id", "text", "year", "_record_id", "_chunk", "_refused", "sparse"]
    assert encoded.column("id").to_pylist() == ["d0", *["d1"] * 2, *["d2"] * 3, *["d3"] * 4]
    assert encoded.column("_record_id").to_pylist()[:4] == ["d0", "d1", "d1#window-1", "d2"]
    assert encoded.column("year").to_pylist() == [0, 1, 1, 2, 2, 2, 3, 3, 3, 3]


class Shy:
    """Refuses texts with "secret", alone or in a batch."""

    dimension = 2
    name = "shy"

    def encode_document(self, inputs, /):
        if any("secret" in text for text in inputs):
            raise InputTooLong("too long for me")
        return np.array([[len(text), 1.0] for text in inputs], np.float32)

    encode_query = encode_document


def test_rows_that_cannot_be_encoded_are_refused_with_the_reason_and_the_others_are_stored(memory):
    """The reason comes from where the text was refused, not from the vector that is missing."""
    table = pa.table(
        {
            "key": pa.array(["a", None, "c", "d", "e"]),
            "body": pa.array(["one", "two", None, "a secret", "five"]),
            "year": [1, 2, 3, 4, 5],
        }
    )
    encoded = Encoder(dense=Shy(), id="key", text="body")(table)
    assert encoded.column("dense").null_count == 3
    assert encoded.column("dense").to_pylist()[4] == [4.0, 1.0]

    from st_connectors.registry import open_store
    from st_connectors.schema import DenseField, Metric, Schema

    store = open_store("memory:refused-rows", "c", Schema("c", {"dense": DenseField(2, Metric.DOT)}))
    store.create()
    report = write_arrow(store, encoded, ArrowLayout("key", "body"))
    assert [(each.position, each.id, each.reason) for each in report.refused] == [
        (1, "", "'id' is missing"),
        (2, "c", "'text' is missing"),
        (3, "d", "the encoder refused it: too long for me"),
    ]
    assert {each.stage for each in report.refused} == {"encode"}
    assert [each.document for each in report.refused] == [
        {"id": None, "text": "two", "year": 2},
        {"id": "c", "year": 3},
        {"id": "d", "text": "a secret", "year": 4},
    ]
    assert {record.id: record.payload for record in store.scan()} == {
        "a": {"text": "one", "year": 1},
        "e": {"text": "five", "year": 5},
    }
    store.drop()


def test_an_empty_table_has_columns_of_the_same_types():
    """All blocks of a dataset have one schema."""
    encode = Encoder(dense="builtin:dense", sparse="builtin:sparse")
    table = pa.Table.from_pylist(documents(2))
    assert encode(table.slice(0, 0)).schema == encode(table).schema
    refused = encode(pa.table({"id": ["a"], "text": pa.array([None], pa.string()), "year": [1]}))
    assert refused.schema == encode(table).schema


def test_another_model_than_that_of_the_collection_is_an_error(indexes, request, letters):
    with pytest.raises(SchemaMismatch, match="dimension"):
        Encoder(url=f"memory:{request.node.nodeid}", collection="mine", dense=letters)


def test_an_encoder_without_models_is_an_error():
    with pytest.raises(ValueError, match="nothing to encode by: pass url= and collection=, dense= or sparse="):
        Encoder()
    with pytest.raises(ValueError, match="url= needs collection="):
        Encoder(url="memory:x")


def test_the_dead_letters_of_a_task_are_replayed(indexes, request, tmp_path):
    """A row with a broken vector is encoded again from its text, and leaves the file."""
    mine, theirs = indexes
    url = f"memory:{request.node.nodeid}"
    encoded = Encoder(url=url, collection="mine")(pa.Table.from_pylist(documents(3)))
    broken = encoded.column("dense").to_pylist()
    broken[1] = [float("nan")] * len(broken[1])
    column = pa.array(broken, encoded.schema.field("dense").type)
    table = encoded.set_column(encoded.schema.get_field_index("dense"), "dense", column)
    assert TaskWriter(url, "mine", dead_letters=tmp_path).write(table, 0).refused_total == 1
    (file,) = tmp_path.iterdir()

    report = replay(file, lambda target: Index.open(target.address, collection=target.collection))

    assert (report.confirmed, report.refused_total) == (1, 0)
    assert list(read_letters(file) if file.exists() else ()) == []
    theirs.ingest(documents(3))
    assert_same(records(mine.store), records(theirs.store))

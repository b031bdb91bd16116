"""Arguments that users compute are taken: integers of numpy, paths as models, integers as ids."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path

import numpy as np
import pytest

from st_connectors import Index
from st_connectors.arguments import check_int
from st_connectors.errors import SchemaMismatch
from st_connectors.fusion import check_fusion
from st_connectors.ingest.pipeline import IngestOptions
from st_connectors.layers.records import check_id
from st_connectors.registry import open_store
from st_connectors.schema import DenseField, Rrf, Schema, reading_schema
from st_connectors.search import SearchOptions
from st_connectors.split import Split
from st_connectors.store import Candidates, Fuse, Near, SearchRequest
from st_core import builtin


@pytest.fixture
def index():
    """Yield an index in this process with three documents."""
    with Index.create(f"memory:{uuid.uuid4().hex}", collection="c", dense=builtin.DENSE) as index:
        index.ingest({"id": at, "text": text} for at, text in enumerate(("a boat", "a tree", "a house"), 7))
        yield index


@pytest.mark.parametrize("value", [2, np.int64(2), np.uint8(2), np.array(2)])
def test_integers_of_numpy_are_integers(value):
    """They become ints of Python, which every driver and JSON can write."""
    assert type(check_int(value, 1, "limit")) is int
    assert check_int(value, 1, "limit") == 2


@pytest.mark.parametrize("value", [2.0, "2", True, np.True_, None, np.float32(2), np.array([1, 2]), [2]])
def test_other_values_are_no_integers(value):
    """The message names the argument and the value."""
    with pytest.raises(TypeError, match="limit must be an integer, not "):
        check_int(value, 1, "limit")


def test_options_store_ints_of_python():
    """Whatever was passed."""
    two = np.int64(2)
    searching, ingesting = SearchOptions(limit=two, offset=two, depth=two), IngestOptions(batch=two)
    split, field = Split(tokens=two, overlap=two), DenseField(two)

    values = [searching.limit, searching.offset, searching.depth, ingesting.batch, split.tokens, split.overlap]
    assert [(type(value), value) for value in [*values, field.dimension, check_fusion(Rrf(two)).k]] == [(int, 2)] * 8
    assert json.loads(json.dumps(Schema("c", {"dense": field}).to_json()))["fields"]["dense"]["dimension"] == 2


def test_a_search_with_integers_of_numpy(index):
    """As ``len`` of an array or a column of a table gives them."""
    expected = [hit.id for hit in index.search("a boat")]

    assert [hit.id for hit in index.search("a boat", limit=np.int64(2))] == expected[:2]
    results = index.search("a boat", limit=np.int64(1), offset=np.int64(1), depth=np.int64(5), fusion=Rrf(np.int64(3)))
    assert [hit.id for hit in results] == expected[1:2]


@pytest.mark.parametrize("address", ["qdrant+edge", "qdrant+memory", "milvus+lite", "memory"])
def test_stores_search_with_integers_of_numpy(address, tmp_path):
    """The guard converts them before a driver sees them."""
    pytest.importorskip({"qdrant+edge": "qdrant_edge", "qdrant+memory": "qdrant_client"}.get(address, "numpy"))
    pytest.importorskip("milvus_lite" if address == "milvus+lite" else "numpy")
    url = f"{address}:{tmp_path / uuid.uuid4().hex}"
    with Index.create(url, collection="c", dense=builtin.DENSE) as index:
        index.ingest([{"id": 7, "text": "a boat"}, {"id": 8, "text": "a tree"}])
        leg = Near("dense", np.ones(256, np.float32))
        for rank in (leg, Fuse((leg,), method=Rrf(np.int64(60)), depth=np.int64(5))):
            [hits] = index.store.search([SearchRequest(rank, limit=np.int64(1), offset=np.int64(1))])
            assert len(hits) == 1
        if "candidates" in index.store.capabilities.efforts:
            [hits] = index.store.search([SearchRequest(leg, effort=Candidates(np.int64(10)))])
            assert len(hits) == 2
        assert [record.id for record in index.get([7, np.int64(8)])] == ["7", "8"]


def test_integers_are_ids(index):
    """An integer id of a document is stored as its decimal digits."""
    assert [record.id for record in index.get([7, "8", np.int64(9)])] == ["7", "8", "9"]
    index.delete([7, np.int64(8)])
    assert index.count() == 1
    assert index.ingest([{"id": np.int64(7), "text": "a boat"}]).confirmed == 1
    assert [record.id for record in index.get([7])] == ["7"]


@pytest.mark.parametrize("ids", [7, "7"])
def test_ids_are_a_list(index, ids):
    """The message has the right form."""
    for call in (index.get, index.delete):
        with pytest.raises(TypeError, match=r"ids must be a list of ids; for one, \["):
            call(ids)


@pytest.mark.parametrize("value", [True, 7.0, b"7"])
def test_other_values_are_no_ids(index, value):
    """They are refused in one line."""
    with pytest.raises(TypeError, match="an id must be a string, not "):
        index.get([value])
    with pytest.raises(TypeError, match="an id must be a string, not "):
        check_id(value)


def test_paths_are_models(tmp_path):
    """The collection stores the path of the folder, and opens with it."""
    folder = tmp_path / "model"
    shutil.copytree(builtin.path(builtin.DENSE), folder)
    url = f"memory:{uuid.uuid4().hex}"

    with Index.create(url, collection="c", dense=folder) as index:
        assert index.schema.models["dense"].name == str(folder)
        index.ingest([{"id": "a", "text": "a boat"}])
    with Index.open(url, collection="c", dense=Path(folder)) as index:
        assert [hit.id for hit in index.search("boat")] == ["a"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 2}, "its format is 2, and this version of st-connectors reads 1"),
        ({"fields": {"dense": {"kind": "multi", "dimension": 2}}}, "'multi' is not a valid FieldKind"),
        ({"fields": ["dense"]}, "AttributeError: "),
        ({"models": None}, "AttributeError: "),
    ],
    ids=["newer", "unknown kind", "other shape", "null"],
)
def test_a_schema_of_another_format_is_one_line(change, reason):
    """The version that wrote it can read it."""
    value = Schema("books", {"dense": DenseField(2)}).to_json() | change
    with pytest.raises(SchemaMismatch) as caught, reading_schema("books", store="any", operation="connect"):
        Schema.from_json(value)

    assert str(caught.value).startswith(
        f"any connect: the schema stored with collection 'books' cannot be read: {reason}"
    )
    assert str(caught.value).endswith("; open it with the version of st-connectors that wrote it")


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"{}", "was not created by st-connectors"),
        (b'{"st_connectors": {}}', "cannot be read: KeyError: 'version'"),
        (b'{"st_connectors": {"version": 99}}', "cannot be read: its format is 99"),
        (b'{"st_connectors": []}', "cannot be read: TypeError"),
        (b"[]", "cannot be used: expected an object"),
        (b"\xff\xfe", "cannot be used: 'utf-8' codec"),
        (b"", "cannot be used: Expecting value"),
    ],
)
def test_a_collection_file_of_another_format_is_one_line(tmp_path, content, error):
    """Neither a traceback nor a new collection in its place."""
    pytest.importorskip("qdrant_edge", reason="needs the qdrant extra")
    url, schema = f"qdrant+edge:{tmp_path}/library", Schema("books", {"dense": DenseField(2)})
    store = open_store(url, "books", schema)
    store.create()
    store.close()
    file = tmp_path / "library" / "books" / "schema.json"
    file.write_bytes(content)

    for call in (lambda: open_store(url, "books"), lambda: open_store(url, "books", schema).create()):
        with pytest.raises(Exception, match=error) as caught:
            call()
        assert type(caught.value).__module__ == "st_connectors.errors"
        assert "\n" not in str(caught.value)
    assert file.read_bytes() == content

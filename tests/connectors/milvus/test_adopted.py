"""Collections created by someone else, on Milvus Lite: search, filters and writes, with all kinds of columns."""

from __future__ import annotations

import re
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("milvus_lite", reason="needs the milvus extra")

from milvus_lite.server_manager import server_manager_instance
from pymilvus import DataType, Function, FunctionType, MilvusClient
from pymilvus.milvus_client.index import IndexParams

from st_connectors import Index
from st_connectors.errors import NotFound, Refused, SchemaMismatch, Unsupported
from st_connectors.filters import And, Eq, Exists, In, Not, Or, Range
from st_connectors.milvus import wire
from st_connectors.milvus.columns import PrimaryKey, Scalar
from st_connectors.registry import adopt_store, collections, open_store
from st_connectors.schema import DenseField, FilterKind, Metric, Schema, SparseField, TextField
from st_connectors.store import Match, Near, Parts, Record, SearchRequest
from st_core.vectors import SparseVector

ROWS = [
    {
        "pk": 1,
        "body": "red apple",
        "year": 2000,
        "price": 0.5,
        "tags": ["a", "b"],
        "many": [1, 2],
        "lang": "de",
        "n": 1,
    },
    {
        "pk": 2,
        "body": "green apple pear",
        "year": None,
        "price": None,
        "tags": None,
        "many": None,
        "lang": ["de", "en"],
        "n": 2.5,
    },
    {"pk": -3, "body": "old boat", "year": 2001, "price": 1.0, "tags": [], "many": None},
    {"pk": 40, "body": "sea boat ship", "year": 1999, "price": 2.0, "tags": ["b"], "many": [7], "lang": "en", "n": 7},
]
KINDS = {"lang": FilterKind.KEYWORD, "n": FilterKind.FLOAT}
ALL = {"1", "2", "-3", "40"}


def shape(key: DataType = DataType.INT64, *, auto: bool = False):
    """Return the columns: keys, nullable columns, an array, text that a function reads, and a dynamic field."""
    made = MilvusClient.create_schema(auto_id=auto, enable_dynamic_field=True)
    made.add_field("pk", key, is_primary=True, **({} if key is DataType.INT64 else {"max_length": 64}))
    made.add_field("body", DataType.VARCHAR, max_length=1000, enable_analyzer=True)
    made.add_field("year", DataType.INT32, nullable=True)
    made.add_field("price", DataType.DOUBLE, nullable=True)
    words = {"element_type": DataType.VARCHAR, "max_capacity": 10, "max_length": 50}
    made.add_field("tags", DataType.ARRAY, nullable=True, **words)
    made.add_field("many", DataType.ARRAY, element_type=DataType.INT64, max_capacity=10, nullable=True)
    made.add_field("meaning", DataType.FLOAT_VECTOR, dim=16)
    made.add_field("terms", DataType.SPARSE_FLOAT_VECTOR)
    made.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
    made.add_function(Function("bm25", FunctionType.BM25, ["body"], ["words"]))
    return made


def indexes(dense: str = "FLAT"):
    """Return the index of each vector."""
    made = IndexParams()
    made.add_index("meaning", dense, "of_meaning", metric_type="COSINE", params={})
    made.add_index("terms", "SPARSE_INVERTED_INDEX", "of_terms", metric_type="IP", params={})
    made.add_index("words", "SPARSE_INVERTED_INDEX", "of_words", metric_type="BM25", params={})
    return made


@contextmanager
def opened():
    """Yield a client on an empty folder."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        path = f"{folder}/own.db"
        with closing(MilvusClient(path, dedicated=True)) as own:
            yield own
        server_manager_instance.release_server(path)


@pytest.fixture
def client():
    """Yield a client for one test."""
    with opened() as own:
        yield own


@pytest.fixture
def notes(client, letters, words):
    """Return the client with a filled collection."""
    texts = [row["body"] for row in ROWS]
    fill(client, letters.encode_document(texts), words.encode_document(texts).rows())
    return client


@pytest.fixture(scope="module")
def probes():
    """Yield the same records with arbitrary vectors, for tests that only read."""
    with opened() as own:
        fill(own, np.ones((len(ROWS), 16), np.float32), [SparseVector.from_mapping({0: 1.0})] * len(ROWS))
        yield own


def create(client, schema, index_params):
    """Create and load the collection; with ``sync`` pymilvus 3 waits half a second for every index."""
    client.create_collection("notes", schema=schema)
    client.create_index("notes", index_params, sync=False)
    client.load_collection("notes")


def fill(client, dense, sparse):
    """Create the collection and write the records."""
    create(client, shape(), indexes())
    vectors = zip(dense, sparse, strict=True)
    rows = [{"meaning": one.tolist(), "terms": other.to_mapping()} for one, other in vectors]
    client.upsert("notes", [{**row, **vector} for row, vector in zip(ROWS, rows, strict=True)])


def adopt(client, **options):
    return adopt_store("milvus://theirs", "notes", client=client, filterable=KINDS, **options)


def test_their_collection_is_searched_with_their_ids(notes, letters, words):
    """Dense, sparse and hybrid searches return integer keys, negative ones too, as ids, and unchanged payloads."""
    index = Index.adopt(
        "milvus://theirs",
        collection="notes",
        dense=("meaning", letters),
        sparse=("terms", words),
        text_key="body",
        client=notes,
    )

    assert [(hit.id, hit.score) for hit in index.search("boat", mode="sparse")] == [("-3", 2.0), ("40", 2.0)]
    best = index.search("green apple pear")[0]
    assert (best.id, dict(best.payload)) == ("2", {k: v for k, v in ROWS[1].items() if k != "pk"})
    assert {leg.field: leg.rank for leg in best.legs} == {"meaning": 1, "terms": 1}
    assert [hit.id for hit in index.search("boat", where="year >= 2000")] == ["-3", "1"]
    index.close()
    assert notes.has_collection("notes")


@pytest.mark.parametrize(("spelling", "key"), [("07", "7"), ("+7", "7"), (" 7", "7"), ("-0", "0"), ("1_0", "10")])
def test_another_spelling_of_an_integer_key_is_refused_by_name(probes, spelling, key):
    """It would otherwise be a record that is absent, although the store has it."""
    row = Record(spelling, {"meaning": np.ones(16, np.float32), "terms": SparseVector.from_mapping({0: 1.0})}, {})
    says = re.escape(f"the id {spelling!r} is another spelling of {key!r}: write that")
    with closing(adopt(probes)) as store:
        [rejected] = store.upsert([row])
        assert re.search(says, str(rejected.error))
        for call in (store.get, store.delete):
            with pytest.raises(Refused, match=says):
                call([spelling])


@pytest.mark.parametrize("name", ["words", "body"])
def test_their_text_is_a_leg(notes, letters, name):
    """By the name of the vector that Milvus computes, or of the column that it reads; both are the key of texts."""
    index = Index.adopt("milvus://theirs", collection="notes", dense=("meaning", letters), text=name, client=notes)

    assert index.text_key == "body"
    assert {hit.id for hit in index.search("boat", mode="text")} == {"-3", "40"}
    [best, *_] = index.search("old boat", highlight=True)
    assert {leg.field for leg in best.legs} == {"meaning", "words"}
    assert [best.payload["body"][each.start : each.end] for each in best.highlights] == ["old", "boat"]


def test_their_text_alone_is_searched(notes):
    """A collection needs no model for a text leg."""
    index = Index.adopt("milvus://theirs", collection="notes", text="body", client=notes)

    assert [hit.id for hit in index.search("apple pear")] == ["2", "1"]


def test_scores_are_those_of_brute_force(notes, letters):
    """The cosine of every record, and BM25 matches of a text field."""
    with closing(adopt(notes)) as store:
        query = letters.encode_query(["an old pear"])[0]
        rows = letters.encode_document([row["body"] for row in ROWS])
        wanted = rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
        (dense, text) = store.search([SearchRequest(Near("meaning", query)), SearchRequest(Match("words", "apple"))])
        assert {hit.id: hit.score for hit in dense} == {
            str(row["pk"]): pytest.approx(score, rel=1e-5) for row, score in zip(ROWS, wanted, strict=True)
        }
        assert {hit.id for hit in text} == {"1", "2"}
        assert store.capabilities.fields["meaning"].exact
        assert store.capabilities.efforts == {"default", "exact"}


def test_their_collection_is_filled_with_nothing_of_ours(notes, letters, words):
    """Columns receive their keys and the dynamic field all others; missing values are null."""
    index = Index.adopt(
        "milvus://theirs",
        collection="notes",
        dense=("meaning", letters),
        sparse=("terms", words),
        text_key="body",
        filterable={"colour": "keyword"},
        client=notes,
    )

    report = index.ingest([{"id": 7, "body": "blue plum", "year": 2024, "tags": ["x"], "colour": "blue"}])

    assert (report.confirmed, list(report.refused)) == (1, [])
    [row] = notes.query("notes", filter="pk == 7", output_fields=["body", "year", "price", "tags", "many", "$meta"])
    assert {**row, "tags": list(row["tags"])} == {
        "pk": 7,
        "body": "blue plum",
        "year": 2024,
        "price": None,
        "tags": ["x"],
        "many": None,
        "colour": "blue",
    }
    assert [hit.id for hit in index.search("plum", where="colour == 'blue'")] == ["7"]


def test_records_come_back_with_their_vectors(notes, words):
    """``get`` and ``scan`` by pages of one return vectors unchanged."""
    with closing(adopt(notes)) as store:
        assert [record.id for record in store.get(["40", "nope", "-3", str(2**70)])] == ["40", "-3"]
        found = {record.id: record for record in store.scan(batch=1)}
        assert set(found) == ALL
        assert found["40"].vectors["terms"] == words.encode_document(["sea boat ship"])[0]
        assert dict(found["40"].payload) == {k: v for k, v in ROWS[3].items() if k != "pk"}
        assert [record.payload for record in store.get(["1"], parts=Parts.NONE)] == [{}]
        store.delete(["40", "word"])
        assert store.count() == 3


FILTERS = {
    "whole": (Eq("year", 2000), {"1"}),
    "whole-as-float": (Eq("year", 2000.0), {"1"}),
    "true-is-not-one": (In("year", (1999, 2001)), {"-3", "40"}),
    "range": (Range("year", gt=1999, lte=2001), {"1", "-3"}),
    "double": (Eq("price", 0.5), {"1"}),
    "double-as-whole": (Eq("price", 1), {"-3"}),
    "word": (Eq("body", "old boat"), {"-3"}),
    "quotes": (Eq("body", '" or pk != 0 or body == "'), set()),
    "element": (Eq("tags", "b"), {"1", "40"}),
    "elements": (In("tags", ("a", "zz")), {"1"}),
    "numbers": (In("many", (2, 7, 9)), {"1", "40"}),
    "no-elements": (In("tags", ()), set()),
    "exists": (Exists("year"), {"1", "-3", "40"}),
    "exists-array": (Exists("tags"), {"1", "40"}),
    "dynamic": (Eq("lang", "en"), {"2", "40"}),
    "dynamic-in": (In("lang", ("de", "fr")), {"1", "2"}),
    "dynamic-number": (Eq("n", 1), {"1"}),
    "dynamic-range": (Range("n", gte=1.5, lt=7), {"2"}),
    "dynamic-exists": (Exists("lang"), {"1", "2", "40"}),
    "and": (And((Eq("tags", "b"), Eq("year", 2000))), {"1"}),
    "or": (Or((Eq("year", 1999), Eq("lang", "de"))), {"1", "2", "40"}),
    "and-of-nothing": (And(()), ALL),
    "or-of-nothing": (Or(()), set()),
    "nested": (Not(And((Exists("year"), Or((Eq("tags", "b"), Not(Range("price", lt=1.5))))))), {"2", "-3"}),
}


@pytest.mark.parametrize("case", list(FILTERS))
def test_filters_mean_what_they_mean_everywhere(probes, case):
    """Null and missing values make a leaf false, and ``Not`` is the complement."""
    where, wanted = FILTERS[case]
    with closing(adopt(probes)) as store:
        assert {record.id for record in store.scan(where=where)} == wanted
        assert {record.id for record in store.scan(where=Not(where), batch=2)} == ALL - wanted
        assert store.count(Not(Not(where))) == len(wanted)
        (hits,) = store.search([SearchRequest(Near("meaning", np.ones(16, np.float32)), where=where)])
        assert {hit.id for hit in hits} == wanted


def test_what_their_columns_cannot_hold_is_refused_record_by_record(notes):
    """With the reason; the other records of the batch are stored."""
    vectors = {"meaning": np.ones(16, np.float32), "terms": SparseVector.from_mapping({0: 1.0})}
    given = {
        "seven": ({"body": "x"}, "expects integer ids, got 'seven'"),
        "007": ({"body": "x"}, "the id '007' is another spelling of '7'"),
        str(2**63): ({"body": "x"}, "expects integer ids"),
        "8": ({"year": 1}, "payload['body'] is missing"),
        "9": ({"body": "x", "terms": 1}, "payload['terms'] has the name of a column"),
        "10": ({"body": "x", "year": "soon"}, "year"),
        "11": ({"body": "fine", "year": 3}, None),
    }
    with closing(adopt(notes)) as store:
        rejected = store.upsert([Record(name, vectors, payload) for name, (payload, _) in given.items()])
        lacking = store.upsert([Record("12", {"meaning": vectors["meaning"]}, {"body": "x"})])
        store.refresh()
        assert [item.id for item in rejected] == [name for name, (_, why) in given.items() if why]
        assert all(isinstance(item.error, Refused) and given[item.id][1] in str(item.error) for item in rejected)
        assert ["'terms' is missing" in str(item.error) for item in lacking] == [True]
        assert store.count() == 5


def test_keys_of_words(client, letters):
    """A text key is the id, unchanged."""
    create(client, shape(DataType.VARCHAR), indexes("HNSW"))
    with closing(adopt(client)) as store:
        vectors = {"meaning": letters.encode_document(["boat"])[0], "terms": SparseVector.from_mapping({0: 1.0})}
        assert store.upsert([Record(name, vectors, {"body": "x"}) for name in ('it\'s "so"', "b", "ü")]) == []
        store.refresh()
        assert [record.id for record in store.get(["ü", 'it\'s "so"'])] == ["ü", 'it\'s "so"']
        assert {record.id for record in store.scan(where=And(()), batch=1)} == {'it\'s "so"', "b", "ü"}
        assert store.count(Or(())) == 0
        assert store.capabilities.efforts == {"default", "candidates"}


def test_a_collection_that_makes_its_ids_is_only_searched(client):
    """A record cannot be stored under an id of the caller."""
    create(client, shape(auto=True), indexes())
    vectors = {"meaning": np.ones(16, np.float32), "terms": SparseVector.from_mapping({0: 1.0})}
    with closing(adopt(client)) as store:
        (rejected,) = store.upsert([Record("1", vectors, {"body": "x"})])
        assert "Milvus generates the ids" in str(rejected.error)
        assert list(store.scan()) == []


def test_a_released_collection_is_brought_back(notes):
    """Milvus Lite releases collections when it restarts."""
    notes.release_collection("notes")
    with closing(adopt(notes)) as store:
        assert store.count() == 4


def test_an_adopted_collection_is_neither_made_nor_dropped(notes):
    """``create`` accepts it, ``drop`` is refused, and it is not listed."""
    with closing(adopt(notes)) as store:
        store.create()
        with pytest.raises(Unsupported, match="adopted"):
            store.drop()
    assert collections("milvus://theirs", client=notes) == []
    with pytest.raises(SchemaMismatch, match=r"Index\.adopt"):
        open_store("milvus://theirs", "notes", client=notes)


def test_what_cannot_be_adopted_is_told(notes, letters, tmp_path):
    """No such collection or folder, a kind without comparison, a key that is no identifier, a misspelt vector."""
    for url, client in (("milvus://theirs", notes), (f"milvus+lite:{tmp_path}/nothing", None)):
        with pytest.raises(NotFound, match="nope"):
            adopt_store(url, "nope", client=client)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="no dates"):
        adopt_store("milvus://theirs", "notes", client=notes, filterable={"when": FilterKind.DATE})
    with pytest.raises(ValueError, match="consists of letters, digits and underscores"):
        adopt_store("milvus://theirs", "notes", client=notes, filterable={"a.b": FilterKind.INT})
    with pytest.raises(SchemaMismatch, match="its vectors: 'meaning'"):
        Index.adopt("milvus://theirs", collection="notes", dense=("meening", letters), client=notes)
    with closing(adopt(notes)) as store, pytest.raises(ValueError, match="no ranges over arrays"):
        store.count(Range("many", gt=1))


def test_columns_are_read_from_the_description():
    """Vectors of other metrics or without an index are left out; columns of exact kinds are filterable."""
    fields = [
        {"name": "pk", "type": 5, "is_primary": True, "auto_id": True, "params": {}},
        {"name": "d", "type": 101, "params": {"dim": 3}},
        {"name": "binary", "type": 100, "params": {"dim": 8}},
        {"name": "unindexed", "type": 101, "params": {"dim": 3}},
        {"name": "s", "type": 104, "params": {}},
        {"name": "w", "type": 104, "params": {}, "is_function_output": True},
        {"name": "t", "type": 21, "params": {}, "default_value": "x"},
        {"name": "b", "type": 1, "params": {}, "nullable": True},
        {"name": "f", "type": 10, "params": {}},
        {"name": "j", "type": 23, "params": {}},
        {"name": "many", "type": 22, "element_type": 5, "params": {}},
    ]
    functions = [{"type": 1, "input_field_names": ["t"], "output_field_names": ["w"]}]
    described = {"fields": fields, "functions": functions, "enable_dynamic_field": False}
    metrics = {"d": ("IVF_FLAT", "L2"), "s": ("SPARSE_INVERTED_INDEX", "IP"), "w": ("SPARSE_INVERTED_INDEX", "BM25")}
    on = [{"field_name": name, "index_type": kind, "metric_type": metric} for name, (kind, metric) in metrics.items()]

    got = wire.to_adopted_layout("notes", described, on, {"f": FilterKind.FLOAT})

    assert got.schema == Schema(
        "notes",
        {
            "d": DenseField(3, Metric.EUCLIDEAN, optional=False),
            "s": SparseField(optional=False),
            "w": TextField("t"),
        },
        {"t": FilterKind.KEYWORD, "b": FilterKind.BOOL, "many": FilterKind.INT, "f": FilterKind.FLOAT},
    )
    assert (got.primary, got.dynamic, got.indexes) == (
        PrimaryKey("pk", is_integer=True, is_generated=True),
        False,
        {"d": "IVF_FLAT"},
    )
    assert got.scalars["t"] == got.scalars["b"] == Scalar(nullable=True)
    assert got.scalars["many"] == Scalar(is_array=True)
    with pytest.raises(ValueError, match="no such column"):
        wire.to_adopted_layout("notes", described, on, {"colour": FilterKind.KEYWORD})


def test_values_travel_as_templates():
    """The expression sent to a server contains only names of columns."""
    described = {
        "fields": [
            {"name": "pk", "type": 21, "is_primary": True, "params": {}},
            {"name": "t", "type": 21, "params": {}, "nullable": True},
        ],
        "enable_dynamic_field": True,
    }
    evil = '" or pk != "'
    made = wire.to_adopted_layout("notes", described, [], {"x": FilterKind.INT}).where(
        Not(And((Eq("t", evil), Range("x", gt=3))))
    )

    assert made.text == "(t is null or not (t == {p0})) or (not exists x or not (x > {p1}))"
    assert made.values == {"p0": evil, "p1": 3}

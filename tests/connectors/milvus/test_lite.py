"""Milvus Lite alone: folders, several stores on one folder, options, and limits."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("milvus_lite", reason="needs the milvus extra")

from milvus_lite.server_manager import server_manager_instance
from pymilvus import MilvusClient

from st_connectors.errors import NotFound, Permanent, Refused, Unsupported
from st_connectors.filters import Eq, In, Range
from st_connectors.milvus.client import open_client
from st_connectors.registry import collections, open_store, parse_address
from st_connectors.schema import DenseField, FilterKind, Metric, Schema, SparseField, TextField
from st_connectors.search import SearchOptions, search
from st_connectors.store import Match, Near, Parts, Record, SearchRequest
from st_core.vectors import SparseVector

VECTOR = np.array([1, 0], np.float32)


@pytest.fixture
def folder():
    """Yield an empty folder, in memory if possible."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as path:
        yield Path(path)


def test_asking_makes_no_files(folder):
    """Neither a misspelt path nor a list of collections creates a folder."""
    url = f"milvus+lite:{folder}/nothing"
    assert collections(url) == []
    with pytest.raises(NotFound, match="nothing"):
        open_store(url, "books")
    assert list(folder.iterdir()) == []


def test_a_path_that_ends_in_db_is_the_database_itself(folder):
    """Other paths are folders that contain one, so that both paths name the same."""
    schema = Schema("books", {"dense": DenseField(2)})
    with closing(open_store(f"milvus+lite:{folder}/x", "books", schema)) as store:
        store.create()
        assert collections(f"milvus+lite:{folder}/x/milvus.db") == ["books"]
    assert collections(f"milvus+lite:{folder}/x/milvus.db") == ["books"]


@pytest.mark.parametrize(("options", "seconds"), [("", 600), ("?timeout=7", 7)])
def test_calls_may_take_long(folder, options, seconds):
    """Its engine is in this process, and takes seconds to count many rows."""
    connection = open_client(parse_address(f"milvus+lite:{folder}{options}"), None)

    assert connection.call_options["timeout"] == seconds
    connection.close()


def test_a_file_in_place_of_the_folder_is_one_line(tmp_path):
    """It says which path cannot be a folder."""
    (tmp_path / "books.jsonl").touch()

    with pytest.raises(Permanent, match=rf"the folder {tmp_path}/books.jsonl cannot be used: .*File exists"):
        open_client(parse_address(f"milvus+lite:{tmp_path}/books.jsonl"), None)


def test_stores_of_one_folder_share_it_until_the_last_is_closed(folder):
    """Closing one leaves the others open; after the last the folder can be opened again, with all records."""
    url, schema = f"milvus+lite:{folder}", Schema("books", {"dense": DenseField(2)})
    one, two = open_store(url, "books", schema), open_store(url, "books", schema)
    one.create()
    assert one.upsert([Record("a", {"dense": VECTOR})]) == []
    one.close()
    one.close()
    assert two.count() == 1
    two.close()
    with closing(open_store(url, "books")) as again:
        assert [record.id for record in again.scan()] == ["a"]


def test_a_collection_is_made_once_by_many_at_once(folder):
    """Later stores accept it, complete or incomplete, and go on."""
    url = f"milvus+lite:{folder}"
    schema = Schema("books", {"dense": DenseField(2), "sparse": SparseField(), "text": TextField()})

    def make(row):
        with closing(open_store(url, "books", schema)) as store:
            store.create()
            return store.upsert([Record(f"r{row}", {"dense": VECTOR}, {"text": "kettle"})])

    with closing(open_store(url, "books", schema)) as store, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(make, range(16))) == [[]] * 16
        (hits,) = store.search([SearchRequest(Match("text", "kettle"), limit=20)])
        assert {hit.id for hit in hits} == {f"r{row}" for row in range(16)}


def test_a_client_handed_in_is_used_and_stays_open(folder):
    """The client decides whether it is Milvus Lite, whatever the address."""
    client = MilvusClient(f"{folder}/own.db", dedicated=True)
    schema = Schema("books", {"dense": DenseField(2)}, {"tag": FilterKind.KEYWORD})
    with closing(client):
        with closing(open_store("milvus://theirs", "books", schema, client=client)) as store:
            store.create()
            store.upsert([Record("a", {"dense": VECTOR}, {"tag": ['it\'s "so"', "b"]}), Record("c", {"dense": VECTOR})])
            assert store.count(Eq("tag", 'it\'s "so"')) == 1
        assert collections("milvus://theirs", client=client) == ["books"]
    server_manager_instance.release_server(f"{folder}/own.db")


def test_the_number_of_filter_values_is_limited_where_each_is_compared_with_every_row(folder):
    """As text, where a search for 30,000 values runs into the time limit; not as arrays. More are refused at once."""
    schema = Schema("books", {"dense": DenseField(2)}, {"year": FilterKind.INT})
    with closing(open_store(f"milvus+lite:{folder}", "books", schema)) as store:
        store.create()
        assert store.capabilities.max_filter_values == 8192
        with pytest.raises(Unsupported, match="the filter has 8193 values, and this store allows 8192: split them"):
            store.count(In("year", tuple(range(8193))))
    with closing(open_store(f"milvus+lite:{folder}/other?lists=arrays", "books", schema)) as store:
        store.create()
        assert store.capabilities.max_filter_values is None


def test_candidates_beyond_the_reach_of_milvus_are_not_asked_for(folder):
    """A depth of 20,000 ends at the 16,384 records that Milvus returns, and the result says so."""
    fields = {"text": TextField(), "title": TextField("title")}
    with closing(open_store(f"milvus+lite:{folder}", "books", Schema("books", fields))) as store:
        store.create()
        assert store.upsert([Record("a", {}, {"text": "kettle", "title": "lantern"})]) == []
        store.refresh()
        [result] = search(store, [], ["kettle"], SearchOptions(depth=20_000))
        assert [hit.id for hit in result] == ["a"]
        assert result.notes == ("depth is 20,000, and this store returns at most 16,384 records of a search",)


def test_a_collection_keeps_the_layout_it_was_made_with(folder):
    """Options apply to new collections; existing ones keep their layout."""
    schema = Schema("books", {"dense": DenseField(2)}, {"tag": FilterKind.KEYWORD, "year": FilterKind.INT})
    records = [
        Record(f"r{row}", {"dense": VECTOR}, {"tag": [f"t{row}", "x"], "year": [row, 50, 100]}) for row in range(4)
    ]
    with closing(open_store(f"milvus+lite:{folder}?index=hnsw&lists=arrays", "books", schema)) as made:
        made.create()
        assert made.upsert(records) == []
        assert made.capabilities.efforts == {"default", "candidates"}
    with closing(open_store(f"milvus+lite:{folder}", "books", schema)) as store:
        store.create()
        assert store.capabilities.efforts == {"default", "candidates"}
        assert store.upsert([Record("r9", {"dense": VECTOR}, {"tag": "t1", "year": 7})]) == []
        assert {record.id for record in store.scan(where=Eq("tag", "t1"))} == {"r1", "r9"}
        assert store.count(Range("year", gte=49, lte=51)) == 4
        assert store.count(In("year", (50, 7))) == 5


def test_what_it_cannot_hold_is_refused_record_by_record(folder):
    """With the reason; the other records of the batch are stored."""
    schema = Schema("books", {"dense": DenseField(2), "text": TextField()}, {"tag": FilterKind.KEYWORD})
    with closing(open_store(f"milvus+lite:{folder}", "books", schema)) as store:
        store.create()
        rejected = store.upsert(
            [
                Record("good", {"dense": VECTOR}, {"text": "kettle", "tag": "a"}),
                Record("long-text", {"dense": VECTOR}, {"text": "word " * 14_000}),
                Record("long-tag", {"dense": VECTOR}, {"tag": "x" * 40_000}),
                Record("fine", {"dense": VECTOR}, {"text": "x" * 65_535, "other": "y" * 200_000}),
            ]
        )
        assert [(each.position, each.id, type(each.error)) for each in rejected] == [
            (1, "long-text", Refused),
            (2, "long-tag", Refused),
        ]
        assert "70000 bytes" in str(rejected[0].error)
        assert "'tag'" in str(rejected[1].error)
        assert {record.id for record in store.scan()} == {"good", "fine"}
        assert len(store.get(["fine"])[0].payload["other"]) == 200_000


class Counting(MilvusClient):
    """Records the filter of each search and the number of its queries."""

    def search(self, *given, **options):
        self.__dict__.setdefault("asked", []).append((options["filter"], len(options["data"])))
        return super().search(*given, **options)


@pytest.mark.parametrize("metric", list(Metric))
def test_rows_without_the_vector_keep_none_out_that_has_it(folder, metric):
    """Lite ranks them by their placeholder, here the nearest of all: only those searches are repeated, correctly."""
    schema = Schema("books", {"dense": DenseField(2, metric), "sparse": SparseField()}, {"year": FilterKind.INT})
    angles = np.linspace(0, np.pi, 40)
    records = [
        Record(
            f"r{row:02}",
            {"dense": np.array([np.cos(angle), np.sin(angle)], np.float32)}
            | ({"sparse": SparseVector.from_mapping({0: 0.5, 7: angle + 0.1})} if row % 3 else {}),
            {"year": row},
        )
        for row, angle in enumerate(angles)
    ]
    records += [Record(f"s{row:02}", {}, {"year": row}) for row in range(20)]
    near, far = np.array([0.8, 0.6], np.float32), np.array([-1, 0], np.float32)
    requests = [
        SearchRequest(Near("dense", near), limit=15, parts=Parts.PAYLOAD),
        SearchRequest(Near("dense", far), limit=15, parts=Parts.PAYLOAD),
        SearchRequest(Near("dense", near), limit=11, offset=4, where=Range("year", lte=14)),
        SearchRequest(Near("sparse", SparseVector.from_mapping({0: 1.0})), limit=50),
        SearchRequest(Near("sparse", SparseVector.from_mapping({7: 1.0})), limit=50),
    ]
    client = Counting(f"{folder}/own.db", dedicated=True)
    oracle = open_store(f"memory:{folder.name}", "books", schema)
    with (
        closing(client),
        closing(oracle),
        closing(open_store("milvus+lite:theirs", "books", schema, client=client)) as store,
    ):
        for each in (store, oracle):
            each.create()
            assert each.upsert(records) == []
            each.refresh()
        for found, wanted in zip(store.search(requests), oracle.search(requests), strict=True):
            assert [hit.id for hit in found] == [hit.id for hit in wanted]
            assert [hit.score for hit in found] == pytest.approx([hit.score for hit in wanted], rel=1e-5, abs=1e-6)
        assert client.asked == [
            ("", 2),
            ("lo_year <= 14", 1),
            ("", 2),
            ("has_dense == true", 1),
            ("has_dense == true and (lo_year <= 14)", 1),
            ("has_sparse == true", 1),
        ]
    server_manager_instance.release_server(f"{folder}/own.db")


def test_a_record_replaced_by_one_that_lacks_everything_is_found_no_more(folder):
    """Lite merges rows on upsert; nevertheless vectors, words and filter values of the old record are gone."""
    fields = {"dense": DenseField(2), "sparse": SparseField(), "text": TextField()}
    schema = Schema("books", fields, {"tag": FilterKind.KEYWORD, "year": FilterKind.INT})
    vectors = {"dense": VECTOR, "sparse": SparseVector.from_mapping({0: 1.0})}
    legs = [Near("dense", VECTOR), Near("sparse", vectors["sparse"]), Match("text", "kettle")]
    with closing(open_store(f"milvus+lite:{folder}", "books", schema)) as store:
        store.create()
        store.upsert([Record("a", vectors, {"text": "kettle", "tag": ["x", "y"], "year": [1, 2, 3]})])
        asked = [SearchRequest(leg) for leg in legs]
        assert [[hit.id for hit in hits] for hits in store.search(asked)] == [["a"], ["a"], ["a"]]
        store.upsert([Record("a")])
        assert store.search(asked) == [[], [], []]
        assert [store.count(where) for where in (Eq("tag", "y"), Eq("year", 2), Range("year", gte=0))] == [0, 0, 0]
        (record,) = store.get(["a"])
        assert (record.vectors, record.payload) == ({}, {})

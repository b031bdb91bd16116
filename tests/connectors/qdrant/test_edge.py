"""The embedded engine: files, locks, and recovery after a crash."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager

import numpy as np
import pytest

pytest.importorskip("qdrant_edge", reason="needs the qdrant extra")

import qdrant_edge

from st_connectors import collections, open_store
from st_connectors.errors import NotFound, Permanent, SchemaMismatch, Unavailable, Unsupported
from st_connectors.filters import Eq, Not
from st_connectors.layers.retry import NO_RETRY
from st_connectors.plugin import Address
from st_connectors.qdrant import PLUGIN
from st_connectors.qdrant.embedded import _query
from st_connectors.schema import DenseField, FilterKind, Schema
from st_connectors.store import Near, Record, SearchRequest

SCHEMA = Schema("books", {"dense": DenseField(2)}, {"year": FilterKind.INT})
UP = np.array([0.0, 1.0], np.float32)


def records(*names):
    return [Record(name, {"dense": UP}, {"year": 2000 + at}) for at, name in enumerate(names)]


@pytest.fixture
def folder(quick_path):
    return quick_path / "library"


@pytest.fixture
def store(folder):
    store = open_store(f"qdrant+edge:{folder}", "books", SCHEMA, retry=NO_RETRY)
    yield store
    store.close()


@contextmanager
def running(code, *arguments):
    """Run code in a separate process."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_acknowledged_writes_survive_a_killed_process(folder):
    """Acknowledged upserts and deletes survive SIGKILL without a flush."""
    code = """
        import os, signal, sys
        import numpy as np
        from st_connectors import open_store
        from st_connectors.store import DenseField, FilterKind, Record, Schema
        schema = Schema("books", {"dense": DenseField(2)}, {"year": FilterKind.INT})
        store = open_store(f"qdrant+edge:{sys.argv[1]}", "books", schema)
        store.create()
        up = np.array([0.0, 1.0], np.float32)
        for at in range(500):
            store.upsert([Record(f"book {at}", {"dense": up}, {"year": at})])
        store.delete(["book 3"])
        os.kill(os.getpid(), signal.SIGKILL)
    """
    with running(code, folder) as process:
        process.communicate()
        assert process.returncode == -signal.SIGKILL

    store = open_store(f"qdrant+edge:{folder}", "books")

    assert {(r.id, r.payload["year"]) for r in store.scan()} == {(f"book {at}", at) for at in range(500) if at != 3}
    store.close()


def test_a_folder_in_use_says_who_may_hold_it(folder):
    """Only one process can have a collection open; the other gets the folder and a hint."""
    code = """
        import sys
        from st_connectors import open_store
        from st_connectors.store import DenseField, FilterKind, Schema
        schema = Schema("books", {"dense": DenseField(2)}, {"year": FilterKind.INT})
        store = open_store(f"qdrant+edge:{sys.argv[1]}", "books", schema)
        store.create()
        print("open", flush=True)
        sys.stdin.read()
        store.close()
    """
    with running(code, folder) as process:
        assert process.stdout.readline() == "open\n"

        with pytest.raises(Unavailable, match=r"books is in use by another process.* close that one"):
            open_store(f"qdrant+edge:{folder}", "books")
        assert collections(f"qdrant+edge:{folder}") == ["books"]
        process.communicate("")

    open_store(f"qdrant+edge:{folder}", "books").close()


def test_stores_of_one_process_share_a_collection(folder, store):
    """Each sees the other's writes; the shard stays open until the last is closed."""
    store.create()
    other = open_store(f"qdrant+edge:{folder}", "books")
    other.upsert(records("a"))
    other.close()

    assert [record.id for record in store.get(["a"])] == ["a"]
    store.upsert(records("b"))
    assert store.count() == 2


def test_what_one_store_drops_is_gone_for_all(folder, store):
    """It is empty when it is created again."""
    store.create()
    store.upsert(records("a"))
    other = open_store(f"qdrant+edge:{folder}", "books")
    store.drop()

    with pytest.raises(NotFound, match="'books'"):
        other.count()
    assert not (folder / "books").exists()
    store.create()
    assert other.count() == 0
    other.close()


def test_a_closed_store_says_so(store):
    """It does not reopen by itself."""
    store.create()
    store.close()

    with pytest.raises(Permanent, match="closed"):
        store.count()


def test_a_creation_that_was_cut_off_is_made_anew(folder, store):
    """A shard without its sidecar is an incomplete collection."""
    store.create()
    store.upsert(records("a"))
    store.close()
    (folder / "books" / "schema.json").unlink()

    assert collections(f"qdrant+edge:{folder}") == []
    with pytest.raises(NotFound):
        open_store(f"qdrant+edge:{folder}", "books")
    again = open_store(f"qdrant+edge:{folder}", "books", SCHEMA)
    again.create()
    assert again.count() == 0
    again.close()


def test_a_damaged_shard_without_a_sidecar_is_made_anew(folder, store):
    """Files of an interrupted creation do not prevent the next one."""
    (folder / "books" / "shard" / "segments").mkdir(parents=True)
    (folder / "books" / "shard" / "edge_config.json").write_text("{")

    store.create()

    assert store.count() == 0


def test_another_schema_is_a_mismatch_and_changes_nothing(folder, store):
    """It is reported without opening the shard, and therefore also while another store uses it."""
    store.create()
    store.upsert(records("a"))
    other = open_store(f"qdrant+edge:{folder}", "books", Schema("books", {"dense": DenseField(3)}))

    with pytest.raises(SchemaMismatch, match="'dense'"):
        other.create()
    assert store.count() == 1
    other.close()


@pytest.mark.parametrize("name", ["a/b", "..", ".", "ünï 👩", "a b", "CON:", "%2F", "x\\y"])
def test_any_name_of_a_collection_stays_under_the_folder(folder, name):
    """Names that are not file names are escaped, and listed unescaped."""
    store = open_store(f"qdrant+edge:{folder}", name, Schema(name, {"dense": DenseField(2)}))
    store.create()
    store.close()

    assert collections(f"qdrant+edge:{folder}") == [name]
    assert [path.name for path in folder.parent.iterdir()] == ["library"]
    assert len(list(folder.iterdir())) == 1


def test_a_relative_and_an_absolute_path_are_one_folder(quick_path, monkeypatch):
    """Two spellings of a path share the shard."""
    monkeypatch.chdir(quick_path)
    one = open_store("qdrant+edge:./library", "books", SCHEMA)
    one.create()

    two = open_store(f"qdrant+edge:{quick_path}/x/../library", "books")

    one.upsert(records("a"))
    assert two.count() == 1
    one.close()
    two.close()


def test_a_path_that_is_a_file_is_told_as_such(quick_path):
    """The message contains the folder and the reason."""
    (quick_path / "file").write_text("x")
    store = open_store(f"qdrant+edge:{quick_path}/file", "books", SCHEMA)

    with pytest.raises(Permanent, match="cannot be used"):
        store.create()
    store.close()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("qdrant+edge://library", "write qdrant.edge:PATH, without //, not qdrant.edge://library"),
        ("qdrant+edge:", "with . for the current folder"),
        ("qdrant+edge:library?timeout=5", "has no options, got 'timeout'"),
    ],
)
def test_an_address_without_folder_is_not_the_current_one(quick_path, monkeypatch, address, says):
    """A server's address, for example, would otherwise create a collection in the current folder."""
    monkeypatch.chdir(quick_path)

    with pytest.raises(ValueError, match=says):
        open_store(address, "books", SCHEMA)
    with pytest.raises(ValueError, match=says):
        collections(address)
    assert list(quick_path.iterdir()) == []


def test_a_damaged_sidecar_is_told_as_such(folder, store):
    """The records may still exist, so that nothing is created."""
    store.create()
    store.close()
    (folder / "books" / "schema.json").write_text("{")

    with pytest.raises(Permanent, match="cannot be used"):
        open_store(f"qdrant+edge:{folder}", "books")


def test_the_sidecar_holds_the_schema_as_json(folder, store):
    """So that people can read the folder."""
    store.create()

    stored = json.loads((folder / "books" / "schema.json").read_text("utf-8"))

    assert stored == {"st_connectors": SCHEMA.to_json()}
    assert sorted(path.name for path in (folder / "books").iterdir()) == ["schema.json", "shard"]


def test_a_client_object_is_not_taken(folder):
    """The embedded engine has no client object."""
    with pytest.raises(TypeError, match="no client"):
        open_store(f"qdrant+edge:{folder}", "books", SCHEMA, client=object())


def test_parameters_reach_the_engine():
    """A small shard returns the same results without them, so that the converted request is checked."""
    body = {"query": [1.0], "using": "v", "limit": 1, "with_payload": True, "with_vector": False}

    exact = _query(body | {"params": {"exact": True, "quantization": {"ignore": True}}}).params
    some = _query(body | {"params": {"hnsw_ef": 64}}).params

    assert (exact.exact, exact.quantization.ignore, exact.hnsw_ef) == (True, True, None)
    assert (some.exact, some.quantization, some.hnsw_ef) == (False, None, 64)


@pytest.fixture
def foreign(quick_path):
    """Create a shard with qdrant-edge itself."""
    config = qdrant_edge.EdgeConfig(
        vectors={"v": qdrant_edge.EdgeVectorParams(size=2, distance=qdrant_edge.Distance.Dot)}
    )
    (quick_path / "notes").mkdir()
    shard = qdrant_edge.EdgeShard.create(str(quick_path / "notes"), config)
    points = [qdrant_edge.Point(at, {"v": [float(at), 0.0]}, {"n": at, "nest": {"w": "x"}}) for at in (1, 2, 3)]
    shard.update(qdrant_edge.UpdateOperation.upsert_points(points))
    shard.close()
    return Address("qdrant", ("edge",), path=str(quick_path))


def test_a_shard_of_somebody_else_is_not_taken_for_ours(foreign):
    """It is neither opened nor overwritten nor dropped, and the message names the alternative."""
    with pytest.raises(SchemaMismatch, match=r"Index\.adopt"):
        PLUGIN.connect(foreign, "notes", None, None)
    asked = PLUGIN.connect(foreign, "notes", Schema("notes", {"v": DenseField(2)}), None)
    with pytest.raises(SchemaMismatch, match=r"Index\.adopt"):
        asked.create()
    with pytest.raises(SchemaMismatch, match=r"Index\.adopt"):
        asked.drop()
    assert PLUGIN.collections(foreign, None) == []


def test_a_shard_of_somebody_else_can_be_adopted(foreign):
    """Its points can be searched, filtered and added to, and it cannot be dropped."""
    store = PLUGIN.adopt(foreign, "notes", {"n": FilterKind.INT, "nest.w": FilterKind.KEYWORD}, None)
    query = SearchRequest(Near("v", np.array([1.0, 0.0], np.float32)), where=Not(Eq("n", 2)))

    [hits] = store.search([query])
    store.upsert([Record("4", {"v": UP}, {"n": 4})])

    assert [(hit.id, hit.score, hit.payload) for hit in hits] == [
        ("3", 3.0, {"n": 3, "nest": {"w": "x"}}),
        ("1", 1.0, {"n": 1, "nest": {"w": "x"}}),
    ]
    assert [record.payload for record in store.get(["4", "no id of Qdrant's"])] == [{"n": 4}]
    assert store.count(Eq("nest.w", "x")) == 3
    with pytest.raises(Unsupported, match="adopted"):
        store.drop()
    store.close()

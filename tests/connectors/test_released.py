"""Embedded folders are released when an index is deleted or left by an error, without ``close``."""

from __future__ import annotations

import fcntl
import gc
import tempfile
from contextlib import closing, suppress
from pathlib import Path

import pytest

from st_connectors import Index
from st_connectors.registry import open_store
from st_core import builtin

pytestmark = pytest.mark.long

EMBEDDED = {"qdrant+edge": "qdrant_edge", "milvus+lite": "milvus_lite"}


@pytest.fixture(params=EMBEDDED)
def url(request):
    """Yield the address of an embedded store, in memory if possible, and collect no garbage in the meantime."""
    pytest.importorskip(EMBEDDED[request.param])
    memory = Path("/dev/shm")
    gc.disable()
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield f"{request.param}:{folder}/library"
        gc.collect()
    gc.enable()


def fill(url):
    index = Index.create(url, collection="c", dense=builtin.DENSE)
    index.ingest([{"id": "a", "text": "a boat"}, {"id": "b", "text": "a tree"}])
    return index


def is_locked(url):
    """Return whether another process could not open the folder: these locks belong to open files, not to processes."""
    scheme, _, path = url.partition(":")
    if scheme == "qdrant+edge":
        import qdrant_edge

        try:
            qdrant_edge.EdgeShard.load(f"{path}/c/shard").close()
        except Exception as error:  # noqa: BLE001 - the engine raises no other class
            return "WouldBlock" in str(error)
        return False
    gc.collect()  # errors of pymilvus and their frames refer to each other, and to the store
    with Path(path, "milvus.db", "LOCK").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def count(url):
    with closing(open_store(url, "c")) as store:
        return store.count()


def test_a_closed_index_releases_the_folder(url):
    """Until then it is locked, without which the other tests would show nothing."""
    index = fill(url)
    assert is_locked(url)
    index.close()
    assert not is_locked(url)


def test_a_deleted_index_releases_the_folder(url):
    """With every record; at once where the driver makes no cycles."""
    index = fill(url)
    index.search("boat")
    del index

    assert not is_locked(url)
    assert count(url) == 2


def test_an_index_left_by_an_error_releases_the_folder(url):
    """The traceback of the error refers to the index while the error is handled."""

    def fail():
        index = fill(url)
        raise ValueError(index.count())

    with suppress(ValueError):
        fail()

    assert not is_locked(url)


def test_an_index_in_a_cycle_is_released_by_the_garbage_collector(url):
    """Such as an object that refers to itself."""
    holder = {"index": fill(url)}
    holder["itself"] = holder
    assert is_locked(url)
    del holder
    gc.collect()

    assert not is_locked(url)


def test_an_abandoned_scan_releases_the_folder(url):
    """Its iterator refers to the store."""
    records = fill(url).store.scan()
    next(records)
    assert is_locked(url)
    del records

    assert not is_locked(url)


def test_the_last_of_several_stores_releases_the_folder(url):
    """Deleted and closed stores count alike, and one that is deleted after ``close`` counts once."""
    first, second, third = fill(url), open_store(url, "c"), open_store(url, "c")
    second.count()
    first.close()
    del first
    assert third.count() == 2
    del second
    assert third.count() == 2
    assert is_locked(url)
    third.close()
    assert not is_locked(url)
    del third
    assert count(url) == 2

"""Embedded stores on a full disk or a disk that is read-only: one line, nothing lost, and searches still work."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from st_connectors import disk
from st_connectors.errors import Permanent
from st_connectors.layers.retry import NO_RETRY
from st_connectors.registry import open_store
from st_connectors.schema import DenseField, FilterKind, Schema, SparseField
from st_connectors.store import Near, Record, SearchRequest
from st_core.vectors import SparseVector

EMBEDDED = {"qdrant+edge": "qdrant_edge", "milvus+lite": "milvus_lite"}
SCHEMA = Schema("c", {"dense": DenseField(8), "sparse": SparseField()}, {"year": FilterKind.INT})
ONES = np.ones(8, np.float32)


@pytest.fixture(params=EMBEDDED)
def url(request):
    """Yield the address of an embedded store, in memory if possible."""
    pytest.importorskip(EMBEDDED[request.param])
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield f"{request.param}:{folder}/library"


@pytest.fixture
def free(monkeypatch):
    """Return a function that sets the free space that every disk reports."""

    def set_free(size):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=size))

    return set_free


def records(count, start=0):
    sparse = SparseVector.from_mapping({1: 1.0})
    return [Record(str(at), {"dense": ONES, "sparse": sparse}, {"year": at}) for at in range(start, start + count)]


def test_nothing_is_created_on_a_full_disk(url, free):
    """The engine would leave half a collection, or end the process by a signal."""
    free(disk.RESERVE - 1)
    with closing(open_store(url, "c", SCHEMA, retry=NO_RETRY)) as store:
        with pytest.raises(Permanent, match=r"create: the disk of .*library.* is full: 8\.0 MB are free"):
            store.create()
        free(10**12)
        store.create()
        assert store.upsert(records(1)) == []


def test_a_disk_that_fills_up_loses_nothing(url, free):
    """Writes are refused in one line; searches still return stored records, also from a store opened afterwards."""
    with closing(open_store(url, "c", SCHEMA, retry=NO_RETRY)) as store:
        store.create()
        assert store.upsert(records(300)) == []
        free(disk.RESERVE - 1)
        for write in (lambda: store.upsert(records(5, 300)), lambda: store.delete(["1"])):
            with pytest.raises(Permanent, match=r"free some space and repeat it") as caught:
                write()
            assert "\n" not in str(caught.value)
        store.refresh()
        assert store.count() == 300
    with closing(open_store(url, "c", retry=NO_RETRY)) as store:
        assert store.count() == 300
        [hits] = store.search([SearchRequest(Near("dense", ONES), limit=400)])
        assert {hit.id for hit in hits} == {str(at) for at in range(300)}
        free(10**12)
        assert store.upsert(records(5, 300)) == []
        store.refresh()
        assert store.count() == 305


def test_a_batch_needs_more_space_than_a_record(url, free):
    """The size of the records counts, so that the disk does not fill up during a write."""
    with closing(open_store(url, "c", SCHEMA, retry=NO_RETRY)) as store:
        store.create()
        free(disk.RESERVE + 20_000)
        assert store.upsert(records(1)) == []
        with pytest.raises(Permanent, match="is full"):
            store.upsert([Record("large", records(1)[0].vectors, {"text": "x" * 50_000})])


def test_a_folder_that_is_not_writable_is_told(url, monkeypatch):
    """As on a disk that is mounted read-only: the engines open their files for writing."""
    with closing(open_store(url, "c", SCHEMA)) as store:
        store.create()
    monkeypatch.setattr(disk.os, "access", lambda *_: False)
    fail_to_open(monkeypatch, url)

    with pytest.raises(Permanent, match=r"the folder .*library.* is not writable, and the engine") as caught:
        open_store(url, "c", retry=NO_RETRY)
    assert "\n" not in str(caught.value)


def fail_to_open(monkeypatch, url):
    """Let the engine fail with the error that it raises on a read-only disk."""
    if url.startswith("qdrant"):
        from st_connectors.qdrant import embedded

        def load(_):
            raise Exception("Failed to open mmap payload storage")  # noqa: TRY002 - as the engine does

        monkeypatch.setattr(embedded.edge, "EdgeShard", SimpleNamespace(load=load))
    else:
        from milvus_lite.db import MilvusLite

        def lock(_):
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr(MilvusLite, "_acquire_lock", lock)


def test_the_space_of_a_folder_that_does_not_exist_is_that_of_its_parent(tmp_path):
    """A collection is created in it."""
    assert abs(disk.free_space(tmp_path / "a" / "b") - shutil.disk_usage(tmp_path).free) < 10**9

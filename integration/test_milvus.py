"""The conformance suite on Milvus: always on Lite, on servers where configured.

Servers are those of ``ST_MILVUS_URL`` (``milvus://host:19530``) or required by ``ST_REQUIRE``, where they are called
``milvus-lite``, ``milvus`` (2.6) and ``milvus-3``.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from integration.stores import address_of
from st_connectors.errors import Unavailable
from st_connectors.filters import Range
from st_connectors.layers.retry import NO_RETRY
from st_connectors.registry import open_store
from st_connectors.store import Match, Near, SearchRequest
from st_connectors.testing import StoreConformance, opener
from st_core.vectors import SparseVector

pytest.importorskip("milvus_lite", reason="needs the milvus extra")

CLIENTS = ("pymilvus", "milvus_lite")


@pytest.mark.engine("milvus-lite")
class TestLite(StoreConformance):
    """Milvus Lite on a real disk, where every refresh flushes, as it otherwise does only with many records."""

    client_modules = CLIENTS
    promises = frozenset({"optional_vectors", "persistent"})

    @classmethod
    def address(cls, folder: Path) -> str:
        """Return the address."""
        return f"milvus+lite:{folder}"

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls):
        """Open stores in a temporary folder."""
        patch = pytest.MonkeyPatch()
        patch.setattr("st_connectors.milvus.store.FLUSH_FROM", 1)
        with tempfile.TemporaryDirectory() as folder:
            yield opener(cls.address(Path(folder)))
        patch.undo()


@pytest.mark.engine("milvus-lite")
class TestLiteGraph(StoreConformance):
    """The same with an HNSW graph and lists as arrays, the defaults of a server; a graph of this size is exact."""

    client_modules = CLIENTS

    @classmethod
    def address(cls, folder: Path) -> str:
        """Return the address."""
        return f"milvus+lite:{folder}?index=hnsw&lists=arrays"


class _Server(StoreConformance):
    """A server with a flat index; its other collections are not touched."""

    client_modules = CLIENTS
    engine: ClassVar[str]

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls, engines):
        """Open stores on the server."""
        url = address_of(cls.engine, engines.url(cls.engine))
        return opener(f"{url}{'&' if '?' in url else '?'}index=flat")


@pytest.mark.engine("milvus")
class TestServer(_Server):
    """2.6."""

    engine = "milvus"


@pytest.mark.engine("milvus-3")
class TestServer3(_Server):
    """3.0."""

    engine = "milvus-3"


_WRITER = """
import sys
import numpy as np
from st_connectors.registry import open_store
from st_connectors.store import DenseField, FilterKind, Record, Schema, SparseField, TextField
from st_core.vectors import SparseVector

fields = {"dense": DenseField(4), "sparse": SparseField(), "text": TextField()}
store = open_store(sys.argv[1], "books", Schema("books", fields, {"row": FilterKind.INT}))
store.create()
dense = np.eye(4, dtype=np.float32)
for start in range(0, 900, 300):
    assert store.upsert([
        Record(
            f"r{row}",
            {"dense": dense[row % 4], "sparse": SparseVector.from_mapping({row: 1.0})},
            {"text": f"word{row}", "row": row},
        )
        for row in range(start, start + 300)
    ]) == []
    if start == 300:
        store.refresh()
print("written", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def writer():
    """Start a process that writes 900 records and keeps the folder open; yield the process and the address."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"milvus+lite:{folder}"
        process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout.readline() == "written\n"
            yield process, url
        finally:
            process.kill()
            process.communicate()


@pytest.mark.engine("milvus-lite")
def test_what_was_acknowledged_survives_a_kill(writer):
    """Every leg matches all of it after the folder is opened again, from segments as well as from the log."""
    process, url = writer
    process.send_signal(signal.SIGKILL)
    process.wait()

    with closing(open_store(url, "books")) as store:
        assert store.count() == 900
        assert store.count(Range("row", gte=250, lt=850)) == 600
        assert {record.id for record in store.scan()} == {f"r{row}" for row in range(900)}
        for row in (0, 450, 899):
            legs = [
                Near("sparse", SparseVector.from_mapping({row: 2.0})),
                Match("text", f"word{row}"),
            ]
            for hits in store.search([SearchRequest(leg) for leg in legs]):
                assert [hit.id for hit in hits] == [f"r{row}"]
            (nearest,) = store.search([SearchRequest(Near("dense", np.eye(4, dtype=np.float32)[row % 4]), limit=300)])
            assert all(int(hit.id[1:]) % 4 == row % 4 for hit in nearest[:225])


@pytest.mark.engine("milvus-lite")
def test_a_folder_is_open_in_one_process_at_a_time(writer, capfd):
    """Another process gets a temporary error with a message, and no traceback is printed."""
    process, url = writer
    with pytest.raises(Unavailable, match="one process at a time"):
        open_store(url, "books", retry=NO_RETRY)
    assert capfd.readouterr() == ("", "")

    process.communicate("")
    with closing(open_store(url, "books")) as store:
        assert store.count() == 900

"""Datasets of Ray on two nodes: each row once, by each failure of a process, a node, a store or a row."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import tempfile
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import shared_store

from st_connectors.errors import Refused, Unavailable
from st_connectors.index import Split
from st_connectors.ingest import IngestFailed
from st_connectors.ingest.arrow import ArrowLayout, vectors_to_arrow
from st_connectors.ingest.arrow_task import TaskWriter
from st_connectors.ingest.ray import write_store
from st_connectors.layers.retry import NO_RETRY
from st_connectors.registry import open_store
from st_connectors.schema import DenseField, FieldKind, FilterKind, Schema, SparseField
from st_connectors.store import Rejected
from st_core.vectors import SparseMatrix

pa = pytest.importorskip("pyarrow")
pytest.importorskip("ray", reason="needs ray, installed by `make test-long`")

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray.*", "ignore::DeprecationWarning:ray.*"),
]

SCHEMA = Schema("c", {"dense": DenseField(4), "sparse": SparseField()}, {"year": FilterKind.INT})


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes whose processes know the shared store. The filter of a checkpoint occupies one of the CPUs."""
    import ray
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # paths of sockets have at most 107 bytes
    own = Path(folder) / "ray"
    own.mkdir()
    with shared_store.installed(tmp_path_factory.mktemp("installed")), pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)  # a cluster writes its address there, whatever its own folder is
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
        options = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 2**27}
        nodes = Cluster(initialize_head=True, head_node_args={**options, "num_cpus": 2, "temp_dir": str(own)})
        nodes.add_node(**options)
        ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
        yield nodes
        ray.shutdown()
        nodes.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def server(cluster, request):
    with shared_store.serving(request.node.nodeid) as serving:
        yield serving


@pytest.fixture
def context(cluster):
    """Restore the settings of datasets after a test."""
    from ray.data import DataContext

    current = DataContext.get_current()
    saved = current.checkpoint_config, current.target_max_block_size
    yield current
    current.checkpoint_config, current.target_max_block_size = saved


def table(count):
    """Return rows with vectors that follow from their number."""
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(count, 4)).astype(np.float32)
    dense /= np.linalg.norm(dense, axis=1, keepdims=True)
    return pa.table(
        {
            "id": [f"row {number}" for number in range(count)],
            "text": [f"text {number}" for number in range(count)],
            "year": list(range(count)),
            "dense": vectors_to_arrow(dense, FieldKind.DENSE),
            "sparse": vectors_to_arrow(SparseMatrix.from_dense(1 + rng.normal(size=(count, 9))), FieldKind.SPARSE),
        }
    )


def dataset(content, rows=25):
    """Return a dataset with a block for each ``rows`` rows."""
    import ray

    return ray.data.from_arrow([content.slice(start, rows) for start in range(0, content.num_rows, rows)])


def assert_stored(server, content, without=()):
    """Check the stored collection against the rows: each id once, with its payload and vectors."""
    rows = {row["id"]: row for row in content.to_pylist() if row["id"] not in without}
    records = list(server.store.scan())
    assert Counter(record.id for record in records) == Counter(list(rows))
    for record in records:
        row = rows[record.id]
        assert record.payload == {"text": row["text"], "year": row["year"]}
        np.testing.assert_allclose(record.vectors["dense"], np.array(row["dense"], np.float32), rtol=1e-6)
        assert record.vectors["sparse"].to_mapping() == dict(
            zip(row["sparse"]["indices"], row["sparse"]["values"], strict=True)
        )


def test_poisoned_rows_become_dead_letters_and_all_others_are_stored(server, tmp_path):
    """One row in a hundred is refused by its values, and one by the store; the collection is created once."""
    content = table(200)
    bad = content.column("dense").combine_chunks().to_pylist()
    bad[7] = bad[150] = [float("nan")] * 4
    content = content.set_column(3, "dense", pa.array(bad, pa.list_(pa.float32())))
    refused = Refused("too long", store="shared", operation="upsert")
    server.before = lambda records, *_: [
        Rejected(at, each.id, refused) for at, each in enumerate(records) if each.id == "row 99"
    ]

    report = write_store(dataset(content), server.url, SCHEMA, batch=25, dead_letters=tmp_path, bulk=True)

    assert (report.read, report.confirmed, report.refused_total) == (200, 197, 3)
    assert report.filled == {"year": 197}
    assert_stored(server, content, without={"row 7", "row 150", "row 99"})
    assert server.names.count("create") == 1
    assert [name for name in server.names if name in {"bulk on", "upsert", "bulk off", "refresh"}] == [
        "bulk on",
        *["upsert"] * 8,
        "bulk off",
        "refresh",
    ]
    letters = [json.loads(line) for path in tmp_path.glob("*.jsonl") for line in path.read_text().splitlines()]
    assert {each["failedData"]["document"]["id"]: each["failedData"]["document"]["text"] for each in letters} == {
        "row 7": "text 7",
        "row 99": "text 99",
        "row 150": "text 150",
    }
    assert len(list(tmp_path.iterdir())) == 3
    reasons = {refusal.id: refusal.reason for refusal in report.refused}
    assert reasons["row 99"] == "too long"
    assert "not NaN or infinity" in reasons["row 7"]


def test_a_killed_process_loses_no_row_and_doubles_none(server, tmp_path):
    """Ray runs the task again, after all of its rows were stored and before it could report them."""
    killed = []

    def kill_one(records, process, _):
        if not killed and any(record.id == "row 60" for record in records):
            killed.append(process)
            os.kill(process, signal.SIGKILL)

    server.after = kill_one
    content = table(100)
    bad = content.column("id").to_pylist()
    bad[70] = None
    content = content.set_column(0, "id", pa.array(bad))

    report = write_store(dataset(content), server.url, SCHEMA, batch=25, dead_letters=tmp_path)

    assert killed
    assert server.names.count("upsert") == 5
    assert (report.read, report.confirmed, report.refused_total) == (100, 99, 1)
    assert_stored(server, content, without={None})
    letters = [path for path in tmp_path.iterdir() if path.suffix == ".jsonl"]
    assert [
        json.loads(line)["failedData"]["document"]["text"] for path in letters for line in path.read_text().splitlines()
    ] == ["text 70"]


def test_an_error_of_the_store_ends_the_write_and_names_store_and_operation(server, tmp_path):
    """It is no refusal, and the settings for bulk loading are restored."""
    down = Unavailable("no connection", store="shared", operation="upsert")

    def fail(records, *_):
        if any(record.id == "row 30" for record in records):
            raise down

    server.before = fail
    content = table(100)
    with pytest.raises(IngestFailed, match=r"^shared upsert: no connection") as caught:
        write_store(dataset(content), server.url, SCHEMA, batch=25, bulk=True, retry=NO_RETRY, dead_letters=tmp_path)
    assert "\n" not in str(caught.value)
    assert caught.value.report.refused_total == 0
    assert server.names[-1] == "bulk off"
    assert list(tmp_path.iterdir()) == []

    server.before = lambda *_: None
    assert write_store(dataset(content), server.url, "c", batch=25).confirmed == 100
    assert_stored(server, content)


def test_a_write_that_failed_goes_on_at_ray_s_checkpoint(server, context, tmp_path):
    """Texts become windows; the checkpoint has source rows, all of whose windows are in one block."""
    import ray
    from pyarrow import csv, parquet
    from ray.data.checkpoint import CheckpointConfig

    from st_connectors.encoder import Encoder

    words = "harbour ships sail over the sea at night "
    texts = [f"number {number} " + words * (number % 5) for number in range(100)]
    (tmp_path / "in").mkdir()
    for start in range(0, 100, 10):
        rows = {"id": [f"row {n}" for n in range(start, start + 10)], "text": texts[start : start + 10]}
        csv.write_csv(pa.table(rows), tmp_path / "in" / f"{start}.csv")
    models = {"sparse": "builtin:sparse", "split": Split(12, overlap=2)}
    context.checkpoint_config = CheckpointConfig("id", str(tmp_path / "done"), delete_checkpoint_on_success=False)

    def encoded():
        rows = ray.data.read_csv(str(tmp_path / "in"), override_num_blocks=10, num_cpus=0.1)
        options = {"batch_format": "pyarrow", "concurrency": 1, "batch_size": None, "num_cpus": 0.1}
        return rows.map_batches(Encoder, fn_constructor_kwargs=models, **options)

    def fail(records, *_):
        if len(server.writers) > 12:
            raise Unavailable("no connection", store="shared", operation="upsert")

    server.before = fail
    schema = Schema("c", {"sparse": SparseField()})
    with pytest.warns(UserWarning, match="at-least-once"), pytest.raises(IngestFailed):
        write_store(encoded(), server.url, schema, batch=10, retry=NO_RETRY)
    done = set(parquet.read_table(tmp_path / "done").column("id").to_pylist())
    assert 0 < len(done) < 100
    again = []
    server.before = lambda records, *_: again.extend(records)
    with pytest.warns(UserWarning, match="at-least-once"):
        report = write_store(encoded(), server.url, "c", batch=10)

    parents = {record.payload.get("_chunk", {}).get("parent", record.id) for record in again}
    assert parents == {f"row {number}" for number in range(100)} - done
    assert report.confirmed == len(again)
    with closing(open_store(server.url, "c")) as store:
        records = {record.id: record for record in store.scan()}
    windows = Counter(record.payload.get("_chunk", {}).get("parent", name) for name, record in records.items())
    assert windows.keys() == {f"row {number}" for number in range(100)}
    for name, record in records.items():
        chunk = record.payload.get("_chunk")
        parent = name if chunk is None else chunk["parent"]
        text = texts[int(parent.removeprefix("row "))]
        assert record.payload["text"] == (text if chunk is None else text[chunk["start"] : chunk["end"]])
        assert windows[parent] == (1 if chunk is None else chunk["of"])
    assert max(windows.values()) > 2


def test_windows_that_ray_cuts_apart_never_count_as_done(server, context, tmp_path):
    """A checkpoint has a row only if all of its windows are stored, though Ray cuts blocks by their size."""
    import ray
    from pyarrow import csv, parquet
    from ray.data.checkpoint import CheckpointConfig

    from st_connectors.encoder import Encoder

    rows = {"id": [f"row {number}" for number in range(8)], "text": ["ships sail over the sea " * 12] * 8}
    csv.write_csv(pa.table(rows), tmp_path / "rows.csv")
    context.checkpoint_config = CheckpointConfig("id", str(tmp_path / "done"), delete_checkpoint_on_success=False)
    context.target_max_block_size = 500
    encoded = ray.data.read_csv(str(tmp_path / "rows.csv"), num_cpus=0.1).map_batches(
        Encoder,
        fn_constructor_kwargs={"sparse": "builtin:sparse", "split": Split(12, overlap=2)},
        batch_format="pyarrow",
        concurrency=1,
        num_cpus=0.1,
    )
    message = "Ray put the windows of 'row [0-9]' into two blocks, .* a smaller batch_size"
    with pytest.warns(UserWarning, match="at-least-once"), pytest.raises(IngestFailed, match=message):
        write_store(encoded, server.url, Schema("c", {"sparse": SparseField()}), batch=1)
    stored = Counter(record.payload["_chunk"]["parent"] for record in server.store.scan())
    files = list((tmp_path / "done").glob("*.parquet"))
    done = {name for file in files for name in parquet.read_table(file).column("id").to_pylist()}
    complete = {name for name, count in stored.items() if count == 6}
    assert done <= complete


def test_embedded_stores_are_refused_before_a_task_starts():
    with pytest.raises(ValueError, match=r"memory: is used by one process at a time.*name a server"):
        write_store(None, "memory:here", "c")
    with pytest.raises(ValueError, match=r"qdrant\+edge: is used by one process"):
        write_store(None, "qdrant+edge:./folder", "c")


def test_a_task_is_sent_small():
    """Clients and models are not pickled with it."""
    from st_connectors.ingest.ray_sink import StoreSink

    sink = StoreSink(TaskWriter("shared://127.0.0.1:1", "c", ArrowLayout(vectors={"dense": "dense"})))
    assert len(pickle.dumps(sink)) < 1000


def test_a_removed_node_loses_no_row_and_doubles_none(cluster, server):
    """The rows that its task had in hand are written from another node."""
    doomed = cluster.add_node(num_cpus=1, object_store_memory=2**27)
    raylet = doomed.all_processes["raylet"][0].process.pid
    reached, lock = threading.Event(), threading.Lock()

    def remove(records, process, parent):
        with lock:
            is_first = parent == raylet and not reached.is_set()
            if is_first:
                reached.set()
        if is_first:
            cluster.remove_node(doomed, allow_graceful=False)
        else:
            assert reached.wait(120)

    server.after = remove
    content = table(200)

    report = write_store(dataset(content), server.url, SCHEMA, batch=25)

    assert (report.read, report.confirmed, report.refused_total) == (200, 200, 0)
    assert server.names.count("upsert") >= 9
    assert_stored(server, content)

"""The jobs of the page on engines for distributed processing, each on its engine in local mode."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from importlib import import_module, util
from pathlib import Path

import pytest
from pages import DOCS, blocks

pytest.importorskip("pyarrow", reason="needs the extra parquet")

import shared_store

from st_connectors import Index

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

COUNT = 60
JOBS = {block.file: block.text for block in blocks(DOCS / "scale.md") if block.file is not None}
ROWS = {
    "id": [None if number == 7 else f"row {number}" for number in range(COUNT)],
    "text": [f"text {number} about the harbour" for number in range(COUNT)],
    "year": list(range(COUNT)),
}


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Return a function that imports a job of the page, which the processes of an engine can import too."""
    folder = tmp_path / "installed"
    folder.mkdir()
    with shared_store.installed(folder):

        def load(name, package):
            if util.find_spec(package) is None:
                pytest.skip(f"needs {package}, installed by `make test-engines`")
            (folder / name).write_text(JOBS[name], encoding="utf-8")
            monkeypatch.delitem(sys.modules, Path(name).stem, raising=False)
            return import_module(Path(name).stem)

        yield load


@pytest.fixture
def server(request, job):
    """Serve an empty collection with a built-in model."""
    with shared_store.serving(request.node.nodeid) as serving:
        Index.create(serving.url, collection="notes", sparse="builtin:sparse", filterable={"year": "int"}).close()
        yield serving


def assert_stored(server, report, letters):
    """Check the collection against an ingest of the same documents, and the one row without an id."""
    assert (report.read, report.confirmed, report.refused_total) == (COUNT, COUNT - 1, 1)
    documents = [dict(zip(ROWS, row, strict=True)) for row in zip(*ROWS.values(), strict=True)]
    with Index.create("memory:scale-expected", collection="notes", sparse="builtin:sparse") as index:
        index.ingest(documents)
        expected = {record.id: record for record in index.store.scan()}
        index.store.drop()
    stored = list(server.store.scan())
    assert sorted(record.id for record in stored) == sorted(expected)
    for record in stored:
        assert record.payload == expected[record.id].payload
        assert record.vectors["sparse"] == expected[record.id].vectors["sparse"]
    lines = [json.loads(line) for path in letters.glob("*.jsonl") for line in path.read_text().splitlines()]
    assert ["text 7 about the harbour" in json.dumps(line) for line in lines] == [True]


def test_the_job_of_ray(job, server, tmp_path, monkeypatch):
    module = job("ray_job.py", "ray")
    import ray

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # paths of sockets have at most 107 bytes
    ray.init(
        "local", num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=folder, object_store_memory=2**27
    )
    try:
        rows = ray.data.from_items([dict(zip(ROWS, row, strict=True)) for row in zip(*ROWS.values(), strict=True)])
        report = module.store_rows(rows, server.url, "notes", tmp_path / "letters", gpus=0)
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
    assert_stored(server, report, tmp_path / "letters")
    assert [name for name in server.names if name.startswith("bulk")] == ["bulk on", "bulk off"]


def test_the_job_of_spark(job, server, tmp_path, monkeypatch):
    if shutil.which("java") is None:
        pytest.skip("needs a JDK for Spark")
    module = job("spark_job.py", "pyspark")
    from pyspark.sql import SparkSession

    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        rows = spark.createDataFrame(list(zip(*ROWS.values(), strict=True)), "id string, text string, year int")
        report = module.store_rows(rows.repartition(3), server.url, "notes", str(tmp_path / "letters"))
    finally:
        spark.stop()
    assert_stored(server, report, tmp_path / "letters")


def test_the_job_of_daft(job, server, tmp_path):
    module = job("daft_job.py", "daft")
    import daft

    sink = module.StoreSink(server.url, "notes", str(tmp_path / "letters"))
    counts = daft.from_pydict(ROWS).write_sink(sink).to_pydict()
    assert counts == {"confirmed": [COUNT - 1], "refused": [1]}
    assert_stored(server, sink.report, tmp_path / "letters")


def test_every_job_of_the_page_is_run_here():
    assert sorted(JOBS) == ["daft_job.py", "ray_job.py", "spark_job.py"]

"""Datasets of Ray on real servers: all rows by several processes, refused ones in files, settings restored."""

from __future__ import annotations

import json
import shutil
import tempfile
import urllib.request
from collections import Counter
from contextlib import closing
from urllib.parse import urlsplit

import numpy as np
import pytest

from integration.stores import address_of
from st_connectors.ingest.arrow import vectors_to_arrow
from st_connectors.ingest.ray import write_store
from st_connectors.registry import open_store
from st_connectors.schema import DenseField, FieldKind, FilterKind, Schema, SparseField, TextField
from st_core.vectors import SparseMatrix

pa = pytest.importorskip("pyarrow")
pytest.importorskip("ray", reason="needs ray, installed by `make integration`")

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::ResourceWarning"
)

COUNT, BLOCK = 2000, 250
POISONED = range(50, COUNT, 100)
"""The rows with a value of another kind than their filterable field, one in a hundred."""
SCHEMA = Schema(
    "on-ray", {"dense": DenseField(16), "sparse": SparseField(), "text": TextField()}, {"day": FilterKind.DATE}
)


@pytest.fixture(scope="module")
def ray():
    """Start Ray with two processes."""
    import ray

    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # paths of sockets have at most 107 bytes
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(
            "local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=folder,
            object_store_memory=2**27,
        )
        yield ray
        ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(
    params=[pytest.param(each, marks=pytest.mark.engine(each)) for each in ("elasticsearch-9", "opensearch")]
)
def address(request, engines) -> str:
    """Yield a server of each engine."""
    return address_of(request.param, engines.url(request.param))


def rows():
    """Return a table with vectors that follow from the number of a row."""
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(COUNT, 16)).astype(np.float32)
    dense /= np.linalg.norm(dense, axis=1, keepdims=True)
    return pa.table(
        {
            "id": [f"row {number}" for number in range(COUNT)],
            "text": [f"text {number}" for number in range(COUNT)],
            "day": ["no date" if number in POISONED else "2020-01-31" for number in range(COUNT)],
            "dense": vectors_to_arrow(dense, FieldKind.DENSE),
            "sparse": vectors_to_arrow(
                SparseMatrix.from_dense(1 + np.abs(rng.normal(size=(COUNT, 9)))), FieldKind.SPARSE
            ),
        }
    )


def refresh_interval(address):
    with urllib.request.urlopen(f"http://{urlsplit(address).netloc}/on-ray/_settings") as answer:
        [index] = json.load(answer).values()
    return index["settings"]["index"].get("refresh_interval")


def test_every_row_is_stored_once_or_in_a_dead_letter(ray, address, tmp_path):
    table = rows()
    blocks = [table.slice(start, BLOCK) for start in range(0, COUNT, BLOCK)]

    report = write_store(ray.data.from_arrow(blocks), address, SCHEMA, batch=BLOCK, dead_letters=tmp_path, bulk=True)

    with closing(open_store(address, "on-ray")) as store:
        stored = list(store.scan())
        assert store.count() == len(stored)
        unset = refresh_interval(address)
        store.drop()
    assert unset != "-1"
    bad = {f"row {number}" for number in POISONED}
    assert (report.read, report.confirmed, report.refused_total) == (COUNT, COUNT - len(bad), len(bad))
    assert {refusal.id for refusal in report.refused} == bad
    letters = "".join(path.read_text() for path in tmp_path.glob("*.jsonl")).splitlines()
    assert len(letters) == len(bad)
    expected = {row["id"]: row for row in table.to_pylist() if row["id"] not in bad}
    assert Counter(record.id for record in stored) == Counter(list(expected))
    for record in stored:
        row = expected[record.id]
        assert record.payload == {"text": row["text"], "day": "2020-01-31"}
        np.testing.assert_allclose(record.vectors["dense"], np.array(row["dense"], np.float32), rtol=1e-5, atol=1e-6)
        weights = dict(zip(row["sparse"]["indices"], row["sparse"]["values"], strict=True))
        assert record.vectors["sparse"].to_mapping() == pytest.approx(weights, rel=0.004)

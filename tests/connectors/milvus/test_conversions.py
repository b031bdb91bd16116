"""Conversions for use with your own collection and client, tested on Milvus Lite."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("milvus_lite", reason="needs the milvus extra")
pytest.importorskip("scipy", reason="needs scipy")

from milvus_lite.server_manager import server_manager_instance
from pymilvus import DataType, MilvusClient
from scipy import sparse

from st_connectors.errors import SchemaMismatch
from st_connectors.filters import And, Eq, Exists, In, Not, Or, Range
from st_connectors.milvus import filter_to_milvus, hybrid_requests, sparse_vector
from st_connectors.registry import collections, open_store
from st_connectors.schema import DenseField, Rrf, Schema
from st_core.vectors import SparseMatrix, SparseVector

ROW = {9: 0.5, 2: 1.5}
DENSE_ROW = np.array([0, 0, 1.5, -1.0, 0, 0, 0, 0, 0, 0.5], np.float32)


@pytest.mark.parametrize(
    "given",
    [
        ROW,
        SparseVector.from_mapping(ROW),
        SparseMatrix.from_dense(DENSE_ROW[None]),
        sparse.csr_array(DENSE_ROW[None]),
        sparse.coo_array(DENSE_ROW),
        DENSE_ROW,
        DENSE_ROW[None],
    ],
    ids=["mapping", "vector", "matrix", "csr_array", "coo_1d", "dense", "dense_2d"],
)
def test_every_form_of_a_sparse_row_becomes_a_dict(given):
    """Rising indices, positive weights."""
    assert list(sparse_vector(given).items()) == [(2, 1.5), (9, 0.5)]


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
@pytest.mark.parametrize("layout", ["to_dense", "to_sparse_coo", "to_sparse_csr"])
def test_torch_rows_too(layout):
    """One row of an encoder's result."""
    torch = pytest.importorskip("torch")
    row = torch.from_numpy(DENSE_ROW[None])
    assert sparse_vector(getattr(row, layout)()) == {2: 1.5, 9: 0.5}


@pytest.mark.parametrize("given", [np.ones((2, 3)), sparse.csr_array(np.ones((2, 3)))])
def test_several_rows_are_not_one_vector(given):
    """The caller must choose a row."""
    with pytest.raises(ValueError, match="row by row"):
        sparse_vector(given)


DENSE = np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0], [0.8, 0.6]], np.float32)
SPARSE = [{1: 1.0}, {1: 2.0, 5: 1.0}, {5: 3.0}, {7: 1.0}, {1: 0.5, 7: 0.5}]
YEARS = [1999, 2005, 2010, 2020, 2021]


@pytest.fixture(scope="module")
def theirs():
    """Yield a client and an address with a collection created by hand, with integer ids."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "milvus.db")
        client = MilvusClient(path)
        schema = MilvusClient.create_schema()
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("thick", DataType.FLOAT_VECTOR, dim=2)
        schema.add_field("thin", DataType.SPARSE_FLOAT_VECTOR)
        schema.add_field("year", DataType.INT64)
        schema.add_field("name", DataType.VARCHAR, max_length=100)
        client.create_collection("theirs", schema=schema)
        indexes = client.prepare_index_params()
        indexes.add_index("thick", "FLAT", metric_type="COSINE")
        indexes.add_index("thin", "SPARSE_INVERTED_INDEX", metric_type="IP")
        client.create_index("theirs", indexes, sync=False)
        client.load_collection("theirs")
        rows = zip(range(5), DENSE.tolist(), SPARSE, YEARS, 'ab"\\n', strict=True)
        client.upsert("theirs", [dict(zip(("id", "thick", "thin", "year", "name"), row, strict=True)) for row in rows])
        with closing(client):
            yield client, f"milvus+lite:{folder}"
        server_manager_instance.release_server(path)


def test_hybrid_requests_are_rrf_by_hand(theirs):
    """Milvus's ranker over the two requests returns the ranks and scores of Rrf."""
    client, _ = theirs
    query, words = np.array([0.6, 0.8], np.float32), {1: 1.0, 5: 0.5}
    (found,) = client.hybrid_search(
        "theirs", **hybrid_requests(dense=("thick", query), sparse=("thin", words), method=Rrf(k=10), literals=True)
    )
    legs = [
        {str(row): float(DENSE[row] @ query) for row in range(5)},
        {str(row): sum(words.get(key, 0) * value for key, value in SPARSE[row].items()) for row in (0, 1, 2, 4)},
    ]
    ranks = [sorted(leg, key=lambda name: -leg[name]) for leg in legs]
    wanted = {
        str(row): sum(1 / (10 + order.index(str(row)) + 1) for order in ranks if str(row) in order) for row in range(5)
    }
    assert {str(hit["id"]): hit["distance"] for hit in found} == pytest.approx(wanted, rel=1e-5)


def test_hybrid_requests_refuse_what_milvus_cannot():
    """Weights, and more hits than candidates."""
    given = {"dense": ("thick", [1.0, 0.0]), "sparse": ("thin", {1: 1.0})}
    with pytest.raises(ValueError, match="weights"):
        hybrid_requests(**given, method=Rrf(weights=(1.0, 0.5)))
    with pytest.raises(ValueError, match="depth=5"):
        hybrid_requests(**given, limit=6, depth=5)


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        (Eq("year", 2005), {1}),
        (Eq("name", '"'), {2}),
        (Eq("name", "\\"), {3}),
        (In("name", ("a", "n")), {0, 4}),
        (Range("year", gte=2005, lt=2020), {1, 2}),
        (And((Range("year", gt=2005), Not(Eq("name", "n")))), {2, 3}),
        (Or((Eq("year", 1999), Exists("missing"))), None),
    ],
)
def test_filters_on_plain_columns(theirs, where, wanted):
    """Values are quoted and cannot change the expression; Milvus refuses an unknown column."""
    client, _ = theirs
    if wanted is None:
        with pytest.raises(Exception, match="unknown field"):
            client.query("theirs", **filter_to_milvus(where, literals=True), output_fields=["id"], retry_times=0)
        return
    rows = client.query("theirs", **filter_to_milvus(where, literals=True), output_fields=["id"])
    assert {row["id"] for row in rows} == wanted


def test_filters_for_servers_are_templates():
    """Text and values are separate; names that are not identifiers are refused."""
    assert filter_to_milvus(And((Eq("name", "x"), Not(In("year", (1, 2)))))) == {
        "filter": "(name == {p0}) and (not (year in {p1}))",
        "filter_params": {"p0": "x", "p1": [1, 2]},
    }
    with pytest.raises(ValueError, match="letters, digits and underscores"):
        filter_to_milvus(Eq('name == "" or name', "x"))


def test_a_store_beside_them_leaves_theirs_alone(theirs):
    """Collections of others are not listed, opened, created or dropped."""
    client, url = theirs
    mine = Schema("mine", {"dense": DenseField(2)})
    with closing(open_store(url, "mine", mine)) as store:
        store.create()
        assert collections(url) == ["mine"]
        with pytest.raises(SchemaMismatch):
            open_store(url, "theirs")
        store.drop()
    assert client.list_collections() == ["theirs"]
    assert len(client.query("theirs", filter="id >= 0", output_fields=["id"])) == 5

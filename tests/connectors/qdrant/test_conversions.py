"""Conversions for use with your own collection and client, tested on qdrant-client's local mode."""

from __future__ import annotations

import re
from contextlib import closing

import numpy as np
import pytest

pytest.importorskip("qdrant_client", reason="needs the qdrant extra")
pytest.importorskip("scipy", reason="needs scipy")

from qdrant_client import QdrantClient, models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from scipy import sparse

from st_connectors.errors import NotFound, Refused, Unsupported
from st_connectors.filters import And, Eq, Exists, In, Not, Or, Range
from st_connectors.fusion import rrf
from st_connectors.plugin import Address
from st_connectors.qdrant import PLUGIN, filter_to_qdrant, hybrid_query, sparse_vector, wire
from st_connectors.registry import wrapped
from st_connectors.schema import DenseField, FilterKind, Rrf, Schema, SparseField, Weighted
from st_connectors.store import Fuse, Near, Record, SearchRequest
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
        sparse.csr_matrix(DENSE_ROW[None])[0],
        sparse.coo_array(DENSE_ROW),
        DENSE_ROW,
        DENSE_ROW[None],
    ],
    ids=["mapping", "vector", "matrix", "csr_array", "csr_matrix", "coo_1d", "dense", "dense_2d"],
)
def test_every_form_of_a_sparse_row_becomes_the_model(given):
    """Rising indices, positive weights."""
    assert sparse_vector(given) == models.SparseVector(indices=[2, 9], values=[1.5, 0.5])


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
@pytest.mark.parametrize("layout", ["to_dense", "to_sparse_coo", "to_sparse_csr"])
def test_torch_rows_too(layout):
    """One row of an encoder's result."""
    torch = pytest.importorskip("torch")
    row = torch.from_numpy(DENSE_ROW[None])

    assert sparse_vector(getattr(row, layout)()) == models.SparseVector(indices=[2, 9], values=[1.5, 0.5])


@pytest.mark.parametrize(
    "given", [np.ones((2, 3)), sparse.csr_array(np.ones((2, 3))), SparseMatrix.from_dense(np.ones((2, 3)))]
)
def test_several_rows_are_not_one_vector(given):
    """The caller must choose a row."""
    with pytest.raises(ValueError, match="row by row"):
        sparse_vector(given)


POINTS = [
    models.PointStruct(
        id=at,
        vector={
            "d": [float(np.cos(at)), float(np.sin(at))],
            "s": models.SparseVector(indices=[0, at], values=[0.1 * at, 1.0 + 0.05 * at]),
        },
        payload={
            "n": at,
            "tags": ["odd" if at % 2 else "even"],
            "maybe": None if at % 3 else at,
            "at": f"2020-01-{at:02d}",
        },
    )
    for at in range(1, 13)
]


@pytest.fixture
def client():
    with closing(QdrantClient(":memory:")) as client:
        client.create_collection(
            "notes",
            vectors_config={"d": models.VectorParams(size=2, distance=models.Distance.COSINE)},
            sparse_vectors_config={"s": models.SparseVectorParams()},
        )
        client.upsert("notes", POINTS)
        yield client


QUERY = [1.0, 0.2]
TERMS = {0: 1.0, 4: 0.5, 7: 0.25}


def test_a_hybrid_query_gives_the_textbooks_fusion(client):
    """Order and scores equal those of the reference fusion of the two legs."""
    where = Not(Eq("n", 3))
    condition = filter_to_qdrant(where)
    rankings = [
        [
            str(point.id)
            for point in client.query_points("notes", query=q, using=n, query_filter=condition, limit=8).points
        ]
        for q, n in ((QUERY, "d"), (sparse_vector(TERMS), "s"))
    ]

    query = hybrid_query(dense=("d", QUERY), sparse=("s", TERMS), limit=5, depth=8, where=where)
    got = client.query_points("notes", **query).points

    want = rrf(rankings, k=60)
    assert [point.score for point in got] == pytest.approx([score for _, score in want[:5]], rel=1e-6)
    assert [dict(want)[str(point.id)] for point in got] == pytest.approx([score for _, score in want[:5]], rel=1e-9)
    assert all(point.payload["n"] != 3 for point in got)


def test_a_hybrid_query_is_also_one_of_a_batch(client):
    """The same arguments build one request of a batch."""
    query = hybrid_query(dense=("d", np.array([QUERY])), sparse=("s", TERMS), limit=3, offset=1)

    [batch] = client.query_batch_points("notes", [models.QueryRequest(**query)])

    assert [point.id for point in batch.points] == [point.id for point in client.query_points("notes", **query).points]


def test_what_qdrant_fuses_otherwise_is_refused():
    """Qdrant's weights reverse the ranking at large k, and a page beyond the candidates would end early."""
    with pytest.raises(ValueError, match="unweighted"):
        hybrid_query(dense=("d", QUERY), sparse=("s", TERMS), method=Rrf(60, (1.0, 0.5)))
    with pytest.raises(ValueError, match="unweighted"):
        hybrid_query(dense=("d", QUERY), sparse=("s", TERMS), method=Weighted((0.5, 0.5)))
    with pytest.raises(ValueError, match="depth=10"):
        hybrid_query(dense=("d", QUERY), sparse=("s", TERMS), limit=8, offset=3, depth=10)


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        (Eq("tags", "odd"), {1, 3, 5, 7, 9, 11}),
        (In("n", (2, 40, 5)), {2, 5}),
        (Range("n", gt=10.5), {11, 12}),
        (Range("at", gte="2020-01-11", lt="2020-01-12T00:00:00Z"), {11}),
        (Exists("maybe"), {3, 6, 9, 12}),
        (Not(Exists("maybe")), {1, 2, 4, 5, 7, 8, 10, 11}),
        (Eq("missing", 1), set()),
        (Not(Eq("missing", 1)), set(range(1, 13))),
        (Or(()), set()),
        (And(()), set(range(1, 13))),
        (Or((Eq("n", 1), And((Eq("tags", "even"), Range("n", lte=4))))), {1, 2, 4}),
    ],
)
def test_filters_on_plain_keys(client, where, ids):
    """The library's truth table holds on plain payloads."""
    found, _ = client.scroll("notes", scroll_filter=filter_to_qdrant(where), limit=100)

    assert {point.id for point in found} == ids


def adopt(client, **filterable):
    return wrapped(PLUGIN.adopt(Address("qdrant", ("memory",)), "notes", filterable, client), name="qdrant")


def test_an_adopted_collection_is_searched_filled_and_left_as_it_is(client):
    """Integer ids are strings, payloads and filter keys are unchanged, and records can be added."""
    store = adopt(client, n=FilterKind.INT, tags=FilterKind.KEYWORD)
    new = Record(
        "99", {"d": np.array(QUERY, np.float32), "s": SparseVector.from_mapping({50: 1.0})}, {"n": 99, "tags": ["new"]}
    )

    assert store.upsert([new]) == []
    [hits] = store.search([SearchRequest(Near("d", np.array(QUERY, np.float32)), where=Range("n", gte=10), limit=2)])

    assert store.schema.fields == {"d": DenseField(2), "s": SparseField()}
    assert (hits[0].id, hits[0].payload) == ("99", {"n": 99, "tags": ["new"]})
    assert hits[0].score == pytest.approx(1.0, rel=1e-5)
    assert client.retrieve("notes", [99])[0].payload == {"n": 99, "tags": ["new"]}
    assert [record.id for record in store.get(["7", "12345678-1234-5678-1234-567812345678", "x", "1"])] == ["7", "1"]
    assert {record.id for record in store.scan(where=Eq("tags", "odd"))} == {"1", "3", "5", "7", "9", "11"}


def test_ids_that_qdrant_cannot_have_are_rejected_by_name(client):
    """The other records of the batch are stored."""
    store = adopt(client)

    [rejected] = store.upsert([Record("book", {}, {}), Record("100", {}, {"n": 100})])

    assert (rejected.position, rejected.id) == (0, "book")
    assert isinstance(rejected.error, Refused)
    assert "unsigned integers and UUIDs" in str(rejected.error)
    assert client.count("notes").count == 13


@pytest.mark.parametrize(
    ("spelling", "stored"),
    [
        ("07", "7"),
        ("0", None),
        ("00", "0"),
        ("ABCDEF00-1234-5678-1234-567812345678", "abcdef00-1234-5678-1234-567812345678"),
        ("abcdef00123456781234567812345678", "abcdef00-1234-5678-1234-567812345678"),
        ("{abcdef00-1234-5678-1234-567812345678}", "abcdef00-1234-5678-1234-567812345678"),
        ("urn:uuid:abcdef00-1234-5678-1234-567812345678", "abcdef00-1234-5678-1234-567812345678"),
    ],
)
def test_another_spelling_of_an_id_is_refused_by_name(client, spelling, stored):
    """Two ids of the caller would become one point, and the later record would replace the earlier one."""
    store = adopt(client)
    first = Record(stored or spelling, {}, {"n": 1})

    rejected = store.upsert([first, Record(spelling, {}, {"n": 2})])

    if stored is None:
        assert rejected == []
        return
    assert [(each.position, type(each.error)) for each in rejected] == [(1, Refused)]
    says = re.escape(f"the id {spelling!r} is another spelling of {stored!r}: write that")
    assert re.search(says, str(rejected[0].error))
    for call in (store.get, store.delete):
        with pytest.raises(Refused, match=says):
            call([spelling])
    assert [record.payload for record in store.get([stored])] == [{"n": 1}]


def test_an_adopted_collection_is_not_dropped(client):
    """Its creator has the tools to remove it."""
    store = adopt(client)
    store.create()

    with pytest.raises(Unsupported, match="adopted"):
        store.drop()
    assert client.count("notes").count == 12


def test_what_is_not_there_cannot_be_adopted(client):
    """The message contains the address."""
    with pytest.raises(NotFound, match=r"'other' at qdrant\+memory:"):
        PLUGIN.adopt(Address("qdrant", ("memory",)), "other", {}, client)


def test_a_nameless_vector_is_searched_and_filled_by_the_empty_name():
    """The simplest collection has one unnamed vector."""
    with closing(QdrantClient(":memory:")) as client:
        client.create_collection("notes", vectors_config=models.VectorParams(size=2, distance=models.Distance.DOT))
        client.upsert("notes", [models.PointStruct(id=1, vector=[2.0, 0.0], payload={})])
        store = PLUGIN.adopt(Address("qdrant", ("memory",)), "notes", {}, client)

        store.upsert([Record("2", {"": np.array([3.0, 0.0], np.float32)}, {})])

        [hits] = store.search([SearchRequest(Near("", np.array([1.0, 0.0], np.float32)))])
        assert [(hit.id, hit.score) for hit in hits] == [("2", 3.0), ("1", 2.0)]
        np.testing.assert_array_equal(store.get(["1"])[0].vectors[""], [2.0, 0.0])


SCHEMA = Schema(
    "b", {"d": DenseField(2), "s": SparseField()}, {"n": FilterKind.INT, "at": FilterKind.DATE, "x": FilterKind.FLOAT}
)


def said(value):
    """Return a filter without the empty clauses that gRPC adds."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(exclude_none=True)
    if isinstance(value, dict):
        return {key: said(item) for key, item in value.items() if item != [] or key == "has_id"}
    return [said(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "where",
    [
        Eq("n", 1),
        In("n", (1, 2)),
        Or(()),
        Not(Or(())),
        Range("x", gt=1.5),
        Range("at", gte="2020-01-01T00:00:00.25"),
        Exists("n"),
    ],
)
def test_bodies_go_through_grpc_unchanged(where):
    """The client converts models to messages; converted back they equal the original."""
    from st_connectors.qdrant.layout import OwnLayout

    body = wire.to_query_body(
        SCHEMA, OwnLayout(SCHEMA), SearchRequest(Near("d", np.array(QUERY, np.float32)), where=where)
    )
    meant = models.Filter(**body["filter"])

    assert said(GrpcToRest.convert_filter(RestToGrpc.convert_filter(meant))) == said(meant)
    fuse = Fuse((Near("d", np.array(QUERY, np.float32)), Near("s", SparseVector.from_mapping(TERMS))))
    sent = RestToGrpc.convert_query_request(
        models.QueryRequest(**wire.to_query_body(SCHEMA, OwnLayout(SCHEMA), SearchRequest(fuse))), "b"
    )
    assert sent.query.rrf.k == 61
    assert [leg.using for leg in sent.prefetch] == ["d", "s"]

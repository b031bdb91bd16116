"""Arrow tables with vectors: columns to records and back, refusals by row, and errors that stop a write."""

from __future__ import annotations

import pickle
from dataclasses import replace
from datetime import date
from decimal import Decimal

import numpy as np
import pytest

from st_connectors.errors import NotFound, Permanent, Refused, Throttled, Unavailable
from st_connectors.ingest import IngestFailed
from st_connectors.ingest.arrow import ArrowLayout, vectors_to_arrow, write_arrow
from st_connectors.ingest.arrow_task import TaskWriter
from st_connectors.ingest.dead_letters import document_of, read_letters
from st_connectors.layers.guard import guarded
from st_connectors.layers.passing import Passing
from st_connectors.registry import open_store
from st_connectors.schema import DenseField, FieldKind, FilterKind, Schema
from st_connectors.store import Rejected
from st_core.vectors import SparseMatrix, SparseVector

pa = pytest.importorskip("pyarrow")

DENSE = np.arange(1, 17, dtype=np.float32)
UNIT = DENSE / np.linalg.norm(DENSE.astype(np.float64))
SPARSE = {3: 0.5, 7: 2.0}


def dense_column(rows, kind=None):
    kind = kind or pa.list_(pa.float32(), 16)
    if kind.value_type == pa.float16():  # pyarrow 17 converts no other numbers to it
        rows = [None if row is None else np.asarray(row, np.float16) for row in rows]
    else:
        rows = [None if row is None else np.asarray(row).tolist() for row in rows]
    return pa.array(rows, kind)


def sparse_column(rows, index=None, weight=None):
    kind = pa.struct({"indices": pa.list_(index or pa.uint32()), "values": pa.list_(weight or pa.float32())})
    return pa.array(
        [None if row is None else {"indices": list(row), "values": list(row.values())} for row in rows], kind
    )


def table(count=3, **columns):
    """Return a table of ids, texts and both vectors, with other columns in their place."""
    return pa.table(
        {
            "id": [f"d{number}" for number in range(count)],
            "text": [f"text {number}" for number in range(count)],
            "dense": dense_column([DENSE] * count),
            "sparse": sparse_column([SPARSE] * count),
        }
        | columns
    )


def stored(store):
    return {record.id: record for record in store.scan()}


def reasons(report):
    return {refusal.position: refusal.reason for refusal in report.refused}


DENSE_TYPES = {
    "fixed": pa.list_(pa.float32(), 16),
    "list": pa.list_(pa.float32()),
    "large": pa.large_list(pa.float64()),
    "double": pa.list_(pa.float64(), 16),
    "half": pa.list_(pa.float16()),
    "int": pa.list_(pa.int8()),
}


@pytest.mark.parametrize("kind", DENSE_TYPES.values(), ids=DENSE_TYPES)
def test_a_dense_vector_is_a_list_of_numbers_of_any_type(memory, kind):
    store = memory("dense", "sparse")
    content = table(dense=dense_column([DENSE, None, DENSE], kind)).slice(1)  # a slice starts within its buffers
    report = write_arrow(store, content)
    assert (report.read, report.confirmed, report.refused) == (2, 2, ())
    records = stored(store)
    assert "dense" not in records["d1"].vectors
    np.testing.assert_allclose(records["d2"].vectors["dense"], UNIT, rtol=1e-6)
    assert records["d2"].payload == {"text": "text 2"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")  # its own, of its own settings
@pytest.mark.parametrize("of", ["arrow", "ray"])
def test_tensors_are_dense_vectors(memory, of):
    """Ray puts arrays of NumPy into tensors of its own."""
    store = memory("dense")
    rows = np.stack([DENSE] * 3)
    if of == "arrow":
        tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(rows)
    else:
        block = pytest.importorskip("ray.data.block", reason="needs ray")
        tensors = block.BlockAccessor.batch_to_block({"dense": rows}).column("dense")
    report = write_arrow(store, table(dense=tensors).drop_columns(["sparse"]))
    assert report.confirmed == 3
    np.testing.assert_allclose(stored(store)["d2"].vectors["dense"], UNIT, rtol=1e-6)


SPARSE_COLUMNS = {
    "struct": sparse_column([SPARSE, None, SPARSE]),
    "signed": sparse_column([SPARSE, None, SPARSE], pa.int64(), pa.float64()),
    "unordered": sparse_column([{7: 2.0, 3: 0.5, 9: 0.0, 11: -1.0}, None, {7: 2.0, 3: 0.5}]),
    "empty": sparse_column([SPARSE, {}, SPARSE]),
}


@pytest.mark.parametrize("column", SPARSE_COLUMNS.values(), ids=SPARSE_COLUMNS)
def test_a_sparse_vector_is_a_struct_of_two_lists(memory, column):
    """Weights without effect are dropped, and rows without terms have no vector."""
    store = memory("dense", "sparse")
    report = write_arrow(store, table(sparse=column))
    assert report.confirmed == 3
    records = stored(store)
    assert "sparse" not in records["d1"].vectors
    for name in ("d0", "d2"):
        assert records[name].vectors["sparse"] == SparseVector.from_mapping(SPARSE)


def test_a_sparse_vector_can_be_two_columns_and_all_columns_can_have_other_names(memory):
    store = memory("dense", "sparse", "text")
    content = pa.table(
        {
            "key": [7, 8],
            "body": ["apple", "pear"],
            "vector": dense_column([DENSE, DENSE]),
            "terms": pa.array([[3, 7], [1]], pa.list_(pa.int32())),
            "weights": pa.array([[0.5, 2.0], [1.5]], pa.list_(pa.float64())),
            "year": [1952, 1953],
            "note": [None, "x"],
        }
    )
    layout = ArrowLayout("key", "body", {"dense": "vector", "sparse": ("terms", "weights")}, ["year"])
    assert write_arrow(store, content, layout).confirmed == 2
    records = stored(store)
    assert {name: record.payload for name, record in records.items()} == {
        "7": {"year": 1952, "text": "apple"},
        "8": {"year": 1953, "text": "pear"},
    }
    assert records["8"].vectors["sparse"].to_mapping() == {1: 1.5}


def test_values_become_json_as_in_parquet_files(memory):
    store = memory("dense", "sparse")
    content = table(
        2,
        day=pa.array([date(2020, 1, 31), None]),
        price=pa.array([Decimal("1.50"), Decimal("2.00")]),
        tags=pa.array([["a", "b"], []], pa.list_(pa.string())),
    )
    write_arrow(store, content)
    assert stored(store)["d0"].payload == {"text": "text 0", "day": "2020-01-31", "price": 1.5, "tags": ["a", "b"]}
    assert stored(store)["d1"].payload == {"text": "text 1", "price": 2.0, "tags": []}


BAD = {
    "null id": ({"id": pa.array(["d0", None, "d2"])}, "the id, column 'id', is null"),
    "empty id": ({"id": pa.array(["d0", "", "d2"])}, "'id' is empty"),
    "long id": ({"id": pa.array(["d0", "x" * 600, "d2"])}, "at most 512 bytes"),
    "dimension": ({"dense": dense_column([DENSE, [1.0], DENSE], pa.list_(pa.float32()))}, "expects 16 numbers, not"),
    "nan": ({"dense": dense_column([DENSE, [np.nan] * 16, DENSE])}, "finite in float32, not NaN"),
    "null number": ({"dense": dense_column([DENSE, [None] * 16, DENSE])}, "finite in float32, not NaN"),
    "nan weight": ({"sparse": sparse_column([SPARSE, {3: np.nan}, SPARSE])}, "'sparse': a weight is NaN"),
    "large weight": ({"sparse": sparse_column([SPARSE, {3: 1e300}, SPARSE], weight=pa.float64())}, "infinite"),
    "null weight": ({"sparse": sparse_column([SPARSE, {3: None}, SPARSE])}, "a weight is NaN, infinite"),
    "negative index": ({"sparse": sparse_column([SPARSE, {-3: 1.0}, SPARSE], pa.int32())}, "expected indices from 0"),
    "bytes": ({"blob": pa.array([b"a", b"\xff", b"c"])}, "the value of 'blob' cannot be read"),
}


@pytest.mark.parametrize(("columns", "reason"), BAD.values(), ids=BAD)
def test_a_bad_row_is_refused_by_its_number_and_the_others_are_stored(memory, columns, reason):
    store = memory("dense", "sparse")
    seen = []
    report = write_arrow(store, table(**columns), source="part-7", on_refused=seen.append)
    assert (report.read, report.confirmed, report.refused_total) == (3, 2, 1)
    refusal = report.refused[0]
    assert reason in refusal.reason
    assert (refusal.position, str(refusal.place)) == (1, "part-7 row 2")
    assert refusal.document["text"] == "text 1"
    assert seen == [refusal]
    assert sorted(stored(store)) == ["d0", "d2"]


def test_indices_and_weights_of_different_lengths_are_refused(memory):
    store = memory("sparse")
    content = pa.table({"id": ["a", "b", "c", "d"], "i": [[1], [1, 2], None, None], "w": [[1.0], [1.0], [1.0], None]})
    report = write_arrow(store, content, ArrowLayout(vectors={"sparse": ("i", "w")}))
    assert reasons(report) == {
        1: "the vector of field 'sparse': expected indices and values of one length, got (2,) and (1,)",
        2: "the vector of field 'sparse': one of indices and values is null, and the other is not",
    }
    assert sorted(stored(store)) == ["a", "d"]


def test_a_null_index_is_refused_without_the_rows_beside_it(memory):
    store = memory("sparse")
    content = pa.table({"id": ["a", "b"], "i": pa.array([[1], [None]], pa.list_(pa.int32())), "w": [[1.0], [1.0]]})
    report = write_arrow(store, content, ArrowLayout(vectors={"sparse": ("i", "w")}))
    assert reasons(report) == {1: "the vector of field 'sparse': an index is null"}
    assert stored(store)["a"].vectors["sparse"].to_mapping() == {1: 1.0}


WRONG = {
    "multi-vector": (
        table(dense=pa.array([[[1.0]]] * 3)),
        None,
        "'dense' has several vectors in a row .* no store declares multi-vectors",
    ),
    "tensor": (
        table(dense=pa.FixedShapeTensorArray.from_numpy_ndarray(np.ones((3, 2, 8), np.float32))),
        None,
        "'dense' has several vectors in a row",
    ),
    "strings": (table(dense=["a", "b", "c"]), None, "'dense' must be a list of numbers, one dense vector per row"),
    "no struct": (table(sparse=pa.array([[1.0]] * 3)), None, "must be struct<indices"),
    "fractions": (table(sparse=sparse_column([None] * 3, pa.float32())), None, "must be a list of integers"),
    "texts": (table(sparse=sparse_column([None] * 3, weight=pa.string())), None, "must be a list of numbers"),
    "missing": (
        table().drop_columns(["dense"]),
        None,
        "no column 'dense'; its columns are 'id', 'text', 'sparse'; name",
    ),
    "field": (table(), ArrowLayout(vectors={"colour": "dense"}), "has no vector field 'colour'"),
    "pair": (table(), ArrowLayout(vectors={"dense": ("a", "b")}), "'dense' has one column"),
    "twice": (table(body=["x"] * 3), ArrowLayout(text="body"), "two columns would be stored as 'text'"),
}


@pytest.mark.parametrize(("content", "layout", "message"), WRONG.values(), ids=WRONG)
def test_columns_that_do_not_fit_are_an_error_before_anything_is_written(memory, content, layout, message):
    store = memory("dense", "sparse")
    with pytest.raises(ValueError, match=message):
        write_arrow(store, content, layout)
    assert store.count() == 0


def test_values_that_are_no_tables_are_an_error(memory):
    with pytest.raises(IngestFailed, match="expected Arrow tables or record batches, got dict"):
        write_arrow(memory("dense"), [{"id": "a"}])
    with pytest.raises(IngestFailed, match="expected Arrow tables or record batches, got str"):
        write_arrow(memory("dense"), "table.arrow")


def test_batches_of_any_form_are_split_and_numbered_through(memory):
    store = memory("dense", "sparse", filterable={"year": FilterKind.INT})
    first = table(5, year=[1, 2, None, 4, 5])
    second = table(4, id=["d4", "x", None, "y"], year=[6, 7, 8, 9]).to_batches()[0]
    sizes = []
    report = write_arrow(store, iter([first, second]), batch=2, progress=lambda so_far: sizes.append(so_far.read))
    assert sizes == [2, 4, 5, 7, 9]
    assert reasons(report) == {7: "the id, column 'id', is null"}
    assert (report.confirmed, report.replaced, report.filled) == (8, 1, {"year": 7})
    assert stored(store)["d4"].payload["year"] == 6


class Failing(Passing):
    """A store whose writes, counted from 1, are answered by ``answers``: an error to raise, or rejections."""

    def __init__(self, store, answers):
        super().__init__(store)
        self.answers = answers
        self.writes = 0

    def upsert(self, records):
        self.writes += 1
        answer = self.answers.get(self.writes, [])
        if isinstance(answer, Exception):
            raise answer
        bad = {item.position for item in answer}
        return [*self.store.upsert([each for at, each in enumerate(records) if at not in bad]), *answer]


def error(kind, message="no"):
    return kind(message, store="memory", operation="upsert")


@pytest.mark.parametrize("kind", [Unavailable, Throttled, Permanent, NotFound])
@pytest.mark.parametrize("is_raised", [True, False])
def test_an_error_of_the_store_stops_the_write_with_the_report_so_far(memory, kind, is_raised):
    """An error that is not one record's is raised, never counted as refusals, and passes between processes."""
    answer = error(kind) if is_raised else [Rejected(1, "d3", error(kind))]
    store = Failing(memory("dense", "sparse"), {2: answer})
    with pytest.raises(IngestFailed) as caught:
        write_arrow(store, table(6), batch=2)
    failed = pickle.loads(pickle.dumps(caught.value))
    assert failed.report.refused_total == 0
    assert failed.report.confirmed == store.count() == (2 if is_raised else 3)
    assert isinstance(caught.value.__cause__, kind)
    assert "memory upsert: no" in str(failed)


def test_a_record_that_the_store_refuses_is_a_refusal(memory):
    store = Failing(memory("dense", "sparse"), {1: [Rejected(1, "d1", error(Refused, "too long"))]})
    report = write_arrow(store, table(3))
    assert [str(refusal) for refusal in report.refused] == ["record 2 'd1': table row 2: too long"]
    assert report.refused[0].stage == "write"
    assert sorted(stored(store)) == ["d0", "d2"]


def test_requests_are_split_by_count_and_by_bytes(memory):
    """The layer in front of every store does it, for tables too."""

    class Limited(Passing):
        sizes = ()

        @property
        def capabilities(self):
            return replace(self.store.capabilities, max_batch=4, max_bytes=3000)

        def upsert(self, records):
            self.sizes += (len(records),)
            return self.store.upsert(records)

    store = Limited(memory("dense"))
    content = table(9, text=["x"] * 5 + ["y" * 1200] * 4).drop_columns(["sparse"])
    assert write_arrow(guarded(store), content).confirmed == 9
    assert store.sizes == (4, 2, 1, 1, 1)


def test_vectors_to_arrow_and_back_are_equal(memory):
    store = memory("dense", "sparse")
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(20, 16)).astype(np.float32)
    dense /= np.linalg.norm(dense, axis=1, keepdims=True)
    sparse = SparseMatrix.from_dense(rng.normal(size=(20, 9)))
    content = pa.table(
        {
            "id": list(map(str, range(20))),
            "dense": vectors_to_arrow(dense, FieldKind.DENSE),
            "sparse": vectors_to_arrow(sparse, FieldKind.SPARSE),
        }
    )
    assert content.schema.field("dense").type == pa.list_(pa.float32(), 16)
    assert write_arrow(store, content).confirmed == 20
    for record in store.scan():
        np.testing.assert_allclose(record.vectors["dense"], dense[int(record.id)], rtol=1e-6)
        assert record.vectors.get("sparse", SparseVector.from_mapping({})) == sparse[int(record.id)]


def test_no_vectors_become_an_empty_column():
    assert len(vectors_to_arrow(np.empty((0, 4), np.float32), FieldKind.DENSE)) == 0
    assert len(vectors_to_arrow(SparseMatrix.from_rows([], 9), FieldKind.SPARSE)) == 0


def test_a_task_writes_refused_rows_to_a_file_of_its_own(request, tmp_path, monkeypatch):
    """A task that runs again replaces its file; another job on the same folder does not."""
    schema = Schema("c", {"dense": DenseField(16)})
    url = f"memory:{request.node.nodeid}"
    store = open_store(url, "c", schema)
    store.create()
    monkeypatch.chdir(tmp_path)
    content = table(3, id=["a", None, "c"]).drop_columns(["sparse"])
    writer = TaskWriter(url, "c", dead_letters="letters")
    monkeypatch.chdir("/")

    for _ in range(2):
        report = pickle.loads(pickle.dumps(writer)).write(content, 4)
    TaskWriter(url, "c", dead_letters=tmp_path / "letters").write(content, 4)
    writer.write(content.slice(2), 5)
    store.drop()

    assert (report.confirmed, report.refused_total, report.refused[0].document) == (2, 1, None)
    files = sorted((tmp_path / "letters").iterdir())
    assert [path.name.endswith("-000004.jsonl") for path in files] == [True, True]
    for path in files:
        (letter,) = read_letters(path)
        assert document_of(letter) == {"id": None, "text": "text 1"}
        assert (letter["failedData"]["message"], letter["stage"]) == ("the id, column 'id', is null", "read")
        assert (letter["source"]["position"], letter["ingest"]) == (2, path.stem)
    with pytest.raises(ValueError, match="dead_letters must be a folder that all tasks share, not 's3://bucket/x'"):
        TaskWriter(url, "c", dead_letters="s3://bucket/x")

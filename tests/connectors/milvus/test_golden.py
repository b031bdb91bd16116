"""The messages that every operation sends to a Milvus server, compared with a golden file."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("pymilvus", reason="needs the milvus extra")

from pymilvus.grpc_gen import common_pb2, milvus_pb2, schema_pb2

from st_connectors.layers.retry import NO_RETRY
from st_connectors.registry import open_store

NONE = schema_pb2.ScalarField(string_data=schema_pb2.StringArray())
FILE = Path(__file__).with_name("golden.json")


def described(recorder):
    """Return the collection as created."""
    asked = recorder.last("CreateCollection")
    return milvus_pb2.DescribeCollectionResponse(
        schema=schema_pb2.CollectionSchema.FromString(asked.schema), properties=asked.properties
    )


def queried(recorder):
    """Return seven for a count, and no rows otherwise."""
    if list(recorder.last("Query").output_fields) != ["count(*)"]:
        empty = schema_pb2.FieldData(type=schema_pb2.VarChar, field_name="st_id", scalars=NONE)
        return milvus_pb2.QueryResults(fields_data=[empty])
    seven = schema_pb2.ScalarField(long_data=schema_pb2.LongArray(data=[7]))
    return milvus_pb2.QueryResults(
        fields_data=[schema_pb2.FieldData(type=schema_pb2.Int64, field_name="count(*)", scalars=seven)]
    )


ANSWERS = {
    "GetVersion": milvus_pb2.GetVersionResponse(version="v2.6.4"),
    "DescribeCollection": [
        milvus_pb2.DescribeCollectionResponse(status=common_pb2.Status(code=100, reason="collection not found")),
        described,
    ],
    "GetLoadingProgress": milvus_pb2.GetLoadingProgressResponse(progress=100),
    "Query": queried,
    "Search": milvus_pb2.SearchResults(results=schema_pb2.SearchResultData(num_queries=1, topks=[0])),
}


def test_every_operation_sends_what_the_file_says(recording, assert_golden, wire_schema):
    """With an explicit index of every column, values as templates, and the requested consistency."""
    recorder, port = recording([milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"]], ANSWERS)
    with closing(open_store(f"milvus://127.0.0.1:{port}", "books", wire_schema, retry=NO_RETRY)) as store:
        assert_golden(store, recorder, FILE, "pymilvus")


def test_the_columns_that_are_made(recording, wire_schema):
    """The columns in the request, bytes in the golden file; the consistency is strong, since scans use it."""
    recorder, port = recording([milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"]], ANSWERS)
    with closing(open_store(f"milvus://127.0.0.1:{port}", "books", wire_schema, retry=NO_RETRY)) as store:
        store.create()
    asked = recorder.last("CreateCollection")
    made = schema_pb2.CollectionSchema.FromString(asked.schema)

    assert asked.consistency_level == common_pb2.Strong
    assert [(field.name, schema_pb2.DataType.Name(field.data_type)) for field in made.fields] == [
        ("st_id", "VarChar"),
        ("st_payload", "Array"),
        ("vec_dense", "FloatVector"),
        ("has_dense", "Bool"),
        ("vec_sparse", "SparseFloatVector"),
        ("has_sparse", "Bool"),
        ("text_text", "VarChar"),
        ("vec_text", "SparseFloatVector"),
        ("kw_tag", "Array"),
        ("lo_price", "Double"),
        ("hi_price", "Double"),
        ("in_price", "Array"),
    ]
    assert [(each.name, list(each.input_field_names), list(each.output_field_names)) for each in made.functions] == [
        ("bm25_vec_text", ["text_text"], ["vec_text"])
    ]

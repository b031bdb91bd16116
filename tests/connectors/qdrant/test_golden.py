"""The messages that every operation sends to a Qdrant server over gRPC, compared with a golden file."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("qdrant_client", reason="needs the qdrant extra")

import grpc
import qdrant_client.grpc as messages
from qdrant_client.conversions.conversion import json_to_value
from qdrant_client.grpc import collections_service_pb2, points_service_pb2, qdrant_pb2

from st_connectors.layers.retry import NO_RETRY
from st_connectors.registry import open_store

FILE = Path(__file__).with_name("golden_grpc.json")
SERVICES = [
    service
    for module in (collections_service_pb2, points_service_pb2, qdrant_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
]


def described(schema):
    """Return a server's description of the collection, with the fields that the client requires."""
    config = messages.CollectionConfig(
        params=messages.CollectionParams(shard_number=1, on_disk_payload=True),
        hnsw_config=messages.HnswConfigDiff(m=16, ef_construct=100, full_scan_threshold=10_000),
        optimizer_config=messages.OptimizersConfigDiff(
            deleted_threshold=0.2, vacuum_min_vector_number=1000, default_segment_number=0, flush_interval_sec=5
        ),
        wal_config=messages.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0),
    )
    config.metadata["st_connectors"].CopyFrom(json_to_value(schema.to_json()))
    found = messages.CollectionInfo(
        status=messages.Green, optimizer_status=messages.OptimizerStatus(ok=True), segments_count=1, config=config
    )
    return messages.GetCollectionInfoResponse(result=found)


def test_every_operation_sends_what_the_file_says(recording, assert_golden, wire_schema):
    """The bodies sent over REST, as gRPC messages; every write waits until it is applied."""
    done = messages.PointsOperationResponse(result=messages.UpdateResult(operation_id=1, status=messages.Completed))
    answers = {
        "HealthCheck": messages.HealthCheckReply(title="qdrant", version="1.19.1"),
        "qdrant.Collections.Get": [grpc.StatusCode.NOT_FOUND, described(wire_schema)],
        "qdrant.Collections.Create": messages.CollectionOperationResponse(result=True),
        "qdrant.Collections.Delete": messages.CollectionOperationResponse(result=True),
        "qdrant.Points.Delete": done,
        "CreateFieldIndex": done,
        "Upsert": done,
        "QueryBatch": messages.QueryBatchResponse(result=[messages.BatchResult()]),
        "Count": messages.CountResponse(result=messages.CountResult(count=7)),
    }
    recorder, port = recording(SERVICES, answers)
    with closing(open_store(f"qdrant+grpc://127.0.0.1:{port}", "books", wire_schema, retry=NO_RETRY)) as store:
        assert_golden(store, recorder, FILE, "qdrant-client")

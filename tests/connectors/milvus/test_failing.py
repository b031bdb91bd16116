"""A Milvus server on a bad day, by a stand-in that answers with gRPC statuses once it has told its version."""

from __future__ import annotations

from typing import ClassVar

import pytest

pytest.importorskip("pymilvus", reason="needs the milvus extra")

from pymilvus.grpc_gen import milvus_pb2

from st_connectors.testing import GrpcErrors

SERVICE = "/milvus.proto.milvus.MilvusService"


class TestFailing(GrpcErrors):
    """Every status, every operation."""

    key_variable = "ST_MILVUS_TOKEN"
    greetings: ClassVar = {
        f"{SERVICE}/Connect": milvus_pb2.ConnectResponse().SerializeToString(),
        f"{SERVICE}/GetVersion": milvus_pb2.GetVersionResponse(version="v2.6.4").SerializeToString(),
    }

    @classmethod
    def through(cls, host, port):
        return f"milvus://{host}:{port}"

"""A Milvus server that fails, simulated by a server that returns its version and then gRPC statuses."""

from __future__ import annotations

from contextlib import closing
from typing import ClassVar

import pytest

pytest.importorskip("pymilvus", reason="needs the milvus extra")

import grpc
from pymilvus.grpc_gen import milvus_pb2

from st_connectors.errors import StoreError, Unavailable
from st_connectors.layers.retry import NO_RETRY
from st_connectors.registry import open_store
from st_connectors.schema import Schema
from st_connectors.testing import GrpcErrors
from st_connectors.testing.statuses import StatusServer

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


@pytest.mark.parametrize(
    ("status", "http"),
    [("UNAVAILABLE", 503), ("RESOURCE_EXHAUSTED", 429), ("INVALID_ARGUMENT", 400), ("UNAUTHENTICATED", 401)],
)
def test_the_error_has_the_http_status_that_corresponds_to_the_status(status, http):
    """For calls whose errors pymilvus passes on."""
    with StatusServer(TestFailing.greetings) as server:
        address = TestFailing.through(server.host, server.port)
        with closing(open_store(address, "books", Schema("books", {}), retry=NO_RETRY)) as store:
            server.always(grpc.StatusCode[status])
            with pytest.raises(StoreError) as caught:
                store.count()
    assert caught.value.status == http


def test_a_server_without_tls_and_one_with_it_are_hinted_at():
    """The client does not report why it cannot connect."""
    with StatusServer() as server:
        address = f"milvus+https://{server.host}:{server.port}?timeout=1"
        with pytest.raises(Unavailable, match="if the server speaks no TLS on this port, write milvus://"):
            open_store(address, "books", Schema("books", {}), retry=NO_RETRY)
    with pytest.raises(Unavailable, match=r"if the server speaks TLS on this port, write milvus\+https://"):
        open_store(f"milvus://127.0.0.1:{server.port}?timeout=1", "books", Schema("books", {}), retry=NO_RETRY)

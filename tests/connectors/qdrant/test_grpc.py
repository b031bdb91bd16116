"""A Qdrant server that fails over gRPC, simulated by a server that returns statuses."""

from __future__ import annotations

from contextlib import closing

import pytest

pytest.importorskip("qdrant_client", reason="needs the qdrant extra")

import grpc

from st_connectors import open_store
from st_connectors.errors import Permanent, Throttled
from st_connectors.layers.retry import NO_RETRY
from st_connectors.qdrant import client
from st_connectors.schema import DenseField, Schema
from st_connectors.testing import GrpcErrors
from st_connectors.testing.statuses import StatusServer

SCHEMA = Schema("books", {"dense": DenseField(2)})


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection:UserWarning")
class TestFailing(GrpcErrors):
    """Every status, every operation."""

    key_variable = "ST_QDRANT_API_KEY"

    @classmethod
    def through(cls, host, port):
        return f"qdrant+grpc://{host}:{port}"


@pytest.fixture
def server():
    with StatusServer() as server:
        yield server


def open_at(server):
    return closing(open_store(f"qdrant+grpc://{server.host}:{server.port}", "books", SCHEMA, retry=NO_RETRY))


@pytest.mark.parametrize(("wish", "seconds"), [("7", 7.0), ("-3", 0.0), ("soon", None), (None, None)])
def test_throttling_carries_the_servers_wish(server, wish, seconds):
    """In the trailing metadata, which the client reads; an invalid value is ignored."""
    server.always(grpc.StatusCode.RESOURCE_EXHAUSTED, *([("retry-after", wish)] if wish else []))
    with open_at(server) as store, pytest.raises(Throttled) as caught:
        store.count()
    assert caught.value.retry_after == seconds
    assert len(server.seen) == 1


def test_the_key_is_sent_with_every_call(server, monkeypatch, caplog):
    """The message names the environment variable, and a line says that the key is not encrypted."""
    monkeypatch.setenv("ST_QDRANT_API_KEY", "s3cret")
    client._warn_unencrypted.cache_clear()  # another server may have had this port
    server.always(grpc.StatusCode.UNAUTHENTICATED)
    with (
        open_at(server) as store,
        pytest.raises(Exception, match=r"UNAUTHENTICATED: .*set ST_QDRANT_API_KEY"),
    ):
        store.count()
    assert server.metadata[0]["api-key"] == "s3cret"
    [line] = caplog.messages
    assert line == (
        f"qdrant+grpc: the key in ST_QDRANT_API_KEY is sent to {server.host}:{server.port} without encryption; "
        "if the server speaks TLS, write qdrant+grpc+https://"
    )


def test_tls_to_a_server_without_it_is_told(server):
    """Trying again would not help, over gRPC as over REST."""
    for scheme in ("qdrant+grpc+https", "qdrant+https"):
        address = f"{scheme}://{server.host}:{server.port}?timeout=3"
        with (
            closing(open_store(address, "books", SCHEMA, retry=NO_RETRY)) as store,
            pytest.raises(Permanent, match=r"TLS failed: .*does the server speak TLS on this port"),
        ):
            store.count()

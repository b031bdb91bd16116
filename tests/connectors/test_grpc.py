"""What gRPC statuses mean on both adapters that use gRPC."""

from __future__ import annotations

from importlib import import_module

import pytest

from st_connectors.errors import Refused, Throttled

grpc = pytest.importorskip("grpc", reason="needs the extra of a store with gRPC")

CLIENTS = {"qdrant": "qdrant_client", "milvus": "pymilvus"}
TOO_LARGE = {
    "grpc": ("RESOURCE_EXHAUSTED", "SERVER: Received message larger than max (5000024 vs. 4194304)"),
    "grpc-client": ("RESOURCE_EXHAUSTED", "CLIENT: Sent message larger than max (5000024 vs. 4194304)"),
    "grpc-go": ("RESOURCE_EXHAUSTED", "grpc: received message larger than max (67108870 vs. 67108864)"),
    "tonic": ("OUT_OF_RANGE", "Error, decoded message length too large: found 9 bytes, the limit is: 4 bytes"),
    "proxy": ("UNKNOWN", "Received http2 header with status: 413"),
}


class Rpc(grpc.RpcError):
    """The used part of a gRPC error."""

    def __init__(self, status, words):
        super().__init__(status)
        self.status, self.words = grpc.StatusCode[status], words

    def code(self):
        return self.status

    def details(self):
        return self.words


@pytest.fixture(params=CLIENTS)
def translate(request):
    """The translation of one adapter."""
    pytest.importorskip(CLIENTS[request.param], reason=f"needs the {request.param} extra")
    faults = import_module(f"st_connectors.{request.param}.faults")
    return lambda error: faults.from_client(error, store=request.param, operation="upsert")


@pytest.mark.parametrize("server", TOO_LARGE)
def test_a_message_that_is_too_large_is_refused(translate, server):
    """Sent again it would be too large again; halves of the batch may pass."""
    error = translate(Rpc(*TOO_LARGE[server]))

    assert (type(error), error.status) == (Refused, 413)
    assert TOO_LARGE[server][1] in error.message
    assert "raise that limit" in error.message


def test_an_exhausted_resource_passes(translate):
    """The server limits the rate."""
    error = translate(Rpc("RESOURCE_EXHAUSTED", "too many requests"))

    assert (type(error), error.status) == (Throttled, 429)

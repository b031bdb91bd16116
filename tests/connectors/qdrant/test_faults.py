"""The translation of driver errors that the other tests cannot provoke."""

from __future__ import annotations

from types import SimpleNamespace

import httpx
import pytest

pytest.importorskip("qdrant_client", reason="needs the qdrant extra")

import grpc
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from st_connectors._grpc import HTTP_STATUS
from st_connectors.errors import NotFound, Permanent, Refused, Throttled, Unavailable
from st_connectors.qdrant import faults


class Rpc(grpc.RpcError):
    """The used part of a gRPC error."""

    def __init__(self, status):
        super().__init__(status)
        self.status = status

    def code(self):
        return self.status

    def details(self):
        return "because of reasons"


@pytest.mark.parametrize(
    ("status", "kind", "http"),
    [
        (grpc.StatusCode.NOT_FOUND, NotFound, 404),
        (grpc.StatusCode.UNAVAILABLE, Unavailable, 503),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Unavailable, 504),
        (grpc.StatusCode.ABORTED, Unavailable, 503),
        (grpc.StatusCode.INTERNAL, Unavailable, 500),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Throttled, 429),
        (grpc.StatusCode.INVALID_ARGUMENT, Refused, 400),
        (grpc.StatusCode.FAILED_PRECONDITION, Refused, 400),
        (grpc.StatusCode.ALREADY_EXISTS, Refused, 409),
        (grpc.StatusCode.UNAUTHENTICATED, Permanent, 401),
        (grpc.StatusCode.PERMISSION_DENIED, Permanent, 403),
        (grpc.StatusCode.UNIMPLEMENTED, Permanent, 501),
        (grpc.StatusCode.DATA_LOSS, Permanent, 501),
    ],
)
def test_each_grpc_status_is_an_error_of_the_right_class(status, kind, http):
    """With the server's text, the store, the operation, and the corresponding HTTP status."""
    error = faults.from_client(Rpc(status), store="qdrant+grpc", operation="upsert")

    assert type(error) is kind
    assert error.status == http
    assert str(error).startswith("qdrant+grpc upsert: ")
    assert "because of reasons" in str(error)


def test_every_grpc_status_has_its_meaning():
    """A status added to grpc needs a decision."""
    others = {"OK", "DATA_LOSS"}

    assert {status.name for status in grpc.StatusCode} == HTTP_STATUS.keys() | others


def test_grpc_throttling_carries_the_servers_wish():
    """The client reads it from the trailing metadata."""
    error = faults.from_client(ResourceExhaustedResponse("slow down", 3), store="qdrant+grpc", operation="upsert")

    assert isinstance(error, Throttled)
    assert (error.retry_after, error.status) == (3.0, 429)


@pytest.mark.parametrize(
    "kind", [httpx.ConnectError, httpx.ReadTimeout, httpx.ConnectTimeout, httpx.RemoteProtocolError]
)
def test_what_breaks_below_http_is_unavailable(kind):
    """Refused, timed out, interrupted."""
    error = faults.from_client(ResponseHandlingException(kind("broken")), store="qdrant", operation="get")

    assert isinstance(error, Unavailable)
    assert error.status is None


def test_an_error_page_is_cut_short():
    """A proxy's page, or an echo of the whole batch."""
    response = UnexpectedResponse(502, "Bad Gateway", b"x" * 100_000, httpx.Headers())

    assert len(str(faults.from_client(response, store="qdrant", operation="get"))) < 400


@pytest.mark.parametrize(
    ("message", "kind"),
    [("Collection books not found", NotFound), ("Wrong input: Vector dimension error", Refused)],
)
def test_local_mode_speaks_in_value_errors(message, kind):
    """They differ only in their text."""
    assert type(faults.from_client(ValueError(message), store="qdrant+memory", operation="get")) is kind


def test_a_mistake_of_our_own_is_not_put_on_the_driver():
    """It is raised unchanged."""
    assert faults.from_client(TypeError("ours"), store="qdrant", operation="get") is None
    assert faults.from_edge(KeyError("ours"), operation="get", folder="f") is None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Exception("failed to open WAL: Kind(WouldBlock)"), Unavailable),
        (Exception("Service runtime error: Shard is not initialized"), NotFound),
        (Exception("Vector dimension error: expected dim: 2, got 1"), Refused),
        (Exception("Not existing vector name error: zz"), Refused),
        (Exception("Service runtime error: something else"), Permanent),
        (ValueError("bad uuid"), Refused),
        (PermissionError(13, "Permission denied"), Permanent),
    ],
)
def test_edge_speaks_in_bare_exceptions(error, kind):
    """They differ only in their text; errors of files name the folder."""
    assert type(faults.from_edge(error, operation="get", folder="f")) is kind


def test_an_answer_without_a_status_is_kept_as_it_is():
    """Some proxies send plain text."""
    found = UnexpectedResponse(503, "", b"upstream is gone", httpx.Headers({"Retry-After": "soon"}))

    error = faults.from_client(found, store="qdrant", operation="get")

    assert isinstance(error, Unavailable)
    assert error.retry_after is None
    assert "upstream is gone" in str(error)
    assert SimpleNamespace(**vars(error)).operation == "get"

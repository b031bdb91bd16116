"""Test that each gRPC status raises an error of this package whose class states whether a retry can help.

For stores that use gRPC, in addition to ``StoreConformance``; no server is needed:

    class TestMyServerFailing(GrpcErrors):
        greetings = {"/my.Service/Connect": b""}      # calls that open a connection, and the responses to them

        @classmethod
        def through(cls, host, port):
            return f"mystore://{host}:{port}"
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

import grpc
import pytest

from st_connectors.errors import (
    NotFound,
    Permanent,
    Refused,
    StoreError,
    Temporary,
    Throttled,
    Unavailable,
    Unsupported,
)
from st_connectors.filters import Eq
from st_connectors.layers.retry import NO_RETRY, RetryPolicy
from st_connectors.store import Near, SearchRequest, Store
from st_connectors.testing import corpus
from st_connectors.testing.base import Group, Lab, dense_records, opener
from st_connectors.testing.failing import AT_ONCE, SECRET, assert_told_well
from st_connectors.testing.faults import refused_port
from st_connectors.testing.life import CALLS
from st_connectors.testing.statuses import WORDS, StatusServer

__all__ = ["GrpcErrors"]

_STATUSES: Mapping[str, type[StoreError]] = {
    "UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": Unavailable,
    "ABORTED": Unavailable,
    "INTERNAL": Unavailable,
    "UNKNOWN": Unavailable,
    "RESOURCE_EXHAUSTED": Throttled,
    "NOT_FOUND": NotFound,
    "INVALID_ARGUMENT": Refused,
    "FAILED_PRECONDITION": Refused,
    "OUT_OF_RANGE": Refused,
    "UNAUTHENTICATED": Permanent,
    "PERMISSION_DENIED": Permanent,
    "UNIMPLEMENTED": Permanent,
    "DATA_LOSS": Permanent,
}
"""The exact class of error for each name of ``grpc.StatusCode``."""

_OPERATIONS: Mapping[str, Callable[[Store], object]] = {
    **CALLS,
    "create": lambda store: store.create(),
    "drop": lambda store: store.drop(),
}


class GrpcErrors(Group):
    """Servers that refuse, throttle and stall over gRPC."""

    key_variable: ClassVar[str | None] = None
    """The environment variable of the store's key, which must not appear in messages."""
    patience: ClassVar[str] = "timeout=1"
    """The address option that sets the client's timeout to one second."""
    greetings: ClassVar[Mapping[str, bytes]] = {}
    """Responses, by method, to the calls that open a connection."""

    @classmethod
    def through(cls, host: str, port: int) -> str:
        """Return the address of a server at a host and port."""
        raise NotImplementedError(f"{cls.__name__} needs a classmethod through(cls, host, port)")

    @pytest.fixture
    def server(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[StatusServer]:
        """Yield a server that returns one status."""
        if self.key_variable is not None:
            monkeypatch.setenv(self.key_variable, SECRET)
        with StatusServer(self.greetings) as server:
            yield server

    @pytest.fixture
    def open(self, server: StatusServer) -> Iterator[Callable[..., Store]]:
        """Yield a function that opens stores on the server; they are closed at the end."""
        opened: list[Store] = []

        def make(retry: RetryPolicy = NO_RETRY, options: str = "") -> Store:
            lab = Lab(opener(self.through(server.host, server.port) + options, retry=retry))
            opened.append(lab.open(lab.schema(filterable=corpus.FILTERABLE)))
            return opened[-1]

        yield make
        for store in opened:
            store.close()

    @pytest.mark.parametrize("status", list(_STATUSES))
    def test_statuses_become_errors_of_their_class(
        self,
        server: StatusServer,
        open: Callable[..., Store],  # noqa: A002  # the fixture's name
        status: str,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        """Each status raises one class of error with the server's message, store and operation, and without secrets."""
        store = open()
        server.always(grpc.StatusCode[status])
        with pytest.raises(StoreError) as caught:
            store.count()
        assert type(caught.value) is _STATUSES[status]
        assert WORDS in str(caught.value)
        assert_told_well(caught.value)
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("status", list(_STATUSES))
    def test_only_temporary_statuses_are_tried_again(
        self,
        server: StatusServer,
        open: Callable[..., Store],  # noqa: A002
        status: str,
    ) -> None:
        """With three attempts a temporary status is three calls, any other is one; the client adds none of its own."""
        store, patient = open(), open(AT_ONCE)
        server.always(grpc.StatusCode[status])
        with pytest.raises(StoreError):
            store.count()
        assert len(server.seen) == 1
        with pytest.raises(StoreError):
            patient.count()
        assert len(server.seen) == (4 if issubclass(_STATUSES[status], Temporary) else 2)

    @pytest.mark.parametrize("operation", list(_OPERATIONS))
    def test_every_operation_tells_its_name(
        self,
        server: StatusServer,
        open: Callable[..., Store],  # noqa: A002
        operation: str,
    ) -> None:
        """The error of a failed call names the operation, after one request."""
        store = open()
        server.always(grpc.StatusCode.UNAVAILABLE)
        with pytest.raises(Unavailable) as caught:
            _OPERATIONS[operation](store)
        assert_told_well(caught.value, operation)
        assert len(server.seen) == 1

    def test_nobody_there_is_unavailable(self, capfd: pytest.CaptureFixture[str]) -> None:
        """A refused connection is ``Unavailable``, and its message names the address."""
        port = refused_port()
        lab = Lab(opener(f"{self.through('127.0.0.1', port)}?{self.patience}", retry=NO_RETRY))
        with pytest.raises(Unavailable, match=str(port)):
            lab.open(lab.schema()).count()
        assert capfd.readouterr() == ("", "")

    def test_a_silent_server_is_unavailable(self, server: StatusServer, open: Callable[..., Store]) -> None:  # noqa: A002
        """A server that does not respond within the timeout of the address is ``Unavailable``."""
        store = open(options=f"?{self.patience}")
        server.hold()
        with pytest.raises(Unavailable) as caught:
            store.count()
        assert_told_well(caught.value)

    def test_what_is_refused_sends_nothing(self, server: StatusServer, open: Callable[..., Store]) -> None:  # noqa: A002
        """Invalid and undeclared requests are refused before any byte is sent."""
        store = open()
        with pytest.raises(ValueError, match="limit"):
            store.search([SearchRequest(Near("dense", corpus.QUERIES[0]), limit=0)])
        with pytest.raises((ValueError, Unsupported)):
            store.count(Eq("undeclared", 1))
        assert len(store.upsert([*dense_records(0)])) == 0
        assert server.seen == []

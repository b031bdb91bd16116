"""A gRPC server on the loopback interface that returns a fixed status for every call and counts calls.

Needs ``grpcio``.

    with StatusServer() as server:
        server.always(grpc.StatusCode.UNAVAILABLE)
        ...                                                    # connect to server.host, server.port
        assert len(server.seen) == 3

It implements no service: the calls with which a client opens a connection are answered with fixed bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

try:
    import grpc
except ModuleNotFoundError as error:
    raise ImportError("the gRPC failure tests need grpcio: pip install grpcio") from error

__all__ = ["WORDS", "StatusServer"]

WORDS = "the server's own words"
"""The message of every status."""
HOLD_LIMIT = 60.0
"""Seconds; only a test that fails waits for so long."""


class StatusServer:
    """A server that returns one status; ``greetings`` are responses by method for calls that are not counted."""

    def __init__(self, greetings: Mapping[str, bytes] | None = None) -> None:
        """Listen on a free loopback port; serving starts when the context is entered."""
        self.seen: list[str] = []
        """The methods called so far, such as ``/qdrant.Points/Count``."""
        self.metadata: list[dict[str, str]] = []
        """The metadata of each call."""
        self._greetings = dict(greetings or {})
        self._status: Any = grpc.StatusCode.UNIMPLEMENTED
        self._trailing: tuple[tuple[str, str], ...] = ()
        self._released = threading.Event()
        self._released.set()
        self._threads = ThreadPoolExecutor(8)
        self._server = grpc.server(self._threads, handlers=[_Handler(self._answer)])
        self.host = "127.0.0.1"
        self.port = int(self._server.add_insecure_port(f"{self.host}:0"))

    def always(self, status: Any, *trailing: tuple[str, str]) -> None:
        """Return this ``grpc.StatusCode`` from now on, with this trailing metadata."""
        self._status, self._trailing = status, trailing

    def hold(self) -> None:
        """Delay every response until the context is left, for at most ``HOLD_LIMIT`` seconds."""
        self._released.clear()

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        self._server.stop(0).wait(HOLD_LIMIT)
        self._threads.shutdown()

    def _answer(self, method: str, context: Any) -> bytes:
        if method in self._greetings:
            return self._greetings[method]
        self.seen.append(method)
        self.metadata.append({str(key): str(value) for key, value in context.invocation_metadata()})
        self._released.wait(HOLD_LIMIT)
        context.set_trailing_metadata(self._trailing)
        context.abort(self._status, WORDS)
        raise AssertionError  # abort raises


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    """A handler of every method, with bytes as request and response."""

    def __init__(self, answer: Callable[[str, Any], bytes]) -> None:
        self._answer = answer

    def service(self, details: Any) -> Any:
        """Handle one unary call."""
        return grpc.unary_unary_rpc_method_handler(lambda _, context: self._answer(details.method, context))

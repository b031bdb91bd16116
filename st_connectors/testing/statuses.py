"""A gRPC server on the loopback that answers every call with the status it is told to, and counts the calls. Needs ``grpcio``.

    with StatusServer() as server:
        server.always(grpc.StatusCode.UNAVAILABLE)
        ...                                                    # talk to server.host, server.port
        assert len(server.seen) == 3

It knows no service: the few calls with which a client opens a connection are answered with bytes that are given.
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
    raise ImportError("gRPC servers are tried with grpcio: pip install grpcio") from error

__all__ = ["WORDS", "StatusServer"]

WORDS = "the server's own words"
"""What comes with every status."""
HOLD_LIMIT = 10.0
"""Seconds."""


class StatusServer:
    """Answers every call with one status; ``greetings`` are answers by method for calls that are not counted."""

    def __init__(self, greetings: Mapping[str, bytes] | None = None) -> None:
        """Listen on a free port of the loopback; serving begins when it is entered."""
        self.seen: list[str] = []
        """The methods that were called, such as ``/qdrant.Points/Count``."""
        self.metadata: list[dict[str, str]] = []
        """What came with each call."""
        self._greetings = dict(greetings or {})
        self._status: Any = grpc.StatusCode.UNIMPLEMENTED
        self._trailing: tuple[tuple[str, str], ...] = ()
        self._released = threading.Event()
        self._released.set()
        self._server = grpc.server(ThreadPoolExecutor(8), handlers=[_Handler(self._answer)])
        self.host = "127.0.0.1"
        self.port = int(self._server.add_insecure_port(f"{self.host}:0"))

    def always(self, status: Any, *trailing: tuple[str, str]) -> None:
        """Answer with this ``grpc.StatusCode`` from now on, with these trailing metadata."""
        self._status, self._trailing = status, trailing

    def hold(self) -> None:
        """Keep every answer back until the server is left, and for ``HOLD_LIMIT`` seconds at most."""
        self._released.clear()

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        self._server.stop(0).wait(HOLD_LIMIT)

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
    """Every method, with bytes in and out."""

    def __init__(self, answer: Callable[[str, Any], bytes]) -> None:
        self._told = answer

    def service(self, details: Any) -> Any:
        """One unary call."""
        return grpc.unary_unary_rpc_method_handler(lambda _, context: self._told(details.method, context))

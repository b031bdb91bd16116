"""Requests to one server: connections that stay open, and retries of what can succeed later."""

from __future__ import annotations

import http.client
import json
import random
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import urlsplit

from st_core.errors import InputTooLong, ModelUnavailable

__all__ = ["Connections", "Retries", "split_address"]

RETRIED = frozenset((408, 429, 500, 502, 503, 504))
"""The statuses after which a request may succeed later."""

LONGEST_WAIT_S = 60.0
"""The longest wait that a server can ask for."""


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a request is sent, and how long to wait before the second time; the wait doubles each time."""

    attempts: int = 5
    wait_s: float = 0.2

    def pause(self, attempt: int, requested: float | None) -> float:
        """Return the seconds to wait after an attempt, counted from 0; ``requested`` is what the server asks for."""
        own: float = self.wait_s * 2**attempt * random.uniform(0.5, 1.5)  # noqa: S311 - spreads clients, no secret
        return min(LONGEST_WAIT_S, own if requested is None else max(requested, own))


@dataclass(frozen=True, slots=True)
class _Answer:
    """The answer to a request."""

    status: int
    retry_after: float | None
    body: bytes


def split_address(address: str) -> tuple[str, str | None]:
    """Return the URL of a server and the name of a model, which follows ``#``; raise ValueError for another address."""
    url, _, model = address.partition("#")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"expected an address such as http://host:8080#model, got {address!r}")
    return url.rstrip("/"), model or None


@dataclass(slots=True)
class Connections:
    """Connections to a server; safe in threads. ``close`` them at the end.

    ``url`` may have a path, which is put in front of all paths. ``ca_file`` is a file of certificates to trust in place
    of the system's.
    """

    url: str
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 60.0
    retries: Retries = field(default_factory=Retries)
    ca_file: str | None = None
    _idle: list[http.client.HTTPConnection] = field(default_factory=list, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def get(self, path: str) -> Any:
        """Return the JSON of an answer; None if the path is unknown to the server."""
        return self._json("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send a value as JSON and return that of the answer; raise ModelUnavailable if the path is unknown."""
        found = self._json("POST", path, json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"))
        if found is None:
            raise ModelUnavailable(f"{self.url}: unknown path {path} or unknown model; check the address and its API")
        return found

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _json(self, method: str, path: str, body: bytes | None) -> Any:
        answer = self._answered(method, path, body)
        if answer.status == 404 and not (method == "POST" and b"odel" in answer.body):
            return None
        if answer.status >= 400:
            self._refused(answer)
        try:
            return json.loads(answer.body)
        except ValueError as error:
            raise ModelUnavailable(f"{self.url}{path}: expected JSON, got another body; check the address") from error

    def _refused(self, answer: _Answer) -> NoReturn:
        """Raise the error for a request that the server refuses."""
        reason = f"{self.url}: {_message(answer.body) or f'status {answer.status}'}"
        if answer.status == 413:
            raise InputTooLong(reason)
        if answer.status in (400, 422):
            raise ValueError(reason)
        raise ModelUnavailable(f"{reason} (status {answer.status})")

    def _answered(self, method: str, path: str, body: bytes | None) -> _Answer:
        """Send a request until it is answered; raise ModelUnavailable after the last attempt."""
        attempt = 0
        while True:
            reason, requested = "", None
            try:
                answer = self._send(method, path, body)
            except (OSError, http.client.HTTPException) as error:
                reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                cause: Exception | None = error
            else:
                if answer.status not in RETRIED:
                    return answer
                reason, requested, cause = f"status {answer.status}: {_message(answer.body)}", answer.retry_after, None
            attempt += 1
            if attempt >= self.retries.attempts:
                raise ModelUnavailable(f"{self.url}: no answer in {attempt} attempts: {reason}") from cause
            time.sleep(self.retries.pause(attempt - 1, requested))

    def _send(self, method: str, path: str, body: bytes | None) -> _Answer:
        """Send a request on an idle connection, or on a new one; one that the server has closed does not count."""
        with self._lock:
            idle = self._idle.pop() if self._idle else None
        if idle is not None:
            try:
                return self._exchange(idle, method, path, body)
            except (ConnectionError, http.client.BadStatusLine, http.client.CannotSendRequest):
                idle.close()
        return self._exchange(self._connect(), method, path, body)

    def _connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=self.ca_file)
            return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=self.timeout_s, context=context)
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=self.timeout_s)

    def _exchange(self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None) -> _Answer:
        headers = {"accept": "application/json", "content-type": "application/json"}
        if self.api_key is not None:
            headers["authorization"] = f"Bearer {self.api_key}"
        try:
            connection.request(method, urlsplit(self.url).path + path, body, headers)
            response = connection.getresponse()
            answer = _Answer(response.status, _seconds(response.getheader("retry-after")), response.read())
        except BaseException:
            connection.close()
            raise
        if response.will_close:
            connection.close()
        else:
            with self._lock:
                self._idle.append(connection)
        return answer


def _seconds(header: str | None) -> float | None:
    """Return the seconds of a ``Retry-After`` header; None for a date, which few servers send."""
    try:
        return None if header is None else float(header)
    except ValueError:
        return None


def _message(body: bytes) -> str:
    """Return the message in an error of any of the APIs; empty if there is none."""
    try:
        value = json.loads(body)
    except ValueError:
        return ""
    if not isinstance(value, dict):
        return ""
    found = value.get("error") or value.get("message") or value.get("detail") or ""
    found = found.get("message", "") if isinstance(found, dict) else found
    return " ".join(str(found).split())

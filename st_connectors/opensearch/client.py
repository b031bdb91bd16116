"""The client: opened from an address or handed in, one request at a time, and its errors as ours.

Requests go through the client's connections, not its methods: those repeat by themselves and keep the answer's headers, and with them
``Retry-After``, to themselves.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opensearchpy import (
    ConnectionTimeout,
    OpenSearch,
    OpenSearchException,
    SSLError,
    TransportError,
    Urllib3HttpConnection,
)
from opensearchpy.exceptions import HTTP_EXCEPTIONS

from st_connectors._lucene import options
from st_connectors._lucene.encoding import encoded
from st_connectors._lucene.faults import reason, seconds
from st_connectors._lucene.vocabulary import Vocabulary
from st_connectors.errors import Permanent, StoreError, Unavailable
from st_connectors.opensearch import wire
from st_connectors.opensearch.faults import error_of
from st_connectors.plugin import Address

__all__ = ["Opened", "open_client"]

USERNAME, PASSWORD = "ST_OPENSEARCH_USERNAME", "ST_OPENSEARCH_PASSWORD"  # names of variables
_CONNECTIONS = 16
"""Kept open for threads; the client's own 1 would make each further one open and close its own."""
_OPTIONS = ("ca", "engine", "replicas", "shards", "sparse", "timeout", "vocabulary", *wire.SEISMIC)
_log = logging.getLogger(__name__)


class _Quiet(Urllib3HttpConnection):
    """The client's connection, which leaves it to our errors to tell what went wrong, without tracebacks on the user's screen."""

    def log_request_fail(self, method: str, full_url: str, *_: Any, **__: Any) -> None:
        """Only for those who look."""
        _log.debug("%s %s failed", method, full_url)


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A client, the address's scheme for messages, and what the address asks of new collections."""

    client: OpenSearch
    name: str
    owned: bool
    form: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, int] = field(default_factory=dict)
    seismic: Mapping[str, float] = field(default_factory=dict)
    vocabulary: Vocabulary | None = None

    def send(
        self,
        operation: str,
        method: str,
        path: str,
        body: object = None,
        *,
        lines: Sequence[object] = (),
        params: Mapping[str, str] | None = None,
        holds: str | None = None,
    ) -> Any:
        """The answer to one request, parsed; ``lines`` are sent as JSON lines, those that are bytes as they are.

        Raises our errors, also where the answer lacks the key ``holds``.
        """
        status, headers, text = self._sent(operation, method, path, _encoded(body, lines), params or {})
        if status >= 300:
            wish = seconds({name.lower(): value for name, value in headers.items()}.get("retry-after"))
            found = _parsed(text)
            cause = HTTP_EXCEPTIONS.get(status, TransportError)(status, reason(found), found)
            raise error_of(status, found, store=self.name, operation=operation, retry_after=wish) from cause
        try:
            answer = json.loads(text)
            if holds is not None:
                answer[holds]
        except (ValueError, LookupError, TypeError) as error:
            raise self.strange(operation) from error
        return answer

    def strange(self, operation: str) -> Permanent:
        """The error for an answer that is none of OpenSearch's."""
        message = "the answer is not OpenSearch's: is this the right address?"
        return Permanent(message, store=self.name, operation=operation)

    def _sent(
        self, operation: str, method: str, path: str, body: bytes | None, params: Mapping[str, str]
    ) -> tuple[int, Mapping[str, str], str]:
        """Status, headers and text of an answer, whatever the status."""
        kind = {"content-type": "application/x-ndjson" if path.endswith(("_bulk", "_msearch")) else "application/json"}
        transport = self.client.transport
        try:
            connection = transport.get_connection()
            try:
                status, headers, text = connection.perform_request(
                    method, path, dict(params), body, headers=kind, ignore=range(300, 600)
                )
            except TransportError as error:
                if not isinstance(error, ConnectionTimeout):
                    transport.mark_dead(connection)
                raise
        except OpenSearchException as error:
            raise _translated(error, store=self.name, operation=operation) from error
        transport.connection_pool.mark_live(connection)
        return status, headers, text

    def close(self) -> None:
        """Close a client that was opened here."""
        if self.owned:
            self.client.close()


def _encoded(body: object, lines: Sequence[object]) -> bytes | None:
    if lines:
        return b"".join((line if isinstance(line, bytes) else encoded(line)) + b"\n" for line in lines)
    return None if body is None else encoded(body)


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _translated(error: OpenSearchException, *, store: str, operation: str) -> StoreError:
    """Our error for what breaks below HTTP."""
    # Printed whole, opensearch-py 3's error tells its reason twice.
    said = " ".join(str(error.error if isinstance(error, TransportError) else error).split())[:300]
    if isinstance(error, SSLError):
        hint = "does the server speak TLS here, with a certificate that this machine trusts?"
        return Permanent(f"TLS failed: {said}; {hint}", store=store, operation=operation)
    if "aborted" in said and not store.endswith("+https"):
        said = f"{said} (if it speaks TLS, write {store}+https://)"
    return Unavailable(f"the server cannot be reached: {said}", store=store, operation=operation)


def open_client(address: Address, client: object | None) -> Opened:
    """The client for an address, or the one handed in; nothing is sent. Raises ValueError for options that are not understood."""
    options.check_names(address, _OPTIONS)
    given = address.options
    form = {name: given[name] for name in ("sparse", "engine") if name in given}
    settings = options.index_settings(address)
    seismic = wire.seismic_parameters({name: given[name] for name in wire.SEISMIC if name in given})
    if seismic and form.get("sparse") != "seismic":
        raise ValueError(f"{min(seismic)} is for sparse=seismic, which the address does not ask for")
    if form.get("sparse") == "seismic" and "vocabulary" in given:
        raise ValueError("sparse=seismic takes indices as keys: leave vocabulary out, or use sparse=rank_features")
    patience = options.timeout(address)
    vocabulary = options.vocabulary(address)
    if client is None:
        made = _made(address, patience)
    elif isinstance(client, OpenSearch):
        made = client
    else:
        raise TypeError(f"{address.scheme} takes an opensearchpy.OpenSearch, not {type(client).__name__}")
    return Opened(made, address.scheme, client is None, form, settings, seismic, vocabulary)


def _made(address: Address, timeout: float) -> OpenSearch:
    password = os.environ.get(PASSWORD)
    return OpenSearch(
        [{"host": address.host or "localhost", "port": address.port or 9200}],
        url_prefix=address.path.strip("/"),
        use_ssl="https" in address.variants,
        ca_certs=options.authorities(address),
        http_auth=(os.environ.get(USERNAME) or "admin", password) if password else None,
        timeout=timeout,
        pool_maxsize=_CONNECTIONS,
        connection_class=_Quiet,
    )

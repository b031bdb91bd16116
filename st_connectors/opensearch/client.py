"""Send requests with an OpenSearch client, which is opened from an address or passed by the caller.

Requests use the connections of the client instead of its methods, because the methods retry failed requests and discard
the header ``Retry-After`` of the response.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from typing import Any

from opensearchpy import ConnectionTimeout, OpenSearch, OpenSearchException, TransportError, Urllib3HttpConnection
from opensearchpy.exceptions import HTTP_EXCEPTIONS

from st_connectors._lucene.client import Connection, Request
from st_connectors._lucene.encoding import encode_json
from st_connectors._lucene.faults import foreign_answer, parse_seconds, quote_reason
from st_connectors._lucene.options import read_authorities, read_timeout
from st_connectors.opensearch.faults import PASSWORD, PRODUCT, USERNAME, error_of, translate
from st_connectors.plugin import Address

__all__ = ["open_connection"]

_CONNECTIONS = 16
"""The size of the connection pool. With the client's default of 1, each further thread opens and closes a connection
for every request."""
_log = logging.getLogger(__name__)


class _QuietConnection(Urllib3HttpConnection):
    """A connection of the client that logs failures at debug level only, because store errors report them."""

    def log_request_fail(self, method: str, full_url: str, *_: Any, **__: Any) -> None:
        """Log a failure without its traceback."""
        _log.debug("%s %s failed", method, full_url)


def open_connection(address: Address, client: object | None) -> Connection:
    """Return a connection that uses the client of the caller, or a new client for the address if ``client`` is None.

    No request is sent. Raises ValueError for invalid options, and TypeError if ``client`` is not an
    ``opensearchpy.OpenSearch``.
    """
    timeout = read_timeout(address)
    if client is not None and not isinstance(client, OpenSearch):
        raise TypeError(f"{address.scheme} expects an opensearchpy.OpenSearch, not {type(client).__name__}")
    opened = _open_client(address, timeout) if client is None else client

    def exchange(request: Request) -> Any:
        names = {"store": address.scheme, "operation": request.operation}
        try:
            status, headers, text = _perform(opened, request)
        except OpenSearchException as error:
            raise translate(error, **names) from error
        if status >= 300:
            answer = _parse_or_text(text)
            cause = HTTP_EXCEPTIONS.get(status, TransportError)(status, quote_reason(answer), answer)
            wait = parse_seconds({name.lower(): value for name, value in headers.items()}.get("retry-after"))
            raise error_of(status, answer, **names, retry_after=wait) from cause
        try:
            return json.loads(text)
        except ValueError as error:
            raise foreign_answer(PRODUCT, "it is not JSON", text, **names) from error

    return Connection(address.scheme, PRODUCT, exchange, opened.close if client is None else lambda: None)


def _open_client(address: Address, timeout: float) -> OpenSearch:
    password = os.environ.get(PASSWORD)
    return OpenSearch(
        [{"host": address.host, "port": address.port or 9200}],
        url_prefix=address.path.strip("/"),
        use_ssl="https" in address.variants,
        ca_certs=read_authorities(address),
        http_auth=(os.environ.get(USERNAME) or "admin", password) if password else None,
        timeout=timeout,
        pool_maxsize=_CONNECTIONS,
        connection_class=_QuietConnection,
    )


def _perform(client: OpenSearch, request: Request) -> tuple[int, Mapping[str, str], str]:
    """Send a request and return the status, headers and text of the response; error statuses do not raise."""
    kind = "smile" if request.smile else "x-ndjson" if request.lines else "json"
    transport = client.transport
    connection = transport.get_connection()
    try:
        status, answered, text = connection.perform_request(
            request.method,
            request.path,
            dict(request.params),
            _encode(request),
            headers={"content-type": f"application/{kind}", "accept": "application/json"},
            ignore=range(300, 600),
        )
    except TransportError as error:
        if not isinstance(error, ConnectionTimeout):
            transport.mark_dead(connection)
        raise
    transport.connection_pool.mark_live(connection)
    return status, answered, text


def _encode(request: Request) -> bytes | None:
    if request.smile:
        return request.smile
    if request.lines:
        return b"".join((line if isinstance(line, bytes) else encode_json(line)) + b"\n" for line in request.lines)
    return None if request.body is None else encode_json(request.body)


def _parse_or_text(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text

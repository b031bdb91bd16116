"""Send requests with an Elasticsearch client, opened from an address or passed by the caller, without its retries."""

from __future__ import annotations

import os
from typing import Any

from elastic_transport.client_utils import DEFAULT
from elasticsearch import ApiError, Elasticsearch, SerializationError, TransportError
from elasticsearch import __version__ as client_version
from elasticsearch.serializer import JsonSerializer

from st_connectors._lucene.client import Connection, Request
from st_connectors._lucene.options import read_authorities, read_timeout
from st_connectors.elasticsearch.faults import API_KEY, PASSWORD, PRODUCT, USERNAME, NotJson, translate
from st_connectors.plugin import Address

__all__ = ["open_connection"]

_SMILE = f"application/vnd.elasticsearch+smile; compatible-with={client_version[0]}"
"""The media type of SMILE, with the major version that the client adds to the media type of the response."""


def open_connection(address: Address, client: object | None) -> Connection:
    """Return a connection that uses the client of the caller, or a new client for the address if ``client`` is None.

    No request is sent. Raises ValueError for invalid options, and TypeError if ``client`` is not an
    ``elasticsearch.Elasticsearch``.
    """
    timeout = read_timeout(address)
    if client is not None and not isinstance(client, Elasticsearch):
        raise TypeError(f"{address.scheme} expects an elasticsearch.Elasticsearch, not {type(client).__name__}")
    opened = _open_client(address, timeout) if client is None else client
    # The retry layer repeats calls; the client must not.
    quiet = opened.options(max_retries=0, retry_on_status=(), retry_on_timeout=False)

    def exchange(request: Request) -> Any:
        headers = {"accept": "application/json"}
        if request.smile:
            headers["content-type"] = _SMILE
        elif request.lines or request.body is not None:
            headers["content-type"] = "application/x-ndjson" if request.lines else "application/json"
        try:
            answer = quiet.perform_request(
                request.method,
                request.path,
                params=request.params,
                headers=headers,
                body=request.smile or request.lines or request.body,
                endpoint_id=request.operation,
            )
            if isinstance(answer.body, str | bytes):
                raise NotJson(answer.body)
        except (ApiError, TransportError) as error:
            raise translate(error, store=address.scheme, operation=request.operation) from error
        return answer.body

    if client is None:
        return Connection(address.scheme, PRODUCT, exchange, opened.close)
    # The client of the caller has no serializer for SMILE.
    return Connection(address.scheme, PRODUCT, exchange, lambda: None, sends_smile=False)


class _LenientSerializer(JsonSerializer):
    """Returns responses that are not JSON unchanged.

    The client parses a response before it looks at the status. A page of a gateway with status 503 would be an error
    without a status.
    """

    def loads(self, data: bytes) -> Any:
        """Return the parsed response, or its bytes if it is not JSON."""
        try:
            return super().loads(data)
        except SerializationError:
            return data


def _open_client(address: Address, timeout: float) -> Elasticsearch:
    node: dict[str, str | int] = {
        "scheme": "https" if "https" in address.variants else "http",
        "host": address.host or "",
        "port": address.port or 9200,
        "path_prefix": address.path.rstrip("/"),
    }
    return Elasticsearch(
        [node],
        **_credentials(),
        request_timeout=timeout,
        serializers=dict.fromkeys(("application/json", "application/*"), _LenientSerializer()),
        ca_certs=read_authorities(address) or DEFAULT,
    )


def _credentials() -> dict[str, Any]:
    """Return the key, or the user and password, of the environment; raise ValueError if there are both."""
    key, password = os.environ.get(API_KEY), os.environ.get(PASSWORD)
    if key and password:
        raise ValueError(f"expected an API key or a password, got both: unset {API_KEY} or {PASSWORD}")
    if password:
        return {"basic_auth": (os.environ.get(USERNAME) or "elastic", password)}
    return {"api_key": key or None}

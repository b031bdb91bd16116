"""The client: opened from an address or passed by the caller, with its own retries turned off."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from elastic_transport.client_utils import DEFAULT
from elasticsearch import ApiError, Elasticsearch, TransportError

from st_connectors._lucene.client import Connection
from st_connectors._lucene.options import read_authorities, read_timeout
from st_connectors.elasticsearch.faults import API_KEY, PRODUCT, translate
from st_connectors.plugin import Address

__all__ = ["open_connection"]


def open_connection(address: Address, client: object | None) -> Connection:
    """Return a connection with the caller's client, or with one for the address; nothing is sent.

    Raises ValueError for invalid options, TypeError for another client.
    """
    timeout, authorities = read_timeout(address), read_authorities(address)
    if client is not None and not isinstance(client, Elasticsearch):
        raise TypeError(f"{address.scheme} expects an elasticsearch.Elasticsearch, not {type(client).__name__}")
    node: dict[str, str | int] = {
        "scheme": "https" if "https" in address.variants else "http",
        "host": address.host or "localhost",
        "port": address.port or 9200,
        "path_prefix": address.path.rstrip("/"),
    }
    opened = client or Elasticsearch(
        [node],
        api_key=os.environ.get(API_KEY) or None,
        request_timeout=timeout,
        ca_certs=authorities or DEFAULT,
    )
    # Retries belong to the retry layer.
    quiet = opened.options(max_retries=0, retry_on_status=(), retry_on_timeout=False)

    def exchange(
        operation: str,
        method: str,
        path: str,
        body: object,
        *,
        lines: Sequence[object],
        params: Mapping[str, str],
    ) -> Any:
        headers = {"accept": "application/json"}
        if lines or body is not None:
            headers["content-type"] = "application/x-ndjson" if lines else "application/json"
        try:
            answer = quiet.perform_request(
                method, path, params=params, headers=headers, body=lines or body, endpoint_id=operation
            )
        except (ApiError, TransportError) as error:
            raise translate(error, store=address.scheme, operation=operation) from error
        return answer.body

    return Connection(address.scheme, PRODUCT, exchange, opened.close if client is None else lambda: None)

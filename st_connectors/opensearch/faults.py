"""Convert errors of the server and of opensearch-py to store errors."""

from __future__ import annotations

from opensearchpy import OpenSearchException, SSLError, TransportError

from st_connectors._lucene import faults
from st_connectors.errors import StoreError

__all__ = ["PASSWORD", "PRODUCT", "USERNAME", "error_of", "translate"]

PRODUCT = "OpenSearch"
USERNAME, PASSWORD = "ST_OPENSEARCH_USERNAME", "ST_OPENSEARCH_PASSWORD"  # names of variables


def error_of(status: int, body: object, *, store: str, operation: str, retry_after: float | None = None) -> StoreError:
    """Return the store error for the HTTP status of a response, or of one item of a bulk response."""
    access = f"{USERNAME} and {PASSWORD} to those of a user with the permission"
    return faults.error_from_status(
        status, body, store=store, operation=operation, access=access, retry_after=retry_after
    )


def translate(error: OpenSearchException, *, store: str, operation: str) -> StoreError:
    """Return the store error for a request that received no response."""
    # str() of opensearch-py 3's TransportError repeats its reason.
    reason = str(error.error if isinstance(error, TransportError) else error)
    return faults.unreachable(reason, is_tls=isinstance(error, SSLError), store=store, operation=operation)

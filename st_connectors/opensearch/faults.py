"""Errors of the server and of opensearch-py as store errors."""

from __future__ import annotations

from opensearchpy import OpenSearchException, SSLError, TransportError

from st_connectors._lucene import faults
from st_connectors.errors import Refused, StoreError

__all__ = ["PASSWORD", "PRODUCT", "USERNAME", "error_of", "translate"]

PRODUCT = "OpenSearch"
USERNAME, PASSWORD = "ST_OPENSEARCH_USERNAME", "ST_OPENSEARCH_PASSWORD"  # names of variables


def error_of(status: int, body: object, *, store: str, operation: str, retry_after: float | None = None) -> StoreError:
    """Return the error for the HTTP status of an answer or of one of its items."""
    reason = faults.quote_reason(body)
    if status == 500 and "too_many" in reason:
        # The server counts the clauses of the rewritten query, and answers 500 where a search has too many in all.
        hint = (
            "the query's terms and the filter's parts are too many together: keep the heaviest terms with vector.top(n)"
        )
        return Refused(f"the server answered 500: {reason}; {hint}", store=store, operation=operation)
    access = f"{USERNAME} and {PASSWORD} to those of a user with the permission"
    return faults.error_from_status(
        status, body, store=store, operation=operation, access=access, retry_after=retry_after
    )


def translate(error: OpenSearchException, *, store: str, operation: str) -> StoreError:
    """Return the store error for a request without an answer."""
    # str() of opensearch-py 3's TransportError repeats its reason.
    reason = str(error.error if isinstance(error, TransportError) else error)
    return faults.unreachable(reason, is_tls=isinstance(error, SSLError), store=store, operation=operation)

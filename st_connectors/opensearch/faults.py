"""The server's errors as ours; pure."""

from __future__ import annotations

from st_connectors._lucene import faults
from st_connectors.errors import Permanent, Refused, StoreError

__all__ = ["error_of"]


def error_of(status: int, body: object, *, store: str, operation: str, retry_after: float | None = None) -> StoreError:
    """The error for an HTTP status, of a whole answer or of one item."""
    message = f"the server answered {status}: {faults.reason(body)}"
    if status in (401, 403):
        hint = "set ST_OPENSEARCH_USERNAME and ST_OPENSEARCH_PASSWORD to those of a user who may do this"
        return Permanent(f"{message}; {hint}", store=store, operation=operation)
    if status == 500 and "too_many" in message:
        # Clauses are counted as often as they are rewritten; over all of a search the server says 500.
        hint = (
            "the query's terms and the filter's parts are too many together: keep the heaviest terms with vector.top(n)"
        )
        return Refused(f"{message}; {hint}", store=store, operation=operation)
    return faults.from_status(status, body, store=store, operation=operation, key="", retry_after=retry_after)

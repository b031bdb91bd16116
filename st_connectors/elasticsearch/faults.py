"""Convert errors of elasticsearch-py to store errors."""

from __future__ import annotations

from functools import partial

import elasticsearch
from elasticsearch import ApiError, TransportError, UnsupportedProductError

from st_connectors._lucene import faults
from st_connectors.errors import StoreError, Unsupported

__all__ = ["API_KEY", "PASSWORD", "PRODUCT", "USERNAME", "NotJson", "error_of", "translate"]

PRODUCT = "Elasticsearch"
API_KEY = "ST_ELASTICSEARCH_API_KEY"
USERNAME, PASSWORD = "ST_ELASTICSEARCH_USERNAME", "ST_ELASTICSEARCH_PASSWORD"  # names of variables
_ACCESS = f"{API_KEY} to a key with the privilege, or {USERNAME} and {PASSWORD} to those of a user with it"
error_of = partial(faults.error_from_status, access=_ACCESS)


class NotJson(elasticsearch.SerializationError):
    """A successful response has the body ``body``, which is not JSON."""

    def __init__(self, body: str | bytes) -> None:
        """Store the body."""
        super().__init__(f"it is not JSON: {body!r}")
        self.body = body

    def __reduce__(self) -> tuple[object, ...]:
        return NotJson, (self.body,)


def translate(error: ApiError | TransportError, *, store: str, operation: str) -> StoreError:
    """Return the store error for an error of the client."""
    if isinstance(error, UnsupportedProductError):
        reason = "it has no header X-Elastic-Product"
        return faults.foreign_answer(PRODUCT, reason, error.body, store=store, operation=operation)
    if isinstance(error, ApiError):
        if "media_type_header_exception" in str(error.body):
            return Unsupported(_client_too_new(), store=store, operation=operation, status=error.meta.status)
        retry_after = faults.parse_seconds(error.meta.headers.get("retry-after"))
        return error_of(error.meta.status, error.body, store=store, operation=operation, retry_after=retry_after)
    if isinstance(error, elasticsearch.SerializationError):
        words = " ".join(str(error.message).split())[:300]
        return faults.foreign_answer(PRODUCT, words, _body_of(error), store=store, operation=operation)
    is_tls = isinstance(error, elasticsearch.SSLError)
    return faults.unreachable(str(error.message), is_tls=is_tls, store=store, operation=operation)


def _body_of(error: elasticsearch.SerializationError) -> object:
    """Return the body of a response that is not JSON; None if it is unknown."""
    if isinstance(error, NotJson):
        return error.body
    # A client of the caller could not parse it: the text, or its bytes if they are not UTF-8.
    cause = error.__context__
    return cause.object if isinstance(cause, UnicodeDecodeError) else getattr(cause, "doc", None)


def _client_too_new() -> str:
    major, *_ = elasticsearch.__version__
    version = ".".join(map(str, elasticsearch.__version__))
    return (
        f"the client elasticsearch {version} is newer than the server and cannot talk to it: "
        f"pip install 'elasticsearch<{major}'"
    )

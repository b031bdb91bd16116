"""The client: opened from an address or handed in, its own retries off, and its errors as ours."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import elasticsearch
from elastic_transport.client_utils import DEFAULT
from elasticsearch import ApiError, Elasticsearch, TransportError, UnsupportedProductError

from st_connectors._lucene import faults, options
from st_connectors._lucene.vocabulary import Vocabulary
from st_connectors.errors import Permanent, StoreError, Unavailable, Unsupported
from st_connectors.plugin import Address

__all__ = ["Opened", "border", "open_client", "translate"]

API_KEY = "ST_ELASTICSEARCH_API_KEY"
_OPTIONS = ("ca", "dense_index", "fusion", "replicas", "shards", "sparse", "timeout", "vocabulary")


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A client, the address's scheme for messages, and what the address asks of new collections."""

    client: Elasticsearch
    name: str
    owned: bool
    form: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, int] = field(default_factory=dict)
    native: bool = False
    vocabulary: Vocabulary | None = None

    def close(self) -> None:
        """Close a client that was opened here."""
        if self.owned:
            self.client.close()


def open_client(address: Address, client: object | None) -> Opened:
    """The client for an address, or the one handed in; nothing is sent. Raises ValueError for options that are not understood."""
    options.check_names(address, _OPTIONS)
    form = {name: address.options[name] for name in ("sparse", "dense_index") if name in address.options}
    settings = options.index_settings(address)
    fusion = address.options.get("fusion", "client")
    if fusion not in ("client", "native"):
        raise ValueError(f"fusion is client or native, not {fusion!r}")
    patience = options.timeout(address)
    vocabulary = options.vocabulary(address)
    if client is None:
        made = _made(address, patience)
    elif isinstance(client, Elasticsearch):
        made = client
    else:
        raise TypeError(f"{address.scheme} takes an elasticsearch.Elasticsearch, not {type(client).__name__}")
    # Repeating is the retrying wrapper's.
    quiet = made.options(max_retries=0, retry_on_status=(), retry_on_timeout=False)
    return Opened(quiet, address.scheme, client is None, form, settings, fusion == "native", vocabulary)


def _made(address: Address, patience: float) -> Elasticsearch:
    scheme = "https" if "https" in address.variants else "http"
    place: dict[str, str | int] = {"host": address.host or "localhost", "port": address.port or 9200, "scheme": scheme}
    return Elasticsearch(
        [{**place, "path_prefix": address.path.rstrip("/")}],
        api_key=os.environ.get(API_KEY) or None,
        request_timeout=patience,
        ca_certs=options.authorities(address) or DEFAULT,
    )


@contextmanager
def border(name: str, operation: str) -> Iterator[None]:
    """Turn the client's errors into ours, once."""
    try:
        yield
    except (ApiError, TransportError) as error:
        raise translate(error, store=name, operation=operation) from error


def translate(error: ApiError | TransportError, *, store: str, operation: str) -> StoreError:
    """Our error for the client's."""
    if isinstance(error, UnsupportedProductError):
        told = "the answer is not Elasticsearch's (it has no header X-Elastic-Product): is this the right address?"
        return Permanent(told, store=store, operation=operation)
    if isinstance(error, ApiError):
        if "media_type_header_exception" in str(error.body):
            return Unsupported(_newer(), store=store, operation=operation)
        wish = faults.seconds(error.meta.headers.get("retry-after"))
        return faults.from_status(
            error.meta.status, error.body, store=store, operation=operation, key=API_KEY, retry_after=wish
        )
    told = " ".join(str(error.message).split())[:300]
    if isinstance(error, elasticsearch.SSLError):
        hint = "does the server speak TLS here, with a certificate that this machine trusts?"
        return Permanent(f"TLS failed: {told}; {hint}", store=store, operation=operation)
    if isinstance(error, elasticsearch.SerializationError):
        hint = "is this the right address?"
        return Permanent(f"the answer is not Elasticsearch's: {told}; {hint}", store=store, operation=operation)
    if "aborted" in told and not store.endswith("+https"):
        told = f"{told} (if it speaks TLS, write {store}+https://)"
    return Unavailable(f"the server cannot be reached: {told}", store=store, operation=operation)


def _newer() -> str:
    major, *_ = elasticsearch.__version__
    version = ".".join(map(str, elasticsearch.__version__))
    return (
        f"the client elasticsearch {version} is newer than the server and cannot talk to it: "
        f"pip install 'elasticsearch<{major}'"
    )

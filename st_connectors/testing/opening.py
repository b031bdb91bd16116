"""Open stores for tests; this module contains no assertions, so that it may be imported before pytest rewrites them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from st_connectors.layers.retry import RetryPolicy
from st_connectors.registry import open_store
from st_connectors.schema import Schema
from st_connectors.store import Store

__all__ = ["Make", "Opener", "opener"]


class Make(Protocol):
    """Opens a store with all layers: for a schema, a collection to create; for a name, an existing collection."""

    def __call__(self, what: Schema | str, /) -> Store:
        """Open the store, or raise NotFound for the name of a missing collection."""
        ...


def opener(address: str, *, client: object | None = None, retry: RetryPolicy | None = None) -> Make:
    """Return the object that opens collections at one address."""
    return Opener(address, client, retry)


@dataclass(frozen=True, slots=True)
class Opener:
    """Opens collections at one address."""

    address: str
    client: object | None
    retry: RetryPolicy | None

    def __call__(self, what: Schema | str, /) -> Store:
        """Open a collection by its schema or its name."""
        if isinstance(what, str):
            return open_store(self.address, what, client=self.client, retry=self.retry)
        return open_store(self.address, what.collection, what, client=self.client, retry=self.retry)

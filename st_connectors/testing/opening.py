"""How tests open stores; without an assertion, so that it may be imported before pytest is there to rewrite them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from st_connectors.layers.retry import RetryPolicy
from st_connectors.registry import open_store
from st_connectors.schema import Schema
from st_connectors.store import Store

__all__ = ["Make", "Opener", "opener"]


class Make(Protocol):
    """Opens a store, wrapped as users get it: for a schema, one on which ``create`` may be called; for a name, the collection that exists."""

    def __call__(self, what: Schema | str, /) -> Store:
        """Open it, or raise NotFound for a name that is not there."""
        ...


def opener(address: str, *, client: object | None = None, retry: RetryPolicy | None = None) -> Make:
    """Opens collections at one address."""
    return Opener(address, client, retry)


@dataclass(frozen=True, slots=True)
class Opener:
    """Opens collections at one address."""

    address: str
    client: object | None
    retry: RetryPolicy | None

    def __call__(self, what: Schema | str, /) -> Store:
        """Open it."""
        if isinstance(what, str):
            return open_store(self.address, what, client=self.client, retry=self.retry)
        return open_store(self.address, what.collection, what, client=self.client, retry=self.retry)

"""Search without the filter for present vectors, and repeat with it only where the result is affected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

from st_connectors.layers.passing import Passing
from st_connectors.store import Hit, SearchRequest, Store

__all__ = ["SpeculativeStore", "speculating"]


class SpeculativeStore(Store, Protocol):
    """A store whose capabilities declare ``speculative_search``.

    ``search`` restricts every leg to the records that have its vector.
    """

    def search_speculatively(self, requests: Sequence[SearchRequest]) -> list[list[Hit] | None]:
        """Return the results of unrestricted searches, each None if it contains records without the leg's vector.

        A result other than None equals that of ``search``.
        """
        ...


def speculating(store: Store) -> Store:
    """Return a store that searches without restriction first and repeats only those searches whose result is None.

    A store that does not declare ``speculative_search`` is returned unchanged.
    """
    return _Speculating(cast("SpeculativeStore", store)) if store.capabilities.speculative_search else store


class _Speculating(Passing):
    def __init__(self, store: SpeculativeStore) -> None:
        super().__init__(store)
        self._speculative = store

    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        """Repeat with restriction, as one batch, the searches whose unrestricted result cannot be used."""
        results = self._speculative.search_speculatively(requests)
        again = [at for at, hits in enumerate(results) if hits is None]
        repeated = iter(self.store.search([requests[at] for at in again]) if again else [])
        return [next(repeated) if hits is None else hits for hits in results]

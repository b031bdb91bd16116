"""Search without the filter that excludes missing vectors, and repeat a search with the filter only if necessary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

from st_connectors.layers.passing import Passing
from st_connectors.store import Hit, SearchRequest, Store

__all__ = ["SpeculativeStore", "speculating"]


class SpeculativeStore(Store, Protocol):
    """A store whose capabilities declare ``speculative_search``.

    Its ``search`` restricts every leg to the records that have the vector of the leg.
    """

    def search_speculatively(self, requests: Sequence[SearchRequest]) -> list[list[Hit] | None]:
        """Return the results of unrestricted searches; None for a result that contains records without the vector.

        A result other than None equals the result of ``search``.
        """
        ...


def speculating(store: Store) -> Store:
    """Return a store that first searches without restriction, and repeats only the searches whose result is None.

    A store that does not declare ``speculative_search`` is returned unchanged.
    """
    return _Speculating(cast("SpeculativeStore", store)) if store.capabilities.speculative_search else store


class _Speculating(Passing):
    def __init__(self, store: SpeculativeStore) -> None:
        super().__init__(store)
        self._speculative = store

    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        """Search without restriction, then repeat the searches whose result is None with restriction, as one batch."""
        results = self._speculative.search_speculatively(requests)
        again = [at for at, hits in enumerate(results) if hits is None]
        repeated = iter(self.store.search([requests[at] for at in again]) if again else [])
        return [next(repeated) if hits is None else hits for hits in results]

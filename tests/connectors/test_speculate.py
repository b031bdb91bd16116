"""The layer that searches without the filter for present vectors first, on a store that records its calls."""

from __future__ import annotations

import numpy as np
import pytest

from st_connectors.layers.speculate import speculating
from st_connectors.registry import open_store
from st_connectors.schema import DenseField, Schema
from st_connectors.store import Capabilities, Hit, Near, SearchRequest

UP = np.array([0.0, 1.0], np.float32)


class Recording:
    """A store that returns None from speculative searches with the given limits, and records every search."""

    def __init__(self, unusable, *, speculative_search=True):
        self.capabilities = Capabilities(speculative_search=speculative_search)
        self.unusable = unusable
        self.calls = []

    def search(self, requests):
        """Name each hit after the search that returned it."""
        self.calls.append(("search", [request.limit for request in requests]))
        return [[Hit(f"restricted {request.limit}", 1.0)] for request in requests]

    def search_speculatively(self, requests):
        """Return None for the unusable requests."""
        self.calls.append(("speculative", [request.limit for request in requests]))
        return [
            None if request.limit in self.unusable else [Hit(f"unrestricted {request.limit}", 1.0)]
            for request in requests
        ]


def searched(store, *limits):
    requests = [SearchRequest(Near("dense", UP), limit=limit) for limit in limits]
    return [[hit.id for hit in hits] for hits in speculating(store).search(requests)]


def test_a_usable_result_is_returned_without_a_second_search():
    """One call, whatever the number of requests."""
    store = Recording(unusable=())

    assert searched(store, 1, 2) == [["unrestricted 1"], ["unrestricted 2"]]
    assert store.calls == [("speculative", [1, 2])]


def test_only_unusable_results_are_searched_again():
    """As one batch, and the results stay in the order of the requests."""
    store = Recording(unusable=(1, 3))

    assert searched(store, 1, 2, 3) == [["restricted 1"], ["unrestricted 2"], ["restricted 3"]]
    assert store.calls == [("speculative", [1, 2, 3]), ("search", [1, 3])]


def test_no_request_is_passed_on():
    """The store decides whether its collection exists."""
    store = Recording(unusable=())

    assert searched(store) == []
    assert store.calls == [("speculative", [])]


def test_a_store_without_the_capability_is_returned_unchanged():
    """No layer, no second kind of search."""
    store = Recording(unusable=(), speculative_search=False)

    assert speculating(store) is store


@pytest.mark.parametrize(("optional", "declared"), [(True, True), (False, False)])
def test_milvus_declares_it_only_where_vectors_may_be_missing(tmp_path, optional, declared):
    """With a required vector every row has it, and there is nothing to speculate about."""
    pytest.importorskip("milvus_lite", reason="needs the milvus extra")
    store = open_store(f"milvus+lite:{tmp_path}", "books", Schema("books", {"dense": DenseField(2, optional=optional)}))
    try:
        assert store.capabilities.speculative_search is declared
    finally:
        store.close()

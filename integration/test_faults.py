"""Ingests into real servers through random faults and outages lose nothing and store nothing twice."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from integration.faults import campaign, difference, expected, make_documents
from integration.stores import address_of
from st_connectors.store import Record
from st_core.vectors import SparseVector

SEED = int(os.environ.get("ST_FAULTS_SEED", "1"))


@pytest.fixture(
    params=[pytest.param(each, marks=pytest.mark.engine(each)) for each in ("elasticsearch-9", "opensearch")]
)
def address(request, engines) -> str:
    """Yield a server of each engine."""
    return address_of(request.param, engines.url(request.param))


def test_the_collection_equals_the_input(address):
    """Ids once, payloads and vectors, after resets, cut-off answers, gateways, throttling, black holes and outages."""
    outcome = campaign(address, documents=600, seed=SEED)

    print(outcome)
    assert sum(outcome.injected.values()) > 40
    assert sum(outcome.retries.values()) > 5


WANTED = expected(make_documents(6, 3))
FIRST, SECOND, *_ = WANTED.values()
SPOILT = {
    "lost": [],
    "foreign": [FIRST, Record("another")],
    "payload": [replace(FIRST, payload={"year": 1})],
    "dense": [replace(FIRST, vectors={**FIRST.vectors, "dense": SECOND.vectors["dense"]})],
    "sparse": [replace(FIRST, vectors={**FIRST.vectors, "sparse": SparseVector.from_mapping({1: 1.0})})],
    "no-vector": [replace(FIRST, vectors={})],
    "twice": [FIRST, FIRST],
}
"""What the collection contains instead of the first record."""


class Stored:
    """A collection with these records."""

    def __init__(self, records):
        self.records = records

    def scan(self, **_):
        """Yield the records."""
        yield from self.records


@pytest.mark.parametrize("fault", SPOILT)
def test_the_comparison_catches(fault):
    """A collection that differs in one record."""
    first, *others = WANTED.values()
    assert difference(Stored([first, *others]), WANTED) is None
    assert difference(Stored([*SPOILT[fault], *others]), WANTED) is not None

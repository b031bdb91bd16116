"""Ingests into real servers through faults lose nothing and store nothing twice: the short form of `make faults`."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from integration.faults.material import difference, expected, make_documents
from integration.faults.places import Setting
from integration.faults.scenarios import SCENARIOS
from integration.stores import address_of
from st_connectors.store import Record
from st_core.vectors import SparseVector

SEED = int(os.environ.get("ST_FAULTS_SEED", "1"))


@pytest.fixture(
    params=[pytest.param(each, marks=pytest.mark.engine(each)) for each in ("elasticsearch-9", "opensearch")]
)
def setting(request, engines, tmp_path) -> Setting:
    """Return a place on each engine."""
    address = address_of(request.param, engines.url(request.param))
    return Setting(request.param, address, tmp_path, SEED, documents=600, kills=2)


def test_kills_lose_nothing(setting):
    """The command is killed at random moments and run again: ids once, payloads and vectors, each dead letter once."""
    outcome = SCENARIOS["kill"].run(replace(setting, documents=1500))

    print(outcome)
    assert outcome.is_good, outcome.problem
    assert outcome.kills == 2


def test_faults_of_the_network_lose_nothing(setting):
    """Resets, cut-off answers, gateways, throttling, black holes and outages."""
    outcome = SCENARIOS["wire"].run(setting)

    print(outcome)
    assert outcome.is_good, outcome.problem
    assert outcome.faults > 40
    assert outcome.retries > 5


def test_exactly_the_poisoned_documents_are_dead_letters(setting):
    """Lines that are no documents, and documents with vectors that no store accepts."""
    outcome = SCENARIOS["poison"].run(setting)

    print(outcome)
    assert outcome.is_good, outcome.problem
    assert outcome.letters == 12


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

"""A collection that is copied through every store comes back unchanged, and interrupted copies can be finished.

The copies through embedded stores always run; those through servers run if ``ST_REQUIRE`` names ``across`` or the
servers' addresses are set.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from integration.stores import address_of, opened
from st_connectors.copying import content_hash, copy
from st_connectors.errors import Unavailable
from st_connectors.ingest import IngestFailed
from st_connectors.registry import open_store
from st_connectors.schema import DenseField, FilterKind, Metric, Schema, SparseField, TextField
from st_connectors.store import Record, Store
from st_core.vectors import SparseVector

pytest.importorskip("qdrant_edge", reason="needs the qdrant extra")
pytest.importorskip("milvus_lite", reason="needs the milvus extra")

RECORDS = 2_300
SCHEMA = Schema(
    "walk",
    {
        "cosine": DenseField(48),
        "dot": DenseField(16, Metric.DOT),
        "euclidean": DenseField(16, Metric.EUCLIDEAN),
        "sparse": SparseField(),
        "text": TextField(),
    },
    {"year": FilterKind.INT, "tag": FilterKind.KEYWORD, "when": FilterKind.DATE, "ratio": FilterKind.FLOAT},
)
SERVERS = ("elasticsearch-9", "opensearch")


def _record(number: int) -> Record:
    """Return records with unusual ids and payloads, and vectors of every kind, any of which may be missing."""
    random = np.random.default_rng(number)
    vectors = {
        "cosine": random.standard_normal(48).astype(np.float32),
        "dot": (random.standard_normal(16) * 10.0 ** random.integers(-6, 6)).astype(np.float32),
        "euclidean": random.standard_normal(16).astype(np.float32),
        "sparse": SparseVector.from_arrays(random.choice(30_522, 60, replace=False), random.random(60) * 4),
    }
    for place, name in enumerate(list(vectors)):
        if number % 11 == place:
            del vectors[name]
    payload = {
        "text": f"a paper about flow number {number}",
        "nested": {"b": [1, 1.0, -0.0, None, True, {}], "a": "é \U0001f41f \\ \" '", "": 2**63 - 1},
        "year": 1900 + number % 120,
        "tag": ["x", "y z"] if number % 3 else None,
        "when": "2026-11-24T10:00:00.123456Z",
        "ratio": number / 7,
        "_id": number,
    }
    return Record(("id %d/é", "%d", "ⅷ-%d" + "x" * 480)[number % 3] % number, vectors, payload)


@pytest.fixture(scope="module")
def start() -> Iterator[Store]:
    """Create the collection in memory."""
    store = open_store("memory:walk-start", "walk", SCHEMA)
    store.create()
    assert store.upsert([_record(number) for number in range(RECORDS)]) == []
    yield store
    store.drop()


def _hashes(store: Store) -> dict[str, bytes]:
    return {record.id: content_hash(record) for record in store.scan()}


def _walk(start: Store, stops: Mapping[str, str | None], folder: Path) -> dict[str, bytes]:
    """Copy from stop to stop, each time twice; the second copy writes nothing. Return the records of the last stop.

    ``stops`` are addresses by name; embedded stores have none and are created in ``folder``.
    """
    with ExitStack() as open_until_the_end:
        here = start
        for stop, server in stops.items():
            address = server or open_until_the_end.enter_context(opened(stop, folder))
            there = open_store(address, "walk-stop", replace(SCHEMA, collection="walk-stop"))
            open_until_the_end.enter_context(closing(there))
            there.drop()
            open_until_the_end.callback(there.drop)

            report = copy(here, there)
            again = copy(here, there, skip_existing=True)

            assert (report.confirmed, report.refused) == (RECORDS, ()), stop
            assert (again.confirmed, again.skipped) == (0, RECORDS), stop
            assert there.count() == RECORDS, stop
            here = there
        return _hashes(here)


@pytest.mark.engine("milvus-lite")
def test_the_walk_through_the_embedded_stores(start):
    """Every id, payload and bit of a vector comes back."""
    with tempfile.TemporaryDirectory() as folder:
        back = _walk(start, dict.fromkeys(["qdrant-edge", "milvus-lite", "memory"]), Path(folder))

    assert back == _hashes(start)


@pytest.mark.engine("across")
def test_the_walk_through_all_stores(start, engines):
    """Every id, payload and bit of a vector comes back from servers too."""
    servers = {engine: address_of(engine, engines.url(engine, also="across")) for engine in SERVERS}
    stops = {"qdrant-edge": None, **servers, "milvus-lite": None, "memory": None}
    with tempfile.TemporaryDirectory() as folder:
        back = _walk(start, stops, Path(folder))

    assert back == _hashes(start)


class _Failing:
    """A store that fails after some calls of ``upsert``."""

    def __init__(self, store: Store, calls: int) -> None:
        self._store = store
        self._calls = calls

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def upsert(self, records):
        if not self._calls:
            raise Unavailable("gone", store="test", operation="upsert")
        self._calls -= 1
        return self._store.upsert(records)


@pytest.mark.engine("milvus-lite")
@pytest.mark.parametrize("store", ["qdrant-edge", "milvus-lite"])
def test_a_store_that_fails_in_the_middle_is_filled_the_next_time(start, store):
    """The target contains the confirmed records, and after a second copy all of them; only the rest was written."""
    with tempfile.TemporaryDirectory() as folder, opened(store, Path(folder)) as address:
        schema = replace(SCHEMA, collection="failing")
        with closing(open_store(address, "failing", schema)) as target:
            with pytest.raises(IngestFailed) as stopped:
                copy(start, _Failing(target, 3), batch=250)
            assert stopped.value.report.confirmed == 750
        with closing(open_store(address, "failing")) as target:
            assert target.count() == 750
            report = copy(start, target, skip_existing=True)
            assert (report.confirmed, report.skipped) == (RECORDS - 750, 750)
            assert _hashes(target) == _hashes(start)

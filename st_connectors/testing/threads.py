"""Threads: one store may be used by many threads at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from st_connectors.filters import Eq
from st_connectors.schema import FilterKind
from st_connectors.store import Near, Record
from st_connectors.testing import corpus
from st_connectors.testing.base import Group, Lab, Pair, dense_records

__all__ = ["Threads"]

WRITERS = 8
TURNS = 4


class Threads(Group):
    """Concurrent writers and readers on one store."""

    def test_eight_writers_and_eight_readers_agree_at_the_end(self, lab: Lab) -> None:
        """All writes of all threads are stored, and readers see only complete records that were written."""
        pair = lab.pair(lab.schema(filterable={"writer": FilterKind.INT}))
        with ThreadPoolExecutor(2 * WRITERS) as pool:
            readers = [pool.submit(_read, pair, number) for number in range(WRITERS)]
            writers = [pool.submit(_write, pair, number) for number in range(WRITERS)]
            for done in [*writers, *readers]:
                done.result()

        pair.store.refresh()
        for number in range(WRITERS):
            for batch, deleted in _work(number):
                assert pair.oracle.upsert(batch) == []
                pair.oracle.delete(deleted)
        pair.assert_records_agree()
        for number in range(WRITERS):
            pair.assert_records_agree(Eq("writer", number))
        pair.assert_search_agrees(*(pair.near(Near("dense", query), limit=20) for query in corpus.QUERIES))

    def test_readers_get_their_own_answers(self, lab: Lab) -> None:
        """Concurrent searches each get the hits of their own request."""
        pair = lab.library()
        requests = [
            pair.near(Near("dense", query), limit=3 + row)
            for row, query in enumerate(corpus.dense_vectors(32, seed=77))
        ]
        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(pair.assert_search_agrees, request) for request in requests]:
                done.result()


def _work(writer: int) -> list[tuple[list[Record], list[str]]]:
    """Return the work of one writer: batches to store, and the ids to delete after each."""
    turns = []
    for turn in range(TURNS):
        records = [
            replace(record, id=f"w{writer}-{record.id}", payload={"writer": writer, "turn": turn})
            for record in dense_records(6, start=4 * turn)
        ]
        turns.append((records, [records[turn % 6].id]))
    return turns


def _write(pair: Pair, writer: int) -> None:
    for batch, deleted in _work(writer):
        assert pair.store.upsert(batch) == []
        pair.store.delete(deleted)


def _read(pair: Pair, reader: int) -> None:
    for turn in range(TURNS):
        request = pair.near(Near("dense", corpus.QUERIES[(reader + turn) % len(corpus.QUERIES)]), limit=5)
        (hits,) = pair.store.search([request])
        assert [(-hit.score, hit.id) for hit in hits] == sorted((-hit.score, hit.id) for hit in hits)
        for hit in hits:
            assert hit.id.startswith(f"w{hit.payload['writer']}-r")
        for record in pair.store.get([hit.id for hit in hits]):
            assert set(record.payload) == {"writer", "turn"}

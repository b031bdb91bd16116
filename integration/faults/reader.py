"""Search and read a collection while all of its documents are replaced."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing

from integration.faults.checking import compare
from integration.faults.material import NAME, Document, expected, make_documents, record_difference
from integration.faults.outcome import Outcome
from integration.faults.places import MODELS, Setting, drop
from st_connectors import Index
from st_connectors.store import Parts, Record

__all__ = ["read_throughout"]

ROUNDS = 3
"""How often all documents are replaced."""
READ = 20
"""How many records are read at a time."""


def read_throughout(setting: Setting) -> Outcome:
    """Ingest several versions of the same documents; each record that is read meanwhile is one version completely."""
    versions = [_version(setting, number) for number in range(ROUNDS + 1)]
    records = [expected(version) for version in versions]
    drop(setting)
    try:
        with closing(Index.create(setting.address, collection=NAME, **MODELS)) as index:
            index.ingest(versions[0])
            # An embedded store can be opened once.
            other = Index.open(setting.address, collection=NAME) if setting.is_server else index
            reader = _Reader(other, records, setting.seed)
            reader.start()
            retries = sum(index.ingest(version, batch=64).retries for version in versions[1:])
            reader.stop()
            if other is not index:
                other.close()
        outcome = Outcome(ROUNDS * len(versions[0]), runs=ROUNDS, retries=retries, problem="; ".join(reader.problems))
        if not reader.reads:
            outcome += Outcome(problem="nothing was read meanwhile")
        return outcome + compare(setting, records[-1])
    finally:
        drop(setting)


def _version(setting: Setting, number: int) -> Sequence[Document]:
    """Return documents whose ids are the same in all versions, and whose other values are not."""
    documents = make_documents(setting.documents, setting.seed + number)
    return [{**each, "id": f"doc {at}", "year": 2000 + number} for at, each in enumerate(documents)]


class _Reader(threading.Thread):
    """Searches and reads until it is stopped, and collects what is wrong."""

    def __init__(self, index: Index, versions: Sequence[Mapping[str, Record]], seed: int) -> None:
        super().__init__(name="reader")
        self.reads = 0
        self.problems: list[str] = []
        self._index = index
        self._versions = versions
        self._generator = random.Random(seed)
        self._stopped = threading.Event()

    def run(self) -> None:
        try:
            while not self._stopped.is_set() and not self.problems:
                self._search()
                self._get()
                self.reads += 1
        except Exception as error:  # noqa: BLE001  # any error of a reader is a failure of the scenario
            self.problems.append(f"a reader failed: {type(error).__name__}: {error}")

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self.join()

    def _search(self) -> None:
        query = self._generator.choice(["a boat at sea", "paper and glass", "the garden in winter", "violin"])
        hits = self._index.search(query, limit=READ)
        if len(hits) != READ:
            self.problems.append(f"a search for {READ} documents returned {len(hits)}")
        for hit in hits:
            if dict(hit.payload) not in [dict(version[hit.id].payload) for version in self._versions]:
                self.problems.append(f"the payload of hit {hit.id!r} is of no version: {hit.payload}")

    def _get(self) -> None:
        names = self._generator.sample(sorted(self._versions[0]), READ)
        records = self._index.get(names, parts=Parts.ALL)
        if [record.id for record in records] != names:
            self.problems.append(f"of {READ} records {len(records)} were read")
        for record in records:
            differences = [record_difference(record, version[record.id]) for version in self._versions]
            if all(differences):
                self.problems.append(f"record {record.id!r} is of no version: {differences[-1]}")

"""Ingest documents into a real server through random faults and outages, and compare the collection with the input.

    python -m integration.faults opensearch --documents 5000 --seed 7

The seed decides the faults and when nothing listens; which request meets which fault also depends on the time that
requests take. The ingest is interrupted by longer outages and continues from its state.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import numpy as np

from integration.stores import Absent, address_of, opened
from st_connectors import Index, open_store
from st_connectors.errors import NotFound, Temporary
from st_connectors.ingest import IngestFailed, Patience
from st_connectors.layers import retry
from st_connectors.store import Record, Store, Vector
from st_connectors.testing.faults import Answer, BlackHole, CutOff, Delay, Fault, FaultProxy, Pass, Reset, Truncate
from st_core.vectors import SparseVector

__all__ = ["FAULTS", "Outcome", "campaign", "difference"]

FAULTS: Mapping[Fault | tuple[Fault, ...], float] = {
    Pass(): 100,
    Answer(429): 3,
    Answer(429, retry_after=0.1): 3,
    (Answer(429, retry_after=0),) * 3: 1,
    (Answer(429),) * 3: 1,
    Answer(408): 1,
    Answer(500, b"<html>failure</html>", content_type="text/html"): 1,
    Answer(502, b"<html>bad gateway</html>", content_type="text/html"): 3,
    Answer(503, b"upstream is gone", content_type="application/json"): 3,
    Answer(504, b"", content_type="text/plain"): 2,
    Reset(): 5,
    Reset(after=9): 3,
    Truncate(): 5,
    CutOff(): 5,
    BlackHole(): 1,
    Delay(0.3): 3,
}
"""The weight of each fault; a tuple is a storm."""
TIMEOUT_S = 1
"""The timeout of the client: a black hole takes as long."""
PATIENCE_S = 1.0
"""How long an ingest waits for a store that is down; outages take up to three times as long, and end it."""
ROUNDS = 200
"""Continuations until a campaign is given up."""
BAD_EVERY = 97
"""Every so many documents one is refused: its year is not a number."""
NAME = "faults"
_WORDS = ["sea", "boat", "kettle", "paper", "planet", "glass", "violin", "harbour", "winter", "engine", "garden"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a campaign took: ingests, retries by class of error, outages, and how often each fault was injected."""

    rounds: int
    retries: Mapping[str, int]
    outages: int
    injected: Mapping[Fault, int]
    seconds: float

    def __str__(self) -> str:
        retries = ", ".join(f"{count} {name}" for name, count in sorted(self.retries.items()))
        lines = [f"{self.rounds} ingests, {self.outages} outages, retries: {retries}; {self.seconds:.0f} s"]
        lines += [f"{count:6} {fault}" for fault, count in sorted(self.injected.items(), key=lambda item: -item[1])]
        return "\n".join(lines)


def make_documents(count: int, seed: int) -> list[dict[str, object]]:
    """Return documents with ids, texts and payloads of several types."""
    generator = random.Random(seed)
    return [
        {
            "id": f"doc {at} é",
            "text": " ".join(generator.choices(_WORDS, k=generator.randint(1, 60))),
            "year": "unknown" if at % BAD_EVERY == BAD_EVERY - 1 else generator.randint(1900, 2026),
            "tags": generator.sample(_WORDS, 3),
            "nested": {"a": [None, True, generator.random()]},
        }
        for at in range(count)
    ]


def is_good(document: Mapping[str, object]) -> bool:
    """Return whether the collection accepts a document."""
    return isinstance(document["year"], int)


def campaign(address: str, *, documents: int, seed: int, batch: int = 16) -> Outcome:
    """Ingest documents into a new collection through faults; raise AssertionError if the collection differs then."""
    parts = urlsplit(address)
    began = time.monotonic()
    source = make_documents(documents, seed)
    _create(address)
    try:
        with TemporaryDirectory() as folder, FaultProxy((parts.hostname or "", parts.port or 9200)) as proxy:
            through = f"{parts.scheme}://{proxy.host}:{proxy.port}?timeout={TIMEOUT_S}"
            with closing(Index.open(through, collection=NAME)) as index:
                proxy.mix(seed, FAULTS)
                with counted_retries() as retries, outages(proxy, seed) as refused:
                    rounds = _ingest_all(index, source, Path(folder), batch)
            injected = dict(proxy.injected)
            assert _dead_letters(Path(folder)) == {str(each["id"]): 1 for each in source if not is_good(each)}
        with closing(open_store(address, NAME)) as store:
            store.refresh()
            assert (problem := difference(store, expected(source))) is None, problem
    finally:
        _drop(address)
    return Outcome(rounds, retries, len(refused), injected, time.monotonic() - began)


def _create(address: str) -> None:
    _drop(address)  # what an earlier campaign left behind
    Index.create(
        address, collection=NAME, dense="builtin:dense", sparse="builtin:sparse", filterable={"year": "int"}
    ).close()


def _drop(address: str) -> None:
    with suppress(NotFound), closing(open_store(address, NAME)) as store:
        store.drop()


def _ingest_all(index: Index, source: Sequence[Mapping[str, object]], folder: Path, batch: int) -> int:
    """Ingest, and continue each time the store was down for too long; return the number of ingests."""
    for number in range(1, ROUNDS + 1):
        try:
            report = index.ingest(
                source,
                batch=batch,
                resume=folder / "state.json",
                dead_letters=folder / "dead.jsonl",
                patience=Patience(limit=PATIENCE_S, wait_initial=0.2, wait_max=1.0),
            )
        except Temporary:  # the store is still down
            continue
        except IngestFailed as failed:
            if not isinstance(failed.__cause__, Temporary):
                raise
            continue
        good = sum(map(is_good, source))
        assert (report.read, report.confirmed, report.refused_total) == (len(source), good, len(source) - good), report
        return number
    raise AssertionError(f"the ingest is not complete after {ROUNDS} continuations")


def _dead_letters(folder: Path) -> Counter[str]:
    """Return how often each refused document is in the file of dead letters, by id."""
    file = folder / "dead.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return Counter(str(json.loads(line)["failedData"]["document"]["id"]) for line in lines)


class _CountRetries(logging.Handler):
    """Counts retries of all threads by the class of their error, from the log records of the retry layer."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.args, tuple):
            self.counts[type(record.args[0]).__name__] += 1


@contextmanager
def counted_retries() -> Iterator[Counter[str]]:
    """Yield the retries during the block, which are not printed, also if a library has switched their logging off."""
    log, handler = logging.getLogger(retry.__name__), _CountRetries()
    before = log.propagate, log.disabled, log.level, logging.root.manager.disable
    log.addHandler(handler)
    log.propagate, log.disabled, log.level = False, False, logging.WARNING
    logging.disable(logging.NOTSET)
    try:
        yield handler.counts
    finally:
        log.propagate, log.disabled, log.level, level = before
        logging.disable(level)
        log.removeHandler(handler)


@contextmanager
def outages(proxy: FaultProxy, seed: int) -> Iterator[list[float]]:
    """Refuse connections during random times, after random numbers of requests; yield the times in seconds."""
    generator = random.Random(seed)
    ended = threading.Event()
    durations: list[float] = []

    def run() -> None:
        after = generator.randint(20, 80)
        while not ended.wait(0.05):
            if len(proxy.seen) < after:
                continue
            durations.append(generator.uniform(0.1, 3.0))
            with proxy.refusing():
                ended.wait(durations[-1])
            after = len(proxy.seen) + generator.randint(40, 160)

    thread = threading.Thread(target=run, name="outages")
    thread.start()
    try:
        yield durations
    finally:
        ended.set()
        thread.join()


def expected(source: Sequence[Mapping[str, object]]) -> dict[str, Record]:
    """Return the records that the documents become, by id, from the reference store."""
    with closing(
        Index.create("memory:faults", collection=NAME, dense="builtin:dense", sparse="builtin:sparse")
    ) as index:
        index.ingest([document for document in source if is_good(document)])
        records = {record.id: record for record in index.store.scan()}
        index.store.drop()
    return records


def difference(store: Store, wanted: Mapping[str, Record]) -> str | None:
    """Return how a collection differs from the records that it should contain, each once; None if it does not."""
    stored = list(store.scan(batch=500))
    counts = Counter(record.id for record in stored)
    if twice := [name for name, count in counts.items() if count > 1]:
        return f"{len(twice)} ids are stored more than once, such as {twice[0]!r}"
    if lost := wanted.keys() - counts.keys():
        return f"{len(lost)} of {len(wanted)} records are lost, such as {min(lost)!r}"
    if foreign := counts.keys() - wanted.keys():
        return f"{len(foreign)} records are not in the input, such as {min(foreign)!r}"
    for record in stored:
        if problem := _record_difference(record, wanted[record.id]):
            return f"record {record.id!r}: {problem}"
    return None


def _record_difference(record: Record, wanted: Record) -> str | None:
    if dict(record.payload) != dict(wanted.payload):
        return f"the payload is {record.payload}, not {wanted.payload}"
    if record.vectors.keys() != wanted.vectors.keys():
        return f"it has the vectors {sorted(record.vectors)}, not {sorted(wanted.vectors)}"
    for name, vector in record.vectors.items():
        if not _agree(vector, wanted.vectors[name]):
            return f"the vector {name!r} is another one"
    return None


def _agree(vector: Vector, wanted: Vector) -> bool:
    """Return whether two vectors are equal but for the noise of the composition of batches."""
    if isinstance(vector, SparseVector) and isinstance(wanted, SparseVector):
        return np.array_equal(vector.indices, wanted.indices) and np.allclose(vector.values, wanted.values, rtol=1e-5)
    if isinstance(vector, SparseVector) or isinstance(wanted, SparseVector):
        return False
    return vector.shape == wanted.shape and np.allclose(vector, wanted, rtol=1e-5, atol=1e-6)


def main() -> int:
    """Run a campaign on an engine or an address, and return the exit status: 1 if the collection differs."""
    parser = argparse.ArgumentParser(prog="python -m integration.faults", description="Ingest through random faults.")
    parser.add_argument("engine", help="elasticsearch-9, elasticsearch-8, opensearch, or the address of a store")
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    try:
        with TemporaryDirectory() as folder, _address(options.engine, Path(folder)) as address:
            print(campaign(address, documents=options.documents, seed=options.seed))
    except (AssertionError, Absent) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


@contextmanager
def _address(engine: str, folder: Path) -> Iterator[str]:
    if "://" in engine:
        yield engine
        return
    with opened(engine, folder) as url:
        yield address_of(engine, url)


if __name__ == "__main__":
    sys.exit(main())

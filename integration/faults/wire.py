"""Ingest through a proxy that injects random faults, and through outages.

The ingest is interrupted by longer outages and continues from its state.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager

from integration.faults.checking import check
from integration.faults.material import NAME, Document, expected, is_good, make_documents, refused_by_id
from integration.faults.outcome import Outcome
from integration.faults.places import MODELS, Setting, drop
from st_connectors import Index
from st_connectors.errors import Temporary
from st_connectors.ingest import IngestFailed, Patience
from st_connectors.layers import retry
from st_connectors.testing.faults import Answer, BlackHole, CutOff, Delay, Fault, FaultProxy, Pass, Reset, Truncate

__all__ = ["FAULTS", "counted_retries", "injected_faults", "run_through_faults"]

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
    Delay(5.0): 1,
}
"""The weight of each fault; a tuple is a storm."""
TIMEOUT_S = 1
"""The timeout of the client: a black hole takes as long, and so does a long delay."""
PATIENCE_S = 1.0
"""How long an ingest waits for a store that is down; outages take up to three times as long, and end it."""
ROUNDS = 200
"""Continuations until a campaign is given up."""
BATCH = 6


def run_through_faults(setting: Setting) -> Outcome:
    """Ingest documents into a new collection through faults and outages, and compare it with the documents."""
    source = make_documents(setting.documents, setting.seed)
    drop(setting)
    try:
        Index.create(setting.address, collection=NAME, **MODELS).close()
        with FaultProxy(setting.upstream) as proxy:
            address = setting.through(proxy.host, proxy.port, f"?timeout={TIMEOUT_S}")
            with closing(Index.open(address, collection=NAME)) as index:
                proxy.mix(setting.seed, FAULTS)
                with counted_retries() as retries, outages(proxy, setting.seed) as durations:
                    runs = _ingest_all(index, source, setting)
            faults = injected_faults(proxy) + len(durations)
        outcome = Outcome(len(source), runs, faults=faults, retries=retries.total())
        return outcome + check(setting, expected(source), refused_by_id(source), setting.folder / "refused.jsonl")
    finally:
        drop(setting)


def injected_faults(proxy: FaultProxy) -> int:
    """Return the number of requests into which a fault was injected."""
    return proxy.injected.total() - proxy.injected[Pass()]


def _ingest_all(index: Index, source: Sequence[Document], setting: Setting) -> int:
    """Ingest, and continue each time the store was down for too long; return the number of ingests."""
    for number in range(1, ROUNDS + 1):
        try:
            report = index.ingest(
                source,
                batch=BATCH,
                resume=setting.folder / "state.json",
                dead_letters=setting.folder / "refused.jsonl",
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
    raise RuntimeError(f"the ingest is not complete after {ROUNDS} continuations")


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

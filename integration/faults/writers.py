"""Write documents with equal ids by ten writers at once."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from integration.faults.checking import compare_store
from integration.faults.material import NAME, expected, make_documents
from integration.faults.outcome import Outcome
from integration.faults.places import MODELS, Setting, drop
from integration.faults.wire import counted_retries, injected_faults
from st_connectors import Index
from st_connectors.store import Record, Rejected
from st_connectors.testing.faults import Answer, FaultProxy, Pass, Reset

__all__ = ["write_at_once"]

WRITERS = 10
IDS = 40
"""The number of different ids, so that most requests in flight share one."""
BATCH = 4
MAX_DELAY_S = 0.01
ROUNDS = 10
FAULTS = {Pass(): 90, Reset(): 3, Answer(429, retry_after=0): 3, Answer(503): 1}


def write_at_once(setting: Setting) -> Outcome:
    """Ingest several versions of a few documents by ten writers, in rounds; the last version of each is stored.

    Only the last requests of a round can show a wrong order, so that there are many rounds.
    """
    generator = random.Random(setting.seed)
    documents = make_documents(setting.documents, setting.seed)
    source = [{**each, "id": f"doc {generator.randrange(IDS)}", "year": at} for at, each in enumerate(documents)]
    size = len(source) // ROUNDS
    outcome = Outcome(len(source))
    drop(setting)
    try:
        Index.create(setting.address, collection=NAME, **MODELS).close()
        with (
            _through_proxy(setting) as (address, proxy),
            closing(Index.open(address, collection=NAME)) as index,
            counted_retries() as retries,
        ):
            _delay_writes(index.store, generator)
            if proxy is not None:
                proxy.mix(setting.seed, FAULTS)  # from now on: opening is not repeated
            for end in range(size, len(source) + 1, size):
                report = index.ingest(source[end - size : end], batch=BATCH, writers=WRITERS)
                if report.confirmed != size:
                    outcome += Outcome(problem=f"{report.confirmed} of {size} documents are confirmed")
                outcome += Outcome(runs=1) + compare_store(index.store, expected(source[:end]), setting.engine)
        faults = 0 if proxy is None else injected_faults(proxy)
        return outcome + Outcome(faults=faults, retries=retries.total())
    finally:
        drop(setting)


def _delay_writes(store: Any, generator: random.Random) -> None:
    """Let each write of the innermost store begin a random time after its call, so that writes overtake each other."""
    while hasattr(store, "store"):
        store = store.store
    upsert = store.upsert

    def upsert_late(records: Sequence[Record]) -> list[Rejected]:
        time.sleep(generator.uniform(0, MAX_DELAY_S))
        return upsert(records)

    store.upsert = upsert_late


@contextmanager
def _through_proxy(setting: Setting) -> Iterator[tuple[str, FaultProxy | None]]:
    """Yield the address of a proxy in front of a server, and the proxy; for an embedded store its own, and None."""
    if not setting.is_server:
        yield setting.address, None
        return
    with FaultProxy(setting.upstream) as proxy:
        yield setting.through(proxy.host, proxy.port), proxy

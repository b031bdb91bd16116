"""Write documents with equal ids by ten writers at once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing, contextmanager

from integration.faults.checking import compare
from integration.faults.material import NAME, expected, make_documents
from integration.faults.outcome import Outcome
from integration.faults.places import MODELS, Setting, drop
from integration.faults.wire import counted_retries, injected_faults
from st_connectors import Index
from st_connectors.testing.faults import Answer, FaultProxy, Pass, Reset

__all__ = ["write_at_once"]

WRITERS = 10
IDS = 40
"""The number of different ids, so that most requests in flight share one."""
BATCH = 4
FAULTS = {Pass(): 90, Reset(): 3, Answer(429, retry_after=0): 3, Answer(503): 1}


def write_at_once(setting: Setting) -> Outcome:
    """Ingest several versions of a few documents by ten writers; the last version of each is stored."""
    generator = random.Random(setting.seed)
    documents = make_documents(setting.documents, setting.seed)
    source = [{**each, "id": f"doc {generator.randrange(IDS)}", "year": at} for at, each in enumerate(documents)]
    drop(setting)
    try:
        Index.create(setting.address, collection=NAME, **MODELS).close()
        with (
            _through_faults(setting) as (address, proxy),
            closing(Index.open(address, collection=NAME)) as index,
            counted_retries() as retries,
        ):
            report = index.ingest(source, batch=BATCH, writers=WRITERS)
        faults = 0 if proxy is None else injected_faults(proxy)
        outcome = Outcome(len(source), runs=1, faults=faults, retries=retries.total())
        if report.confirmed != len(source):
            outcome += Outcome(problem=f"{report.confirmed} of {len(source)} documents are confirmed")
        return outcome + compare(setting, expected(source))
    finally:
        drop(setting)


@contextmanager
def _through_faults(setting: Setting) -> Iterator[tuple[str, FaultProxy | None]]:
    """Yield an address by which some requests of a server fail and are repeated; that of an embedded store itself."""
    if not setting.is_server:
        yield setting.address, None
        return
    with FaultProxy(setting.upstream) as proxy:
        proxy.mix(setting.seed, FAULTS)
        yield setting.through(proxy.host, proxy.port), proxy

"""Count what a sync would change, and estimate how long it takes, without changing anything."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from st_connectors.ingest.changes import Change, DocumentComparison
from st_connectors.ingest.documents import Document
from st_connectors.ingest.encode import Batch, encode_batch, gather_batches
from st_connectors.ingest.missing import count_missing
from st_connectors.ingest.pipeline import IngestOptions
from st_connectors.ingest.windows import Prepared
from st_connectors.store import Store
from st_connectors.vectorise import FieldEncoder

__all__ = ["SyncPlan", "plan_sync"]

SAMPLE = 64
"""The number of texts that are encoded to measure the speed."""


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """What a sync would do: the numbers of documents by how they differ from the collection.

    ``missing`` counts the documents of the collection that are not in the source, and ``refused`` the values of the
    source that are no documents; what the store or a model would refuse is not known. Documents that share an id count
    each. ``seconds`` is the estimated time, by the speed of encoding a sample of the new and changed texts; reading and
    comparing count as long as they took for the plan.
    """

    new: int = 0
    text_changed: int = 0
    payload_changed: int = 0
    unchanged: int = 0
    missing: int = 0
    refused: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        counts = {
            "new": self.new,
            "with a changed text": self.text_changed,
            "with a changed payload": self.payload_changed,
            "unchanged": self.unchanged,
            "missing in the source": self.missing,
        }
        parts = [f"{count:,} {what}" for what, count in counts.items()]
        parts += [f"{self.refused:,} refused"] if self.refused else []
        return f"{', '.join(parts)}; about {self.seconds:,.1f} s"

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


class _Sample:
    """A random sample of windows, and the number of characters of all windows."""

    def __init__(self) -> None:
        self.windows: list[Document] = []
        self.characters = 0
        self._seen = 0
        self._random = random.Random(0)  # noqa: S311  # a sample, not a secret

    def add(self, window: Document) -> None:
        """Add a window; each one is in the sample with the same probability."""
        self._seen += 1
        self.characters += len(window.text)
        if len(self.windows) < SAMPLE:
            self.windows.append(window)
        elif (at := self._random.randrange(self._seen)) < SAMPLE:
            self.windows[at] = window


def plan_sync(
    store: Store,
    documents: Iterable[object],
    encoders: Sequence[FieldEncoder],
    comparison: DocumentComparison,
    options: IngestOptions,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> SyncPlan:
    """Compare documents with a collection and return what a sync would change; ``clock`` returns seconds."""
    began = clock()
    counts: Counter[Change] = Counter()
    refused = 0
    sample = _Sample()
    for batch in _batches(documents, options):
        changes = comparison.classify(batch)
        comparison.add(batch)
        counts.update(changes.values())
        refused += len(batch.refused)
        for item in batch.documents:
            if changes[item.position] in {Change.NEW, Change.TEXT}:
                for window in item.windows:
                    sample.add(window)
    missing = count_missing(store, comparison.ids, store.count())
    seconds = clock() - began
    return SyncPlan(
        new=counts[Change.NEW],
        text_changed=counts[Change.TEXT],
        payload_changed=counts[Change.PAYLOAD],
        unchanged=counts[Change.NONE],
        missing=missing.documents,
        refused=refused,
        seconds=seconds + _encode_seconds(sample, encoders, clock),
    )


def _batches(documents: Iterable[object], options: IngestOptions) -> Iterator[Batch]:
    return gather_batches(
        enumerate(documents), options.text_key, options.spans, count=options.batch, size=options.batch_bytes
    )


def _encode_seconds(sample: _Sample, encoders: Sequence[FieldEncoder], clock: Callable[[], float]) -> float:
    """Return the time of encoding all windows, in proportion to the characters of a sample."""
    characters = sum(len(window.text) for window in sample.windows)
    if not characters:
        return 0.0
    prepared = [Prepared(at, window, (window,)) for at, window in enumerate(sample.windows)]
    encode_batch(Batch(tuple(prepared[:1]), (), 0, 1), encoders)  # the first call is slower than the others
    began = clock()
    encode_batch(Batch(tuple(prepared), (), 0, len(prepared)), encoders)
    return (clock() - began) * sample.characters / characters

"""Measure how memory and the time per document grow with an OpenSearch collection, beside the client's bulk path.

    python -m bench.curve [--json]

300,000 short documents with 16 dense numbers, four sparse weights and words are ingested into a node, and written to a
plain index of it by ``parallel_bulk``, in turns of 10,000. The time per document at the end is compared with that at
the start, on both sides: the second ratio is the curve of the server. ``bench.ingest growth`` ingests 1,000,000
documents without one.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.bare import Open, bare_of, timed
from bench.figures import report, spread
from bench.memory import WORDS, resident
from bench.speed import schema
from integration.stores import Absent, opened
from st_connectors.ingest.pipeline import IngestOptions, ingest
from st_connectors.registry import open_store
from st_connectors.schema import FieldKind
from st_connectors.store import Record, Store, Vector
from st_connectors.vectorise import FieldEncoder
from st_core.vectors import SparseVector

STORE = "opensearch"
COLLECTION = "curve"
COUNT = 300_000
DIMENSION = 16
TARGETS = {"growth_mb": ("<", 100.0), "cost_per_document": ("<", 1.2)}
PART = 10_000


class Hashes(FieldEncoder):
    """Short vectors that are computed from hashes of texts, which costs next to nothing."""

    def documents(self, texts: list[str], tokens: object = None) -> list[Vector]:
        """Return the vectors of documents."""
        del tokens
        return [(dense_of if self.kind is FieldKind.DENSE else sparse_of)(text) for text in texts]


def text_of(number: int) -> str:
    """Return a short text, distinct from those of other numbers."""
    words = (WORDS[number // step % len(WORDS)] for step in (1, 7, len(WORDS)))
    return f"{' '.join(words)} {number}"


def dense_of(text: str) -> Vector:
    """Return 16 numbers."""
    vector = np.frombuffer(hashlib.blake2b(text.encode(), digest_size=DIMENSION).digest(), np.uint8) - np.float32(127.5)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def sparse_of(text: str) -> Vector:
    """Return four weights or fewer."""
    return SparseVector.from_mapping({each % 10_000: 0.5 + each % 8 / 8 for each in map(hash, text.split()[:4])})


def write_ours(store: Store, numbers: range) -> None:
    """Ingest one part of the documents."""
    model: Any = None
    encoders = [Hashes("dense", FieldKind.DENSE, model), Hashes("sparse", FieldKind.SPARSE, model)]
    documents = ({"id": f"d{number}", "text": text_of(number), "kind": "x"} for number in numbers)
    ingest(store, documents, encoders, options=IngestOptions(writers=store.capabilities.writers))


def write_theirs(bare: Open, numbers: range) -> None:
    """Write the same part by the client alone."""
    texts = ((number, text_of(number)) for number in numbers)
    records = (
        Record(f"d{number}", {"dense": dense_of(text), "sparse": sparse_of(text)}, {"text": text, "kind": "x"})
        for number, text in texts
    )
    bare.fill_in_threads(2, 500, records)


def rise(times: Sequence[float]) -> float:
    """Return the median time of the last five parts over that of the first five, after a warm-up part."""
    return median(times[-5:]) / median(times[1:6])


def measure(count: int = COUNT) -> dict[str, Any]:
    """Return the figures of both sides, which take turns part by part, or none if there is no node."""
    ours: list[float] = []
    theirs: list[float] = []
    memory: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            with opened(STORE, Path(folder)) as url, _both(url, Path(folder)) as (store, bare):
                for start in range(0, count, PART):
                    numbers = range(start, start + PART)
                    ours.append(timed(write_ours, store, numbers))
                    memory.append(resident())
                    theirs.append(timed(write_theirs, bare, numbers))
        except Absent as reason:
            print(f"not available: {reason}", file=sys.stderr)
            return {}
    return {
        "documents": count,
        "growth_mb": max(memory) - memory[0],
        "documents_per_s": count / sum(ours),
        "cost_per_document": rise(ours),
        "client_documents_per_s": count / sum(theirs),
        "client_cost_per_document": rise(theirs),
        "ratio": spread([client / own for own, client in zip(ours[1:], theirs[1:], strict=True)]),
    }


@contextmanager
def _both(url: str, folder: Path) -> Iterator[tuple[Store, Open]]:
    """Yield an empty collection of each side, and drop them afterwards."""
    of_collection = replace(schema(DIMENSION), collection=COLLECTION)
    with closing(open_store(url, COLLECTION, of_collection)) as store, closing(bare_of(STORE, url, folder)) as bare:
        assert isinstance(bare, Open)
        bare.create(DIMENSION)
        store.drop()
        store.create()
        try:
            yield store, bare
        finally:
            store.drop()


def main() -> int:
    """Measure and print."""
    figures = measure()
    return report(figures, TARGETS) if figures else 1


if __name__ == "__main__":
    raise SystemExit(main())

"""Measure how memory and the time per document grow with an OpenSearch collection, beside the client's bulk path.

    python -m bench.curve [--json]

300,000 short documents with 16 dense numbers, four sparse weights and words are ingested into a node, and then written
to a plain index by ``parallel_bulk``. The time per document at the end is compared with that at the start, on both
sides: the second ratio is the curve of the server. ``bench.ingest growth`` ingests 1,000,000 documents without one.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.bare import Open, bare_of
from bench.figures import report
from bench.memory import resident
from bench.memory import texts as short_texts
from bench.speed import schema
from integration.stores import Absent, opened
from st_connectors.ingest.pipeline import IngestOptions, ingest
from st_connectors.registry import open_store
from st_connectors.schema import FieldKind
from st_connectors.store import Record, Vector
from st_connectors.vectorise import FieldEncoder
from st_core.vectors import SparseVector

STORE = "opensearch"
COLLECTION = "curve"
COUNT = 300_000
SETTLED = 10_000
PARTS = 30
DIMENSION = 16
TARGETS = {"growth_mb": ("<", 100.0), "cost_per_document": ("<", 1.2)}
Mark = tuple[int, float, float]
"""The number of documents written, the time, and the memory of this process in MB."""


class Hashes(FieldEncoder):
    """Short vectors that are computed from hashes of texts, which costs next to nothing."""

    def documents(self, texts: list[str], tokens: object = None) -> list[Vector]:
        """Return the vectors of documents."""
        del tokens
        return [(dense_of if self.kind is FieldKind.DENSE else sparse_of)(text) for text in texts]


def dense_of(text: str) -> Vector:
    """Return 16 numbers."""
    vector = np.frombuffer(hashlib.blake2b(text.encode(), digest_size=DIMENSION).digest(), np.uint8) - np.float32(127.5)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def sparse_of(text: str) -> Vector:
    """Return four weights or fewer."""
    return SparseVector.from_mapping({each % 10_000: 0.5 + each % 8 / 8 for each in map(hash, text.split()[:4])})


def write_ours(url: str, texts: Iterator[str]) -> list[Mark]:
    """Ingest documents, and return a mark for each batch."""
    model: Any = None
    encoders = [Hashes("dense", FieldKind.DENSE, model), Hashes("sparse", FieldKind.SPARSE, model)]
    marks: list[Mark] = []
    with closing(open_store(url, COLLECTION, replace(schema(DIMENSION), collection=COLLECTION))) as store:
        store.drop()
        store.create()
        documents = ({"id": f"d{number}", "text": text, "kind": "x"} for number, text in enumerate(texts))
        options = IngestOptions(writers=store.capabilities.writers)
        marks.append((0, time.perf_counter(), resident()))
        ingest(store, documents, encoders, options=options, progress=lambda report: marks.append(_mark(report.read)))
        store.drop()
    return marks


def write_theirs(url: str, folder: Path, texts: Iterator[str]) -> list[Mark]:
    """Write the same documents by the client alone, and return a mark for each thousand."""
    records = (
        Record(f"d{number}", {"dense": dense_of(text), "sparse": sparse_of(text)}, {"text": text, "kind": "x"})
        for number, text in enumerate(texts)
    )
    marks: list[Mark] = []
    with closing(bare_of(STORE, url, folder)) as bare:
        assert isinstance(bare, Open)
        bare.create(DIMENSION)
        marks.append(_mark(0))
        for number, _ in enumerate(bare.written(records, threads=2, size=500), 1):
            if number % 1000 == 0:
                marks.append(_mark(number))
    return marks


def _mark(count: int) -> Mark:
    return count, time.perf_counter(), resident()


def rise(marks: list[Mark]) -> float:
    """Return the median time per document in the last sixth over that in the first, without the first part."""
    parts = marks[:: max(1, len(marks) // PARTS)]
    times = [(late[1] - early[1]) / (late[0] - early[0]) for early, late in pairwise(parts)][1:]
    return median(times[-5:]) / median(times[:5])


def _rate(marks: list[Mark]) -> float:
    return marks[-1][0] / (marks[-1][1] - marks[0][1])


def measure(count: int = COUNT) -> dict[str, Any]:
    """Return the figures of both sides, or none if there is no node."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with opened(STORE, Path(folder)) as url:
                ours = write_ours(url, short_texts(count))
                theirs = write_theirs(url, Path(folder), short_texts(count))
        except Absent as reason:
            print(f"not available: {reason}", file=sys.stderr)
            return {}
    settled = next(memory for written, _, memory in ours if written >= SETTLED)
    return {
        "documents": count,
        "growth_mb": max(memory for _, _, memory in ours) - settled,
        "documents_per_s": _rate(ours),
        "cost_per_document": rise(ours),
        "client_documents_per_s": _rate(theirs),
        "client_cost_per_document": rise(theirs),
    }


def main() -> int:
    """Measure and print."""
    figures = measure()
    return report(figures, TARGETS) if figures else 1


if __name__ == "__main__":
    raise SystemExit(main())

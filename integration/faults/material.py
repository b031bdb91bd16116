"""The documents of the scenarios, the records that they become, and the comparison of these with a collection."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from st_connectors import Index
from st_connectors.chunks import SYNC_KEY
from st_connectors.store import Record, Store, Vector
from st_core.vectors import SparseVector

__all__ = [
    "NAME",
    "Difference",
    "Document",
    "difference",
    "expected",
    "is_good",
    "letters_by_id",
    "make_documents",
    "record_difference",
    "refused_by_id",
    "write_jsonl",
]

NAME = "faults"
"""The name of the collection."""
BAD_EVERY = 97
"""Every so many documents one is refused: its year is not a number."""
AGAIN_EVERY, BEFORE = 50, 30
"""Every ``AGAIN_EVERY`` documents one has the id of the document ``BEFORE`` places earlier, which it replaces."""
_WORDS = ["sea", "boat", "kettle", "paper", "planet", "glass", "violin", "harbour", "winter", "engine", "garden"]

Document = Mapping[str, object]


def make_documents(count: int, seed: int) -> list[dict[str, object]]:
    """Return documents with ids, texts and payloads of several types; some are bad, and some ids occur twice."""
    generator = random.Random(seed)
    return [
        {
            "id": f"doc {at - BEFORE if at % AGAIN_EVERY == AGAIN_EVERY - 1 else at} é",
            "text": " ".join(generator.choices(_WORDS, k=generator.randint(1, 60))),
            "year": "unknown" if at % BAD_EVERY == BAD_EVERY - 1 else generator.randint(1900, 2026),
            "tags": generator.sample(_WORDS, 3),
            "nested": {"a": [None, True, generator.random()]},
        }
        for at in range(count)
    ]


def is_good(document: Document) -> bool:
    """Return whether the collection accepts a document."""
    return isinstance(document["year"], int)


def write_jsonl(path: Path, documents: Iterable[Document]) -> None:
    """Write documents to a JSONL file."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(document)}\n" for document in documents)


def expected(source: Sequence[Document], *, dense: str = "builtin:dense") -> dict[str, Record]:
    """Return the records that the documents become, by id, from the reference store: of each id the last good one."""
    last = {document["id"]: document for document in source if is_good(document)}
    with closing(Index.create("memory:faults", collection=NAME, dense=dense, sparse="builtin:sparse")) as index:
        index.ingest(last.values())
        records = {record.id: record for record in index.store.scan()}
        index.store.drop()
    return records


def refused_by_id(source: Sequence[Document]) -> Counter[str]:
    """Return how many documents with each id the collection refuses."""
    return Counter(str(document["id"]) for document in source if not is_good(document))


def letters_by_id(path: Path) -> Counter[str]:
    """Return how many dead letters a file has for each id; none if there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return Counter(str(json.loads(line)["failedData"]["indexId"]) for line in lines)


@dataclass(frozen=True, slots=True)
class Difference:
    """How a collection differs from its input: the numbers of records, and an example."""

    example: str
    lost: int = 0
    doubled: int = 0

    def __str__(self) -> str:
        return self.example


def difference(store: Store, wanted: Mapping[str, Record]) -> Difference | None:
    """Return how a collection differs from the records that it should contain, each once; None if it does not."""
    stored = list(store.scan(batch=500))
    counts = Counter(record.id for record in stored)
    twice = [name for name, count in counts.items() if count > 1]
    lost = wanted.keys() - counts.keys()
    foreign = counts.keys() - wanted.keys()
    examples = [
        *(f"{len(twice)} ids are stored more than once, such as {name!r}" for name in twice[:1]),
        *(f"{len(lost)} of {len(wanted)} records are lost, such as {name!r}" for name in sorted(lost)[:1]),
        *(f"{len(foreign)} records are not in the input, such as {name!r}" for name in sorted(foreign)[:1]),
        *_wrong_records([record for record in stored if record.id in wanted], wanted),
    ]
    return Difference("; ".join(examples), len(lost), len(twice)) if examples else None


def _wrong_records(stored: Iterable[Record], wanted: Mapping[str, Record]) -> list[str]:
    """Return what is wrong with the first wrong record, and how many there are."""
    problems = {record.id: record_difference(record, wanted[record.id]) for record in stored}
    wrong = {name: problem for name, problem in problems.items() if problem is not None}
    return [f"{len(wrong)} records are wrong, such as {name!r}: {wrong[name]}" for name in sorted(wrong)[:1]]


def record_difference(record: Record, wanted: Record) -> str | None:
    """Return how a record differs from another one in payload or vectors; None if it does not.

    The hashes that a sync stores in the payload are ignored.
    """
    payload = {key: value for key, value in record.payload.items() if key != SYNC_KEY}
    if payload != dict(wanted.payload):
        return f"the payload is {payload}, not {wanted.payload}"
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

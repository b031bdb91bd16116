"""Measure writing alone: an ingest of encoded documents beside the best bulk path of each store's own client.

    python -m bench.sinks [--json] [STORE ...]

Documents are the docstrings of the standard library with the vectors of the built-in models, which are looked up
instead of computed. Every bulk path of a client is tried once; the fastest one then takes turns with ingests, each into
a fresh collection. Both sides end when the documents are durable and visible. The figure is documents per second over
those of the client. With ``--writers`` ingests with 1, 2, 3 and 4 writers take turns instead.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.bare import Bare, bare_of, timed
from bench.figures import report, spread
from bench.speed import COLLECTION, Material, material, schema
from integration.stores import Absent, opened
from st_connectors.ingest.pipeline import IngestOptions, ingest
from st_connectors.registry import open_store
from st_connectors.schema import FieldKind
from st_connectors.store import Record, Store, Vector
from st_connectors.vectorise import FieldEncoder

STORES = ("qdrant-edge", "milvus-lite", "elasticsearch-9", "opensearch")
TARGETS = {"qdrant-edge": 1.0, "milvus-lite": 1.0, "elasticsearch-9": 1.5, "opensearch": 1.5}
ROUNDS = 5
WRITERS = (1, 2, 3, 4)


@dataclass(frozen=True, slots=True)
class Known(FieldEncoder):
    """The vectors of one field, by text."""

    vectors: Mapping[str, Vector] = field(default_factory=dict)

    def documents(self, texts: list[str], tokens: object = None) -> list[Vector]:
        """Return the vectors of documents."""
        del tokens
        return [self.vectors[text] for text in texts]


def known(records: Sequence[Record]) -> list[FieldEncoder]:
    """Return encoders that know the vectors of all records."""
    model: Any = None
    return [
        Known(name, kind, model, vectors={record.payload["text"]: record.vectors[name] for record in records})
        for name, kind in (("dense", FieldKind.DENSE), ("sparse", FieldKind.SPARSE))
    ]


def fill(store: Store, records: Sequence[Record], encoders: Sequence[FieldEncoder], writers: int) -> None:
    """Ingest all records with their vectors."""
    documents = ({**record.payload, "id": record.id} for record in records)
    done = ingest(store, documents, encoders, options=IngestOptions(writers=writers))
    if done.refused:
        raise RuntimeError(f"{done.refused[0].id}: {done.refused[0].reason}")


def renew(store: Store) -> None:
    """Create the collection anew and empty."""
    store.drop()
    store.create()


def compare(store: Store, bare: Bare, inputs: Material) -> dict[str, Any]:
    """Return the figures of one store: both sides in turns, of which the first is a warm-up."""
    encoders, writers = known(inputs.records), store.capabilities.writers
    best = _best_path(bare, inputs)
    ours: list[float] = []
    theirs: list[float] = []
    for turn in range(ROUNDS + 1):
        runs = [
            (ours, partial(renew, store), partial(fill, store, inputs.records, encoders, writers)),
            (theirs, partial(bare.create, inputs.dimension), partial(best.run, inputs.records)),
        ]
        for times, empty, run in runs if turn % 2 else reversed(runs):
            empty()
            times.append(timed(run))
    count = len(inputs.records)
    return {
        "ours_per_s": spread([count / each for each in ours[1:]]),
        "client_per_s": spread([count / each for each in theirs[1:]]),
        "client_path": best.name,
        "ratio": spread([client / own for own, client in zip(ours[1:], theirs[1:], strict=True)]),
    }


@dataclass(frozen=True, slots=True)
class _Path:
    name: str
    run: Callable[[Sequence[Record]], None]


def _best_path(bare: Bare, inputs: Material) -> _Path:
    """Return the fastest bulk path of a client, each tried once after a warm-up."""
    paths = [_Path(name, run) for name, run in bare.bulk_paths().items()]
    times = []
    for path in (paths[0], *paths):
        bare.create(inputs.dimension)
        times.append(timed(path.run, inputs.records))
    return min(zip(times[1:], paths, strict=True), key=lambda pair: pair[0])[1]


def compare_writers(store: Store, inputs: Material) -> dict[str, Any]:
    """Return documents per second by the number of writers, in turns, of which the first is a warm-up."""
    encoders = known(inputs.records)
    times: dict[int, list[float]] = {writers: [] for writers in WRITERS}
    for turn in range(ROUNDS + 1):
        for writers in WRITERS if turn % 2 else reversed(WRITERS):
            renew(store)
            times[writers].append(timed(fill, store, inputs.records, encoders, writers))
    count = len(inputs.records)
    return {f"writers_{writers}": spread([count / each for each in taken[1:]]) for writers, taken in times.items()}


def measure(names: Sequence[str], *, writers: bool = False) -> dict[str, Any]:
    """Return the figures of stores, with the store in front of the name of each figure."""
    inputs = _without_ids(material())
    figures: dict[str, Any] = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            try:
                with opened(name, Path(folder)) as address:
                    of_store = _at(name, address, inputs, Path(folder), writers=writers)
                    figures |= {f"{name}_{key}": value for key, value in of_store.items()}
            except Absent as reason:
                print(f"not available: {reason}", file=sys.stderr)
    return figures


def _without_ids(inputs: Material) -> Material:
    """Return material whose payloads lack the key of the id, which a document has once."""
    records = [
        replace(record, payload={key: value for key, value in record.payload.items() if key != "id"})
        for record in inputs.records
    ]
    return replace(inputs, records=records)


def _at(name: str, address: str, inputs: Material, folder: Path, *, writers: bool) -> dict[str, Any]:
    with closing(open_store(address, COLLECTION, schema(inputs.dimension))) as store:
        store.create()
        try:
            if writers:
                return compare_writers(store, inputs)
            with closing(bare_of(name, address, folder)) as bare:
                return compare(store, bare, inputs)
        finally:
            store.drop()


def main() -> int:
    """Measure the requested stores, or all; return 1 if a target is missed."""
    names = [each for each in sys.argv[1:] if not each.startswith("--")]
    if unknown := set(names) - set(STORES):
        print(f"unknown store {', '.join(sorted(unknown))}; expected some of {', '.join(STORES)}", file=sys.stderr)
        return 2
    figures = measure(names or STORES, writers="--writers" in sys.argv)
    targets = {f"{name}_ratio": (">=", target) for name, target in TARGETS.items() if f"{name}_ratio" in figures}
    return report(figures, targets)


if __name__ == "__main__":
    raise SystemExit(main())

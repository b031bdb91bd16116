"""Compare the speed of each store with that of its own client, side by side.

    python -m bench.speed [--json] [--markdown] [STORE ...]

Records are the docstrings of the standard library with the vectors of the built-in models; questions are their
beginnings. Both are encoded beforehand. Ingest alternates between fresh collections, ours and a plain one of the
client (``bench.bare``); every question is asked of both, one after the other. Stores run one at a time; servers are
started as the integration tests start them, and unavailable ones are reported.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from bench.bare import DEPTH, LEGS, LIMIT, NAME, Bare, bare_of, timed
from bench.figures import spread
from integration.stores import Absent, opened
from st_connectors.schema import DenseField, FilterKind, Schema, SparseField, TextField
from st_connectors.store import Fuse, Leg, Match, Near, Parts, Record, SearchRequest, Store
from st_core.vectors import SparseVector

COLLECTION = "speed"
ROUNDS = 5
QUESTIONS = 200
SMALL = {"qdrant-memory": (2_000, 40)}
"""Records and questions of stores that are designed for few."""
DRIVERS = {
    "qdrant-edge": "qdrant-edge-py",
    "milvus-lite": "pymilvus",
    "elasticsearch-9": "elasticsearch",
    "opensearch": "opensearch-py",
    "qdrant-memory": "qdrant-client",
}
RATIO, SHARE, MILLISECONDS = 1.0, 0.10, 0.5
"""The targets: the ratio of ingest to the client's, and two limits of a query's overhead, of which one must hold."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A text query and its vectors."""

    text: str
    dense: Any
    sparse: SparseVector


@dataclass(frozen=True, slots=True)
class Material:
    """The records and questions."""

    records: Sequence[Record]
    questions: Sequence[Asked]
    dimension: int


def material() -> Material:
    """Return the docstrings and questions, encoded."""
    from st_connectors.demo.corpus import documents
    from st_connectors.demo.docstrings import collect
    from st_core import SentenceTransformer, SparseEncoder

    docstrings = collect()
    dense, sparse = SentenceTransformer("builtin:dense"), SparseEncoder("builtin:sparse")
    inputs = list(documents(docstrings))
    texts = [document["text"] for document in inputs]
    rows = zip(inputs, dense.encode_document(texts), sparse.encode_document(texts).rows(), strict=True)
    records = [
        Record(document["id"], {"dense": one / np.linalg.norm(one), "sparse": other}, document)
        for document, one, other in rows
        if len(other) and one.any()
    ]
    words = [" ".join(item.text.split()[:8]) for item in docstrings[:: max(1, len(docstrings) // QUESTIONS)]][
        :QUESTIONS
    ]
    encoded = zip(words, dense.encode_query(words), sparse.encode_query(words).rows(), strict=True)
    return Material(records, [Asked(*one) for one in encoded], int(dense.get_embedding_dimension()))


def schema(dimension: int) -> Schema:
    """Return the collection's schema."""
    fields = {"dense": DenseField(dimension), "sparse": SparseField(), "text": TextField()}
    return Schema(COLLECTION, fields, {"kind": FilterKind.KEYWORD})


def rank(leg: str, question: Asked) -> Leg | Fuse:
    """Return the legs to search by."""
    near = {"dense": Near("dense", question.dense), "sparse": Near("sparse", question.sparse)}
    if leg == "hybrid":
        return Fuse((near["dense"], near["sparse"]), DEPTH)
    return Match("text", question.text) if leg == "text" else near[leg]


def ask(store: Store, leg: str, question: Asked) -> Any:
    """Return the best ten hits with payloads."""
    return store.search([SearchRequest(rank(leg, question), limit=LIMIT, parts=Parts.PAYLOAD)])


def fill(store: Store, records: Sequence[Record]) -> None:
    """Store all records, until they are durable and visible."""
    rejected = store.upsert(records)
    if rejected:
        raise RuntimeError(f"{rejected[0].id}: {rejected[0].error}")
    store.refresh()


def ingest(store: Store, bare: Bare, inputs: Material) -> dict[str, Any]:
    """Return records per second of both, in turns, and the ratio of each turn but the first, which warms up."""
    ours: list[float] = []
    theirs: list[float] = []
    for turn in range(ROUNDS + 1):
        store.drop()
        store.create()
        bare.create(inputs.dimension)
        runs = [(ours, partial(fill, store, inputs.records)), (theirs, partial(bare.fill, inputs.records))]
        for times, run in runs if turn % 2 else reversed(runs):
            times.append(timed(run))
    count = len(inputs.records)
    return {
        "ours_per_s": spread([count / each for each in ours[1:]]),
        "client_per_s": spread([count / each for each in theirs[1:]]),
        "ratio": spread([b / a for a, b in zip(ours[1:], theirs[1:], strict=True)]),
    }


def parallel_ingest(bare: Any, inputs: Material) -> dict[str, float] | None:
    """Return records per second of ``parallel_bulk`` with four threads, if the client has it; for information only."""
    if not hasattr(bare, "parallel"):
        return None
    bare.parallel = True
    times = []
    for _ in range(3):
        bare.create(inputs.dimension)
        times.append(timed(bare.fill, inputs.records))
    bare.parallel = False
    return spread([len(inputs.records) / each for each in times])


def latency(store: Store, bare: Bare, leg: str, questions: Sequence[Asked]) -> dict[str, Any]:
    """Return milliseconds of both and of the difference, question by question."""
    ours: list[float] = []
    theirs: list[float] = []
    for question in questions[:20]:
        ask(store, leg, question)
        bare.ask(leg, question)
    for turn, question in enumerate(questions):
        runs = [(ours, partial(ask, store, leg, question)), (theirs, partial(bare.ask, leg, question))]
        for times, run in runs if turn % 2 else reversed(runs):
            times.append(timed(run) * 1e3)
    over = sorted(a - b for a, b in zip(ours, theirs, strict=True))
    quarters = statistics.quantiles(over, n=4)
    return {
        "ours": _percentiles(ours),
        "client": _percentiles(theirs),
        "overhead": {"median": statistics.median(over), "min": quarters[0], "max": quarters[2]},
        "share": statistics.median(ours) / statistics.median(theirs) - 1,
    }


def _percentiles(times: Sequence[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {"p50": statistics.median(ordered), "p99": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]}


def measure(name: str, address: str, inputs: Material, folder: Path) -> dict[str, Any]:
    """Return all figures of one store."""
    from st_connectors.registry import open_store

    count, question_count = SMALL.get(name, (len(inputs.records), len(inputs.questions)))
    inputs = Material(inputs.records[:count], inputs.questions[:question_count], inputs.dimension)
    bare = bare_of(name, address, folder)
    with closing(open_store(address, COLLECTION, schema(inputs.dimension))) as store, closing(bare):
        measured: dict[str, Any] = {
            "versions": _versions(name, address),
            "documents": count,
            "ingest": ingest(store, bare, inputs),
        }
        measured["queries"] = {leg: latency(store, bare, leg, inputs.questions) for leg in LEGS}
        measured["bytes"] = _bytes(name, address, folder, count)
        measured["parallel_bulk_per_s"] = parallel_ingest(bare, inputs)
        store.drop()
    return measured


def _versions(name: str, address: str) -> str:
    client = f"{DRIVERS[name]} {version(DRIVERS[name])}"
    if name == "milvus-lite":
        return f"{client}, milvus-lite {version('milvus-lite')}"
    host = urlsplit(address).netloc
    if not host:
        return client
    nodes = _answer(f"http://{host}/_nodes?filter_path=nodes.*.version")["nodes"]
    return f"{client}, server {next(iter(nodes.values()))['version']}"


def _bytes(name: str, address: str, folder: Path, count: int) -> dict[str, float] | None:
    """Return bytes on disk per record, ours and the client's; None for stores in memory.

    Servers are measured after a merge into one segment.
    """
    host = urlsplit(address).netloc
    if host:
        sizes = {}
        for what, index in (("ours", COLLECTION), ("client", NAME)):
            _answer(f"http://{host}/{index}/_forcemerge?max_num_segments=1", b"")
            _answer(f"http://{host}/{index}/_flush", b"")
            stats = _answer(f"http://{host}/{index}/_stats/store")
            sizes[what] = stats["_all"]["total"]["store"]["size_in_bytes"] / count
        return sizes
    paths = {"ours": folder / name, "client": next(iter(folder.glob("bare*")), None)}
    if name == "qdrant-memory" or paths["client"] is None:
        return None
    return {what: _size(path) / count for what, path in paths.items() if path is not None}


def _size(path: Path) -> int:
    """Return the bytes that a folder occupies on disk, in blocks, because logs are allocated in advance."""
    return sum(each.stat().st_blocks * 512 for each in path.rglob("*") if each.is_file())


def _answer(url: str, data: bytes | None = None) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=120) as answer:
        return json.load(answer)


@contextmanager
def _at(name: str, folder: Path) -> Iterator[str]:
    if name == "qdrant-memory":
        yield "qdrant+memory:speed"
    else:
        with opened(name, folder) as address:
            yield address


def missed(name: str, figures: Mapping[str, Any]) -> list[str]:
    """Describe the figures of a store that miss their targets."""
    bad = []
    ratio = figures["ingest"]["ratio"]["median"]
    if ratio < RATIO:
        bad.append(f"{name}: ingest is {ratio:.2f} of the client's; target >= {RATIO}")
    for leg, each in figures["queries"].items():
        over = each["overhead"]["median"]
        if each["share"] >= SHARE and over >= MILLISECONDS:
            bad.append(f"{name}: {leg} costs {over:.2f} ms more, {each['share']:.0%}; target < 0.5 ms or < 10 %")
    return bad


def markdown(results: Mapping[str, Any]) -> str:
    """Return the tables of the documentation page."""
    lines = [
        "| store | leg | p50 ms | p99 ms | client p50 | client p99 | overhead ms, median [quartiles] | share of p50 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, measured in results.items():
        for leg, each in measured["queries"].items():
            ours, client = each["ours"], each["client"]
            lines.append(
                f"| {name} | {leg} | {ours['p50']:.2f} | {ours['p99']:.2f} | {client['p50']:.2f} | {client['p99']:.2f} "
                f"| {_ranged(each['overhead'])} | {each['share']:+.0%} |"
            )
    lines += [
        "",
        "| store | versions | records | ingest/s | client | ratio [range] | parallel_bulk/s | bytes/record | client |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, measured in results.items():
        put, size, many = measured["ingest"], measured["bytes"], measured["parallel_bulk_per_s"]
        shown = [f"{size[what]:,.0f}" for what in ("ours", "client")] if size else ["-", "-"]
        lines.append(
            f"| {name} | {measured['versions']} | {measured['documents']:,} | {put['ours_per_s']['median']:,.0f} "
            f"| {put['client_per_s']['median']:,.0f} | {_ranged(put['ratio'])} "
            f"| {format(many['median'], ',.0f') if many else '-'} | {' | '.join(shown)} |"
        )
    return "\n".join(lines)


def _ranged(value: Mapping[str, float]) -> str:
    return f"{value['median']:.2f} [{value['min']:.2f}, {value['max']:.2f}]"


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.speed", description="Compare the speed of every store with that of its own client."
    )
    parser.add_argument("stores", nargs="*", metavar="STORE", help=f"{', '.join(DRIVERS)} (default: all available)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--markdown", action="store_true", help="print tables (the default)")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.stores if name not in DRIVERS]:
        parser.error(f"unknown store {', '.join(unknown)}; expected one of {', '.join(DRIVERS)}")
    return arguments


def check_client(name: str) -> None:
    """Raise Absent if a store's client is not installed."""
    try:
        version(DRIVERS[name])
    except PackageNotFoundError:
        raise Absent(f"{name}: the client is not installed; pip install {DRIVERS[name]}") from None


def main() -> int:
    """Measure the requested or all available stores; return 1 if a target is missed or nothing was measured."""
    arguments = parse_arguments()
    names = arguments.stores or list(DRIVERS)
    inputs = material()
    results: dict[str, Any] = {}
    bad: list[str] = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            try:
                check_client(name)
                with _at(name, Path(folder)) as address:
                    results[name] = measure(name, address, inputs, Path(folder))
            except Absent as reason:
                print(f"not available: {reason}", file=sys.stderr)
                continue
        bad += missed(name, results[name])
    print(json.dumps(results) if arguments.json else markdown(results))
    for line in bad:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if bad or not results else 0


if __name__ == "__main__":
    raise SystemExit(main())

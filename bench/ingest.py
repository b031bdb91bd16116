"""Measure ingest: what it costs beyond encoding, how it resumes, and how time and memory grow with the input.

    python -m bench.ingest [--json] [PART ...]      (or: make bench ARGS=ingest)

Parts: ``encoder`` compares an ingest with MiniLM, into embedded Qdrant and into an OpenSearch node on the same
processors, with encoding alone, in turns. ``files`` compares ingests with and without a state and dead letters, with
built-in models, in turns. ``resume`` kills an ingest of
100,000 documents at 90 % and measures the time to the first new document. ``growth`` ingests 1,000,000 documents into
a store that drops them, and compares memory and the time per document with those of the first 10,000. ``sync``
syncs 100,000 documents of which 1 % have changed, with MiniLM into embedded Qdrant, and compares the time with that of
an ingest of all, which is extrapolated from an ingest of 1,500.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.figures import plain_environment, report, spread
from bench.memory import WORDS, resident
from bench.memory import texts as short_texts
from integration.stores import Absent, opened

PARTS = ("encoder", "files", "resume", "growth", "sync")
TARGETS = {
    "end_to_end": (">=", 0.95),
    "state_and_letters": (">=", 0.97),
    "resume_seconds": ("<", 5.0),
    "growth_mb": ("<", 100.0),
    "cost_per_document": ("<", 1.2),
    "sync_share": ("<", 0.05),
}
ROUNDS = 5
ENCODED = 1_500
FILES = 20_000
RESUMED = 100_000
GROWN = 1_000_000
SETTLED = 10_000
SYNCED = 100_000
CHANGED = 0.01


def main() -> int:
    """Run the requested parts, and print their figures."""
    arguments = [each for each in sys.argv[1:] if each != "--json"]
    if arguments[:1] == ["--child"]:
        return CHILDREN[arguments[1]](*arguments[2:])
    unknown = set(arguments) - set(PARTS)
    if unknown:
        print(f"unknown part {', '.join(sorted(unknown))}; expected some of {', '.join(PARTS)}", file=sys.stderr)
        return 2
    figures: dict[str, Any] = {}
    for part in arguments or PARTS:
        figures |= globals()[f"measure_{part}"]()
    return report(figures, {name: target for name, target in TARGETS.items() if name in figures})


def _documents(texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    return ({"id": f"d{number}", "text": text, "number": number} for number, text in enumerate(texts))


def _in_turns(runs: Sequence[Callable[[], None]], rounds: int) -> list[list[float]]:
    """Return the seconds of each run in each round; a first round warms up, and the order alternates."""
    times: list[list[float]] = [[] for _ in runs]
    for turn in range(rounds + 1):
        order = list(enumerate(runs))
        for at, run in order if turn % 2 else reversed(order):
            began = time.perf_counter()
            run()
            times[at].append(time.perf_counter() - began)
    return [each[1:] for each in times]


def measure_encoder() -> dict[str, Any]:
    """Compare ingests with MiniLM with encoding the same texts in the same batches, in two processes in turns.

    In one process, the threads with which the main thread has computed before would slow down those of the ingest.
    """
    embedded = _end_to_end("qdrant+edge:")
    figures = {
        "encode_per_s": spread([ENCODED / alone for alone, _ in embedded]),
        "ingest_per_s": spread([ENCODED / whole for _, whole in embedded]),
        "end_to_end": spread([alone / whole for alone, whole in embedded]),
    }
    with tempfile.TemporaryDirectory() as folder:
        try:
            with opened("opensearch", Path(folder)) as url:
                figures["end_to_end_node"] = spread([alone / whole for alone, whole in _end_to_end(url)])
        except Absent as error:
            print(f"no figure for a node: {error}", file=sys.stderr)
    return figures


def _end_to_end(url: str) -> list[tuple[float, float]]:
    """Return the seconds of encoding alone and of an ingest, for each round; the first round is a warm-up."""
    times = []
    with _child("encoder", "encode", url) as encoding, _child("encoder", "ingest", url) as ingesting:
        pair = encoding, ingesting
        for turn in range(ROUNDS + 1):
            seconds = {child: _ask(child) for child in (pair if turn % 2 else reversed(pair))}
            times.append((seconds[encoding], seconds[ingesting]))
        for child in pair:
            _close(child)
    return times[1:]


def _ask(child: subprocess.Popen[str]) -> float:
    """Let a child process do its work once, and return the seconds."""
    assert child.stdin is not None
    assert child.stdout is not None
    print(file=child.stdin, flush=True)
    return float(child.stdout.readline())


def _close(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.close()
    child.wait()


def _encoder_child(work: str, url: str) -> int:
    """Encode or ingest the same texts for each line on standard input, and print the seconds."""
    from bench.checkpoints import minilm
    from st_connectors.demo.docstrings import collect
    from st_connectors.index import Index
    from st_core import SentenceTransformer

    texts = [item.text for item in collect()][:ENCODED]
    folder = Path(tempfile.mkdtemp())
    model = SentenceTransformer(str(minilm(folder)))
    url = f"{url}{folder / 'store'}" if url.endswith(":") else url

    def encode() -> float:
        began = time.perf_counter()
        for start in range(0, len(texts), 512):
            model.encode_document(texts[start : start + 512])
        return time.perf_counter() - began

    def ingest() -> float:
        files = {"resume": folder / "state.json", "dead_letters": folder / "refused.jsonl"}
        with Index.create(url, collection="end_to_end", dense=model) as index:
            began = time.perf_counter()
            index.ingest(_documents(texts), **files)
            seconds = time.perf_counter() - began
            index.store.drop()
        return seconds

    try:
        for _ in sys.stdin:
            print({"encode": encode, "ingest": ingest}[work](), flush=True)
    finally:
        shutil.rmtree(folder)
    return 0


def measure_files() -> dict[str, Any]:
    """Compare ingests with a state and dead letters with ingests without, of which 1 % of the documents are refused."""
    from st_connectors.index import Index

    texts = [" ".join((text, *WORDS, *WORDS)) for text in short_texts(FILES)]
    folder = Path(tempfile.mkdtemp())

    def run(**files: Path) -> Callable[[], None]:
        def ingest() -> None:
            shutil.rmtree(folder / "store", ignore_errors=True)
            (folder / "refused.jsonl").unlink(missing_ok=True)
            documents = ({"id": each["id"]} if each["number"] % 100 == 0 else each for each in _documents(texts))
            url = f"qdrant+edge:{folder / 'store'}"
            with Index.create(url, collection="c", dense="builtin:dense", sparse="builtin:sparse") as index:
                index.ingest(documents, **files)

        return ingest

    try:
        without, with_files = _in_turns(
            [run(), run(resume=folder / "state.json", dead_letters=folder / "refused.jsonl")], ROUNDS
        )
    finally:
        shutil.rmtree(folder)
    return {
        "plain_per_s": spread([len(texts) / each for each in without]),
        "state_and_letters": spread([one / other for one, other in zip(without, with_files, strict=True)]),
    }


def measure_resume() -> dict[str, Any]:
    """Kill an ingest at 90 %, run the same command again, and measure the time to its first confirmed batch."""
    folder = Path(tempfile.mkdtemp())
    try:
        with (folder / "in.jsonl").open("w") as file:
            file.writelines(json.dumps(each) + "\n" for each in _documents(list(short_texts(RESUMED))))
        with _child("ingest", folder) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if int(line) >= 0.9 * RESUMED:
                    child.send_signal(signal.SIGKILL)
                    break
        began = time.perf_counter()
        with _child("ingest", folder) as child:
            assert child.stdout is not None
            first = int(child.stdout.readline())
            seconds = time.perf_counter() - began
            *_, last = child.stdout.readlines() or [str(first)]
        if int(last) != RESUMED:
            raise RuntimeError(f"the ingest ended after {last} of {RESUMED} documents")
    finally:
        shutil.rmtree(folder)
    return {"resumed_after": first, "resume_seconds": seconds}


def _child(name: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.ingest", "--child", name, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=plain_environment())


def _ingest_child(folder: str) -> int:
    """Ingest a file by the command line, and print the number of documents read after each batch."""
    from st_connectors.cli import run
    from st_connectors.ingest.ledger import Ledger

    numbers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    add = Ledger.add

    def add_and_print(self: Ledger, *values: Any) -> Any:
        total = add(self, *values)
        print(total.read, file=numbers, flush=True)
        return total

    Ledger.add = add_and_print  # type: ignore[method-assign]
    target = ["--in", f"qdrant+edge:{folder}/store", "--collection", "c", "--create"]
    return run(["ingest", f"{folder}/in.jsonl", *target])


def measure_growth() -> dict[str, Any]:
    """Ingest a million short documents into a store that drops them, in a process of its own."""
    with _child("growth") as child:
        assert child.stdout is not None
        return dict(json.loads(child.stdout.readlines()[-1]))


def _growth_child() -> int:
    """Print the growth of the memory from the first 10,000 documents on, and the ratio of the times per document."""
    from st_connectors.index import Index
    from st_connectors.store import Record, Rejected

    with Index.create("memory:growth", collection="c", dense="builtin:dense", sparse="builtin:sparse") as index:
        store: Any = index.store
        while hasattr(store, "store"):
            store = store.store

        def drop(records: Sequence[Record]) -> list[Rejected]:
            del records
            return []

        store.upsert = drop
        marks: list[tuple[int, float, float]] = []

        def note(so_far: Any) -> None:
            marks.append((so_far.read, time.perf_counter(), resident()))

        folder = Path(tempfile.mkdtemp())
        began = time.perf_counter()
        index.ingest(_documents_of(GROWN), progress=note, resume=folder / "state.json")
        shutil.rmtree(folder)
    _, settled_at, settled = next(mark for mark in marks if mark[0] >= SETTLED)
    per_document = (settled_at - began) / SETTLED
    slices = [
        (late[1] - early[1]) / (late[0] - early[0])
        for early, late in zip(marks[:: len(marks) // 20], marks[len(marks) // 20 :: len(marks) // 20], strict=False)
    ]
    figures = {
        "growth_mb": max(mark[2] for mark in marks) - settled,
        "documents_per_s": GROWN / (marks[-1][1] - began),
        "first_documents_per_s": 1 / per_document,
        "cost_per_document": statistics.median(slices[-5:]) / statistics.median(slices[:5]),
    }
    print(json.dumps(figures))
    return 0


def _documents_of(count: int) -> Iterator[dict[str, Any]]:
    return ({"id": f"d{number}", "text": text} for number, text in enumerate(short_texts(count)))


def measure_sync() -> dict[str, Any]:
    """Sync a large collection after 1 % of its documents have changed, and compare with an ingest of all of them."""
    from bench.checkpoints import minilm
    from st_connectors.demo.docstrings import collect
    from st_connectors.index import Index
    from st_core import SentenceTransformer

    texts = [item.text for item in collect()][:ENCODED]
    folder = Path(tempfile.mkdtemp())
    model = SentenceTransformer(str(minilm(folder)))
    every = round(1 / CHANGED)

    def documents(version: int) -> Iterator[dict[str, Any]]:
        for number in range(SYNCED):
            changed = version if number % every == 0 else 0
            yield {"id": f"d{number}", "text": f"{changed} {texts[number % ENCODED]}", "number": number}

    try:
        with Index.create(f"qdrant+edge:{folder / 'store'}", collection="c", dense=model) as index:
            _fill(index, model, documents(0))
            began = time.perf_counter()
            done = index.sync(documents(1))
            seconds = time.perf_counter() - began
        with Index.create(f"qdrant+edge:{folder / 'part'}", collection="c", dense=model) as index:
            began = time.perf_counter()
            index.ingest(_documents(texts))
            whole = (time.perf_counter() - began) * SYNCED / len(texts)
    finally:
        shutil.rmtree(folder)
    if done.confirmed != SYNCED * CHANGED:
        raise RuntimeError(f"the sync wrote {done.confirmed} documents, and {SYNCED * CHANGED:.0f} have changed")
    return {"sync_seconds": seconds, "full_ingest_seconds": whole, "sync_share": seconds / whole}


def _fill(index: Any, model: Any, documents: Iterator[dict[str, Any]]) -> None:
    """Sync documents with random vectors in place of those of the model, which would take minutes."""
    random = np.random.default_rng(0)

    def encode(inputs: Sequence[str], **_: Any) -> Any:
        return random.standard_normal((len(inputs), model.get_sentence_embedding_dimension()), np.float32)

    model.encode_document = encode
    try:
        index.sync(documents)
    finally:
        del model.encode_document


CHILDREN: dict[str, Callable[..., int]] = {
    "encoder": _encoder_child,
    "ingest": _ingest_child,
    "growth": _growth_child,
}

if __name__ == "__main__":
    raise SystemExit(main())

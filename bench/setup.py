"""Measure ingest by OpenSearch's own pipeline, which calls the encoder server, over ingest by the library.

    python -m bench.setup [--json]      (or: make bench ARGS=setup)

The same docstrings with the same models (MiniLM, and the built-in sparse one) are stored in turns by ``Index.ingest``,
which encodes in this process, and by four clients that send texts alone by ``_bulk`` to an index of
``st-connectors setup``. Models compute on one thread on both sides. Encoder, cluster and clients share the processors
of one machine, so that the pipeline's requests and JSON are its cost.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from bench.checkpoints import minilm
from bench.figures import report, spread
from bench.serve import free_port, ours, started
from integration.stores import Absent, opened
from st_connectors.cli import run
from st_connectors.demo.docstrings import collect
from st_connectors.index import Index

TARGETS = {"pipeline_over_library": (">=", 0.6)}
ROUNDS = 3
TEXTS = 256
CLIENTS = 4
BATCH = 32


def main() -> int:
    """Measure, and print the figures."""
    texts = [item.text for item in collect()][:TEXTS]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = str(minilm(Path(folder)))
        try:
            with opened("opensearch", Path(folder)) as address:
                return report(measure(address, model, texts), TARGETS)
        except Absent as error:
            print(f"no figure: {error}", file=sys.stderr)
            return 1


def measure(address: str, model: str, texts: Sequence[str]) -> dict[str, object]:
    """Return the texts stored in a second by each way, and their ratio; a first round warms up."""
    port = free_port()
    library, pipeline = [], []
    with started([*ours(port, model), "--model", "sparse=builtin:sparse"], port):
        setup = ["setup", "opensearch", "--in", address, "--collection", "pipeline", "--json", "--timeout", "600"]
        _quietly([*setup, "--encoder", f"http://127.0.0.1:{port}"])
        for _ in range(ROUNDS + 1):
            library.append(_by_library(address, model, texts))
            pipeline.append(_by_pipeline(address, texts))
        _quietly([*setup, "--remove", "--yes"])
    ratios = [one / other for one, other in zip(library, pipeline, strict=True)]
    return {
        "library_per_s": spread([len(texts) / each for each in library[1:]]),
        "pipeline_per_s": spread([len(texts) / each for each in pipeline[1:]]),
        "pipeline_over_library": spread(ratios[1:]),
    }


def _quietly(arguments: Sequence[str]) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        assert run(arguments) == 0


def _by_library(address: str, model: str, texts: Sequence[str]) -> float:
    """Return the seconds in which the library stores the texts in a new collection."""
    with Index.create(address, collection="library", dense=model, sparse="builtin:sparse") as index:
        began = time.perf_counter()
        index.ingest({"id": str(number), "text": text} for number, text in enumerate(texts))
        seconds = time.perf_counter() - began
        index.store.drop()
    return seconds


def _by_pipeline(address: str, texts: Sequence[str]) -> float:
    """Return the seconds in which clients store the texts by the pipeline."""
    url = address.replace("opensearch", "http", 1)
    numbered = list(enumerate(texts))
    batches = [numbered[start : start + BATCH] for start in range(0, len(numbered), BATCH)]

    def send(batch: Sequence[tuple[int, str]]) -> None:
        lines = [part for number, text in batch for part in ({"index": {"_id": str(number)}}, {"text": text})]
        content = "".join(json.dumps(line) + "\n" for line in lines).encode()
        request = urllib.request.Request(f"{url}/pipeline/_bulk", content, {"content-type": "application/x-ndjson"})
        with urllib.request.urlopen(request) as answer:
            parsed = json.load(answer)
        assert not parsed["errors"], next(item for item in parsed["items"] if "error" in item["index"])

    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(send, batches))
    return time.perf_counter() - began


if __name__ == "__main__":
    raise SystemExit(main())

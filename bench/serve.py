"""Measure the server: batching across clients, its cost over the library, short requests behind long ones, memory.

    python -m bench.serve [--json] [PART ...]      (or: make bench ARGS=serve)

Parts: ``batching`` compares 32 clients with one client, and with a server of thirty lines around sentence-transformers
under the same load, in turns; ``infinity`` with infinity-emb, if ``make infinity`` has installed it. ``path`` compares
requests of 32 texts with the library in the same process. ``latency`` measures single requests under half of the
highest load, and short ones behind a stream of long ones. ``load`` sends requests of several shapes and lengths from
200 clients for two minutes, each of which checks its vectors. ``memory`` compares the server after many requests with
the same server after few. The model is MiniLM on one thread per process; clients are threads of this process.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench.figures import plain_environment, report, spread
from bench.memory import texts as short_texts

PARTS = ("batching", "infinity", "path", "latency", "load", "memory")
TARGETS = {
    "batching_gain": (">=", 3.0),
    "over_thirty_lines": (">=", 2.0),
    "http_path": ("<", 1.10),
    "p99_over_p50": ("<", 3.0),
    "short_behind_long": ("<", 2.0),
    "load_wrong": ("<", 1),
    "load_growth_mb": ("<", 50.0),
    "growth_mb": ("<", 20.0),
}
INFINITY = Path(".venv-infinity/bin/infinity_emb")
ROUNDS = 3
CLIENTS = 32
SECONDS = 5.0
CROWD = 200
CROWD_SECONDS = float(os.environ.get("ST_BENCH_LOAD_SECONDS", "120"))
REQUESTS = int(os.environ.get("ST_BENCH_REQUESTS", "100000"))


def main() -> int:
    """Run the requested parts, and print their figures."""
    arguments = [each for each in sys.argv[1:] if each != "--json"]
    unknown = set(arguments) - set(PARTS)
    if unknown:
        print(f"unknown part {', '.join(sorted(unknown))}; expected some of {', '.join(PARTS)}", file=sys.stderr)
        return 2
    figures: dict[str, Any] = {}
    for part in arguments or PARTS:
        figures |= globals()[f"measure_{part}"]()
    return report(figures, {name: target for name, target in TARGETS.items() if name in figures})


def minilm() -> str:
    """Return the folder of MiniLM."""
    from bench.checkpoints import minilm as folder

    return str(folder(Path()))


class Client:
    """One connection to a server."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def post(self, path: str, body: Any) -> Any:
        """Send a request and return the JSON of the answer."""
        self._connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        response = self._connection.getresponse()
        content = response.read()
        assert response.status == 200, content
        return json.loads(content)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@contextmanager
def started(
    command: Sequence[str], port: int, *, program: str = sys.executable, ready: str = "/ready"
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the end of the block; the block begins when it is ready."""
    environment = plain_environment() | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    process = subprocess.Popen([program, *command], env=environment)
    try:
        while not is_ready(port, ready):
            assert process.poll() is None, f"{command} ended"
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait()


def is_ready(port: int, path: str) -> bool:
    """Return whether a server has loaded its models, which it says at a path."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def free_port() -> int:
    """Return a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def ours(port: int, model: str, *more: str) -> list[str]:
    """Return the arguments of Python that start our server with a dense model, and with further options."""
    run = "import sys; from st_connectors.cli import run; sys.exit(run(sys.argv[1:]))"
    return ["-c", run, "serve", "--port", str(port), "--model", f"dense={model}", "--no-access-log", *more]


def load(port: int, clients: int, seconds: float, body: Callable[[int], Any], *, path: str = "/embed") -> list[float]:
    """Return the seconds of each request that so many clients send one after the other for some time."""
    end = time.perf_counter() + seconds

    def run(number: int) -> list[float]:
        client, times, count = Client(port), [], 0
        while time.perf_counter() < end:
            began = time.perf_counter()
            client.post(path, body(number * 1_000_000 + count))
            times.append(time.perf_counter() - began)
            count += 1
        client.close()
        return times

    with ThreadPoolExecutor(clients) as threads:
        return [each for times in threads.map(run, range(clients)) for each in times]


SENTENCES = list(short_texts(5_000))


def one_text(number: int) -> dict[str, str]:
    """Return a request of one short text."""
    return {"inputs": SENTENCES[number % len(SENTENCES)]}


def measure_batching() -> dict[str, Any]:
    """Compare 32 clients with one, and with a server that does not batch."""
    model, own, other = minilm(), free_port(), free_port()
    rates: dict[str, list[float]] = {"one": [], "many": [], "other": []}
    with started(ours(own, model), own), started(["-m", "bench.thirty_lines", model, str(other)], other):
        for _ in range(ROUNDS):
            rates["one"].append(len(load(own, 1, SECONDS, one_text)) / SECONDS)
            rates["many"].append(len(load(own, CLIENTS, SECONDS, one_text)) / SECONDS)
            rates["other"].append(len(load(other, CLIENTS, SECONDS, one_text)) / SECONDS)
    return {
        "requests_per_second": spread(rates["many"]),
        "batching_gain": spread([many / one for many, one in zip(rates["many"], rates["one"], strict=True)]),
        "over_thirty_lines": spread([many / other for many, other in zip(rates["many"], rates["other"], strict=True)]),
    }


def measure_infinity() -> dict[str, Any]:
    """Compare 32 clients of the embeddings API with those of infinity-emb, which batches too."""
    if not INFINITY.exists():
        print(f"not available: {INFINITY}; make infinity installs it", file=sys.stderr)
        return {}
    model, own, other = minilm(), free_port(), free_port()
    options = ["--engine", "torch", "--device", "cpu", "--no-bettertransformer", "--log-level", "warning"]
    theirs = ["v2", "--model-id", model, "--served-model-name", "dense", "--port", str(other), *options]

    def one_input(number: int) -> dict[str, str]:
        return {"input": one_text(number)["inputs"], "model": "dense"}

    ratios = []
    with (
        started(ours(own, model), own),
        started(theirs, other, program=str(INFINITY), ready="/health"),
    ):
        for _ in range(ROUNDS):
            mine = load(own, CLIENTS, SECONDS, one_input, path="/v1/embeddings")
            ratios.append(len(mine) / len(load(other, CLIENTS, SECONDS, one_input, path="/embeddings")))
    return {"over_infinity": spread(ratios)}


def measure_path() -> dict[str, Any]:
    """Compare requests of 32 texts, answered in base64, with the library in this process."""
    import torch

    from st_core import SentenceTransformer

    torch.set_num_threads(1)
    folder, port = minilm(), free_port()
    local = SentenceTransformer(folder, device="cpu")
    batches = [SENTENCES[start : start + 32] for start in range(0, 1_600, 32)]
    ratios = []
    with started(ours(port, folder), port):
        client = Client(port)
        for _ in range(ROUNDS):
            pairs = []
            for batch in batches:
                began = time.perf_counter()
                answer = client.post("/v1/encode", {"inputs": batch, "encoding_format": "base64"})
                rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in answer["models"]["dense"]["vectors"]]
                over_http = time.perf_counter() - began
                began = time.perf_counter()
                wanted = local.encode(batch)
                pairs.append(over_http / (time.perf_counter() - began))
                assert np.allclose(np.stack(rows), wanted, atol=1e-5)
            ratios.append(statistics.median(pairs))
        client.close()
    return {"http_path": spread(ratios)}


def measure_latency() -> dict[str, Any]:
    """Measure single requests under half load, and short ones behind a stream of long ones."""
    port = free_port()
    long_text = " ".join(SENTENCES[:80])
    with started(ours(port, minilm()), port):
        highest = len(load(port, CLIENTS, SECONDS, one_text)) / SECONDS
        times = paced(port, highest / 2, 2 * SECONDS)
        behind = [behind_long(port, long_text) for _ in range(ROUNDS)]
    return {
        "p50_ms": 1000 * statistics.median(times),
        "p99_over_p50": percentile(times, 99) / statistics.median(times),
        "short_behind_long": spread(behind),
    }


def behind_long(port: int, long_text: str) -> float:
    """Return the median time of single short requests behind a stream of long ones over that without it."""
    alone = load(port, 1, SECONDS / 2, one_text)
    stream = threading.Thread(target=load, args=(port, 4, SECONDS, lambda _: {"inputs": [long_text] * 4}))
    stream.start()
    time.sleep(SECONDS / 10)
    behind = load(port, 1, SECONDS / 2, one_text)
    stream.join()
    return statistics.median(behind) / statistics.median(alone)


def paced(port: int, rate: float, seconds: float) -> list[float]:
    """Return the seconds of requests that 32 clients send at random times, so many a second together."""
    draw = random.Random(1)
    waits = [
        [draw.expovariate(rate / CLIENTS) for _ in range(int(rate * seconds / CLIENTS) + 1)] for _ in range(CLIENTS)
    ]

    def run(number: int) -> list[float]:
        client, times, due = Client(port), [], time.perf_counter()
        for count, wait in enumerate(waits[number]):
            due += wait
            time.sleep(max(0.0, due - time.perf_counter()))
            began = time.perf_counter()
            client.post("/embed", one_text(number * 1_000 + count))
            times.append(time.perf_counter() - began)
        client.close()
        return times

    with ThreadPoolExecutor(CLIENTS) as threads:
        return [each for times in threads.map(run, range(CLIENTS)) for each in times]


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile of values."""
    return statistics.quantiles(values, n=100)[percent - 1]


Shape = tuple[str, Callable[[list[str]], Any], Callable[[Any], Any]]
"""A path, the request of texts, and the vectors of an answer as [n, d]."""


def measure_load() -> dict[str, Any]:
    """Count the requests of many clients at once, those without the right vectors, and the growth of the memory."""
    texts = [" ".join(SENTENCES[at : at + length]) for at, length in enumerate([1, 1, 1, 3, 10, 60] * 40)]
    shapes = list(zip(crowd_shapes(), crowd_vectors(texts), strict=True))
    port = free_port()
    with started(ours(port, "builtin:dense", "--model", "sparse=builtin:sparse"), port) as process:
        crowd(port, CROWD_SECONDS / 10, texts, shapes)
        before = resident_of(process.pid)
        rights = crowd(port, CROWD_SECONDS, texts, shapes)
        after = resident_of(process.pid)
    return {
        "load_requests": len(rights),
        "load_requests_per_second": len(rights) / CROWD_SECONDS,
        "load_wrong": rights.count(False),
        "load_growth_mb": after - before,
    }


def crowd_shapes() -> list[Shape]:
    """Return two shapes for dense vectors and one for sparse ones."""
    return [
        ("/embed", lambda texts: {"inputs": texts, "normalize": False}, lambda answer: answer),
        (
            "/v1/encode",
            lambda texts: {"inputs": texts, "models": ["dense"], "encoding_format": "base64"},
            lambda answer: [
                np.frombuffer(base64.b64decode(each), "<f4") for each in answer["models"]["dense"]["vectors"]
            ],
        ),
        ("/embed_sparse", lambda texts: {"inputs": texts}, lambda answer: [sorted_weights(row) for row in answer]),
    ]


def sorted_weights(row: Sequence[dict[str, float]]) -> list[float]:
    """Return the indices of a sparse vector, then its weights."""
    return [each[name] for name in ("index", "value") for each in sorted(row, key=lambda each: each["index"])]


def crowd_vectors(texts: list[str]) -> list[list[Any]]:
    """Return the vectors of texts by the library, for each shape."""
    from st_core import SentenceTransformer, SparseEncoder

    dense = list(SentenceTransformer("builtin:dense").encode(texts))
    sparse = [[*row.indices, *row.values] for row in SparseEncoder("builtin:sparse").encode(texts).rows()]
    return [dense, dense, sparse]


def crowd(port: int, seconds: float, texts: list[str], shapes: Sequence[tuple[Shape, list[Any]]]) -> list[bool]:
    """Return of each request of many clients at once whether its vectors are right; a lost answer raises."""
    end = time.perf_counter() + seconds

    def run(number: int) -> list[bool]:
        client, draw, rights = Client(port), random.Random(number), []
        while time.perf_counter() < end:
            (path, request, vectors), wanted = draw.choice(shapes)
            chosen = draw.sample(range(len(texts)), draw.randint(1, 4))
            found = vectors(client.post(path, request([texts[at] for at in chosen])))
            rights.append(
                all(
                    len(row) == len(wanted[at]) and np.allclose(row, wanted[at], atol=1e-5)
                    for row, at in zip(found, chosen, strict=True)
                )
            )
        client.close()
        return rights

    with ThreadPoolExecutor(CROWD) as threads:
        return [each for rights in threads.map(run, range(CROWD)) for each in rights]


def measure_memory() -> dict[str, Any]:
    """Compare the memory of a server of the built-in model after many requests with that after one per cent of them."""
    port = free_port()
    with started(ours(port, "builtin:dense"), port) as process:
        send_many(port, REQUESTS // 100)
        before = resident_of(process.pid)
        send_many(port, REQUESTS)
        after = resident_of(process.pid)
    return {"growth_mb": after - before, "resident_mb": after}


def send_many(port: int, count: int) -> None:
    """Send requests of short texts from eight clients."""

    def run(number: int) -> None:
        client = Client(port)
        for at in range(count // 8):
            client.post("/embed", one_text(number * count + at))
        client.close()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(run, range(8)))


def resident_of(process: int) -> float:
    """Return the resident memory of a process in MB."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096 / 1e6


if __name__ == "__main__":
    raise SystemExit(main())

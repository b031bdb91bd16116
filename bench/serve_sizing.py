"""Measure what one process of the server needs and does, for docs/sizing.md.

    python -m bench.serve_sizing [--save]

Each row is a model on a backend, on one thread, with clients on the same machine: memory after loading and after the
requests, one client with single short texts, 32 such clients, and four clients with 32 texts per request. ``--save``
writes bench/results/sizing.json, which `make readme` shows.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
from pathlib import Path

from bench.serve import (
    CLIENTS,
    SENTENCES,
    free_port,
    load,
    minilm,
    one_text,
    ours,
    percentile,
    resident_of,
    started,
)

RESULTS = Path(__file__).parent / "results" / "sizing.json"
SECONDS = 5.0
BATCH = 32


def main() -> int:
    """Measure each row and print it."""
    folder = minilm()
    rows = {
        "built-in dense model": measure("builtin:dense"),
        "MiniLM, torch": measure(folder),
        "MiniLM, ONNX Runtime": measure(folder, "--backend", "onnx"),
        "MiniLM, OpenVINO": measure(folder, "--backend", "openvino"),
        "MiniLM, OpenVINO, int8": measure(folder, "--backend", "openvino", "--dtype", "int8"),
    }
    for name, row in rows.items():
        print(f"{name:24}", *(f"{key}={value:,.1f}" for key, value in row.items()))
    if "--save" in sys.argv:
        RESULTS.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n", "utf-8")
    return 0


def measure(model: str, *options: str) -> dict[str, float]:
    """Return the row of a model."""
    port = free_port()
    with started(ours(port, model, *options), port) as process:
        loaded = resident_of(process.pid)
        load(port, 1, SECONDS / 5, one_text)
        one = load(port, 1, SECONDS, one_text)
        many = load(port, CLIENTS, SECONDS, one_text)
        batches = load(port, 4, SECONDS, thirty_two_texts)
        return {
            "loaded_mb": loaded,
            "busy_mb": resident_of(process.pid),
            "p50_ms": 1000 * statistics.median(one),
            "one_per_s": len(one) / SECONDS,
            "many_per_s": len(many) / SECONDS,
            "many_p99_ms": 1000 * percentile(many, 99),
            "texts_per_s": BATCH * len(batches) / SECONDS,
        }


def thirty_two_texts(number: int) -> dict[str, list[str]]:
    """Return a request of several short texts."""
    start = number * BATCH % (len(SENTENCES) - BATCH)
    return {"inputs": SENTENCES[start : start + BATCH]}


def machine() -> str:
    """Return the name of the processor, and the number of its threads."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} threads of {names[0]}" if names else platform.machine()


if __name__ == "__main__":
    raise SystemExit(main())

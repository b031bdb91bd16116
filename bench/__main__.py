"""Run every benchmark in turn, each in a process of its own.

    python -m bench [--json] [NAME ...]      (or: make bench)

The exit status is 1 if a figure misses its target or a benchmark lacks its input.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

BENCHMARKS = {
    "curve": "ingest: memory and time per document as an OpenSearch collection grows",
    "demo": "imports, the command line, indexing and searching the demo",
    "encode": "MiniLM against sentence-transformers, side by side",
    "gateway": "the gateway: what it adds to a request, and bulk requests with vectors over ingest",
    "ingest": "ingest: its cost beyond encoding, its resumption, its memory",
    "memory": "memory growth of a process over a million texts",
    "quality": "search quality of the built-in models",
    "sinks": "writing alone, beside the best bulk path of each store's client",
    "setup": "OpenSearch ingest by its pipeline, over ingest by the library",
    "serve": "the server: batching across clients, its cost over the library, latency, memory",
    "speed": "every available store compared with its own client",
    "stores": "Cranfield on every available store, compared with the oracle",
    "train": "trainings, the retrieval evaluator and mining against sentence-transformers",
    "train_quality": "three models trained to the end beside sentence-transformers",
    "workers": "two workers on the CPU: speed and shared memory",
}


def main() -> int:
    """Run the requested benchmarks, or all."""
    as_json = "--json" in sys.argv[1:]
    names = [argument for argument in sys.argv[1:] if argument != "--json"] or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"unknown benchmark {', '.join(unknown)}; expected one of {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    worst = 0
    results: dict[str, Any] = {}
    for name in names:
        command = [sys.executable, "-m", f"bench.{name}", *(["--json"] if as_json else [])]
        if not as_json:
            print(f"\n== {name}: {BENCHMARKS[name]}", flush=True)
        done = subprocess.run(command, stdout=subprocess.PIPE if as_json else None, text=True, check=False)
        worst = max(worst, int(done.returncode != 0))
        if as_json and done.stdout:
            results[name] = json.loads(done.stdout)
    if as_json:
        print(json.dumps(results, indent=2))
    return worst


if __name__ == "__main__":
    raise SystemExit(main())

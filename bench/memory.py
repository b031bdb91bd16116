"""Measure the memory growth of a process that encodes a long stream with each built-in model.

    python -m bench.memory [--texts N] [--json]

The stream is 1,000,000 short texts through ``encode_iter``; each model runs in a process of its own. Growth is that
of the resident memory, from after the first 20,000 texts to its later maximum. The exit status is 1 if a process grew
by 100 MB or more.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import plain_environment, report

MODELS = {"builtin:dense": "SentenceTransformer", "builtin:sparse": "SparseEncoder"}
SETTLED = 20_000
LIMIT = 100.0
WORDS = "copy move remove list a the of directory tree file path name text line word number read write open".split()  # noqa: SIM905


def texts(count: int) -> Iterator[str]:
    """Yield distinct short texts."""
    size = len(WORDS)
    return (f"{WORDS[n % size]} {WORDS[n // size % size]} {WORDS[n // 7 % size]} {n}" for n in range(count))


def resident() -> float:
    """Return the resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def stream(name: str, count: int) -> str:
    """Encode a stream and return "growth seconds"."""
    import st_core

    model = getattr(st_core, MODELS[name])(name)
    start = highest = 0.0
    began = time.perf_counter()
    for number, _ in enumerate(model.encode_iter(texts(count))):
        if number == SETTLED:
            start = highest = resident()
        elif number % 5_000 == 0:
            highest = max(highest, resident())
    return f"{highest - start:.1f} {time.perf_counter() - began:.1f}"


def main() -> int:
    """Run each model in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(stream(options.one, options.texts))
        return 0
    figures: dict[str, float] = {}
    for name in MODELS:
        command = [sys.executable, "-m", "bench.memory", "--one", name, "--texts", str(options.texts)]
        done = subprocess.run(command, env=plain_environment(), stdout=subprocess.PIPE, text=True, check=True)
        growth, seconds = map(float, done.stdout.split())
        figures |= {f"{name}_grown_mb": growth, f"{name}_seconds": seconds}
    return report(figures, {f"{name}_grown_mb": ("<", LIMIT) for name in MODELS})


if __name__ == "__main__":
    raise SystemExit(main())

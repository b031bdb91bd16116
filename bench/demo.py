"""Time the path without torch: imports, the command line, indexing and searching the demo.

    python -m bench.demo [--json]

Every figure is the median of several runs with its range. The only input is the docstrings of the standard library.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.figures import plain_environment, report, spread
from st_connectors.demo.build import ADDRESS, COLLECTION, NEXT_QUESTION, build_index
from st_connectors.demo.docstrings import Docstring, collect, has_enough_words

ROUNDS = 7
BUILDS = 3
QUERIES = 200
COUNTED_WORDS = 5
"""Docstrings of at least this many words are counted."""

TARGETS: dict[str, tuple[str, float]] = {
    "import_over_numpy_s": ("<", 0.15),
    "help_s": ("<", 0.4),
    "search_process_s": ("<", 1.0),
    "distinct_docstrings": (">=", 6000),
    "documents_per_s": (">=", 2000),
    "query_p50_ms": ("<", 15),
}
"""The target of each figure."""


def _process(command: Sequence[str], folder: Path) -> float:
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, env=plain_environment(), check=True, capture_output=True)
    return time.perf_counter() - began


def _processes(folder: Path) -> dict[str, dict[str, float]]:
    """Time whole processes, interleaved, so that other load on the machine affects all of them alike."""
    python = [sys.executable, "-c"]
    command = [sys.executable, "-c", "from st_connectors.cli import main; main()"]
    search = ["search", NEXT_QUESTION, "--in", ADDRESS, "--collection", COLLECTION]
    runs: dict[str, Sequence[str]] = {
        "python": [*python, "pass"],
        "numpy": [*python, "import numpy"],
        "ours": [*python, "import numpy, st_core, st_connectors"],
        "help": [*command, "--help"],
        "search": [*command, *search],
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS + 1):
        for name, arguments in runs.items():
            times[name].append(_process(arguments, folder))
    # The first round fills the file cache and writes bytecode; it is not counted.
    warm = {name: values[1:] for name, values in times.items()}
    return {
        "import_over_numpy_s": spread([a - b for a, b in zip(warm["ours"], warm["numpy"], strict=True)]),
        "python_s": spread(warm["python"]),
        "numpy_s": spread(warm["numpy"]),
        "help_s": spread(warm["help"]),
        "search_process_s": spread(warm["search"]),
    }


def _build(docstrings: Sequence[Docstring], folder: Path) -> tuple[dict[str, float], dict[str, float], int]:
    """Return documents per second, milliseconds per query with encoding, and the number of documents."""
    rates: list[float] = []
    for number in range(BUILDS):
        built = build_index(f"qdrant+edge:{folder / str(number)}", docstrings)
        index = built.index
        rates.append(built.report.confirmed / built.report.seconds)
        if number < BUILDS - 1:
            index.close()
    questions = [" ".join(each.text.split()[:8]) for each in docstrings[:: max(1, len(docstrings) // QUERIES)]][
        :QUERIES
    ]
    index.search(questions[0])
    times = [_timed(lambda query=question: index.search(query)) for question in questions]
    count = index.count()
    index.close()
    times.sort()
    latency = {
        "median": statistics.median(times) * 1e3,
        "min": times[0] * 1e3,
        "max": times[-1] * 1e3,
        "p95": times[int(len(times) * 0.95)] * 1e3,
    }
    return spread(rates), latency, count


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def run() -> dict[str, Any]:
    """Return all figures by name: a number, or a median with its range."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.perf_counter()
        docstrings = collect()
        collected = time.perf_counter() - began
        rates, latency, count = _build(docstrings, folder)
        build_index(f"qdrant+edge:{folder / 'demo-index'}", docstrings).index.close()
        return {
            "documents": count,
            "distinct_docstrings": len({each.text for each in docstrings if has_enough_words(each, COUNTED_WORDS)}),
            "collect_s": collected,
            "documents_per_s": rates,
            "query_p50_ms": latency,
            **_processes(folder),
        }


def main() -> int:
    """Print the figures, as JSON with ``--json``."""
    return report(run(), TARGETS)


if __name__ == "__main__":
    raise SystemExit(main())

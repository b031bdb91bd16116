"""Counters of a server in Prometheus' text format; TEI's names beside names of our own."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Sequence

__all__ = ["Metrics"]

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

Labels = tuple[tuple[str, str], ...]

_HELP = {
    "te_request_count": "Requests by method",
    "te_request_success": "Requests that were answered, by method",
    "te_request_failure": "Requests that were refused or failed, by the kind of fault",
    "te_request_duration": "Seconds from a request to its answer",
    "te_request_tokenization_duration": "Seconds of tokenizing a request",
    "te_request_queue_duration": "Seconds that a request waited for its computation",
    "te_request_inference_duration": "Seconds of computing a request",
    "te_request_input_length": "Tokens of a text",
    "te_batch_next_size": "Pieces of requests in a batch",
    "te_batch_next_tokens": "Tokens in a batch",
    "te_queue_size": "Requests that are in the server",
    "st_requests_total": "Requests by route and status",
    "st_tokens_total": "Tokens that models read, by model",
    "st_truncated_total": "Texts that were truncated, by model",
    "st_queue_tokens": "Tokens that wait, by model",
    "st_cancelled_total": "Requests whose client left before the answer",
}


class _Histogram:
    """Counts of values up to each bound."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Metrics:
    """Counters, gauges and histograms by name and labels; safe in threads."""

    def __init__(self) -> None:
        """Begin with nothing counted."""
        self._lock = threading.Lock()
        self._counters: dict[str, dict[Labels, float]] = {}
        self._histograms: dict[str, dict[Labels, _Histogram]] = {}

    def count(self, name: str, by: float = 1, **labels: str) -> None:
        """Add to a counter."""
        key = tuple(sorted(labels.items()))
        with self._lock:
            values = self._counters.setdefault(name, {})
            values[key] = values.get(key, 0) + by

    def observe(self, name: str, values: Iterable[float], bounds: Sequence[float] = SECONDS, **labels: str) -> None:
        """Add values to a histogram."""
        key = tuple(sorted(labels.items()))
        with self._lock:
            histogram = self._histograms.setdefault(name, {}).setdefault(key, _Histogram(bounds))
            for value in values:
                histogram.add(value)

    def text(self, gauges: Iterable[tuple[str, dict[str, str], float]] = ()) -> str:
        """Return all values, and gauges with their labels, in Prometheus' text format."""
        lines: list[str] = []
        with self._lock:
            for name, values in sorted(self._counters.items()):
                lines += _head(name, "counter")
                lines += [f"{name}{_labels(key)} {value:g}" for key, value in sorted(values.items())]
            for name, histograms in sorted(self._histograms.items()):
                lines += _head(name, "histogram")
                for key, histogram in sorted(histograms.items()):
                    lines += _histogram_lines(name, key, histogram)
        known: set[str] = set()
        for name, labels, value in gauges:
            lines += [] if name in known else _head(name, "gauge")
            known.add(name)
            lines.append(f"{name}{_labels(tuple(sorted(labels.items())))} {value:g}")
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str) -> list[str]:
    return [f"# HELP {name} {_HELP.get(name, name)}", f"# TYPE {name} {kind}"]


def _histogram_lines(name: str, key: Labels, histogram: _Histogram) -> list[str]:
    lines, total = [], 0
    for bound, count in zip([*histogram.bounds, float("inf")], histogram.counts, strict=True):
        total += count
        limit = "+Inf" if bound == float("inf") else f"{bound:g}"
        lines.append(f"{name}_bucket{_labels((*key, ('le', limit)))} {total}")
    return [*lines, f"{name}_sum{_labels(key)} {histogram.total:g}", f"{name}_count{_labels(key)} {total}"]


def _labels(labels: Labels) -> str:
    parts = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)
    return f"{{{parts}}}" if parts else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

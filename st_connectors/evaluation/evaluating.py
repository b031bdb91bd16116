"""Search for judged queries in several ways, measure each way, and compare it with the first one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from st_connectors.evaluation.judged import Judged, check_documents
from st_connectors.evaluation.measures import DEFAULT_MEASURES, check_measurable, measured, parse_measure
from st_connectors.evaluation.resampling import LEVEL, RESAMPLES, interval, paired_p
from st_connectors.evaluation.runs import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from st_connectors.index import Index

__all__ = ["Difference", "Evaluation", "Figure", "RunResult", "Variant", "evaluate", "evaluate_runs", "search_run"]

LATENCIES = {"p50": 0.5, "p99": 0.99}
"""Quantiles of the seconds of a search."""

Progress = Callable[[str, int, int], None]
"""Receives the name of a variant, and how many of how many queries it has searched for."""


@dataclass(frozen=True, slots=True, eq=False)
class Variant:
    """A way of searching: an index, and the arguments of its ``search``."""

    name: str
    index: Index
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean difference of a run from the first run, query by query, with its 95 % interval and the p of the test."""

    value: float
    low: float
    high: float
    p: float

    def to_json(self) -> dict[str, float | None]:
        """Return plain values for JSON."""
        return _finite({"value": self.value, "low": self.low, "high": self.high, "p": self.p})


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean or a quantile over the queries with its 95 % interval, and the difference from the first run."""

    value: float
    low: float
    high: float
    difference: Difference | None = None

    @property
    def is_different(self) -> bool:
        """Whether the test against the first run has p < 0.05."""
        return self.difference is not None and self.difference.p < 0.05

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        difference = None if self.difference is None else self.difference.to_json()
        return _finite({"value": self.value, "low": self.low, "high": self.high}) | {"difference": difference}


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return values for JSON, which has no numbers that are not finite."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


@dataclass(frozen=True, slots=True, eq=False)
class RunResult:
    """The measures of one run, those of each query [n], and the seconds of its searches."""

    run: Run
    measures: Mapping[str, Figure]
    per_query: Mapping[str, NDArray[np.float64]]
    seconds: Mapping[str, Figure]

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.run.name

    def to_json(self, queries: Sequence[str]) -> dict[str, Any]:
        """Return plain values for JSON, with the values of each query."""
        return {
            "name": self.name,
            "collection": self.run.collection,
            "measures": {name: each.to_json() for name, each in self.measures.items()},
            "seconds": {name: each.to_json() for name, each in self.seconds.items()},
            "queries": {
                name: dict(zip(queries, values.round(6).tolist(), strict=True))
                for name, values in self.per_query.items()
            },
        }


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """The results of all runs over the same judged queries."""

    judged: Judged
    results: tuple[RunResult, ...]
    seed: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out of the judged queries, and the runs that returned no documents for some queries."""
        return (*self.judged.notes, *(note for each in self.results for note in _without_results(each.run)))

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON, from which a later evaluation can be compared with this one."""
        queries = list(self.judged.queries)
        return {
            "origin": self.judged.origin,
            "queries": len(queries),
            "judgements": self.judged.pairs,
            "texts": dict(self.judged.queries),
            "notes": list(self.notes),
            "level": LEVEL,
            "resamples": RESAMPLES,
            "seed": self.seed,
            "runs": [each.to_json(queries) for each in self.results],
        }


def evaluate(
    variants: Sequence[Variant],
    judged: Judged,
    *,
    measures: Sequence[str] = DEFAULT_MEASURES,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Search for judged queries in each way, one after another, and measure the results.

    ``limit`` is the number of documents of a ranking, by default the largest depth of the measures. A split document
    counts once. Raises ValueError for repeated names, unknown measures, a limit below their depth, and judgements of
    another collection, and the errors of ``Index.search``.
    """
    chosen = [parse_measure(name) for name in measures]
    deepest = max((each.depth for each in chosen), default=0)
    if not variants or not chosen:
        raise ValueError("there is nothing to evaluate; pass at least one variant and one measure")
    if limit is not None and limit < deepest:
        raise ValueError(f"a limit of {limit} is below the depth {deepest} of the measures; raise it")
    names = [each.name for each in variants]
    if len(set(names)) < len(names):
        raise ValueError(f"the names of runs must differ, got {', '.join(names)}")
    check_measurable(judged)
    judged = check_documents(judged, variants[0].index)
    runs = [search_run(each, judged.queries, limit or deepest, progress) for each in variants]
    return evaluate_runs(runs, judged, measures=measures, seed=seed)


def evaluate_runs(
    runs: Sequence[Run], judged: Judged, *, measures: Sequence[str] = DEFAULT_MEASURES, seed: int = 0
) -> Evaluation:
    """Return the measures of runs, each compared with the first one."""
    chosen = [parse_measure(name) for name in measures]
    values = [measured(run, judged, chosen) for run in runs]
    results = [
        RunResult(
            run,
            {name: _mean(each[name], values[0][name] if place else None, seed) for name in each},
            each,
            _latencies(run, seed),
        )
        for place, (run, each) in enumerate(zip(runs, values, strict=True))
    ]
    return Evaluation(judged, tuple(results), seed)


def search_run(variant: Variant, queries: Mapping[str, str], limit: int, progress: Progress | None = None) -> Run:
    """Return the run of a variant; the first query is searched for once more before, so that loading is not timed."""
    options = {"depth": max(limit, 100)} | dict(variant.options) | {"limit": limit, "fold": True}
    rankings: dict[str, list[tuple[str, float]]] = {}
    seconds: dict[str, float] = {}
    variant.index.search(next(iter(queries.values())), **options)
    for count, (query, text) in enumerate(queries.items(), 1):
        start = time.perf_counter()
        hits = variant.index.search(text, **options)
        seconds[query] = time.perf_counter() - start
        rankings[query] = [(hit.id, hit.score) for hit in hits]
        if progress is not None:
            progress(variant.name, count, len(queries))
    return Run(variant.name, rankings, seconds, variant.index.collection)


def _without_results(run: Run) -> list[str]:
    count = sum(not ranking for ranking in run.rankings.values())
    return [f"{run.name} returned no documents for {count} of {len(run.rankings)} queries"] if count else []


def _mean(values: NDArray[np.float64], first: NDArray[np.float64] | None, seed: int) -> Figure:
    difference = None
    if first is not None:
        differences = values - first
        p = paired_p(values, first, seed)
        difference = Difference(float(differences.mean()), *interval(differences, _means, seed), p)
    return Figure(float(values.mean()), *interval(values, _means, seed), difference)


def _means(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(samples.mean(axis=1))


def _latencies(run: Run, seed: int) -> dict[str, Figure]:
    values = np.array(list(run.seconds.values()))
    if not values.size:
        return {}
    return {
        name: Figure(float(np.quantile(values, share)), *interval(values, partial(np.quantile, q=share, axis=1), seed))
        for name, share in LATENCIES.items()
    }

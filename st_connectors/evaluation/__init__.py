"""Evaluate the search of a live collection: measures with intervals, runs compared, and queries that went wrong."""

from __future__ import annotations

from st_connectors.evaluation.evaluating import Difference, Evaluation, Figure, RunResult, Variant, evaluate
from st_connectors.evaluation.judged import Judged, read_folder, read_judged
from st_connectors.evaluation.measures import DEFAULT_MEASURES, Measure, parse_measure
from st_connectors.evaluation.runs import Run, read_run, write_run
from st_connectors.evaluation.synthetic import known_items
from st_connectors.evaluation.worst import Lost, Worst, worst_queries

__all__ = [
    "DEFAULT_MEASURES",
    "Difference",
    "Evaluation",
    "Figure",
    "Judged",
    "Lost",
    "Measure",
    "Run",
    "RunResult",
    "Variant",
    "Worst",
    "evaluate",
    "known_items",
    "parse_measure",
    "read_folder",
    "read_judged",
    "read_run",
    "worst_queries",
    "write_run",
]

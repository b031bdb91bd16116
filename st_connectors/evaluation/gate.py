"""Decide whether an evaluation passes: by lower limits of measures, and compared with an earlier evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from st_connectors.evaluation.measures import parse_measure
from st_connectors.evaluation.resampling import paired_p

if TYPE_CHECKING:
    from st_connectors.evaluation.evaluating import Evaluation, RunResult
    from st_connectors.evaluation.judged import Judged

__all__ = ["Change", "changes", "failures", "other_collections", "parse_limits", "read_baseline"]

SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True)
class Change:
    """A measure of a run before and now, over the queries of both, and how probable such a difference is by chance."""

    run: str
    measure: str
    before: float
    now: float
    queries: int
    p: float

    @property
    def is_worse(self) -> bool:
        """Whether the measure is lower, and significantly so."""
        return self.now < self.before and self.p < SIGNIFICANT


def parse_limits(texts: Sequence[str]) -> dict[str, float]:
    """Return lower limits by measure, from texts such as ``ndcg@10=0.42``; raise ValueError for another text."""
    limits = {}
    for text in texts:
        name, sign, value = text.partition("=")
        try:
            limits[parse_measure(name).name] = float(value) if sign else float("nan")
        except ValueError as error:
            raise ValueError(f"{text!r}: expected MEASURE=VALUE, such as ndcg@10=0.42: {error}") from error
        if not 0 <= limits[parse_measure(name).name] <= 1:
            raise ValueError(f"{text!r}: expected a value from 0 to 1, such as ndcg@10=0.42")
    return limits


def failures(result: RunResult, limits: Mapping[str, float]) -> list[str]:
    """Return a line for each measure of a run that is below its limit."""
    return [
        f"{name} of {result.name} is {result.measures[name].value:.4f}, below {limit:g}"
        for name, limit in limits.items()
        if result.measures[name].value < limit
    ]


def read_baseline(path: str | PathLike[str]) -> dict[str, Any]:
    """Return an earlier evaluation from the JSON that it was saved as; raise ValueError for another file."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
        runs = {each["name"]: each["queries"] for each in value["runs"]}
        collections = {each["name"]: each.get("collection", "") for each in value["runs"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected the JSON of an evaluation, as evaluate --json prints it") from error
    texts = value.get("texts", {})
    return {"origin": value.get("origin", ""), "runs": runs, "collections": collections, "texts": texts}


def check_baseline(judged: Judged, baseline: Mapping[str, Any]) -> None:
    """Raise ValueError for a baseline whose judgements were of another origin or whose queries have other texts."""
    if baseline["origin"] != judged.origin:
        raise ValueError(f"the baseline is of {baseline['origin']}, and this evaluation of {judged.origin}")
    for query, text in judged.queries.items():
        before = baseline["texts"].get(query, text)
        if before != text:
            raise ValueError(
                f"query {query!r} of the baseline is {before!r}, and here {text!r}; pass the baseline of these queries"
            )


def changes(evaluation: Evaluation, baseline: Mapping[str, Any]) -> list[Change]:
    """Return what changed in the runs and measures of both evaluations, over the queries of both.

    Raises the errors of :func:`check_baseline`, and ValueError for a baseline without a common run or query.
    """
    check_baseline(evaluation.judged, baseline)
    found = [
        change
        for result in evaluation.results
        if result.name in baseline["runs"]
        for change in _of_run(result, baseline["runs"][result.name], list(evaluation.judged.queries), evaluation.seed)
    ]
    if not found:
        raise ValueError("the baseline has no run, measure and query in common with this evaluation")
    return found


def other_collections(evaluation: Evaluation, baseline: Mapping[str, Any]) -> list[str]:
    """Return a line for each run that searched another collection than the run of the baseline."""
    pairs = [(each.run, baseline["collections"].get(each.name)) for each in evaluation.results]
    return [
        f"{run.name} of the baseline searched the collection {before}, and here {run.collection}"
        for run, before in pairs
        if before and run.collection and before != run.collection
    ]


def _of_run(
    result: RunResult, before: Mapping[str, Mapping[str, float]], queries: Sequence[str], seed: int
) -> list[Change]:
    found = []
    for name, values in result.per_query.items():
        common = [place for place, query in enumerate(queries) if query in before.get(name, {})]
        if common:
            old, new = np.array([before[name][queries[place]] for place in common]), values[common]
            found.append(
                Change(result.name, name, float(old.mean()), float(new.mean()), len(common), _p(new, old, seed))
            )
    return found


def _p(new: Any, old: Any, seed: int) -> float:
    return paired_p(np.round(new, 6), old, seed)

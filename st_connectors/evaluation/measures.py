"""Measures of rankings, computed by ir-measures.

The rank of a document is its place in the result of the search, which orders equal scores by id. Grades are gains.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from st_core.errors import missing_extra

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from st_connectors.evaluation.judged import Judged
    from st_connectors.evaluation.runs import Run

__all__ = ["DEFAULT_MEASURES", "Measure", "check_measurable", "measured", "parse_measure"]

DEFAULT_MEASURES = ("ndcg@10", "recall@100", "rr@10", "map@100", "success@5")

_KINDS = {"ndcg": "nDCG", "recall": "R", "rr": "RR", "mrr": "RR", "map": "AP", "success": "Success", "precision": "P"}
"""The names of kinds of measures in ir-measures."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A kind of measure and the number of documents that it reads."""

    kind: str
    depth: int

    @property
    def name(self) -> str:
        """The name, such as ``ndcg@10``."""
        return f"{self.kind}@{self.depth}"


def parse_measure(name: str) -> Measure:
    """Return the measure of a name such as ``ndcg@10``; raise ValueError for another name."""
    match = re.fullmatch(r"([a-z]+)@([1-9][0-9]*)", name.strip().lower())
    if match is None or match[1] not in _KINDS:
        raise ValueError(f"unknown measure {name!r}; expected one of {', '.join(_KINDS)} with a depth, such as ndcg@10")
    return Measure(match[1], int(match[2]))


def check_measurable(judged: Judged) -> None:
    """Raise what :func:`measured` would raise for any run of judged queries, before they are searched for.

    That is ImportError if ir-measures is not installed, and ValueError for a grade that is no whole number.
    """
    _library()
    for query, grades in judged.grades.items():
        for document, grade in grades.items():
            _whole(grade, query, document)


def measured(run: Run, judged: Judged, measures: Sequence[Measure]) -> dict[str, NDArray[np.float64]]:
    """Return the value of each query [n], in the order of the queries, by the name of the measure.

    A query without results has 0. Raises ImportError if ir-measures is not installed.
    """
    library = _library()
    objects = {_object(library, each): each.name for each in measures}
    places = {query: place for place, query in enumerate(judged.queries)}
    values = {each.name: np.zeros(len(places)) for each in measures}
    ranked = {
        query: {document: float(-rank) for rank, (document, _) in enumerate(run.rankings.get(query, ()))}
        for query in places
    }
    grades = {
        query: {key: _whole(grade, query, key) for key, grade in judged.grades[query].items()} for query in places
    }
    for each in library.iter_calc(list(objects), grades, ranked):
        values[objects[each.measure]][places[each.query_id]] = each.value
    return values


def _whole(grade: float, query: str, document: str) -> int:
    if not math.isfinite(grade) or grade != int(grade):
        raise ValueError(f"document {document!r} of query {query!r} has the grade {grade:g}; expected a whole number")
    return int(grade)


def _library() -> Any:
    try:
        import ir_measures
    except ImportError as error:
        raise missing_extra("evaluate", "an evaluation") from error
    return ir_measures


def _object(library: Any, measure: Measure) -> Any:
    return getattr(library, _KINDS[measure.kind]) @ measure.depth

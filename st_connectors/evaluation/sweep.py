"""Fusions swept over one half of the queries, the best of which is measured on the other half."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from st_connectors.evaluation.evaluating import search_run
from st_connectors.evaluation.measures import Measure, measured
from st_connectors.evaluation.runs import Run
from st_connectors.evaluation.worst import leg_variants
from st_connectors.fusion import fuse
from st_connectors.schema import Fusion, Rrf, Weighted

if TYPE_CHECKING:
    from st_connectors.evaluation.evaluating import Progress
    from st_connectors.evaluation.judged import Judged
    from st_connectors.index import Index

__all__ = ["Sweep", "fusions", "sweep"]

STEPS = {2: 10, 3: 5}
"""Into how many steps a weight from 0 to 1 is divided, by the number of legs."""

RANK_CONSTANTS = (10, 60)


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """The best fusion by the queries of the development half, its value there, and the run of the other half.

    ``tried`` has the value of every fusion on the development half.
    """

    best: Fusion
    value: float
    run: Run
    rest: Judged
    tried: tuple[tuple[Fusion, float], ...]


def fusions(legs: int) -> Iterator[Fusion]:
    """Yield the fusions of a number of legs that are tried; raise ValueError for a number of legs that is not swept."""
    if legs not in STEPS:
        raise ValueError(f"weights are swept for two or three legs, and the collection has {legs}; name runs instead")
    yield from (Rrf(constant) for constant in RANK_CONSTANTS)
    steps = STEPS[legs]
    for parts in product(range(steps + 1), repeat=legs):
        if sum(parts) == steps:
            yield Weighted(tuple(part / steps for part in parts))


def sweep(
    index: Index, judged: Judged, measure: Measure, *, limit: int, seed: int = 0, progress: Progress | None = None
) -> Sweep:
    """Search each leg once, and fuse the results in every way.

    Half of the queries, drawn by the seed, select the fusion; the result has the run of the others alone. Of equal
    values the first fusion is selected. Raises ValueError for a collection of one leg, and fewer than two queries.
    """
    candidates = list(fusions(len(index.schema.fields)))
    if len(judged.queries) < 2:
        raise ValueError(f"a sweep needs at least two judged queries, got {len(judged.queries)}")
    legs = [search_run(each, judged.queries, limit, progress) for each in leg_variants(index)]
    order = sorted(judged.queries)
    random.Random(seed).shuffle(order)  # noqa: S311 - a sample, no secret
    development, rest = judged.part(order[: len(order) // 2]), judged.part(order[len(order) // 2 :])
    tried = tuple(
        (each, float(measured(_fused(legs, each, development, limit), development, [measure])[measure.name].mean()))
        for each in candidates
    )
    best, value = tried[int(np.argmax([value for _, value in tried]))]
    return Sweep(best, value, _fused(legs, best, rest, limit), rest, tried)


def _fused(legs: Sequence[Run], method: Fusion, judged: Judged, limit: int) -> Run:
    rankings = {query: fuse([dict(each.rankings[query]) for each in legs], method)[:limit] for query in judged.queries}
    return Run("swept", rankings)

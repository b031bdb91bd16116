"""Compare the searches of two indexes of the same documents."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from st_connectors.index import Index

__all__ = ["SearchComparison", "compare_indexes", "ndcg", "overlap", "rank_correlation"]


@dataclass(frozen=True, slots=True)
class SearchComparison:
    """How the searches of a new index compare with those of the present one; means over the queries.

    Hits are documents. ``overlap`` is the share of common hits among the first ``limit``. ``rank_correlation`` is
    Kendall's tau of the common hits, over the queries with two or more of them; None if there is no such query.
    ``milliseconds`` are the medians of the present and of the new index for one query, encoded and searched. ``ndcg``
    are the qualities of both, over the ``judged`` queries; None without judgements.
    """

    queries: int
    limit: int
    overlap: float
    rank_correlation: float | None
    milliseconds: tuple[float, float]
    judged: int = 0
    ndcg: tuple[float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        before, after = self.milliseconds
        rows = [
            (f"overlap at {self.limit}", f"{self.overlap:.3f}"),
            ("rank correlation", "unknown" if self.rank_correlation is None else f"{self.rank_correlation:.3f}"),
            ("milliseconds per query", f"{before:.1f} before, {after:.1f} after"),
        ]
        if self.ndcg is not None:
            before, after = self.ndcg
            rows.append((f"nDCG at {self.limit}", f"{before:.4f} before, {after:.4f} after ({self.judged:,} queries)"))
        return "\n".join(f"{name:<24}{value}" for name, value in rows)


def compare_indexes(
    present: Index,
    new: Index,
    queries: Mapping[str, str],
    judgements: Mapping[str, Mapping[str, float]],
    *,
    limit: int = 10,
) -> SearchComparison:
    """Search both indexes for queries by id; ``judgements`` are the gains of documents by the id of a query.

    Raises ValueError if there is no query.
    """
    if not queries:
        raise ValueError("there is no query to compare by: pass some")
    before, after = (_timed_hits(index, queries, limit) for index in (present, new))
    correlations = [rank_correlation(before.hits[each], after.hits[each]) for each in queries]
    known = [each for each in correlations if each is not None]
    judged = [each for each in queries if any(gain > 0 for gain in judgements.get(each, {}).values())]
    qualities = [
        statistics.fmean(ndcg(searched.hits[each], judgements[each], limit) for each in judged)
        for searched in (before, after)
        if judged
    ]
    return SearchComparison(
        queries=len(queries),
        limit=limit,
        overlap=statistics.fmean(overlap(before.hits[each], after.hits[each]) for each in queries),
        rank_correlation=statistics.fmean(known) if known else None,
        milliseconds=(before.milliseconds, after.milliseconds),
        judged=len(judged),
        ndcg=(qualities[0], qualities[1]) if qualities else None,
    )


def overlap(one: Sequence[str], other: Sequence[str]) -> float:
    """Return the share of ids in the longer list that both have; 1 for two empty lists."""
    longest = max(len(one), len(other))
    return len(set(one) & set(other)) / longest if longest else 1.0


def rank_correlation(one: Sequence[str], other: Sequence[str]) -> float | None:
    """Return Kendall's tau of the ids that both lists have, in [-1, 1]; None for fewer than two."""
    ranks = {each: rank for rank, each in enumerate(other)}
    common = [ranks[each] for each in one if each in ranks]
    pairs = [1 if first < second else -1 for first, second in combinations(common, 2)]
    return sum(pairs) / len(pairs) if pairs else None


def ndcg(ids: Sequence[str], gains: Mapping[str, float], limit: int) -> float:
    """Return the normalised discounted cumulative gain of the first ids; ``gains`` contains one above 0.

    Järvelin and Kekäläinen, TOIS 2002, with the logarithm to base 2 of the rank plus 1.
    """
    best = _discounted(sorted((gain for gain in gains.values() if gain > 0), reverse=True)[:limit])
    return _discounted([max(0.0, gains.get(each, 0.0)) for each in ids[:limit]]) / best


def _discounted(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))


@dataclass(frozen=True, slots=True)
class _Searched:
    hits: Mapping[str, list[str]]
    milliseconds: float


def _timed_hits(index: Index, queries: Mapping[str, str], limit: int) -> _Searched:
    """Return the ids of the hits of each query, and the median time; the first query loads the models untimed."""
    index.search(next(iter(queries.values())), limit=limit)
    hits, times = {}, []
    for name, query in queries.items():
        began = time.perf_counter()
        result = index.search(query, limit=limit, fold=True)
        times.append(1000 * (time.perf_counter() - began))
        hits[name] = [hit.id for hit in result.hits]
    return _Searched(hits, round(statistics.median(times), 2))

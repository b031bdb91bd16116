"""How several rankings become one: pure formulas, the reference that a store's own fusion must agree with."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import assert_never

from st_connectors.schema import Fusion, Rrf, Weighted

__all__ = ["check_weights", "fuse", "rrf", "weighted"]


def fuse(legs: Sequence[Mapping[str, float]], method: Fusion) -> list[tuple[str, float]]:
    """Fuse legs, each the scores of its candidates by id, best first; gives ids and fused scores by ``(-score, id)``."""
    match method:
        case Rrf(k, weights):
            return rrf([list(leg) for leg in legs], k, weights)
        case Weighted(weights, _):
            return weighted(legs, weights)
        case _:
            assert_never(method)


def rrf(
    rankings: Sequence[Sequence[str]], k: int = 60, weights: Sequence[float] | None = None
) -> list[tuple[str, float]]:
    """Reciprocal rank fusion: the sum over rankings of ``weight / (k + rank)``, ranks from 1, by ``(-score, id)``.

    Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank learning methods", SIGIR 2009, with
    k = 60; the weights are the usual extension. An id counts where it first stands in a ranking. A ranking of weight 0 takes no part:
    what only it holds is left out.
    """
    fused: dict[str, float] = {}
    for ranking, weight in zip(rankings, _weights(weights, len(rankings)), strict=True):
        if weight:
            for rank, key in enumerate(dict.fromkeys(ranking), start=1):
                fused[key] = fused.get(key, 0.0) + weight / (k + rank)
    return _sorted(fused)


def weighted(legs: Sequence[Mapping[str, float]], weights: Sequence[float]) -> list[tuple[str, float]]:
    """The weighted sum of scores brought to [0, 1] leg by leg, ``(score - least) / (most - least)``, by ``(-score, id)``.

    Fox and Shaw, "Combination of multiple searches", TREC-2 1994 (CombSUM), over min-max normalised scores (Lee, SIGIR 1997). A leg
    whose scores are all equal, or that holds one candidate, gives 1 to each; an id absent from a leg gets 0 from it; a leg of weight 0
    takes no part.
    """
    fused: dict[str, float] = {}
    for leg, weight in zip(legs, _weights(weights, len(legs)), strict=True):
        if weight and leg:
            least, most = min(leg.values()), max(leg.values())
            for key, score in leg.items():
                share = (score - least) / (most - least) if most > least else 1.0
                fused[key] = fused.get(key, 0.0) + weight * share
    return _sorted(fused)


def check_weights(method: Fusion, legs: Collection[str]) -> None:
    """Raise ValueError where a fusion has weights, and not one for each of the legs."""
    if method.weights is not None and len(method.weights) != len(legs):
        count = len(method.weights)
        raise ValueError(f"the fusion has {count} weight{'s' * (count != 1)} for {len(legs)} legs: {', '.join(legs)}")


def _weights(weights: Sequence[float] | None, legs: int) -> Sequence[float]:
    """One weight per leg; raises ValueError for another number of them."""
    if weights is None:
        return [1.0] * legs
    if len(weights) != legs:
        raise ValueError(f"{len(weights)} weights for {legs} legs: give one weight per leg")
    return weights


def _sorted(fused: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(fused.items(), key=lambda item: (-item[1], item[0]))

"""Fuse several rankings into one; the fusion of a store must agree with these formulas."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import assert_never

from st_connectors.arguments import check_int
from st_connectors.schema import Fusion, Rrf, Weighted

__all__ = ["check_fusion", "check_weights", "fuse", "rrf", "weighted"]


def fuse(legs: Sequence[Mapping[str, float]], method: Fusion) -> list[tuple[str, float]]:
    """Fuse legs and return the ids with their fused scores, sorted by ``(-score, id)``.

    Each leg is a mapping of ids to scores, in the order of its ranking.
    """
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
    """Fuse by reciprocal ranks: the score is the sum over rankings of ``weight / (k + rank)``, with ranks from 1.

    The result is sorted by ``(-score, id)``. The formula is that of Cormack, Clarke and Büttcher, "Reciprocal rank
    fusion outperforms Condorcet and individual rank learning methods", SIGIR 2009, with k = 60; the weights are the
    usual extension. If a ranking contains an id several times, its first rank counts. A ranking of weight 0 is ignored,
    so that ids that only it contains are omitted.
    """
    fused: dict[str, float] = {}
    for ranking, weight in zip(rankings, _weights(weights, len(rankings)), strict=True):
        if weight:
            for rank, key in enumerate(dict.fromkeys(ranking), start=1):
                fused[key] = fused.get(key, 0.0) + weight / (k + rank)
    return _sorted(fused)


def weighted(legs: Sequence[Mapping[str, float]], weights: Sequence[float]) -> list[tuple[str, float]]:
    """Fuse by the weighted sum of scores, which are scaled to [0, 1] by the minimum and maximum of each leg.

    The result is sorted by ``(-score, id)``. The formula is CombSUM of Fox and Shaw, "Combination of multiple
    searches", TREC-2 1994, with min-max normalised scores (Lee, SIGIR 1997). In a leg with equal scores, each id scores
    1; an id that is absent from a leg scores 0; a leg of weight 0 is ignored.
    """
    fused: dict[str, float] = {}
    for leg, weight in zip(legs, _weights(weights, len(legs)), strict=True):
        if weight and leg:
            least, most = min(leg.values()), max(leg.values())
            for key, score in leg.items():
                share = (score - least) / (most - least) if most > least else 1.0
                fused[key] = fused.get(key, 0.0) + weight * share
    return _sorted(fused)


def check_fusion(method: object) -> Fusion:
    """Return ``method`` if it is a valid fusion; raise TypeError or ValueError otherwise."""
    match method:
        case Rrf(k, weights):
            method = Rrf(check_int(k, 1, "k of Rrf"), weights)
        case Weighted(weights, normalise):
            if normalise != "min_max":
                raise ValueError(f"unknown normalisation {normalise!r} of Weighted; expected 'min_max'")
        case _:
            raise TypeError(f"expected a fusion, Rrf or Weighted of st_connectors.store, not {method!r}")
    if weights is None:
        return method
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not any(weights):
        raise ValueError(f"expected finite weights, none below 0 and one above it; got {weights}")
    return method


def check_weights(method: Fusion, legs: Collection[str]) -> None:
    """Raise ValueError unless a fusion has no weights, or one weight for each of ``legs``."""
    if method.weights is not None and len(method.weights) != len(legs):
        count = len(method.weights)
        raise ValueError(f"the fusion has {count} weight{'s' * (count != 1)} for {len(legs)} legs: {', '.join(legs)}")


def _weights(weights: Sequence[float] | None, legs: int) -> Sequence[float]:
    """Return one weight per leg, 1.0 if no weights are set; raise ValueError for another number of weights."""
    if weights is None:
        return [1.0] * legs
    if len(weights) != legs:
        raise ValueError(f"{len(weights)} weights for {legs} legs: give one weight per leg")
    return weights


def _sorted(fused: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(fused.items(), key=lambda item: (-item[1], item[0]))

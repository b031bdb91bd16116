"""A second implementation of the fusion formulas, independent of the one under test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from st_connectors.schema import Fusion, Rrf
from st_connectors.store import Fuse, Hit, LegHit

__all__ = ["fused"]


def fused(rank: Fuse, legs: Sequence[Sequence[Hit]]) -> list[Hit]:
    """Return the candidates of all legs in fused order, each with its rank in every leg that contains it."""
    content = {hit.id: hit for leg in legs for hit in leg}
    scores: dict[str, float] = {}
    for number, leg in enumerate(legs):
        for name, share in _shares(leg, number, rank.method, len(legs)).items():
            scores[name] = scores.get(name, 0.0) + share
    leg_hits = {
        name: tuple(
            LegHit(number, rank.legs[number].field, at, hit.score)
            for number, leg in enumerate(legs)
            for at, hit in enumerate(leg, 1)
            if hit.id == name
        )
        for name in scores
    }
    order = sorted(scores, key=lambda name: (-scores[name], name))
    return [replace(content[name], score=scores[name], legs=leg_hits[name]) for name in order]


def _shares(leg: Sequence[Hit], number: int, method: Fusion, legs: int) -> dict[str, float]:
    """Return the contribution of one leg to the fused score of each hit; a leg of weight 0 contributes nothing."""
    weight = ((1.0,) * legs if method.weights is None else method.weights)[number]
    if weight == 0:
        return {}
    if isinstance(method, Rrf):
        return {hit.id: weight / (method.k + rank) for rank, hit in enumerate(leg, 1)}
    low, high = min((hit.score for hit in leg), default=0.0), max((hit.score for hit in leg), default=0.0)
    return {hit.id: weight * ((hit.score - low) / (high - low) if high > low else 1.0) for hit in leg}

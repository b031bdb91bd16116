"""Scores of vector fields, which both engines map to positive numbers in the same way, and their precision."""

from __future__ import annotations

import math
from dataclasses import replace

from st_connectors.schema import DenseField, Field, Metric, kind_of
from st_connectors.store import Capabilities, Precision

__all__ = ["precision_of", "unfold_score"]


def unfold_score(metric: Metric, score: float) -> float:
    """Return the cosine, the inner product, or minus the Euclidean distance, from an engine's score.

    Engines score ``(1 + cosine) / 2``; ``1 + product`` for products from 0 and ``1 / (1 - product)`` below; ``1 / (1 +
    distance ** 2)``. Elasticsearch does so for ``dot_product``, ``cosine``, ``max_inner_product`` and ``l2_norm``,
    OpenSearch's Lucene engine for ``cosinesimil``, ``innerproduct`` and ``l2``.
    """
    match metric:
        case Metric.COSINE:
            return min(1.0, max(-1.0, 2.0 * score - 1.0))
        case Metric.DOT:
            return score - 1.0 if score >= 1.0 else 1.0 - 1.0 / score if score > 0.0 else -math.inf
        case Metric.EUCLIDEAN:
            return -math.sqrt(max(0.0, 1.0 / score - 1.0)) + 0.0 if score > 0.0 else -math.inf


def precision_of(bound: Capabilities, spec: Field) -> Precision:
    """Return the precision of a field on either engine."""
    precision = bound.fields[kind_of(spec).value]
    # 1 / (1 + distance ** 2) in float32 loses half of the digits of a small distance.
    is_euclidean = isinstance(spec, DenseField) and spec.metric is Metric.EUCLIDEAN
    return replace(precision, score_rtol=5e-4) if is_euclidean else precision

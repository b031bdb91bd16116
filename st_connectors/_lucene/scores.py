"""Convert the scores of vector fields, which both engines map to positive numbers in the same way."""

from __future__ import annotations

import math
from dataclasses import replace

from st_connectors.schema import DenseField, Field, Metric, kind_of
from st_connectors.store import Capabilities, Precision

__all__ = ["precision_of", "unfold_score"]


def unfold_score(metric: Metric, score: float) -> float:
    """Convert the score of an engine to the cosine, the inner product, or minus the Euclidean distance.

    The score of an engine is ``(1 + cosine) / 2`` for a cosine, ``1 + product`` for an inner product from 0 and
    ``1 / (1 - product)`` for a negative one, and ``1 / (1 + distance ** 2)`` for a distance. This applies to
    ``dot_product``, ``cosine``, ``max_inner_product`` and ``l2_norm`` in Elasticsearch, and to ``cosinesimil``,
    ``innerproduct`` and ``l2`` in OpenSearch's Lucene engine.
    """
    match metric:
        case Metric.COSINE:
            return min(1.0, max(-1.0, 2.0 * score - 1.0))
        case Metric.DOT:
            return score - 1.0 if score >= 1.0 else 1.0 - 1.0 / score if score > 0.0 else -math.inf
        case Metric.EUCLIDEAN:
            return -math.sqrt(max(0.0, 1.0 / score - 1.0)) + 0.0 if score > 0.0 else -math.inf


def precision_of(bound: Capabilities, spec: Field) -> Precision:
    """Return the precision of a field, which is the same on both engines; ``bound`` has the precision of each kind."""
    precision = bound.fields[kind_of(spec).value]
    # 1 / (1 + distance ** 2) in float32 loses half of the digits of a small distance.
    is_euclidean = isinstance(spec, DenseField) and spec.metric is Metric.EUCLIDEAN
    return replace(precision, score_rtol=5e-4) if is_euclidean else precision

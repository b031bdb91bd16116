"""What an engine's score means: both fold similarities into positive numbers, in the same way."""

from __future__ import annotations

import math

from st_connectors.schema import Metric

__all__ = ["unfolded"]


def unfolded(metric: Metric, score: float) -> float:
    """The cosine, the inner product, or minus the Euclidean distance, from what a search gave.

    Folding is ``(1 + cosine) / 2``; ``1 + product`` from 0 up and ``1 / (1 - product)`` below; ``1 / (1 + distance ** 2)``. Both engines
    do so: Elasticsearch for ``dot_product``, ``cosine``, ``max_inner_product`` and ``l2_norm``,
    OpenSearch's Lucene engine for ``cosinesimil``, ``innerproduct`` and ``l2``.
    """
    match metric:
        case Metric.COSINE:
            return min(1.0, max(-1.0, 2.0 * score - 1.0))
        case Metric.DOT:
            return score - 1.0 if score >= 1.0 else 1.0 - 1.0 / score if score > 0.0 else -math.inf
        case Metric.EUCLIDEAN:
            return -math.sqrt(max(0.0, 1.0 / score - 1.0)) + 0.0 if score > 0.0 else -math.inf

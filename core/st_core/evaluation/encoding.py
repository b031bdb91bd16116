"""What evaluators of vectors share: how texts are encoded, and the numbers of active terms of sparse vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from st_core.evaluation.evaluator import Evaluator

__all__ = ["CountsTerms", "VectorEvaluator", "active_terms", "as_limit"]

_METHODS = {
    "": "encode",
    "query": "encode_query",
    "anchor": "encode_query",
    "corpus": "encode_document",
    "positive": "encode_document",
    "negative": "encode_document",
}
"""The method of a model that encodes the texts of a side; the plain side has an empty name."""


class VectorEvaluator(Evaluator):
    """An evaluator that encodes texts."""

    limit_name: ClassVar[str] = "truncate_dim"
    """The argument that limits the size of a vector."""

    def __init__(
        self,
        name: str,
        *,
        write_csv: bool,
        batch_size: int,
        show_progress_bar: bool = False,
        limit: int | None = None,
        precision: str | None = None,
    ) -> None:
        """Store the arguments."""
        super().__init__(name, write_csv=write_csv)
        options: dict[str, Any] = {"batch_size": batch_size, "show_progress_bar": show_progress_bar}
        chosen = {self.limit_name: limit, "precision": precision}
        self._options = options | {key: value for key, value in chosen.items() if value is not None}

    def encode(self, model: Any, texts: Sequence[str], side: str = "", **prompts: str | None) -> Any:
        """Return the vectors of the texts of a side: of plain texts, of queries or of documents."""
        return getattr(model, _METHODS[side])(list(texts), **self._options, **prompts)


class CountsTerms(VectorEvaluator):
    """Adds the numbers of active terms to an evaluator, the second base class of its sparse form.

    ``max_active_dims`` limits the terms of a vector; it has the place of ``truncate_dim``. For each side of the texts,
    ``active_dims`` is the mean number of terms, and ``sparsity_ratio`` the share of all terms that a vector lacks.
    """

    limit_name = "max_active_dims"

    def __init__(self, *args: Any, max_active_dims: int | None = None, **kwargs: Any) -> None:
        """Store the arguments; raise TypeError for ``truncate_dim``, which sparse vectors do not have."""
        self.counts: dict[str, NDArray[np.int64]] = {}
        """How many vectors have each term [V], by side."""
        self.rows: dict[str, int] = {}
        """The number of vectors by side."""
        super().__init__(*args, **as_limit(type(self).__name__, max_active_dims, kwargs))
        self.max_active_dims = self._options.get("max_active_dims")

    def compute(self, model: Any) -> dict[str, float]:
        """Return the metrics of a model, and the numbers of active terms."""
        self.counts, self.rows = {}, {}
        metrics = super().compute(model)  # type: ignore[safe-super] # the dense form of the evaluator is next in order
        return {**metrics, **active_terms(self.counts, self.rows)}

    def columns(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """Return the columns of the table, those of sentence-transformers."""
        terms = active_terms(self.counts, self.rows)
        others = {name: value for name, value in metrics.items() if name not in terms}
        return {**super().columns(others), **terms}

    def encode(self, model: Any, texts: Sequence[str], side: str = "", **prompts: str | None) -> Any:
        """Return the vectors of the texts of a side, after counting their terms."""
        vectors = super().encode(model, texts, side, **prompts)
        counts = np.bincount(np.asarray(vectors.indices, np.int64), minlength=vectors.shape[1])
        self.counts[side] = self.counts.get(side, 0) + counts
        self.rows[side] = self.rows.get(side, 0) + vectors.shape[0]
        return vectors


def as_limit(evaluator: str, max_active_dims: int | None, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the dense form of an evaluator, whose ``truncate_dim`` is the number of terms."""
    if "truncate_dim" in arguments:
        raise TypeError(f"{evaluator} has no argument truncate_dim; pass max_active_dims")
    return {**arguments, **({} if max_active_dims is None else {"truncate_dim": max_active_dims})}


def active_terms(counts: Mapping[str, NDArray[np.int64]], rows: Mapping[str, int]) -> dict[str, float]:
    """Return the mean number of terms and the share of missing ones for each side."""
    metrics = {}
    for side, count in counts.items():
        prefix, active = f"{side}_" if side else "", float(count.sum()) / rows[side]
        metrics[f"{prefix}active_dims"] = active
        metrics[f"{prefix}sparsity_ratio"] = 1.0 - active / count.size
    return metrics

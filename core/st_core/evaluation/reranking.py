"""How well a cross-encoder orders the documents of a query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from st_core.evaluation.evaluator import Evaluator
from st_core.evaluation.ranking import average_precision, discounted_gain, reciprocal_rank

__all__ = ["CrossEncoderRerankingEvaluator"]


class CrossEncoderRerankingEvaluator(Evaluator):
    """Orders the documents of queries by descending score, of equal scores those last that come first in the sample.

    A sample has a ``query``, one or more texts in ``positive``, and texts in ``negative``, or in ``documents`` the
    ranking that is to be improved, whose own measures are then returned too, with the names ``base_…``. With
    ``always_rerank_positives`` positives that are not among the documents are added to them; without it, they count as
    not found. A model that gives equal scores to all documents thereby ranks positives last. Raises ValueError for
    samples without these keys.
    """

    def __init__(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        samples: Sequence[Mapping[str, Any]] | Mapping[Any, Mapping[str, Any]],
        at_k: int = 10,
        always_rerank_positives: bool = True,
        name: str = "",
        prompt_name: str | None = None,
        batch_size: int = 64,
        show_progress_bar: bool = False,
        write_csv: bool = True,
    ) -> None:
        """Store the samples after checking them."""
        super().__init__(name, write_csv=write_csv)
        self.samples = list(samples.values()) if isinstance(samples, Mapping) else list(samples)
        if not self.samples:
            raise ValueError("there is nothing to evaluate; pass at least one sample")
        for place, sample in enumerate(self.samples):
            missing = [key for key in ("query", "positive") if key not in sample]
            if missing or ("negative" in sample) == ("documents" in sample):
                raise ValueError(
                    f"sample {place} has the keys {', '.join(sample)}; expected query, positive, and negative or "
                    "documents, not both"
                )
        self.at_k = at_k
        self.always_rerank_positives = always_rerank_positives
        self._options = {"prompt_name": prompt_name, "batch_size": batch_size, "show_progress_bar": show_progress_bar}
        self.csv_file = f"CrossEncoderRerankingEvaluator{f'_{name}' if name else ''}_results_@{at_k}.csv"
        self.primary_metric = self._named(f"ndcg@{at_k}")

    def compute(self, model: Any) -> dict[str, float]:
        """Return the measures of a model, and those of the rankings before."""
        candidates = [self._candidates(sample) for sample in self.samples]
        pairs = [
            (sample["query"], text) for sample, texts in zip(self.samples, candidates, strict=True) for text in texts
        ]
        scores = np.asarray(model.predict(pairs, **self._options)) if pairs else np.zeros(0)
        parts = np.split(scores, np.cumsum([len(texts) for texts in candidates])[:-1])
        reranked = [
            self._measures(sample, _ordered(texts, part))
            for sample, texts, part in zip(self.samples, candidates, parts, strict=True)
        ]
        metrics = _means(reranked)
        before = [self._before(sample) for sample in self.samples if "documents" in sample]
        return metrics | ({f"base_{name}": value for name, value in _means(before).items()} if before else {})

    def primary_of(self, metrics: Mapping[str, float], model: Any) -> str:  # noqa: ARG002
        """Return the name of nDCG."""
        return f"ndcg@{self.at_k}"

    def _candidates(self, sample: Mapping[str, Any]) -> list[str]:
        """Return the documents that are scored, positives first."""
        positive = _positives(sample)
        if "negative" in sample:
            return [*positive, *sample["negative"]]
        if not self.always_rerank_positives:
            return list(sample["documents"])
        return [*positive, *(text for text in sample["documents"] if text not in positive)]

    def _before(self, sample: Mapping[str, Any]) -> dict[str, float]:
        """Return the measures of the documents in their order, with missed positives behind them."""
        positive, documents = _positives(sample), list(sample["documents"])
        if not any(text in positive for text in documents):
            return dict.fromkeys(("map", f"mrr@{self.at_k}", f"ndcg@{self.at_k}"), 0.0)
        return self._measures(sample, [*documents, *(text for text in positive if text not in documents)])

    def _measures(self, sample: Mapping[str, Any], ranked: Sequence[str]) -> dict[str, float]:
        positive = set(_positives(sample))
        grades = np.array([text in positive for text in ranked], np.float64)
        found = int(grades.sum())
        gain, best = (discounted_gain(each, self.at_k) for each in (grades, np.ones(found)))
        return {
            "map": average_precision(grades, len(ranked), found) if found else 0.0,
            f"mrr@{self.at_k}": reciprocal_rank(grades, self.at_k),
            f"ndcg@{self.at_k}": gain / best if found else 0.0,
        }


def _positives(sample: Mapping[str, Any]) -> list[str]:
    positive = sample["positive"]
    return [positive] if isinstance(positive, str) else list(positive)


def _ordered(texts: Sequence[str], scores: NDArray[np.floating]) -> list[str]:
    """Return documents by descending score; of equal scores, those that come later first."""
    return [texts[place] for place in np.lexsort((-np.arange(len(texts)), -scores))]


def _means(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([each[name] for each in values])) for name in values[0]}

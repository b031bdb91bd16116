"""How well a model orders the documents of a query, and how well two rankings do when they are fused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from st_core.evaluation.encoding import CountsTerms, VectorEvaluator
from st_core.evaluation.evaluator import Evaluator, append_row
from st_core.evaluation.ranking import average_precision, discounted_gain, grades_of, reciprocal_rank
from st_core.similarity import cos_sim

__all__ = [
    "CrossEncoderRerankingEvaluator",
    "ReciprocalRankFusionEvaluator",
    "RerankingEvaluator",
    "SparseRerankingEvaluator",
]


class CrossEncoderRerankingEvaluator(Evaluator):
    """Orders the documents of queries by descending score, of equal scores those last that come first in the sample.

    A sample has a ``query``, one or more texts in ``positive``, and texts in ``negative``, or in ``documents`` the
    ranking that is to be improved, whose own measures are then returned too, with the names ``base_…``. Positives that
    are a mapping have grades, which are the gains of nDCG. With
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
        self.samples = _listed(samples)
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

    def columns(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """Return the columns of the table, those of sentence-transformers."""
        return {name.upper(): value for name, value in metrics.items() if not name.startswith("base_")}

    def _candidates(self, sample: Mapping[str, Any]) -> list[str]:
        """Return the documents that are scored, positives first."""
        positive = _texts(sample["positive"])
        if "negative" in sample:
            return [*positive, *_texts(sample["negative"])]
        if not self.always_rerank_positives:
            return list(sample["documents"])
        return [*positive, *(text for text in sample["documents"] if text not in positive)]

    def _before(self, sample: Mapping[str, Any]) -> dict[str, float]:
        return retrieved_measures(sample["positive"], sample["documents"], self.at_k)

    def _measures(self, sample: Mapping[str, Any], ranked: Sequence[str]) -> dict[str, float]:
        return ranked_measures(sample["positive"], ranked, self.at_k)


class RerankingEvaluator(VectorEvaluator):
    """Orders the documents of queries by their similarity, of equal ones those last that come first in the sample.

    A sample has a ``query``, and one or more texts in ``positive`` and in ``negative``. Positives that are a mapping
    have grades, which are the gains of nDCG. Samples without positives or without negatives are left out; ValueError if
    none remains. Positives come first, so that a model that gives equal scores to all documents ranks them last.
    Without ``use_batched_encoding`` the texts of one sample are encoded at a time.
    """

    def __init__(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        samples: Sequence[Mapping[str, Any]] | Mapping[Any, Mapping[str, Any]],
        at_k: int = 10,
        name: str = "",
        write_csv: bool = True,
        similarity_fct: Callable[[Any, Any], Any] = cos_sim,
        batch_size: int = 64,
        show_progress_bar: bool = False,
        use_batched_encoding: bool = True,
        truncate_dim: int | None = None,
    ) -> None:
        """Store the samples after checking them."""
        super().__init__(
            name,
            write_csv=write_csv,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            limit=truncate_dim,
        )
        listed = _listed(samples)
        for place, sample in enumerate(listed):
            if not sample.keys() >= {"query", "positive", "negative"}:
                raise ValueError(
                    f"sample {place} has the keys {', '.join(sample)}; expected query, positive and negative"
                )
        self.samples = [sample for sample in listed if sample["positive"] and sample["negative"]]
        if not self.samples:
            raise ValueError(f"none of the {len(listed)} samples has positives and negatives; pass at least one")
        self.at_k = at_k
        self.similarity_fct = similarity_fct
        self.use_batched_encoding = use_batched_encoding
        self.csv_file = f"RerankingEvaluator{f'_{name}' if name else ''}_results_@{at_k}.csv"
        self.primary_metric = self._named(f"ndcg@{at_k}")

    def compute(self, model: Any) -> dict[str, float]:
        """Return the measures of a model."""
        if self.use_batched_encoding:
            return _means(self._of(model, self.samples))
        return _means([values for sample in self.samples for values in self._of(model, [sample])])

    def _of(self, model: Any, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
        """Return the measures of samples whose texts are encoded together."""
        texts = [[*_texts(sample["positive"]), *_texts(sample["negative"])] for sample in samples]
        queries = self.encode(model, [sample["query"] for sample in samples], "query")
        documents = self.encode(model, [text for each in texts for text in each], "corpus")
        ends = np.cumsum([len(each) for each in texts]).tolist()
        measures = []
        for place, (sample, each, end) in enumerate(zip(samples, texts, ends, strict=True)):
            scores = self.similarity_fct(queries[place : place + 1], documents[end - len(each) : end])
            found = np.asarray(scores.cpu() if hasattr(scores, "cpu") else scores).reshape(-1)
            measures.append(ranked_measures(sample["positive"], _ordered(each, found), self.at_k))
        return measures

    def columns(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """Return the columns of the table, those of sentence-transformers."""
        return {name.upper(): value for name, value in metrics.items()}

    def primary_of(self, metrics: Mapping[str, float], model: Any) -> str:  # noqa: ARG002
        """Return the name of nDCG."""
        return f"ndcg@{self.at_k}"


class SparseRerankingEvaluator(CountsTerms, RerankingEvaluator):
    """:class:`RerankingEvaluator` of sparse vectors, with their numbers of active terms.

    As in sentence-transformers, documents are ordered by cosine; pass ``similarity_fct=model.similarity`` for the
    similarity of the model.
    """


class ReciprocalRankFusionEvaluator:
    """Fuses two rankings of each query by reciprocal ranks, and measures both and their fusion; it needs no model.

    A sample has ``query_id``, ``query``, one or more texts in ``positive``, and in ``documents`` the texts of a
    ranking, best first. Positives that are a mapping have grades, which are the gains of nDCG. The score of a document
    is the sum of 1 / (rrf_k + rank) over the rankings that have it; of equal scores, those of the dense ranking come
    first. As in sentence-transformers, positives that a ranking lacks count as if they came right after it, unless it
    has none. Raises ValueError for samples of other queries or without these keys, and if there are none.
    """

    def __init__(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        dense_samples: Sequence[Mapping[str, Any]],
        sparse_samples: Sequence[Mapping[str, Any]],
        at_k: int = 10,
        rrf_k: int = 60,
        name: str = "",
        batch_size: int = 32,  # noqa: ARG002 - nothing is encoded
        show_progress_bar: bool = False,  # noqa: ARG002
        write_csv: bool = True,
        write_predictions: bool = False,
    ) -> None:
        """Store the samples after comparing their queries."""
        if len(dense_samples) != len(sparse_samples) or not dense_samples:
            raise ValueError(
                f"there are {len(dense_samples)} dense and {len(sparse_samples)} sparse samples; expected as many of "
                "each, at least one"
            )
        self._samples = list(zip(dense_samples, sparse_samples, strict=True))
        for place, pair in enumerate(self._samples):
            _check_rankings(place, *pair)
        self.at_k, self.rrf_k, self.name = at_k, rrf_k, name
        self.write_csv, self.write_predictions = write_csv, write_predictions
        self._file = f"ReciprocalRankFusion_evaluation{f'_{name}' if name else ''}"
        self.csv_file = f"{self._file}_results.csv"
        self.primary_metric = f"{name}_ndcg@{at_k}" if name else f"ndcg@{at_k}"

    def __call__(
        self, output_path: str | PathLike[str] | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Return the measures; write the table, and with ``write_predictions`` the fused rankings.

        Raises TypeError for a model, as a trainer would pass it.
        """
        if output_path is not None and not isinstance(output_path, (str, PathLike)):
            raise TypeError(f"{type(self).__name__} takes no model; call it with an output folder, outside a training")
        fused = [_fused(dense["documents"], sparse["documents"], self.rrf_k) for dense, sparse in self._samples]
        rankings = {
            "dense_": [dense["documents"] for dense, _ in self._samples],
            "sparse_": [sparse["documents"] for _, sparse in self._samples],
            "": fused,
        }
        metrics = {
            f"{prefix}{name}": value
            for prefix, ranked in rankings.items()
            for name, value in _means(
                [
                    retrieved_measures(dense["positive"], documents, self.at_k)
                    for (dense, _), documents in zip(self._samples, ranked, strict=True)
                ]
            ).items()
        }
        if output_path is not None and self.write_csv:
            row = {_fusion_column(name): value for name, value in metrics.items()}
            append_row(Path(output_path) / self.csv_file, {"epoch": epoch, "steps": steps, **row})
        if output_path is not None and self.write_predictions:
            self._write(Path(output_path) / f"{self._file}_predictions.jsonl", fused)
        return {f"{self.name}_{name}" if self.name else name: value for name, value in metrics.items()}

    def _write(self, path: Path, fused: Sequence[Sequence[str]]) -> None:
        """Write the fused ranking of each query as a line of JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            for (dense, _), documents in zip(self._samples, fused, strict=True):
                query = {key: dense[key] for key in ("query_id", "query")}
                line = {**query, "positive": _texts(dense["positive"]), "documents": documents}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def ranked_measures(positive: Any, ranked: Sequence[str], at_k: int) -> dict[str, float]:
    """Return the measures of a ranking of texts; positives that it lacks do not count."""
    judged = positive if isinstance(positive, Mapping) else dict.fromkeys(_texts(positive), 1.0)
    grades = grades_of(ranked, judged)
    found = -np.sort(-grades[grades > 0])
    return {
        "map": average_precision(grades, len(ranked), found.size) if found.size else 0.0,
        f"mrr@{at_k}": reciprocal_rank(grades, at_k),
        f"ndcg@{at_k}": discounted_gain(grades, at_k) / discounted_gain(found, at_k) if found.size else 0.0,
    }


def retrieved_measures(positive: Any, documents: Sequence[str], at_k: int) -> dict[str, float]:
    """Return the measures of a ranking with the positives that it lacks right behind it, 0 if it has none of them."""
    texts = _texts(positive)
    if not any(text in texts for text in documents):
        return dict.fromkeys(("map", f"mrr@{at_k}", f"ndcg@{at_k}"), 0.0)
    return ranked_measures(positive, [*documents, *(text for text in texts if text not in documents)], at_k)


def _fused(dense: Sequence[str], sparse: Sequence[str], rrf_k: int) -> list[str]:
    """Return the documents of two rankings by descending sum of reciprocal ranks."""
    scores: dict[str, float] = {}
    for ranking in (dense, sparse):
        for text, rank in {text: rank for rank, text in enumerate(ranking, 1)}.items():
            scores[text] = scores.get(text, 0.0) + 1 / (rrf_k + rank)
    return sorted(scores, key=lambda text: -scores[text])


def _fusion_column(metric: str) -> str:
    """Return the column of a metric in the table of sentence-transformers, such as ``Fusion_MAP`` of ``map``."""
    side, _, measure = metric.rpartition("_")
    return f"{(side or 'fusion').capitalize()}_{measure.upper()}"


def _check_rankings(place: int, dense: Mapping[str, Any], sparse: Mapping[str, Any]) -> None:
    for sample in (dense, sparse):
        if not sample.keys() >= {"query_id", "query", "positive", "documents"}:
            raise ValueError(
                f"sample {place} has the keys {', '.join(sample)}; expected query_id, query, positive and documents"
            )
    if dense["query_id"] != sparse["query_id"]:
        raise ValueError(
            f"sample {place} is of query {dense['query_id']!r} in the dense samples and of {sparse['query_id']!r} in "
            "the sparse ones; pass both in the same order"
        )


def _listed(samples: Sequence[Mapping[str, Any]] | Mapping[Any, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    listed = list(samples.values()) if isinstance(samples, Mapping) else list(samples)
    if not listed:
        raise ValueError("there is nothing to evaluate; pass at least one sample")
    return listed


def _texts(texts: Any) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)


def _ordered(texts: Sequence[str], scores: NDArray[np.floating]) -> list[str]:
    """Return documents by descending score; of equal scores, those that come later first."""
    return [texts[place] for place in np.lexsort((-np.arange(len(texts)), -scores))]


def _means(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([each[name] for each in values])) for name in values[0]}

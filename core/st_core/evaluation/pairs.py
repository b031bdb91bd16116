"""How well similarities of pairs and triplets agree with labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from st_core.evaluation.evaluator import Evaluator
from st_core.similarity import SimilarityFunction

__all__ = [
    "CrossEncoderCorrelationEvaluator",
    "EmbeddingSimilarityEvaluator",
    "MSEEvaluator",
    "SparseEmbeddingSimilarityEvaluator",
    "SparseTripletEvaluator",
    "TripletEvaluator",
]


def correlation(first: ArrayLike, second: ArrayLike) -> float:
    """Return Pearson's correlation, NaN where all values are equal."""
    left, right = (np.asarray(each, np.float64) for each in (first, second))
    left, right = left - left.mean(), right - right.mean()
    scale = np.sqrt((left @ left) * (right @ right))
    return float(left @ right / scale) if scale else float("nan")


def ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Return the ranks of values [n] from 1 on; equal values have the mean of their ranks."""
    _, inverse, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return np.asarray((last - (counts - 1) / 2)[inverse])


def _pairwise(name: str, first: Any, second: Any) -> NDArray[np.floating]:
    scores = SimilarityFunction.to_similarity_pairwise_fn(name)(first, second)
    return np.asarray(scores.cpu() if hasattr(scores, "cpu") else scores)


def _same_lengths(**columns: Sequence[object]) -> None:
    """Raise ValueError for columns of different lengths, and for empty ones."""
    sizes = {name: len(values) for name, values in columns.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{size} {name}" for name, size in sizes.items())
        raise ValueError(f"the columns have different lengths: {listed}")
    if not next(iter(sizes.values())):
        raise ValueError("there is nothing to evaluate; pass at least one row")


class EmbeddingSimilarityEvaluator(Evaluator):
    """Correlates the similarities of pairs of texts with scores, by Pearson's and by Spearman's coefficient.

    ``similarity_fn_names`` are by default that of the model; with several, metrics ending in ``_max`` are added.
    """

    def __init__(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        sentences1: Sequence[str],
        sentences2: Sequence[str],
        scores: Sequence[float],
        batch_size: int = 16,
        main_similarity: str | None = None,
        similarity_fn_names: Sequence[str] | None = None,
        name: str = "",
        show_progress_bar: bool = False,
        write_csv: bool = True,
        precision: str | None = None,
        truncate_dim: int | None = None,
    ) -> None:
        """Store the arguments; raise ValueError for columns of different lengths."""
        super().__init__(name, write_csv=write_csv)
        _same_lengths(sentences1=sentences1, sentences2=sentences2, scores=scores)
        self.sentences1, self.sentences2, self.scores = list(sentences1), list(sentences2), list(scores)
        self.main_similarity = main_similarity
        self.similarity_fn_names = similarity_fn_names
        options: dict[str, Any] = {"batch_size": batch_size, "show_progress_bar": show_progress_bar}
        chosen = {"precision": precision, "truncate_dim": truncate_dim}
        self._options = options | {key: value for key, value in chosen.items() if value is not None}
        self.csv_file = f"similarity_evaluation{f'_{name}' if name else ''}_results.csv"

    def compute(self, model: Any) -> dict[str, float]:
        """Return the correlations of a model."""
        first, second = (model.encode(each, **self._options) for each in (self.sentences1, self.sentences2))
        names = self.similarity_fn_names or [model.similarity_fn_name]
        metrics = {}
        for each in names:
            found = _pairwise(str(each), first, second)
            metrics[f"pearson_{each}"] = correlation(self.scores, found)
            metrics[f"spearman_{each}"] = correlation(ranks(self.scores), ranks(found))
        if len(names) > 1:
            for kind in ("pearson", "spearman"):
                metrics[f"{kind}_max"] = max(metrics[f"{kind}_{each}"] for each in names)
        return metrics

    def primary_of(self, metrics: Mapping[str, float], model: Any) -> str:  # noqa: ARG002 - names decide
        """Return Spearman's coefficient of the main similarity, or the largest of several."""
        if self.main_similarity:
            return f"spearman_{self.main_similarity}"
        names = self.similarity_fn_names or [model.similarity_fn_name]
        return "spearman_max" if len(names) > 1 else f"spearman_{names[0]}"

    def expected_primary(self, model: Any) -> str:
        """Return the name of the primary metric before a run."""
        return self._named(self.primary_of({}, model))


class SparseEmbeddingSimilarityEvaluator(EmbeddingSimilarityEvaluator):
    """:class:`EmbeddingSimilarityEvaluator` of sparse vectors."""


class TripletEvaluator(Evaluator):
    """The share of anchors that are more similar to their positive than to their negative, by a margin.

    ``margin`` is a number for all similarities, or has one for each by name.
    """

    def __init__(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        anchors: Sequence[str],
        positives: Sequence[str],
        negatives: Sequence[str],
        main_similarity_function: str | None = None,
        margin: float | Mapping[str, float] | None = None,
        name: str = "",
        batch_size: int = 16,
        show_progress_bar: bool = False,
        write_csv: bool = True,
        truncate_dim: int | None = None,
        similarity_fn_names: Sequence[str] | None = None,
    ) -> None:
        """Store the arguments; raise ValueError for columns of different lengths."""
        super().__init__(name, write_csv=write_csv)
        _same_lengths(anchors=anchors, positives=positives, negatives=negatives)
        self.anchors, self.positives, self.negatives = list(anchors), list(positives), list(negatives)
        self.main_similarity_function = main_similarity_function
        self.similarity_fn_names = similarity_fn_names
        self.margin = margin or 0.0
        self._options = {"batch_size": batch_size, "show_progress_bar": show_progress_bar}
        if truncate_dim is not None:
            self._options["truncate_dim"] = truncate_dim
        self.csv_file = f"triplet_evaluation{f'_{name}' if name else ''}_results.csv"

    def compute(self, model: Any) -> dict[str, float]:
        """Return the shares of a model."""
        anchors = model.encode_query(self.anchors, **self._options)
        documents = [model.encode_document(each, **self._options) for each in (self.positives, self.negatives)]
        metrics = {}
        for each in self.similarity_fn_names or [model.similarity_fn_name]:
            positive, negative = (_pairwise(str(each), anchors, vectors) for vectors in documents)
            margin = self.margin.get(str(each), 0.0) if isinstance(self.margin, Mapping) else self.margin
            metrics[f"{each}_accuracy"] = float((positive > negative + np.float32(margin)).mean())
        return metrics if len(metrics) == 1 else metrics | {"max_accuracy": max(metrics.values())}

    def primary_of(self, metrics: Mapping[str, float], model: Any) -> str:  # noqa: ARG002 - names decide
        """Return the share of the main similarity, or the largest of several."""
        if self.main_similarity_function:
            return f"{self.main_similarity_function}_accuracy"
        names = self.similarity_fn_names or [model.similarity_fn_name]
        return "max_accuracy" if len(names) > 1 else f"{names[0]}_accuracy"

    def expected_primary(self, model: Any) -> str:
        """Return the name of the primary metric before a run."""
        return self._named(self.primary_of({}, model))


class SparseTripletEvaluator(TripletEvaluator):
    """:class:`TripletEvaluator` of sparse vectors."""


class MSEEvaluator(Evaluator):
    """The squared error of vectors compared with those of a teacher, times -100, so that more is better."""

    def __init__(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        source_sentences: Sequence[str],
        target_sentences: Sequence[str],
        teacher_model: Any = None,
        show_progress_bar: bool = False,
        batch_size: int = 32,
        name: str = "",
        write_csv: bool = True,
        truncate_dim: int | None = None,
    ) -> None:
        """Encode the source texts with the teacher; raise ValueError for columns of different lengths."""
        super().__init__(name, write_csv=write_csv)
        _same_lengths(source_sentences=source_sentences, target_sentences=target_sentences)
        self.target_sentences = list(target_sentences)
        self._options: dict[str, Any] = {"batch_size": batch_size, "show_progress_bar": show_progress_bar}
        if truncate_dim is not None:
            self._options["truncate_dim"] = truncate_dim
        self._wanted = np.asarray(teacher_model.encode(list(source_sentences), **self._options))
        self.csv_file = f"mse_evaluation_{name}_results.csv"
        self.primary_metric = self._named("negative_mse")

    def compute(self, model: Any) -> dict[str, float]:
        """Return the error of a model."""
        found = np.asarray(model.encode(self.target_sentences, **self._options))
        return {"negative_mse": -100.0 * float(((found - self._wanted) ** 2).mean())}

    def primary_of(self, metrics: Mapping[str, float], model: Any) -> str:  # noqa: ARG002
        """Return the error."""
        return "negative_mse"


class CrossEncoderCorrelationEvaluator(Evaluator):
    """Correlates the scores of pairs of texts with other scores, by Pearson's and by Spearman's coefficient."""

    def __init__(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        sentence_pairs: Sequence[Sequence[str]],
        scores: Sequence[float],
        name: str = "",
        prompt_name: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        write_csv: bool = True,
    ) -> None:
        """Store the arguments; raise ValueError for columns of different lengths."""
        super().__init__(name, write_csv=write_csv)
        _same_lengths(sentence_pairs=sentence_pairs, scores=scores)
        self.sentence_pairs, self.scores = list(sentence_pairs), list(scores)
        self._options = {"batch_size": batch_size, "show_progress_bar": show_progress_bar, "prompt_name": prompt_name}
        self.csv_file = f"CrossEncoderCorrelationEvaluator{f'_{name}' if name else ''}_results.csv"

    def compute(self, model: Any) -> dict[str, float]:
        """Return the correlations of a model."""
        found = model.predict(self.sentence_pairs, **self._options)
        return {
            "pearson": correlation(self.scores, found),
            "spearman": correlation(ranks(self.scores), ranks(found)),
        }

    def primary_of(self, metrics: Mapping[str, float], model: Any) -> str:  # noqa: ARG002
        """Return Spearman's coefficient."""
        return "spearman"

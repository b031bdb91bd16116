"""How well similarities of pairs and triplets agree with labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from st_core.evaluation.encoding import CountsTerms, VectorEvaluator
from st_core.evaluation.evaluator import Evaluator
from st_core.similarity import SimilarityFunction

__all__ = [
    "CrossEncoderCorrelationEvaluator",
    "EmbeddingSimilarityEvaluator",
    "MSEEvaluator",
    "MSEEvaluatorFromDataFrame",
    "SparseEmbeddingSimilarityEvaluator",
    "SparseMSEEvaluator",
    "SparseTripletEvaluator",
    "TripletEvaluator",
    "pairwise",
    "same_lengths",
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


def pairwise(name: str, first: Any, second: Any) -> NDArray[np.floating]:
    """Return the similarities [n] of vectors of the same position."""
    scores = SimilarityFunction.to_similarity_pairwise_fn(name)(first, second)
    return np.asarray(scores.cpu() if hasattr(scores, "cpu") else scores)


def same_lengths(**columns: Sequence[object]) -> None:
    """Raise ValueError for columns of different lengths, and for empty ones."""
    sizes = {name: len(values) for name, values in columns.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{size} {name}" for name, size in sizes.items())
        raise ValueError(f"the columns have different lengths: {listed}")
    if not next(iter(sizes.values())):
        raise ValueError("there is nothing to evaluate; pass at least one row")


class EmbeddingSimilarityEvaluator(VectorEvaluator):
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
        super().__init__(
            name,
            write_csv=write_csv,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            limit=truncate_dim,
            precision=precision,
        )
        same_lengths(sentences1=sentences1, sentences2=sentences2, scores=scores)
        self.sentences1, self.sentences2, self.scores = list(sentences1), list(sentences2), list(scores)
        self.main_similarity = main_similarity
        self.similarity_fn_names = similarity_fn_names
        self.csv_file = f"similarity_evaluation{f'_{name}' if name else ''}_results.csv"

    def compute(self, model: Any) -> dict[str, float]:
        """Return the correlations of a model."""
        first, second = (self.encode(model, each) for each in (self.sentences1, self.sentences2))
        names = self.similarity_fn_names or [model.similarity_fn_name]
        metrics = {}
        for each in names:
            found = pairwise(str(each), first, second)
            metrics[f"pearson_{each}"] = correlation(self.scores, found)
            metrics[f"spearman_{each}"] = correlation(ranks(self.scores), ranks(found))
        if len(names) > 1:
            for kind in ("pearson", "spearman"):
                metrics[f"{kind}_max"] = max(metrics[f"{kind}_{each}"] for each in names)
        return metrics

    def columns(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """Return the columns of the table, those of sentence-transformers."""
        parts = {name: name.split("_", 1) for name in metrics if not name.endswith("_max")}
        return {f"{function}_{kind}": metrics[name] for name, (kind, function) in parts.items()}

    def primary_of(self, metrics: Mapping[str, float], model: Any) -> str:  # noqa: ARG002 - names decide
        """Return Spearman's coefficient of the main similarity, or the largest of several."""
        if self.main_similarity:
            return f"spearman_{self.main_similarity}"
        names = self.similarity_fn_names or [model.similarity_fn_name]
        return "spearman_max" if len(names) > 1 else f"spearman_{names[0]}"


class SparseEmbeddingSimilarityEvaluator(CountsTerms, EmbeddingSimilarityEvaluator):
    """:class:`EmbeddingSimilarityEvaluator` of sparse vectors, with their numbers of active terms."""


class TripletEvaluator(VectorEvaluator):
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
        super().__init__(
            name,
            write_csv=write_csv,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            limit=truncate_dim,
        )
        same_lengths(anchors=anchors, positives=positives, negatives=negatives)
        self.anchors, self.positives, self.negatives = list(anchors), list(positives), list(negatives)
        self.main_similarity_function = main_similarity_function
        self.similarity_fn_names = similarity_fn_names
        self.margin = margin or 0.0
        self.csv_file = f"triplet_evaluation{f'_{name}' if name else ''}_results.csv"

    def compute(self, model: Any) -> dict[str, float]:
        """Return the shares of a model."""
        anchors = self.encode(model, self.anchors, "anchor")
        documents = [self.encode(model, self.positives, "positive"), self.encode(model, self.negatives, "negative")]
        metrics = {}
        for each in self.similarity_fn_names or [model.similarity_fn_name]:
            positive, negative = (pairwise(str(each), anchors, vectors) for vectors in documents)
            margin = self.margin.get(str(each), 0.0) if isinstance(self.margin, Mapping) else self.margin
            metrics[f"{each}_accuracy"] = float((positive > negative + np.float32(margin)).mean())
        return metrics if len(metrics) == 1 else metrics | {"max_accuracy": max(metrics.values())}

    def columns(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """Return the columns of the table, those of sentence-transformers."""
        shares = {name.removesuffix("_accuracy"): value for name, value in metrics.items()}
        return {f"accuracy_{name}": value for name, value in shares.items() if name != "max"}

    def primary_of(self, metrics: Mapping[str, float], model: Any) -> str:  # noqa: ARG002 - names decide
        """Return the share of the main similarity, or the largest of several."""
        if self.main_similarity_function:
            return f"{self.main_similarity_function}_accuracy"
        names = self.similarity_fn_names or [model.similarity_fn_name]
        return "max_accuracy" if len(names) > 1 else f"{names[0]}_accuracy"


class SparseTripletEvaluator(CountsTerms, TripletEvaluator):
    """:class:`TripletEvaluator` of sparse vectors, with their numbers of active terms."""


class MSEEvaluator(VectorEvaluator):
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
        super().__init__(
            name,
            write_csv=write_csv,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            limit=truncate_dim,
        )
        same_lengths(source_sentences=source_sentences, target_sentences=target_sentences)
        if teacher_model is None:
            raise ValueError("MSEEvaluator needs teacher_model, whose vectors of the source sentences are the targets")
        self.target_sentences = list(target_sentences)
        self._wanted = self.encode(teacher_model, source_sentences)
        self.csv_file = f"mse_evaluation_{name}_results.csv"
        self.primary_metric = self._named("negative_mse")

    def compute(self, model: Any) -> dict[str, float]:
        """Return the error of a model."""
        return {"negative_mse": -100.0 * squared_error(self.encode(model, self.target_sentences), self._wanted)}

    def columns(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """Return the columns of the table, those of sentence-transformers."""
        return {"MSE": -metrics["negative_mse"]}

    def primary_of(self, metrics: Mapping[str, float], model: Any) -> str:  # noqa: ARG002
        """Return the error."""
        return "negative_mse"


class SparseMSEEvaluator(CountsTerms, MSEEvaluator):
    """:class:`MSEEvaluator` of sparse vectors, with the number of their active terms."""


class MSEEvaluatorFromDataFrame(VectorEvaluator):
    """The mean of the errors of :class:`MSEEvaluator` over pairs of languages.

    ``dataframe`` is a list of rows with a text for each language. Each of the ``combinations`` is the languages of the
    source, which the teacher encodes, and of the target. Rows without one of the two texts are left out.
    """

    def __init__(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        dataframe: Sequence[Mapping[str, str]],
        teacher_model: Any,
        combinations: Sequence[tuple[str, str]],
        batch_size: int = 8,
        name: str = "",
        write_csv: bool = True,
        truncate_dim: int | None = None,
    ) -> None:
        """Encode the source texts with the teacher; raise ValueError for a combination without rows."""
        super().__init__(name, write_csv=write_csv, batch_size=batch_size, limit=truncate_dim)
        if not combinations:
            raise ValueError("there is nothing to evaluate; pass at least one combination of languages")
        self.combinations = [tuple(each) for each in combinations]
        self._targets: list[list[str]] = []
        self._wanted: list[Any] = []
        for source, target in self.combinations:
            rows = [row for row in dataframe if _has_text(row.get(source)) and _has_text(row.get(target))]
            if not rows:
                raise ValueError(f"no row has a text in {source!r} and in {target!r}; pass rows with both")
            self._targets.append([row[target] for row in rows])
            self._wanted.append(self.encode(teacher_model, [row[source] for row in rows]))
        self._errors: list[float] = []
        self.csv_file = f"mse_evaluation{f'_{name}' if name else ''}_results.csv"
        self.primary_metric = self._named("negative_mse")

    def compute(self, model: Any) -> dict[str, float]:
        """Return the mean error of a model."""
        vectors = (self.encode(model, texts) for texts in self._targets)
        self._errors = [100.0 * squared_error(*each) for each in zip(vectors, self._wanted, strict=True)]
        return {"negative_mse": -float(np.mean(self._errors))}

    def columns(self, metrics: Mapping[str, float]) -> Mapping[str, float]:  # noqa: ARG002
        """Return the columns of the table, those of sentence-transformers: the error of each combination."""
        names = ["-".join(each) for each in self.combinations]
        return dict(zip(names, self._errors, strict=True))

    def primary_of(self, metrics: Mapping[str, float], model: Any) -> str:  # noqa: ARG002
        """Return the error."""
        return "negative_mse"


def squared_error(found: Any, wanted: Any) -> float:
    """Return the mean of the squared differences of vectors [n, V], dense or sparse."""
    distances = pairwise("euclidean", found, wanted).astype(np.float64)
    return float((distances**2).mean() / found.shape[1])


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
        same_lengths(sentence_pairs=sentence_pairs, scores=scores)
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

    def columns(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """Return the columns of the table, those of sentence-transformers."""
        return {f"{name.capitalize()}_Correlation": value for name, value in metrics.items()}

    def primary_of(self, metrics: Mapping[str, float], model: Any) -> str:  # noqa: ARG002
        """Return Spearman's coefficient."""
        return "spearman"


def _has_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())

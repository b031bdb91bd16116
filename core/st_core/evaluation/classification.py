"""How well scores separate positive from negative pairs, and pairs into classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from st_core.evaluation.encoding import CountsTerms, VectorEvaluator
from st_core.evaluation.evaluator import Evaluator
from st_core.evaluation.pairs import pairwise, same_lengths
from st_core.evaluation.thresholds import Separation, matthews_correlation, mean_f1
from st_core.vectors import SparseMatrix

__all__ = [
    "BinaryClassificationEvaluator",
    "CrossEncoderClassificationEvaluator",
    "SparseBinaryClassificationEvaluator",
]

_COLUMNS = ("accuracy", "accuracy_threshold", "f1", "precision", "recall", "f1_threshold", "ap", "mcc")
_DISTANCES = ("euclidean", "manhattan")


class BinaryClassificationEvaluator(VectorEvaluator):
    """Separates similar from other pairs of texts by a threshold of their similarity.

    A label is 1 for a similar pair, else 0. Thresholds of ``euclidean`` and ``manhattan`` are distances. With several
    similarities, the largest values of all are added with names that begin with ``max_``.
    """

    def __init__(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        sentences1: Sequence[str],
        sentences2: Sequence[str],
        labels: Sequence[int],
        name: str = "",
        batch_size: int = 32,
        show_progress_bar: bool = False,
        write_csv: bool = True,
        truncate_dim: int | None = None,
        similarity_fn_names: Sequence[str] | None = None,
    ) -> None:
        """Store the arguments; raise ValueError for columns of different lengths, and for labels without a 1."""
        super().__init__(
            name,
            write_csv=write_csv,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            limit=truncate_dim,
        )
        same_lengths(sentences1=sentences1, sentences2=sentences2, labels=labels)
        self.sentences1, self.sentences2 = list(sentences1), list(sentences2)
        self.labels = _binary(labels)
        self.similarity_fn_names = similarity_fn_names
        self.csv_file = f"binary_classification_evaluation{f'_{name}' if name else ''}_results.csv"

    def compute(self, model: Any) -> dict[str, float]:
        """Return the measures of a model for each similarity."""
        texts = list(dict.fromkeys([*self.sentences1, *self.sentences2]))
        vectors, places = self.encode(model, texts), {text: place for place, text in enumerate(texts)}
        first, second = (
            _rows(vectors, [places[text] for text in column]) for column in (self.sentences1, self.sentences2)
        )
        names = [str(name) for name in self.similarity_fn_names or [model.similarity_fn_name]]
        each = {name: self._measures(name, pairwise(name, first, second)) for name in names}
        metrics = {f"{name}_{key}": value for name in names for key, value in each[name].items()}
        if len(names) > 1:
            metrics |= {f"max_{key}": max(each[name][key] for name in names) for key in each[names[0]]}
        return metrics

    def _measures(self, name: str, scores: NDArray[np.floating]) -> dict[str, float]:
        separation = Separation(scores, self.labels)
        measures = separation.measures()
        predicted = scores >= measures["f1_threshold"]
        if name in _DISTANCES:
            measures |= {key: -measures[key] for key in ("accuracy_threshold", "f1_threshold")}
        others = {"ap": separation.average_precision(), "mcc": matthews_correlation(self.labels, predicted)}
        return measures | others

    def columns(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """Return the columns of the table, those of sentence-transformers."""
        names = [key.removesuffix("_ap") for key in metrics if key.endswith("_ap") and key != "max_ap"]
        return {f"{name}_{key}": metrics[f"{name}_{key}"] for name in names for key in _COLUMNS}

    def primary_of(self, metrics: Mapping[str, float], model: Any) -> str:  # noqa: ARG002 - names decide
        """Return the average precision, of several similarities the largest one."""
        names = self.similarity_fn_names or [model.similarity_fn_name]
        return "max_ap" if len(names) > 1 else f"{names[0]}_ap"


class SparseBinaryClassificationEvaluator(CountsTerms, BinaryClassificationEvaluator):
    """:class:`BinaryClassificationEvaluator` of sparse vectors, with the number of their active terms."""


class CrossEncoderClassificationEvaluator(Evaluator):
    """Compares the predictions of a cross-encoder with labels.

    For a model of one output, a label is 1 for a positive pair, else 0, and the measures are those of the best
    thresholds. For a model of several, a label is the class of a pair, and the measures are means of the F1 of classes.
    """

    def __init__(
        self,
        sentence_pairs: Sequence[Sequence[str]],
        labels: Sequence[int],
        *,
        name: str = "",
        prompt_name: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        write_csv: bool = True,
    ) -> None:
        """Store the arguments; raise ValueError for columns of different lengths."""
        super().__init__(name, write_csv=write_csv)
        same_lengths(sentence_pairs=sentence_pairs, labels=labels)
        self.sentence_pairs, self.labels = list(sentence_pairs), list(labels)
        self._options = {"batch_size": batch_size, "show_progress_bar": show_progress_bar, "prompt_name": prompt_name}
        self.csv_file = f"CrossEncoderClassificationEvaluator{f'_{name}' if name else ''}_results.csv"

    def compute(self, model: Any) -> dict[str, float]:
        """Return the measures of a model; raise ValueError for labels that it cannot predict."""
        if model.num_labels > 1:
            labels = _classes(self.labels, model.num_labels)
            predicted = np.asarray(model.predict(self.sentence_pairs, **self._options)).argmax(axis=1)
            return {f"f1_{kind}": value for kind, value in mean_f1(labels, predicted).items()}
        labels = _binary(self.labels)
        separation = Separation(np.asarray(model.predict(self.sentence_pairs, **self._options)), labels)
        return separation.measures() | {"average_precision": separation.average_precision()}

    def columns(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """Return the columns of the table, those of sentence-transformers."""
        if "f1_macro" in metrics:
            return {f"{key.removeprefix('f1_').capitalize()}_F1": value for key, value in metrics.items()}
        return {key.title(): value for key, value in metrics.items()}

    def primary_of(self, metrics: Mapping[str, float], model: Any) -> str:  # noqa: ARG002 - the model decides
        """Return the average precision, or for several classes the plain mean of their F1."""
        return "average_precision" if model.num_labels == 1 else "f1_macro"


def _binary(labels: Sequence[int]) -> NDArray[np.int64]:
    """Return labels as an array; raise ValueError for one that is neither 0 nor 1, and if none is 1."""
    for place, label in enumerate(labels):
        if label not in (0, 1):
            raise ValueError(f"the label of pair {place} is {label!r}; expected 0 or 1")
    array = np.asarray(labels, np.int64)
    if not array.any():
        raise ValueError("no pair has the label 1; pass positive pairs too, without which no measure is defined")
    return array


def _classes(labels: Sequence[int], count: int) -> NDArray[np.int64]:
    """Return labels as an array; raise ValueError for one that is no class of the model."""
    for place, label in enumerate(labels):
        if label not in range(count):
            raise ValueError(f"the label of pair {place} is {label!r}; expected a class of the model, 0 to {count - 1}")
    return np.asarray(labels, np.int64)


def _rows(vectors: Any, places: Sequence[int]) -> Any:
    """Return rows of dense or sparse vectors in a new order."""
    if isinstance(vectors, SparseMatrix):
        return SparseMatrix.from_rows((vectors[place] for place in places), vectors.shape[1])
    return vectors[places]

"""Measures of scores that separate positive from negative pairs: functions of scores and of labels that are 0 or 1."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["BestF1", "Separation", "matthews_correlation", "mean_f1"]


class BestF1(NamedTuple):
    """The largest F1 and the threshold that has it."""

    f1: float
    precision: float
    recall: float
    threshold: float


class Separation:
    """Pairs by descending score, in groups of equal scores, which no threshold separates.

    ``positives`` is the number of positive pairs, also of those without a score; without it, that of the labels.
    """

    def __init__(self, scores: NDArray[np.floating], labels: NDArray[np.integer], positives: int | None = None) -> None:
        """Sort scores [n] with their labels [n]."""
        order = np.argsort(-scores, kind="stable")
        self._scores = scores[order]
        self._ends = np.flatnonzero(np.append(self._scores[1:] != self._scores[:-1], True))
        self._hits = np.cumsum(labels[order])[self._ends]
        self._size = self._ends + 1
        self._positives = int(labels.sum()) if positives is None else positives
        self._negatives = labels.size - int(labels.sum())

    def accuracy(self) -> tuple[float, float]:
        """Return the largest share of pairs on the right side of a threshold, and that threshold.

        The first of equal ones counts, where a threshold above all scores comes first.
        """
        shares = (self._hits + self._negatives - (self._size - self._hits)) / self._scores.size
        none = self._negatives / self._scores.size
        best = int(np.argmax(shares))
        if shares[best] <= none:
            return none, float(np.nextafter(self._scores[0], self._scores.dtype.type(np.inf)))
        return float(shares[best]), self._below(best)

    def f1(self) -> BestF1:
        """Return the largest F1, the first of equal ones; all values are 0 if there is no positive pair."""
        precision, recall = self._precision_and_recall()
        with np.errstate(invalid="ignore"):  # without a hit both are 0
            values = np.nan_to_num(2 * precision * recall / (precision + recall))
        best = int(np.argmax(values))
        if values[best] <= 0:
            return BestF1(0.0, 0.0, 0.0, 0.0)
        return BestF1(float(values[best]), float(precision[best]), float(recall[best]), self._below(best))

    def measures(self) -> dict[str, float]:
        """Return accuracy and F1, each with its threshold, and the precision and the recall of the largest F1."""
        accuracy, threshold = self.accuracy()
        best = self.f1()
        return {
            "accuracy": accuracy,
            "accuracy_threshold": threshold,
            "f1": best.f1,
            "f1_threshold": best.threshold,
            "precision": best.precision,
            "recall": best.recall,
        }

    def average_precision(self) -> float:
        """Return the sum of the precisions at all thresholds, each times the recall that its group adds."""
        precision, recall = self._precision_and_recall()
        return float((precision * np.diff(recall, prepend=0.0)).sum())

    def _precision_and_recall(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self._hits / self._size, self._hits / max(self._positives, 1)

    def _below(self, group: int) -> float:
        """Return the middle between the scores of a group and of the next one, or the score of the last group."""
        score = self._scores[self._ends[group]]
        if group == self._ends.size - 1:
            return float(score)
        following = self._scores[self._ends[group] + 1]
        middle = (score + following) / 2
        return float(score if middle == following else middle)


def matthews_correlation(labels: NDArray[np.integer], predicted: NDArray[np.bool_]) -> float:
    """Return the correlation of labels [n] with predictions [n], 0 where one of them has a single value."""
    first, second = (each.astype(np.float64) - each.mean() for each in (labels, predicted))
    scale = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / scale) if scale else 0.0


def mean_f1(labels: NDArray[np.integer], predicted: NDArray[np.integer]) -> dict[str, float]:
    """Return the means of the F1 of each class: ``macro``, ``micro`` (of all predictions) and ``weighted`` by labels.

    A class is one of the values of labels [n] and predictions [n].
    """
    classes = np.union1d(labels, predicted)[:, None]
    truly, chosen = labels == classes, predicted == classes
    hits = (truly & chosen).sum(axis=1)
    each = 2 * hits / (truly.sum(axis=1) + chosen.sum(axis=1))
    return {
        "macro": float(each.mean()),
        "micro": float(hits.sum() / labels.size),
        "weighted": float(each @ truly.sum(axis=1) / labels.size),
    }

"""Choose a loss by the columns of the data and the label of its first row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from st_core.rows import LABELS

__all__ = ["Choice", "Kind", "choose_loss"]

Kind: TypeAlias = Literal["dense", "sparse", "reranker"]

_GRADES = range(5)
"""The labels of lists that are grades; others are scores."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The name of a loss, without the prefix of losses of sparse vectors, and why it fits."""

    loss: str
    reason: str


def choose_loss(kind: Kind, columns: Sequence[str], row: Mapping[str, Any]) -> Choice:
    """Return the loss that the data of a kind of model calls for; ``row`` is the first one.

    Raises ValueError for columns that no loss fits.
    """
    label = next((name for name in LABELS if name in columns), None)
    texts = [name for name in columns if name not in LABELS]
    if len(texts) < 2:
        raise ValueError(f"a training needs two or more columns of texts, got {', '.join(texts) or 'none'}")
    if label is None:
        return Choice(
            "MultipleNegativesRankingLoss", "there are no labels, so that documents of other rows are negatives"
        )
    value = row.get(label)
    if isinstance(value, (list, tuple)):
        return _of_list(kind, texts, row, label, len(value))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(  # noqa: TRY004 - a fault of the data
            f"column {label!r}: expected a number or a list of numbers, got {value!r}"
        )
    return _of_number(kind, texts, label, value)


def _of_list(kind: Kind, texts: Sequence[str], row: Mapping[str, Any], label: str, count: int) -> Choice:
    if kind == "reranker" and isinstance(row.get(texts[1]), (list, tuple)):
        if all(value in _GRADES for value in row[label]):
            return Choice("LambdaLoss", f"{label!r} has a grade for each document of a list")
        return Choice("ListNetLoss", f"{label!r} has a score for each document of a list")
    if len(texts) > 2 and count in (len(texts) - 1, len(texts) - 2):
        return Choice("MarginMSELoss", f"{label!r} has the scores of a teacher, or the margins between them")
    if kind == "dense" and len(texts) == 2 and count > 2:
        return Choice("EmbedDistillLoss", f"{label!r} has the vectors of a teacher")
    raise ValueError(f"column {label!r} has {count} numbers for the columns {', '.join(texts)}, which no loss reads")


def _of_number(kind: Kind, texts: Sequence[str], label: str, value: float) -> Choice:
    if len(texts) > 2:
        return Choice("MarginMSELoss", f"{label!r} has the margin between positive and negative")
    if kind != "reranker":
        return Choice("CoSENTLoss", f"{label!r} orders the pairs by similarity")
    if 0 <= value <= 1:
        return Choice("BinaryCrossEntropyLoss", f"{label!r} is from 0 to 1")
    return Choice("MSELoss", f"{label!r} has the scores of a teacher")

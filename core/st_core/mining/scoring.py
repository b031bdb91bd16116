"""Scores of teachers for the documents of rows, as the labels that a student is trained with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from st_core.rows import LABELS
from st_core.vectors import SparseMatrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ALIGNMENTS", "aligned", "documents_of", "pair_scores", "scored_rows"]

ALIGNMENTS: Final = ("none", "affine", "min-max")


def documents_of(row: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """Return the documents of a row: the texts of its columns, or of the lists in them.

    Raises ValueError for another value.
    """
    documents: list[str] = []
    for name in columns:
        value = row.get(name)
        found: list[Any] = list(value) if isinstance(value, (list, tuple)) else [value]
        wrong = [each for each in found if not isinstance(each, str)]
        if wrong or not found:
            raise ValueError(f"column {name!r}: expected text or a list of texts, got {value!r}")
        documents.extend(found)
    return documents


def pair_scores(model: Any, pairs: Sequence[tuple[str, str]], batch: int = 32) -> NDArray[np.float64]:
    """Return the scores of pairs of a query and a document [n].

    Those of a cross-encoder are logits, those of an encoder the similarity of both vectors. Every text is encoded once.
    """
    if not pairs:
        return np.zeros(0)
    if hasattr(model, "predict"):
        return _numbers(model.predict(list(pairs), batch_size=batch, activation_fn=_same))
    queries, documents = (list(dict.fromkeys(side)) for side in zip(*pairs, strict=True))
    places = [{text: place for place, text in enumerate(texts)} for texts in (queries, documents)]
    first, second = model.encode_query(queries, batch_size=batch), model.encode_document(documents, batch_size=batch)
    rows = np.array([(places[0][query], places[1][document]) for query, document in pairs])
    return _numbers(model.similarity_pairwise(_taken(first, rows[:, 0]), _taken(second, rows[:, 1])))


def _taken(vectors: Any, rows: NDArray[np.intp]) -> Any:
    """Return some rows of vectors, also of sparse ones, which have no selection of rows."""
    if isinstance(vectors, SparseMatrix):
        return SparseMatrix.from_rows((vectors[row] for row in rows.tolist()), vectors.shape[1])
    return vectors[rows]


def _same(logits: Any) -> Any:
    return logits


def _numbers(scores: Any) -> NDArray[np.float64]:
    return np.asarray(scores.cpu() if hasattr(scores, "cpu") else scores, np.float64)


def aligned(scores: Sequence[NDArray[np.float64]], counts: Sequence[int], alignment: str) -> NDArray[np.float64]:
    """Return the mean of the scores of several models [n], on one scale.

    ``affine`` scales those of each model to the mean and the deviation of the first one. ``min-max`` scales the
    documents of each row from 0 to 1, by model, and then all to the mean and the deviation of the first model; the
    numbers of documents of the rows are ``counts``. Raises ValueError for an unknown alignment, and for ``none`` with
    several models, whose scales differ.
    """
    if alignment not in ALIGNMENTS:
        raise ValueError(f"unknown alignment {alignment!r}; expected one of {', '.join(ALIGNMENTS)}")
    if alignment == "none":
        if len(scores) > 1:
            raise ValueError("the scales of several models differ; pass affine or min-max")
        return scores[0]
    first = scores[0]
    if alignment == "min-max":
        mean = np.mean([_of_rows(each, counts) for each in scores], axis=0)
        return _like(mean, first)
    return np.asarray(np.mean([first, *(_like(each, first) for each in scores[1:])], axis=0))


def _like(values: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values with the mean and the deviation of others; equal values become that mean."""
    deviation = values.std()
    scaled = (values - values.mean()) / deviation if deviation else values * 0
    return np.asarray(scaled * wanted.std() + wanted.mean())


def _of_rows(scores: NDArray[np.float64], counts: Sequence[int]) -> NDArray[np.float64]:
    """Return the scores of each row from 0 to 1; those of a row with equal scores are 0.5."""
    parts = np.split(scores, np.cumsum(counts)[:-1])
    spans = [(part.min(), part.max() - part.min()) for part in parts]
    return np.concatenate(
        [
            (part - low) / span if span else np.full(part.size, 0.5)
            for part, (low, span) in zip(parts, spans, strict=True)
        ]
    )


def scored_rows(  # noqa: PLR0917 - what is scored, and how
    rows: Iterable[Mapping[str, Any]],
    models: Sequence[Any],
    query: str,
    documents: Sequence[str],
    alignment: str = "none",
    batch: int = 1024,
) -> Iterator[dict[str, Any]]:
    """Yield rows with their scores, in place of labels: ``score`` for one document, ``scores`` for several.

    Rows are read twice, once to score and once to write, so that only their scores are in memory. Raises ValueError
    for a row without a text, with its position, and for models on several scales that are not aligned.
    """
    table = list(rows) if iter(rows) is rows else rows
    counts, scores = _scores(table, models, query, documents, batch)
    if not counts:
        raise ValueError("there are no rows to score")
    parts = np.split(aligned(scores, counts, alignment), np.cumsum(counts)[:-1])
    has_lists = any(count > 1 for count in counts)
    for row, part in zip(table, parts, strict=True):
        plain = {name: value for name, value in row.items() if name not in LABELS}
        yield plain | ({"scores": part.tolist()} if has_lists else {"score": float(part[0])})


def _scores(
    rows: Iterable[Mapping[str, Any]], models: Sequence[Any], query: str, documents: Sequence[str], batch: int
) -> tuple[list[int], list[NDArray[np.float64]]]:
    """Return the number of documents of each row, and the scores of all of them by model."""
    counts: list[int] = []
    found: list[list[NDArray[np.float64]]] = [[] for _ in models]
    rest = iter(enumerate(rows))
    while part := list(islice(rest, batch)):
        pairs: list[tuple[str, str]] = []
        for place, row in part:
            own = _pairs(place, row, query, documents)
            counts.append(len(own))
            pairs.extend(own)
        for each, model in zip(found, models, strict=True):
            each.append(pair_scores(model, pairs))
    return counts, [np.concatenate(each) if each else np.zeros(0) for each in found]


def _pairs(place: int, row: Mapping[str, Any], query: str, documents: Sequence[str]) -> list[tuple[str, str]]:
    text = row.get(query)
    if not isinstance(text, str):
        raise ValueError(f"row {place}, column {query!r}: expected text, got {text!r}")  # noqa: TRY004 - of the data
    try:
        return [(text, document) for document in documents_of(row, documents)]
    except ValueError as error:
        raise ValueError(f"row {place}, {error}") from error

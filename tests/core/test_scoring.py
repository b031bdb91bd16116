"""Scores of teachers are those of their models, on one scale if there are several."""

from __future__ import annotations

import numpy as np
import pytest

import st_core
from st_core.mining.scoring import aligned, documents_of, pair_scores, scored_rows

ROWS = [
    {"query": "copy a tree", "answer": "copytree copies files", "negative": "a fox in the wood", "label": 1},
    {"query": "where is a fox", "answer": "the fox is in the wood", "negative": "copytree copies files", "label": 1},
]
COLUMNS = ["answer", "negative"]


class Lengths:
    """A cross-encoder whose logit is the length of the document, and whose prediction is its sign."""

    def predict(self, pairs, batch_size=32, activation_fn=np.sign):
        return activation_fn(np.array([float(len(document)) for _, document in pairs]))


def test_scores_of_an_encoder_are_similarities():
    """Of the vectors of queries and documents, in the order of the pairs."""
    pairs = [(row["query"], row[name]) for row in ROWS for name in COLUMNS]
    dense, sparse = st_core.SentenceTransformer("builtin:dense"), st_core.SparseEncoder("builtin:sparse")
    vectors = dense.encode_query([query for query, _ in pairs]), dense.encode_document([text for _, text in pairs])
    terms = sparse.encode_query([query for query, _ in pairs]).to_dense()
    weights = sparse.encode_document([text for _, text in pairs]).to_dense()

    assert pair_scores(dense, pairs) == pytest.approx((vectors[0] * vectors[1]).sum(axis=1), abs=1e-6)
    assert pair_scores(sparse, pairs) == pytest.approx((terms * weights).sum(axis=1), rel=1e-5)


def test_rows_have_logits_in_place_of_labels():
    """One score for one document, a list for several; a list of documents has a score for each."""
    [first, _] = scored_rows(ROWS, [Lengths()], "query", COLUMNS)
    [alone, _] = scored_rows(ROWS, [Lengths()], "query", ["answer"])
    [listed] = scored_rows([{"q": "a", "documents": ["bb", "c"]}], [Lengths()], "q", ["documents"])

    assert first == {name: ROWS[0][name] for name in ("query", *COLUMNS)} | {"scores": [21.0, 17.0]}
    assert alone["score"] == 21.0
    assert "label" not in alone
    assert listed == {"q": "a", "documents": ["bb", "c"], "scores": [2.0, 1.0]}


def test_several_teachers_have_the_scale_of_the_first():
    """By mean and deviation; or after each row is scaled from 0 to 1."""
    first, second = np.array([1.0, 3.0, 5.0, 7.0]), np.array([100.0, 300.0, 700.0, 500.0])

    affine = aligned([first, second], [2, 2], "affine")
    ranged = aligned([first, second], [2, 2], "min-max")

    assert affine == pytest.approx([1.0, 3.0, 6.0, 6.0])
    means = np.array([0.0, 1.0, 0.5, 0.5])
    assert ranged == pytest.approx((means - 0.5) / means.std() * first.std() + 4.0)
    assert aligned([first], [2, 2], "none") is first
    assert aligned([first, first * 0 + 2], [2, 2], "affine") == pytest.approx((first + 4.0) / 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: aligned([np.ones(2), np.ones(2)], [2], "none"), "the scales of several models differ; pass affine"),
        (lambda: aligned([np.ones(2)], [2], "linear"), "unknown alignment 'linear'; expected one of none, affine"),
        (lambda: list(scored_rows([], [Lengths()], "q", ["d"])), "there are no rows to score"),
        (
            lambda: list(scored_rows([{"q": None}], [Lengths()], "q", ["d"])),
            "row 0, column 'q': expected text, got None",
        ),
        (
            lambda: list(scored_rows([{"q": "a"}], [Lengths()], "q", ["d"])),
            "row 0, column 'd': expected text or a list",
        ),
        (lambda: documents_of({"d": []}, ["d"]), r"column 'd': expected text or a list of texts, got \[\]"),
    ],
)
def test_what_cannot_be_scored_is_refused(call, message):
    """With the row and the column."""
    with pytest.raises(ValueError, match=message):
        call()

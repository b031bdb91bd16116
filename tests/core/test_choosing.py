"""The columns of the data call for a loss, and curves show what was logged."""

from __future__ import annotations

import pytest

from st_core.training.choosing import choose_loss
from st_core.training.curves import curves_of, drawing, sparkline

PAIR = {"query": "a", "answer": "b"}
TRIPLE = PAIR | {"negative": "c"}
CHOICES = [
    ("dense", PAIR, "MultipleNegativesRankingLoss"),
    ("sparse", TRIPLE, "MultipleNegativesRankingLoss"),
    ("reranker", PAIR, "MultipleNegativesRankingLoss"),
    ("dense", PAIR | {"score": 0.5}, "CoSENTLoss"),
    ("sparse", PAIR | {"label": 1}, "CoSENTLoss"),
    ("reranker", PAIR | {"label": 1}, "BinaryCrossEntropyLoss"),
    ("reranker", PAIR | {"score": -3.5}, "MSELoss"),
    ("dense", TRIPLE | {"score": 2.5}, "MarginMSELoss"),
    ("reranker", TRIPLE | {"scores": [2.5, 1.0]}, "MarginMSELoss"),
    ("sparse", TRIPLE | {"scores": [2.5]}, "MarginMSELoss"),
    ("dense", PAIR | {"label": [0.1, 0.2, 0.3]}, "EmbedDistillLoss"),
    ("reranker", {"query": "a", "docs": ["b", "c"], "labels": [2, 0]}, "LambdaLoss"),
    ("reranker", {"query": "a", "docs": ["b", "c"], "scores": [2.5, 0.1]}, "ListNetLoss"),
]


@pytest.mark.parametrize(("kind", "row", "expected"), CHOICES)
def test_a_loss_follows_from_the_columns(kind, row, expected):
    """With a reason."""
    choice = choose_loss(kind, list(row), row)

    assert choice.loss == expected
    assert choice.reason


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "a"}, "two or more columns of texts, got query"),
        ({"label": 1}, "two or more columns of texts, got none"),
        (PAIR | {"label": "yes"}, "column 'label': expected a number or a list of numbers, got 'yes'"),
        (TRIPLE | {"label": [1, 2, 3, 4, 5]}, "column 'label' has 5 numbers for the columns query, answer, negative"),
    ],
)
def test_columns_that_no_loss_fits_are_refused(row, message):
    """With the column."""
    with pytest.raises(ValueError, match=message):
        choose_loss("dense", list(row), row)


HISTORY = [
    {"loss": 4.0, "learning_rate": 1e-5, "epoch": 0.1, "step": 1},
    {"loss": 2.0, "document_active_terms": 80.0, "epoch": 0.2, "step": 2},
    {"eval_loss": 1.5, "eval_runtime": 0.1, "step": 2},
    {"loss": float("nan"), "step": 3},
    {"loss": 1.0, "step": 4},
    {"train_runtime": 9.0, "train_loss": 2.0, "total_flos": 0.0, "step": 4},
]


def test_curves_are_of_what_was_logged():
    """Without times, and without what is no number."""
    curves = curves_of(HISTORY)

    assert curves == {
        "loss": [(1, 4.0), (2, 2.0), (4, 1.0)],
        "learning_rate": [(1, 1e-5)],
        "document_active_terms": [(2, 80.0)],
        "eval_loss": [(2, 1.5)],
    }
    assert sparkline(curves["loss"]) == "█▃▁"
    assert sparkline([(step, step) for step in range(1000)], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([(1, 2.0)]) == "▁"
    assert sparkline([]) == ""
    svg = drawing(curves)
    assert svg.count("<polyline") == 4
    assert 'points="180.0,30.0 300.0,90.0 540.0,120.0"' in svg

"""Evaluators give the metrics of sentence-transformers', by the same names."""

from __future__ import annotations

import csv

import pytest

pytest.importorskip("torch", reason="the evaluators of sentence-transformers need torch")
oracle = pytest.importorskip("sentence_transformers", reason="the metrics are compared with its evaluators")

import sentence_transformers.cross_encoder.evaluation as their_pairs  # noqa: E402 - after the guard
import sentence_transformers.sentence_transformer.evaluation as theirs  # noqa: E402 - after the guard
import sentence_transformers.sparse_encoder.evaluation as their_sparse  # noqa: E402 - after the guard

import st_core  # noqa: E402 - after the guard
from st_core import evaluation  # noqa: E402 - after the guard

pytestmark = pytest.mark.torch

QUERIES = {"q1": "copy a tree", "q2": "parse a date", "q3": "sort numbers", "q4": "no judgement"}
CORPUS = {
    f"d{place}": text
    for place, text in enumerate(
        [
            "How do I copy a directory tree?",
            "Parse a date string",
            "a date",
            "a date",
            "Sort a list of numbers in place",
            "the fox",
            "trees and foxes",
        ]
    )
}
RELEVANT = {"q1": {"d0", "d6"}, "q2": {"d1", "d2"}, "q3": {"d4"}}


def same(ours, wanted):
    """The same names, and equal values."""
    assert ours == {name: pytest.approx(float(value), rel=1e-5, abs=1e-5) for name, value in wanted.items()}


@pytest.mark.parametrize(
    "options", [{}, {"corpus_chunk_size": 2}, {"ndcg_at_k": [3, 5], "map_at_k": [2], "name": "mine"}]
)
def test_retrieval_has_their_metrics(checkpoints, tmp_path, options):
    """Also in parts of the corpus, with equal documents at the border."""
    their_model, model = checkpoints.pair("SentenceTransformer", "bert-mean")
    own = evaluation.InformationRetrievalEvaluator(QUERIES, CORPUS, RELEVANT, **options)
    their = theirs.InformationRetrievalEvaluator(QUERIES, CORPUS, RELEVANT, write_csv=False, **options)

    metrics = own(model, output_path=tmp_path, epoch=1, steps=7)

    same(metrics, their(their_model))
    assert own.primary_metric == their.primary_metric
    with (tmp_path / own.csv_file).open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert (line["epoch"], line["steps"]) == ("1", "7")
    assert float(line["cosine-Recall@1"]) == metrics[f"{own.name}_cosine_recall@1".removeprefix("_")]


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
def test_sparse_retrieval_has_their_metrics(checkpoints):
    """With the numbers of active terms."""
    their_model, model = checkpoints.own_pair("SparseEncoder", "splade-max")
    own = evaluation.SparseInformationRetrievalEvaluator(QUERIES, CORPUS, RELEVANT, corpus_chunk_size=3)
    their = their_sparse.SparseInformationRetrievalEvaluator(QUERIES, CORPUS, RELEVANT, write_csv=False)

    same(own(model), their(their_model))
    assert own.primary_metric == their.primary_metric == "dot_ndcg@10"


def test_grades_are_gains(checkpoints):
    """A document of a higher grade is worth more in front."""
    model = checkpoints.load(st_core, "SentenceTransformer", "bert-mean")
    order = [key for key, _ in _ranking(model)]
    best = {key: float(len(order) - place) for place, key in enumerate(order)}
    worst = dict(zip(order, sorted(best.values()), strict=True))

    def of(grades):
        evaluator = evaluation.InformationRetrievalEvaluator({"q1": QUERIES["q1"]}, CORPUS, {"q1": grades})
        return evaluator(model)["cosine_ndcg@10"]

    assert of(best) == pytest.approx(1.0)
    assert of(worst) < of(set(order)) == pytest.approx(1.0)


def _ranking(model):
    evaluator = evaluation.InformationRetrievalEvaluator({"q1": QUERIES["q1"]}, CORPUS, {"q1": {"d0"}})
    evaluator(model)
    return evaluator.rankings["cosine"]["q1"]


@pytest.mark.parametrize(
    ("relevant", "message"),
    [
        ({"q1": {"d0", "unknown"}}, "1 of 2 judgements are for unknown.*q1 unknown"),
        ({"other": {"d0"}}, "1 of 1 judgements are for unknown"),
        ({"q1": {"d0": 0}}, "no query has a relevant document"),
        ({}, "no query has a relevant document"),
    ],
)
def test_judgements_of_other_collections_are_refused(relevant, message):
    """They would make every number lower, without a word."""
    with pytest.raises(ValueError, match=message):
        evaluation.InformationRetrievalEvaluator(QUERIES, CORPUS, relevant)


FIRST = ["a tree", "a fox", "dates", "numbers", "copy"]
SECOND = ["the tree", "an animal", "days of a year", "a copy", "copy files"]
SCORES = [0.9, 0.5, 0.5, 0.1, 0.7]


@pytest.mark.parametrize("names", [None, ["cosine", "dot", "euclidean", "manhattan"]])
def test_similarities_have_their_metrics(checkpoints, names):
    """With one similarity and with several."""
    their_model, model = checkpoints.pair("SentenceTransformer", "bert-mean")
    columns, options = (FIRST, SECOND, SCORES), {"similarity_fn_names": names}
    own = evaluation.EmbeddingSimilarityEvaluator(*columns, **options)
    their = theirs.EmbeddingSimilarityEvaluator(*columns, write_csv=False, **options)

    same(own(model), their(their_model))
    assert own.primary_metric == their.primary_metric


@pytest.mark.parametrize("options", [{}, {"margin": 0.05, "similarity_fn_names": ["cosine", "euclidean"]}])
def test_triplets_have_their_metrics(checkpoints, options):
    """With a margin, and with several similarities."""
    their_model, model = checkpoints.pair("SentenceTransformer", "bert-mean")
    columns = (FIRST, SECOND, SECOND[1:] + SECOND[:1])
    own = evaluation.TripletEvaluator(*columns, **options)
    their = theirs.TripletEvaluator(*columns, write_csv=False, **options)

    same(own(model), their(their_model))
    assert own.primary_metric == their.primary_metric


SAMPLES = [
    {"query": "a tree", "positive": ["the tree", "trees"], "documents": ["a fox", "the tree", "copy", "dates"]},
    {"query": "a fox", "positive": "an animal", "documents": ["numbers", "copy"]},
]
NEGATIVES = [{"query": "a tree", "positive": ["the tree"], "negative": ["a fox", "numbers", "copy", "dates"]}]


@pytest.mark.parametrize("samples", [SAMPLES, NEGATIVES])
@pytest.mark.parametrize("options", [{}, {"always_rerank_positives": False, "at_k": 2}])
def test_rerankers_have_their_metrics(checkpoints, samples, options):
    """With rankings to improve and with negatives."""
    pytest.importorskip("sklearn", reason="theirs needs it")
    their_model, model = checkpoints.pair("CrossEncoder", "rerank-bert")
    own = evaluation.CrossEncoderRerankingEvaluator(samples, **options)
    their = their_pairs.CrossEncoderRerankingEvaluator(samples, write_csv=False, **options)

    same(own(model), their(their_model))
    assert own.primary_metric == their.primary_metric


def test_errors_have_their_metric(checkpoints):
    """Compared with the vectors of a teacher, here the model itself for other texts."""
    their_model, model = checkpoints.pair("SentenceTransformer", "bert-mean")
    own = evaluation.MSEEvaluator(FIRST, SECOND, model)
    their = theirs.MSEEvaluator(FIRST, SECOND, teacher_model=their_model, write_csv=False)

    same(own(model), their(their_model))
    assert own.primary_metric == their.primary_metric


def test_correlations_of_rerankers_have_their_metrics(checkpoints):
    """Of the scores of pairs."""
    their_model, model = checkpoints.pair("CrossEncoder", "rerank-bert")
    pairs = list(zip(FIRST, SECOND, strict=True))

    same(
        evaluation.CrossEncoderCorrelationEvaluator(pairs, SCORES, name="x")(model),
        their_pairs.CrossEncoderCorrelationEvaluator(pairs, SCORES, name="x", write_csv=False)(their_model),
    )


def test_a_collapsed_reranker_gets_no_credit():
    """Equal scores do not put positives first."""

    class Same:
        def predict(self, pairs, **_):
            return [0.5] * len(pairs)

    metrics = evaluation.CrossEncoderRerankingEvaluator(NEGATIVES)(Same())

    assert metrics["mrr@10"] == pytest.approx(1 / 5)


def test_several_evaluators_are_one(checkpoints):
    """The score is that of the last; equal names are refused."""
    model = checkpoints.load(st_core, "SentenceTransformer", "bert-mean")
    first = evaluation.TripletEvaluator(FIRST, SECOND, SECOND[1:] + SECOND[:1], name="first")
    second = evaluation.EmbeddingSimilarityEvaluator(FIRST, SECOND, SCORES)

    metrics = evaluation.SequentialEvaluator([first, second])(model)

    assert metrics["sequential_score"] == metrics["spearman_cosine"]
    assert "first_cosine_accuracy" in metrics
    with pytest.raises(ValueError, match="two evaluators give 'pearson_cosine'"):
        evaluation.SequentialEvaluator([second, second])(model)


def test_columns_of_different_lengths_are_refused():
    """And empty ones."""
    with pytest.raises(ValueError, match="different lengths: 5 sentences1, 5 sentences2, 4 scores"):
        evaluation.EmbeddingSimilarityEvaluator(FIRST, SECOND, SCORES[1:])
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluation.TripletEvaluator([], [], [])

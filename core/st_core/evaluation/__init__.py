"""Evaluators of models, with the names, arguments and metrics of sentence-transformers 6.2; they need no torch."""

from __future__ import annotations

from st_core.evaluation.classification import (
    BinaryClassificationEvaluator,
    CrossEncoderClassificationEvaluator,
    SparseBinaryClassificationEvaluator,
)
from st_core.evaluation.evaluator import Evaluator, SequentialEvaluator
from st_core.evaluation.nano import CrossEncoderNanoBEIREvaluator, NanoBEIREvaluator, SparseNanoBEIREvaluator
from st_core.evaluation.pairs import (
    CrossEncoderCorrelationEvaluator,
    EmbeddingSimilarityEvaluator,
    MSEEvaluator,
    MSEEvaluatorFromDataFrame,
    SparseEmbeddingSimilarityEvaluator,
    SparseMSEEvaluator,
    SparseTripletEvaluator,
    TripletEvaluator,
)
from st_core.evaluation.paraphrases import ParaphraseMiningEvaluator, SparseTranslationEvaluator, TranslationEvaluator
from st_core.evaluation.reranking import (
    CrossEncoderRerankingEvaluator,
    ReciprocalRankFusionEvaluator,
    RerankingEvaluator,
    SparseRerankingEvaluator,
)
from st_core.evaluation.retrieval import InformationRetrievalEvaluator, SparseInformationRetrievalEvaluator
from st_core.similarity import SimilarityFunction

__all__ = [
    "BinaryClassificationEvaluator",
    "CrossEncoderClassificationEvaluator",
    "CrossEncoderCorrelationEvaluator",
    "CrossEncoderNanoBEIREvaluator",
    "CrossEncoderRerankingEvaluator",
    "EmbeddingSimilarityEvaluator",
    "Evaluator",
    "InformationRetrievalEvaluator",
    "MSEEvaluator",
    "MSEEvaluatorFromDataFrame",
    "NanoBEIREvaluator",
    "ParaphraseMiningEvaluator",
    "ReciprocalRankFusionEvaluator",
    "RerankingEvaluator",
    "SequentialEvaluator",
    "SimilarityFunction",
    "SparseBinaryClassificationEvaluator",
    "SparseEmbeddingSimilarityEvaluator",
    "SparseInformationRetrievalEvaluator",
    "SparseMSEEvaluator",
    "SparseNanoBEIREvaluator",
    "SparseRerankingEvaluator",
    "SparseTranslationEvaluator",
    "SparseTripletEvaluator",
    "TranslationEvaluator",
    "TripletEvaluator",
]


def __getattr__(name: str) -> object:
    """Raise ImportError for other evaluators of sentence-transformers, and AttributeError for other names."""
    if name.endswith("Evaluator"):
        raise ImportError(
            f"st_core.evaluation has no {name}: import it from sentence_transformers, whose evaluators take a model of "
            "st_core"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

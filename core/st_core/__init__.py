"""An engine for dense, sparse and cross-encoder models in the checkpoint format of Sentence Transformers.

Vectors and scores equal those of sentence-transformers.

Public names are imported on first use, so that ``import st_core`` loads neither torch nor a tokenizer.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from st_core.import_paths import install as _install_import_paths

if TYPE_CHECKING:
    from st_core.backends.dtypes import check_dtype, dtype_of_precision
    from st_core.cross_encoder import CrossEncoder
    from st_core.errors import (
        InputTooLong,
        ModelBroken,
        ModelError,
        ModelNotFound,
        ModelUnavailable,
        ModelUnsupported,
        RequirementMissing,
        TrainingInterrupted,
    )
    from st_core.fingerprint import describe
    from st_core.mining.in_memory import mine_hard_negatives as mine_hard_negatives
    from st_core.model_card import (
        CrossEncoderModelCardData,
        SentenceTransformerModelCardData,
        SparseEncoderModelCardData,
    )
    from st_core.protocols import ModelKind, ModelRef, Reranker, TextEncoder
    from st_core.quantize import quantize_embeddings
    from st_core.rescore import semantic_search_quantized
    from st_core.retrieval import community_detection, paraphrase_mining, semantic_search
    from st_core.saving.export import export_model
    from st_core.sentence_transformer import SentenceTransformer
    from st_core.similarity import SimilarityFunction
    from st_core.sparse_encoder import SparseEncoder
    from st_core.training.arguments import CrossEncoderTrainingArguments as CrossEncoderTrainingArguments
    from st_core.training.arguments import SentenceTransformerTrainingArguments as SentenceTransformerTrainingArguments
    from st_core.training.arguments import SparseEncoderTrainingArguments as SparseEncoderTrainingArguments
    from st_core.training.samplers import DefaultBatchSampler as DefaultBatchSampler
    from st_core.training.samplers import MultiDatasetDefaultBatchSampler as MultiDatasetDefaultBatchSampler
    from st_core.training.trainer import CrossEncoderTrainer as CrossEncoderTrainer
    from st_core.training.trainer import SentenceTransformerTrainer as SentenceTransformerTrainer
    from st_core.training.trainer import SparseEncoderTrainer as SparseEncoderTrainer
    from st_core.vectors import SparseMatrix, SparseVector

__version__ = "0.1.0"

_install_import_paths()

_WHERE = {
    "CrossEncoder": "cross_encoder",
    "CrossEncoderModelCardData": "model_card",
    "InputTooLong": "errors",
    "ModelBroken": "errors",
    "ModelError": "errors",
    "ModelNotFound": "errors",
    "ModelUnavailable": "errors",
    "ModelUnsupported": "errors",
    "ModelKind": "protocols",
    "ModelRef": "protocols",
    "RequirementMissing": "errors",
    "Reranker": "protocols",
    "SentenceTransformer": "sentence_transformer",
    "SentenceTransformerModelCardData": "model_card",
    "SimilarityFunction": "similarity",
    "SparseEncoder": "sparse_encoder",
    "SparseEncoderModelCardData": "model_card",
    "SparseMatrix": "vectors",
    "SparseVector": "vectors",
    "TextEncoder": "protocols",
    "TrainingInterrupted": "errors",
    "check_dtype": "backends.dtypes",
    "community_detection": "retrieval",
    "describe": "fingerprint",
    "dtype_of_precision": "backends.dtypes",
    "export_model": "saving.export",
    "paraphrase_mining": "retrieval",
    "quantize_embeddings": "quantize",
    "semantic_search": "retrieval",
    "semantic_search_quantized": "rescore",
    "CrossEncoderTrainer": "training.trainer",
    "CrossEncoderTrainingArguments": "training.arguments",
    "SentenceTransformerTrainer": "training.trainer",
    "SentenceTransformerTrainingArguments": "training.arguments",
    "SparseEncoderTrainer": "training.trainer",
    "SparseEncoderTrainingArguments": "training.arguments",
    "DefaultBatchSampler": "training.samplers",
    "MultiDatasetDefaultBatchSampler": "training.samplers",
    "mine_hard_negatives": "mining.in_memory",
}

_MODULES = (
    *("backend", "base", "cross_encoder", "distilling", "losses", "models", "sentence_transformer", "sparse_encoder"),
    "util",
)

__all__ = [
    "CrossEncoder",
    "CrossEncoderModelCardData",
    "InputTooLong",
    "ModelBroken",
    "ModelError",
    "ModelKind",
    "ModelNotFound",
    "ModelRef",
    "ModelUnavailable",
    "ModelUnsupported",
    "RequirementMissing",
    "Reranker",
    "SentenceTransformer",
    "SentenceTransformerModelCardData",
    "SimilarityFunction",
    "SparseEncoder",
    "SparseEncoderModelCardData",
    "SparseMatrix",
    "SparseVector",
    "TextEncoder",
    "TrainingInterrupted",
    "check_dtype",
    "community_detection",
    "describe",
    "dtype_of_precision",
    "export_model",
    "paraphrase_mining",
    "quantize_embeddings",
    "semantic_search",
    "semantic_search_quantized",
]


def __getattr__(name: str) -> Any:
    """Import a public name, or a module that sentence-transformers imports with its package, on first use."""
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _WHERE:
        from st_core.absent import import_error

        raise import_error(__name__, name)
    value = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})

"""Run modules with numpy: one function per module type, from a module and features to features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from st_core.backends.numpy.hybrid_score import score_pairs
from st_core.backends.numpy.pooling import pool, splade
from st_core.backends.numpy.sparse import weigh_terms, weigh_tokens
from st_core.checkpoint.files import last_name
from st_core.errors import ModelBroken
from st_core.modules.bm25 import BM25
from st_core.modules.bow import BoW
from st_core.modules.dense import Dense
from st_core.modules.dropout import Dropout
from st_core.modules.hybrid_score import HybridScore
from st_core.modules.layer_norm import LayerNorm
from st_core.modules.normalize import Normalize
from st_core.modules.pooling import Pooling
from st_core.modules.sparse_static_embedding import SparseStaticEmbedding
from st_core.modules.splade_pooling import SpladePooling
from st_core.modules.static_embedding import StaticEmbedding
from st_core.vectors import SparseMatrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from st_core.backends import Features
    from st_core.modules import Module

__all__ = ["STEPS", "as_array", "can_run", "check_width", "normalize", "run_module"]

TOKEN_BUDGET = 32_768
"""Tokens per batch, each of which reads one row of a table: 32 MB at 256 dimensions."""

SHORT = 512
"""Maximum number of vectors that are weighted and added in one product, whose rounding differs from torch's."""

EPSILON = 1e-12
"""The minimum length that torch's ``normalize`` divides by."""


def normalize(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors [..., d] divided by their Euclidean length; zeros stay zeros."""
    lengths = np.sqrt(np.einsum("...d,...d->...", vectors, vectors))[..., None]
    return np.asarray(vectors / np.maximum(lengths, EPSILON), np.float32)


def mean_vectors(module: StaticEmbedding, rows: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
    """Return the mean vector of each text's tokens [n, d]; zeros for a text without tokens.

    Long texts are summed vector by vector in float32, as in torch: another order would be more exact, but the result
    for ten thousand tokens would differ from torch's in the fifth digit. Texts are processed one at a time, which is
    faster because the vectors of one text fit into the processor cache.
    """
    result = np.zeros((len(rows), module.table.shape[1]), np.float32)
    for index, row in enumerate(rows):
        for start in range(0, row.size, TOKEN_BUDGET):
            result[index] += _sum_vectors(module, row[start : start + TOKEN_BUDGET])
    sizes = np.fromiter((max(1, row.size) for row in rows), np.float32, len(rows))
    result /= sizes[:, None]
    return result


def _sum_vectors(module: StaticEmbedding, ids: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the sum of the vectors [d] of tokens [t]."""
    rows = module.table.take(ids if module.mapping is None else module.mapping[ids], axis=0)  # a copy
    vectors = rows.astype(np.float32, copy=False)
    if module.scale is not None:
        scale = module.scale.take(ids)
        if ids.size <= SHORT:
            return scale @ vectors
        vectors *= scale[:, None]
    total: NDArray[np.float32] = np.add.reduce(vectors, axis=0)
    return total


def sigmoid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logistic function of values, computed without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * values)), np.float32)


def _identity(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values


def _relu(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.maximum(values, 0)


def _silu(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values * sigmoid(values)


ACTIVATIONS: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "Identity": _identity,
    "ReLU": _relu,
    "SiLU": _silu,
    "Sigmoid": sigmoid,
    "Tanh": np.tanh,
}
"""Activations by the name of their ``torch.nn`` class, as picklable functions; other activations need torch."""


def check_width(module: Dense | LayerNorm, width: int) -> None:
    """Raise ModelBroken where the width of vectors differs from the width of a module's weights."""
    expected = module.weight.shape[-1]
    if width != expected:
        raise ModelBroken(f"{last_name(module.type_path)}: expected vectors of {expected} dimensions, got {width}")


def dense(module: Dense, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors [..., in] after a linear layer, its activation and its residual connection: [..., out]."""
    check_width(module, vectors.shape[-1])
    result = vectors @ module.weight.T
    if module.bias is not None:
        result += module.bias
    result = ACTIVATIONS[last_name(module.activation)](result)
    if module.use_residual:
        result = result + (vectors if module.residual is None else vectors @ module.residual.T)
    return np.asarray(result, np.float32)


def layer_norm(module: LayerNorm, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors [n, d] with mean 0 and variance 1, then scaled and shifted."""
    check_width(module, vectors.shape[-1])
    centred = vectors - vectors.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + module.epsilon)
    return np.asarray(centred / deviation * module.weight + module.bias, np.float32)


def count_words(module: BoW, rows: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
    """Return the weights of the words of each text [n, words]."""
    result = np.zeros((len(rows), module.weight.size), np.float32)
    for index, row in enumerate(rows):
        if module.cumulative:
            np.add.at(result[index], row, module.weight[row])
        else:
            result[index, row] = module.weight[row]
    return result


def as_array(value: object) -> NDArray[np.float32]:
    """Return vectors as a dense float32 array."""
    return value.to_dense() if isinstance(value, SparseMatrix) else np.asarray(value, np.float32)


def _run_static(module: StaticEmbedding, features: Features) -> Features:
    return features | {module.writes: mean_vectors(module, features["tokens"].ids)}


def _run_sparse_static(module: SparseStaticEmbedding, features: Features) -> Features:
    return features | {module.writes: weigh_tokens(module, features["tokens"].ids)}


def _run_bm25(module: BM25, features: Features) -> Features:
    return features | {module.writes: weigh_terms(module, features["tokens"].ids)}


def _run_hybrid_score(module: HybridScore, features: Features) -> Features:
    return features | {module.writes: score_pairs(module, features["tokens"])}


def _run_bow(module: BoW, features: Features) -> Features:
    return features | {module.writes: count_words(module, features["tokens"].ids)}


def _run_pooling(module: Pooling, features: Features) -> Features:
    vectors, mask = features["token_embeddings"], features["attention_mask"]
    return features | {module.writes: pool(module, vectors, mask, features.get("prompt_length"))}


def _run_splade(module: SpladePooling, features: Features) -> Features:
    return features | {module.writes: splade(module, features["token_embeddings"], features["attention_mask"])}


def _run_dense(module: Dense, features: Features) -> Features:
    return features | {module.writes: dense(module, as_array(features[module.reads]))}


def _run_normalize(module: Normalize, features: Features) -> Features:
    if module.reads not in features:
        return features
    return features | {module.writes: normalize(as_array(features[module.reads]))}


def _run_layer_norm(module: LayerNorm, features: Features) -> Features:
    return features | {module.writes: layer_norm(module, as_array(features[module.writes]))}


def _run_dropout(_module: Dropout, features: Features) -> Features:
    return features


STEPS: dict[type[Module], Callable[[Any, Features], Features]] = {
    BM25: _run_bm25,
    BoW: _run_bow,
    Dense: _run_dense,
    Dropout: _run_dropout,
    HybridScore: _run_hybrid_score,
    LayerNorm: _run_layer_norm,
    Normalize: _run_normalize,
    Pooling: _run_pooling,
    SparseStaticEmbedding: _run_sparse_static,
    SpladePooling: _run_splade,
    StaticEmbedding: _run_static,
}
"""The step of each module type that numpy runs; a package that defines further module types adds their entries."""


def can_run(modules: Sequence[Module]) -> bool:
    """Return whether numpy alone can run a stack."""
    return all(
        type(module) in STEPS and not (isinstance(module, Dense) and last_name(module.activation) not in ACTIVATIONS)
        for module in modules
    )


def run_module(module: Module, features: Features) -> Features:
    """Return the features after running one module with numpy."""
    return STEPS[type(module)](module, features)

"""Runs stacks of static modules with numpy alone: pure functions from a module and features to features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from st_core.backends.numpy.pooling import run_pooling, run_splade
from st_core.checkpoint.files import last_name
from st_core.errors import ModelBroken
from st_core.text.tokens import TextTokenizer
from st_core.vectors import MIN_WEIGHT, SparseMatrix, SparseVector

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from st_core.backends import Features
    from st_core.modules import Module
    from st_core.modules.dense import Dense
    from st_core.modules.layer_norm import LayerNorm
    from st_core.modules.normalize import Normalize
    from st_core.modules.sparse_static_embedding import SparseStaticEmbedding
    from st_core.modules.static_embedding import StaticEmbedding

__all__ = ["RUNNERS", "OneText", "can_run", "normalize", "one_text"]

TOKEN_BUDGET = 32_768
"""Rows of a table gathered at once: 32 MB at 256 dimensions."""

SHORT = 512
"""Up to so many vectors are weighed and added in one product: its order of adding differs from torch's by float noise."""

EPSILON = 1e-12
"""What torch's ``normalize`` divides the shorter vectors by."""


def normalize(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors [..., d] of Euclidean length one; zeros stay zeros."""
    lengths = np.sqrt(np.einsum("...d,...d->...", vectors, vectors))[..., None]
    return np.asarray(vectors / np.maximum(lengths, EPSILON), np.float32)


def mean_of_rows(module: StaticEmbedding, rows: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
    """The mean vector of each text's tokens [n, d]; zeros for a text without tokens.

    Long texts are added up one vector after another in float32, as torch does: summing in another order would be more exact, and differ in the
    fifth digit for ten thousand tokens. Text by text is also faster than all at once: the gathered vectors stay in the cache.
    """
    result = np.zeros((len(rows), module.table.shape[1]), np.float32)
    for index, row in enumerate(rows):
        for start in range(0, row.size, TOKEN_BUDGET):
            result[index] += _sum_of_vectors(module, row[start : start + TOKEN_BUDGET])
    sizes = np.fromiter((max(1, row.size) for row in rows), np.float32, len(rows))
    result /= sizes[:, None]
    return result


def _sum_of_vectors(module: StaticEmbedding, ids: NDArray[np.int32]) -> NDArray[np.float32]:
    """The sum of the vectors of tokens [t]: [d]."""
    picked = module.table.take(ids if module.mapping is None else module.mapping[ids], axis=0)  # a copy
    vectors = picked.astype(np.float32, copy=False)
    if module.scale is not None:
        scale = module.scale.take(ids)
        if ids.size <= SHORT:
            return scale @ vectors
        vectors *= scale[:, None]
    total: NDArray[np.float32] = np.add.reduce(vectors, axis=0)
    return total


def presence(module: SparseStaticEmbedding, rows: Sequence[NDArray[np.int32]]) -> SparseMatrix:
    """The weight of each distinct token of each text [n, V]; weights that are not positive are dropped."""
    width = module.weight.size
    lengths = np.fromiter((row.size for row in rows), np.int64, len(rows))
    owners = np.repeat(np.arange(len(rows), dtype=np.int64), lengths)
    ids = np.concatenate([*rows, np.empty(0, np.int32)]).astype(np.int64)
    cells = np.unique(owners * width + ids)
    columns = cells % width
    values = module.weight[columns]
    keep = np.isfinite(values) & (values >= MIN_WEIGHT)
    indptr = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(np.bincount(cells[keep] // width, minlength=len(rows)), out=indptr[1:])
    return SparseMatrix(indptr, columns[keep].astype(np.uint32), values[keep], (len(rows), width))


class OneText:
    """The sparse vector of one text by a table of weights: what :func:`presence` and the queries of BM25 give, without arrays on the way.

    ``tokenizer`` adds no special tokens; ``weight`` float32 [V] is that of each token, or of each ``term`` [V] that tokens stand for.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        weight: NDArray[np.float32],
        term: NDArray[np.int32] | None = None,
        *,
        max_length: int | None = None,
    ) -> None:
        """Finds the tokens that weigh nothing; ``max_length`` is only kept."""
        self.tokenizer, self.weight, self.max_length = tokenizer, weight, max_length
        self.term = None if term is None else term.tolist()
        light = np.flatnonzero(~(np.isfinite(weight) & (weight >= MIN_WEIGHT))).tolist()
        self.dropped = frozenset((-1, *light))
        self._numbers = np.arange(weight.size, dtype=np.uint32)
        self._find = tokenizer.bare if tokenizer.words is None else tokenizer.words.ids

    def __call__(self, text: str, limit: int | None) -> SparseVector:
        """The vector of a text of which at most ``limit`` tokens are read."""
        ids = self._find(text)
        if ids is None:
            ids = self.tokenizer.bare(text)
        if limit is not None and len(ids) > limit:
            ids = ids[:limit]
        found = set(ids if self.term is None else map(self.term.__getitem__, ids))
        if not found.isdisjoint(self.dropped):
            found -= self.dropped
        indices = np.array(sorted(found), np.intp)  # what numpy looks up fastest
        return SparseVector.trusted(self._numbers[indices], self.weight[indices])  # a table is faster than astype


def one_text(modules: Sequence[Module]) -> OneText | None:
    """What gives one text's vector where a stack is a table of weights and nothing else; None for other stacks."""
    first = modules[0]
    if len(modules) > 1 or not isinstance(first.tokenizer, TextTokenizer):
        return None
    match type(first).__name__:
        case "SparseStaticEmbedding":
            return OneText(first.tokenizer, first.weight, max_length=first.max_length)
        case "BM25" if first.idf is not None:
            return OneText(first.tokenizer, first.idf, first.term, max_length=first.max_length)
    return None


def sigmoid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logistic function, without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * values)), np.float32)


def _identity(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values


def _relu(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.maximum(values, 0)


def _silu(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values * sigmoid(values)


ACTIVATIONS: Mapping[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "Identity": _identity,
    "ReLU": _relu,
    "SiLU": _silu,
    "Sigmoid": sigmoid,
    "Tanh": np.tanh,
}
"""By class name of ``torch.nn``; functions with names, which other processes can be sent. A dense layer with another activation goes to torch."""


def check_width(module: Dense | LayerNorm, width: int) -> None:
    """Raise ModelBroken where a module is given vectors of another width than its weights are made for."""
    wanted = module.weight.shape[-1]
    if width != wanted:
        raise ModelBroken(f"a {type(module).__name__} for vectors of {wanted} dimensions is given vectors of {width}")


def dense(module: Dense, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors [..., in] through a linear layer, its activation and its residual connection: [..., out]."""
    check_width(module, vectors.shape[-1])
    result = vectors @ module.weight.T
    if module.bias is not None:
        result += module.bias
    result = ACTIVATIONS[last_name(module.activation)](result)
    if module.use_residual:
        result = result + (vectors if module.residual is None else vectors @ module.residual.T)
    return np.asarray(result, np.float32)


def layer_norm(module: LayerNorm, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors [n, d] brought to mean 0 and variance 1, then scaled and shifted."""
    check_width(module, vectors.shape[-1])
    centred = vectors - vectors.mean(axis=-1, keepdims=True)
    spread = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + module.epsilon)
    return np.asarray(centred / spread * module.weight + module.bias, np.float32)


def as_array(value: Any) -> NDArray[np.float32]:
    return value.to_dense() if isinstance(value, SparseMatrix) else np.asarray(value, np.float32)


def _run_static(module: StaticEmbedding, features: Features) -> Features:
    return features | {"sentence_embedding": mean_of_rows(module, features["tokens"].ids)}


def _run_sparse_static(module: SparseStaticEmbedding, features: Features) -> Features:
    return features | {"sentence_embedding": presence(module, features["tokens"].ids)}


def _run_bm25(module: Any, features: Features) -> Features:
    from st_core.modules.bm25 import weigh

    return features | {"sentence_embedding": weigh(module, features["tokens"].ids)}


def _run_dense(module: Dense, features: Features) -> Features:
    return features | {module.writes: dense(module, as_array(features[module.reads]))}


def _run_normalize(module: Normalize, features: Features) -> Features:
    if module.reads not in features:
        return features
    return features | {module.writes: normalize(as_array(features[module.reads]))}


def _run_layer_norm(module: LayerNorm, features: Features) -> Features:
    return features | {"sentence_embedding": layer_norm(module, as_array(features["sentence_embedding"]))}


def _run_dropout(_module: Module, features: Features) -> Features:
    return features


def _run_bow(module: Any, features: Features) -> Features:
    from st_core.modules.bow import count

    return features | {"sentence_embedding": count(module, features["tokens"].ids)}


RUNNERS: Mapping[str, Callable[[Any, Features], Features]] = {
    "BM25": _run_bm25,
    "BoW": _run_bow,
    "Dense": _run_dense,
    "Dropout": _run_dropout,
    "LayerNorm": _run_layer_norm,
    "Normalize": _run_normalize,
    "Pooling": run_pooling,
    "SpladePooling": run_splade,
    "SparseStaticEmbedding": _run_sparse_static,
    "StaticEmbedding": _run_static,
}
"""What runs a module, by the name of its dataclass."""


def can_run(modules: Sequence[Module]) -> bool:
    """Whether numpy is enough for a stack."""
    return all(
        type(module).__name__ in RUNNERS
        and (type(module).__name__ != "Dense" or last_name(module.activation) in ACTIVATIONS)
        for module in modules
    )

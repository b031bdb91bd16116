"""What each kind of module has in its folder, in the layout of sentence-transformers 6.2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from st_core.errors import ModelUnsupported
from st_core.modules.bm25 import BM25
from st_core.modules.bow import BoW
from st_core.modules.cnn import CNN
from st_core.modules.dense import Dense
from st_core.modules.dropout import Dropout
from st_core.modules.layer_norm import LayerNorm
from st_core.modules.logit_score import LogitScore
from st_core.modules.lstm import LSTM
from st_core.modules.normalize import Normalize
from st_core.modules.pooling import Pooling
from st_core.modules.sparse_auto_encoder import SparseAutoEncoder
from st_core.modules.sparse_static_embedding import SparseStaticEmbedding
from st_core.modules.splade_pooling import SpladePooling
from st_core.modules.static_embedding import StaticEmbedding
from st_core.modules.weighted_layer_pooling import WeightedLayerPooling
from st_core.modules.word_embeddings import WORDS, WordEmbeddings
from st_core.modules.word_weights import WordWeights

if TYPE_CHECKING:
    from st_core.modules import Module
    from st_core.text.tokens import TextTokenizer

__all__ = ["Parts", "kind_of", "parts_of", "type_of"]

_BASE = "sentence_transformers.base.modules"
_DENSE = "sentence_transformers.sentence_transformer.modules"
_SPARSE = "sentence_transformers.sparse_encoder.modules"
_TYPES: Mapping[str, str] = {
    "BM25": "st_core.modules.bm25",
    "BoW": f"{_DENSE}.bow",
    "CNN": f"{_DENSE}.cnn",
    "Dense": f"{_BASE}.dense",
    "Dropout": f"{_DENSE}.dropout",
    "LSTM": f"{_DENSE}.lstm",
    "LayerNorm": f"{_DENSE}.layer_norm",
    "LogitScore": "sentence_transformers.cross_encoder.modules.logit_score",
    "Normalize": f"{_BASE}.normalize",
    "Pooling": f"{_DENSE}.pooling",
    "Router": f"{_BASE}.router",
    "SparseAutoEncoder": f"{_SPARSE}.sparse_auto_encoder",
    "SparseStaticEmbedding": f"{_SPARSE}.sparse_static_embedding",
    "SpladePooling": f"{_SPARSE}.splade_pooling",
    "StaticEmbedding": f"{_DENSE}.static_embedding",
    "Transformer": f"{_BASE}.transformer",
    "WeightedLayerPooling": f"{_DENSE}.weighted_layer_pooling",
    "WordEmbeddings": f"{_DENSE}.word_embeddings",
    "WordWeights": f"{_DENSE}.word_weights",
}
"""Where sentence-transformers 6.2 keeps the class of that name; BM25 is this engine's own."""


@dataclass(frozen=True, slots=True)
class Parts:
    """JSON values by file name, tensors by name, and a tokenizer."""

    files: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: TextTokenizer | None = None


def kind_of(module: Module) -> str:
    """The class name of a module; raises ModelUnsupported for one that cannot be saved."""
    kind = type(module).__name__
    if kind not in _TYPES:
        raise ModelUnsupported(f"a {kind} cannot be saved")
    return kind


def type_of(kind: str) -> str:
    """The dotted path of a class, as ``modules.json`` names it."""
    return f"{_TYPES[kind]}.{kind}"


def _configured(config: Mapping[str, Any], tensors: Mapping[str, Any] | None = None) -> Parts:
    return Parts({"config.json": config}, tensors or {})


def parts_of(module: Module) -> Parts:
    """The files of a module that is neither a transformer nor a router; raises ModelUnsupported for a kind that cannot be saved."""
    writer = _WRITERS.get(type(module))
    if writer is None:
        raise ModelUnsupported(f"a {type(module).__name__} cannot be saved")
    parts: Parts = writer(module)
    return parts


def _pooling(module: Pooling) -> Parts:
    modes = module.modes[0] if len(module.modes) == 1 else list(module.modes)
    return _configured(
        {"embedding_dimension": module.width, "pooling_mode": modes, "include_prompt": module.include_prompt}
    )


def _dense(module: Dense) -> Parts:
    config = {
        "in_features": int(module.weight.shape[1]),
        "out_features": int(module.weight.shape[0]),
        "bias": module.bias is not None,
        "activation_function": module.activation,
        "module_input_name": module.reads,
        "module_output_name": module.writes,
        "use_residual": module.use_residual,
    }
    return _configured(
        config, {"linear.weight": module.weight, "linear.bias": module.bias, "residual.weight": module.residual}
    )


def _normalize(module: Normalize) -> Parts:
    return _configured({"module_input_name": module.reads, "module_output_name": module.writes})


def _dropout(_module: Dropout) -> Parts:
    return _configured({"dropout": 0.0})


def _layer_norm(module: LayerNorm) -> Parts:
    return _configured({"dimension": module.dimension}, {"norm.weight": module.weight, "norm.bias": module.bias})


def _splade_pooling(module: SpladePooling) -> Parts:
    return _configured(
        {
            "pooling_strategy": "sum" if module.summed else "max",
            "activation_function": "log1p_relu" if module.doubled else "relu",
            "embedding_dimension": module.width,
        }
    )


def _logit_score(module: LogitScore) -> Parts:
    return _configured(
        {"true_token_id": module.true, "false_token_id": module.false, "module_input_name": module.reads}
    )


def _static_embedding(module: StaticEmbedding) -> Parts:
    plain = module.mapping is None and module.scale is None and module.table.dtype == np.float32
    tensors = {"embeddings": module.table, "mapping": module.mapping, "weights": module.scale}
    return Parts(tensors={"embedding.weight": module.table} if plain else tensors, tokenizer=_limited(module.tokenizer))


def _limited(tokenizer: TextTokenizer) -> TextTokenizer:
    """The same tokenizer with its limit written into it, where sentence-transformers looks for that of a static model."""
    if tokenizer.model_max_length is None:
        return tokenizer
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(tokenizer.backend.to_str())
    backend.enable_truncation(tokenizer.model_max_length)
    return replace(tokenizer, backend=backend)


def _sparse_static_embedding(module: SparseStaticEmbedding) -> Parts:
    limit = module.tokenizer.model_max_length
    settings = {**module.settings} | ({} if limit is None else {"model_max_length": limit})
    files = {"config.json": {"frozen": False}, "tokenizer_config.json": settings}
    return Parts(files, {"weight": module.weight}, module.tokenizer)


def _bm25(module: BM25) -> Parts:
    how = module.saturation
    config: dict[str, Any] = {"half": "query"}
    if how is not None:
        config = {"half": "document", "k1": how.k1, "b": how.b, "average_length": how.average_length}
    return Parts({"config.json": config}, {"term": module.term, "idf": module.idf}, module.tokenizer)


def _sparse_auto_encoder(module: SparseAutoEncoder) -> Parts:
    hidden, width = module.weight.shape
    config = {
        "input_dim": int(width),
        "hidden_dim": int(hidden),
        "k": module.keep,
        "k_aux": module.unused[0],
        "normalize": module.normalize,
        "dead_threshold": module.unused[1],
    }
    tensors = {
        "pre_bias": module.before,
        "encoder.weight": module.weight,
        "latent_bias": module.bias,
        "stats_last_nonzero": np.zeros(hidden, np.int64),
    }
    return _configured(config, tensors)


def _weighted_layer_pooling(module: WeightedLayerPooling) -> Parts:
    config = {
        "embedding_dimension": module.dimension,
        "layer_start": module.start,
        "num_hidden_layers": module.layers,
    }
    return _configured(config, {"layer_weights": module.weight})


def _word_embeddings(module: WordEmbeddings) -> Parts:
    tokenizer = module.tokenizer
    files = {
        "wordembedding_config.json": {
            "tokenizer_class": f"{_DENSE}.tokenizer.whitespace.WhitespaceTokenizer",
            "update_embeddings": False,
            "max_seq_length": module.max_length,
        },
        WORDS: {
            "vocab": list(tokenizer.get_vocab()),
            "stop_words": sorted(tokenizer.stop_words),
            "do_lower_case": tokenizer.lower_case,
        },
    }
    return Parts(files, {"emb_layer.weight": module.table})


def _word_weights(module: WordWeights) -> Parts:
    config = {
        "vocab": list(module.vocab),
        "word_weights": dict(module.listed),
        "unknown_word_weight": module.unknown,
    }
    return _configured(config, {"emb_layer.weight": module.weight[:, None]})


def _bow(module: BoW) -> Parts:
    return _configured(
        {
            "vocab": list(module.tokenizer.get_vocab()),
            "word_weights": dict(module.listed),
            "unknown_word_weight": module.unknown,
            "cumulative_term_frequency": module.cumulative,
        }
    )


def _cnn(module: CNN) -> Parts:
    out, width, _ = module.weights[0].shape
    config = {
        "in_embedding_dimension": int(width),
        "out_channels": int(out),
        "kernel_sizes": [int(weight.shape[2]) for weight in module.weights],
        "stride_sizes": [1] * len(module.weights),
    }
    tensors = {f"convs.{index}.weight": weight for index, weight in enumerate(module.weights)}
    tensors |= {f"convs.{index}.bias": bias for index, bias in enumerate(module.biases)}
    return Parts({"cnn_config.json": config}, tensors)


def _lstm(module: LSTM) -> Parts:
    config = {
        "embedding_dimension": module.width,
        "hidden_dim": module.hidden,
        "num_layers": module.layers,
        "dropout": 0.0,
        "bidirectional": module.bidirectional,
    }
    return Parts({"lstm_config.json": config}, {f"encoder.{name}": array for name, array in module.tensors.items()})


_WRITERS: Mapping[type, Any] = {
    BM25: _bm25,
    BoW: _bow,
    CNN: _cnn,
    Dense: _dense,
    Dropout: _dropout,
    LSTM: _lstm,
    LayerNorm: _layer_norm,
    LogitScore: _logit_score,
    Normalize: _normalize,
    Pooling: _pooling,
    SparseAutoEncoder: _sparse_auto_encoder,
    SparseStaticEmbedding: _sparse_static_embedding,
    SpladePooling: _splade_pooling,
    StaticEmbedding: _static_embedding,
    WeightedLayerPooling: _weighted_layer_pooling,
    WordEmbeddings: _word_embeddings,
    WordWeights: _word_weights,
}

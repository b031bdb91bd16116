"""The rarer modules in torch: each becomes a function from features to features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from st_core.errors import ModelBroken
from st_core.modules.cnn import CNN
from st_core.modules.dropout import Dropout
from st_core.modules.logit_score import LogitScore
from st_core.modules.lstm import LSTM
from st_core.modules.sparse_auto_encoder import SparseAutoEncoder
from st_core.modules.weighted_layer_pooling import WeightedLayerPooling
from st_core.modules.word_embeddings import WordEmbeddings
from st_core.modules.word_weights import WordWeights

if TYPE_CHECKING:
    from st_core.backends import Features

__all__ = ["STEPS", "Step"]

Step = Callable[["Features"], "Features"]


def _check_width(name: str, wanted: int, found: int) -> None:
    if wanted != found:
        raise ModelBroken(f"a {name} for vectors of {wanted} dimensions is given vectors of {found}")


def _dropout(_module: Dropout, _device: torch.device, _dtype: torch.dtype) -> Step:
    return lambda features: features


def _logit_score(module: LogitScore, _device: torch.device, _dtype: torch.dtype) -> Step:
    """The logits [n, t, V] of an answer at the last position become scores [n, 1]."""

    def step(features: Features) -> Features:
        logits = features[module.reads][:, -1]
        scores = logits[:, module.true]
        if module.false is not None:
            scores = scores - logits[:, module.false]
        return features | {module.writes: scores[:, None]}

    return step


def _sparse_auto_encoder(module: SparseAutoEncoder, device: torch.device, dtype: torch.dtype) -> Step:
    """Vectors [n, d] become [n, h] with at most ``keep`` values that are not zero."""
    weight, before, bias = (torch.tensor(each, dtype=dtype, device=device) for each in _arrays(module))

    def step(features: Features) -> Features:
        vectors = features["sentence_embedding"]
        _check_width("SparseAutoEncoder", weight.shape[1], vectors.shape[-1])
        if module.normalize:
            vectors = vectors - vectors.mean(dim=-1, keepdim=True)
            vectors = vectors / (vectors.std(dim=-1, keepdim=True) + 1e-5)
        latent = functional.linear(vectors - before, weight, bias)
        keep = min(features.get("max_active_dims") or module.keep, latent.shape[-1])
        top = latent.topk(keep, dim=-1)
        result = torch.zeros_like(latent).scatter_(-1, top.indices, top.values).relu()
        return features | {"sentence_embedding": result}

    return step


def _arrays(module: SparseAutoEncoder) -> tuple[Any, Any, Any]:
    return module.weight, module.before, module.bias


def _weighted_layer_pooling(module: WeightedLayerPooling, device: torch.device, dtype: torch.dtype) -> Step:
    """The states of all layers, each [n, t, d], become their weighted mean."""
    weight = torch.tensor(module.weight, dtype=dtype, device=device)

    def step(features: Features) -> Features:
        layers = features.get("all_layer_embeddings")
        if layers is None:
            return features
        used = torch.stack(tuple(layers[module.start :]))
        if len(used) != len(weight):
            raise ModelBroken(f"a WeightedLayerPooling for {len(weight)} layers is given {len(used)}")
        mean = torch.einsum("l,lntd->ntd", weight, used) / weight.sum()
        return features | {"token_embeddings": mean}

    return step


def _word_embeddings(module: WordEmbeddings, device: torch.device, dtype: torch.dtype) -> Step:
    """The numbers of words [n, t] become vectors [n, t, d]."""
    table = torch.tensor(module.table, dtype=dtype, device=device)
    return lambda features: features | {"token_embeddings": functional.embedding(features["input_ids"], table)}


def _word_weights(module: WordWeights, device: torch.device, dtype: torch.dtype) -> Step:
    """The vectors of words [n, t, d] times their weights."""
    weight = torch.tensor(module.weight, dtype=dtype, device=device)

    def step(features: Features) -> Features:
        ids = features["input_ids"]
        if ids.numel() and int(ids.max()) >= len(weight):
            raise ModelBroken(f"a WordWeights of {len(weight)} words is given the number {int(ids.max())}")
        weights = weight[ids] * features["attention_mask"]
        vectors = features["token_embeddings"] * weights[:, :, None]
        return features | {"token_embeddings": vectors, "token_weights_sum": weights.sum(dim=1)}

    return step


def _cnn(module: CNN, device: torch.device, dtype: torch.dtype) -> Step:
    """The vectors of words [n, t, d] become [n, t, d']. What fills a text up is made zero, so that its neighbours do not change it."""
    convolutions = [
        tuple(torch.tensor(each, dtype=dtype, device=device) for each in pair)
        for pair in zip(module.weights, module.biases, strict=True)
    ]

    def step(features: Features) -> Features:
        vectors = features["token_embeddings"]
        _check_width("CNN", convolutions[0][0].shape[1], vectors.shape[-1])
        bare = (vectors * features["attention_mask"][:, :, None].to(vectors.dtype)).transpose(1, 2)
        found = [functional.conv1d(bare, weight, bias, padding=weight.shape[2] // 2) for weight, bias in convolutions]
        return features | {"token_embeddings": torch.cat(found, dim=1).transpose(1, 2)}

    return step


def _lstm(module: LSTM, device: torch.device, dtype: torch.dtype) -> Step:
    """The vectors of words [n, t, d] become [n, t, d']."""
    network = nn.LSTM(
        module.width, module.hidden, module.layers, bidirectional=module.bidirectional, batch_first=True, device="meta"
    )
    weights = {name: torch.tensor(array, dtype=dtype, device=device) for name, array in module.tensors.items()}
    network.load_state_dict(weights, assign=True)
    network.eval().requires_grad_(requires_grad=False)

    def step(features: Features) -> Features:
        vectors = features["token_embeddings"]
        _check_width("LSTM", module.width, vectors.shape[-1])
        lengths = features["attention_mask"].sum(dim=1).clamp(min=1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False)
        found: Tensor = nn.utils.rnn.pad_packed_sequence(
            network(packed)[0], batch_first=True, total_length=vectors.shape[1]
        )[0]
        return features | {"token_embeddings": found}

    return step


STEPS: Mapping[type, Callable[[Any, torch.device, torch.dtype], Step]] = {
    CNN: _cnn,
    Dropout: _dropout,
    LSTM: _lstm,
    LogitScore: _logit_score,
    SparseAutoEncoder: _sparse_auto_encoder,
    WeightedLayerPooling: _weighted_layer_pooling,
    WordEmbeddings: _word_embeddings,
    WordWeights: _word_weights,
}
"""What makes a step of a module, by the type of its dataclass."""

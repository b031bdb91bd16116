"""Run modules with torch: each becomes a step, an ``nn.Module`` from features to features with the module's weights.

The runner, the export trace and the trainable model all run these steps. To add a module type, write its class here and
add its entry to ``STEPS``. A transformer is a step too, but is created by the caller, which has loaded its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from st_core.backends.numpy import modules as numpy_backend
from st_core.backends.torch.hybrid_score import HybridNetwork
from st_core.backends.torch.library import LoadedTransformer, TransformerInfo
from st_core.backends.torch.pooling import pool, splade, splade_from_hidden
from st_core.checkpoint.files import last_name
from st_core.errors import ModelBroken, ModelUnsupported
from st_core.modules.bm25 import BM25
from st_core.modules.bow import BoW
from st_core.modules.cnn import CNN
from st_core.modules.dense import Dense
from st_core.modules.dropout import Dropout
from st_core.modules.hybrid_score import HybridScore
from st_core.modules.layer_norm import LayerNorm
from st_core.modules.logit_score import LogitScore
from st_core.modules.lstm import LSTM
from st_core.modules.normalize import Normalize
from st_core.modules.pooling import Pooling
from st_core.modules.sparse_auto_encoder import SparseAutoEncoder
from st_core.modules.sparse_static_embedding import SparseStaticEmbedding
from st_core.modules.splade_pooling import SpladePooling
from st_core.modules.static_embedding import StaticEmbedding
from st_core.modules.transformer import Transformer
from st_core.modules.weighted_layer_pooling import WeightedLayerPooling
from st_core.modules.word_embeddings import WordEmbeddings
from st_core.modules.word_weights import WordWeights
from st_core.text.tokens import Tokens
from st_core.vectors import SparseMatrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from st_core.backends import Features
    from st_core.modules import Module

__all__ = [
    "BACKBONE",
    "STEPS",
    "FusedSpladeStep",
    "NumpyStep",
    "SparseAutoEncoderStep",
    "Step",
    "TransformerStep",
    "activation_module",
    "check_steps",
    "make_step",
    "reads_first_token",
    "with_token_ids",
]


Value = TypeVar("Value")

BACKBONE = "sentence_embedding_backbone"
"""The feature with the vectors [n, d] that a SparseAutoEncoder encodes; it is written outside of inference alone."""


class Step(nn.Module, Generic[Value]):
    """A module in torch: its weights are parameters, its forward method is a function from features to features.

    ``value`` is the frozen module that the step was created from.
    """

    is_positionwise: ClassVar[bool] = False
    """Whether the step computes each position's vector from that position's vector alone."""

    def __init__(self, value: Value) -> None:
        """Create the parameters in float32."""
        super().__init__()
        self.value = value

    def forward(self, features: Features) -> Features:
        """Return the features, extended by those that the module writes."""
        raise NotImplementedError

    def written(self) -> Value:
        """Return the module with the current weights; a module without weights is returned unchanged."""
        return self.value


def activation_module(path: str, *, trusted: bool) -> nn.Module:
    """Return an activation by its dotted path.

    Raises ModelUnsupported where the path does not exist, where it is neither the class of a torch module nor
    ``trusted``, and where it needs arguments.
    """
    package, _, name = path.rpartition(".")
    try:
        activation = getattr(import_module(package), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelUnsupported(f"unknown activation {path!r}") from error
    if not (isinstance(activation, type) and issubclass(activation, nn.Module)) and not trusted:
        raise ModelUnsupported(f"the activation {path!r} is not the class of a torch module")
    try:
        module: nn.Module = activation()
    except TypeError as error:
        raise ModelUnsupported(
            f"the activation {path!r} needs arguments, which checkpoints do not store: {error}"
        ) from error
    return module


def check_steps(modules: Sequence[Module]) -> None:
    """Raise ModelUnsupported where a module after the first of a stack cannot be run."""
    for module in modules:
        if module.reads_text or type(module) not in STEPS:
            raise ModelUnsupported(
                f"a {type(module).__name__} cannot follow another module; it can only come first in a stack"
            )
        if isinstance(module, Dense):
            _activation_of(module)


def make_step(module: Module) -> Step[Any]:
    """Return the step of a module other than a transformer; raise ModelUnsupported for a type without a step."""
    if type(module) not in STEPS:
        raise ModelUnsupported(f"torch cannot run a {type(module).__name__}")
    return STEPS[type(module)](module)


def with_token_ids(module: Module, info: TransformerInfo) -> Module:
    """Return a LogitScore with its tokens converted to ids; other modules are returned unchanged.

    Raises ModelUnsupported for a token that the tokenizer lacks, ModelBroken for an id that the model lacks.
    """
    if not isinstance(module, LogitScore):
        return module
    true, false = _token_id(module.true, info), None if module.false is None else _token_id(module.false, info)
    return replace(module, true=true, false=false)


def _token_id(token: int | str, info: TransformerInfo) -> int:
    number = info.tokenizer.shown.convert_tokens_to_ids(token) if isinstance(token, str) else token
    if number is None:
        raise ModelUnsupported(f"{info.name}: the tokenizer has no token {token!r}, whose logit is the score")
    if info.words is not None and number >= info.words:
        raise ModelBroken(f"{info.name}: a LogitScore reads token {number}, but the model has {info.words} tokens")
    return int(number)


def reads_first_token(rest: Sequence[Module], *, pad_left: bool) -> bool:
    """Return whether the modules after a transformer read only position 0 of a text.

    This is so for a classification head with no module after it, and where the only pooling mode is "cls" and every
    other module processes each position alone.
    """
    return not pad_left and all(
        (module.modes == ("cls",) and module.include_prompt)
        if isinstance(module, Pooling)
        else STEPS[type(module)].is_positionwise
        for module in rest
    )


def _parameter(array: NDArray[np.generic]) -> nn.Parameter:
    return nn.Parameter(torch.tensor(array, dtype=torch.float32))


def _optional(array: NDArray[np.generic] | None) -> nn.Parameter | None:
    return None if array is None else _parameter(array)


def _array(parameter: Tensor) -> NDArray[np.float32]:
    """Return a copy of a parameter as a numpy array."""
    return parameter.detach().float().cpu().numpy().copy()


def _optional_array(parameter: Tensor | None) -> NDArray[np.float32] | None:
    return None if parameter is None else _array(parameter)


def _check_width(module: Module, expected: int, width: int) -> None:
    if width != expected:
        raise ModelBroken(f"{last_name(module.type_path)}: expected vectors of {expected} dimensions, got {width}")


class TransformerStep(Step[Transformer]):
    """Runs a loaded transformer: from token ids to hidden states, vocabulary logits or scores."""

    def __init__(self, value: Transformer, loaded: LoadedTransformer) -> None:
        """Register the parameters of the loaded model without copying them."""
        super().__init__(value)
        self.model = loaded.model
        self.loaded = loaded
        self.adapter_base: str | None = None
        """The transformer that a trained adapter is loaded into, None if it is merged into the saved weights."""

    def forward(self, features: Features) -> Features:
        """Write the transformer's output, and the states of all layers where its configuration requests them."""
        if not self.loaded.info.has_all_layers:
            return features | {self.value.writes: self.loaded.logits(features)}
        outputs = self.loaded.outputs(features)
        return features | {self.value.writes: outputs[0], "all_layer_embeddings": outputs.hidden_states}


class FusedSpladeStep(Step[SpladePooling]):
    """Runs a transformer and the SpladePooling after it: from token ids to term weights [n, V].

    The logits are computed in blocks of the vocabulary, so that they are never all in memory.
    """

    def __init__(
        self, value: SpladePooling, loaded: LoadedTransformer, blocks: Sequence[Callable[[Tensor], Tensor]]
    ) -> None:
        """Store the transformer; each of ``blocks`` is a product with ``VOCABULARY_BLOCK`` rows of its decoder."""
        super().__init__(value)
        assert loaded.decoder is not None
        weight, bias = loaded.decoder
        self.model = loaded.model
        self.loaded = loaded
        self.blocks = list(blocks)
        self.bias = weight.new_zeros(weight.shape[0]) if bias is None else bias

    def forward(self, features: Features) -> Features:
        """Write ``sentence_embedding``."""
        hidden = self.loaded.hidden(features)
        pooled = splade_from_hidden(self.value, hidden, features["attention_mask"], self.blocks, self.bias)
        return features | {"sentence_embedding": pooled}


class PoolingStep(Step[Pooling]):
    """Pools token vectors [n, t, d] to text vectors [n, modes * d]."""

    def forward(self, features: Features) -> Features:
        """Write ``sentence_embedding``; where only the first token is read, token vectors may be [n, 1, d]."""
        vectors, mask = features["token_embeddings"], features["attention_mask"]
        if mask.shape[-1] != vectors.shape[1]:
            mask = mask.new_ones(vectors.shape[:2])
        pooled = pool(self.value, vectors, mask, features.get("prompt_length"), features.get("token_weights_sum"))
        return features | {"sentence_embedding": pooled}


class SpladePoolingStep(Step[SpladePooling]):
    """Pools vocabulary logits [n, t, V] to term weights [n, V]."""

    def forward(self, features: Features) -> Features:
        """Write ``sentence_embedding``."""
        pooled = splade(self.value, features["token_embeddings"], features["attention_mask"])
        return features | {"sentence_embedding": pooled}


def _activation_of(module: Dense) -> nn.Module:
    return activation_module(module.activation, trusted=not module.activation.startswith("torch."))


class DenseStep(Step[Dense]):
    """Maps vectors [..., in] to [..., out].

    Weights of the activation are not part of a checkpoint and are not trained.
    """

    is_positionwise = True

    def __init__(self, value: Dense) -> None:
        """Create the parameters; raise ModelUnsupported for an activation that cannot be used."""
        super().__init__(value)
        self.weight = _parameter(value.weight)
        self.bias = _optional(value.bias)
        self.residual = _optional(value.residual)
        self.activation = _activation_of(value).requires_grad_(requires_grad=False)

    def forward(self, features: Features) -> Features:
        """Write the module's output feature."""
        vectors = features[self.value.reads]
        numpy_backend.check_width(self.value, vectors.shape[-1])
        result = self.activation(functional.linear(vectors, self.weight, self.bias))
        if self.value.use_residual:
            result = result + (vectors if self.residual is None else functional.linear(vectors, self.residual))
        return features | {self.value.writes: result}

    def written(self) -> Dense:
        """Return the module with the current weights."""
        return replace(
            self.value,
            weight=_array(self.weight),
            bias=_optional_array(self.bias),
            residual=_optional_array(self.residual),
        )


class LayerNormStep(Step[LayerNorm]):
    """Normalises, scales and shifts vectors [n, d]."""

    is_positionwise = True

    def __init__(self, value: LayerNorm) -> None:
        """Create the parameters."""
        super().__init__(value)
        self.weight, self.bias = _parameter(value.weight), _parameter(value.bias)

    def forward(self, features: Features) -> Features:
        """Write ``sentence_embedding``."""
        vectors = features["sentence_embedding"]
        numpy_backend.check_width(self.value, vectors.shape[-1])
        result = functional.layer_norm(vectors, self.weight.shape, self.weight, self.bias, self.value.epsilon)
        return features | {"sentence_embedding": result}

    def written(self) -> LayerNorm:
        """Return the module with the current weights."""
        return replace(self.value, weight=_array(self.weight), bias=_array(self.bias))


class NormalizeStep(Step[Normalize]):
    """Scales vectors [..., d] to unit length."""

    is_positionwise = True

    def forward(self, features: Features) -> Features:
        """Write the module's output feature where its input is present."""
        if self.value.reads not in features:
            return features
        return features | {self.value.writes: functional.normalize(features[self.value.reads], p=2, dim=-1)}


class DropoutStep(Step[Dropout]):
    """Passes on all features, because Dropout has no effect on inference; its rate is not read."""

    is_positionwise = True

    def forward(self, features: Features) -> Features:
        """Return the features unchanged."""
        return features


class LogitScoreStep(Step[LogitScore]):
    """Converts the logits [n, t, V] of an answer to scores [n, 1]; the tokens of the module must be ids."""

    def forward(self, features: Features) -> Features:
        """Write the score of the last position."""
        logits = features[self.value.reads][:, -1]
        scores = logits[:, self.value.true]
        if self.value.false is not None:
            scores = scores - logits[:, self.value.false]
        return features | {self.value.writes: scores[:, None]}


class SparseAutoEncoderStep(Step[SparseAutoEncoder]):
    """Encodes vectors [n, d] as [n, h] with at most ``keep`` non-zero values."""

    is_positionwise = True

    def __init__(self, value: SparseAutoEncoder) -> None:
        """Create the parameters."""
        super().__init__(value)
        self.weight, self.before, self.bias = map(_parameter, (value.weight, value.before, value.bias))

    def forward(self, features: Features) -> Features:
        """Write ``sentence_embedding``; ``max_active_dims`` overrides the module's ``keep``."""
        dense = vectors = features["sentence_embedding"]
        _check_width(self.value, self.weight.shape[1], vectors.shape[-1])
        if self.value.normalize:
            vectors = vectors - vectors.mean(dim=-1, keepdim=True)
            vectors = vectors / (vectors.std(dim=-1, keepdim=True) + 1e-5)
        latent = functional.linear(vectors - self.before, self.weight, self.bias)
        keep = min(features.get("max_active_dims") or self.value.keep, latent.shape[-1])
        top = latent.topk(keep, dim=-1)
        result = torch.zeros_like(latent).scatter_(-1, top.indices, top.values).relu()
        own = {} if torch.is_inference_mode_enabled() else {BACKBONE: dense}
        return features | own | {"sentence_embedding": result}

    def written(self) -> SparseAutoEncoder:
        """Return the module with the current weights."""
        return replace(self.value, weight=_array(self.weight), before=_array(self.before), bias=_array(self.bias))


class WeightedLayerPoolingStep(Step[WeightedLayerPooling]):
    """Averages the states [n, t, d] of all layers with their weights."""

    def __init__(self, value: WeightedLayerPooling) -> None:
        """Create the parameters."""
        super().__init__(value)
        self.weight = _parameter(value.weight)

    def forward(self, features: Features) -> Features:
        """Write ``token_embeddings`` where the transformer returns the states of all layers."""
        layers = features.get("all_layer_embeddings")
        if layers is None:
            return features
        used = torch.stack(tuple(layers[self.value.start :]))
        if len(used) != len(self.weight):
            raise ModelBroken(f"WeightedLayerPooling: expected {len(self.weight)} layers, got {len(used)}")
        mean = torch.einsum("l,lntd->ntd", self.weight, used) / self.weight.sum()
        return features | {"token_embeddings": mean}

    def written(self) -> WeightedLayerPooling:
        """Return the module with the current weights."""
        return replace(self.value, weight=_array(self.weight))


class WordEmbeddingsStep(Step[WordEmbeddings]):
    """Maps word ids [n, t] to vectors [n, t, d]."""

    def __init__(self, value: WordEmbeddings) -> None:
        """Create the parameters."""
        super().__init__(value)
        self.table = _parameter(value.table)

    def forward(self, features: Features) -> Features:
        """Write ``token_embeddings``."""
        return features | {"token_embeddings": functional.embedding(features["input_ids"], self.table)}

    def written(self) -> WordEmbeddings:
        """Return the module with the current weights."""
        return replace(self.value, table=_array(self.table))


class WordWeightsStep(Step[WordWeights]):
    """Multiplies word vectors [n, t, d] by the weights of their words."""

    def __init__(self, value: WordWeights) -> None:
        """Create the parameters."""
        super().__init__(value)
        self.weight = _parameter(value.weight)

    def forward(self, features: Features) -> Features:
        """Write ``token_embeddings``, and ``token_weights_sum`` [n] for the pooling."""
        ids = features["input_ids"]
        if ids.numel() and int(ids.max()) >= len(self.weight):
            raise ModelBroken(f"WordWeights: expected word ids below {len(self.weight)}, got {int(ids.max())}")
        weights = self.weight[ids] * features["attention_mask"]
        vectors = features["token_embeddings"] * weights[:, :, None]
        return features | {"token_embeddings": vectors, "token_weights_sum": weights.sum(dim=1)}

    def written(self) -> WordWeights:
        """Return the module with the current weights, listed by word."""
        weight = _array(self.weight)
        listed = dict(zip(self.value.vocab, weight.tolist(), strict=True))
        return replace(self.value, weight=weight, listed=listed)


class CNNStep(Step[CNN]):
    """Convolves word vectors [n, t, d] to [n, t, d']; padding is set to zero and so does not affect other words."""

    def __init__(self, value: CNN) -> None:
        """Create the parameters."""
        super().__init__(value)
        self.weights = nn.ParameterList(map(_parameter, value.weights))
        self.biases = nn.ParameterList(map(_parameter, value.biases))

    def forward(self, features: Features) -> Features:
        """Write ``token_embeddings``."""
        vectors = features["token_embeddings"]
        _check_width(self.value, self.weights[0].shape[1], vectors.shape[-1])
        bare = (vectors * features["attention_mask"][:, :, None].to(vectors.dtype)).transpose(1, 2)
        parts = [
            functional.conv1d(bare, weight, bias, padding=weight.shape[2] // 2)
            for weight, bias in zip(self.weights, self.biases, strict=True)
        ]
        return features | {"token_embeddings": torch.cat(parts, dim=1).transpose(1, 2)}

    def written(self) -> CNN:
        """Return the module with the current weights."""
        return replace(self.value, weights=tuple(map(_array, self.weights)), biases=tuple(map(_array, self.biases)))


class LSTMStep(Step[LSTM]):
    """Runs the recurrent network on word vectors [n, t, d]; the result is [n, t, d']."""

    def __init__(self, value: LSTM) -> None:
        """Create the parameters."""
        super().__init__(value)
        self.network = nn.LSTM(
            value.width, value.hidden, value.layers, bidirectional=value.bidirectional, batch_first=True, device="meta"
        )
        weights = {name: torch.tensor(array, dtype=torch.float32) for name, array in value.tensors.items()}
        self.network.load_state_dict(weights, assign=True)

    def forward(self, features: Features) -> Features:
        """Write ``token_embeddings``; the states of padding are zeros."""
        vectors = features["token_embeddings"]
        _check_width(self.value, self.value.width, vectors.shape[-1])
        lengths = features["attention_mask"].sum(dim=1).clamp(min=1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False)
        states, _ = nn.utils.rnn.pad_packed_sequence(
            self.network(packed)[0], batch_first=True, total_length=vectors.shape[1]
        )
        return features | {"token_embeddings": states}

    def written(self) -> LSTM:
        """Return the module with the current weights."""
        return replace(self.value, tensors={name: _array(value) for name, value in self.network.named_parameters()})


class StaticEmbeddingStep(Step[StaticEmbedding]):
    """Averages the vectors of token ids [n, t] to [n, d]; the table has one row per token, with the scale applied."""

    def __init__(self, value: StaticEmbedding) -> None:
        """Create one vector per token; a table that several tokens share by a mapping is expanded."""
        super().__init__(value)
        table = value.table.astype(np.float32)
        table = table if value.mapping is None else table[value.mapping]
        self.table = _parameter(table if value.scale is None else table * value.scale[:, None])

    def forward(self, features: Features) -> Features:
        """Write ``sentence_embedding``; a text without tokens gets zeros."""
        mask = features["attention_mask"].bool()
        lengths = mask.sum(dim=1)
        vectors = functional.embedding_bag(
            features["input_ids"][mask], self.table, lengths.cumsum(dim=0) - lengths, mode="mean"
        )
        return features | {"sentence_embedding": vectors}

    def written(self) -> StaticEmbedding:
        """Return the module with the current vectors, one per token."""
        return replace(self.value, table=_array(self.table), mapping=None, scale=None)


class SparseStaticEmbeddingStep(Step[SparseStaticEmbedding]):
    """Returns, for token ids [n, t], the weights [n, V] of the tokens that occur."""

    def __init__(self, value: SparseStaticEmbedding) -> None:
        """Create the parameters."""
        super().__init__(value)
        self.weight = _parameter(value.weight)

    def forward(self, features: Features) -> Features:
        """Write ``sentence_embedding``; negative weights are included here and dropped from sparse results."""
        ids, mask = features["input_ids"], features["attention_mask"]
        occurs = mask.new_zeros((len(ids), len(self.weight))).scatter_reduce_(1, ids, mask, "amax")
        return features | {"sentence_embedding": occurs * self.weight}

    def written(self) -> SparseStaticEmbedding:
        """Return the module with the current weights."""
        return replace(self.value, weight=_array(self.weight))


class NumpyStep(Step[Any]):
    """Runs the first module of a stack with numpy; modules without trainable weights have no other step.

    The runner uses it for every first module that numpy can run, because numpy computes one text at a time and the
    vectors of one text fit into the processor cache.
    """

    def forward(self, features: Features) -> Features:
        """Write ``sentence_embedding`` on the device of the token ids."""
        ids = features["input_ids"]
        if "tokens" not in features:
            features = features | {"tokens": _tokens_of(ids, features["attention_mask"])}
        value = numpy_backend.run_module(self.value, features)[self.value.writes]
        dense = value.to_dense() if isinstance(value, SparseMatrix) else value
        return features | {"sentence_embedding": torch.from_numpy(dense).to(ids.device)}


class HybridScoreStep(Step[HybridScore]):
    """Scores pairs by shared words and by the cosine of their vectors."""

    def __init__(self, value: HybridScore) -> None:
        """Create the parameters."""
        super().__init__(value)
        self.network = HybridNetwork(value)

    def forward(self, features: Features) -> Features:
        """Write ``scores`` [n, 1]; the texts of a pair are told apart by ``token_type_ids``."""
        rows = [features[name] for name in ("input_ids", "token_type_ids")]
        ids, types = (_tokens_of(row, features["attention_mask"]).ids for row in rows)
        return features | {"scores": self.network(Tokens(ids, types))}

    def written(self) -> HybridScore:
        """Return the module with the current weights."""
        return self.network.written()


def _tokens_of(ids: Tensor, mask: Tensor) -> Tokens:
    """Return the token ids of each text without padding."""
    return Tokens([row[real].to(torch.int32).cpu().numpy() for row, real in zip(ids, mask.bool(), strict=True)])


STEPS: dict[type[Module], type[Step[Any]]] = {
    BM25: NumpyStep,
    BoW: NumpyStep,
    CNN: CNNStep,
    Dense: DenseStep,
    Dropout: DropoutStep,
    HybridScore: HybridScoreStep,
    LSTM: LSTMStep,
    LayerNorm: LayerNormStep,
    LogitScore: LogitScoreStep,
    Normalize: NormalizeStep,
    Pooling: PoolingStep,
    SparseAutoEncoder: SparseAutoEncoderStep,
    SparseStaticEmbedding: SparseStaticEmbeddingStep,
    SpladePooling: SpladePoolingStep,
    StaticEmbedding: StaticEmbeddingStep,
    WeightedLayerPooling: WeightedLayerPoolingStep,
    WordEmbeddings: WordEmbeddingsStep,
    WordWeights: WordWeightsStep,
}
"""The step of each module type that torch runs; a package that defines further module types adds their entries."""

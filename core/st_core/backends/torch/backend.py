"""Runs stacks of modules with torch, and transformers where one begins with a transformer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from st_core.backends import StackInfo
from st_core.backends.numpy import modules as numpy_backend
from st_core.backends.padding import mixes_padding
from st_core.backends.torch.encoder import accelerated, first_as_in_whole, reads_first_token
from st_core.backends.torch.known import load_known
from st_core.backends.torch.library import LoadedTransformer, load_transformer
from st_core.backends.torch.modules import STEPS, Step
from st_core.backends.torch.pooling import pool, splade, splade_from_hidden, vocabulary_blocks
from st_core.backends.torch.runner import TorchRunner
from st_core.backends.vocabulary_bounds import words_of
from st_core.errors import ModelBroken, ModelUnsupported
from st_core.modules.dense import Dense
from st_core.modules.layer_norm import LayerNorm
from st_core.modules.logit_score import LogitScore
from st_core.modules.normalize import Normalize
from st_core.modules.pooling import Pooling
from st_core.modules.splade_pooling import SpladePooling
from st_core.modules.transformer import Transformer
from st_core.vectors import SparseMatrix

if TYPE_CHECKING:
    from st_core.backends import Features
    from st_core.modules import Module, TextModule

__all__ = ["TorchBackend", "TorchRunner", "pick_device"]

CPU_TOKENS = 1_024
"""Measured on two cores: fastest between 512 and 2,048 for six- and twelve-layer models; see bench/."""

GPU_TOKENS = 65_536
"""Enough to fill a card; out of memory halves it."""


def pick_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or CUDA where there is one, or the CPU."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"{device!r} names no device; expected cpu, cuda, cuda:1 or another of torch's") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"there is no device {device!r}: torch finds {torch.cuda.device_count()} CUDA devices")
    return found


def activation_module(path: str, *, trusted: bool) -> nn.Module:
    """An activation by its dotted path; raises ModelUnsupported unless it is a torch module's class or code is trusted."""
    from importlib import import_module

    where, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(where), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelUnsupported(f"there is no activation {path!r}") from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)) and not trusted:
        raise ModelUnsupported(f"the activation {path!r} is not the class of a torch module")
    try:
        made: nn.Module = found()
    except TypeError as error:
        raise ModelUnsupported(
            f"the activation {path!r} needs settings, which checkpoints do not hold: {error}"
        ) from error
    return made


class TorchBackend:
    """Prepares modules for one device and one type, each module once; what it prepares is never changed after."""

    def __init__(self, device: torch.device, dtype: str | torch.dtype | None, *, pack: bool = True) -> None:
        """``dtype`` None means float32 on the CPU, and the checkpoint's own type elsewhere; ``pack`` lets oneDNN lay out weights anew."""
        self.device = device
        self.dtype = dtype
        self.pack = pack
        self._loaded: dict[int, LoadedTransformer] = {}
        self._kept: list[Module] = []

    def transformer(self, module: Transformer) -> LoadedTransformer:
        """The loaded weights of a transformer, loaded when first asked for."""
        key = id(module)
        if key not in self._loaded:
            known = load_known(module, self.device, self.dtype, pack=self.pack)
            self._loaded[key] = known or self._accelerated(module, load_transformer(module, self.device, self.dtype))
            self._kept.append(module)
        return self._loaded[key]

    def _accelerated(self, module: Transformer, loaded: LoadedTransformer) -> LoadedTransformer:
        if "device_map" in module.model_kwargs:  # the library moves tensors between devices itself
            return loaded
        first_only = module.task == "sequence-classification" and not loaded.tokenizer.pad_left
        pad_id = loaded.tokenizer.pad_id
        model = accelerated(loaded.model, loaded.inputs, pad_id, first_only=first_only, pack=self.pack)
        return replace(loaded, model=model)

    def runner(self, modules: Sequence[Module]) -> TorchRunner:
        """A stack ready to run."""
        first = modules[0]
        if not isinstance(first, Transformer):
            return self._static_runner(modules)
        loaded = self.transformer(first)
        dtype = loaded.dtype
        steps: list[Step] = []
        rest = list(modules[1:])
        if rest and isinstance(rest[0], SpladePooling) and loaded.decoder is not None:
            steps.append(_fused_splade(loaded, rest[0], pack=self.pack))
            del rest[0]
        else:
            steps.append(_transformer_step(loaded, first.writes))
        steps += [self.step(_numbered(module, loaded), dtype) for module in rest]
        labels = int(getattr(loaded.model.config, "num_labels", 1))
        info = StackInfo(
            loaded.tokenizer,
            loaded.max_length,
            str(dtype).removeprefix("torch."),
            token_budget=self._budget(),
            device=str(self.device),
            positions=loaded.positions,
            vocabulary=words_of(loaded.model),
            labels=labels,
        )
        runner = TorchRunner(tuple(steps), info, self.device, self._pooled_steps(loaded, first, rest, steps))
        return replace(runner, has_equal_lengths=mixes_padding(runner, first.config.get("model_type")))

    def _pooled_steps(
        self, loaded: LoadedTransformer, first: Transformer, rest: Sequence[Module], steps: Sequence[Step]
    ) -> tuple[Step, ...]:
        """The steps that end in the same vectors with less to compute, where pooling looks at the first token alone; else none."""
        pooled = any(isinstance(module, Pooling) for module in rest)
        if not (pooled and reads_first_token(rest, pad_left=loaded.tokenizer.pad_left)):
            return ()
        if not first_as_in_whole(loaded.model, loaded.inputs, loaded.tokenizer.pad_id):
            return ()
        return (lambda features: features | {first.writes: loaded.outputs(features, first_only=True)[0]}, *steps[1:])

    def _static_runner(self, modules: Sequence[Module]) -> TorchRunner:
        first = cast("TextModule", modules[0])

        def start(features: Features) -> Features:
            found = numpy_backend.run_module(first, features)["sentence_embedding"]
            dense = found.to_dense() if isinstance(found, SparseMatrix) else found
            return features | {"sentence_embedding": torch.from_numpy(dense).to(self.device)}

        begin = STEPS[type(first)](first, self.device, torch.float32) if type(first) in STEPS else start
        steps = (begin, *(self.step(module, torch.float32) for module in modules[1:]))
        budget, device = self._budget(), str(self.device)
        info = StackInfo(first.tokenizer, first.max_length, token_budget=budget, device=device)
        return TorchRunner(steps, info, self.device)

    def _budget(self) -> int:
        return CPU_TOKENS if self.device.type == "cpu" else GPU_TOKENS

    def _tensor(self, array: Any, dtype: torch.dtype) -> Tensor | None:
        return None if array is None else torch.tensor(array, dtype=dtype, device=self.device)

    def step(self, module: Module, dtype: torch.dtype) -> Step:
        """What runs a module behind the first of a stack; raises ModelUnsupported for one that can only come first."""
        match module:
            case Pooling():
                return _pooling_step(module)
            case SpladePooling():
                return _splade_step(module)
            case Dense():
                return self._dense_step(module, dtype)
            case LayerNorm():
                return self._layer_norm_step(module, dtype)
            case Normalize():
                return _normalize_step(module)
            case _ if type(module) in STEPS:
                return STEPS[type(module)](module, self.device, dtype)
        raise ModelUnsupported(
            f"a {type(module).__name__} cannot follow another module; it can only come first in a stack"
        )

    def _dense_step(self, module: Dense, dtype: torch.dtype) -> Step:
        weight, bias = self._tensor(module.weight, dtype), self._tensor(module.bias, dtype)
        residual = self._tensor(module.residual, dtype)
        activation = activation_module(module.activation, trusted=not module.activation.startswith("torch."))
        activation = activation.to(self.device).eval()

        def step(features: Features) -> Features:
            vectors = features[module.reads]
            assert weight is not None
            numpy_backend.check_width(module, vectors.shape[-1])
            result = activation(functional.linear(vectors, weight, bias))
            if module.use_residual:
                result = result + (vectors if residual is None else functional.linear(vectors, residual))
            return features | {module.writes: result}

        return step

    def _layer_norm_step(self, module: LayerNorm, dtype: torch.dtype) -> Step:
        weight, bias = self._tensor(module.weight, dtype), self._tensor(module.bias, dtype)

        def step(features: Features) -> Features:
            vectors = features["sentence_embedding"]
            numpy_backend.check_width(module, vectors.shape[-1])
            result = functional.layer_norm(vectors, module.weight.shape, weight, bias, module.epsilon)
            return features | {"sentence_embedding": result}

        return step


def _transformer_step(loaded: LoadedTransformer, writes: str) -> Step:
    if not getattr(loaded.model.config, "output_hidden_states", False):
        return lambda features: features | {writes: loaded.forward(features)}

    def step(features: Features) -> Features:
        found = loaded.outputs(features)
        return features | {writes: found[0], "all_layer_embeddings": found.hidden_states}

    return step


def _fused_splade(loaded: LoadedTransformer, module: SpladePooling, *, pack: bool) -> Step:
    assert loaded.decoder is not None
    weight, found = loaded.decoder
    bias = weight.new_zeros(weight.shape[0]) if found is None else found
    blocks = vocabulary_blocks(weight, pack=pack)

    def step(features: Features) -> Features:
        mask = features["attention_mask"]
        pooled = splade_from_hidden(module, loaded.hidden(features), mask, blocks, bias)
        pooled *= mask.any(dim=1, keepdim=True)  # a text without tokens has no terms
        return features | {"sentence_embedding": pooled}

    return step


def _splade_step(module: SpladePooling) -> Step:
    def step(features: Features) -> Features:
        pooled = splade(module, features["token_embeddings"], features["attention_mask"])
        return features | {"sentence_embedding": pooled}

    return step


def _pooling_step(module: Pooling) -> Step:
    def step(features: Features) -> Features:
        vectors = features["token_embeddings"]
        mask = features["attention_mask"]
        if mask.shape[-1] != vectors.shape[1]:
            mask = mask.new_ones(vectors.shape[:2])
        pooled = pool(module, vectors, mask, features.get("prompt_length"), features.get("token_weights_sum"))
        return features | {"sentence_embedding": pooled}

    return step


def _numbered(module: Module, loaded: LoadedTransformer) -> Module:
    """A LogitScore with the numbers of its tokens; other modules as they are. Raises ModelUnsupported for a token that is none."""
    if not isinstance(module, LogitScore):
        return module
    model: Any = loaded.model
    shown, size = loaded.tokenizer.shown, int(model.config.get_text_config().vocab_size)
    numbers: list[int | None] = []
    for token in (module.true, module.false):
        number = shown.convert_tokens_to_ids(token) if isinstance(token, str) else token
        if number is None and token is not None:
            raise ModelUnsupported(f"the tokenizer has no token {token!r}, which the score is made of")
        if number is not None and number >= size:
            raise ModelBroken(f"a LogitScore reads the token {number}, but the model knows only {size}")
        numbers.append(number)
    assert numbers[0] is not None
    return replace(module, true=numbers[0], false=numbers[1])


def _normalize_step(module: Normalize) -> Step:
    def step(features: Features) -> Features:
        if module.reads not in features:
            return features
        return features | {module.writes: functional.normalize(features[module.reads], p=2, dim=-1)}

    return step

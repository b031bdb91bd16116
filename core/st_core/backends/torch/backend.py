"""Run stacks of modules with torch; a stack that begins with a transformer needs the transformers library too."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from st_core.backends import StackInfo
from st_core.backends.apart import call_apart
from st_core.backends.numpy import modules as numpy_backend
from st_core.backends.padding import mixes_padding
from st_core.backends.torch.encoder import accelerate, has_same_first_token
from st_core.backends.torch.known import load_known
from st_core.backends.torch.library import (
    LoadedTransformer,
    PendingTransformer,
    library_model,
    load_transformer,
    named_errors,
    split_decoder,
)
from st_core.backends.torch.modules import (
    FusedSpladeStep,
    NumpyStep,
    Step,
    TransformerStep,
    activation_module,
    check_steps,
    make_step,
    reads_first_token,
    with_token_ids,
)
from st_core.backends.torch.once import Once
from st_core.backends.torch.products import vocabulary_blocks
from st_core.backends.torch.runner import Program, Run, TorchRunner
from st_core.modules.pooling import Pooling
from st_core.modules.splade_pooling import SpladePooling
from st_core.modules.transformer import Transformer

if TYPE_CHECKING:
    from st_core.modules import Module, TextModule

__all__ = ["TorchBackend", "TorchRunner", "activation_module", "pick_device"]

logger = logging.getLogger(__name__)

CPU_TOKENS = 1_024
"""Tokens per batch on the CPU.

Measured on two cores: batches of 512 to 2,048 tokens are fastest for six- and twelve-layer models; see bench/.
"""

GPU_TOKENS = 65_536
"""Tokens per batch on a GPU: enough to occupy it; when memory runs out, the batch is halved."""


def pick_device(device: str | torch.device | None) -> torch.device:
    """Return the requested device; the default is CUDA where it is available, else the CPU.

    Raises ValueError for an unknown device.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        known = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"unknown device {device!r}; expected cpu, cuda, cuda:1 or another of torch's") from error
    if known.type == "cuda" and (known.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"no device {device!r}: torch sees {torch.cuda.device_count()} CUDA devices")
    return known


class TorchBackend:
    """Loads modules for one device and one dtype, each transformer once, and prepares stacks on first use."""

    def __init__(self, device: torch.device, dtype: str | torch.dtype | None, *, pack: bool = True) -> None:
        """Store the settings.

        ``dtype`` None means float32 on the CPU, and the dtype of the checkpoint elsewhere. ``pack`` lets oneDNN
        rearrange weights into its own memory layout.
        """
        self.device = device
        self.dtype = dtype
        self.pack = pack
        self._transformers: dict[int, tuple[Transformer, PendingTransformer]] = {}
        self._library: dict[int, tuple[Transformer, nn.Module]] = {}

    def transformer(self, module: Transformer) -> PendingTransformer:
        """Return a transformer whose files have been read; a module is read only once."""
        if id(module) not in self._transformers:
            load = partial(self._load, module)
            is_here = self.device.type == "cpu" and "device_map" not in module.model_kwargs
            self._transformers[id(module)] = module, call_apart(load) if is_here else load()
        return self._transformers[id(module)][1]

    def share(self, loaded: Transformer, module: Transformer) -> None:
        """Use the weights of a transformer for another one that differs only in its settings."""
        self._transformers[id(module)] = module, self.transformer(loaded)

    def library_model(self, module: Transformer) -> nn.Module:
        """Return a transformer as the object of transformers, a second copy of the weights that is loaded once."""
        if id(module) not in self._library:
            self._library[id(module)] = module, library_model(module, self.device, self.dtype)
        return self._library[id(module)][1]

    def _load(self, module: Transformer) -> PendingTransformer:
        known = load_known(module, self.device, self.dtype, pack=self.pack)
        return self._from_library(module) if known is None else self._with_fallback(module, known)

    def _with_fallback(self, module: Transformer, known: PendingTransformer) -> PendingTransformer:
        """Return a transformer that the transformers library loads after all where preparing it here fails."""

        def ready() -> LoadedTransformer:
            try:
                return known.ready()
            except Exception as error:  # noqa: BLE001 - a fast pass that cannot be built must not keep a model from use
                logger.info("%s: loaded by transformers, because of %s: %s", module.folder, type(error).__name__, error)
                return self._from_library(module).ready()

        return PendingTransformer(known.info, Once(ready))

    def _from_library(self, module: Transformer) -> PendingTransformer:
        loaded = load_transformer(module, self.device, self.dtype)
        is_placed = "device_map" in module.model_kwargs  # transformers moves the tensors itself
        return PendingTransformer(
            loaded.info, Once(partial(_evaluation_form, loaded, pack=self.pack, fast=not is_placed))
        )

    def runner(self, modules: Sequence[Module]) -> TorchRunner:
        """Return the runner of a stack whose files have been read; it is prepared on first use, or by ``prepare``.

        Raises ModelUnsupported for modules that torch cannot run in this order.
        """
        first, *rest = modules
        if not isinstance(first, Transformer):
            return self._static_runner(cast("TextModule", first), rest)
        pending = self.transformer(first)
        info = pending.info
        rest = [with_token_ids(module, info) for module in rest]
        check_steps(rest)
        stack = StackInfo(
            info.tokenizer,
            info.max_length,
            str(info.dtype).removeprefix("torch."),
            token_budget=self._token_budget(),
            device=str(self.device),
            positions=info.positions,
            vocabulary=info.words,
            labels=info.labels,
        )
        runner = TorchRunner(Once(partial(self._transformer_program, first, pending, rest)), stack, self.device)
        return replace(runner, mixes_padding=Once(partial(mixes_padding, runner, first.model_type)))

    def _transformer_program(self, first: Transformer, pending: PendingTransformer, rest: Sequence[Module]) -> Program:
        with named_errors(pending.info.name, "the model cannot be run"), torch.inference_mode():
            loaded = pending.ready()
            modules = list(rest)
            if modules and isinstance(modules[0], SpladePooling) and loaded.decoder is not None:
                blocks = vocabulary_blocks(loaded.decoder[0], pack=self.pack)
                start: Run = FusedSpladeStep(modules[0], loaded, blocks)
                del modules[0]
            else:
                start = TransformerStep(first, loaded)
            rest_of_steps = [self._step(make_step(module), loaded.info.dtype) for module in modules]
            steps: tuple[Run, ...] = (start, *rest_of_steps)
            return Program(steps, self._first_token_steps(first, loaded, rest, steps))

    def _first_token_steps(
        self, first: Transformer, loaded: LoadedTransformer, rest: Sequence[Module], steps: tuple[Run, ...]
    ) -> tuple[Run, ...]:
        """Return steps that compute the same vectors from the first token alone; no steps if other tokens are read."""
        pools = any(isinstance(module, Pooling) for module in rest)
        if not (pools and reads_first_token(rest, pad_left=loaded.info.tokenizer.pad_left)):
            return ()
        if not has_same_first_token(loaded.model, loaded.info.inputs, loaded.info.tokenizer.pad_id):
            return ()
        return (lambda features: features | {first.writes: loaded.outputs(features, first_only=True)[0]}, *steps[1:])

    def _static_runner(self, first: TextModule, rest: Sequence[Module]) -> TorchRunner:
        check_steps(rest)
        info = StackInfo(first.tokenizer, first.max_length, token_budget=self._token_budget(), device=str(self.device))
        return TorchRunner(Once(partial(self._static_program, first, rest)), info, self.device)

    def _static_program(self, first: Module, rest: Sequence[Module]) -> Program:
        with torch.inference_mode():
            start = NumpyStep(first) if numpy_backend.can_run([first]) else make_step(first)
            return Program(tuple(self._step(step, torch.float32) for step in (start, *map(make_step, rest))))

    def _step(self, step: Step[Any], dtype: torch.dtype) -> Step[Any]:
        return step.to(self.device, dtype).eval()

    def _token_budget(self) -> int:
        return CPU_TOKENS if self.device.type == "cpu" else GPU_TOKENS


def _evaluation_form(loaded: LoadedTransformer, *, pack: bool, fast: bool) -> LoadedTransformer:
    """Return a transformers model ready for inference.

    A masked language model is split before its vocabulary matrix, and with ``fast`` the faster forward pass is used
    where the results are equal.
    """
    info = loaded.info
    if info.task == "fill-mask":
        loaded = split_decoder(loaded)
    if not fast:
        return loaded
    first_only = info.task == "sequence-classification" and not info.tokenizer.pad_left
    model = accelerate(loaded.model, info.inputs, info.tokenizer.pad_id, first_only=first_only, pack=pack)
    return replace(loaded, model=model)

"""Run stacks of modules with torch, and with transformers where one begins with a transformer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch

from st_core.backends import StackInfo
from st_core.backends.numpy import modules as numpy_backend
from st_core.backends.padding import mixes_padding
from st_core.backends.torch.encoder import accelerate, has_same_first_token
from st_core.backends.torch.known import load_known
from st_core.backends.torch.library import (
    LoadedTransformer,
    PendingTransformer,
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

CPU_TOKENS = 1_024
"""Measured on two cores: fastest between 512 and 2,048 for six- and twelve-layer models; see bench/."""

GPU_TOKENS = 65_536
"""Enough to fill a card; running out of memory halves it."""


def pick_device(device: str | torch.device | None) -> torch.device:
    """Return the requested device, or by default CUDA where there is a card, else the CPU.

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
    """Loads modules for one device and one dtype, each transformer once, and prepares stacks at first use."""

    def __init__(self, device: torch.device, dtype: str | torch.dtype | None, *, pack: bool = True) -> None:
        """``dtype`` None means float32 on the CPU, and the checkpoint's own dtype elsewhere.

        ``pack`` lets oneDNN lay out weights anew.
        """
        self.device = device
        self.dtype = dtype
        self.pack = pack
        self._transformers: dict[int, tuple[Transformer, PendingTransformer]] = {}

    def transformer(self, module: Transformer) -> PendingTransformer:
        """Return a transformer with its files read; each module is read once."""
        if id(module) not in self._transformers:
            known = load_known(module, self.device, self.dtype, pack=self.pack)
            self._transformers[id(module)] = module, known or self._from_library(module)
        return self._transformers[id(module)][1]

    def _from_library(self, module: Transformer) -> PendingTransformer:
        loaded = load_transformer(module, self.device, self.dtype)
        is_placed = "device_map" in module.model_kwargs  # the library moves tensors between devices itself
        return PendingTransformer(
            loaded.info, Once(partial(_evaluation_form, loaded, pack=self.pack, fast=not is_placed))
        )

    def runner(self, modules: Sequence[Module]) -> TorchRunner:
        """Return a stack whose files are read; what it computes is prepared at first use, or by ``prepare``.

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
        """Return steps that give the same vectors from the first token alone; none where more than it is read."""
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
    """Return a model of the library ready for inference: before its vocabulary matrix, in the faster forward pass."""
    info = loaded.info
    if info.task == "fill-mask":
        loaded = split_decoder(loaded)
    if not fast:
        return loaded
    first_only = info.task == "sequence-classification" and not info.tokenizer.pad_left
    model = accelerate(loaded.model, info.inputs, info.tokenizer.pad_id, first_only=first_only, pack=pack)
    return replace(loaded, model=model)

"""Convert a model to a differentiable ``nn.Module`` of the steps that the runner uses, and back to modules.

:func:`trainable` loads the modules with parameters; :meth:`Trainable.written` returns modules with the trained weights,
which can be loaded, saved and used like any others.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from st_core.backends.torch.adapters import has_adapter, save_adapted
from st_core.backends.torch.fused_head import FusedHead, fused_head
from st_core.backends.torch.hush import hushed
from st_core.backends.torch.library import TransformerInfo, load_transformer
from st_core.backends.torch.modules import SpladePoolingStep, Step, TransformerStep, make_step, with_token_ids
from st_core.backends.torch.recomputed import recompute_activations
from st_core.backends.torch.shared_embedding import accepting_sparse_gradients, make_shareable
from st_core.backends.torch.writing import writing_on_every_rank
from st_core.checkpoint.files import read_object
from st_core.modules.router import Router
from st_core.modules.transformer import Transformer, copied_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from st_core.backends import Features
    from st_core.modules import Module

__all__ = ["Trainable", "trainable"]

_WEIGHTS = (".safetensors", ".bin", ".index.json")
"""Endings of files with weights, which training replaces."""


def trainable(
    modules: Sequence[Module], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Trainable:
    """Load modules as one differentiable ``nn.Module`` in evaluation mode, with parameters of a dtype.

    Raises the errors of loading the modules with torch, and ImportError without transformers for a model with a
    transformer.
    """
    return Trainable(modules, torch.device(device), dtype).to(device, dtype).eval()


class RouterStep(nn.Module):
    """The steps of a router, by route."""

    def __init__(self, value: Router, routes: dict[str, list[nn.Module]]) -> None:
        """Register the steps of each route; a step that two routes share is the same object in both."""
        super().__init__()
        self.value = value
        self.routes = nn.ModuleDict({name: nn.ModuleList(steps) for name, steps in routes.items()})

    def route(self, task: str | None) -> nn.ModuleList:
        """Return the steps of a task; raise ValueError for a task without a route."""
        stack = self.value.resolve(task)
        name = next(name for name, each in self.value.routes.items() if each is stack)
        steps = self.routes[name]
        assert isinstance(steps, nn.ModuleList)
        return steps


class Trainable(nn.Module):
    """The modules of a model as steps with parameters; in training mode the dropout of transformers is active."""

    def __init__(self, modules: Sequence[Module], device: torch.device, dtype: torch.dtype) -> None:
        """Load the modules; see :func:`trainable`."""
        super().__init__()
        self._device, self._dtype = device, dtype
        self._steps: dict[int, nn.Module] = {}
        self._heads: dict[int, FusedHead] = {}
        self._tables: list[Any] = []
        self._info: TransformerInfo | None = None
        self.leaves_out_padding: bool | None = None
        """Whether the layers of all transformers compute no padding on the CPU; None without a transformer."""
        self.values = tuple(modules)
        self.steps = nn.ModuleList(self._step(module) for module in modules)

    def forward(self, features: Features, task: str | None = None) -> Features:
        """Compute the features of a batch, differentiable with respect to all parameters.

        ``features`` are tensors: ``input_ids`` and ``attention_mask`` [n, t], ``token_type_ids`` [n, t] where the
        tokenizer produces them, and ``prompt_length``, one number or [n], where pooling leaves out prompts. ``task``
        selects the routes of routers. The result contains ``sentence_embedding`` or ``scores`` in addition to earlier
        features.
        """
        return self._run(self.steps, dict(features), task)

    @contextmanager
    def shared_embeddings(self) -> Iterator[None]:
        """Add up the gradients of all uses of a word table inside the block, and make one matrix of the sum.

        The gradients are the same. Inside the block the heads of SPLADE models have a screen, where that is faster;
        weights must not change there. This is for several batches on the CPU; it has no effect on other devices,
        and where no gradients are computed.
        """
        tables = [each for each in self._tables if each.weight.device.type == "cpu" and each.weight.requires_grad]
        weights = {id(each.weight): each.weight for each in tables if torch.is_grad_enabled()}
        shared = {key: accepting_sparse_gradients(weight) for key, weight in weights.items()}
        heads = [each for each in self._heads.values() if id(each.decoder.weight) in weights]
        try:
            for each in tables:
                each.shared = shared.get(id(each.weight))
            for head in heads:
                head.prepare()
            yield
        finally:
            for each in tables:
                each.shared = None
            for head in heads:
                head.decoder.screen = None

    def written(self, folder: Path) -> tuple[Module, ...]:
        """Return the modules with the current weights.

        The weights of transformers are written to files: each transformer gets its own folder below ``folder``, with
        its configuration and tokenizer, and the returned module reads that folder. Other modules contain their weights
        as arrays.
        """
        written: dict[int, Module] = {}
        for module in self.values:
            self._write(module, folder, written)
        return tuple(written[id(module)] for module in self.values)

    def _run(self, steps: nn.ModuleList, features: Features, task: str | None) -> Features:
        """Run steps; a transformer and the SpladePooling after it are one operation, where that is possible."""
        remaining = list(steps)
        while remaining:
            step, *remaining = remaining
            if isinstance(step, RouterStep):
                features = self._run(step.route(task), features, task)
            elif self._is_fused(step, remaining):
                features = self._fused(step, remaining.pop(0), features)
            else:
                features = step(features)
        return features

    def _is_fused(self, step: nn.Module, following: Sequence[nn.Module]) -> bool:
        pools = following and isinstance(following[0], SpladePoolingStep) and not following[0].value.summed
        return bool(pools) and id(step) in self._heads

    def _fused(self, step: Any, pooling: Any, features: Features) -> Features:
        head = self._heads[id(step)]
        states = head.states(lambda: step.loaded.hidden(features))
        return features | {"sentence_embedding": head.pooled(pooling.value, states, features["attention_mask"])}

    def _step(self, module: Module) -> nn.Module:
        """Return the step of a module; a module that occurs several times has a single step."""
        if id(module) not in self._steps:
            self._steps[id(module)] = self._make(module)
        return self._steps[id(module)]

    def _make(self, module: Module) -> nn.Module:
        if isinstance(module, Router):
            routes = {name: [self._step(each) for each in stack] for name, stack in module.routes.items()}
            return RouterStep(module, routes)
        if isinstance(module, Transformer):
            loaded = load_transformer(module, self._device, self._dtype)
            self._info = loaded.info
            loaded.model.requires_grad_(requires_grad=True)
            from st_core.backends.torch.unpadded import leave_out_padding  # needs transformers

            is_unpadded = leave_out_padding(loaded.model) and not loaded.info.tokenizer.pad_left
            self.leaves_out_padding = is_unpadded and self.leaves_out_padding is not False
            recompute_activations(loaded.model)
            step = TransformerStep(module, loaded)
            head = fused_head(loaded.model) if loaded.info.task == "fill-mask" else None
            if head is not None:
                self._heads[id(step)] = head
            tables = make_shareable(loaded.model), None if head is None else head.decoder
            self._tables += [each for each in tables if each is not None]
            return step
        return make_step(module if self._info is None else with_token_ids(module, self._info))

    def _write(self, module: Module, folder: Path, written: dict[int, Module]) -> Module:
        """Return a module with the current weights; each transformer is written once."""
        if id(module) in written:
            return written[id(module)]
        step = self._steps[id(module)]
        if isinstance(module, Router):
            routes = {
                name: tuple(self._write(each, folder, written) for each in stack)
                for name, stack in module.routes.items()
            }
            written[id(module)] = replace(module, routes=routes)
        elif isinstance(step, TransformerStep):
            written[id(module)] = save_transformer(step, folder / f"transformer_{_count(written.values())}")
        else:
            assert isinstance(step, Step)
            written[id(module)] = step.written()
        return written[id(module)]


def _count(modules: Iterable[Module]) -> int:
    return sum(isinstance(module, Transformer) for module in modules)


def save_transformer(step: TransformerStep, folder: Path) -> Transformer:
    """Write a transformer with its current weights to a new folder and return the module that reads it.

    The transformers library writes configuration and weights; the tokenizer's files are copied. An adapter of the
    checkpoint has already been merged into the weights; one that is trained is written as such if it can be loaded.
    """
    module: Transformer = step.value
    model: PreTrainedModel = step.model
    if folder.exists():
        raise FileExistsError(f"{folder}: exists already; trained weights go into a new folder")
    folder.mkdir(parents=True)
    if has_adapter(model):
        return _save_adapted(step, folder)
    with hushed(), writing_on_every_rank(model):
        # The original names of a merged model are those of its adapter.
        model.save_pretrained(str(folder), save_original_format=module.base is None)
    _copy_others(module, folder)
    return replace(module, folder=folder, base=None, config=read_object(folder / "config.json"))


def _save_adapted(step: TransformerStep, folder: Path) -> Transformer:
    module: Transformer = step.value
    is_adapter = save_adapted(step, folder)
    _copy_others(module, folder)
    if is_adapter:
        (folder / "config.json").unlink(missing_ok=True)  # that of the base model
        return replace(module, folder=folder, base=module.folder)
    return replace(module, folder=folder, base=None, config=read_object(folder / "config.json"))


def _copy_others(module: Transformer, folder: Path) -> None:
    """Copy the files of a transformer other than weights that are not yet in a folder."""
    for path in _other_files(module):
        if not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)


def _other_files(module: Transformer) -> list[Path]:
    """Return the files of a transformer other than weights and configuration, that is, those of its tokenizer.

    The tokenizer of an adapter may be in the folder of its base model.
    """
    folders = [module.folder] if module.base is None else [module.folder, module.base]
    paths = [path for folder in folders for path in copied_files(folder)]
    return [path for path in paths if path.name != "adapter_config.json" and not path.name.endswith(_WEIGHTS)]

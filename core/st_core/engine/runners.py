"""Build the runners of stacks according to an execution plan."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from st_core.backends import Outline
from st_core.backends.numpy.modules import can_run
from st_core.backends.numpy.runner import NumpyRunner
from st_core.backends.outline import read_outline
from st_core.errors import ModelUnsupported, missing_extra
from st_core.modules.transformer import Transformer

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig

    from st_core.backends import Runner
    from st_core.backends.graph.backend import GraphBackend
    from st_core.backends.torch.backend import TorchBackend
    from st_core.engine.plan import ExecutionPlan
    from st_core.modules import Module
    from st_core.text.tokens import AnyTokenizer

__all__ = ["Followed", "RunnerFactory"]

Info = TypeVar("Info", bound=Outline)


class Followed(NamedTuple):
    """A module, and the tokenizer with which its texts are read instead of that of its files."""

    module: Module
    tokenizer: AnyTokenizer


_NONE: Mapping[int, Followed] = {}


class RunnerFactory:
    """A builder of runners according to a plan; safe in threads.

    Stacks that numpy can run are run by numpy, all others by graphs or torch, as the plan specifies. torch is imported
    for the first stack that needs it. Loaded modules and graphs are shared by all engines that use the factory.
    """

    def __init__(self, plan: ExecutionPlan, tokenizers: Mapping[int, Followed] = _NONE) -> None:
        """Raise ImportError if the plan's runtime is not installed, and ValueError for a dtype without graphs.

        ``tokenizers`` are those of transformers whose tokenizer was changed after loading, by the ``id`` of the module.
        """
        self.plan = plan
        self.tokenizers = dict(tokenizers)
        self.graphs: GraphBackend | None = None
        if plan.runs_graphs:
            from st_core.backends.graph.backend import GraphBackend

            self.graphs = GraphBackend(plan.backend, plan.dtype, plan.artifacts.folder, plan.artifacts.file_name)
        self.torch: TorchBackend | None = None
        self._lock = threading.Lock()
        self._configs: dict[int, tuple[Transformer, PretrainedConfig]] = {}

    def runner(self, stack: tuple[Module, ...]) -> Runner:
        """Build the runner of a stack; raise ImportError, with the extra to install, if torch is missing."""
        if can_run(stack):
            return NumpyRunner(stack)
        if self.graphs is not None:
            runner = self.graphs.runner(stack)
            return replace(runner, info=self._followed(stack, runner.info))
        try:
            backend = self._torch_backend()
        except ImportError as error:
            raise missing_extra("torch", f"a {type(stack[0]).__name__} module") from error
        built = backend.runner(stack)
        return replace(built, info=self._followed(stack, built.info))

    def _followed(self, stack: tuple[Module, ...], outline: Info) -> Info:
        """Return the outline of a stack with the tokenizer that was changed after loading, if one was."""
        changed = self.tokenizers.get(id(stack[0]))
        if changed is None:
            return outline
        return replace(outline, tokenizer=changed.tokenizer, max_length=changed.tokenizer.model_max_length)

    def follow(self, module: Module, tokenizer: AnyTokenizer) -> None:
        """Read texts with another tokenizer than that of the module's files."""
        self.tokenizers[id(module)] = Followed(module, tokenizer)

    def outline(self, stack: tuple[Module, ...]) -> Outline | None:
        """Read the outline of a stack without loading its weights; None if the stack must be loaded for it."""
        first = stack[0]
        if not isinstance(first, Transformer):
            return None
        try:
            if self.graphs is not None:
                outline = self.graphs.outline(stack)
            else:
                outline = read_outline(first, self.plan.device, self.plan.dtype)
            return None if outline is None else self._followed(stack, outline)
        except ImportError as error:
            raise missing_extra("torch", f"the tokenizer in {first.folder}") from error

    def share(self, loaded: Transformer, module: Transformer) -> None:
        """Use the weights of a transformer for another one that differs only in its settings."""
        if self.torch is not None:
            self.torch.share(loaded, module)

    def config(self, module: Transformer) -> PretrainedConfig:
        """Return the configuration of a transformer as an object of transformers that refuses changes."""
        if id(module) not in self._configs:
            try:
                from st_core.backends.torch.library import unchangeable_config
            except ImportError as error:
                raise missing_extra("torch", f"the configuration in {module.folder}") from error
            self._configs[id(module)] = module, unchangeable_config(module)
        return self._configs[id(module)][1]

    def library(self, module: Transformer) -> nn.Module:
        """Return a transformer as the object of transformers; raise ModelUnsupported where graphs run the model."""
        if self.graphs is not None:
            raise ModelUnsupported(
                f"{module.folder}: the model runs as a graph on {self.graphs.name}, without weights of torch; load it "
                "with backend='torch'"
            )
        return self._torch_backend().library_model(module)

    def uses_torch(self, stacks: list[tuple[Module, ...]]) -> bool:
        """Return whether torch is loaded, or is installed and one of the stacks needs it."""
        return self.torch is not None or (
            self.graphs is None and any(not can_run(stack) for stack in stacks) and find_spec("torch") is not None
        )

    @property
    def torch_device(self) -> torch.device:
        """The device of the plan as a torch.device; raises ValueError for an unknown device."""
        return self._torch_backend().device

    def _torch_backend(self) -> TorchBackend:
        with self._lock:
            if self.torch is None:
                from st_core.backends.torch.backend import TorchBackend, pick_device

                self.torch = TorchBackend(pick_device(self.plan.device), self.plan.dtype)
            return self.torch

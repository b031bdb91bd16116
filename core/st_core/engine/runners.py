"""Build the runners of stacks as an execution plan says."""

from __future__ import annotations

import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING

from st_core.backends.graph.backend import GraphBackend
from st_core.backends.numpy.modules import can_run
from st_core.backends.numpy.runner import NumpyRunner
from st_core.backends.outline import read_outline
from st_core.errors import missing_extra
from st_core.modules.transformer import Transformer

if TYPE_CHECKING:
    import torch

    from st_core.backends import Outline, Runner
    from st_core.backends.torch.backend import TorchBackend
    from st_core.engine.plan import ExecutionPlan
    from st_core.modules import Module

__all__ = ["RunnerFactory"]


class RunnerFactory:
    """Builds runners as a plan says: numpy runs what it can, graphs or torch the rest; safe in threads.

    torch is imported for the first stack that needs it. What is loaded is shared by all engines of one factory.
    """

    def __init__(self, plan: ExecutionPlan) -> None:
        """Raise ImportError where the plan's runtime is missing, ValueError for a dtype that it has no graphs in."""
        self.plan = plan
        self.graphs = (
            GraphBackend(plan.backend, plan.dtype, plan.artifacts.folder, plan.artifacts.file_name)
            if plan.runs_graphs
            else None
        )
        self.torch: TorchBackend | None = None
        self._lock = threading.Lock()

    def runner(self, stack: tuple[Module, ...]) -> Runner:
        """Build the runner of a stack; raise ImportError, naming the extra, where torch is missing."""
        if can_run(stack):
            return NumpyRunner(stack)
        if self.graphs is not None:
            return self.graphs.runner(stack)
        try:
            backend = self._torch_backend()
        except ImportError as error:
            raise missing_extra("torch", f"a {type(stack[0]).__name__} module") from error
        return backend.runner(stack)

    def outline(self, stack: tuple[Module, ...]) -> Outline | None:
        """Read the outline of a stack without its weights; None where only loading it tells."""
        first = stack[0]
        if not isinstance(first, Transformer):
            return None
        try:
            if self.graphs is not None:
                return self.graphs.outline(stack)
            return read_outline(first, self.plan.device, self.plan.dtype)
        except ImportError as error:
            raise missing_extra("torch", f"the tokenizer in {first.folder}") from error

    def uses_torch(self, stacks: list[tuple[Module, ...]]) -> bool:
        """Return whether torch is loaded, or is installed and one of the stacks needs it."""
        return self.torch is not None or (
            self.graphs is None and any(not can_run(stack) for stack in stacks) and find_spec("torch") is not None
        )

    @property
    def torch_device(self) -> torch.device:
        """The device of the plan as torch's object; raises ValueError for an unknown one."""
        return self._torch_backend().device

    def _torch_backend(self) -> TorchBackend:
        with self._lock:
            if self.torch is None:
                from st_core.backends.torch.backend import TorchBackend, pick_device

                self.torch = TorchBackend(pick_device(self.plan.device), self.plan.dtype)
            return self.torch

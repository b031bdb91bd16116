"""Runs a model's stacks: texts to tokens to batches to features. What the three public classes share."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from st_core.backends.numpy.modules import OneText, can_run, one_text
from st_core.backends.numpy.runner import NumpyRunner
from st_core.backends.outline import Outline, read_outline
from st_core.engine.batches import Budget, run_batches
from st_core.engine.call import Call
from st_core.errors import missing_extra
from st_core.modules.stack import flatten, tasks_of
from st_core.modules.transformer import Transformer
from st_core.progress import progress
from st_core.text.chat import ChatTokenizer
from st_core.text.words import WordTokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from st_core.backends import Features, Runner
    from st_core.backends.graph.backend import GraphBackend
    from st_core.modules import Module
    from st_core.text.tokens import AnyTokenizer, Tokens

__all__ = ["Engine"]

UNSET: Any = object()

WINDOW = 4096
"""Inputs sorted by length together; a later window's tokens are found while an earlier one is computed."""


class Engine:
    """Modules, made ready per stack; safe in threads.

    ``device`` and ``dtype`` are what the caller asked for, None for the default. Stacks that numpy can run are run by it, whatever the device;
    others by ``graphs`` where it is given, else by torch. Where numpy can run one route of a router, the others are loaded when they are first
    used: a process that only encodes inference-free queries needs neither the document model nor torch.
    """

    def __init__(
        self, modules: Sequence[Module], device: Any = None, dtype: Any = None, graphs: GraphBackend | None = None
    ) -> None:
        """Makes the stacks ready, of a model with a light route that alone; torch is not imported for it, and not at all to run ``graphs``."""
        self.modules = tuple(modules)
        self.graphs = graphs
        self.limit: int | None = UNSET
        self._asked_device = device
        self._dtype = dtype
        self._torch: Any = None
        self._runners: dict[tuple[int, ...], Runner] = {}
        self._ready: dict[str | None, Runner] = {}
        self._stacks: dict[str | None, tuple[Module, ...]] = {}
        self._single: dict[str | None, OneText | None] = {}
        self._outlines: dict[str | None, Outline] = {}
        self._lock = threading.Lock()
        self._prepare()

    def _prepare(self) -> None:
        light = [task for task in self.tasks() if can_run(self._stack(task))]
        for task in light or self.tasks():
            self.runner(task)

    def tasks(self) -> list[str | None]:
        """One task for each stack the model has."""
        return tasks_of(self.modules)

    def _stack(self, task: str | None) -> tuple[Module, ...]:
        """The modules of a task; raises ValueError for a task without a route."""
        stack = self._stacks.get(task)
        if stack is None:
            stack = self._stacks[task] = flatten(self.modules, task)
        return stack

    def runner(self, task: str | None) -> Runner:
        """The stack for a task, made ready when first asked for; raises ValueError for a task without a route."""
        known = self._ready.get(task)
        if known is not None:
            return known
        stack = self._stack(task)
        key = tuple(id(module) for module in stack)
        with self._lock:
            found = self._runners.get(key) or self._make(stack)
            self._runners[key] = self._ready[task] = found
        return found

    def _make(self, stack: tuple[Module, ...]) -> Runner:
        if can_run(stack):
            return NumpyRunner(stack)
        if self.graphs is not None:
            return self.graphs.runner(stack)
        try:
            backend = self._torch_backend()
        except ImportError as error:
            raise missing_extra("torch", f"a {type(stack[0]).__name__} module") from error
        made: Runner = backend.runner(stack)
        return made

    def _torch_backend(self) -> Any:
        if self._torch is None:
            from st_core.backends.torch.backend import TorchBackend, pick_device

            self._torch = TorchBackend(pick_device(self._asked_device), self._dtype)
        return self._torch

    def one_text(self, task: str | None) -> OneText | None:
        """What gives the sparse vector of one text that goes through nothing but a table of weights; None for other stacks."""
        if task not in self._single:
            stack = self._stack(task)
            self._single[task] = one_text(stack) if can_run(stack) else None
        return self._single[task]

    @property
    def has_limit(self) -> bool:
        """Whether a maximum length was set since the model was loaded."""
        return self.limit is not UNSET

    def outline(self, task: str | None) -> Outline:
        """What is told of a stack; of one that is not loaded yet it is read without the weights, where its files say enough."""
        first = self._stack(task)[0]
        if task not in self._ready and isinstance(first, Transformer):
            try:
                found = self._outlines.get(task) or self._read_outline(self._stack(task), first)
            except ImportError as error:
                raise missing_extra("torch", f"the tokenizer in {first.folder}") from error
            if found is not None:
                self._outlines[task] = found
                return found
        runner = self.runner(task)
        precision = str(getattr(runner, "dtype", "float32")).removeprefix("torch.")
        return Outline(runner.tokenizer, runner.max_length, precision, getattr(runner, "file", None))

    def _read_outline(self, stack: tuple[Module, ...], first: Transformer) -> Outline | None:
        if self.graphs is not None:
            return self.graphs.outline(stack)
        return read_outline(first, self._asked_device, self._dtype)

    def tokenizer_of(self, module: Module) -> AnyTokenizer:
        """The tokenizer of a transformer."""
        task = next(each for each in self.tasks() if any(part is module for part in self._stack(each)))
        return self.outline(task).tokenizer

    @property
    def uses_torch(self) -> bool:
        """Whether a stack needs torch, and it is installed."""
        return self._torch is not None or (
            self.graphs is None
            and any(not can_run(self._stack(task)) for task in self.tasks())
            and find_spec("torch") is not None
        )

    @property
    def device(self) -> Any:
        """The torch device, or "cpu" where torch is not used."""
        if not self.uses_torch:
            return "cpu"
        with self._lock:
            return self._torch_backend().device

    def with_modules(self, modules: Sequence[Module]) -> Engine:
        """The same model with other modules; transformers that stay are not loaded again."""
        other = Engine.__new__(Engine)
        other.modules = tuple(modules)
        other.graphs = self.graphs
        other.limit = self.limit
        other._asked_device, other._dtype, other._torch = self._asked_device, self._dtype, self._torch  # noqa: SLF001
        other._runners, other._ready, other._stacks, other._single = {}, {}, {}, {}  # noqa: SLF001
        other._outlines = {}  # noqa: SLF001
        other._lock = threading.Lock()  # noqa: SLF001
        other._prepare()  # noqa: SLF001
        return other

    def max_length(self, task: str | None = None) -> int | None:
        """The most tokens of a text that are read, None for no limit: what was set, else the stack's own."""
        return self.outline(task).max_length if self.limit is UNSET else self.limit

    def tokenize(self, inputs: Sequence[Any], call: Call) -> Tokens:
        """Tokens of texts or pairs with the prompt put in front, cut to the length that holds for this call."""
        runner = self.runner(call.task)
        limit = self._limit(runner, call)
        if isinstance(runner.tokenizer, ChatTokenizer):
            return runner.tokenizer.tokenize(inputs, limit, prompt=call.prompt, task=call.task, options=call.template)
        return runner.tokenizer.tokenize(with_prompt(inputs, call.prompt), limit)

    def _limit(self, runner: Runner, call: Call) -> int | None:
        if not call.truncation:
            return None
        if call.max_length is not None:
            return call.max_length
        module = self._stack(call.task)[0]
        lengths = getattr(module, "task_lengths", {})
        if call.task in lengths:
            return int(lengths[call.task])
        return runner.max_length if self.limit is UNSET else self.limit

    def prompt_length(self, call: Call) -> int | None:
        """How many tokens of the prompt stand before the text: without the special token that ends a text.

        None without a prompt, for a chat template, which may put it anywhere, and for a model of words.
        """
        runner = self.runner(call.task)
        if not call.prompt or isinstance(runner.tokenizer, (ChatTokenizer, WordTokenizer)):
            return None
        ids = runner.tokenizer.tokenize([call.prompt], self._limit(runner, call)).ids[0]
        ends = ids.size > 0 and int(ids[-1]) in runner.tokenizer.special_ids
        return int(ids.size) - (1 if ends else 0)

    def run(
        self, inputs: Sequence[Any], call: Call, *, pooled: bool = False
    ) -> Iterator[tuple[NDArray[np.int64], Features]]:
        """Positions and features, batch by batch, within each window of inputs the longest first.

        ``pooled`` says that nothing is read of what lies before the pooling, which then need not be computed for every token.
        """
        runner = self.runner(call.task)
        prompt_length = self.prompt_length(call)
        budget = Budget(runner.token_budget, call.batch_size, runner.even)
        wishes: dict[str, Any] = {} if call.keep is None else {"keep": call.keep}
        if pooled and getattr(runner, "pooled_steps", None):
            wishes["pooled"] = True

        def run(tokens: Tokens, positions: NDArray[np.int64]) -> Features:
            return runner.run(tokens.take(positions.tolist()), prompt_length, **wishes)

        with progress(len(inputs), call.progress) as advance:
            for start, tokens in self._tokens(inputs, call):
                for positions, features in run_batches(
                    tokens.lengths, budget, partial(run, tokens), runner.out_of_memory
                ):
                    yield positions + start, features
                    advance(int(positions.size))

    def _tokens(self, inputs: Sequence[Any], call: Call) -> Iterator[tuple[int, Tokens]]:
        """Where each window of inputs begins, and its tokens: those of the next one are found while the caller works on this one."""
        if len(inputs) <= WINDOW:
            yield 0, self.tokenize(inputs, call)
            return
        with ThreadPoolExecutor(1, "st_core-tokens") as thread:
            waiting = thread.submit(self.tokenize, inputs[:WINDOW], call)
            for start in range(0, len(inputs), WINDOW):
                tokens = waiting.result()
                following = inputs[start + WINDOW : start + 2 * WINDOW]
                if following:
                    waiting = thread.submit(self.tokenize, following, call)
                yield start, tokens


def with_prompt(inputs: Sequence[Any], prompt: str | None) -> Sequence[Any]:
    """Texts with a prompt in front; of a pair, the first text gets it."""
    if not prompt:
        return inputs
    return [prompt + each if isinstance(each, str) else (prompt + each[0], *each[1:]) for each in inputs]

"""Run a model's stacks: tokenize texts, cut them into batches, and compute features.

The three public model classes share this engine.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from st_core.backends import RunOptions
from st_core.backends.numpy.modules import can_run
from st_core.backends.numpy.sparse import OneText, one_text
from st_core.backends.shown_tokenizer import State, hand_out, limit_of, rebuilt, set_length, state_of
from st_core.engine.batches import Budget, run_batches
from st_core.engine.inputs import UNSET, Input, Unset
from st_core.engine.options import CallOptions
from st_core.engine.prepared import Prepared, joined_tokens, prompt_lengths
from st_core.engine.runners import RunnerFactory
from st_core.module_settings import with_module
from st_core.modules.stack import flatten, tasks_of
from st_core.modules.transformer import Transformer
from st_core.progress import progress
from st_core.text.chat import ChatTokenizer
from st_core.text.words import WordTokenizer

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from st_core.backends import Features, Outline, Runner
    from st_core.backends.graph.backend import GraphBackend
    from st_core.engine.plan import ExecutionPlan
    from st_core.modules import Module
    from st_core.text.tokens import AnyTokenizer, Tokens

__all__ = ["Engine"]

WINDOW = 4096
"""The number of inputs that are sorted by length together; the next window is tokenized while one is computed."""


class _Watched(NamedTuple):
    """A tokenizer that was returned to a user, with the module that it is of and the settings that hold."""

    module: Module
    shown: object
    state: State
    is_changed: bool = False


class Engine:
    """The modules of a model and the runners of its stacks; safe in threads.

    Where numpy can run one route of a router, the other routes are loaded on first use, so that a process that only
    encodes inference-free queries needs neither the document model nor torch. ``limit`` is the maximum number of tokens
    of a text and replaces the maximum lengths of the stacks; ``UNSET`` means that no such limit was set.
    """

    def __init__(self, modules: Sequence[Module], factory: RunnerFactory, limit: int | Unset | None = UNSET) -> None:
        """Load the stacks that numpy can run, or all stacks if there are none of that kind."""
        self.modules = tuple(modules)
        self.factory = factory
        self.limit = limit
        self._runners: dict[tuple[int, ...], Runner] = {}
        self._ready: dict[str | None, Runner] = {}
        self._stacks: dict[str | None, tuple[Module, ...]] = {}
        self._single: dict[str | None, OneText | None] = {}
        self._outlines: dict[str | None, Outline] = {}
        self._watched: dict[int, _Watched] = {}
        self._shares_tokenizers = False
        self._lock = threading.Lock()
        tasks = self.tasks()
        for task in [each for each in tasks if can_run(self._stack(each))] or tasks:
            self.runner(task)

    @property
    def plan(self) -> ExecutionPlan:
        """The execution plan of the stacks."""
        return self.factory.plan

    @property
    def graphs(self) -> GraphBackend | None:
        """The backend that runs stacks as graphs; None under a plan for torch, and for a model of static modules."""
        return self.factory.graphs

    @property
    def computes_with_torch(self) -> bool:
        """Whether torch runs a stack; False where graphs run them, and for modules that numpy runs."""
        return self.graphs is None and not all(can_run(self._stack(task)) for task in self.tasks())

    def __copy__(self) -> Engine:
        engine = Engine.__new__(Engine)
        with self._lock:
            copied = {name: dict(value) if isinstance(value, dict) else value for name, value in vars(self).items()}
        own = {
            key: watched._replace(shown=copy.deepcopy(watched.shown))
            for key, watched in self._watched.items()
            if watched.is_changed
        }
        vars(engine).update(copied | {"_lock": threading.Lock(), "_watched": own, "_shares_tokenizers": True})
        return engine

    def with_modules(self, modules: Sequence[Module]) -> Engine:
        """Return an engine for other modules; transformers that are loaded already are not loaded again."""
        return self._passing_on(Engine(modules, self.factory, self.limit))

    def _passing_on(self, engine: Engine) -> Engine:
        """Return another engine after passing on which tokenizers users may have changed."""
        engine._watched, engine._shares_tokenizers = dict(self._watched), self._shares_tokenizers
        return engine

    def with_runners(self, runners: Mapping[str | None, Runner]) -> Engine:
        """Return an engine for the same modules that runs the stacks of tasks with other runners."""
        engine = copy.copy(self)
        engine._ready = dict(runners)  # noqa: SLF001 - a copy
        engine._single = dict.fromkeys(runners)  # noqa: SLF001 - a copy
        return engine

    def with_module(self, old: Module, new: Module) -> Engine:
        """Return an engine with another module in place of one, which has the same weights."""
        if isinstance(old, Transformer) and isinstance(new, Transformer):
            self.factory.share(old, new)
            followed = self.factory.tokenizers.get(id(old))
            if followed is not None and id(new) not in self.factory.tokenizers:
                self.factory.follow(new, followed.tokenizer)
        engine = self.with_modules(with_module(self.modules, old, new))
        watched = engine._watched.pop(id(old), None)  # noqa: SLF001 - another engine
        if watched is not None:
            engine._watched[id(new)] = watched._replace(module=new)  # noqa: SLF001
        return engine

    def moved(self, modules: Sequence[Module]) -> Engine:
        """Return an engine for the same modules in other folders, with everything that is loaded already."""
        if modules is self.modules:
            return self
        engine = copy.copy(self)
        engine._move_to(modules)  # noqa: SLF001 - a copy
        return engine

    def _move_to(self, modules: Sequence[Module]) -> None:
        """Replace the modules by equal ones in other folders."""
        before = [self._stack(task) for task in self.tasks()]
        self.modules, self._stacks, self._runners = tuple(modules), {}, {}
        after = [self._stack(task) for task in self.tasks()]
        new = {id(old): new for stacks in zip(before, after, strict=True) for old, new in zip(*stacks, strict=True)}
        self._watched = {
            id(new[key]): watched._replace(module=new[key]) for key, watched in self._watched.items() if key in new
        }

    def shown_tokenizer(self, task: str | None) -> Any:
        """Return the tokenizer of a task as an object that a user may change; :meth:`followed` sees the changes."""
        first = self._stack(task)[0]
        if id(first) not in self._watched:
            tokenizer = self.outline(task).tokenizer
            shown = hand_out(tokenizer, is_shared=self._shares_tokenizers)
            if isinstance(tokenizer, WordTokenizer):
                return shown
            if not isinstance(self.limit, Unset):
                set_length(shown, self.limit)
            self._watched[id(first)] = _Watched(first, shown, state_of(shown))
        return self._watched[id(first)].shown

    def pads_left(self, task: str | None) -> bool:
        """Return whether tokens of a task are shown with padding in front of the texts."""
        watched = self._watched.get(id(self._stack(task)[0]))
        side = None if watched is None else getattr(watched.shown, "padding_side", None)
        return self.runner(task).info.tokenizer.pad_left if side is None else side == "left"

    def set_limit(self, limit: int | None) -> None:
        """Set the maximum number of tokens of a text, also on tokenizers that were returned to users."""
        self.limit = limit
        for key, watched in self._watched.items():
            set_length(watched.shown, limit)
            length = state_of(watched.shown).length
            self._watched[key] = watched._replace(state=watched.state._replace(length=length))

    def followed(self) -> Engine:
        """Return the engine for the current settings of the tokenizers that were returned to users.

        Raises ValueError for a setting that the model cannot follow.
        """
        engine = self
        for watched in list(self._watched.values()):
            state = state_of(watched.shown)
            if state != watched.state:
                engine = engine._following(watched, state)
        return engine

    def _following(self, watched: _Watched, state: State) -> Engine:
        """Return an engine that reads texts with the current settings of a tokenizer."""
        engine, module = self, watched.module
        if state.others != watched.state.others:
            engine, module = self.with_tokenizer(module, watched.shown)
        if state.length != watched.state.length:
            engine.limit = limit_of(state)
        engine._watched[id(module)] = _Watched(module, watched.shown, state, is_changed=True)  # noqa: SLF001
        return engine

    def with_tokenizer(self, old: Module, shown: object, new: Module | None = None) -> tuple[Engine, Module]:
        """Return an engine that reads the texts of a module with the settings of a tokenizer, and its module.

        ``new`` is the module with another setting, by default an equal one. Raises ValueError for a setting that the
        model cannot follow.
        """
        module: Any = old if new is None else new
        tokenizer = rebuilt(module, self.tokenizer_of(old), shown)
        has_own = not isinstance(module, Transformer)
        module = replace(module, tokenizer=tokenizer) if has_own else replace(module)
        if not has_own:
            self.factory.follow(module, tokenizer)
        return self.with_module(old, module), module

    def lowercased(self, module: Transformer, lower_case: bool) -> Engine:
        """Return an engine that lowercases the texts of a transformer, or does not.

        Raises AttributeError without the transformers library, whose tokenizer is needed for it, and ValueError for a
        tokenizer that lowercases texts itself.
        """
        shown = self.tokenizer_of(module).shown
        if not hasattr(shown, "model_max_length"):
            raise AttributeError("do_lower_case of Transformer cannot be set without transformers: set it in the files")
        steps = repr(getattr(shown, "backend_tokenizer", shown).normalizer)
        if module.lower_case and not lower_case and ("Lowercase" in steps or "lowercase=True" in steps):
            raise ValueError("do_lower_case cannot be set to False: the tokenizer lowercases texts itself")
        return self.with_tokenizer(module, shown, replace(module, lower_case=lower_case))[0]

    def set_tokenizer(self, task: str | None, shown: object) -> Engine:
        """Return an engine that reads the texts of a task with a tokenizer and its maximum length.

        Raises TypeError for an object of another library than that of the current tokenizer.
        """
        first, own = self._stack(task)[0], self.outline(task).tokenizer
        for name in ("model_max_length", "get_vocab_size"):
            if isinstance(own, WordTokenizer) or hasattr(own.shown, name) != hasattr(shown, name):
                kind = type(own.shown)
                raise TypeError(
                    f"the tokenizer is a {type(shown).__name__}; expected one of {kind.__module__.partition('.')[0]}, "
                    f"as the model's {kind.__name__}"
                )
        engine, module = self.with_tokenizer(first, shown)
        state = state_of(shown)
        engine.limit = limit_of(state)
        engine._watched[id(module)] = _Watched(module, shown, state, is_changed=True)  # noqa: SLF001
        return engine

    def changed_tokenizers(self) -> dict[str | None, object]:
        """Return the tokenizers that users changed, by the first task that uses each of them."""
        found: dict[int, tuple[str | None, object]] = {}
        for task in self.tasks():
            watched = self._watched.get(id(self._stack(task)[0]))
            if watched is not None and watched.is_changed:
                found.setdefault(id(watched.module), (task, watched.shown))
        return dict(found.values())

    def changed_tokenizer(self, module: Module) -> object:
        """Return the tokenizer of a module if a user changed it, else None."""
        watched = self._watched.get(id(module))
        return watched.shown if watched is not None and watched.is_changed else None

    def on(self, plan: ExecutionPlan) -> Engine:
        """Return an engine that runs the same modules under another plan."""
        return self._passing_on(Engine(self.modules, RunnerFactory(plan, self.factory.tokenizers), self.limit))

    def tasks(self) -> list[str | None]:
        """Return one task for each stack; None for a model without a router, and for the default route of a router."""
        return tasks_of(self.modules)

    def _stack(self, task: str | None) -> tuple[Module, ...]:
        """Return the stack of a task; raise ValueError for a task without a route."""
        stack = self._stacks.get(task)
        if stack is None:
            stack = self._stacks[task] = flatten(self.modules, task)
        return stack

    def runner(self, task: str | None) -> Runner:
        """Return the runner of a task, built on first use; raise ValueError for a task without a route."""
        known = self._ready.get(task)
        if known is not None:
            return known
        stack = self._stack(task)
        key = tuple(id(module) for module in stack)
        with self._lock:
            runner = self._runners.get(key) or self.factory.runner(stack)
            self._runners[key] = self._ready[task] = runner
        return runner

    def one_text(self, task: str | None) -> OneText | None:
        """Return a function that computes the sparse vector of a single text faster than a batch of one text does.

        None unless the stack is a table of token weights.
        """
        if task not in self._single:
            stack = self._stack(task)
            self._single[task] = one_text(stack) if can_run(stack) else None
        return self._single[task]

    def outline(self, task: str | None) -> Outline:
        """Return the outline of a task's stack: the metadata that can be read without loading weights.

        If the stack is not loaded yet, the outline is read from its files. If the files do not suffice, the stack is
        loaded.
        """
        if task not in self._ready:
            outline = self._outlines.get(task) or self.factory.outline(self._stack(task))
            if outline is not None:
                self._outlines[task] = outline
                return outline
        return self.runner(task).info

    def tokenizer_of(self, module: Module) -> AnyTokenizer:
        """Return the tokenizer of a module that reads texts."""
        task = next(each for each in self.tasks() if any(part is module for part in self._stack(each)))
        return self.outline(task).tokenizer

    @property
    def uses_torch(self) -> bool:
        """Whether torch is loaded, or is installed and needed by one of the stacks."""
        return self.factory.uses_torch([self._stack(task) for task in self.tasks()])

    @property
    def device(self) -> str | torch.device:
        """The torch device, or "cpu" if torch is not used."""
        return self.factory.torch_device if self.uses_torch else "cpu"

    def max_length(self, task: str | None = None) -> int | None:
        """Return the maximum number of tokens of a text: ``limit`` if one was set, else the limit of the task's stack.

        None means that there is no limit.
        """
        return self.outline(task).max_length if isinstance(self.limit, Unset) else self.limit

    def tokenize(self, inputs: Sequence[Input], options: CallOptions) -> Tokens:
        """Return the tokens of texts or pairs with the prompt in front, truncated to the maximum length of the call."""
        runner = self.runner(options.task)
        limit = self._limit(runner, options)
        tokenizer = runner.info.tokenizer
        if isinstance(tokenizer, ChatTokenizer):
            texts = cast("Sequence[str] | Sequence[tuple[str, str]]", inputs)
            return tokenizer.tokenize(texts, limit, prompt=options.prompt, task=options.task, options=options.template)
        texts = cast("Sequence[str] | Sequence[tuple[str, str]]", with_prompt(inputs, options.prompt))
        return tokenizer.tokenize(texts, limit)

    def limit_of(self, options: CallOptions) -> int | None:
        """Return the maximum number of tokens of a text in a call, None for no limit."""
        return self._limit(self.runner(options.task), options)

    def _limit(self, runner: Runner, options: CallOptions) -> int | None:
        if not options.truncation:
            return None
        if options.max_length is not None:
            return options.max_length
        first = self._stack(options.task)[0]
        if isinstance(first, Transformer) and options.task is not None and options.task in first.task_lengths:
            return int(first.task_lengths[options.task])
        return runner.info.max_length if isinstance(self.limit, Unset) else self.limit

    def prompt_length(self, options: CallOptions) -> int:
        """Return the number of leading tokens that belong to the prompt.

        The special token that ends a text does not count. The number is 0 for a chat template, which may place the
        prompt anywhere, and for a model that reads words instead of tokens.
        """
        runner = self.runner(options.task)
        if not options.prompt or isinstance(runner.info.tokenizer, (ChatTokenizer, WordTokenizer)):
            return 0
        ids = runner.info.tokenizer.tokenize([options.prompt], self._limit(runner, options)).ids[0]
        is_closed = ids.size > 0 and int(ids[-1]) in runner.info.tokenizer.special_ids
        return int(ids.size) - (1 if is_closed else 0)

    def prepare(self, inputs: Sequence[Input], options: CallOptions, *, is_single: bool = False) -> Prepared:
        """Return the tokens of a request with the options that they are computed with."""
        return Prepared(self.tokenize(inputs, options), options, self.prompt_length(options), is_single)

    def windows(self, inputs: Sequence[Input], options: CallOptions) -> Iterator[Prepared]:
        """Prepare inputs window by window; the next window is prepared while the caller processes the current one."""
        if len(inputs) <= WINDOW:
            yield self.prepare(inputs, options)
            return
        with ThreadPoolExecutor(1, "st_core-tokens") as thread:
            pending = thread.submit(self.prepare, inputs[:WINDOW], options)
            for start in range(WINDOW, len(inputs) + WINDOW, WINDOW):
                prepared = pending.result()
                if start < len(inputs):
                    pending = thread.submit(self.prepare, inputs[start : start + WINDOW], options)
                yield prepared

    def groups(self, requests: Sequence[Prepared]) -> list[list[int]]:
        """Return the positions of the requests, grouped by which may share batches.

        Requests may share batches if they use the same stack and keep the same number of weights (``options.keep``).
        """
        groups: dict[tuple[int, int | None], list[int]] = {}
        for position, request in enumerate(requests):
            key = id(self.runner(request.options.task)), request.options.keep
            groups.setdefault(key, []).append(position)
        return list(groups.values())

    def compute(
        self, requests: Sequence[Prepared], *, pooled: bool = False
    ) -> Iterator[tuple[NDArray[np.int64], Features]]:
        """Compute requests of one group; yield the positions and features of each batch, the longest inputs first.

        Positions refer to the inputs of all requests, one request after another. With ``pooled`` the caller reads only
        pooled vectors, so that the vectors of single tokens may be left out.
        """
        options = requests[0].options
        runner = self.runner(options.task)
        tokens, prompts = joined_tokens(requests), prompt_lengths(requests)
        budget = Budget(runner.info.token_budget, _batch_size(requests), runner.needs_equal_lengths())

        def run(positions: NDArray[np.int64]) -> Features:
            return runner.run(
                tokens.take(positions.tolist()),
                RunOptions(options.keep, pooled, None if prompts is None else prompts[positions]),
            )

        yield from run_batches(tokens.lengths, budget, run, runner.is_out_of_memory)

    def run(
        self, inputs: Sequence[Input], options: CallOptions, *, pooled: bool = False
    ) -> Iterator[tuple[NDArray[np.int64], Features]]:
        """Prepare and compute the inputs of a call with a progress bar; yield positions and features of each batch."""
        start = 0
        with progress(len(inputs), options.progress) as advance:
            for prepared in self.windows(inputs, options):
                for positions, features in self.compute([prepared], pooled=pooled):
                    yield positions + start, features
                    advance(int(positions.size))
                start += len(prepared)


def _batch_size(requests: Sequence[Prepared]) -> int | None:
    """Return the smallest batch size among requests, or None if no request sets a batch size."""
    if len(requests) == 1:
        return requests[0].options.batch_size
    return min((each.options.batch_size for each in requests if each.options.batch_size is not None), default=None)


def with_prompt(inputs: Sequence[Input], prompt: str | None) -> Sequence[Input]:
    """Return texts with a prompt in front; in a pair, the prompt is put in front of the first text."""
    if not prompt:
        return inputs
    return [prompt + each if isinstance(each, str) else (prompt + each[0], *each[1:]) for each in inputs]

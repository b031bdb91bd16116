"""The base of the three model classes: loading a checkpoint, prompts, call options, workers and saving."""

from __future__ import annotations

import copy
import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from os import PathLike, fspath
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, Unpack, cast, overload

import numpy as np

from st_core.arguments import LoadArguments, Placement
from st_core.backends.dtypes import dtype_name
from st_core.checkpoint.find import find_checkpoint
from st_core.checkpoint.read import Checkpoint, read_checkpoint
from st_core.compatible import Compatible, advice
from st_core.engine.inputs import CallArguments, Input, Unset, as_texts, check_positive
from st_core.engine.load import load_engine
from st_core.engine.options import CallOptions, with_processing
from st_core.engine.plan import ExecutionPlan, Request, check_device, fetches, split_graph_options
from st_core.engine.prepared import Computed, Prepared, batches_within
from st_core.errors import ModelBroken, ModelError, ModelUnsupported, missing_extra
from st_core.home import expand_home
from st_core.model_card import ModelCardData, Origin, origin_of
from st_core.module_settings import Place, changed, module_at
from st_core.module_view import ModuleView, module_of, view
from st_core.modules import LoadOptions
from st_core.modules.bow import BoW
from st_core.modules.pooling import Pooling
from st_core.modules.router import stack_dimension
from st_core.modules.stack import assemble, flatten, keeps_settings, warn_of_another
from st_core.modules.static_embedding import StaticEmbedding
from st_core.modules.transformer import Transformer
from st_core.printed import tree
from st_core.progress import Advance, progress
from st_core.saving.held import hold, transformers_in, with_files
from st_core.text.tokens import TextTokenizer

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from peft import PeftConfig
    from tokenizers import Tokenizer

    from st_core.backends import Rows
    from st_core.engine.engine import Engine
    from st_core.engine.plan import Device
    from st_core.modules import Module
    from st_core.processes.pool import WorkerPool
    from st_core.saving.made import Home

logger = logging.getLogger(__name__)

NO_LIMIT = int(1e30)
"""The maximum length that transformers reports for a tokenizer without a maximum length."""


Result = TypeVar("Result")


def _for_workers(loading: LoadArguments, plan: ExecutionPlan) -> LoadArguments:
    """Return the arguments with which a worker loads a model under the plan that this process uses."""
    kept = (
        *("trust_remote_code", "local_files_only", "cache_folder", "token"),
        *("model_kwargs", "processor_kwargs", "config_kwargs"),
    )
    arguments = {name: value for name, value in loading.items() if name in kept}
    return cast("LoadArguments", arguments | {"backend": plan.backend, "dtype": plan.dtype})


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a worker needs to build a copy of a model: class, folder, loading arguments, and settings changed since.

    ``limit`` contains the maximum length if one was set, and is empty otherwise. ``include_prompt`` has one entry for
    each module: the setting of a pooling module, None for other modules. ``settings`` are the settings of modules that
    were changed: place, name and value. ``tokenizers`` are those that were changed, by task.
    """

    kind: type[Model]
    folder: str
    loading: LoadArguments
    limit: tuple[int | None, ...]
    include_prompt: tuple[bool | None, ...]
    settings: tuple[tuple[Place, str, object], ...] = ()
    tokenizers: tuple[tuple[str | None, object], ...] = ()

    @classmethod
    def of(cls, model: Model) -> Recipe:
        """Return the recipe of a model with its current settings."""
        engine = model._current()  # noqa: SLF001
        return cls(
            type(model),
            str(model.checkpoint.folder.absolute()),
            _for_workers(model._loading, engine.plan),  # noqa: SLF001
            () if isinstance(engine.limit, Unset) else (engine.limit,),
            tuple(module.include_prompt if isinstance(module, Pooling) else None for module in engine.modules),
            tuple((place, name, value) for (place, name), value in model._changed.items()),  # noqa: SLF001
            tuple(engine.changed_tokenizers().items()),
        )

    def build(self, device: str) -> Model:
        """Load the model on a device and apply the settings."""
        kind: Callable[..., Model] = self.kind  # each model class adds arguments to the common ones
        model = kind(self.folder, device=device, **self.loading)
        self.apply(model)
        return model

    def apply(self, model: Model) -> None:
        """Apply the settings to a model that was loaded from the folder."""
        engine = model._engine  # noqa: SLF001
        modules = [
            replace(module, include_prompt=own)
            if isinstance(module, Pooling) and own is not None and own != module.include_prompt
            else module
            for module, own in zip(engine.modules, self.include_prompt, strict=True)
        ]
        if any(new is not old for new, old in zip(modules, engine.modules, strict=True)):
            model._engine = engine.with_modules(modules)  # noqa: SLF001
        for setting in self.settings:
            model._set_in_module(*setting)  # noqa: SLF001
        for task, tokenizer in self.tokenizers:
            model._engine = model._engine.set_tokenizer(task, tokenizer)  # noqa: SLF001
        for limit in self.limit:
            model._engine.limit = limit  # noqa: SLF001

    def build_to_fork(self) -> Model:
        """Load the model on the CPU with every route, for processes that are forked later.

        An error of loading a route is ignored here. It is raised again in a worker that uses the route.
        """
        model = self.build("cpu")
        engine = model._engine  # noqa: SLF001
        for task in engine.tasks():
            with suppress(ModelError, ImportError):
                engine.runner(task).prepare()
        return model


def _unpickled(recipe: Recipe, device: Device, attributes: Mapping[str, object]) -> Model:
    """Return a model from its pickle, by loading its folder; the constructor of its class is not called."""
    model = recipe.kind.__new__(recipe.kind)
    model._load(recipe.folder, cast("LoadArguments", {**recipe.loading, "device": device}))  # noqa: SLF001
    recipe.apply(model)
    vars(model).update(attributes)
    return model


@cache
def _names_of(classes: tuple[type, ...]) -> frozenset[str]:
    """Return the names that classes define or declare."""
    return frozenset(name for each in classes for name in (*vars(each), *vars(each).get("__annotations__", {})))


class Model(Compatible):
    """A loaded checkpoint.

    Safe in threads: a call changes no state of the model and reads the settings once, when it begins. A copy has its
    own settings and shares the weights, which never change. A pickle contains the settings and the path of the folder,
    not the weights: the folder is loaded again, so it must exist where the pickle is read. A model of given modules, or
    with a new head, has a folder only as long as this process and the model live; save it first.
    """

    default_prompts: ClassVar[Mapping[str, str | None]] = {}

    checkpoint: Checkpoint
    prompts: dict[str, str]
    default_prompt_name: str | None
    _adapter: PeftConfig | None = None
    _base: Origin | None = None
    """The model that this one was trained or made from; see ``_origin``."""

    def _load(self, name: str | PathLike[str] | None, loading: LoadArguments) -> None:
        """Find the checkpoint, read it and load its stacks."""
        unknown = set(loading) - LoadArguments.__annotations__.keys()
        if unknown:
            raise TypeError(f"{self.family} got unexpected arguments: {', '.join(sorted(unknown))}")
        modules_given = loading.get("modules")
        if (name is None) == (modules_given is None):
            raise ValueError(f"{self.family} needs the name or the folder of a model, or modules=[...]; pass one")
        card = loading.get("model_card_data")
        self._card = ModelCardData() if card is None else card
        if modules_given is not None:
            from st_core.saving.made import Home, write_modules

            self._home = Home()
            write_modules([module_of(module) for module in modules_given], self.family, self._home)
            name = self._home.folder
        assert name is not None
        used = ("modules", "model_card_data")
        loading = cast("LoadArguments", {key: value for key, value in loading.items() if key not in used})
        backend = loading.get("backend", "torch")
        file_name, model_options = split_graph_options(backend, loading.get("model_kwargs") or {})
        request = Request(backend, loading.get("device"), loading.get("dtype"), file_name)
        trusted = loading.get("trust_remote_code", False)
        options = LoadOptions(
            trust_remote_code=trusted,
            model_kwargs=model_options,
            processor_kwargs=dict(loading.get("processor_kwargs") or {}),
            config_kwargs=dict(loading.get("config_kwargs") or {}),
            hub={
                "cache_folder": loading.get("cache_folder"),
                "token": loading.get("token"),
                "local_files_only": loading.get("local_files_only", False),
            },
        )
        folder, full_name, revision = find_checkpoint(
            str(fspath(name)),
            organisation=self.organisation,
            revision=loading.get("revision"),
            fetch=fetches(request),
            **options.hub,
        )
        self.checkpoint = read_checkpoint(
            folder, name=full_name, revision=revision, trust_remote_code=trusted, hub=options.hub
        )
        if loading.get("init_head") and not keeps_settings(self.checkpoint, self.family):
            self._add_head(options)
        self._loading = loading
        self._changed: Mapping[tuple[Place, str], object] = {}
        self._settings = self.checkpoint.settings if keeps_settings(self.checkpoint, self.family) else {}
        self._set_prompts(loading.get("prompts"), loading.get("default_prompt_name"))
        modules = self._adjusted(assemble(self.checkpoint, self.family, options), str(fspath(name)))
        self._engine = load_engine(self.checkpoint.folder, modules, request)
        self._held = hold(modules)
        self._log_loading()
        warn_of_another(self.checkpoint, self.family)

    @property
    def _origin(self) -> Origin | None:
        """The model that this one was loaded, trained or made from; None for one made from modules."""
        return self._base if self._base is not None or hasattr(self, "_home") else origin_of(self.checkpoint)

    def _add_head(self, options: LoadOptions) -> None:
        """Replace the checkpoint of a plain transformer without a head by one with a new, untrained head."""
        from st_core.saving.made import Home, lacks_head, write_with_head

        if not lacks_head(self.checkpoint, self.family):
            return
        self._home = Home()
        self._base = origin_of(self.checkpoint)
        write_with_head(self.checkpoint, self.family, options, self._home)
        folder, trusted = self._home.folder, options.trust_remote_code
        self.checkpoint = read_checkpoint(folder, name=str(folder), revision=None, trust_remote_code=trusted)

    def _reload(self, home: Home) -> None:
        """Use the modules in a folder that this model was saved to, which lives as long as the model."""
        kept = {name: value for name, value in self._loading.items() if name not in ("revision", "init_head")}
        other = type(self).__new__(type(self))
        other._load(home.folder, cast("LoadArguments", kept | {"device": self.device}))  # noqa: SLF001
        for name in ("checkpoint", "_engine", "_held", "_changed"):
            setattr(self, name, getattr(other, name))
        self._home = home

    def add_adapter(self, adapter_config: PeftConfig) -> None:
        """Let trainers train a new adapter of peft in place of the transformer's own weights.

        ``adapter_config`` is a configuration of peft, such as ``LoraConfig``. The head of a cross-encoder, and one that
        was added on loading, are trained too. Save the model after training: as an adapter, which names its base model,
        or merged into the weights where a head was trained, because transformers does not load the head of an adapter,
        and where the base model is not a folder without an adapter. Results do not change before a training. Raises
        ImportError without the extra ``peft``, TypeError for another object, and ValueError for a second adapter,
        for a model without a transformer and for further modules that peft would train.
        """
        try:
            from peft import PeftConfig
        except ImportError as error:
            raise missing_extra("peft", "an adapter") from error
        if not isinstance(adapter_config, PeftConfig):
            kind = type(adapter_config).__name__
            raise TypeError(f"expected a configuration of peft such as LoraConfig, got a {kind}")
        for name in ("modules_to_save", "trainable_token_indices"):
            if getattr(adapter_config, name, None):
                raise ValueError(f"{name} is not supported; leave it out: heads that need training are trained anyway")
        if not any(transformers_in(self._current().modules)):
            raise ValueError(f"{self.checkpoint.name} has no transformer for an adapter; train its own weights")
        if self._adapter is not None:
            raise ValueError("the model has an adapter already; merge it with merge_adapter() to train another")
        self._adapter = adapter_config

    def merge_adapter(self) -> None:
        """Merge an adapter that was trained or loaded into the weights, so that the model is saved without it.

        Results stay the same, up to rounding. Without an adapter nothing changes.
        """
        from st_core.backends.torch.trainable import trainable
        from st_core.saving.made import Home

        modules = self._current().modules
        if all(each.base is None for each in transformers_in(modules)):
            return
        home = Home()
        with with_files(modules, self._held) as present, TemporaryDirectory() as place:
            self._save(trainable(present).written(Path(place)), home.folder, self.checkpoint.name, card=True)
        self._reload(home)
        self._adapter = None

    def _adjusted(self, modules: tuple[Module, ...], name: str) -> tuple[Module, ...]:  # noqa: ARG002 - for subclasses
        """Return the modules of a checkpoint with the settings that its name implies."""
        return modules

    def _log_loading(self) -> None:
        """Log what was loaded, from where and with which prompts, at the level INFO."""
        kind = "" if self.checkpoint.entries else " without modules.json, with the default modules"
        logger.info("Loaded %s from %s%s, on %s", self.family, self.checkpoint.name, kind, self.backend)
        prompts = [key for key, text in self.prompts.items() if text]
        if prompts:
            logger.info("Loaded %d prompt%s: %s", len(prompts), "s" if len(prompts) > 1 else "", ", ".join(prompts))

    def __copy__(self) -> Self:
        return self._copied(vars(self))

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        shared = {"_engine", "checkpoint"}
        own = {name: copy.deepcopy(value, memo) for name, value in vars(self).items() if name not in shared}
        return self._copied(vars(self) | own)

    def _copied(self, attributes: Mapping[str, object]) -> Self:
        """Return a copy with other attributes, and with an engine of its own that shares the loaded stacks."""
        model = type(self).__new__(type(self))
        parts = {"checkpoint": copy.copy(self.checkpoint), "_engine": copy.copy(self._current())}
        vars(model).update({**attributes, **parts})
        return model

    def __reduce__(self) -> tuple[Callable[..., Model], tuple[object, ...]]:
        device = self._engine.plan.device
        attributes = {name: value for name, value in vars(self).items() if name not in ("_engine", "_held", "_home")}
        attributes["_loading"] = {name: value for name, value in self._loading.items() if name != "token"}
        recipe = Recipe.of(self)
        recipe.loading.pop("token", None)  # a pickle may be stored, and the folder is local
        return _unpickled, (recipe, device if device is None else str(device), attributes)

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute that a model has; raise AttributeError for others, except on subclasses of users."""
        kind = type(self)
        is_own = kind.__module__.startswith("st_core.")
        if is_own and not name.startswith("_") and name not in _names_of(kind.__mro__):
            instead = advice(name)
            raise AttributeError(
                f"a {kind.__name__} has no attribute {name!r} to set" + (f": {instead}" if instead else "")
            )
        super().__setattr__(name, value)

    def _set_prompts(self, prompts: Mapping[str, str] | None, default_prompt_name: str | None) -> None:
        """Merge the prompts of the caller, the checkpoint and the model class; earlier ones take precedence.

        An empty prompt overrides another, None does not.
        """
        merged: dict[str, str | None] = dict(self.default_prompts) | dict(prompts or {})
        for key, value in (self._settings.get("prompts") or {}).items():
            if merged.get(key) is None:
                merged[key] = value
        self.prompts = {key: value or "" for key, value in merged.items()}
        saved_name = self._settings.get("default_prompt_name")
        if saved_name is not None and saved_name not in self.prompts:
            raise ModelBroken(
                f"{self.checkpoint.folder / 'config_sentence_transformers.json'}: unknown default_prompt_name "
                f"{saved_name!r}; "
                f"expected one of {sorted(self.prompts)}"
            )
        self.default_prompt_name = default_prompt_name or saved_name
        if self.default_prompt_name is not None and self.default_prompt_name not in self.prompts:
            raise ValueError(
                f"unknown default_prompt_name {self.default_prompt_name!r}; expected one of {sorted(self.prompts)}"
            )

    def _prompt(self, prompt: str | None, prompt_name: str | None) -> str | None:
        """Return the prompt of a call: ``prompt``, else the prompt named ``prompt_name``, else the default prompt."""
        if prompt is not None:
            if not isinstance(prompt, str):
                raise ValueError(f"prompt must be text, got {prompt!r}")
            if prompt_name is not None:
                logger.warning("prompt and prompt_name=%r are both set: prompt_name is ignored; pass one", prompt_name)
            return prompt
        if prompt_name is not None:
            if prompt_name not in self.prompts:
                raise ValueError(f"unknown prompt_name {prompt_name!r}; expected one of {sorted(self.prompts)}")
            return self.prompts[prompt_name]
        if self.default_prompt_name is not None:
            return self.prompts.get(self.default_prompt_name)
        return None

    def _options(
        self,
        kwargs: CallArguments,
        *,
        prompt: str | None,
        prompt_name: str | None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> CallOptions:
        """Return the validated options of a call; raise ValueError for unknown arguments and invalid values."""
        self._current()
        unknown = set(kwargs) - {"task", "processing_kwargs"}
        if unknown:
            raise ValueError(f"{self.family} got unexpected arguments: {', '.join(sorted(unknown))}")
        check_positive("batch_size", batch_size)
        options = CallOptions(
            task=kwargs.get("task"),
            prompt=self._prompt(prompt, prompt_name),
            batch_size=batch_size,
            progress=show_progress_bar,
        )
        return with_processing(self._with_saved_processing(options), kwargs.get("processing_kwargs"))

    def _with_saved_processing(self, options: CallOptions) -> CallOptions:
        """Return the options with the truncation settings that are saved in the checkpoint."""
        first = self._engine.modules[0]
        saved = first.text_kwargs if isinstance(first, Transformer) else {}
        if not saved:
            return options
        return with_processing(options, {name: saved[name] for name in ("max_length", "truncation") if name in saved})

    def token_limit(self, prepared: Prepared) -> int | None:
        """Return the maximum number of tokens that the inputs of a request were truncated to, None for no limit."""
        return self._engine.limit_of(prepared.options)

    def compute(self, prepared: Sequence[Prepared]) -> list[Computed[Rows]]:
        """Compute prepared requests and return one result for each, in order, as the second of the steps of encoding.

        Requests with different prompts and maximum lengths share batches; requests for different routes do not. Batches
        are limited by the model's token budget and by the smallest ``batch_size`` among the requests. A text's result
        depends on the batch in its last digits, so it may differ slightly from the result of computing its request
        alone.
        """
        return self._compute(prepared, lambda _: None)

    def _compute(self, prepared: Sequence[Prepared], advance: Advance) -> list[Computed[Rows]]:
        if len(prepared) == 1:
            return self._compute_group(prepared, advance)
        computed: dict[int, Computed[Rows]] = {}
        for positions in self._engine.groups(prepared):
            group = self._compute_group([prepared[position] for position in positions], advance)
            computed.update(zip(positions, group, strict=True))
        return [computed[position] for position in range(len(prepared))]

    def _compute_group(self, requests: Sequence[Prepared], advance: Advance) -> list[Computed[Rows]]:
        """Compute requests that may share batches, and return one result for each, in order."""
        batches: list[NDArray[np.int64]] = []

        def finish_batch(positions: NDArray[np.int64]) -> None:
            batches.append(positions)
            advance(int(positions.size))

        rows = self._rows(requests, finish_batch)
        if len(requests) == 1:
            return [Computed(rows, requests[0], tuple(batches))]
        computed, start = [], 0
        for request in requests:
            own = batches_within(batches, start, len(request))
            computed.append(Computed(rows[start : start + len(request)], request, own))
            start += len(request)
        return computed

    @abstractmethod
    def _rows(self, requests: Sequence[Prepared], finish_batch: Callable[[NDArray[np.int64]], None]) -> Rows:
        """Return the rows computed for requests of one group, in order; the return value supports slices.

        ``finish_batch`` is called with the positions of each batch after the batch is computed.
        """

    def _computed_windows(self, inputs: Sequence[Input], options: CallOptions) -> Iterator[Computed[Rows]]:
        """Prepare and compute the inputs of a call window by window, with a progress bar."""
        with progress(len(inputs), options.progress) as advance:
            for prepared in self._engine.windows(inputs, options):
                yield self._compute([prepared], advance)[0]

    def _everywhere(
        self,
        placement: Placement,
        job: Callable[..., Result],
        inputs: list[Input],
        options: CallOptions,
        *arguments: object,
    ) -> list[Result]:
        """Return the results of ``job(model, inputs, options, *arguments)`` for all inputs, as parts in order.

        Without a pool or a list of devices, this process computes a single part, after moving the model to the device
        of the call if there is one. Otherwise worker processes compute one part for each chunk of inputs.
        """
        check_positive("chunk_size", placement.chunk_size)
        devices, device = placement.devices, placement.device
        if placement.pool is None and devices is None:
            if device is not None and str(device) != str(self.device):
                self.to(device)
            return [job(self, inputs, options, *arguments)]
        if not inputs:
            return [job(self, inputs, options, *arguments)]
        with self._workers(devices or (), placement.pool) as workers:
            silent = replace(options, progress=False)
            parts = workers.run(job, inputs, (silent, *arguments), placement.chunk_size, options.progress)
        return cast("list[Result]", parts)

    @contextmanager
    def _workers(self, devices: Sequence[Device], pool: WorkerPool | None) -> Iterator[WorkerPool]:
        """Yield ``pool``, or if it is None a temporary pool with a process on each of ``devices``.

        Raises ValueError for a pool that another model started.
        """
        from st_core.processes.pool import WorkerPool

        if pool is None:
            with self._start_pool(devices) as started:
                yield started
            return
        if not isinstance(pool, WorkerPool):
            raise TypeError(f"pool is a {type(pool).__name__}; expected the result of start_multi_process_pool")
        if pool.owner is not self.checkpoint:
            raise ValueError(
                "the pool was started by another model; start one with this model's start_multi_process_pool"
            )
        yield pool

    def _start_pool(self, devices: Sequence[Device]) -> WorkerPool:
        from st_core.processes.pool import WorkerPool

        for device in devices:
            check_device(self.backend, device)
            if self._engine.uses_torch and str(device) != "cpu":  # a model with a numpy route has not imported torch
                from st_core.backends.torch.backend import pick_device

                pick_device(device)
        names = [str(device) for device in devices]
        share = self._engine.graphs is None  # the runtimes of graphs start threads, and then must not be forked
        return WorkerPool(Recipe.of(self), names, owner=self.checkpoint, share=share)

    def start_multi_process_pool(self, target_devices: Device | Iterable[Device] = None) -> WorkerPool:
        """Start one process for each device, such as ["cuda:0", "cuda:1"] or ["cpu", "cpu"], and return the pool.

        The pool is passed to calls as ``pool``. Without ``target_devices`` a process is started for every CUDA device,
        or, if there are none, up to four processes on the CPU, which share its cores. The model of this process is not
        moved. Raises ValueError for an unknown device before any process is started, the errors of loading the model in
        a process, and RuntimeError if a process dies.
        """
        from st_core.processes.pool import default_devices

        if "device_map" in (self._loading.get("model_kwargs") or {}):
            raise ValueError("workers place the model themselves: load it without a device_map to start them")
        if target_devices is None:
            target_devices = default_devices()
        single = isinstance(target_devices, str) or not isinstance(target_devices, Iterable)
        return self._start_pool(
            [cast("Device", target_devices)] if single else list(cast("Iterable[Device]", target_devices))
        )

    @staticmethod
    def stop_multi_process_pool(pool: WorkerPool) -> None:
        """Stop the processes of a pool; stopping a pool twice is not an error."""
        pool.stop()

    def to(self, device: Device = None, dtype: object = None) -> Self:
        """Move the model to another device, or change the dtype that it computes in, and return the model.

        The first argument may be a torch dtype too. Do not call this while another thread uses the model. Raises
        ValueError if the model runs on onnx or openvino and the device is not the CPU, and for a dtype unless the model
        runs on torch.
        """
        if str(device).startswith("torch."):
            device, dtype = None, device
        if dtype is not None:
            self._in(str(dtype_name(dtype)))
        if device is None:
            return self
        check_device(self.backend, device)
        if self._engine.uses_torch:
            self._engine = self._engine.on(replace(self._engine.plan, device=device))
        return self

    @property
    def device(self) -> str | torch.device:
        """The torch device that the model computes on, or "cpu" for a model that does not need torch."""
        return self._engine.device

    @property
    def backend(self) -> str:
        """The backend that runs the model's transformers: torch, onnx or openvino."""
        return self._engine.plan.backend

    @property
    def tokenizer(self) -> Any:
        """The tokenizer: an object of transformers for a transformer on torch, else one of the tokenizers library.

        For a model of words it is a :class:`st_core.text.words.WordTokenizer`, which does not change. Settings of the
        others hold from the next call on, and calls raise ValueError for a setting that the model cannot follow. The
        side of padding changes what :meth:`preprocess` returns, and never a result. Do not change settings while
        another thread uses the model.
        """
        return self._engine.shown_tokenizer(self._engine.tasks()[0])

    @tokenizer.setter
    def tokenizer(self, value: object) -> None:
        self._engine = self._engine.set_tokenizer(self._engine.tasks()[0], value)

    @property
    def backend_tokenizer(self) -> Tokenizer | None:
        """The tokenizer of the tokenizers library that computes tokens; None if one of another kind does.

        It neither cuts nor pads texts. Models with equal files share it: do not change it, but :attr:`tokenizer`.
        """
        tokenizer = self._current().outline(self._engine.tasks()[0]).tokenizer
        return tokenizer.backend if isinstance(tokenizer, TextTokenizer) else None

    def _current(self) -> Engine:
        """Return the engine with the current settings of the tokenizers that :attr:`tokenizer` returned."""
        engine = self._engine.followed()
        if engine is not self._engine:  # setting an attribute takes as long as tokenizing a short query
            self._engine = engine
        return engine

    @property
    def max_seq_length(self) -> int | float | None:
        """The maximum number of tokens of a text, special tokens included.

        The value is infinity for a static model without a limit, and None for a bag of words.
        """
        lengths = [self._length(task) for task in self._current().tasks()]
        return None if None in lengths else max(length for length in lengths if length is not None)

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        limit = None if value == float("inf") else value
        if limit is not None and (not isinstance(limit, (int, np.integer)) or limit < 1):
            raise ValueError(f"max_seq_length must be a positive integer, or None for no limit, got {value!r}")
        self._current().set_limit(limit)

    def _length(self, task: str | None) -> int | float | None:
        length = self._engine.max_length(task)
        if length is not None:
            return length
        first = flatten(self._engine.modules, task)[0]
        if isinstance(first, BoW):
            return None
        return float("inf") if isinstance(first, StaticEmbedding) else NO_LIMIT

    def get_max_seq_length(self) -> int | float | None:
        """Return the value of ``max_seq_length``."""
        return self.max_seq_length

    def _dimension(self) -> int | None:
        return stack_dimension(self._engine.modules)

    def get_model_kwargs(self) -> list[str]:
        """Return the names of extra arguments that the checkpoint's own module classes accept: always an empty list.

        Such classes are not supported. The method exists because sentence-transformers has it.
        """
        return []

    def set_pooling_include_prompt(self, include_prompt: bool) -> None:
        """Set whether the tokens of the prompt are included in pooling.

        Do not call this while another thread uses the model.
        """
        modules = [
            replace(module, include_prompt=include_prompt) if isinstance(module, Pooling) else module
            for module in self._engine.modules
        ]
        self._engine = self._engine.with_modules(modules)

    def tokenize(self, texts: Sequence[Input], **kwargs: Unpack[CallArguments]) -> dict[str, Any]:
        """Call :meth:`preprocess`, under its old name."""
        return self.preprocess(texts, **kwargs)

    def preprocess(
        self, inputs: Sequence[Input], prompt: str | None = None, **kwargs: Unpack[CallArguments]
    ) -> dict[str, Any]:
        """Return the tokens of texts or pairs, int64 [n, tokens of the longest input], as :meth:`forward` reads them.

        They are ``input_ids``, ``attention_mask`` and, if the model reads segment numbers, ``token_type_ids``: tensors
        on the CPU for a model on torch, else arrays. With a prompt, ``prompt_length`` is its number of tokens.
        """
        from st_core.text.tokens import pad

        options = replace(self._options(kwargs, prompt=prompt, prompt_name=None), prompt=prompt)
        tokens = self._engine.tokenize(as_texts(inputs), options)
        tokenizer = self._engine.runner(options.task).info.tokenizer
        left = self._engine.pads_left(options.task)
        ids, mask = pad(tokens.ids, tokenizer.pad_id, left=left)
        features = {"input_ids": ids, "attention_mask": mask}
        if tokenizer.wants_types:
            types, _ = pad(tokens.types or [row * 0 for row in tokens.ids], tokenizer.pad_type, left=left)
            features["token_type_ids"] = types
        result: dict[str, Any] = dict(features)
        if self._engine.uses_torch:
            import torch

            result = {name: torch.from_numpy(values) for name, values in features.items()}
        length = self._engine.prompt_length(options)
        return result | {"prompt_length": length} if length else result

    def save_pretrained(
        self,
        path: str | PathLike[str],
        model_name: str | None = None,
        create_model_card: bool = True,
        train_datasets: Sequence[str] | None = None,  # noqa: ARG002 - sentence-transformers' argument, which it ignores too
        safe_serialization: bool = True,
    ) -> None:
        """Save the model with its settings as a folder that this engine and sentence-transformers can load.

        A model on onnx or openvino is saved with its graph, which is used when the folder is loaded with the same
        ``backend`` and ``dtype``. ``create_model_card`` copies the model card of the checkpoint, or writes a new card
        with ``model_name`` if the checkpoint has none. A model that is already in the folder is replaced completely; if
        saving fails, it stays unchanged. Other files in the folder stay. A model can be saved after the folder that it
        was loaded from is removed, except on Windows. Weights are saved as safetensors only, so
        ``safe_serialization=False`` raises ValueError.
        """
        if not safe_serialization:
            raise ValueError("weights are saved as safetensors only; leave out safe_serialization=False")
        with with_files(self._current().modules, self._held) as modules:
            self._save(modules, Path(expand_home(path)), model_name, card=create_model_card)

    def _save(self, modules: Sequence[Module], path: Path, model_name: str | None, *, card: bool) -> None:
        """Save the modules of this model, in folders that exist, with its settings."""
        engine = self._engine.moved(modules)
        graphs = [engine.runner(task).info.repository_graph for task in engine.tasks()]
        graph = next((each for each in graphs if each is not None), None)
        if graph is not None:
            raise ModelUnsupported(
                f"the model runs the graph {graph}, not its weights: copy its folder, or save it as loaded with "
                "backend='torch'"
            )
        from st_core.saving.save import card_of, save_folder, settled

        settings = {key: value for key, value in self._now_saved().items() if value is not None}
        name = model_name or (path.absolute().name if hasattr(self, "_home") else self.checkpoint.name)
        text = card_of(self.checkpoint.folder / "README.md", name, self.family, self.model_card_data) if card else None

        def save() -> None:
            with TemporaryDirectory() as folder:
                save_folder(path, settled(engine, Path(folder)), settings, self._saved_files(), text)

        if engine.graphs is None:
            save()
            return
        from st_core.saving.export import copy_graphs, graph_places

        with graph_places(self._engine, modules) as places:
            save()
            copy_graphs(places, engine, path, self.family, trust_remote_code=self.trust_remote_code)

    save = save_pretrained

    def push_to_hub(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        repo_id: str,
        token: str | None = None,
        private: bool | None = None,
        safe_serialization: bool = True,
        commit_message: str | None = None,
        local_model_path: str | None = None,
        exist_ok: bool = False,
        replace_model_card: bool = False,
        train_datasets: Sequence[str] | None = None,  # noqa: ARG002 - sentence-transformers' argument
        revision: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Save the model to a repository on the Hub and return the URL of the commit or pull request.

        A repository that does not exist is created. With ``local_model_path`` that folder is uploaded instead of the
        model. With ``exist_ok`` an existing model card stays unless ``replace_model_card`` is set. Errors of
        huggingface_hub are raised unchanged.
        """
        from st_core.saving.save import description, push_folder

        def save(folder: str) -> None:
            card = replace_model_card or not exist_ok
            self.save_pretrained(folder, repo_id, create_model_card=card, safe_serialization=safe_serialization)

        return push_folder(
            save,
            repo_id,
            local_path=local_model_path,
            message=commit_message or f"Add new {self.family} model",
            description=description(repr(self), self.family, repo_id) if create_pr else None,
            token=token,
            private=private,
            exist_ok=exist_ok,
            revision=revision,
            create_pr=create_pr,
        )

    def _now_saved(self) -> dict[str, object]:
        """Return the content of ``config_sentence_transformers.json`` with the model's current settings.

        Keys with the value None are not saved.
        """
        from importlib.metadata import version

        return {
            **self._settings,
            "model_type": self.family,
            "__version__": {"st_connectors": version("st-connectors")},
            "prompts": self.prompts,
            "default_prompt_name": self.default_prompt_name,
        }

    def _saved_files(self) -> dict[str, object]:
        """Return the contents of further JSON files to save, by file name."""
        return {}

    @overload
    def __getitem__(self, index: int) -> ModuleView: ...
    @overload
    def __getitem__(self, index: slice) -> list[ModuleView]: ...
    def __getitem__(self, index: int | slice) -> ModuleView | list[ModuleView]:
        """Return the module at an index of the module list, with settings that can be changed; a list for a slice."""
        places = range(len(self))[index]
        return view(self, (places,)) if isinstance(places, int) else [view(self, (place,)) for place in places]

    def _first_module(self) -> ModuleView:
        """Return the first module; sentence-transformers has the method, and much code calls it."""
        return self[0]

    def _last_module(self) -> ModuleView:
        """Return the last module."""
        return self[-1]

    def _set_in_module(self, place: Place, name: str, value: object) -> None:
        """Change a setting of the module at a place.

        Raises AttributeError for a setting that does not change, ValueError for a value that the setting does not have.
        """
        engine = self._current()
        old = module_at(engine.modules, place)
        if name == "do_lower_case" and isinstance(old, Transformer):
            self._engine = engine.lowercased(old, bool(value))
        else:
            self._engine = engine.with_module(old, changed(old, name, value))
        self._changed = {**self._changed, (place, name): value}

    def __len__(self) -> int:
        """Return the number of modules."""
        return len(self._engine.modules)

    def __iter__(self) -> Iterator[ModuleView]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return tree(type(self).__name__, self._engine.modules)

"""What the three model classes share: finding and loading a checkpoint, prompts, and the arguments of a call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict, TypeVar, cast

import numpy as np

from st_core.checkpoint.find import Fetch, find_checkpoint
from st_core.checkpoint.read import Checkpoint, read_checkpoint
from st_core.engine.call import Call, read_processing
from st_core.engine.choose import check_device, fetches, make_engine, split_graph_options
from st_core.engine.engine import Engine
from st_core.engine.inputs import as_texts, check_positive
from st_core.errors import ModelBroken, ModelError, ModelUnsupported
from st_core.modules import LoadOptions
from st_core.modules.bow import BoW
from st_core.modules.pooling import Pooling
from st_core.modules.router import stack_dimension
from st_core.modules.stack import assemble, flatten, keeps_settings, warn_of_another
from st_core.modules.static_embedding import StaticEmbedding

if TYPE_CHECKING:
    from st_core.modules import Module
    from st_core.processes.pool import WorkerPool

NO_LIMIT = int(1e30)
"""What transformers gives as the maximum length of a tokenizer that has none."""


class LoadArguments(TypedDict, total=False):
    """What the constructors of all models take, with the names of sentence-transformers.

    ``revision``, ``cache_folder``, ``token`` and ``local_files_only`` are for the Hub. ``prompts`` stand above the checkpoint's.
    ``model_kwargs``, ``processor_kwargs`` (old name ``tokenizer_kwargs``) and ``config_kwargs`` go to transformers' loaders; on onnx and openvino
    ``model_kwargs={"file_name": "onnx/model_O3.onnx"}`` names a graph that the repository holds.
    ``backend`` is torch, onnx, openvino or auto, which is the one of these that was fastest for the model on this machine, measured when it was
    first asked for; ``dtype`` is float32, float16, bfloat16 or, not on torch, int8, and with auto always float32. On onnx and openvino it is what
    weights are kept in; those of 16 bits are computed with in float32 where the runtime has no better way. Models of static modules run on numpy
    whatever is said. ``modules`` is there to be refused: a model is made from a checkpoint.
    """

    modules: Sequence[Any] | None
    device: Any
    dtype: Any
    prompts: Mapping[str, str] | None
    default_prompt_name: str | None
    cache_folder: str | None
    trust_remote_code: bool
    revision: str | None
    local_files_only: bool
    token: bool | str | None
    model_kwargs: Mapping[str, Any] | None
    processor_kwargs: Mapping[str, Any] | None
    tokenizer_kwargs: Mapping[str, Any] | None
    config_kwargs: Mapping[str, Any] | None
    backend: str


Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a call computes: ``device`` here or, as a list, in processes of its own, or in ``pool``, ``chunk_size`` inputs at a time."""

    device: Any = None
    pool: object = None
    chunk_size: int | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a worker builds a model as it is now: class, folder, loading arguments, and the settings changed since.

    ``limit`` contains the maximum length where one was set; ``include_prompt`` is the setting of each pooling module, None for other modules.
    """

    kind: type[Model]
    folder: str
    loading: LoadArguments
    limit: tuple[int | None, ...]
    include_prompt: tuple[bool | None, ...]

    @classmethod
    def of(cls, model: Model) -> Recipe:
        """Return the recipe of a model."""
        engine = model._engine  # noqa: SLF001
        return cls(
            type(model),
            str(model.checkpoint.folder),
            model._loading,  # noqa: SLF001
            (engine.limit,) if engine.has_limit else (),
            tuple(module.include_prompt if isinstance(module, Pooling) else None for module in engine.modules),
        )

    def build(self, device: str) -> Model:
        """Load the model on a device."""
        kind: Callable[..., Model] = self.kind  # each family adds arguments to those of all
        model = kind(self.folder, device=device, **self.loading)
        engine = model._engine  # noqa: SLF001
        modules = [
            module if own is None or own == module.include_prompt else replace(module, include_prompt=own)
            for module, own in zip(engine.modules, self.include_prompt, strict=True)
        ]
        if any(new is not old for new, old in zip(modules, engine.modules, strict=True)):
            engine = model._engine = engine.with_modules(modules)  # noqa: SLF001
        for limit in self.limit:
            engine.limit = limit
        return model

    def build_to_fork(self) -> Model:
        """Load the model on the CPU with every route; an error of loading one surfaces in the worker that needs it."""
        model = self.build("cpu")
        engine = model._engine  # noqa: SLF001
        for task in engine.tasks():
            with suppress(ModelError, ImportError):
                engine.runner(task)
        return model


class Model:
    """A loaded checkpoint. Safe in threads: a call changes nothing, and what it needs it reads once when it begins."""

    family: ClassVar[str]
    organisation: ClassVar[str]
    default_prompts: ClassVar[Mapping[str, str | None]] = {}

    checkpoint: Checkpoint
    prompts: dict[str, str]
    default_prompt_name: str | None

    def _load(
        self,
        name: str | PathLike[str] | None,
        *,
        modules: Sequence[Any] | None = None,
        device: Any = None,
        dtype: Any = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        cache_folder: str | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        local_files_only: bool = False,
        token: bool | str | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        processor_kwargs: Mapping[str, Any] | None = None,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
        config_kwargs: Mapping[str, Any] | None = None,
        backend: str = "torch",
    ) -> None:
        """Find the checkpoint, read it and make it ready to run; the arguments are those of LoadArguments."""
        if name is None:
            raise ValueError(f"{self.family} needs the name or the folder of a model")
        if modules is not None:
            raise ModelUnsupported("a model is made from a checkpoint; modules= is not supported")
        if processor_kwargs and tokenizer_kwargs:
            raise ValueError("processor_kwargs and its old name tokenizer_kwargs are both given; give one")
        processor_kwargs = processor_kwargs or tokenizer_kwargs
        self._loading: LoadArguments = {
            "dtype": dtype,
            "backend": backend,
            "trust_remote_code": trust_remote_code,
            "local_files_only": local_files_only,
            "cache_folder": cache_folder,
            "token": token,
            "model_kwargs": model_kwargs,
            "processor_kwargs": processor_kwargs,
            "config_kwargs": config_kwargs,
        }
        file_name, model_options = split_graph_options(backend, model_kwargs or {})
        options = LoadOptions(
            trust_remote_code=trust_remote_code,
            model_kwargs=model_options,
            processor_kwargs=dict(processor_kwargs or {}),
            config_kwargs=dict(config_kwargs or {}),
            hub={"cache_folder": cache_folder, "token": token, "local_files_only": local_files_only},
        )
        self.checkpoint = self._find(str(fspath(name)), revision, options, fetches(backend, dtype, file_name))
        self._settings = self.checkpoint.settings if keeps_settings(self.checkpoint, self.family) else {}
        self._set_prompts(prompts, default_prompt_name)
        self._engine = make_engine(
            self.checkpoint,
            assemble(self.checkpoint, self.family, options),
            backend=backend,
            device=device,
            dtype=dtype,
            file_name=file_name,
        )
        warn_of_another(self.checkpoint, self.family)
        if backend == "auto":  # other processes that load this model do as this one does
            self._loading |= {"backend": self.backend, "dtype": "float32"}

    def _find(self, name: str, revision: str | None, options: LoadOptions, fetch: tuple[Fetch, ...]) -> Checkpoint:
        """The checkpoint of a name or folder, read; a name is fetched as ``fetch`` says."""
        hub = options.hub
        folder, full_name, revision = find_checkpoint(
            name, organisation=self.organisation, revision=revision, fetch=fetch, **hub
        )
        trusted = options.trust_remote_code
        return read_checkpoint(folder, name=full_name, revision=revision, trust_remote_code=trusted, hub=hub)

    def _set_prompts(self, given: Mapping[str, str] | None, default_prompt_name: str | None) -> None:
        """The prompts of the caller, then the checkpoint's, then the family's; an empty prompt counts as given, None does not."""
        merged: dict[str, str | None] = dict(self.default_prompts) | dict(given or {})
        for key, value in (self._settings.get("prompts") or {}).items():
            if merged.get(key) is None:
                merged[key] = value
        self.prompts = {key: value or "" for key, value in merged.items()}
        saved_name = self._settings.get("default_prompt_name")
        if saved_name is not None and saved_name not in self.prompts:
            raise ModelBroken(
                f"{self.checkpoint.folder / 'config_sentence_transformers.json'}: there is no prompt {saved_name!r} to be "
                f"the default; there are {sorted(self.prompts)}"
            )
        self.default_prompt_name = default_prompt_name or saved_name
        if self.default_prompt_name is not None and self.default_prompt_name not in self.prompts:
            raise ValueError(
                f"there is no prompt {self.default_prompt_name!r} to be the default; there are {sorted(self.prompts)}"
            )

    def _prompt(self, prompt: str | None, prompt_name: str | None) -> str | None:
        """The prompt that holds: the text given, else the name given, else the default name."""
        if prompt is not None:
            if not isinstance(prompt, str):
                raise ValueError(f"prompt must be text, got {prompt!r}")
            return prompt
        if prompt_name is not None:
            if prompt_name not in self.prompts:
                raise ValueError(f"there is no prompt {prompt_name!r}; there are {sorted(self.prompts)}")
            return self.prompts[prompt_name]
        if self.default_prompt_name is not None:
            return self.prompts.get(self.default_prompt_name)
        return None

    def _call(
        self,
        kwargs: Mapping[str, Any],
        *,
        prompt: str | None,
        prompt_name: str | None,
        batch_size: int | None,
        show_progress_bar: bool | None,
    ) -> Call:
        """One call's wishes, checked; raises ValueError for arguments nobody takes."""
        unknown = set(kwargs) - {"task", "processing_kwargs"}
        if unknown:
            raise ValueError(f"{self.family} has no use for the arguments {sorted(unknown)}")
        check_positive("batch_size", batch_size)
        task = kwargs.get("task")
        base = Call(
            task=task,
            prompt=self._prompt(prompt, prompt_name),
            batch_size=batch_size,
            progress=show_progress_bar,
            **_saved_processing(self._engine.modules),
        )
        return replace(base, **read_processing(kwargs.get("processing_kwargs")))

    def _everywhere(
        self,
        placement: Placement,
        job: Callable[..., Result],
        listed: list[Any],
        options: Call,
        *arguments: object,
    ) -> list[Result]:
        """Return ``job(model, inputs, options, *arguments)`` for all inputs, as parts in order.

        One device computes in this process, after the model has moved there; several devices or a pool compute in worker processes.
        """
        check_positive("chunk_size", placement.chunk_size)
        device, pool = placement.device, placement.pool
        several = pool is not None or isinstance(device, (list, tuple))
        if not several and device is not None and str(device) != str(self.device):
            self.to(device)
        if not several or not listed:
            return [job(self, listed, options, *arguments)]
        with self._workers(device, pool) as workers:
            silent = replace(options, progress=False)
            parts = workers.run(job, listed, (silent, *arguments), placement.chunk_size, options.progress)
        return cast("list[Result]", parts)

    @contextmanager
    def _workers(self, devices: Sequence[Any], pool: object) -> Iterator[WorkerPool]:
        """Yield the pool of a call, or one for this call alone on ``devices``; raise ValueError for another model's pool."""
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

    def _start_pool(self, devices: Sequence[Any]) -> WorkerPool:
        from st_core.processes.pool import WorkerPool

        for device in devices:
            check_device(self.backend, device)
            if self._engine.uses_torch and str(device) != "cpu":  # a model with a light route has not imported torch
                from st_core.backends.torch.backend import pick_device

                pick_device(device)
        names = [str(device) for device in devices]
        share = self._engine.graphs is None  # the runtimes of graphs have threads
        return WorkerPool(Recipe.of(self), names, owner=self.checkpoint, share=share)

    def start_multi_process_pool(self, target_devices: Any = None) -> WorkerPool:
        """Start a process for each device, ["cuda:0", "cuda:1"] or ["cpu", "cpu"], to be passed to calls as ``pool``.

        None takes every CUDA device, or else up to four processes on the CPU, which share its cores; a single name is one device. The model
        stays where it is. Raises ValueError for an unknown device, before any process is started, the errors of loading in a process, and
        RuntimeError where one dies.
        """
        from st_core.processes.pool import default_devices

        if "device_map" in (self._loading.get("model_kwargs") or {}):
            raise ValueError("workers place the model themselves: load it without a device_map to start them")
        if target_devices is None:
            target_devices = default_devices()
        single = isinstance(target_devices, str) or not isinstance(target_devices, Iterable)
        return self._start_pool([target_devices] if single else list(target_devices))

    @staticmethod
    def stop_multi_process_pool(pool: WorkerPool) -> None:
        """End the processes of a pool; does nothing where they are ended already."""
        pool.stop()

    def to(self, device: Any) -> Any:
        """Move the model to another device; not while another thread is using it. Raises ValueError for one that graphs do not run on."""
        check_device(self.backend, device)
        if self._engine.uses_torch:
            limit = self._engine.limit
            self._engine = Engine(self._engine.modules, device, self._engine._dtype)  # noqa: SLF001
            self._engine.limit = limit
        return self

    @property
    def device(self) -> Any:
        """The torch device it computes on, or "cpu" for a model that needs no torch."""
        return self._engine.device

    @property
    def backend(self) -> str:
        """What runs its transformers: torch, onnx or openvino."""
        graphs = self._engine.graphs
        return "torch" if graphs is None else graphs.name

    @property
    def tokenizer(self) -> Any:
        """The tokenizer's own object: transformers' for a transformer on torch, the tokenizers library's for the others."""
        return self._engine.outline(self._engine.tasks()[0]).tokenizer.shown

    @property
    def max_seq_length(self) -> Any:
        """The most tokens of a text that are read, special ones counted; infinity for a static model without a limit, None for a bag of words."""
        lengths = [self._length(task) for task in self._engine.tasks()]
        return None if None in lengths else max(length for length in lengths if length is not None)

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        limit = None if value == float("inf") else value
        if limit is not None and (not isinstance(limit, (int, np.integer)) or limit < 1):
            raise ValueError(f"max_seq_length must be a positive integer, or None for no limit, got {value!r}")
        self._engine.limit = limit

    def _length(self, task: str | None) -> int | float | None:
        length = self._engine.max_length(task)
        if length is not None:
            return length
        first = flatten(self._engine.modules, task)[0]
        if isinstance(first, BoW):
            return None
        return float("inf") if isinstance(first, StaticEmbedding) else NO_LIMIT

    def get_max_seq_length(self) -> Any:
        """The same as ``max_seq_length``."""
        return self.max_seq_length

    def _dimension(self) -> int | None:
        return stack_dimension(self._engine.modules)

    def get_model_kwargs(self) -> list[str]:
        """The extra arguments the model's own code takes: none, for there is no such code."""
        return []

    def set_pooling_include_prompt(self, include_prompt: bool) -> None:
        """Say whether the tokens of the prompt count in the pooling; not while another thread is using the model."""
        modules = [
            replace(module, include_prompt=include_prompt) if isinstance(module, Pooling) else module
            for module in self._engine.modules
        ]
        self._engine = self._engine.with_modules(modules)

    def tokenize(self, texts: Sequence[Any], **kwargs: Any) -> dict[str, Any]:
        """The old name of ``preprocess``."""
        return self.preprocess(texts, **kwargs)

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """The tokens of a list of texts or pairs: ``input_ids`` and ``attention_mask`` [n, longest] int64, as arrays."""
        from st_core.text.tokens import pad

        call = self._call(kwargs, prompt=prompt, prompt_name=None, batch_size=None, show_progress_bar=False)
        call = replace(call, prompt=prompt)
        tokens = self._engine.tokenize(as_texts(inputs), call)
        tokenizer = self._engine.runner(call.task).tokenizer
        ids, mask = pad(tokens.ids, tokenizer.pad_id, left=tokenizer.pad_left)
        features = {"input_ids": ids, "attention_mask": mask}
        if tokenizer.wants_types:
            types, _ = pad(tokens.types or [row * 0 for row in tokens.ids], tokenizer.pad_type, left=tokenizer.pad_left)
            features["token_type_ids"] = types
        return features

    def save_pretrained(
        self,
        path: str | PathLike[str],
        model_name: str | None = None,
        create_model_card: bool = True,
        train_datasets: Sequence[str] | None = None,  # noqa: ARG002 - sentence-transformers' argument, which it ignores too
        safe_serialization: bool = True,
    ) -> None:
        """Save the model as a folder that this engine and sentence-transformers load, with its prompts and what else was set.

        A model on onnx or openvino is saved with its graph, which loads with the same ``backend`` and ``dtype``. ``model_name`` stands in the card,
        which is written where the model brought none of its own. A folder that holds another model gets this one instead, whole, or stays as it
        was; files that are no model's stay in any case. Weights are saved as safetensors only: ``safe_serialization=False`` is a ValueError.
        """
        if not safe_serialization:
            raise ValueError("weights are saved as safetensors only; leave safe_serialization on")
        given = next((file for task in self._engine.tasks() if (file := self._given_file(task)) is not None), None)
        if given is not None:
            raise ModelUnsupported(
                f"the model runs the graph {given}, not its weights: copy its folder, or save it as loaded with backend='torch'"
            )
        from st_core.saving.save import card_of, save_folder, settled

        settings = {key: value for key, value in self._now_saved().items() if value is not None}
        name = model_name or self.checkpoint.name
        card = card_of(self.checkpoint.folder / "README.md", name, self.family) if create_model_card else None
        if self._engine.graphs is None:
            save_folder(Path(path), settled(self._engine), settings, self._saved_files(), card)
            return
        from st_core.saving.export import copy_graphs, graph_places

        places, trusted = graph_places(self._engine), self._loading["trust_remote_code"]
        save_folder(Path(path), settled(self._engine), settings, self._saved_files(), card)
        copy_graphs(places, self._engine, Path(path), self.family, trust_remote_code=trusted)

    def _given_file(self, task: str | None) -> Path | None:
        """The graph that a stack came with, None where it has weights."""
        file: Path | None = getattr(self._engine.runner(task), "file", None)
        return file

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
        """Save the model to a repository on the Hub, which is made where it is new, and give the address of the commit or pull request.

        ``local_model_path`` uploads that folder instead. A card that is there stays unless ``replace_model_card``. The errors of
        huggingface_hub come through.
        """
        from st_core.saving.save import push_folder

        def save(folder: str) -> None:
            card = replace_model_card or not exist_ok
            self.save_pretrained(folder, repo_id, create_model_card=card, safe_serialization=safe_serialization)

        return push_folder(
            save,
            repo_id,
            local_path=local_model_path,
            message=commit_message or f"Add new {self.family} model",
            token=token,
            private=private,
            exist_ok=exist_ok,
            revision=revision,
            create_pr=create_pr,
        )

    def _now_saved(self) -> dict[str, Any]:
        """What ``config_sentence_transformers.json`` says of the model as it is now; None for what it shall not say."""
        from importlib.metadata import version

        return {
            **self._settings,
            "model_type": self.family,
            "__version__": {"st_connectors": version("st-connectors")},
            "prompts": self.prompts,
            "default_prompt_name": self.default_prompt_name,
        }

    def _saved_files(self) -> dict[str, Any]:
        """More JSON files that belong to the model, by name."""
        return {}

    def __getitem__(self, index: int) -> Module:
        """A module: its configuration and weights."""
        return self._engine.modules[index]

    def __len__(self) -> int:
        """How many modules there are."""
        return len(self._engine.modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._engine.modules)

    def __repr__(self) -> str:
        kinds = ", ".join(type(module).__name__ for module in self._engine.modules)
        return f"{type(self).__name__}({self.checkpoint.name!r}: {kinds})"


def _saved_processing(modules: Sequence[Module]) -> dict[str, Any]:
    """What the checkpoint itself says about cutting texts."""
    saved = {
        key: value
        for key, value in getattr(modules[0], "text_kwargs", {}).items()
        if key in ("max_length", "truncation")
    }
    return read_processing(saved)

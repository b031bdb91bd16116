"""The attributes of sentence-transformers' models that belong to torch modules, as far as a loaded model has them.

A model of this package is not a ``torch.nn.Module``: its weights never change, and it may run without torch. Attributes
that need changeable weights or modules raise AttributeError with what to use in their place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self, TypeVar

import numpy as np

from st_core.arguments import LoadArguments
from st_core.backends import RunOptions
from st_core.module_view import ModuleView, module_of
from st_core.modules.router import Router
from st_core.modules.transformer import Transformer
from st_core.renamed import warn_of_old_name
from st_core.text.tokens import Tokens

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from transformers import PretrainedConfig, PreTrainedModel

    from st_core.backends import Features
    from st_core.engine.engine import Engine
    from st_core.modules import Module

__all__ = ["Compatible", "advice"]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Value = TypeVar("Value")

_BY_ADVICE: Mapping[str, Sequence[str]] = {
    "adapters are merged into the weights when a model is loaded; change them with peft and load the result": (
        *("active_adapter", "active_adapters", "check_peft_compatible_model", "delete_adapter"),
        *("disable_adapters", "enable_adapters", "get_adapter_state_dict", "has_peft_compatible_model"),
        *("load_adapter", "set_adapter"),
    ),
    "a loaded model is not trained; train the form that st_core.backends.torch.trainable returns": (
        *("fit", "gradient_checkpointing_enable", "old_fit", "smart_batching_collate"),
        *("smart_batching_collate_text_only", "zero_grad"),
    ),
    "the list of modules of a loaded model does not change; build another model from modules with modules=[…]": (
        *("add_module", "append", "extend", "insert", "pop", "register_module", "set_submodule"),
    ),
    "the weights of a loaded model do not change; save other weights to a folder and load it": (
        *("apply", "load_state_dict", "merge", "register_buffer", "register_parameter", "set_extra_state"),
        *("share_memory", "smart_apply", "to_empty"),
    ),
    "a model does not pass its results through hooks; read them with encode(…, output_value=None)": (
        *("register_backward_hook", "register_forward_hook", "register_forward_pre_hook"),
        *("register_full_backward_hook", "register_full_backward_pre_hook"),
        *("register_load_state_dict_post_hook", "register_load_state_dict_pre_hook"),
        *("register_state_dict_post_hook", "register_state_dict_pre_hook"),
    ),
    "a device or a dtype is set with to(…), half(), float(), bfloat16() or double()": (
        *("ipu", "keep_in_fp32_modules", "mtia", "set_keep_in_fp32_modules", "type", "xpu"),
    ),
    "a model is placed when it is loaded, or by to(…)": ("clear_placement_cache", "is_hpu_graph_enabled"),
    "the metadata of every class has the type st_core.model_card.ModelCardData": ("model_card_data_class",),
    "call preprocess(texts)": ("get_sentence_features",),
    "custom code of modules is not run; pass task= and processing_kwargs= to the call": ("module_kwargs",),
    "the model is no torch.nn.Module; its modules are model[0], model[1], …": (
        *("T_destination", "call_super_init", "dump_patches", "extra_repr", "get_extra_state"),
    ),
    "memory is limited without it, because the logits of a vocabulary are pooled in blocks": (
        "splade_pooling_chunk_size",
    ),
}
"""What to do in place of using an attribute that models of sentence-transformers have, with the names it is for."""

_ADVICE = {name: text for text, names in _BY_ADVICE.items() for name in names}


def advice(name: str) -> str | None:
    """Return what to do in place of using an attribute of sentence-transformers' models; None for other names."""
    return _ADVICE.get(name)


class Compatible:
    """Attributes of sentence-transformers' models that depend on the loaded weights and modules."""

    family: ClassVar[str]
    organisation: ClassVar[str]
    model_type: ClassVar[str]
    default_huggingface_organization: ClassVar[str]

    training: bool = False
    """Always False: a loaded model computes without dropout."""

    _card: object
    _engine: Engine
    _loading: LoadArguments

    if TYPE_CHECKING:  # defined by the class that is combined with this one

        def __iter__(self) -> Iterator[ModuleView]: ...

    def __init_subclass__(cls, **options: object) -> None:
        """Set the names that sentence-transformers has for class attributes."""
        super().__init_subclass__(**options)
        for name, own in (("model_type", "family"), ("default_huggingface_organization", "organisation")):
            if own in vars(cls):
                setattr(cls, name, vars(cls)[own])

    def __getattr__(self, name: str) -> NoReturn:
        """Raise AttributeError, with what to use in place of an attribute of sentence-transformers' models."""
        instead = advice(name)
        kind = type(self).__name__
        raise AttributeError(f"a {kind} has no attribute {name!r}" + (f": {instead}" if instead else ""))

    def __call__(self, features: Mapping[str, object], **kwargs: str | None) -> Features:
        """Call :meth:`forward`."""
        return self.forward(features, **kwargs)

    def forward(self, features: Mapping[str, object], task: str | None = None) -> Features:
        """Return the features of a batch, extended by those that the modules write, such as ``sentence_embedding``.

        ``features`` are those that ``preprocess`` returns: ``input_ids`` and ``attention_mask`` [n, t], and
        ``token_type_ids`` where the model reads them, as arrays or tensors. Results are tensors without gradients on
        torch and arrays on other backends.
        """
        ids, mask = (_array(features[name]) for name in ("input_ids", "attention_mask"))
        types = features.get("token_type_ids")
        rows = [row[kept > 0].astype(np.int32) for row, kept in zip(ids, mask, strict=True)]
        kinds = None if types is None else [row[kept > 0] for row, kept in zip(_array(types), mask, strict=True)]
        prompts = features.get("prompt_length")
        lengths = None if prompts is None else np.broadcast_to(_array(prompts), len(rows)).astype(np.int64)
        results = self._engine.runner(task).run(Tokens(rows, kinds), RunOptions(prompt_lengths=lengths))
        return {**features, **{name: value for name, value in results.items() if name != "tokens"}}

    def get_backend(self) -> str:
        """Return the value of ``backend``: torch, onnx or openvino."""
        return self._engine.plan.backend

    @property
    def modalities(self) -> list[str]:
        """The kinds of inputs that the model reads: only text."""
        return ["text"]

    def supports(self, modality: str | tuple[str, ...]) -> bool:
        """Return whether the model reads a kind of input."""
        return modality in self.modalities

    @property
    def trust_remote_code(self) -> bool:
        """Whether the code of the checkpoint was trusted when the model was loaded."""
        return bool(self._loading.get("trust_remote_code", False))

    @property
    def model_card_data(self) -> Any:
        """Metadata that callers and evaluators record about the model: a ModelCardData, or the object that was set."""
        return self._card

    @model_card_data.setter
    def model_card_data(self, value: object) -> None:
        self._card = value

    @property
    def processor(self) -> Any:
        """The value of ``tokenizer``, because models read only text."""
        return getattr(self, "tokenizer")  # noqa: B009 - defined by the class that is combined with this one

    @property
    def dtype(self) -> torch.dtype | np.dtype[np.float32] | None:
        """The torch dtype of the weights in memory; None for a model that runs as a graph.

        For a model on numpy without an installation of torch it is a numpy dtype.
        """
        engine = self._engine
        if engine.graphs is not None:
            return None
        if find_spec("torch") is None:
            return np.dtype(np.float32)
        import torch

        known: torch.dtype = getattr(torch, engine.runner(engine.tasks()[0]).info.precision)
        return known

    @property
    def config(self) -> PretrainedConfig | None:
        """The configuration of transformers for the first transformer of the model, None for a model without one.

        It cannot be changed: pass ``config_kwargs`` when loading the model.
        """
        module = next(_transformers(self._engine.modules), None)
        return None if module is None else self._engine.factory.config(module)

    @property
    def transformers_model(self) -> PreTrainedModel | None:
        """The first transformer of the model as an object of transformers, None for a model without one.

        It is a second copy of the weights, loaded on first use. Changes to it have no effect on the model, and torch
        refuses to change its weights in place. Raises ModelUnsupported for a model that runs as a graph.
        """
        module = next(_transformers(self._engine.modules), None)
        return None if module is None else self._engine.factory.library(module)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return copies of the weights by name, with the names of sentence-transformers.

        torch refuses to change them in place. Transformers are loaded as for :attr:`transformers_model`. Raises
        ModelUnsupported for a model that runs as a graph.
        """
        from st_core.backends.torch.weights import state_of

        return state_of(self._engine.modules, self._engine.factory.library)

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the name of each parameter and its value as in :meth:`state_dict`, a shared one once."""
        from st_core.backends.torch.weights import parameters_of

        found = parameters_of(self._engine.modules, self._engine.factory.library)
        return ((f"{prefix}.{name}" if prefix else name, value) for name, value in found.items())

    def parameters(self) -> Iterator[torch.Tensor]:
        """Yield each parameter once; see :meth:`named_parameters`."""
        return (value for _, value in self.named_parameters())

    def get_parameter(self, target: str) -> torch.Tensor:
        """Return the parameter of a name; raise AttributeError for an unknown name."""
        return _named(dict(self.named_parameters()), target, "parameter")

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the name of each buffer of the transformers and its value, as in :meth:`named_parameters`."""
        from st_core.backends.torch.weights import buffers_of

        found = buffers_of(self._engine.modules, self._engine.factory.library)
        return ((f"{prefix}.{name}" if prefix else name, value) for name, value in found.items())

    def buffers(self) -> Iterator[torch.Tensor]:
        """Yield each buffer; see :meth:`named_buffers`."""
        return (value for _, value in self.named_buffers())

    def get_buffer(self, target: str) -> torch.Tensor:
        """Return the buffer of a name; raise AttributeError for an unknown name."""
        return _named(dict(self.named_buffers()), target, "buffer")

    def children(self) -> Iterator[ModuleView]:
        """Yield the modules of the module list."""
        return (module for _, module in self.named_children())

    def named_children(self) -> Iterator[tuple[str, ModuleView]]:
        """Yield the index of each module of the module list, as text, and the module."""
        return ((str(index), module) for index, module in enumerate(self))

    def modules(self) -> Iterator[Self | ModuleView]:
        """Yield the model and its modules, those of routes included, but not the layers of transformers."""
        return (module for _, module in self.named_modules())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Self | ModuleView]]:
        """Yield the model and its modules with their names, those of routes included, but not layers of transformers.

        A module that two routes share has the name in the first one. The layers are those of
        ``transformers_model.named_modules()``.
        """
        yield prefix, self
        seen: set[int] = set()
        for name, module in self.named_children():
            place = f"{prefix}.{name}" if prefix else name
            yield place, module
            for inner, part in _in_routes(module, place) if isinstance(module_of(module), Router) else ():
                if id(module_of(part)) not in seen:
                    seen.add(id(module_of(part)))
                    yield inner, part

    def get_submodule(self, target: str) -> Self | ModuleView:
        """Return the module of a name of :meth:`named_modules`; raise AttributeError for an unknown name."""
        return _named(dict(self.named_modules()), target, "module")

    def eval(self) -> Self:
        """Return the model, which always computes as in evaluation."""
        return self

    def train(self, mode: bool = True) -> Self:
        """Return the model for ``mode=False``; raise ValueError for training, which a loaded model does not do."""
        if mode:
            raise ValueError(f"train() of a {self.family}: {_ADVICE['fit']}")
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Return the model for ``requires_grad=False``; raise ValueError for gradients."""
        if requires_grad:
            raise ValueError(f"requires_grad_() of a {self.family}: {_ADVICE['fit']}")
        return self

    def compile(self, *args: object, **kwargs: object) -> None:  # noqa: ARG002 - the arguments of torch
        """Do nothing and log a warning, because the computation is prepared when the model is first used."""
        logger.warning(
            "compile() of a %s has no effect: its computation is prepared on first use; backend='auto' selects the "
            "fastest one on this machine",
            self.family,
        )

    def half(self) -> Self:
        """Compute in float16; the weights are loaded again. Raises ValueError for a model that does not run on torch.

        Do not call this, :meth:`float`, :meth:`bfloat16` or :meth:`double` while another thread uses the model.
        """
        return self._in("float16")

    def float(self) -> Self:
        """Compute in float32; see :meth:`half`."""
        return self._in("float32")

    def bfloat16(self) -> Self:
        """Compute in bfloat16; see :meth:`half`."""
        return self._in("bfloat16")

    def double(self) -> Self:
        """Compute in float64; see :meth:`half`."""
        return self._in("float64")

    def _in(self, dtype: str) -> Self:
        """Compute in another dtype and return the model."""
        engine = self._engine
        if not engine.uses_torch:
            raise ValueError(
                f"the dtype of a {self.family} on {engine.plan.backend if engine.graphs else 'numpy'} does not change "
                "after loading; load it with dtype=… on a backend that computes in that type"
            )
        if str(engine.runner(engine.tasks()[0]).info.precision) != dtype:
            self._engine = engine.on(replace(engine.plan, dtype=dtype))
        return self

    def cpu(self) -> Self:
        """Call ``to("cpu")``."""
        return self._moved("cpu")

    def cuda(self, device: int | str | None = None) -> Self:
        """Call ``to`` with a CUDA device, which may be a number; the default is the current one."""
        return self._moved("cuda" if device is None else f"cuda:{device}" if isinstance(device, int) else device)

    def _moved(self, device: str) -> Self:
        to: Callable[[str], Self] = getattr(self, "to")  # noqa: B009 - defined by the class combined with this one
        return to(device)

    def evaluate(self, evaluator: Callable[[Self, str | None], Result], output_path: str | None = None) -> Result:
        """Return ``evaluator(model, output_path)``; the folder ``output_path`` is created."""
        if output_path is not None:
            Path(output_path).mkdir(parents=True, exist_ok=True)
        return evaluator(self, output_path)

    def save_to_hub(self, repo_id: str, organization: str | None = None, **kwargs: object) -> str:
        """Call ``push_to_hub``, under its old name; ``organization`` is put in front of ``repo_id``.

        Raises ValueError if ``repo_id`` has another organization.
        """
        warn_of_old_name("save_to_hub is now named push_to_hub")
        owner = repo_id.rpartition("/")[0]
        if organization and owner and owner != organization:
            raise ValueError(f"repo_id={repo_id!r} is not of organization={organization!r}; leave out organization")
        push: Callable[..., str] = getattr(self, "push_to_hub")  # noqa: B009 - defined by the class combined with this
        return push(repo_id if organization is None or "/" in repo_id else f"{organization}/{repo_id}", **kwargs)


def _array(values: object) -> NDArray[np.integer]:
    """Return a tensor or an array as an array."""
    return np.asarray(values.cpu().numpy() if hasattr(values, "cpu") else values)


def _transformers(modules: Sequence[Module]) -> Iterator[Transformer]:
    """Yield the transformers among modules and in the routes of routers."""
    for module in modules:
        if isinstance(module, Transformer):
            yield module
        elif isinstance(module, Router):
            for route in module.routes.values():
                yield from _transformers(route)


def _in_routes(router: ModuleView, place: str) -> Iterator[tuple[str, ModuleView]]:
    """Yield the modules in the routes of a router with their names."""
    for route, stack in router.sub_modules.items():
        for index, module in enumerate(stack):
            yield f"{place}.sub_modules.{route}.{index}", module


def _named(found: Mapping[str, Value], name: str, what: str) -> Value:
    """Return the value of a name; raise AttributeError for an unknown name."""
    if name not in found:
        raise AttributeError(f"the model has no {what} {name!r}; expected one of {', '.join(list(found)[:8])}, …")
    return found[name]

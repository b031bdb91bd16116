"""Modules of a checkpoint: configuration and weights, without computation and without torch.

Each module type has its own file, named like the class: ``SparseAutoEncoder`` in ``sparse_auto_encoder.py``. The file
contains a frozen dataclass with slots that implements :class:`Module`, with weights as numpy arrays. The computation of
a module is defined in the backends, each of which has one table by class: ``STEPS`` in
:mod:`st_core.backends.numpy.modules` and :mod:`st_core.backends.torch.modules`.

To add a module type, write its file and add its entry to the table of each backend that runs it. A type defined outside
this package becomes loadable with :func:`register`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import Field, FrozenInstanceError, dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeGuard, TypeVar

from st_core.checkpoint.files import JsonObject, last_name, read_object
from st_core.checkpoint.tensors import read_weights
from st_core.errors import ModelBroken, ModelError, ModelUnsupported

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from st_core.text.tokens import AnyTokenizer, TextTokenizer

__all__ = [
    "LoadOptions",
    "Module",
    "ModuleFiles",
    "Parts",
    "TextModule",
    "advice_of_setting",
    "load_module",
    "register",
    "supported_names",
    "unchangeable",
]

SENTENCE_EMBEDDING = "sentence_embedding"
TOKEN_EMBEDDINGS = "token_embeddings"  # noqa: S105 - the name of a feature


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Options of loading that are not part of a checkpoint's files.

    ``hub`` are the arguments with which ``find_checkpoint`` finds the base model of an adapter.
    """

    trust_remote_code: bool = False
    model_kwargs: Mapping[str, object] = field(default_factory=dict)
    processor_kwargs: Mapping[str, object] = field(default_factory=dict)
    config_kwargs: Mapping[str, object] = field(default_factory=dict)
    hub: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModuleFiles:
    """The folder of one module inside a checkpoint.

    ``root`` is the checkpoint's folder, ``folder`` the module's own folder (equal to ``root`` for a module saved there)
    and ``type_path`` the type as written in ``modules.json``.
    """

    root: Path
    folder: Path
    type_path: str
    options: LoadOptions = field(default_factory=LoadOptions)

    def config(self, name: str = "config.json") -> JsonObject:
        """Return the module's configuration; raise ModelBroken where the file is missing or is not a JSON object."""
        return read_object(self.folder / name)

    def weights(self) -> dict[str, NDArray[np.generic]]:
        """Return the module's tensors, from ``model.safetensors`` or ``pytorch_model.bin``."""
        return read_weights(self.folder)

    def tokenizer_path(self, name: str = "tokenizer.json") -> Path:
        """Return the path of a tokenizer file of the module, or of the checkpoint if the module has no such file."""
        own, shared = self.folder / name, self.root / name
        return shared if shared.is_file() and not own.is_file() else own


@dataclass(frozen=True, slots=True)
class Parts:
    """The content of a module's folder.

    ``json`` and ``texts`` are contents by file name. ``tensors`` are written to ``model.safetensors`` (None entries are
    left out) and ``tokenizer`` to ``tokenizer.json``. Files in ``copies`` are copied unchanged. ``pickles`` maps the
    names of safetensors files to the pickled weights that they are converted from, and ``index`` is the name of the
    file that lists them. ``children`` are modules by folder name.
    """

    json: Mapping[str, object] = field(default_factory=dict)
    tensors: Mapping[str, NDArray[np.generic] | None] = field(default_factory=dict)
    tokenizer: TextTokenizer | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    copies: tuple[Path, ...] = ()
    pickles: Mapping[str, Path] = field(default_factory=dict)
    index: str | None = None
    children: Mapping[str, Module] = field(default_factory=dict)


class Module(Protocol):
    """One entry of a checkpoint's module list: a dataclass with configuration and weights.

    Fingerprints and graph keys are hashes of its fields, so adding or renaming a field changes them.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    type_path: ClassVar[str]
    """The dotted path of the class in sentence-transformers 6.2; its last part is the name of the type."""

    old_names: ClassVar[tuple[str, ...]]
    """Names of the type in older checkpoints."""

    reads_text: ClassVar[bool]
    """Whether the module may be the first of a stack."""

    is_traceable: ClassVar[bool]
    """Whether the module can follow a transformer in a graph."""

    @property
    def requires(self) -> str | None:
        """The feature that an earlier module must write; None where the module reads texts or its input is optional."""
        ...

    @property
    def writes(self) -> str:
        """The feature that the module writes."""
        ...

    @property
    def dimension(self) -> int | None:
        """The width of the feature that the module writes; None where it equals the width of its input."""
        ...

    @classmethod
    def load(cls, files: ModuleFiles) -> Module:
        """Return the module in a folder.

        Raises ModelBroken or ModelUnsupported, and KeyError for a missing key or tensor.
        """
        ...

    def save(self) -> Parts:
        """Return the content of the module's folder; raise ModelUnsupported for options that no file can express."""
        ...


class TextModule(Module, Protocol):
    """A module that can be the first of a stack and has its own tokenizer, so that no backend has to load one."""

    @property
    def tokenizer(self) -> AnyTokenizer:
        """The tokenizer of the stack's texts."""
        ...

    @property
    def max_length(self) -> int | None:
        """The maximum number of tokens read of a text; None for no limit."""
        ...


ModuleType = TypeVar("ModuleType", bound=type[Module])

_ADVICE = {
    "auto_model": "save other weights to a folder and load it",
    "chunk_size": "memory is limited without it, because the logits of a vocabulary are pooled in blocks",
    "config": "load the model with config_kwargs",
    "include_prompt": "call set_pooling_include_prompt of the model",
    "max_seq_length": "set max_seq_length of the model",
    "model": "save other weights to a folder and load it",
    "model_args": "load the model with model_kwargs",
    "model_kwargs": "load the model with model_kwargs",
    "processing_kwargs": "pass processing_kwargs to the call",
    "processor_kwargs": "load the model with processor_kwargs, or set the attributes of model.tokenizer",
    "query_expansion": "it is for multi-vector models, which are not supported",
    "unpad_inputs": "padding is left out of the computation wherever that is faster, with equal results",
}
"""What to do in place of setting an attribute of a module."""


def advice_of_setting(kind: str, name: str, known: tuple[str, ...] = ()) -> str:
    """Return why an attribute of a kind of module cannot be set, with what to do in its place.

    ``known`` are the names of settings that the kind of module has.
    """
    default = f"its settings are {', '.join(known)}" if known else "set it in the checkpoint"
    return f"{name} of {kind} cannot be set, because a loaded module does not change: {_ADVICE.get(name, default)}"


def unchangeable(module_type: ModuleType) -> ModuleType:
    """Make assignments to a module raise an error with advice; use it as a decorator above ``dataclass``.

    A model computes with forms that are derived from its modules, so that a later change would have no effect. The
    error of dataclasses with slots is a TypeError about ``super``.
    """

    def refuse(self: object, name: str, _value: object = None) -> None:
        raise FrozenInstanceError(advice_of_setting(type(self).__name__, name))

    def get_embedding_dimension(self: Module) -> int | None:
        """Return the width of the feature that the module writes."""
        return self.dimension

    module_type.__setattr__ = refuse  # type: ignore[method-assign]
    module_type.__delattr__ = refuse  # type: ignore[method-assign]
    for name in ("get_embedding_dimension", "get_word_embedding_dimension", "get_sentence_embedding_dimension"):
        setattr(module_type, name, get_embedding_dimension)  # names in versions of sentence-transformers
    return module_type


_OURS = ("sentence_transformers.", "st_core.")
_registered: dict[str, type[Module]] = {}


def register(module_type: ModuleType) -> ModuleType:
    """Make a module type defined outside this package loadable by its ``type_path``; usable as a class decorator."""
    _registered[module_type.type_path] = module_type
    return module_type


def load_module(files: ModuleFiles) -> Module:
    """Return the module in a folder; raise ModelUnsupported for a module type that is not supported."""
    module_type = _registered.get(files.type_path)
    if module_type is None and files.type_path.startswith(_OURS):
        module_type = _module_type(last_name(files.type_path))
    if module_type is None:
        origin = "module" if files.type_path.startswith(_OURS) else "module of custom code"
        raise ModelUnsupported(
            f"{files.root}: unsupported {origin} {files.type_path!r}; expected one of {', '.join(supported_names())}"
        )
    name = last_name(files.type_path)
    try:
        return module_type.load(files)
    except ModelError:
        raise
    except KeyError as error:
        raise ModelBroken(f"{files.folder}: {name} lacks {error}") from error
    except OSError as error:
        raise ModelBroken(f"{files.folder}: a file of {name} cannot be read: {error}") from error
    except (ArithmeticError, AttributeError, RecursionError, TypeError, ValueError) as error:
        raise ModelBroken(f"{files.folder}: a file of {name} contains an unexpected value: {error}") from error


def supported_names() -> list[str]:
    """Return the names of all module types of this package, including old names."""
    return sorted(_types_by_name())


def _module_type(name: str) -> type[Module] | None:
    """Return the module type of a name, None for an unknown name; only old names import the whole package."""
    file = next((file for file in _files() if file.replace("_", "") == name.lower()), None)
    found = None if file is None else getattr(import_module(f"{__name__}.{file}"), name, None)
    return found if _is_module_type(found, f"{__name__}.{file}") else _types_by_name().get(name)


def _files() -> list[str]:
    return [each.name for each in pkgutil.iter_modules(__path__)]


@cache
def _types_by_name() -> dict[str, type[Module]]:
    """Return the module types of this package by all their names."""
    types: dict[str, type[Module]] = {}
    for file in (f"{__name__}.{name}" for name in _files()):
        for value in vars(import_module(file)).values():
            if _is_module_type(value, file):
                types |= dict.fromkeys((last_name(value.type_path), *value.old_names), value)
    return types


def _is_module_type(value: object, file: str) -> TypeGuard[type[Module]]:
    """Return whether a value is a module type defined in the file."""
    return isinstance(value, type) and value.__module__ == file and hasattr(value, "type_path")

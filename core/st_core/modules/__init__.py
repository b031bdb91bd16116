"""Modules of a checkpoint: configuration and weights, without arithmetic and without torch.

One file per module type, named like the class: ``SparseAutoEncoder`` in ``sparse_auto_encoder.py``. Each contains a
frozen, slotted dataclass that meets :class:`Module`, with weights as numpy arrays. What a module computes is in the
backends, in one table per backend, by class: ``STEPS`` in :mod:`st_core.backends.numpy.modules` and
:mod:`st_core.backends.torch.modules`.

To add a module type, write its file and add its entry to the table of each backend that runs it. A type defined outside
this package is made loadable by :func:`register`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import Field, dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeGuard, TypeVar

from st_core.checkpoint.files import JsonObject, last_name, read_object
from st_core.checkpoint.tensors import read_weights
from st_core.errors import ModelBroken, ModelUnsupported

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
    "load_module",
    "register",
    "supported_names",
]

SENTENCE_EMBEDDING = "sentence_embedding"
TOKEN_EMBEDDINGS = "token_embeddings"  # noqa: S105 - the name of a feature


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Options of loading beyond the checkpoint's own files; ``hub`` are those of ``find_checkpoint``, for adapters."""

    trust_remote_code: bool = False
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    processor_kwargs: Mapping[str, Any] = field(default_factory=dict)
    config_kwargs: Mapping[str, Any] = field(default_factory=dict)
    hub: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModuleFiles:
    """The folder of one module inside a checkpoint.

    ``root`` is the checkpoint, ``folder`` the module's own folder (the root itself for a module saved there) and
    ``type_path`` the type as ``modules.json`` writes it.
    """

    root: Path
    folder: Path
    type_path: str
    options: LoadOptions = field(default_factory=LoadOptions)

    def config(self, name: str = "config.json") -> JsonObject:
        """Return the module's configuration; raises ModelBroken where the file is missing or not a JSON object."""
        return read_object(self.folder / name)

    def weights(self) -> dict[str, NDArray[np.generic]]:
        """Return the module's tensors, from ``model.safetensors`` or ``pytorch_model.bin``."""
        return read_weights(self.folder)

    def tokenizer_path(self) -> Path:
        """Return the module's ``tokenizer.json``, or the checkpoint's where the module has none of its own."""
        own, shared = self.folder / "tokenizer.json", self.root / "tokenizer.json"
        return shared if shared.is_file() and not own.is_file() else own


@dataclass(frozen=True, slots=True)
class Parts:
    """What a module saves in its folder.

    ``json`` and ``texts`` are contents by file name, ``tensors`` go to ``model.safetensors`` (None entries are left
    out), ``tokenizer`` to ``tokenizer.json``. Files in ``copies`` are copied as they are. ``pickles`` maps names of
    safetensors files to the pickled weights they are converted from, and ``index`` names the file that lists them.
    ``children`` are modules by folder name.
    """

    json: Mapping[str, object] = field(default_factory=dict)
    tensors: Mapping[str, NDArray[Any] | None] = field(default_factory=dict)
    tokenizer: TextTokenizer | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    copies: tuple[Path, ...] = ()
    pickles: Mapping[str, Path] = field(default_factory=dict)
    index: str | None = None
    children: Mapping[str, Module] = field(default_factory=dict)


class Module(Protocol):
    """One entry of a checkpoint's module list, a dataclass: its configuration and weights.

    Fingerprints and graph keys are hashes of its fields: adding or renaming one changes them.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    type_path: ClassVar[str]
    """The dotted path of the class as sentence-transformers 6.2 writes it; its last part is the name of the type."""

    old_names: ClassVar[tuple[str, ...]]
    """Names of the type in checkpoints of older versions."""

    reads_text: ClassVar[bool]
    """Whether a stack may begin with the module."""

    is_traceable: ClassVar[bool]
    """Whether the module can follow a transformer in a graph."""

    @property
    def requires(self) -> str | None:
        """The feature that an earlier module must write; None where the module reads texts or can do without."""
        ...

    @property
    def writes(self) -> str:
        """The feature that the module writes."""
        ...

    @property
    def dimension(self) -> int | None:
        """The width of the feature that the module writes; None where the module passes on the width it reads."""
        ...

    @classmethod
    def load(cls, files: ModuleFiles) -> Module:
        """Read the module's files; raises ModelBroken or ModelUnsupported, KeyError for a missing key or tensor."""
        ...

    def save(self) -> Parts:
        """Return what the module's folder contains; raises ModelUnsupported for options that no file can express."""
        ...


class TextModule(Module, Protocol):
    """A module that can begin a stack and brings its tokenizer, so that no backend has to load one."""

    @property
    def tokenizer(self) -> AnyTokenizer:
        """The tokenizer of the stack's texts."""
        ...

    @property
    def max_length(self) -> int | None:
        """The most tokens read of a text; None for no limit."""
        ...


ModuleType = TypeVar("ModuleType", bound=type[Module])

_OURS = ("sentence_transformers.", "st_core.")
_registered: dict[str, type[Module]] = {}


def register(module_type: ModuleType) -> ModuleType:
    """Make a module type loadable by its ``type_path``; for types outside this package, usable as a class decorator."""
    _registered[module_type.type_path] = module_type
    return module_type


def load_module(files: ModuleFiles) -> Module:
    """Load one module; raises ModelUnsupported for a type that is not supported."""
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
    except KeyError as error:
        raise ModelBroken(f"{files.folder}: {name} lacks {error}") from error
    except OSError as error:
        raise ModelBroken(f"{files.folder}: a file of {name} cannot be read: {error}") from error
    except (ArithmeticError, AttributeError, RecursionError, TypeError, ValueError) as error:
        raise ModelBroken(f"{files.folder}: a file of {name} contains an unexpected value: {error}") from error


def supported_names() -> list[str]:
    """Return the names of all module types of this package, old names included."""
    return sorted(_types_by_name())


def _module_type(name: str) -> type[Module] | None:
    """Return the module type of a name; only an old name imports the whole package."""
    file = next((file for file in _files() if file.replace("_", "") == name.lower()), None)
    found = None if file is None else getattr(import_module(f"{__name__}.{file}"), name, None)
    return found if _is_module_type(found, f"{__name__}.{file}") else _types_by_name().get(name)


def _files() -> list[str]:
    return [each.name for each in pkgutil.iter_modules(__path__)]


@cache
def _types_by_name() -> dict[str, type[Module]]:
    """Return every module type of this package by its names."""
    types: dict[str, type[Module]] = {}
    for file in (f"{__name__}.{name}" for name in _files()):
        for value in vars(import_module(file)).values():
            if _is_module_type(value, file):
                types |= dict.fromkeys((last_name(value.type_path), *value.old_names), value)
    return types


def _is_module_type(value: object, file: str) -> TypeGuard[type[Module]]:
    """Return whether a value is a module type defined in a file."""
    return isinstance(value, type) and value.__module__ == file and hasattr(value, "type_path")

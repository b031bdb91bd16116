"""Write models that no checkpoint contains to a folder of their own: given modules, and models with a new head.

The folder is loaded like any other, so that such a model is copied, saved, exported and sent to processes like any
other. It is removed when the last model that was loaded from it is no longer used, or the process ends.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from st_core.checkpoint.files import read_optional_object
from st_core.errors import missing_extra
from st_core.modules.router import Router
from st_core.modules.transformer import Transformer, copied_files
from st_core.saving.save import save_folder

if TYPE_CHECKING:
    from st_core.checkpoint.read import Checkpoint
    from st_core.modules import LoadOptions, Module

__all__ = ["Home", "lacks_head", "write_modules", "write_with_head"]

logger = logging.getLogger(__name__)

_HEADS = {
    "CrossEncoder": ("ForSequenceClassification", "AutoModelForSequenceClassification"),
    "SparseEncoder": ("ForMaskedLM", "AutoModelForMaskedLM"),
}
"""The ending of architectures with a head, and the class that adds one, by family."""

_WEIGHTS = (".safetensors", ".index.json")


class Home:
    """A new empty folder that is removed with this object, except by a forked process."""

    def __init__(self) -> None:
        """Make the folder."""
        self.folder = Path(tempfile.mkdtemp(prefix="st_core-"))
        weakref.finalize(self, _remove, self.folder, os.getpid())

    def __deepcopy__(self, _memo: object) -> Home:
        return self


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def write_modules(modules: Sequence[object], family: str, home: Home) -> None:
    """Write modules as a checkpoint of a family; raise TypeError for an object that is no module of this package."""
    checked = [_module(value) for value in modules]
    if not checked:
        raise ValueError("modules is empty; expected at least one module, the first of which reads texts")
    save_folder(home.folder, [_with_chat(module) for module in checked], {"model_type": family}, {}, None)


def _module(value: object) -> Module:
    """Return a module; raise TypeError for an object that is no module of this package."""
    if _is_module(value):
        return value
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    raise TypeError(f"modules contains a {kind}; expected modules of st_core, such as those in st_core.models")


def _is_module(value: object) -> TypeGuard[Module]:
    return hasattr(value, "type_path")


def _with_chat(module: Module) -> Module:
    """Return a module whose transformers know whether they have a chat template."""
    if isinstance(module, Router):
        known = {id(each): _with_chat(each) for stack in module.routes.values() for each in stack}
        routes = {name: tuple(known[id(each)] for each in stack) for name, stack in module.routes.items()}
        return replace(module, routes=routes)
    if isinstance(module, Transformer) and module.chat is None:
        folders = [module.folder] if module.base is None else [module.folder, module.base]
        return replace(module, chat="chat_template" in module.processor_kwargs or any(map(_has_template, folders)))
    return module


def _has_template(folder: Path) -> bool:
    in_settings = read_optional_object(folder / "tokenizer_config.json").get("chat_template")
    return bool(in_settings) or (folder / "chat_template.jinja").is_file()


def lacks_head(checkpoint: Checkpoint, family: str) -> bool:
    """Return whether a plain transformer lacks the head that a family needs."""
    if family not in _HEADS or (family == "CrossEncoder" and checkpoint.is_causal_model):
        return False
    return not any(name.endswith(_HEADS[family][0]) for name in checkpoint.architectures)


def write_with_head(checkpoint: Checkpoint, family: str, options: LoadOptions, home: Home) -> None:
    """Write a plain transformer with a new head of random weights, drawn by torch's generator; log a warning.

    Raises ImportError where transformers is missing, and the errors of loading the transformer.
    """
    try:
        import transformers
    except ImportError as error:
        raise missing_extra("torch", f"a new head for {checkpoint.name}") from error
    from st_core.backends.apart import call_apart
    from st_core.backends.torch.hush import hushed
    from st_core.backends.torch.library import named_errors

    trusted = {"local_files_only": True, "trust_remote_code": options.trust_remote_code}
    changes = options.config_kwargs
    if family == "CrossEncoder":
        changes = {"num_labels": 1, **changes}
    folder = str(checkpoint.folder)

    def write() -> None:
        config = transformers.AutoConfig.from_pretrained(folder, **trusted, **changes)
        kind = getattr(transformers, _HEADS[family][1])
        kind.from_pretrained(folder, config=config, **trusted).save_pretrained(str(home.folder))

    with named_errors(folder, "no head can be added"), hushed():
        call_apart(write)
    for path in copied_files(checkpoint.folder):
        if not path.name.endswith(_WEIGHTS) and not (home.folder / path.name).exists():
            shutil.copyfile(path, home.folder / path.name)
    logger.warning("%s has no head for a %s: the new head is untrained, train it before use", checkpoint.name, family)

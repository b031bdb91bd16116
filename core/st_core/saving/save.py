"""Writes a model as a folder that this engine and sentence-transformers 6.2 load, and uploads such a folder to the Hub.

Weights go to safetensors only. A transformer's own files are copied as they are, so that nothing of them is lost or rounded.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from st_core.checkpoint.files import read_json
from st_core.checkpoint.tensors import read_tensors, read_weights
from st_core.engine.inputs import Unset
from st_core.module_files import Parts, kind_of, parts_of, type_of
from st_core.modules.logit_score import LogitScore
from st_core.modules.router import Router
from st_core.modules.transformer import OWN_FILES, Transformer
from st_core.multi import FILES
from st_core.saving.place import OF_A_MODEL, placed
from st_core.text.chat import ChatTokenizer

if TYPE_CHECKING:
    from st_core.engine.engine import Engine
    from st_core.modules import Module

__all__ = ["card_of", "push_folder", "save_folder", "settled"]

_COPIED = frozenset(
    (".bpe", ".codes", ".jinja", ".json", ".model", ".py", ".safetensors", ".spm", ".tiktoken", ".tokenizer", ".txt")
)
_PARTS = "pytorch_model.bin.index.json"
_METADATA = {"format": "pt"}  # transformers refuses a file without it


def settled(engine: Engine) -> list[Module]:
    """A model's modules with all that was left open when they were read, and with the length that was set since."""
    return [_settled(module, engine) for module in engine.modules]


def _settled(module: Module, engine: Engine) -> Module:
    if isinstance(module, Router):
        known = {id(each): _settled(each, engine) for stack in module.routes.values() for each in stack}
        return replace(
            module, routes={name: tuple(known[id(each)] for each in stack) for name, stack in module.routes.items()}
        )
    if isinstance(module, LogitScore):
        shown: Any = engine.runner(None).info.tokenizer.shown
        tokens = (module.true, module.false)
        true, false = (shown.convert_tokens_to_ids(each) if isinstance(each, str) else each for each in tokens)
        assert true is not None
        return replace(module, true=true, false=false)
    if not isinstance(module, Transformer):
        return module
    tokenizer: Any = engine.tokenizer_of(module)
    chat = isinstance(tokenizer, ChatTokenizer)
    form = ("structured" if tokenizer.structured else "flat") if chat else "auto"
    kept = dict(module.processor_kwargs)
    if not isinstance(engine.limit, Unset):
        kept["model_max_length"] = engine.limit or int(1e30)  # transformers' number for none
    return replace(module, chat=chat, chat_format=form, processor_kwargs=kept)


def card_of(own: Path, name: str, family: str) -> str:
    """The text of a model's card: that of its ``own``, or a short one where there is none."""
    if own.is_file():
        return own.read_text(encoding="utf-8")
    return (
        f"---\nlibrary_name: sentence-transformers\n---\n\n# {name}\n\nA {family} saved by st-connectors. "
        f'Load it with `{family}("{name}")` of `st_core` or of `sentence_transformers`.\n'
    )


def save_folder(
    folder: Path,
    modules: Sequence[Module],
    settings: Mapping[str, Any],
    files: Mapping[str, Any],
    card: str | None,
) -> None:
    """Write a model: its modules, ``settings`` as ``config_sentence_transformers.json``, ``files``, JSON values by file name, and its card.

    The folder gets all of it or, where that fails, stays as it was. Of a model that was there nothing is left that would be read; what else is in
    the folder stays. Raises ModelUnsupported for a module or an option that cannot be saved.
    """
    with placed(folder) as made:
        _write_json(made / "config_sentence_transformers.json", settings)
        listing = []
        for index, module in enumerate(modules):
            kind = kind_of(module)
            path = "" if index == 0 and kind in ("Transformer", "Router") else f"{index}_{kind}"
            _save_module(module, made / path)
            listing.append({"idx": index, "name": str(index), "path": path, "type": type_of(kind)})
        _write_json(made / "modules.json", listing)
        for name, value in files.items():
            _write_json(made / name, value)
        if card is not None:
            (made / "README.md").write_text(card, encoding="utf-8")


def _save_module(module: Module, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    match module:
        case Router():
            _save_router(module, folder)
        case Transformer():
            _save_transformer(module, folder)
        case _:
            _save_parts(parts_of(module), folder)


def _save_parts(parts: Parts, folder: Path) -> None:
    from safetensors.numpy import save_file

    if parts.tensors:
        tensors = {name: np.ascontiguousarray(array) for name, array in parts.tensors.items() if array is not None}
        save_file(tensors, folder / "model.safetensors", metadata=_METADATA)
    if parts.tokenizer is not None:
        (folder / "tokenizer.json").write_text(parts.tokenizer.backend.to_str(), encoding="utf-8")
    for name, value in parts.files.items():
        _write_json(folder / name, value)


def _save_router(module: Router, folder: Path) -> None:
    names: dict[int, str] = {}
    kept: dict[str, Module] = {}
    structure: dict[str, list[str]] = {}
    for route, stack in module.routes.items():
        for index, each in enumerate(stack):
            name = names.setdefault(id(each), f"{route}_{index}_{kind_of(each)}")
            kept[name] = each
            structure.setdefault(route, []).append(name)
    for name, each in kept.items():
        _save_module(each, folder / name)
    parameters = {
        "default_route": module.default,
        "allow_empty_key": module.default is not None,
        "route_mappings": {str(key): route for key, route in module.mappings.items()},
    }
    types = {name: type_of(kind_of(each)) for name, each in kept.items()}
    _write_json(folder / "router_config.json", {"types": types, "structure": structure, "parameters": parameters})


def _save_transformer(module: Transformer, folder: Path) -> None:
    from safetensors.numpy import save_file

    _copy(_own_files(module.folder), folder)
    if module.base is not None and not (module.folder / "adapter_model.safetensors").is_file():
        tensors = read_tensors(module.folder / "adapter_model.bin")
        save_file(tensors, folder / "adapter_model.safetensors", metadata=_METADATA)
    elif module.base is None and not any(module.folder.glob("model*.safetensors")):
        _convert(module.folder, folder)
    template = module.processor_kwargs.get("chat_template")
    if isinstance(template, str):
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    _write_json(folder / "sentence_bert_config.json", module.saved())


def _convert(source: Path, folder: Path) -> None:
    """Write pickled weights as safetensors, those in several files one after another, so that only one of them is in memory."""
    from safetensors.numpy import save_file

    index = source / _PARTS
    if (source / "pytorch_model.bin").is_file() or not index.is_file():
        save_file(read_weights(source), folder / "model.safetensors", metadata=_METADATA)
        return
    parts, size = sorted(set(read_json(index)["weight_map"].values())), 0
    places: dict[str, str] = {}
    for number, part in enumerate(parts, 1):
        tensors, name = read_tensors(source / part), f"model-{number:05}-of-{len(parts):05}.safetensors"
        save_file(tensors, folder / name, metadata=_METADATA)
        places |= dict.fromkeys(tensors, name)
        size += sum(array.nbytes for array in tensors.values())
    _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": places})


def _own_files(folder: Path) -> list[Path]:
    """The files of a transformer and its tokenizer: all but those that sentence-transformers puts beside them, and pickles."""
    left = OWN_FILES | {_PARTS}
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and (path.suffix in _COPIED or path.name in FILES.values()) and path.name not in left
    ]


def _copy(paths: Iterable[Path], folder: Path) -> None:
    for path in paths:
        shutil.copyfile(path, folder / path.name)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def push_folder(
    save: Any,
    repo_id: str,
    *,
    local_path: str | None,
    message: str,
    token: str | None,
    private: bool | None,
    exist_ok: bool,
    revision: str | None,
    create_pr: bool,
) -> str:
    """Make a repository on the Hub, upload what ``save`` writes into the folder it is given, or ``local_path``, and give the commit's address.

    With ``save``, files of a model that was there are removed where the new one has none of that name. The errors of huggingface_hub come through.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id=repo_id, private=private, exist_ok=exist_ok or create_pr).repo_id
    if revision is not None:
        api.create_branch(repo_id=repo_id, branch=revision, exist_ok=True)
    with TemporaryDirectory() as folder:
        if local_path is None:
            save(folder)
        done = api.upload_folder(
            repo_id=repo_id,
            folder_path=local_path or folder,
            commit_message=message,
            create_pr=create_pr,
            revision=revision,
            delete_patterns=list(OF_A_MODEL) if local_path is None else None,
        )
    return str(done.pr_url if create_pr else done.commit_url)

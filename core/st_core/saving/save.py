"""Write a model to a folder that this package and sentence-transformers 6.2 load, and upload such a folder to the Hub.

Weights are saved as safetensors only. The files of a transformer are copied unchanged, so that nothing is lost or
rounded.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from st_core.checkpoint.files import last_name
from st_core.checkpoint.tensors import read_tensors
from st_core.engine.inputs import Unset
from st_core.modules import Parts
from st_core.modules.logit_score import LogitScore
from st_core.modules.router import Router
from st_core.modules.transformer import Transformer
from st_core.saving.place import MODEL_FILES, replacing
from st_core.text.chat import ChatTokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from st_core.engine.engine import Engine
    from st_core.modules import Module

__all__ = ["card_of", "description", "push_folder", "save_folder", "settled"]

_METADATA = {"format": "pt"}  # transformers rejects a file without it


@dataclass(frozen=True, slots=True)
class _Retokenized:
    """A transformer whose tokenizer was changed after loading, with the folder of the tokenizer's files."""

    module: Transformer
    folder: Path
    type_path: str = Transformer.type_path

    def save(self) -> Parts:
        """Return the content of the module's folder, with the files of its changed tokenizer."""
        parts = self.module.save()
        return replace(parts, copies=(*parts.copies, *sorted(self.folder.iterdir())))


def settled(engine: Engine, folder: Path) -> list[Module]:
    """Return the modules of a model, with the current maximum length and all values that loading has determined.

    Tokenizers that were changed after loading are written to ``folder``.
    """
    return [_settled(module, engine, folder) for module in engine.modules]


def _settled(module: Module, engine: Engine, folder: Path) -> Module:
    if isinstance(module, Router):
        known = {id(each): _settled(each, engine, folder) for stack in module.routes.values() for each in stack}
        return replace(
            module, routes={name: tuple(known[id(each)] for each in stack) for name, stack in module.routes.items()}
        )
    if isinstance(module, LogitScore):
        tokenizer = engine.runner(None).info.tokenizer.shown
        tokens = (module.true, module.false)
        true, false = (tokenizer.convert_tokens_to_ids(each) if isinstance(each, str) else each for each in tokens)
        assert true is not None
        return replace(module, true=true, false=false)
    if not isinstance(module, Transformer):
        return module
    text_tokenizer = engine.tokenizer_of(module)
    uses_chat, chat_format = isinstance(text_tokenizer, ChatTokenizer), "auto"
    if isinstance(text_tokenizer, ChatTokenizer):
        chat_format = "structured" if text_tokenizer.structured else "flat"
    changed: Any = engine.changed_tokenizer(module)
    options = dict(module.processor_kwargs) if changed is None else {}
    if not isinstance(engine.limit, Unset):
        options["model_max_length"] = engine.limit or int(1e30)  # transformers uses this value for no limit
    result = replace(module, chat=uses_chat, chat_format=chat_format, processor_kwargs=options)
    if changed is None:
        return result
    place = Path(mkdtemp(dir=folder))
    if hasattr(changed, "save_pretrained"):
        sides = {name: getattr(changed, name) for name in ("padding_side", "truncation_side")}
        changed.init_kwargs |= sides  # transformers saves the sides of the files otherwise
        changed.save_pretrained(str(place))
    else:
        changed.save(str(place / "tokenizer.json"))
    return cast("Module", _Retokenized(result, place))


def card_of(own: Path, name: str, family: str, data: object) -> str:
    """Return the text of a model card: that of the file ``own``, or a short one with ``data`` if it is missing."""
    if own.is_file():
        return own.read_text(encoding="utf-8")
    metadata = {key: getattr(data, key, None) for key in ("language", "license", "tags")}
    head = "".join(f"{key}: {json.dumps(value)}\n" for key, value in metadata.items() if value)
    title = getattr(data, "model_name", None) or name
    return (
        f"---\nlibrary_name: sentence-transformers\n{head}---\n\n# {title}\n\nA {family} saved by st-connectors. "
        f'Load it with `{family}("{name}")` of `st_core` or of `sentence_transformers`.\n'
    )


def save_folder(
    folder: Path,
    modules: Sequence[Module],
    settings: Mapping[str, object],
    files: Mapping[str, object],
    card: str | None,
) -> None:
    """Write modules, settings, further files and a model card to a folder, completely or, on failure, not at all.

    ``settings`` are saved as ``config_sentence_transformers.json``, ``files`` as JSON by file name; ``card`` is the
    text of README.md, None for no card. Files of an earlier model that would be read are removed; other files stay.
    Raises ModelUnsupported for an option that cannot be saved.
    """
    with replacing(folder) as new:
        _write_json(new / "config_sentence_transformers.json", settings)
        listing = []
        for index, module in enumerate(modules):
            is_root = index == 0 and isinstance(module, (Transformer, Router, _Retokenized))
            path = "" if is_root else f"{index}_{last_name(module.type_path)}"
            _write_parts(module.save(), new / path)
            listing.append({"idx": index, "name": str(index), "path": path, "type": module.type_path})
        _write_json(new / "modules.json", listing)
        for name, value in files.items():
            _write_json(new / name, value)
        if card is not None:
            (new / "README.md").write_text(card, encoding="utf-8")


def _write_parts(parts: Parts, folder: Path) -> None:
    """Write the content of a module's folder, with a subfolder for each of its children."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, module in parts.children.items():
        _write_parts(module.save(), folder / name)
    for path in parts.copies:
        shutil.copyfile(path, folder / path.name)
    _convert(parts, folder)
    if parts.tensors:
        tensors = {name: np.ascontiguousarray(array) for name, array in parts.tensors.items() if array is not None}
        _write_tensors(tensors, folder / "model.safetensors")
    if parts.tokenizer is not None:
        (folder / "tokenizer.json").write_text(parts.tokenizer.backend.to_str(), encoding="utf-8")
    for name, text in parts.texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    for name, value in parts.json.items():
        _write_json(folder / name, value)


def _convert(parts: Parts, folder: Path) -> None:
    """Convert pickled weights to safetensors, one file at a time to limit memory, and write the index of the files."""
    places: dict[str, str] = {}
    size = 0
    for name, path in parts.pickles.items():
        tensors = read_tensors(path)
        _write_tensors(tensors, folder / name)
        places |= dict.fromkeys(tensors, name)
        size += sum(array.nbytes for array in tensors.values())
    if parts.index is not None:
        _write_json(folder / parts.index, {"metadata": {"total_size": size}, "weight_map": places})


def _write_tensors(tensors: Mapping[str, NDArray[np.generic]], path: Path) -> None:
    from safetensors.numpy import save_file

    save_file(dict(tensors), path, metadata=_METADATA)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def description(tree: str, family: str, repo_id: str) -> str:
    """Return the text of a pull request that adds a model: its printed modules, and how to load it."""
    return (
        f"This pull request was generated by `push_to_hub`. It adds the files of a {family} to the repository.\n\n"
        f"## Modules\n\n```\n{tree}\n```\n\n## Use\n\n"
        "Before it is merged, pass its number as the revision:\n\n"
        f"```python\nfrom sentence_transformers import {family}  # or from st_core\n\n"
        f'model = {family}("{repo_id}", revision="refs/pr/1")\n```\n'
    )


def push_folder(
    save: Callable[[str], object],
    repo_id: str,
    *,
    local_path: str | None,
    message: str,
    description: str | None,
    token: str | None,
    private: bool | None,
    exist_ok: bool,
    revision: str | None,
    create_pr: bool,
) -> str:
    """Create a Hub repository, upload a model and return the URL of the commit or pull request.

    An existing repository is an error unless ``exist_ok`` or ``create_pr`` is set. The uploaded model is the folder
    ``local_path``, or what ``save`` writes to a folder if that is None. In the second case, files of an earlier model
    are removed unless the new model replaces them. Errors of huggingface_hub are raised unchanged.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id=repo_id, private=private, exist_ok=exist_ok or create_pr).repo_id
    if revision is not None:
        api.create_branch(repo_id=repo_id, branch=revision, exist_ok=True)
    with TemporaryDirectory() as folder:
        if local_path is None:
            save(folder)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=local_path or folder,
            commit_message=message,
            commit_description=description,
            create_pr=create_pr,
            revision=revision,
            delete_patterns=list(MODEL_FILES) if local_path is None else None,
        )
    return str(commit.pr_url if create_pr else commit.commit_url)

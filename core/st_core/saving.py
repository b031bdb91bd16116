"""Writes a model as a folder that this engine and sentence-transformers 6.2 load, and uploads such a folder to the Hub.

Weights go to safetensors only. A transformer's own files are copied as they are, so that nothing of them is lost or rounded.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from st_core.chat import ChatTokenizer
from st_core.checkpoint import read_weights
from st_core.errors import ModelUnsupported
from st_core.modules.bm25 import BM25
from st_core.modules.dense import Dense
from st_core.modules.dropout import Dropout
from st_core.modules.layer_norm import LayerNorm
from st_core.modules.logit_score import LogitScore
from st_core.modules.normalize import Normalize
from st_core.modules.pooling import Pooling
from st_core.modules.router import Router
from st_core.modules.sparse_static_embedding import SparseStaticEmbedding
from st_core.modules.splade_pooling import SpladePooling
from st_core.modules.static_embedding import StaticEmbedding
from st_core.modules.transformer import OWN_FILES, Transformer
from st_core.multi import FILES

if TYPE_CHECKING:
    from st_core._engine import Engine
    from st_core.modules import Module
    from st_core.tokens import TextTokenizer

__all__ = ["push_folder", "save_card", "save_folder", "settled"]

_TYPES: Mapping[str, str] = {
    "BM25": "st_core.modules.bm25",
    "Dense": "sentence_transformers.base.modules.dense",
    "Dropout": "sentence_transformers.sentence_transformer.modules.dropout",
    "LayerNorm": "sentence_transformers.sentence_transformer.modules.layer_norm",
    "LogitScore": "sentence_transformers.cross_encoder.modules.logit_score",
    "Normalize": "sentence_transformers.base.modules.normalize",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling",
    "Router": "sentence_transformers.base.modules.router",
    "SparseStaticEmbedding": "sentence_transformers.sparse_encoder.modules.sparse_static_embedding",
    "SpladePooling": "sentence_transformers.sparse_encoder.modules.splade_pooling",
    "StaticEmbedding": "sentence_transformers.sentence_transformer.modules.static_embedding",
    "Transformer": "sentence_transformers.base.modules.transformer",
}
"""Where sentence-transformers 6.2 keeps the class of that name; BM25 is this engine's own."""

_COPIED = (".json", ".jinja", ".txt", ".model", ".safetensors", ".spm", ".tiktoken", ".bpe", ".py")
_METADATA = {"format": "pt"}  # transformers refuses a file without it


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a module's folder holds."""

    config: Mapping[str, Any] | None = None
    config_name: str = "config.json"
    tensors: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: TextTokenizer | None = None
    tokenizer_config: Mapping[str, Any] | None = None


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
        shown: Any = engine.runner(None).tokenizer.shown
        tokens = (module.true, module.false)
        true, false = (shown.convert_tokens_to_ids(each) if isinstance(each, str) else each for each in tokens)
        assert true is not None
        return replace(module, true=true, false=false)
    if not isinstance(module, Transformer):
        return module
    tokenizer: Any = engine.loaded_tokenizer(module)
    chat = isinstance(tokenizer, ChatTokenizer)
    form = ("structured" if tokenizer.structured else "flat") if chat else "auto"
    kept = dict(module.processor_kwargs)
    if engine.has_limit:
        kept["model_max_length"] = engine.limit or int(1e30)  # transformers' number for none
    return replace(module, chat=chat, chat_format=form, processor_kwargs=kept)


def save_card(path: Path, name: str, family: str, own: Path) -> None:
    """Write the model's card: its ``own``, or a short one where there is none."""
    text = (
        f"---\nlibrary_name: sentence-transformers\n---\n\n# {name}\n\nA {family} saved by st-connectors. "
        f'Load it with `{family}("{name}")` of `st_core` or of `sentence_transformers`.\n'
    )
    path.write_text(own.read_text(encoding="utf-8") if own.is_file() else text, encoding="utf-8")


def save_folder(folder: Path, modules: Sequence[Module], settings: Mapping[str, Any], files: Mapping[str, Any]) -> None:
    """Write a model: its modules, ``settings`` as ``config_sentence_transformers.json`` and ``files``, JSON values by file name.

    A folder that is already there is written over; what else is in it stays. Raises ModelUnsupported for a module that cannot be saved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config_sentence_transformers.json", settings)
    listing = []
    for index, module in enumerate(modules):
        kind = _kind(module)
        path = "" if index == 0 and kind in ("Transformer", "Router") else f"{index}_{kind}"
        _save_module(module, folder / path)
        listing.append({"idx": index, "name": str(index), "path": path, "type": _type(kind)})
    _write_json(folder / "modules.json", listing)
    for name, value in files.items():
        _write_json(folder / name, value)


def _kind(module: Module) -> str:
    kind = type(module).__name__
    if kind not in _TYPES:
        raise ModelUnsupported(f"a {kind} cannot be saved")
    return kind


def _type(kind: str) -> str:
    return f"{_TYPES[kind]}.{kind}"


def _save_module(module: Module, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    match module:
        case Router():
            _save_router(module, folder)
        case Transformer():
            _save_transformer(module, folder)
        case _:
            _save_parts(_parts(module), folder)


def _save_parts(parts: _Parts, folder: Path) -> None:
    from safetensors.numpy import save_file

    if parts.config is not None:
        _write_json(folder / parts.config_name, parts.config)
    if parts.tensors:
        tensors = {name: np.ascontiguousarray(array) for name, array in parts.tensors.items() if array is not None}
        save_file(tensors, folder / "model.safetensors", metadata=_METADATA)
    if parts.tokenizer is not None:
        (folder / "tokenizer.json").write_text(parts.tokenizer.backend.to_str(), encoding="utf-8")
    if parts.tokenizer_config is not None:
        _write_json(folder / "tokenizer_config.json", parts.tokenizer_config)


def _parts(module: Module) -> _Parts:  # noqa: PLR0911 - one entry a kind of module
    match module:
        case Pooling():
            modes = module.modes[0] if len(module.modes) == 1 else list(module.modes)
            return _Parts(
                {
                    "embedding_dimension": module.width,
                    "pooling_mode": modes,
                    "include_prompt": module.include_prompt,
                }
            )
        case Dense():
            return _dense(module)
        case Normalize():
            return _Parts({"module_input_name": module.reads, "module_output_name": module.writes})
        case Dropout():
            return _Parts({"dropout": 0.0})
        case LayerNorm():
            tensors = {"norm.weight": module.weight, "norm.bias": module.bias}
            return _Parts({"dimension": module.dimension}, tensors=tensors)
        case SpladePooling():
            return _Parts(
                {
                    "pooling_strategy": "sum" if module.summed else "max",
                    "activation_function": "log1p_relu" if module.doubled else "relu",
                    "embedding_dimension": module.width,
                }
            )
        case LogitScore():
            return _Parts(
                {
                    "true_token_id": module.true,
                    "false_token_id": module.false,
                    "module_input_name": module.reads,
                }
            )
        case _:
            return _first_parts(module)


def _first_parts(module: Module) -> _Parts:
    """The parts of a module that reads texts by itself."""
    match module:
        case StaticEmbedding():
            plain = module.mapping is None and module.scale is None
            tensors = (
                {"embedding.weight": module.table}
                if plain and module.table.dtype == np.float32
                else {"embeddings": module.table, "mapping": module.mapping, "weights": module.scale}
            )
            return _Parts(tensors=tensors, tokenizer=_limited(module.tokenizer))
        case SparseStaticEmbedding():
            limit = module.tokenizer.model_max_length
            settings = {**module.settings} | ({} if limit is None else {"model_max_length": limit})
            return _Parts(
                {"frozen": False},
                tensors={"weight": module.weight},
                tokenizer=module.tokenizer,
                tokenizer_config=settings,
            )
        case BM25():
            how = module.saturation
            config: dict[str, Any] = {"half": "query"}
            if how is not None:
                config = {"half": "document", "k1": how.k1, "b": how.b, "average_length": how.average_length}
            return _Parts(config, tensors={"term": module.term, "idf": module.idf}, tokenizer=module.tokenizer)
    raise ModelUnsupported(f"a {type(module).__name__} cannot be saved")


def _dense(module: Dense) -> _Parts:
    config = {
        "in_features": int(module.weight.shape[1]),
        "out_features": int(module.weight.shape[0]),
        "bias": module.bias is not None,
        "activation_function": module.activation,
        "module_input_name": module.reads,
        "module_output_name": module.writes,
        "use_residual": module.use_residual,
    }
    tensors = {
        "linear.weight": module.weight,
        "linear.bias": module.bias,
        "residual.weight": module.residual,
    }
    return _Parts(config, tensors=tensors)


def _limited(tokenizer: TextTokenizer) -> TextTokenizer:
    """The same tokenizer with its limit written into it, where sentence-transformers looks for that of a static model."""
    if tokenizer.model_max_length is None:
        return tokenizer
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(tokenizer.backend.to_str())
    backend.enable_truncation(tokenizer.model_max_length)
    return replace(tokenizer, backend=backend)


def _save_router(module: Router, folder: Path) -> None:
    names: dict[int, str] = {}
    kept: dict[str, Module] = {}
    structure: dict[str, list[str]] = {}
    for route, stack in module.routes.items():
        for index, each in enumerate(stack):
            name = names.setdefault(id(each), f"{route}_{index}_{_kind(each)}")
            kept[name] = each
            structure.setdefault(route, []).append(name)
    for name, each in kept.items():
        _save_module(each, folder / name)
    parameters = {
        "default_route": module.default,
        "allow_empty_key": module.default is not None,
        "route_mappings": {str(key): route for key, route in module.mappings.items()},
    }
    types = {name: _type(_kind(each)) for name, each in kept.items()}
    _write_json(folder / "router_config.json", {"types": types, "structure": structure, "parameters": parameters})


def _save_transformer(module: Transformer, folder: Path) -> None:
    _copy(_own_files(module.folder), folder)
    if not any(module.folder.glob("*.safetensors")):
        from safetensors.numpy import save_file

        save_file(read_weights(module.folder), folder / "model.safetensors", metadata=_METADATA)
    template = module.processor_kwargs.get("chat_template")
    if isinstance(template, str):
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    _write_json(folder / "sentence_bert_config.json", module.saved())


def _own_files(folder: Path) -> list[Path]:
    """The files of a transformer and its tokenizer: all but those that sentence-transformers puts beside them."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and (path.suffix in _COPIED or path.name in FILES.values()) and path.name not in OWN_FILES
    ]


def _copy(paths: Iterable[Path], folder: Path) -> None:
    for path in paths:
        target = folder / path.name
        if not (target.exists() and target.samefile(path)):
            shutil.copyfile(path, target)


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

    The errors of huggingface_hub come through.
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
        )
    return str(done.pr_url if create_pr else done.commit_url)

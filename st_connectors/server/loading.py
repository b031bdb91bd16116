"""Load the models of a server, and detect their kinds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from st_connectors.server.settings import ModelSettings
from st_core import builtin
from st_core.errors import ModelUnsupported
from st_core.protocols import ModelKind

__all__ = ["load"]

_OF_FAMILY = {
    "SentenceTransformer": ModelKind.DENSE,
    "SparseEncoder": ModelKind.SPARSE,
    "CrossEncoder": ModelKind.RERANKER,
}
_SPARSE_MODULES = ("SpladePooling", "SparseStaticEmbedding", "SparseAutoEncoder", "IDF")


def load(settings: ModelSettings) -> tuple[ModelKind, list[Any]]:
    """Return the kind of a model, and the model loaded on each of its devices; raises the errors of loading."""
    import st_core

    kind = settings.kind or _kind(settings)
    names = {
        ModelKind.DENSE: st_core.SentenceTransformer,
        ModelKind.SPARSE: st_core.SparseEncoder,
        ModelKind.RERANKER: st_core.CrossEncoder,
    }
    return kind, [
        names[kind](settings.path, **_arguments(settings, kind, each)) for each in settings.devices or (None,)
    ]


def _arguments(settings: ModelSettings, kind: ModelKind, device: str | None) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "backend": settings.backend,
        "dtype": settings.dtype,
        "device": device,
        "revision": settings.revision,
        "prompts": dict(settings.prompts) or None,
        "default_prompt_name": settings.default_prompt_name,
        "trust_remote_code": settings.trust_remote_code,
    }
    if kind is ModelKind.DENSE:
        arguments["truncate_dim"] = settings.truncate_dim
    if kind is ModelKind.SPARSE:
        arguments["max_active_dims"] = settings.max_active_dims
    return {name: value for name, value in arguments.items() if value is not None and value is not False}


_BUILTIN = {
    builtin.DENSE: ModelKind.DENSE,
    builtin.SPARSE: ModelKind.SPARSE,
    builtin.RERANK: ModelKind.RERANKER,
}


def _kind(settings: ModelSettings) -> ModelKind:
    """Return the kind of a model by its files; raise ModelUnsupported if they leave it open."""
    if settings.path in _BUILTIN:
        return _BUILTIN[settings.path]
    kind = _kind_of_files(_folder(settings))
    if kind is None:
        raise ModelUnsupported(
            f"{settings.path}: a masked language model may be dense or sparse; set kind in the settings"
        )
    return kind


def _folder(settings: ModelSettings) -> Path:
    from st_core.checkpoint.find import find_checkpoint
    from st_core.engine.plan import Request, fetches

    fetch = fetches(Request(settings.backend, None, settings.dtype))
    folder, _, _ = find_checkpoint(
        settings.path, organisation="sentence-transformers", revision=settings.revision, fetch=fetch
    )
    return folder


def _kind_of_files(folder: Path) -> ModelKind | None:
    """Return the kind of the checkpoint in a folder, None for a plain masked language model."""
    listed = _read(folder / "modules.json", [])
    family = _read(folder / "config_sentence_transformers.json", {}).get("model_type")
    if listed and family in _OF_FAMILY:
        return _OF_FAMILY[family]
    if listed:
        types = [str(each.get("type", "")).rpartition(".")[2] for each in listed if isinstance(each, Mapping)]
        return ModelKind.SPARSE if any(each in _SPARSE_MODULES for each in types) else ModelKind.DENSE
    heads = [str(each) for each in _read(folder / "config.json", {}).get("architectures") or []]
    if any(each.endswith("ForSequenceClassification") for each in heads):
        return ModelKind.RERANKER
    return None if any(each.endswith("ForMaskedLM") for each in heads) else ModelKind.DENSE


def _read(path: Path, default: Any) -> Any:
    """Return the content of a JSON file; the default if it is missing or of another type, which loading reports."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return default
    return value if isinstance(value, type(default)) else default

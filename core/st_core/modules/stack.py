"""A checkpoint's folder becomes a stack of modules: the one its files list, or the family's default for a plain folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from st_core.checkpoint.read import Checkpoint
from st_core.errors import ModelBroken, ModelUnsupported
from st_core.modules import LoadOptions, Module, ModuleFiles, load_module
from st_core.modules.router import Router
from st_core.modules.transformer import Transformer, make

__all__ = ["assemble", "flatten", "keeps_settings", "tasks_of", "warn_of_another"]

logger = logging.getLogger(__name__)


def keeps_settings(checkpoint: Checkpoint, family: str) -> bool:
    """Whether the saved prompts and the saved similarity hold: not where one family's checkpoint is loaded as another's."""
    return bool(checkpoint.entries) and checkpoint.family == family


def assemble(checkpoint: Checkpoint, family: str, options: LoadOptions) -> tuple[Module, ...]:
    """The modules of a checkpoint, loaded as ``SentenceTransformer``, ``SparseEncoder`` or ``CrossEncoder``.

    Raises ModelUnsupported where the family would have to invent weights, or the modules do not end in what it gives.
    """
    if keeps_settings(checkpoint, family):
        modules = tuple(
            load_module(entry.type_name, ModuleFiles(checkpoint.folder, entry.folder, entry.type_name, options))
            for entry in checkpoint.entries
        )
        return _startable(checkpoint, modules)
    if not checkpoint.config:
        raise ModelUnsupported(
            f"{checkpoint.name} is a {checkpoint.family} and has no transformer that a {family} could be made of; "
            f"load it with {checkpoint.family}"
        )
    stack: tuple[Module, ...] = _DEFAULTS[family](checkpoint, options)
    return stack


def warn_of_another(checkpoint: Checkpoint, family: str) -> None:
    """Log a warning where a checkpoint of one family has been loaded as another's; to be called when it has, for an error says more."""
    if checkpoint.entries and checkpoint.family != family:
        logger.warning("%s is a %s loaded as a %s", checkpoint.name, checkpoint.family, family)


def _startable(checkpoint: Checkpoint, modules: tuple[Module, ...]) -> tuple[Module, ...]:
    """The modules, where every stack of them begins with one that reads text."""
    stacks = [modules]
    if isinstance(modules[0], Router):
        stacks = [route + modules[1:] for route in modules[0].routes.values()]
    for stack in stacks:
        first = type(stack[0]).__name__
        if first not in _STARTS:
            raise ModelBroken(f"{checkpoint.folder / 'modules.json'}: {first} comes first, but reads no text")
        if first != "Router":
            _check_features(stack, checkpoint.folder / "modules.json")
    return modules


def _check_features(stack: Sequence[Module], listing: Path) -> None:
    """Raise ModelBroken for a module that reads what none before it writes; a router's routes are not looked into."""
    first, *rest = takewhile(lambda module: not isinstance(module, Router), stack)
    written = {getattr(first, "writes", "sentence_embedding")}
    for module in rest:
        kind = type(module).__name__
        reads = module.reads if kind in ("Dense", "LogitScore") else _READS.get(kind)
        if reads is not None and reads not in written:
            raise ModelBroken(f"{listing}: {kind} reads {reads!r}, which no module before it writes")
        written.add(getattr(module, "writes", "sentence_embedding"))


_STARTS = frozenset(
    ("BM25", "BoW", "Router", "SparseStaticEmbedding", "StaticEmbedding", "Transformer", "WordEmbeddings")
)
_TOKENWISE = ("CNN", "LSTM", "Pooling", "SpladePooling", "WeightedLayerPooling", "WordWeights")
_READS = dict.fromkeys(_TOKENWISE, "token_embeddings") | dict.fromkeys(
    ("LayerNorm", "SparseAutoEncoder"), "sentence_embedding"
)


def flatten(modules: Sequence[Module], task: str | None) -> tuple[Module, ...]:
    """The modules a task goes through, with every router replaced by its route; raises ValueError for a task without a route."""
    flat: list[Module] = []
    for module in modules:
        if isinstance(module, Router):
            flat.extend(flatten(module.resolve(task), task))
        else:
            flat.append(module)
    return tuple(flat)


def tasks_of(modules: Sequence[Module]) -> list[str | None]:
    """One task for each stack that the modules hold."""
    routers = [module for module in modules if isinstance(module, Router)]
    if not routers:
        return [None]
    found: list[str | None] = []
    for task in (*routers[0].routes, *(key[0] for key in routers[0].mappings), None):
        try:
            flatten(modules, task)
        except ValueError:
            continue
        found.append(task)
    return found


def _architectures(checkpoint: Checkpoint) -> list[str]:
    return [str(name) for name in checkpoint.config.get("architectures") or []]


def _transformer(checkpoint: Checkpoint, task: str, options: LoadOptions) -> Transformer:
    return make(checkpoint.folder, task, options)


def _dense(checkpoint: Checkpoint, options: LoadOptions) -> tuple[Module, ...]:
    from st_core.modules.normalize import Normalize
    from st_core.modules.pooling import Pooling

    if "StaticModel" in _architectures(checkpoint) or checkpoint.config.get("model_type") == "model2vec":
        files = ModuleFiles(checkpoint.folder, checkpoint.folder, "StaticEmbedding", options)
        static = load_module("st_core.modules.static_embedding.StaticEmbedding", files)
        return (static, Normalize()) if checkpoint.config.get("normalize") else (static,)
    causal = any(name.endswith("ForCausalLM") for name in _architectures(checkpoint)[:1])
    causal = causal and checkpoint.config.get("is_causal") is not False
    transformer = _transformer(checkpoint, "feature-extraction", options)
    return transformer, Pooling(transformer.dimension, ("lasttoken",) if causal else ("mean",))


def _sparse(checkpoint: Checkpoint, options: LoadOptions) -> tuple[Module, ...]:
    from st_core.modules.splade_pooling import SpladePooling

    if not any(name.endswith("ForMaskedLM") for name in _architectures(checkpoint)):
        raise ModelUnsupported(
            f"{checkpoint.name} has no masked language model ({', '.join(_architectures(checkpoint)) or 'no architecture named'}); "
            "a sparse encoder of it would need a layer of random weights"
        )
    transformer = _transformer(checkpoint, "fill-mask", options)
    return transformer, SpladePooling(width=transformer.dimension)


def _pairs(checkpoint: Checkpoint, options: LoadOptions) -> tuple[Module, ...]:
    if any(name.endswith("ForCausalLM") for name in _architectures(checkpoint)[:1]):
        from st_core.modules.logit_score import LogitScore

        return (_transformer(checkpoint, "text-generation", options), LogitScore("yes", "no"))
    return (_transformer(checkpoint, "sequence-classification", options),)


_DEFAULTS: Mapping[str, Any] = {"CrossEncoder": _pairs, "SentenceTransformer": _dense, "SparseEncoder": _sparse}

"""Assemble the modules of a checkpoint into stacks, with defaults by family for a folder without a module list."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from st_core.checkpoint.files import last_name
from st_core.checkpoint.read import Checkpoint
from st_core.errors import ModelBroken, ModelUnsupported
from st_core.modules import LoadOptions, Module, ModuleFiles, load_module
from st_core.modules.router import Router
from st_core.modules.transformer import read_transformer

__all__ = ["assemble", "flatten", "keeps_settings", "tasks_of", "warn_of_another"]

logger = logging.getLogger(__name__)


def keeps_settings(checkpoint: Checkpoint, family: str) -> bool:
    """Return whether saved prompts and similarity apply; they do not if a checkpoint is loaded as another family."""
    return bool(checkpoint.entries) and checkpoint.family == family


def assemble(checkpoint: Checkpoint, family: str, options: LoadOptions) -> tuple[Module, ...]:
    """Return the modules of a checkpoint for ``SentenceTransformer``, ``SparseEncoder`` or ``CrossEncoder``.

    Raises ModelUnsupported where the family would need weights that the checkpoint lacks, ModelBroken for modules that
    do not fit together.
    """
    if keeps_settings(checkpoint, family):
        modules = tuple(
            load_module(ModuleFiles(checkpoint.folder, entry.folder, entry.type_path, options))
            for entry in checkpoint.entries
        )
        _check_stacks(modules, checkpoint.folder / "modules.json")
        return modules
    if not checkpoint.config:
        raise ModelUnsupported(
            f"{checkpoint.name} is a {checkpoint.family} without a transformer; load it with {checkpoint.family}, "
            f"not with {family}"
        )
    return _DEFAULTS[family](checkpoint, options)


def warn_of_another(checkpoint: Checkpoint, family: str) -> None:
    """Log a warning where a checkpoint was loaded as another family than its own.

    Call it after loading, because errors of loading are more specific.
    """
    if checkpoint.entries and checkpoint.family != family:
        logger.warning("%s is a %s loaded as a %s", checkpoint.name, checkpoint.family, family)


def _check_stacks(modules: tuple[Module, ...], listing: Path) -> None:
    """Raise ModelBroken unless every stack begins with a module that reads text and writes features before use."""
    stacks = [modules]
    if isinstance(modules[0], Router):
        stacks = [route + modules[1:] for route in modules[0].routes.values()]
    for stack in stacks:
        if not stack[0].reads_text:
            raise ModelBroken(
                f"{listing}: expected a first module that reads text, got {last_name(stack[0].type_path)}"
            )
        _check_features(stack, listing)


def _check_features(stack: Sequence[Module], listing: Path) -> None:
    """Raise ModelBroken for a module that requires a feature which no earlier module writes; stop at a router."""
    written: set[str] = set()
    for module in takewhile(lambda module: not isinstance(module, Router), stack):
        if module.requires is not None and module.requires not in written:
            name = last_name(module.type_path)
            raise ModelBroken(f"{listing}: {name} reads {module.requires!r}, which no module before it writes")
        written.add(module.writes)


def flatten(modules: Sequence[Module], task: str | None) -> tuple[Module, ...]:
    """Return the stack of a task, with routers replaced by routes; raise ValueError for a task without a route."""
    flat: list[Module] = []
    for module in modules:
        if isinstance(module, Router):
            flat.extend(flatten(module.resolve(task), task))
        else:
            flat.append(module)
    return tuple(flat)


def tasks_of(modules: Sequence[Module]) -> list[str | None]:
    """Return one task for each stack of a model.

    None stands for the stack of a model without routers, and for the default route.
    """
    routers = [module for module in modules if isinstance(module, Router)]
    if not routers:
        return [None]
    tasks: list[str | None] = []
    for task in (*routers[0].routes, *(key[0] for key in routers[0].mappings), None):
        try:
            flatten(modules, task)
        except ValueError:
            continue
        tasks.append(task)
    return tasks


def _dense(checkpoint: Checkpoint, options: LoadOptions) -> tuple[Module, ...]:
    from st_core.modules.normalize import Normalize
    from st_core.modules.pooling import Pooling
    from st_core.modules.static_embedding import StaticEmbedding

    if "StaticModel" in checkpoint.architectures or checkpoint.config.get("model_type") == "model2vec":
        files = ModuleFiles(checkpoint.folder, checkpoint.folder, StaticEmbedding.type_path, options)
        static = load_module(files)
        return (static, Normalize()) if checkpoint.config.get("normalize") else (static,)
    is_causal = checkpoint.is_causal_model and checkpoint.config.get("is_causal") is not False
    transformer = read_transformer(checkpoint.folder, "feature-extraction", options)
    return transformer, Pooling(transformer.dimension, ("lasttoken",) if is_causal else ("mean",))


def _sparse(checkpoint: Checkpoint, options: LoadOptions) -> tuple[Module, ...]:
    from st_core.modules.splade_pooling import SpladePooling

    if not any(name.endswith("ForMaskedLM") for name in checkpoint.architectures):
        raise ModelUnsupported(
            f"{checkpoint.name}: expected a masked language model for a sparse encoder, got "
            f"{', '.join(checkpoint.architectures) or 'no architecture'}; a new head would have random weights; "
            "to train one, pass init_head=True"
        )
    transformer = read_transformer(checkpoint.folder, "fill-mask", options)
    return transformer, SpladePooling(width=transformer.dimension)


def _pairs(checkpoint: Checkpoint, options: LoadOptions) -> tuple[Module, ...]:
    if checkpoint.is_causal_model:
        from st_core.modules.logit_score import LogitScore

        return read_transformer(checkpoint.folder, "text-generation", options), LogitScore("yes", "no")
    return (read_transformer(checkpoint.folder, "sequence-classification", options),)


_DEFAULTS: Mapping[str, Callable[[Checkpoint, LoadOptions], tuple[Module, ...]]] = {
    "CrossEncoder": _pairs,
    "SentenceTransformer": _dense,
    "SparseEncoder": _sparse,
}
"""Stacks of folders without a module list, by family."""

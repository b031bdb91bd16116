"""Adapters that are trained: peft puts them into a transformer, whose own weights are frozen."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from st_core.backends.torch.hush import hushed
from st_core.backends.torch.merging import adapter_layers, merge_layers
from st_core.backends.torch.modules import TransformerStep
from st_core.backends.torch.writing import writing_on_every_rank

if TYPE_CHECKING:
    from peft import PeftConfig

__all__ = ["add_adapter", "described_adapter", "has_adapter", "save_adapted"]

_OF_THE_PLACE = ("base_model_name_or_path", "peft_version", "revision")
"""Settings that say where the base model is and what wrote the configuration."""


def add_adapter(step: TransformerStep, config: PeftConfig, base: str | None, *, trains_head: bool) -> None:
    """Put a new adapter into a transformer and freeze its own weights, except with ``trains_head`` those of its head.

    ``base`` is the name or the folder of the transformer, from which the saved adapter is loaded; without one, or with
    a trained head, it is saved merged: transformers 5.23 does not load the head of an adapter. Raises the errors of
    peft for a configuration that does not fit the transformer.
    """
    model: Any = step.model
    model.add_adapter(copy.deepcopy(config))
    has_head = model.base_model is not model
    if trains_head and has_head:
        for name, parameter in model.named_parameters():
            if not name.startswith(f"{model.base_model_prefix}.") or ".pooler." in name:
                parameter.requires_grad_(requires_grad=True)
    step.adapter_base = None if trains_head and has_head else base


def has_adapter(model: nn.Module) -> bool:
    """Return whether a transformer has an adapter that is not merged."""
    return bool(getattr(model, "_hf_peft_config_loaded", False))


def described_adapter(model: Any) -> dict[str, Any]:
    """Return what decides the training of the adapter of a transformer, as values of JSON."""
    values = model.peft_config["default"].to_dict().items()
    return {name: _plain(value) for name, value in values if value is not None and name not in _OF_THE_PLACE}


def _plain(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return value if isinstance(value, (str, int, float, bool, list)) else str(value)


def save_adapted(step: TransformerStep, folder: Path) -> bool:
    """Write the adapter of a transformer to a folder, or its merged weights; return whether it is the adapter."""
    model: Any = step.model
    base = step.adapter_base
    if base is None:
        merged = copy.deepcopy(model)
        merge_layers(merged)
        with hushed(), writing_on_every_rank(merged):
            # The original names of a model with an adapter are those of the adapter.
            merged.save_pretrained(str(folder), save_original_format=step.value.base is None)
        return False
    with hushed(), writing_on_every_rank(model):
        model.save_pretrained(str(folder))
    # Written afterwards: peft 0.21 looks up a base model of the Hub over the network when it saves. Layers are named in
    # full, because the base model may have layers, such as BERT's pooler, that the trained transformer leaves out.
    path = folder / "adapter_config.json"
    changes = {"base_model_name_or_path": base, "target_modules": sorted(name for name, _ in adapter_layers(model))}
    value = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    return True

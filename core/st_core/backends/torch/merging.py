"""The layers of an adapter of peft within a transformer, and how they are merged into its weights."""

from __future__ import annotations

from typing import Any

from torch import nn

from st_core.errors import missing_extra

__all__ = ["adapter_layers", "check_peft", "merge_layers"]


def check_peft(what: str) -> type[Any]:
    """Return the class of adapter layers; raise ImportError without the extra ``peft``, which ``what`` needs."""
    try:
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError as error:
        raise missing_extra("peft", what) from error
    return BaseTunerLayer


def adapter_layers(model: nn.Module) -> list[tuple[str, Any]]:
    """Return the layers of an adapter with their names."""
    kind = check_peft("an adapter")
    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, kind)]


def merge_layers(model: nn.Module) -> None:
    """Merge the adapter of a transformer into its weights, so that nothing of the adapter is left."""
    for name, layer in adapter_layers(model):
        layer.merge()
        model.set_submodule(name, layer.get_base_layer())
    changed: Any = model
    changed._hf_peft_config_loaded = False  # noqa: SLF001 - else transformers 5.23 looks for the adapter when it saves
    del changed.peft_config  # else peft 0.21 takes another adapter for a second one beside it

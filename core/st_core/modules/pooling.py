"""Token vectors become one vector: ``1_Pooling/config.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from st_core.errors import ModelBroken
from st_core.modules import ModuleFiles

MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")

# One boolean per mode, before version 5.4 of sentence-transformers; the parts came out in this order.
_OLD_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True, slots=True)
class Pooling:
    """``modes`` are computed and put side by side in this order; ``include_prompt`` is False where the prompt's tokens do not count."""

    width: int | None
    modes: tuple[str, ...]
    include_prompt: bool = True

    @property
    def dimension(self) -> int | None:
        """The width of the result."""
        return None if self.width is None else self.width * len(self.modes)


def load(files: ModuleFiles) -> Pooling:
    """Read the configuration, with the keys of any version."""
    config = files.config()
    modes = _modes(config)
    unknown = [mode for mode in modes if mode not in MODES]
    if unknown or not modes:
        raise ModelBroken(f"{files.folder}: unknown pooling mode {unknown}; there are {', '.join(MODES)}")
    width = config.get("embedding_dimension", config.get("word_embedding_dimension"))
    return Pooling(None if width is None else int(width), modes, bool(config.get("include_prompt", True)))


def _modes(config: dict[str, Any]) -> tuple[str, ...]:
    named = config.get("pooling_mode")
    if isinstance(named, str):
        return (named,)
    if named is not None:
        return tuple(named)
    return tuple(mode for key, mode in _OLD_KEYS.items() if config.get(key)) or ("mean",)

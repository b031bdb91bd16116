"""Pooling of token vectors to one vector per text: ``1_Pooling/config.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from st_core.checkpoint.files import JsonObject
from st_core.errors import ModelBroken
from st_core.modules import SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS, ModuleFiles, Parts, unchangeable

__all__ = ["MODES", "Pooling"]

MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")

# Keys before sentence-transformers 5.4: one boolean per mode; the vectors are concatenated in this order.
_OLD_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@unchangeable
@dataclass(frozen=True, slots=True)
class Pooling:
    """Concatenates the vectors of ``modes`` in order; unless ``include_prompt``, tokens of the prompt do not count."""

    type_path: ClassVar[str] = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"
    old_names: ClassVar[tuple[str, ...]] = ()
    reads_text: ClassVar[bool] = False
    is_traceable: ClassVar[bool] = True
    requires: ClassVar[str | None] = TOKEN_EMBEDDINGS
    writes: ClassVar[str] = SENTENCE_EMBEDDING

    width: int | None
    modes: tuple[str, ...]
    include_prompt: bool = True

    @property
    def dimension(self) -> int | None:
        """The width of the token vectors times the number of modes."""
        return None if self.width is None else self.width * len(self.modes)

    @classmethod
    def load(cls, files: ModuleFiles) -> Pooling:
        """Return the module in a folder, whose configuration may have the keys of any version."""
        config = files.config()
        modes = _modes(config)
        unknown = [mode for mode in modes if mode not in MODES]
        if unknown or not modes:
            raise ModelBroken(f"{files.folder}: unknown pooling mode {unknown}; expected one of {', '.join(MODES)}")
        width = config.optional_integer("embedding_dimension", "word_embedding_dimension")
        return cls(width, modes, config.boolean("include_prompt", default=True))

    def save(self) -> Parts:
        """Return the configuration; a single mode is written as a string."""
        modes = self.modes[0] if len(self.modes) == 1 else self.modes
        config = {"embedding_dimension": self.width, "pooling_mode": modes, "include_prompt": self.include_prompt}
        return Parts({"config.json": config})


def _modes(config: JsonObject) -> tuple[str, ...]:
    mode = config.get("pooling_mode")
    if isinstance(mode, str):
        return (mode,)
    if mode is not None:
        return tuple(map(str, config.array("pooling_mode")))
    return tuple(mode for key, mode in _OLD_KEYS.items() if config.get(key)) or ("mean",)

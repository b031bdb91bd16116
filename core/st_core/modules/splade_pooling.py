"""Vocabulary logits per token become one sparse vector: ``1_SpladePooling/config.json``."""

from __future__ import annotations

from dataclasses import dataclass

from st_core.errors import ModelBroken
from st_core.modules import ModuleFiles


@dataclass(frozen=True, slots=True)
class SpladePooling:
    """``log1p(relu(logits))``, twice the logarithm with ``doubled``, then the maximum or, with ``summed``, the sum over the tokens."""

    summed: bool = False
    doubled: bool = False
    width: int | None = None

    @property
    def dimension(self) -> int | None:
        """The vocabulary's size where the file says it."""
        return self.width


def load(files: ModuleFiles) -> SpladePooling:
    """Read the configuration."""
    config = files.config()
    strategy = config.get("pooling_strategy", "max")
    activation = config.get("activation_function", "relu")
    if strategy not in ("max", "sum") or activation not in ("relu", "log1p_relu"):
        raise ModelBroken(f"{files.folder}: unknown pooling {strategy!r} with activation {activation!r}")
    width = config.get("embedding_dimension", config.get("word_embedding_dimension"))
    return SpladePooling(strategy == "sum", activation == "log1p_relu", None if width is None else int(width))

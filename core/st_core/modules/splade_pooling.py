"""Pooling of vocabulary logits to one sparse vector per text: ``1_SpladePooling/config.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from st_core.errors import ModelBroken
from st_core.modules import SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS, ModuleFiles, Parts, unchangeable

__all__ = ["SpladePooling"]


@unchangeable
@dataclass(frozen=True, slots=True)
class SpladePooling:
    """Computes the maximum over the tokens of ``log1p(relu(logits))``.

    With ``doubled`` the logarithm is applied twice; with ``summed`` the sum replaces the maximum. ``width`` is the size
    of the vocabulary, None where the file does not contain it.
    """

    type_path: ClassVar[str] = "sentence_transformers.sparse_encoder.modules.splade_pooling.SpladePooling"
    old_names: ClassVar[tuple[str, ...]] = ()
    reads_text: ClassVar[bool] = False
    is_traceable: ClassVar[bool] = True
    requires: ClassVar[str | None] = TOKEN_EMBEDDINGS
    writes: ClassVar[str] = SENTENCE_EMBEDDING

    summed: bool = False
    doubled: bool = False
    width: int | None = None

    @property
    def dimension(self) -> int | None:
        """The size of the vocabulary."""
        return self.width

    @classmethod
    def load(cls, files: ModuleFiles) -> SpladePooling:
        """Return the module in a folder."""
        config = files.config()
        strategy = config.get("pooling_strategy", "max")
        activation = config.get("activation_function", "relu")
        if strategy not in ("max", "sum") or activation not in ("relu", "log1p_relu"):
            raise ModelBroken(
                f"{files.folder}: unknown SPLADE pooling {strategy!r} with activation {activation!r}; "
                "expected max or sum, and relu or log1p_relu"
            )
        width = config.optional_integer("embedding_dimension", "word_embedding_dimension")
        return cls(strategy == "sum", activation == "log1p_relu", width)

    def save(self) -> Parts:
        """Return the configuration."""
        config = {
            "pooling_strategy": "sum" if self.summed else "max",
            "activation_function": "log1p_relu" if self.doubled else "relu",
            "embedding_dimension": self.width,
        }
        return Parts({"config.json": config})

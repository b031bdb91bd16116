"""A weighted mean of a transformer's layers, token by token: ``1_WeightedLayerPooling``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from st_core.checkpoint.tensors import as_float32
from st_core.errors import ModelBroken
from st_core.modules import TOKEN_EMBEDDINGS, ModuleFiles, Parts, unchangeable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["WeightedLayerPooling"]


@unchangeable
@dataclass(frozen=True, slots=True, eq=False)
class WeightedLayerPooling:
    """Averages the layers of a transformer from ``start`` on with their ``weight``; layer 0 is the embeddings.

    Where the transformer does not return its layers (``output_hidden_states`` in its configuration), the last layer is
    passed on, as in sentence-transformers.
    """

    type_path: ClassVar[str] = (
        "sentence_transformers.sentence_transformer.modules.weighted_layer_pooling.WeightedLayerPooling"
    )
    old_names: ClassVar[tuple[str, ...]] = ()
    reads_text: ClassVar[bool] = False
    is_traceable: ClassVar[bool] = False
    requires: ClassVar[str | None] = TOKEN_EMBEDDINGS

    weight: NDArray[np.float32]
    start: int
    layers: int
    dimension: int
    writes: str = TOKEN_EMBEDDINGS

    @classmethod
    def load(cls, files: ModuleFiles) -> WeightedLayerPooling:
        """Return the module in a folder; raise ModelBroken where configuration and weights contradict each other."""
        config = files.config()
        width = config.optional_integer("embedding_dimension", "word_embedding_dimension")
        start, layers = config.integer("layer_start", 4), config.integer("num_hidden_layers", 12)
        if start < 0 or width is None:
            raise ModelBroken(
                f"{config.path}: expected layer_start >= 0 and an embedding_dimension, got {start} and {width}"
            )
        tensors = as_float32(files.weights(), {"layer_weights": (layers + 1 - start,)}, files.folder)
        return cls(tensors["layer_weights"], start, layers, width)

    def save(self) -> Parts:
        """Return configuration and weights."""
        config = {
            "embedding_dimension": self.dimension,
            "layer_start": self.start,
            "num_hidden_layers": self.layers,
        }
        return Parts({"config.json": config}, {"layer_weights": self.weight})

"""The weighted mean of a transformer's layers, token by token: ``1_WeightedLayerPooling``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from st_core.errors import ModelBroken
from st_core.modules import ModuleFiles

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class WeightedLayerPooling:
    """``weight`` [layers from ``start`` on] of the transformer's layers, the embeddings being layer 0.

    A transformer that does not give its layers (``output_hidden_states`` in its configuration) keeps its last one, as in
    sentence-transformers.
    """

    weight: NDArray[np.float32]
    start: int
    layers: int
    dimension: int
    writes: str = "token_embeddings"


def load(files: ModuleFiles) -> WeightedLayerPooling:
    """Read configuration and weights; raises ModelBroken where they do not fit each other."""
    config = files.config()
    width = config.get("embedding_dimension", config.get("word_embedding_dimension"))
    start, layers = int(config.get("layer_start", 4)), int(config.get("num_hidden_layers", 12))
    tensors = files.weights()
    found = {name: array.shape for name, array in tensors.items()}
    wanted = (layers + 1 - start,)
    if found != {"layer_weights": wanted} or start < 0 or width is None:
        raise ModelBroken(f"{files.folder}: expected a tensor layer_weights of shape {wanted}, found {found}")
    return WeightedLayerPooling(tensors["layer_weights"].astype(np.float32), start, layers, int(width))

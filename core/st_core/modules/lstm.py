"""A recurrent network over the vectors of words: ``1_LSTM``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from st_core.errors import ModelBroken
from st_core.modules import ModuleFiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONFIG = "lstm_config.json"


@dataclass(frozen=True, slots=True, eq=False)
class LSTM:
    """``layers`` layers, each in both directions with ``bidirectional``; ``tensors`` have torch's names and shapes."""

    width: int
    hidden: int
    layers: int
    bidirectional: bool
    tensors: Mapping[str, NDArray[np.float32]]
    writes: str = "token_embeddings"

    @property
    def dimension(self) -> int | None:
        """The width of the result."""
        return self.hidden * (2 if self.bidirectional else 1)


def load(files: ModuleFiles) -> LSTM:
    """Read configuration and weights; raises ModelBroken where they do not fit each other."""
    config = files.config(CONFIG)
    width = int(config.get("embedding_dimension", config.get("word_embedding_dimension", 0)))
    hidden, layers = int(config["hidden_dim"]), int(config.get("num_layers", 1))
    both = bool(config.get("bidirectional", True))
    tensors = {name.removeprefix("encoder."): array for name, array in files.weights().items()}
    found = {name: array.shape for name, array in tensors.items()}
    if len(found) != layers * (8 if both else 4) or found != _shapes(width, hidden, layers, both=both):
        raise ModelBroken(
            f"{files.folder}: the tensors are not those of {layers} layers from {width} to {hidden} dimensions: {found}"
        )
    return LSTM(width, hidden, layers, both, {name: array.astype(np.float32) for name, array in tensors.items()})


def _shapes(width: int, hidden: int, layers: int, *, both: bool) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the tensors of such a network."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(layers):
        reads = width if layer == 0 else hidden * (2 if both else 1)
        for end in ("", "_reverse") if both else ("",):
            name = f"l{layer}{end}"
            shapes |= {f"weight_ih_{name}": (4 * hidden, reads), f"weight_hh_{name}": (4 * hidden, hidden)}
            shapes |= {f"bias_ih_{name}": (4 * hidden,), f"bias_hh_{name}": (4 * hidden,)}
    return shapes

"""A recurrent network over word vectors: ``1_LSTM``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from st_core.checkpoint.tensors import as_float32
from st_core.errors import ModelBroken
from st_core.modules import TOKEN_EMBEDDINGS, ModuleFiles, Parts, unchangeable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["LSTM"]

_CONFIG = "lstm_config.json"


@unchangeable
@dataclass(frozen=True, slots=True, eq=False)
class LSTM:
    """Runs ``layers`` LSTM layers, in both directions if ``bidirectional``.

    ``tensors`` have the names and shapes of ``torch.nn.LSTM``.
    """

    type_path: ClassVar[str] = "sentence_transformers.sentence_transformer.modules.lstm.LSTM"
    old_names: ClassVar[tuple[str, ...]] = ()
    reads_text: ClassVar[bool] = False
    is_traceable: ClassVar[bool] = False
    requires: ClassVar[str | None] = TOKEN_EMBEDDINGS

    width: int
    hidden: int
    layers: int
    bidirectional: bool
    tensors: Mapping[str, NDArray[np.float32]]
    writes: str = TOKEN_EMBEDDINGS

    @property
    def dimension(self) -> int | None:
        """The width of the result."""
        return self.hidden * (2 if self.bidirectional else 1)

    @classmethod
    def load(cls, files: ModuleFiles) -> LSTM:
        """Return the module in a folder; raise ModelBroken where configuration and weights contradict each other."""
        config = files.config(_CONFIG)
        width = config.optional_integer("embedding_dimension", "word_embedding_dimension") or 0
        hidden, layers = config.integer("hidden_dim"), config.integer("num_layers", 1)
        bidirectional = config.boolean("bidirectional", default=True)
        tensors = {name.removeprefix("encoder."): array for name, array in files.weights().items()}
        expected = layers * (8 if bidirectional else 4)
        if len(tensors) != expected:  # checked first, since an absurd number of layers has many shapes
            raise ModelBroken(f"{files.folder}: expected {expected} tensors for {layers} layers, got {sorted(tensors)}")
        shapes = _shapes(width, hidden, layers, bidirectional=bidirectional)
        return cls(width, hidden, layers, bidirectional, as_float32(tensors, shapes, files.folder))

    def save(self) -> Parts:
        """Return configuration and weights."""
        config = {
            "embedding_dimension": self.width,
            "hidden_dim": self.hidden,
            "num_layers": self.layers,
            "dropout": 0.0,
            "bidirectional": self.bidirectional,
        }
        return Parts({_CONFIG: config}, {f"encoder.{name}": array for name, array in self.tensors.items()})


def _shapes(width: int, hidden: int, layers: int, *, bidirectional: bool) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the network's tensors."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(layers):
        inputs = width if layer == 0 else hidden * (2 if bidirectional else 1)
        for suffix in ("", "_reverse") if bidirectional else ("",):
            name = f"l{layer}{suffix}"
            shapes |= {f"weight_ih_{name}": (4 * hidden, inputs), f"weight_hh_{name}": (4 * hidden, hidden)}
            shapes |= {f"bias_ih_{name}": (4 * hidden,), f"bias_hh_{name}": (4 * hidden,)}
    return shapes

"""Layer normalisation of the pooled vector: ``3_LayerNorm``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from st_core.checkpoint.tensors import as_float32
from st_core.modules import SENTENCE_EMBEDDING, ModuleFiles, Parts, unchangeable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["LayerNorm"]


@unchangeable
@dataclass(frozen=True, slots=True, eq=False)
class LayerNorm:
    """Normalises vectors [n, d], then scales them by ``weight`` [d] and adds ``bias`` [d].

    The default ``epsilon`` is that of torch.
    """

    type_path: ClassVar[str] = "sentence_transformers.sentence_transformer.modules.layer_norm.LayerNorm"
    old_names: ClassVar[tuple[str, ...]] = ()
    reads_text: ClassVar[bool] = False
    is_traceable: ClassVar[bool] = True
    requires: ClassVar[str | None] = SENTENCE_EMBEDDING
    writes: ClassVar[str] = SENTENCE_EMBEDDING

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    epsilon: float = 1e-5

    @property
    def dimension(self) -> int | None:
        """The width of the result."""
        return int(self.weight.shape[0])

    @classmethod
    def load(cls, files: ModuleFiles) -> LayerNorm:
        """Return the module in a folder; raise ModelBroken where configuration and weights contradict each other."""
        shape = (files.config().integer("dimension"),)
        tensors = as_float32(files.weights(), {"norm.weight": shape, "norm.bias": shape}, files.folder)
        return cls(tensors["norm.weight"], tensors["norm.bias"])

    def save(self) -> Parts:
        """Return configuration and weights."""
        tensors = {"norm.weight": self.weight, "norm.bias": self.bias}
        return Parts({"config.json": {"dimension": self.dimension}}, tensors)

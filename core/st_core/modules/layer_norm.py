"""Layer normalisation of the pooled vector: ``3_LayerNorm``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from st_core.errors import ModelBroken
from st_core.modules import ModuleFiles

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class LayerNorm:
    """``weight`` and ``bias`` are [d]; epsilon is torch's default."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    epsilon: float = 1e-5

    @property
    def dimension(self) -> int | None:
        """The width of the result."""
        return int(self.weight.shape[0])


def load(files: ModuleFiles) -> LayerNorm:
    """Read configuration and weights; raises ModelBroken where they do not fit each other."""
    shape = (int(files.config()["dimension"]),)
    weights = files.weights()
    found = {name: array.shape for name, array in weights.items()}
    if found != {"norm.weight": shape, "norm.bias": shape}:
        raise ModelBroken(f"{files.folder}: expected norm.weight and norm.bias of shape {shape}, found {found}")
    return LayerNorm(weights["norm.weight"].astype(np.float32), weights["norm.bias"].astype(np.float32))

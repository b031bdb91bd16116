"""Convolutions over the vectors of neighbouring words, of several widths: ``1_CNN``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from st_core.errors import ModelBroken, ModelUnsupported
from st_core.modules import ModuleFiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONFIG = "cnn_config.json"


@dataclass(frozen=True, slots=True, eq=False)
class CNN:
    """``weights`` are [out, in, width] and ``biases`` [out], one of each a convolution; their results stand side by side.

    Beyond the ends of a text there are zeros, in a batch too.
    """

    weights: tuple[NDArray[np.float32], ...]
    biases: tuple[NDArray[np.float32], ...]
    writes: str = "token_embeddings"

    @property
    def dimension(self) -> int | None:
        """The width of the result."""
        return sum(bias.size for bias in self.biases)


def load(files: ModuleFiles) -> CNN:
    """Read configuration and weights; raises ModelUnsupported for strides and even widths, behind which no mask fits the words."""
    config = files.config(CONFIG)
    width = int(config.get("in_embedding_dimension", config.get("in_word_embedding_dimension", 0)))
    out, kernels = int(config["out_channels"]), [int(size) for size in config["kernel_sizes"]]
    strides = config.get("stride_sizes") or [1] * len(kernels)
    if any(stride != 1 for stride in strides) or any(size % 2 == 0 for size in kernels):
        raise ModelUnsupported(
            f"{files.folder / CONFIG}: strides {strides} and widths {kernels} change the number of words; "
            "strides of 1 and odd widths are supported"
        )
    tensors = files.weights()
    found = {name: array.shape for name, array in tensors.items()}
    wanted: dict[str, tuple[int, ...]] = {}
    for index, size in enumerate(kernels):
        wanted |= {f"convs.{index}.weight": (out, width, size), f"convs.{index}.bias": (out,)}
    if found != wanted or not kernels:
        raise ModelBroken(f"{files.folder}: expected tensors {wanted}, found {found}")
    parts = range(len(kernels))
    return CNN(
        tuple(tensors[f"convs.{index}.weight"].astype(np.float32) for index in parts),
        tuple(tensors[f"convs.{index}.bias"].astype(np.float32) for index in parts),
    )

"""Convolutions of several widths over word vectors: ``1_CNN``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from st_core.checkpoint.tensors import as_float32
from st_core.errors import ModelBroken, ModelUnsupported
from st_core.modules import TOKEN_EMBEDDINGS, ModuleFiles, Parts, unchangeable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["CNN"]

_CONFIG = "cnn_config.json"


@unchangeable
@dataclass(frozen=True, slots=True, eq=False)
class CNN:
    """Applies convolutions with ``weights`` [out, in, width] and ``biases`` [out] and concatenates their results.

    Texts are padded with zeros at both ends, also inside a batch.
    """

    type_path: ClassVar[str] = "sentence_transformers.sentence_transformer.modules.cnn.CNN"
    old_names: ClassVar[tuple[str, ...]] = ()
    reads_text: ClassVar[bool] = False
    is_traceable: ClassVar[bool] = False
    requires: ClassVar[str | None] = TOKEN_EMBEDDINGS

    weights: tuple[NDArray[np.float32], ...]
    biases: tuple[NDArray[np.float32], ...]
    writes: str = TOKEN_EMBEDDINGS

    @property
    def dimension(self) -> int | None:
        """The width of the result."""
        return sum(bias.size for bias in self.biases)

    @classmethod
    def load(cls, files: ModuleFiles) -> CNN:
        """Return the module in a folder.

        Raises ModelUnsupported for strides and even widths, with which the attention mask would no longer match the
        words.
        """
        config = files.config(_CONFIG)
        width = config.optional_integer("in_embedding_dimension", "in_word_embedding_dimension") or 0
        out = config.integer("out_channels")
        kernels = config.integers("kernel_sizes")
        strides = config.optional_array("stride_sizes") or [1] * len(kernels)
        if any(stride != 1 for stride in strides) or any(size % 2 == 0 for size in kernels):
            raise ModelUnsupported(
                f"{config.path}: unsupported strides {strides} or widths {kernels}, which change the number of words; "
                "expected strides of 1 and odd widths"
            )
        if not kernels:
            raise ModelBroken(f"{config.path}: kernel_sizes: expected at least one width")
        shapes: dict[str, tuple[int, ...]] = {}
        for index, size in enumerate(kernels):
            shapes |= {f"convs.{index}.weight": (out, width, size), f"convs.{index}.bias": (out,)}
        tensors = as_float32(files.weights(), shapes, files.folder)
        return cls(
            tuple(tensors[f"convs.{index}.weight"] for index in range(len(kernels))),
            tuple(tensors[f"convs.{index}.bias"] for index in range(len(kernels))),
        )

    def save(self) -> Parts:
        """Return configuration and weights."""
        out, width, _ = self.weights[0].shape
        config = {
            "in_embedding_dimension": int(width),
            "out_channels": int(out),
            "kernel_sizes": [int(weight.shape[2]) for weight in self.weights],
            "stride_sizes": [1] * len(self.weights),
        }
        tensors = {f"convs.{index}.weight": weight for index, weight in enumerate(self.weights)}
        tensors |= {f"convs.{index}.bias": bias for index, bias in enumerate(self.biases)}
        return Parts({_CONFIG: config}, tensors)

"""Sparse vectors over learnt concepts from dense vectors (CSR): ``2_SparseAutoEncoder``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from st_core.checkpoint.tensors import as_float32
from st_core.modules import SENTENCE_EMBEDDING, ModuleFiles, Parts, unchangeable

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SparseAutoEncoder"]


@unchangeable
@dataclass(frozen=True, slots=True, eq=False)
class SparseAutoEncoder:
    """Computes the ``keep`` largest values of ``weight @ (x - before) + bias``, with negative values set to zero.

    ``weight`` is [h, d], ``before`` [d] and ``bias`` [h]; with ``normalize``, x is first scaled to mean 0 and standard
    deviation 1. ``unused`` are training settings, stored only to be saved again.
    """

    type_path: ClassVar[str] = "sentence_transformers.sparse_encoder.modules.sparse_auto_encoder.SparseAutoEncoder"
    old_names: ClassVar[tuple[str, ...]] = ()
    reads_text: ClassVar[bool] = False
    is_traceable: ClassVar[bool] = False
    requires: ClassVar[str | None] = SENTENCE_EMBEDDING
    writes: ClassVar[str] = SENTENCE_EMBEDDING

    weight: NDArray[np.float32]
    before: NDArray[np.float32]
    bias: NDArray[np.float32]
    keep: int
    normalize: bool
    unused: tuple[int, int] = (512, 30)

    @property
    def dimension(self) -> int | None:
        """The number of concepts."""
        return int(self.weight.shape[0])

    @classmethod
    def load(cls, files: ModuleFiles) -> SparseAutoEncoder:
        """Return the module in a folder; raise ModelBroken where configuration and weights contradict each other."""
        config = files.config()
        width, hidden = config.integer("input_dim"), config.integer("hidden_dim", 512)
        keep = config.integer("k", 8)
        tensors = files.weights()
        # A duplicate of the encoder's weight: safetensors files contain one of the two tensors, pickles contain both.
        tied = tensors.pop("decoder.linear.weight", None)
        if tied is not None:
            tensors.setdefault("encoder.weight", tied)
        shapes = {
            "pre_bias": (width,),
            "encoder.weight": (hidden, width),
            "latent_bias": (hidden,),
            "stats_last_nonzero": (hidden,),
        }
        arrays = as_float32(tensors, shapes, files.folder)
        if not 1 <= keep <= hidden:
            raise config.broken("k", f"a number from 1 to {hidden}")
        return cls(
            arrays["encoder.weight"],
            arrays["pre_bias"],
            arrays["latent_bias"],
            keep,
            config.boolean("normalize", default=False),
            (config.optional_integer("k_aux") or 0, config.integer("dead_threshold", 30)),
        )

    def save(self) -> Parts:
        """Return configuration and weights."""
        hidden, width = self.weight.shape
        config = {
            "input_dim": int(width),
            "hidden_dim": int(hidden),
            "k": self.keep,
            "k_aux": self.unused[0],
            "normalize": self.normalize,
            "dead_threshold": self.unused[1],
        }
        tensors: dict[str, NDArray[np.generic] | None] = {
            "pre_bias": self.before,
            "encoder.weight": self.weight,
            "latent_bias": self.bias,
            "stats_last_nonzero": np.zeros(hidden, np.int64),
        }
        return Parts({"config.json": config}, tensors)

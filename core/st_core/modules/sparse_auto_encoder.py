"""A dense vector becomes a sparse one over learnt concepts (CSR): ``2_SparseAutoEncoder``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from st_core.errors import ModelBroken
from st_core.modules import ModuleFiles

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class SparseAutoEncoder:
    """The ``keep`` greatest of ``weight @ (x - before) + bias``, those below zero made zero.

    ``weight`` is [h, d], ``before`` [d], ``bias`` [h]; with ``normalize`` x is brought to mean 0 and deviation 1 first. ``unused`` are the
    settings of the training, kept for saving.
    """

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


def load(files: ModuleFiles) -> SparseAutoEncoder:
    """Read configuration and weights; raises ModelBroken where they do not fit each other."""
    config = files.config()
    width, hidden = int(config["input_dim"]), int(config.get("hidden_dim", 512))
    keep = int(config.get("k", 8))
    tensors = files.weights()
    tied = tensors.pop(
        "decoder.linear.weight", None
    )  # the encoder's weight again: safetensors keep one of both, pickles both
    if tied is not None:
        tensors.setdefault("encoder.weight", tied)
    found = {name: array.shape for name, array in tensors.items()}
    wanted = {
        "pre_bias": (width,),
        "encoder.weight": (hidden, width),
        "latent_bias": (hidden,),
        "stats_last_nonzero": (hidden,),
    }
    if found != wanted:
        raise ModelBroken(f"{files.folder}: expected tensors {wanted}, found {found}")
    if not 1 <= keep <= hidden:
        raise ModelBroken(f"{files.folder}: k must be from 1 to {hidden}, found {keep}")
    return SparseAutoEncoder(
        tensors["encoder.weight"].astype(np.float32),
        tensors["pre_bias"].astype(np.float32),
        tensors["latent_bias"].astype(np.float32),
        keep,
        bool(config.get("normalize", False)),
        (int(config.get("k_aux") or 0), int(config.get("dead_threshold", 30))),
    )

"""A linear layer with an activation: ``2_Dense/config.json`` and its weights."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from st_core.errors import ModelBroken
from st_core.modules import ModuleFiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

TANH = "torch.nn.modules.activation.Tanh"


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """``activation(x @ weight.T + bias)``, plus ``x`` or ``x @ residual.T`` with a residual connection.

    ``weight`` is [out, in], ``bias`` [out] or None, ``residual`` [out, in] or None; ``activation`` is the dotted path of a torch module class.
    ``reads`` and ``writes`` name the feature it works on.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    residual: NDArray[np.float32] | None
    use_residual: bool
    activation: str
    reads: str
    writes: str

    @property
    def dimension(self) -> int | None:
        """The width of the result."""
        return int(self.weight.shape[0])


def load(files: ModuleFiles) -> Dense:
    """Read configuration and weights; raises ModelBroken where they do not fit each other."""
    config = files.config()
    weights = files.weights()
    shape = (int(config["out_features"]), int(config["in_features"]))
    use_residual = bool(config.get("use_residual", False))
    wanted = {"linear.weight": shape}
    if config.get("bias", True):
        wanted["linear.bias"] = shape[:1]  # type: ignore[assignment]
    if use_residual and shape[0] != shape[1]:
        wanted["residual.weight"] = shape
    found = {name: array.shape for name, array in weights.items()}
    if found != wanted:
        raise ModelBroken(f"{files.folder}: expected tensors {wanted}, found {found}")
    reads = str(config.get("module_input_name") or "sentence_embedding")
    return Dense(
        weights["linear.weight"].astype(np.float32),
        _float32(weights.get("linear.bias")),
        _float32(weights.get("residual.weight")),
        use_residual,
        _activation(config, files),
        reads,
        str(config.get("module_output_name") or reads),
    )


def _float32(array: Any) -> NDArray[np.float32] | None:
    return None if array is None else np.asarray(array, np.float32)


def _activation(config: dict[str, Any], files: ModuleFiles) -> str:
    """The path of the activation; one outside torch is replaced by Tanh, as sentence-transformers does, unless code is trusted."""
    path = str(config.get("activation_function", TANH))
    if path.startswith("torch.") or files.options.trust_remote_code:
        return path
    logger.warning("%s: the activation %r is not torch's and is replaced by Tanh", files.folder, path)
    return TANH

"""A linear layer with an activation: ``2_Dense/config.json`` and the weights."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from st_core.checkpoint.tensors import as_float32
from st_core.modules import SENTENCE_EMBEDDING, ModuleFiles, Parts, unchangeable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["TANH", "Dense"]

logger = logging.getLogger(__name__)

TANH = "torch.nn.modules.activation.Tanh"


@unchangeable
@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """Computes ``activation(x @ weight.T + bias)``, plus ``x`` or ``x @ residual.T`` with a residual connection.

    ``weight`` is [out, in], ``bias`` [out] or None and ``residual`` [out, in] or None; ``activation`` is the dotted
    path of a torch module class. ``reads`` and ``writes`` are the names of the features.
    """

    type_path: ClassVar[str] = "sentence_transformers.base.modules.dense.Dense"
    old_names: ClassVar[tuple[str, ...]] = ()
    reads_text: ClassVar[bool] = False
    is_traceable: ClassVar[bool] = True

    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    residual: NDArray[np.float32] | None
    use_residual: bool
    activation: str
    reads: str
    writes: str

    @property
    def requires(self) -> str | None:
        """The feature ``reads``."""
        return self.reads

    @property
    def dimension(self) -> int | None:
        """The width of the result."""
        return int(self.weight.shape[0])

    @classmethod
    def load(cls, files: ModuleFiles) -> Dense:
        """Return the module in a folder; raise ModelBroken where configuration and weights contradict each other."""
        config = files.config()
        shape = (config.integer("out_features"), config.integer("in_features"))
        use_residual = config.boolean("use_residual", default=False)
        shapes: dict[str, tuple[int, ...]] = {"linear.weight": shape}
        if config.boolean("bias", default=True):
            shapes["linear.bias"] = shape[:1]
        if use_residual and shape[0] != shape[1]:
            shapes["residual.weight"] = shape
        tensors = as_float32(files.weights(), shapes, files.folder)
        reads = config.text("module_input_name", SENTENCE_EMBEDDING)
        return cls(
            tensors["linear.weight"],
            tensors.get("linear.bias"),
            tensors.get("residual.weight"),
            use_residual,
            _activation(str(config.get("activation_function", TANH)), files),
            reads,
            config.text("module_output_name", reads),
        )

    def save(self) -> Parts:
        """Return configuration and weights."""
        config = {
            "in_features": int(self.weight.shape[1]),
            "out_features": int(self.weight.shape[0]),
            "bias": self.bias is not None,
            "activation_function": self.activation,
            "module_input_name": self.reads,
            "module_output_name": self.writes,
        } | ({"use_residual": True} if self.use_residual else {})
        tensors = {"linear.weight": self.weight, "linear.bias": self.bias, "residual.weight": self.residual}
        return Parts({"config.json": config}, tensors)


def _activation(path: str, files: ModuleFiles) -> str:
    """Return the dotted path of the activation; Tanh instead of untrusted code, as in sentence-transformers."""
    if path.startswith("torch.") or files.options.trust_remote_code:
        return path
    logger.warning("%s: the activation %r is not torch's and is replaced by Tanh", files.folder, path)
    return TANH

"""A module type outside the package: everything about it but its step on numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from st_core.checkpoint.tensors import as_float32
from st_core.modules import ModuleFiles, Parts, register


@register
@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """Multiplies each dimension of the text's vector by its ``factor`` [d]."""

    type_path: ClassVar[str] = "toy_module.Scale"
    old_names: ClassVar[tuple[str, ...]] = ()
    reads_text: ClassVar[bool] = False
    is_traceable: ClassVar[bool] = False
    requires: ClassVar[str | None] = "sentence_embedding"
    writes: ClassVar[str] = "sentence_embedding"

    factor: np.ndarray[Any, np.dtype[np.float32]]

    @property
    def dimension(self) -> int | None:
        """The number of factors."""
        return int(self.factor.size)

    @classmethod
    def load(cls, files: ModuleFiles) -> Scale:
        """Read configuration and weights."""
        shape = (files.config().integer("dimension"),)
        return cls(as_float32(files.weights(), {"factor": shape}, files.folder)["factor"])

    def save(self) -> Parts:
        """Return configuration and weights."""
        return Parts({"config.json": {"dimension": self.dimension}}, {"factor": self.factor})

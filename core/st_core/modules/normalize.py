"""Vectors of unit length: ``2_Normalize``, whose folder is often empty or missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from st_core.modules import SENTENCE_EMBEDDING, ModuleFiles, Parts

__all__ = ["Normalize"]


@dataclass(frozen=True, slots=True)
class Normalize:
    """Divides the feature ``reads`` by its Euclidean length, at least 1e-12, and writes ``writes``.

    Does nothing where the feature is missing.
    """

    type_path: ClassVar[str] = "sentence_transformers.base.modules.normalize.Normalize"
    old_names: ClassVar[tuple[str, ...]] = ()
    reads_text: ClassVar[bool] = False
    is_traceable: ClassVar[bool] = True
    requires: ClassVar[str | None] = None

    reads: str = SENTENCE_EMBEDDING
    writes: str = SENTENCE_EMBEDDING

    @property
    def dimension(self) -> int | None:
        """None: the width does not change."""
        return None

    @classmethod
    def load(cls, files: ModuleFiles) -> Normalize:
        """Read the configuration; defaults apply where the module has no file of its own."""
        if not (files.folder / "config.json").is_file() or files.folder == files.root:
            return cls()
        config = files.config()
        reads = config.text("module_input_name", SENTENCE_EMBEDDING)
        return cls(reads, config.text("module_output_name", reads))

    def save(self) -> Parts:
        """Return the configuration."""
        return Parts({"config.json": {"module_input_name": self.reads, "module_output_name": self.writes}})

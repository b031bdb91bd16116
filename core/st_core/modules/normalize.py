"""Scaling to unit length: ``2_Normalize``, whose folder is often empty or missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from st_core.modules import SENTENCE_EMBEDDING, ModuleFiles, Parts, unchangeable

__all__ = ["Normalize"]


@unchangeable
@dataclass(frozen=True, slots=True)
class Normalize:
    """Divides the feature ``reads`` by its Euclidean length, with a minimum of 1e-12, and writes ``writes``.

    It has no effect where the feature is missing.
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
        """None, because the width does not change."""
        return None

    @classmethod
    def load(cls, files: ModuleFiles) -> Normalize:
        """Return the module in a folder, with default values where the folder contains no configuration."""
        if not (files.folder / "config.json").is_file() or files.folder == files.root:
            return cls()
        config = files.config()
        reads = config.text("module_input_name", SENTENCE_EMBEDDING)
        return cls(reads, config.text("module_output_name", reads))

    def save(self) -> Parts:
        """Return the configuration."""
        return Parts({"config.json": {"module_input_name": self.reads, "module_output_name": self.writes}})

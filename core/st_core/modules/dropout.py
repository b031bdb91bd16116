"""Dropout, which has no effect outside training: ``1_Dropout/config.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from st_core.modules import SENTENCE_EMBEDDING, ModuleFiles, Parts, unchangeable

__all__ = ["Dropout"]


@unchangeable
@dataclass(frozen=True, slots=True)
class Dropout:
    """Passes on all features unchanged."""

    type_path: ClassVar[str] = "sentence_transformers.sentence_transformer.modules.dropout.Dropout"
    old_names: ClassVar[tuple[str, ...]] = ()
    reads_text: ClassVar[bool] = False
    is_traceable: ClassVar[bool] = True
    requires: ClassVar[str | None] = None
    writes: ClassVar[str] = SENTENCE_EMBEDDING

    @property
    def dimension(self) -> int | None:
        """None, because the width does not change."""
        return None

    @classmethod
    def load(cls, files: ModuleFiles) -> Dropout:  # noqa: ARG003 - the common signature
        """Return the module; its files are not read, because they matter only in training."""
        return cls()

    def save(self) -> Parts:
        """Return a configuration with a rate of 0."""
        return Parts({"config.json": {"dropout": 0.0}})

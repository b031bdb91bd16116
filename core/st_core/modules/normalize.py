"""Vectors of length one: ``2_Normalize``, whose folder is often empty or missing."""

from __future__ import annotations

from dataclasses import dataclass

from st_core.modules import ModuleFiles


@dataclass(frozen=True, slots=True)
class Normalize:
    """Divides the feature ``reads`` by its Euclidean length and writes ``writes``; a vector shorter than 1e-12 is divided by that."""

    reads: str = "sentence_embedding"
    writes: str = "sentence_embedding"

    @property
    def dimension(self) -> int | None:
        """The width is not changed."""
        return None


def load(files: ModuleFiles) -> Normalize:
    """Read the configuration where there is one."""
    if not (files.folder / "config.json").is_file() or files.folder == files.root:
        return Normalize()
    config = files.config()
    reads = str(config.get("module_input_name") or "sentence_embedding")
    return Normalize(reads, str(config.get("module_output_name") or reads))

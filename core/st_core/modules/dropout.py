"""Dropout, which does nothing outside training."""

from __future__ import annotations

from dataclasses import dataclass

from st_core.modules import ModuleFiles


@dataclass(frozen=True, slots=True)
class Dropout:
    """Passes everything on."""

    @property
    def dimension(self) -> int | None:
        """The width is not changed."""
        return None


def load(files: ModuleFiles) -> Dropout:  # noqa: ARG001 - the loaders' common form
    """There is nothing to read."""
    return Dropout()

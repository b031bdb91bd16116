"""The result of copying documents from another collection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Filled"]


@dataclass(frozen=True, slots=True)
class Filled:
    """How many documents were copied, how many were not, and the first reasons."""

    copied: int
    refused: int = 0
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"copied {self.copied:,} documents" + (f", {self.refused:,} refused" if self.refused else "")

    def to_json(self) -> dict[str, Any]:
        """Return the result as values that can be written as JSON."""
        return {"copied": self.copied, "refused": self.refused, "reasons": list(self.reasons)}

"""What the user wants of a store, whichever it is."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from st_connectors.schema import Fusion, Rrf

__all__ = ["DENSE", "SPARSE", "Options", "is_made_by", "mark"]

DENSE, SPARSE = "dense", "sparse"
"""The fields of the vectors."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Options:
    """The collection, the field of its texts, and how it is encoded and searched.

    ``name`` is the beginning of the names of all objects of a set-up, by default the name of the collection. ``batch``
    is the number of texts of a call, and ``timeout_s`` how many seconds the store waits for an answer. ``depth`` is the
    number of candidates of each leg. ``is_semantic`` uses the store's own field for texts with vectors in place of
    pipelines.
    """

    collection: str
    name: str = ""
    text: str = "text"
    fusion: Fusion = field(default_factory=Rrf)
    batch: int = 32
    timeout_s: int = 60
    depth: int = 100
    is_two_phase: bool = False
    is_semantic: bool = False

    def __post_init__(self) -> None:
        """Set the name, and raise ValueError for one that some store does not accept."""
        if not self.name:
            object.__setattr__(self, "name", self.collection)
        for name in (self.collection, self.name):
            if not _NAME.fullmatch(name):
                raise ValueError(f"name {name!r}: expected lower-case letters, digits, - and _, no sign first")
        if self.timeout_s < 1:
            raise ValueError(f"--timeout: expected at least 1 second, got {self.timeout_s}")
        if self.text in (DENSE, SPARSE):
            raise ValueError(f"--text-field {self.text!r} is the name of a field of vectors; choose another one")


def mark(name: str, digest: str = "") -> str:
    """Return the description by which an object is recognised as created by the set-up of this name."""
    return f"created by st-connectors setup: {name}{f' {digest}' if digest else ''}"


def is_made_by(name: str, description: object) -> bool:
    """Return whether a description says that the set-up of this name created the object."""
    return isinstance(description, str) and (description == mark(name) or description.startswith(f"{mark(name)} "))

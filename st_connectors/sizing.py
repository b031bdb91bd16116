"""The memory that a store needs for vectors, as data of the adapters for :mod:`st_connectors.advice`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["DenseLayout", "Sizing", "folder_size"]


@dataclass(frozen=True, slots=True)
class DenseLayout:
    """One form of dense vectors in memory, of ``factor * (per_dimension * dimension + per_vector + graph)`` bytes each.

    ``quantization`` (a Quantization's value) and ``options`` of the address select it. ``cost`` describes its drawback,
    ``source`` cites the figures, ``by_hand`` is a manual step for which there is no option. The dimension must be at
    least ``least`` and a multiple of ``multiple``.
    """

    name: str
    per_dimension: float
    cost: str
    source: str
    per_vector: float = 0.0
    graph: float = 0.0
    factor: float = 1.0
    quantization: str = "none"
    options: Mapping[str, str] = field(default_factory=dict)
    by_hand: str = ""
    least: int = 1
    multiple: int = 1


@dataclass(frozen=True, slots=True)
class Sizing:
    """A store's figures for dense layouts, from best to smallest, sparse vectors and shards.

    ``sparse_entry`` is the size of an entry of a sparse vector in bytes. ``sparse_in_memory`` is false if sparse
    vectors are read from disk. ``shard_option`` is the address option for the number of shards, or None if there is
    none. A limit of None means that the limit is unknown.
    """

    dense: tuple[DenseLayout, ...]
    sparse_entry: float
    sparse_source: str
    sparse_in_memory: bool = True
    shard_documents: int | None = None
    shard_bytes: int | None = None
    shard_source: str = ""
    shard_option: str | None = None


def folder_size(folder: Path) -> int:
    """Return the bytes that the files in a folder occupy on disk; files that vanish meanwhile are ignored."""
    total = 0
    for path in folder.rglob("*"):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        # Embedded engines allocate large files of which they use a part; not every system reports blocks.
        total += status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size
    return total

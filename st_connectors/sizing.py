"""What a store's ways of keeping vectors cost, as data: adapters fill it in, :mod:`st_connectors.advice` reckons with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["DenseLayout", "Sizing"]


@dataclass(frozen=True, slots=True)
class DenseLayout:
    """One way of keeping dense vectors in memory: ``factor * (per_dimension * dimension + per_vector + graph)`` bytes for each.

    ``quantization`` (a Quantization's value) and ``options`` of the address choose it. ``cost`` is what one pays for it, ``source`` where the figures
    are from, ``by_hand`` what the operator must do besides, for there is no option for it. Dimensions are at least ``least``, and a multiple of
    ``multiple``.
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
    """A store's figures: its dense layouts, the first that fits being the best; bytes per entry of a sparse vector; and what a shard should hold at most.

    ``sparse_in_memory`` is false where sparse vectors are read from disk.
    ``shard_option`` is the address option for a number of shards, None where there is none. Limits of None are not known.
    """

    dense: tuple[DenseLayout, ...]
    sparse_entry: float
    sparse_source: str
    sparse_in_memory: bool = True
    shard_documents: int | None = None
    shard_bytes: int | None = None
    shard_source: str = ""
    shard_option: str | None = None

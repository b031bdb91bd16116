"""How to lay out a collection of so many records, reckoned from a store's own figures; a pure function, nothing is asked of a store.

The bytes are those that should be in memory for quick searches: vectors and their index. Payloads, texts and copies (replicas) are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from st_connectors.plugin import Address, Plugin
from st_connectors.schema import DenseField, Quantization, Schema
from st_connectors.sizing import DenseLayout, Sizing

__all__ = ["Advice", "advise", "human", "sizing_for"]

FLOAT = 4
"""Bytes of a float32, which stores keep on disk whatever their index holds."""


@dataclass(frozen=True, slots=True)
class Advice:
    """A proposal: what to choose, the bytes of each part, and why. ``by_hand`` is what no option does, so that the operator must.

    ``fits`` is None where no memory was named. ``index`` is empty where there are no dense vectors.
    """

    count: int
    index: str
    quantization: Quantization
    options: Mapping[str, str]
    shards: int | None
    parts: Mapping[str, int]
    memory: int | None
    reasons: tuple[str, ...]
    by_hand: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """The bytes of all parts."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool | None:
        """Whether the total is within the memory."""
        return None if self.memory is None else self.total <= self.memory

    def address(self, given: Address) -> Address:
        """The address with the options proposed; those given stay."""
        return replace(given, options={**self.options, **given.options})

    def schema(self, given: Schema) -> Schema:
        """The schema with the quantization proposed."""
        fields = {
            name: replace(spec, quantization=self.quantization) if isinstance(spec, DenseField) else spec
            for name, spec in given.fields.items()
        }
        return replace(given, fields=fields)

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "for": self.count,
            "index": self.index,
            "quantization": self.quantization.value,
            "options": dict(self.options),
            "shards": self.shards,
            "bytes": {**self.parts, "total": self.total},
            "memory": self.memory,
            "fits": self.fits,
            "reasons": list(self.reasons),
            "by_hand": list(self.by_hand),
        }


def sizing_for(plugin: Plugin, address: Address) -> Sizing:
    """The figures of an address's variant; raises ValueError where the store gives none."""
    for variant in (*address.variants, ""):
        if variant in plugin.sizing:
            return plugin.sizing[variant]
    raise ValueError(f"the store {plugin.name!r} gives no figures to advise by")


def advise(
    sizing: Sizing,
    *,
    count: int,
    dimension: int | None = None,
    terms: int | None = None,
    memory: int | None = None,
    given: Mapping[str, str] | None = None,
) -> Advice:
    """Propose how to keep ``count`` records with vectors of ``dimension``, sparse ones of ``terms`` entries, in ``memory`` bytes.

    The first layout of the store's that fits, else the smallest, with ``fits`` False. Options ``given`` in the address are kept to. Raises ValueError
    for counts below 1 and where no layout has those options.
    """
    for name, value in {"count": count, "dimension": dimension, "terms": terms, "memory": memory}.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} is at least 1, not {value}")
    given = given or {}
    sparse = math.ceil(count * terms * sizing.sparse_entry) if terms else 0
    kept = sparse if sizing.sparse_in_memory else 0
    parts = {"sparse": kept} if kept else {}
    reasons = _why_sparse(sizing, terms, sparse) if terms else []
    layout = None
    if dimension is not None:
        room = None if memory is None else memory - kept
        layout = _layout(_candidates(sizing, dimension, given), count, dimension, room)
        parts = {**_parts(layout, count, dimension), **parts}
        reasons = [*_why(sizing, layout, count, dimension, room), *reasons]
    on_disk = sum(parts.values()) + (sparse - kept) + count * FLOAT * (dimension or 0)
    shards, why, by_hand = _shards(sizing, count, on_disk)
    options = dict(layout.options) if layout else {}
    if shards is not None and shards > 1 and sizing.shard_option:
        options[sizing.shard_option] = str(shards)
    return Advice(
        count=count,
        index=layout.name if layout else "",
        quantization=Quantization(layout.quantization if layout else "none"),
        options={**options, **{key: value for key, value in given.items() if key in options}},
        shards=shards,
        parts=parts,
        memory=memory,
        reasons=(*reasons, *why),
        by_hand=(*((layout.by_hand,) if layout and layout.by_hand else ()), *by_hand),
    )


def human(size: float) -> str:
    """Bytes for people, in powers of 1000: ``1.28 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if unit != "B" else f"{size:.0f} B"
        size /= 1000
    return f"{size:,.2f} TB"


def _candidates(sizing: Sizing, dimension: int, given: Mapping[str, str]) -> list[DenseLayout]:
    found = [
        layout
        for layout in sizing.dense
        if dimension >= layout.least
        and dimension % layout.multiple == 0
        and all(given.get(key, value) == value for key, value in layout.options.items())
    ]
    if not found:
        names = ", ".join(layout.name for layout in sizing.dense)
        told = ", ".join(f"{key}={value}" for key, value in given.items())
        raise ValueError(f"no index for {dimension} dimensions goes with {told}; there are {names}")
    return found


def _parts(layout: DenseLayout, count: int, dimension: int) -> dict[str, int]:
    """The bytes of dense vectors, their graph, and what the store's own formula adds."""
    vectors = count * (layout.per_dimension * dimension + layout.per_vector)
    graph = count * layout.graph
    extra = (layout.factor - 1) * (vectors + graph)
    parts = {"dense": vectors, "graph": graph, "overhead": extra}
    return {name: math.ceil(round(size, 3)) for name, size in parts.items() if size}


def _layout(candidates: list[DenseLayout], count: int, dimension: int, room: int | None) -> DenseLayout:
    """The first that fits, else the smallest."""
    sizes = {layout.name: sum(_parts(layout, count, dimension).values()) for layout in candidates}
    fitting = [layout for layout in candidates if room is None or sizes[layout.name] <= room]
    return fitting[0] if fitting else min(candidates, key=lambda layout: sizes[layout.name])


def _why(sizing: Sizing, layout: DenseLayout, count: int, dimension: int, room: int | None) -> list[str]:
    passed = [] if room is None else list(sizing.dense[: sizing.dense.index(layout)])
    over = [
        f"{each.name} takes {human(size)}"
        for each in passed
        if (size := sum(_parts(each, count, dimension).values())) > (room or 0)
    ]
    return [
        f"{layout.name}: {layout.cost} ({layout.source})",
        *([f"more than there is: {', '.join(over)}"] if over else []),
    ]


def _why_sparse(sizing: Sizing, terms: int, size: int) -> list[str]:
    where = "" if sizing.sparse_in_memory else f"; {human(size)}, read from disk and not counted as memory"
    return [f"sparse: {sizing.sparse_entry:g} bytes for each of {terms} entries ({sizing.sparse_source}){where}"]


def _shards(sizing: Sizing, count: int, size: int) -> tuple[int | None, list[str], list[str]]:
    """How many shards, why, and what to do by hand; ``size`` is of vectors and index on disk."""
    if sizing.shard_documents is None or sizing.shard_bytes is None:
        return None, [], []
    shards = max(1, math.ceil(count / sizing.shard_documents), math.ceil(size / sizing.shard_bytes))
    most = f"{sizing.shard_documents:,} records and {human(sizing.shard_bytes)} ({sizing.shard_source})"
    why = [f"shards: {shards}, of at most {most}; {human(size)} on disk without payloads and the source text"]
    if shards > 1 and not sizing.shard_option:
        return shards, why, [f"set {shards} shards when making the collection: there is no option for it"]
    return shards, why, []

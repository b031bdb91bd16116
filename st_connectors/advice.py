"""Recommend an index, a quantization and a number of shards for a number of records, from published figures of a store.

The sizes cover what must be in memory for fast searches, the vectors and their index. Payloads, texts and replicas are
not included.
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
"""The size of a float32 in bytes; stores write float32 vectors to disk even if the index is quantized."""


@dataclass(frozen=True, slots=True)
class Advice:
    """A recommendation: the options, the bytes of each part, and the reasons.

    ``by_hand`` lists manual steps that no option covers. ``fits`` is None without a memory limit. ``index`` is empty
    without dense vectors.
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
        """Return the address ``given`` with the recommended options added."""
        return replace(given, options={**self.options, **given.options})

    def schema(self, given: Schema) -> Schema:
        """Return the schema ``given`` with the recommended quantization."""
        fields = {
            name: replace(spec, quantization=self.quantization) if isinstance(spec, DenseField) else spec
            for name, spec in given.fields.items()
        }
        return replace(given, fields=fields)

    def to_json(self) -> dict[str, Any]:
        """Return values for JSON."""
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
    """Return the sizing figures for the variant of an address; raise ValueError if the store has none."""
    for variant in (*address.variants, ""):
        if variant in plugin.sizing:
            return plugin.sizing[variant]
    raise ValueError(f"the store {plugin.name!r} publishes no figures for a recommendation")


def advise(
    sizing: Sizing,
    *,
    count: int,
    dimension: int | None = None,
    terms: int | None = None,
    memory: int | None = None,
    given: Mapping[str, str] | None = None,
) -> Advice:
    """Recommend a layout for ``count`` records in ``memory`` bytes.

    Dense vectors have ``dimension`` numbers, sparse vectors ``terms`` entries. The recommended layout is the first
    layout of the store that fits; if none fits, it is the smallest, and ``fits`` is False. Only layouts that agree with
    the address options ``given`` are considered. Raises ValueError for counts below 1, and if no layout agrees with
    these options.
    """
    for name, value in {"count": count, "dimension": dimension, "terms": terms, "memory": memory}.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    given = given or {}
    sparse = math.ceil(count * terms * sizing.sparse_entry) if terms else 0
    in_memory = sparse if sizing.sparse_in_memory else 0
    parts = {"sparse": in_memory} if in_memory else {}
    reasons = _explain_sparse(sizing, terms, sparse) if terms else []
    layout = None
    if dimension is not None:
        available = None if memory is None else memory - in_memory
        layout = _layout(_candidates(sizing, dimension, given), count, dimension, available)
        parts = {**_parts(layout, count, dimension), **parts}
        reasons = [*_explain(sizing, layout, count, dimension, available), *reasons]
    on_disk = sum(parts.values()) + (sparse - in_memory) + count * FLOAT * (dimension or 0)
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
    """Format bytes in powers of 1000: ``1.28 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if unit != "B" else f"{size:.0f} B"
        size /= 1000
    return f"{size:,.2f} TB"


def _candidates(sizing: Sizing, dimension: int, given: Mapping[str, str]) -> list[DenseLayout]:
    candidates = [
        layout
        for layout in sizing.dense
        if dimension >= layout.least
        and dimension % layout.multiple == 0
        and all(given.get(key, value) == value for key, value in layout.options.items())
    ]
    if not candidates:
        names = ", ".join(layout.name for layout in sizing.dense)
        options = ", ".join(f"{key}={value}" for key, value in given.items())
        raise ValueError(f"no index for {dimension} dimensions agrees with {options}; expected one of {names}")
    return candidates


def _parts(layout: DenseLayout, count: int, dimension: int) -> dict[str, int]:
    """Return the bytes of dense vectors, of their graph, and of the overhead in the store's formula."""
    vectors = count * (layout.per_dimension * dimension + layout.per_vector)
    graph = count * layout.graph
    extra = (layout.factor - 1) * (vectors + graph)
    parts = {"dense": vectors, "graph": graph, "overhead": extra}
    return {name: math.ceil(round(size, 3)) for name, size in parts.items() if size}


def _layout(candidates: list[DenseLayout], count: int, dimension: int, available: int | None) -> DenseLayout:
    """Return the first layout that fits, else the smallest."""
    sizes = {layout.name: sum(_parts(layout, count, dimension).values()) for layout in candidates}
    fitting = [layout for layout in candidates if available is None or sizes[layout.name] <= available]
    return fitting[0] if fitting else min(candidates, key=lambda layout: sizes[layout.name])


def _explain(sizing: Sizing, layout: DenseLayout, count: int, dimension: int, available: int | None) -> list[str]:
    skipped = [] if available is None else list(sizing.dense[: sizing.dense.index(layout)])
    over = [
        f"{each.name} takes {human(size)}"
        for each in skipped
        if (size := sum(_parts(each, count, dimension).values())) > (available or 0)
    ]
    return [
        f"{layout.name}: {layout.cost} ({layout.source})",
        *([f"too large for the memory: {', '.join(over)}"] if over else []),
    ]


def _explain_sparse(sizing: Sizing, terms: int, size: int) -> list[str]:
    where = "" if sizing.sparse_in_memory else f"; {human(size)}, read from disk and not counted as memory"
    return [f"sparse: {sizing.sparse_entry:g} bytes for each of {terms} entries ({sizing.sparse_source}){where}"]


def _shards(sizing: Sizing, count: int, size: int) -> tuple[int | None, list[str], list[str]]:
    """Return the number of shards, the reasons, and manual steps; ``size`` is the size of vectors and index on disk."""
    if sizing.shard_documents is None or sizing.shard_bytes is None:
        return None, [], []
    shards = max(1, math.ceil(count / sizing.shard_documents), math.ceil(size / sizing.shard_bytes))
    limit = f"{sizing.shard_documents:,} records and {human(sizing.shard_bytes)} ({sizing.shard_source})"
    why = [f"shards: {shards}, of at most {limit}; {human(size)} on disk without payloads and the source text"]
    if shards > 1 and not sizing.shard_option:
        return shards, why, [f"set {shards} shards when creating the collection; there is no option for it"]
    return shards, why, []

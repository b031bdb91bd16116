"""The store contract: frozen values, and the protocol that every adapter and every wrapper follows."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from st_connectors.schema import Fusion, FusionMethod, Metric, Quantization, Rrf, Schema
from st_core.vectors import SparseVector

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from st_connectors.errors import StoreError
    from st_connectors.filters import Filter

__all__ = [
    "MAX_ID_BYTES",
    "Candidates",
    "Capabilities",
    "Default",
    "Effort",
    "Exact",
    "Fuse",
    "Hit",
    "JsonValue",
    "Leg",
    "LegHit",
    "Match",
    "Near",
    "Parts",
    "Precision",
    "Record",
    "Rejected",
    "SearchRequest",
    "Store",
    "Vector",
]

MAX_ID_BYTES = 512

Vector: TypeAlias = "NDArray[np.float32] | SparseVector"
JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One stored thing: an id of 1 to 512 bytes of UTF-8, its vectors by field name (any may be absent), and a JSON payload.

    The payload comes back exactly as given: int64 integers, no NaN, 1 apart from 1.0, order of keys kept.
    """

    id: str
    vectors: Mapping[str, Vector] = field(default_factory=dict)
    payload: Mapping[str, Any] = field(default_factory=dict)


class Parts(enum.Flag):
    """What an answer carries beside ids and scores."""

    NONE = 0
    PAYLOAD = enum.auto()
    VECTORS = enum.auto()
    LEGS = enum.auto()
    """Per leg rank and score; fusing is then done in the client, since no store tells them."""
    ALL = PAYLOAD | VECTORS | LEGS


@dataclass(frozen=True, slots=True, eq=False)
class Near:
    """A leg: the records whose vector in ``field`` is nearest to ``vector`` (float32 [dimension], or sparse)."""

    field: str
    vector: Vector


@dataclass(frozen=True, slots=True)
class Match:
    """A leg: the records whose text matches, by BM25."""

    field: str
    text: str


Leg: TypeAlias = Near | Match


@dataclass(frozen=True, slots=True, eq=False)
class Fuse:
    """Several legs, each asked for ``depth`` candidates, fused by ``method``."""

    legs: tuple[Leg, ...]
    depth: int = 100
    method: Fusion = field(default_factory=Rrf)


@dataclass(frozen=True, slots=True)
class Exact:
    """Compare with every record."""


@dataclass(frozen=True, slots=True)
class Default:
    """What the store thinks right."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Look at about ``count`` candidates of the index (``ef``, ``num_candidates``)."""

    count: int


Effort: TypeAlias = Exact | Default | Candidates


@dataclass(frozen=True, slots=True, eq=False)
class SearchRequest:
    """One search: how to rank, which records count, how many to give, and how hard to look."""

    rank: Leg | Fuse
    limit: int = 10
    offset: int = 0
    where: Filter | None = None
    parts: Parts = Parts.PAYLOAD | Parts.LEGS
    effort: Effort = field(default_factory=Default)


@dataclass(frozen=True, slots=True)
class LegHit:
    """Where one leg of a search had a record: ``leg`` counts from 0 in the order of the request, ``rank`` from 1."""

    leg: int
    field: str
    rank: int
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class Hit:
    """One answer. ``legs`` holds an entry for each leg that found the record, when asked for; adapters leave it empty, *fusing* fills it."""

    id: str
    score: float
    payload: Mapping[str, Any] = field(default_factory=dict)
    vectors: Mapping[str, Vector] = field(default_factory=dict)
    legs: tuple[LegHit, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that did not go in: its position in the batch, its id, and an error of the class that says whether to try again."""

    position: int
    id: str
    error: StoreError


@dataclass(frozen=True, slots=True)
class Precision:
    """How faithfully a field is searched: whether ``Exact`` effort finds the true nearest, and within what relative difference scores are ties."""

    exact: bool = True
    score_rtol: float = 1e-6


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store can do, as data: a plugin's says the most that any version can, a store's what this one can.

    ``fields`` gives the precision by field name in a store's, by kind ("dense", "sparse", "text") in a plugin's. Limits of None are none.
    ``fusion`` is what the store fuses by itself as the reference would, of 2 to ``max_fused_legs`` legs with ``max_query_terms`` terms in all.
    ``filters`` names the classes of :mod:`st_connectors.filters` by their lower-case names, ``bulk_loading`` the settings that loading much at once
    changes: none where a store has nothing to set.
    """

    metrics: frozenset[Metric] = frozenset()
    quantizations: frozenset[Quantization] = frozenset({Quantization.NONE})
    sparse: bool = False
    text: bool = False
    optional_vectors: bool = False
    fusion: frozenset[FusionMethod] = frozenset()
    filters: frozenset[str] = frozenset()
    efforts: frozenset[str] = frozenset({"exact", "default"})
    persistent: bool = False
    partial_failure: bool = False
    max_batch: int | None = None
    max_bytes: int | None = None
    max_dimension: int | None = None
    max_limit: int | None = None
    max_query_terms: int | None = None
    bulk_loading: frozenset[str] = frozenset()
    max_fused_legs: int | None = None
    fields: Mapping[str, Precision] = field(default_factory=dict)


class Store(Protocol):
    """One open collection; safe in threads. Operations on a collection that was not created raise ``NotFound``."""

    @property
    def schema(self) -> Schema:
        """The schema as stored, so that a collection can be opened knowing only its name."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What this store, with these options, can."""
        ...

    def create(self) -> None:
        """Make the collection. A second time it changes nothing; raises ``SchemaMismatch`` where it exists with another schema."""
        ...

    def drop(self) -> None:
        """Remove the collection and all its records; absent is fine."""
        ...

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        """Put whole records, replacing those of the same id, and return those that did not go in; the last of equal ids wins."""
        ...

    def delete(self, ids: Sequence[str]) -> None:
        """Remove records; absent ids are silent."""
        ...

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        """The records of these ids in the order asked, absent ones left out."""
        ...

    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        """The answers to requests, in order, each sorted by ``(-score, id)``; one round trip where the store can.

        Records without the asked vector never match; nor do records that share no term with a sparse or text leg.
        """
        ...

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        """Every record once, in no promised order, fetched ``batch`` at a time; unchanged records are seen even while others are written."""
        ...

    def count(self, where: Filter | None = None) -> int:
        """How many records there are, exactly."""
        ...

    def refresh(self) -> None:
        """After it returns, every earlier write is visible to this store's reads."""
        ...

    def close(self) -> None:
        """Give back what is held; a second time does nothing."""
        ...


_MOVED = {
    **dict.fromkeys(("CONTRACT", "Address", "Adopt", "Connect", "Loading", "Plugin"), "plugin"),
    **dict.fromkeys(
        (
            *(
                "DenseField",
                "Field",
                "FieldKind",
                "FilterKind",
                "Fusion",
                "FusionMethod",
                "Metric",
                "Quantization",
                "Rrf",
            ),
            *("Schema", "SparseField", "TextField", "Weighted", "fusion_from_json", "fusion_to_json", "kind_of"),
            "schema_difference",
        ),
        "schema",
    ),
}
"""Names that lived in this module before 0.2; adapters written then still import them from here."""


def __getattr__(name: str) -> Any:
    """Import a moved name from its module."""
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"st_connectors.{_MOVED[name]}"), name)

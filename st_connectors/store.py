"""The store contract: its values, and the protocol that every adapter and every layer implements."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from st_connectors.schema import DenseField, Field, Fusion, FusionMethod, Metric, Quantization, Rrf, Schema
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
    "is_empty_leg",
    "is_empty_vector",
]

MAX_ID_BYTES = 512

Vector: TypeAlias = "NDArray[np.float32] | SparseVector"
JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One entry of a collection: an id of 1 to 512 bytes of UTF-8, vectors by field name and a JSON payload.

    Any vector may be absent. Stores return the payload exactly as written: they preserve 64-bit integers, the
    difference between 1 and 1.0, and the order of keys. NaN is not allowed.
    """

    id: str
    vectors: Mapping[str, Vector] = field(default_factory=dict)
    payload: Mapping[str, Any] = field(default_factory=dict)


class Parts(enum.Flag):
    """The parts of records and hits to return in addition to ids and scores."""

    NONE = 0
    PAYLOAD = enum.auto()
    VECTORS = enum.auto()
    LEGS = enum.auto()
    """The rank and score in each leg. Legs are then fused in the client, because no store returns them."""
    ALL = PAYLOAD | VECTORS | LEGS


@dataclass(frozen=True, slots=True, eq=False)
class Near:
    """A leg that ranks records by the similarity of ``field`` to ``vector`` (float32 [dimension], or sparse)."""

    field: str
    vector: Vector


@dataclass(frozen=True, slots=True)
class Match:
    """A leg that ranks records by BM25 over a text field."""

    field: str
    text: str


Leg: TypeAlias = Near | Match


def is_empty_vector(vector: Vector) -> bool:
    """Return whether a vector counts as absent: a sparse vector without terms, or a dense vector of zeros."""
    # count_nonzero takes a seventh of the time of any, which goes through a ufunc (numpy 2.4)
    return vector.indices.size == 0 if isinstance(vector, SparseVector) else not np.count_nonzero(vector)


def is_empty_leg(leg: Leg, field: Field | None) -> bool:
    """Return whether a leg over ``field`` can match no record: blank text, no terms, or zeros compared by cosine."""
    match leg:
        case Match(_, text):
            return not text.strip()
        case Near(_, SparseVector() as vector):
            return is_empty_vector(vector)
        case Near(_, vector):
            return isinstance(field, DenseField) and field.metric is Metric.COSINE and is_empty_vector(vector)


@dataclass(frozen=True, slots=True, eq=False)
class Fuse:
    """Several legs, each searched for ``depth`` candidates, whose hits are fused by ``method``."""

    legs: tuple[Leg, ...]
    depth: int = 100
    method: Fusion = field(default_factory=Rrf)


@dataclass(frozen=True, slots=True)
class Exact:
    """The effort that compares the query with every record."""


@dataclass(frozen=True, slots=True)
class Default:
    """The store's own default effort."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The effort that visits about ``count`` candidates of the index (``ef``, ``num_candidates``)."""

    count: int


Effort: TypeAlias = Exact | Default | Candidates


@dataclass(frozen=True, slots=True, eq=False)
class SearchRequest:
    """One search: how to rank, which records to consider, which page to return, and the effort."""

    rank: Leg | Fuse
    limit: int = 10
    offset: int = 0
    where: Filter | None = None
    parts: Parts = Parts.PAYLOAD | Parts.LEGS
    effort: Effort = field(default_factory=Default)


@dataclass(frozen=True, slots=True)
class LegHit:
    """A record's place in one leg of a search: ``leg`` counts from 0 in the order of the request, ``rank`` from 1."""

    leg: int
    field: str
    rank: int
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class Hit:
    """One result of a search; ``legs`` has an entry for each leg that matched the record.

    Adapters leave ``legs`` empty; the fusing layer sets it.
    """

    id: str
    score: float
    payload: Mapping[str, Any] = field(default_factory=dict)
    vectors: Mapping[str, Vector] = field(default_factory=dict)
    legs: tuple[LegHit, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that was not stored: its position in the batch, its id, and the error.

    The class of the error states whether a retry can help.
    """

    position: int
    id: str
    error: StoreError


@dataclass(frozen=True, slots=True)
class Precision:
    """How accurately a field is searched.

    ``exact`` states whether the effort ``Exact`` returns the true nearest neighbours. Scores whose relative difference
    is at most ``score_rtol`` count as equal.
    """

    exact: bool = True
    score_rtol: float = 1e-6


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store can do, as data.

    ``Plugin.capabilities`` is the upper bound across server versions; ``Store.capabilities`` describes one connection.
    Where the settings of a server change ``max_query_terms`` or ``max_clauses``, the plugin has those of the defaults.
    ``None`` means unlimited. ``max_query_terms`` limits the terms of a sparse query and the words of a text query.
    ``fields`` maps field names to their precision, or kinds ("dense", "sparse", "text") in a plugin's. ``fusion`` lists
    the methods by which the store itself fuses 2 to ``max_fused_legs`` legs with at most ``max_query_terms`` terms in
    total, in agreement with :mod:`st_connectors.fusion`. ``filters`` lists classes of :mod:`st_connectors.filters` in
    lower case. ``bulk_loading`` lists the settings that bulk loading changes; it is
    empty where a store has none. ``alterable`` lists what ``Store.alter`` changes in place: "models" and "fusion",
    "filterable" (further filterable fields) and "quantization"; a store without ``alter`` leaves it empty, and so does
    an adopted collection.
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
    speculative_search: bool = False
    """Whether the store has ``search_speculatively``, for :mod:`st_connectors.layers.speculate`."""
    max_clauses: int | None = None
    """The maximum sum of query terms and filter clauses in one leg; each comparison of a filter counts as two."""
    max_filter_values: int | None = None
    """The maximum number of values with which one filter compares fields for equality."""
    alterable: frozenset[str] = frozenset()
    alterable_by_copy: frozenset[str] = frozenset()
    """What :func:`st_connectors.altering.alter_by_copy` changes, in the words of ``alterable``; empty if the store
    cannot put a copy in the place of a collection."""
    writers: int = 1
    """The number of simultaneous writes by which an ingest gains; more are allowed."""


class Store(Protocol):
    """A connection to one collection. Safe for use from several threads.

    Operations on a collection that does not exist raise ``NotFound``.
    """

    @property
    def schema(self) -> Schema:
        """The schema as stored; therefore a collection can be opened by its name only."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of this connection with its options."""
        ...

    def create(self) -> None:
        """Create the collection unless it exists; raise ``SchemaMismatch`` if it exists with another schema."""
        ...

    def drop(self) -> None:
        """Remove the collection and all its records, if it exists."""
        ...

    def alter(self, schema: Schema) -> None:
        """Replace the stored schema in place; ``schema`` differs from it only in what the capabilities list.

        Records keep their vectors and payloads. With further filterable fields, the records that are already stored
        match filters on these fields too. Must not run while another process writes. If it is interrupted, the stored
        schema is the previous one, and a second call completes the change. Raises ``Unsupported`` for any other
        difference. Adapters without this method declare no ``alterable`` capabilities, and are never called.
        """
        ...

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        """Store complete records and return the rejected ones.

        A record replaces a stored record with the same id. If ``records`` contains an id several times, the last record
        with this id is stored.
        """
        ...

    def delete(self, ids: Sequence[str]) -> None:
        """Remove records; absent ids are ignored."""
        ...

    def get(self, ids: Sequence[str], *, parts: Parts = Parts.ALL) -> list[Record]:
        """Return the records with these ids in the order of ``ids``; absent ids are skipped."""
        ...

    def search(self, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
        """Return the hits of each request, in order; the hits are sorted by ``(-score, id)``.

        All requests are sent in one round trip if the store supports it. Records without a vector in the searched field
        never match, nor do records that share no term with a sparse or text leg.
        """
        ...

    def scan(self, *, where: Filter | None = None, parts: Parts = Parts.ALL, batch: int = 1000) -> Iterator[Record]:
        """Yield every record once, in no defined order; records are read in batches of ``batch``.

        Records that concurrent writes do not change are always included.
        """
        ...

    def count(self, where: Filter | None = None) -> int:
        """Return the exact number of records."""
        ...

    def refresh(self) -> None:
        """Make every earlier write visible to the reads of this connection."""
        ...

    def close(self) -> None:
        """Release the resources of the connection; a second call does nothing."""
        ...


_TO_PLUGIN = ("CONTRACT", "Address", "Adopt", "Connect", "Loading", "Plugin")
_TO_SCHEMA = (
    *("DenseField", "Field", "FieldKind", "FilterKind", "Fusion", "FusionMethod", "Metric", "Quantization", "Rrf"),
    *("Schema", "SparseField", "TextField", "Weighted", "fusion_from_json", "fusion_to_json", "kind_of"),
    "schema_difference",
)
_MOVED = dict.fromkeys(_TO_PLUGIN, "plugin") | dict.fromkeys(_TO_SCHEMA, "schema")
"""The names that moved to other modules in 0.2; adapters written for earlier versions import them from here."""


def __getattr__(name: str) -> Any:
    """Return a name from the module to which it has moved."""
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"st_connectors.{_MOVED[name]}"), name)

"""The store contract: frozen values, and the protocol that every adapter and every wrapper follows."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from urllib.parse import urlencode

import numpy as np

from st_connectors.sizing import Sizing
from st_core.protocols import ModelRef
from st_core.vectors import SparseVector

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from st_connectors.errors import StoreError
    from st_connectors.filters import Filter

__all__ = [
    "CONTRACT",
    "Address",
    "Adopt",
    "Candidates",
    "Capabilities",
    "Default",
    "DenseField",
    "Effort",
    "Exact",
    "Field",
    "FieldKind",
    "FilterKind",
    "Fuse",
    "Fusion",
    "FusionMethod",
    "Hit",
    "Leg",
    "LegHit",
    "Loading",
    "Match",
    "Metric",
    "Near",
    "Parts",
    "Plugin",
    "Precision",
    "Quantization",
    "Record",
    "Rejected",
    "Rrf",
    "Schema",
    "SearchRequest",
    "SparseField",
    "Store",
    "TextField",
    "Vector",
    "Weighted",
    "kind_of",
    "schema_difference",
]

CONTRACT = 1
"""The number of this contract; a plugin names the one it was written for."""

MAX_ID_BYTES = 512

Vector: TypeAlias = "NDArray[np.float32] | SparseVector"
JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"


class Metric(StrEnum):
    """How near two dense vectors are; higher is nearer."""

    COSINE = "cosine"
    """In [-1, 1]."""
    DOT = "dot"
    """The inner product."""
    EUCLIDEAN = "euclidean"
    """Minus the Euclidean distance."""


class Quantization(StrEnum):
    """How a store keeps dense vectors for its index."""

    NONE = "none"
    INT8 = "int8"
    BINARY = "binary"


class FilterKind(StrEnum):
    """What a filterable payload field holds: one such value, or a list of them."""

    KEYWORD = "keyword"
    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    DATE = "date"
    """An ISO 8601 string."""


class FieldKind(StrEnum):
    """The three kinds of legs."""

    DENSE = "dense"
    SPARSE = "sparse"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class DenseField:
    """Dense vectors float32 [dimension]. Where ``optional`` is false a record without this vector is refused."""

    dimension: int
    metric: Metric = Metric.COSINE
    quantization: Quantization = Quantization.NONE
    optional: bool = True


@dataclass(frozen=True, slots=True)
class SparseField:
    """Sparse vectors, compared by inner product."""

    optional: bool = True


@dataclass(frozen=True, slots=True)
class TextField:
    """Text under the payload key ``source``, searched by the store's own BM25, or by client-side weights where it has none."""

    source: str = "text"


Field: TypeAlias = DenseField | SparseField | TextField


def kind_of(value: Field) -> FieldKind:
    """The kind of a field."""
    match value:
        case DenseField():
            return FieldKind.DENSE
        case SparseField():
            return FieldKind.SPARSE
        case TextField():
            return FieldKind.TEXT


@dataclass(frozen=True, slots=True)
class Rrf:
    """Reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009): the sum over legs of ``weight / (k + rank)``, ranks from 1."""

    k: int = 60
    weights: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Weighted:
    """The weighted sum of each leg's scores, brought to [0, 1] by min-max over the leg's ``depth`` candidates; absent from a leg counts 0."""

    weights: tuple[float, ...]
    normalise: str = "min_max"


Fusion: TypeAlias = Rrf | Weighted


class FusionMethod(StrEnum):
    """What a store can fuse by itself in agreement with the reference."""

    RRF = "rrf"
    RRF_WEIGHTED = "rrf_weighted"
    WEIGHTED = "weighted"


@dataclass(frozen=True, slots=True)
class Schema:
    """What a collection holds: vector and text fields, payload fields that can be filtered on, and which models made its vectors.

    ``fusion`` is how its legs are fused where a search names no other way; None means ``Rrf()``.
    """

    collection: str
    fields: Mapping[str, Field]
    filterable: Mapping[str, FilterKind] = field(default_factory=dict)
    models: Mapping[str, ModelRef] = field(default_factory=dict)
    fusion: Fusion | None = None
    version: int = 1

    def of_kind(self, kind: FieldKind) -> list[str]:
        """The names of the fields of one kind, in order."""
        return [name for name, value in self.fields.items() if kind_of(value) is kind]

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "collection": self.collection,
            "fields": {name: _field_to_json(value) for name, value in self.fields.items()},
            "filterable": {name: kind.value for name, kind in self.filterable.items()},
            "models": {name: model.to_json() for name, model in self.models.items()},
            "fusion": fusion_to_json(self.fusion),
            "version": self.version,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Schema:
        """The schema that ``to_json`` wrote."""
        return cls(
            collection=value["collection"],
            fields={name: _field_from_json(item) for name, item in value["fields"].items()},
            filterable={name: FilterKind(kind) for name, kind in value["filterable"].items()},
            models={name: ModelRef.from_json(item) for name, item in value["models"].items()},
            fusion=fusion_from_json(value.get("fusion")),
            version=value["version"],
        )


def _field_to_json(value: Field) -> dict[str, Any]:
    match value:
        case DenseField(dimension, metric, quantization, optional):
            options = {
                "dimension": dimension,
                "metric": metric.value,
                "quantization": quantization.value,
                "optional": optional,
            }
        case SparseField(optional):
            options = {"optional": optional}
        case TextField(source):
            options = {"source": source}
    return {"kind": kind_of(value).value, **options}


def _field_from_json(value: Mapping[str, Any]) -> Field:
    match FieldKind(value["kind"]):
        case FieldKind.DENSE:
            return DenseField(
                value["dimension"], Metric(value["metric"]), Quantization(value["quantization"]), value["optional"]
            )
        case FieldKind.SPARSE:
            return SparseField(value["optional"])
        case FieldKind.TEXT:
            return TextField(value["source"])


def schema_difference(stored: Schema, asked: Schema) -> str | None:
    """What differs between the schema of a collection and the one asked for, in a sentence; None where nothing does.

    Models are compared by kind, dimension and the parts of the fingerprint known on both sides, not by name, since one model may lie in several
    places; a side that names no model for a field agrees with any.
    ``fusion`` is a default for searches and may differ.
    """
    name = f"the collection {stored.collection!r}"
    if stored.version != asked.version:
        return f"{name} has schema version {stored.version}, not {asked.version}"
    for key in stored.models.keys() & asked.models.keys():
        difference = _model_difference(stored.models[key], asked.models[key])
        if difference:
            return f"{name} was filled in field {key!r} by another model: {difference}"
    for what, mine, theirs in (
        ("field", stored.fields, asked.fields),
        ("filterable field", stored.filterable, asked.filterable),
    ):
        for key in {**mine, **theirs}:
            if mine.get(key) != theirs.get(key):
                return f"{name} has {_held(what, key, mine)}, and asked for is {_held(what, key, theirs)}; use the stored schema, or drop it first"
    return None


def _held(what: str, key: str, held: Mapping[str, object]) -> str:
    return f"the {what} {key!r} as {_told(held[key])}" if key in held else f"no {what} {key!r}"


def _told(value: object) -> str:
    """A field in words, or a kind of filter."""
    if not isinstance(value, DenseField | SparseField | TextField):
        return str(value)
    kind, *options = _field_to_json(value).items()
    return f"{kind[1]} ({', '.join(f'{name} {option}' for name, option in options)})"


def _model_difference(stored: ModelRef, asked: ModelRef) -> str | None:
    if (stored.kind, stored.dimension) != (asked.kind, asked.dimension):
        return (
            f"{stored.name} ({stored.kind}, {stored.dimension} dimensions), "
            f"not {asked.name} ({asked.kind}, {asked.dimension} dimensions)"
        )
    for part in sorted(stored.fingerprint.keys() & asked.fingerprint.keys()):
        if stored.fingerprint[part] != asked.fingerprint[part]:
            types = f", {stored.precision} and not {asked.precision}" if part == "precision" else ""
            return f"{stored.name}, which differs from {asked.name} in its {part}{types}"
    return None


def fusion_to_json(value: Fusion | None) -> dict[str, Any] | None:
    """A fusion as plain values."""
    match value:
        case None:
            return None
        case Rrf(k, weights):
            return {"method": "rrf", "k": k, "weights": None if weights is None else list(weights)}
        case Weighted(weights, normalise):
            return {"method": "weighted", "weights": list(weights), "normalise": normalise}


def fusion_from_json(value: Mapping[str, Any] | None) -> Fusion | None:
    """The fusion that ``fusion_to_json`` wrote."""
    if value is None:
        return None
    if value["method"] == "rrf":
        return Rrf(value["k"], None if value["weights"] is None else tuple(value["weights"]))
    return Weighted(tuple(value["weights"]), value["normalise"])


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


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed store address such as ``qdrant+grpc://host:6334?timeout=5`` or ``qdrant+edge:./library``.

    ``name`` is the plugin's; ``variants`` what follows it after plus signs; ``path`` is for embedded stores, ``host`` and ``port`` for servers. No secrets.
    """

    name: str
    variants: tuple[str, ...] = ()
    host: str | None = None
    port: int | None = None
    path: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def scheme(self) -> str:
        """The part before the colon."""
        return "+".join((self.name, *self.variants))

    def __str__(self) -> str:
        where = self.path
        if self.host:
            host = f"[{self.host}]" if ":" in self.host else self.host
            where = f"//{host}{f':{self.port}' if self.port else ''}{self.path}"
        options = urlencode(self.options)
        return f"{self.scheme}:{where}{'?' if options else ''}{options}"


class Connect(Protocol):
    """Opens one collection of a store."""

    def __call__(self, address: Address, collection: str, schema: Schema | None, client: object | None) -> Store:
        """With a schema, a store on which ``create`` may be called; without, the existing collection, or ``NotFound``.

        ``client`` is the driver's own client object where the caller brings one; the store then does not close it.
        """
        ...


class Adopt(Protocol):
    """Opens a collection that somebody else made, as it is: its fields are read from the store, its payloads and ids left as they are."""

    def __call__(
        self, address: Address, collection: str, filterable: Mapping[str, FilterKind], client: object | None
    ) -> Store:
        """A store whose schema has every vector field that this contract can name; ``create`` makes nothing and ``drop`` is refused.

        ``filterable`` says of what kind payload keys are, beside those that the store has an index for. Raises ``NotFound``.
        """
        ...


class Loading(Protocol):
    """Sets a collection for loading much at once."""

    def __call__(self, address: Address, collection: str, client: object | None) -> AbstractContextManager[None]:
        """A block in which the collection has the store's settings for loading; after it, it has those that were found, whatever happened."""
        ...


@dataclass(frozen=True, slots=True)
class Plugin:
    """How a store is found and opened; importing one must not import its client.

    ``variants`` are the scheme variants it understands ("", "edge", "memory", "grpc", "https"), with one line about each; ``extra`` is what to install.
    ``sizing`` has the figures that advice reckons with by variant, "" for all others.
    """

    name: str
    extra: str | None
    variants: Mapping[str, str]
    capabilities: Capabilities
    connect: Connect
    collections: Callable[[Address, object | None], list[str]]
    contract: int = CONTRACT
    adopt: Adopt | None = None
    loading: Loading | None = None
    sizing: Mapping[str, Sizing] = field(default_factory=dict)

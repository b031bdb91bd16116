"""Schemas: the fields of a collection, its filterable payload keys, its models and its fusion."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, TypeAlias

from st_connectors.errors import SchemaMismatch
from st_core.protocols import ModelRef

__all__ = [
    "DenseField",
    "Field",
    "FieldKind",
    "FilterKind",
    "Fusion",
    "FusionMethod",
    "Metric",
    "Migration",
    "Quantization",
    "Rrf",
    "Schema",
    "SparseField",
    "TextField",
    "Weighted",
    "alterations",
    "fusion_from_json",
    "fusion_to_json",
    "kind_of",
    "reading_schema",
    "schema_difference",
    "successor_of",
]


FORMAT = 1
"""The version of the format in which collections store their schema."""


class Metric(StrEnum):
    """The similarity of dense vectors; higher is nearer."""

    COSINE = "cosine"
    """In [-1, 1]."""
    DOT = "dot"
    """The inner product."""
    EUCLIDEAN = "euclidean"
    """Minus the Euclidean distance."""


class Quantization(StrEnum):
    """How an index stores dense vectors."""

    NONE = "none"
    INT8 = "int8"
    BINARY = "binary"


class FilterKind(StrEnum):
    """The kind of a filterable field; its values are of this kind, or lists of such values."""

    KEYWORD = "keyword"
    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    DATE = "date"
    """An ISO 8601 string."""


class FieldKind(StrEnum):
    """The kind of a field and of its legs."""

    DENSE = "dense"
    SPARSE = "sparse"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class DenseField:
    """Dense vectors, float32 [dimension]. Unless ``optional``, records without this vector are refused."""

    dimension: int
    metric: Metric = Metric.COSINE
    quantization: Quantization = Quantization.NONE
    optional: bool = True

    def __post_init__(self) -> None:
        with suppress(TypeError):  # raised for values that are no integers, which ``create`` refuses
            object.__setattr__(self, "dimension", operator.index(self.dimension))


@dataclass(frozen=True, slots=True)
class SparseField:
    """Sparse vectors, compared by inner product. Unless ``optional``, records without this vector are refused."""

    optional: bool = True


@dataclass(frozen=True, slots=True)
class TextField:
    """Text under the payload key ``source``.

    The field is searched by the BM25 of the store, or by weights that the client computes if the store has none.
    """

    source: str = "text"


Field: TypeAlias = DenseField | SparseField | TextField


def kind_of(value: Field) -> FieldKind:
    """Return the kind of a field."""
    match value:
        case DenseField():
            return FieldKind.DENSE
        case SparseField():
            return FieldKind.SPARSE
        case TextField():
            return FieldKind.TEXT


@dataclass(frozen=True, slots=True)
class Rrf:
    """Reciprocal rank fusion: the sum over legs of ``weight / (k + rank)``, ranks from 1.

    Cormack, Clarke and Büttcher, SIGIR 2009.
    """

    k: int = 60
    weights: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Weighted:
    """The weighted sum of each leg's scores, scaled to [0, 1] by the minimum and maximum of its ``depth`` candidates.

    A record absent from a leg scores 0 in it.
    """

    weights: tuple[float, ...]
    normalise: str = "min_max"


Fusion: TypeAlias = Rrf | Weighted


class FusionMethod(StrEnum):
    """A fusion that a store computes itself in agreement with :mod:`st_connectors.fusion`."""

    RRF = "rrf"
    RRF_WEIGHTED = "rrf_weighted"
    WEIGHTED = "weighted"


@dataclass(frozen=True, slots=True)
class Migration:
    """For which collection a name stands after migrations.

    ``root`` is the name that users open, which is the own name of its first collection. The first collection stores
    here the ``current`` collection, to which stores opened by this name are connected, and the ``previous`` one, if it
    was not dropped. ``is_switching`` states that another collection is about to become the current one, so that writes
    wait. Every further collection stores its root, and itself as the current collection.
    """

    root: str
    current: str
    previous: str | None = None
    is_switching: bool = False


@dataclass(frozen=True, slots=True)
class Schema:
    """The fields, filterable fields, models and fusion of a collection.

    ``models`` maps field names to the references of the models that computed their vectors. ``fusion`` is the fusion of
    searches that do not set one; None means ``Rrf()``. ``migration`` is None for a collection that never migrated.
    """

    collection: str
    fields: Mapping[str, Field]
    filterable: Mapping[str, FilterKind] = field(default_factory=dict)
    models: Mapping[str, ModelRef] = field(default_factory=dict)
    fusion: Fusion | None = None
    version: int = FORMAT
    migration: Migration | None = None

    def of_kind(self, kind: FieldKind) -> list[str]:
        """Return the names of the fields of one kind, in order."""
        return [name for name, value in self.fields.items() if kind_of(value) is kind]

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "collection": self.collection,
            "fields": {name: _field_to_json(value) for name, value in self.fields.items()},
            "filterable": {name: kind.value for name, kind in self.filterable.items()},
            "models": {name: model.to_json() for name, model in self.models.items()},
            "fusion": fusion_to_json(self.fusion),
            "version": self.version,
            **({} if self.migration is None else {"migration": asdict(self.migration)}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Schema:
        """Return the schema for the values that ``to_json`` returned; raise ValueError for another format version."""
        if value["version"] != FORMAT:
            raise ValueError(f"its format is {value['version']!r}, and this version of st-connectors reads {FORMAT}")
        return cls(
            collection=value["collection"],
            fields={name: _field_from_json(item) for name, item in value["fields"].items()},
            filterable={name: FilterKind(kind) for name, kind in value["filterable"].items()},
            models={name: ModelRef.from_json(item) for name, item in value["models"].items()},
            fusion=fusion_from_json(value.get("fusion")),
            version=value["version"],
            migration=Migration(**value["migration"]) if value.get("migration") else None,
        )


@contextmanager
def reading_schema(collection: str, *, store: str, operation: str) -> Iterator[None]:
    """Raise ``SchemaMismatch`` if the stored schema that the block reads has another format or is damaged."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        reason = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        message = f"the schema stored with collection {collection!r} cannot be read: {reason}"
        hint = "open it with the version of st-connectors that wrote it"
        raise SchemaMismatch(f"{message}; {hint}", store=store, operation=operation) from error


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


def successor_of(schema: Schema) -> str | None:
    """Return the collection for which the name of a collection stands since a migration; None if it is this one."""
    migration = schema.migration
    if migration is None or migration.root != schema.collection or migration.current == schema.collection:
        return None
    return migration.current


def schema_difference(stored: Schema, asked: Schema) -> str | None:
    """Return a sentence about the difference between a stored and a requested schema; None if they agree.

    Models are compared by their kind, dimension and the parts of the fingerprint that both references contain, not by
    their name, because a model may have several paths. A field without a model in one of the schemas is not compared.
    ``fusion`` is only a default for searches and may differ.
    """
    name = f"the collection {stored.collection!r}"
    if stored.version != asked.version:
        return f"{name} has schema version {stored.version}, not {asked.version}"
    if (successor := successor_of(stored)) and successor_of(asked) is None:
        return f"{name} was migrated to {successor!r}: open it by its name, without a schema"
    for key in stored.models.keys() & asked.models.keys():
        difference = _model_difference(stored.models[key], asked.models[key])
        if difference:
            return f"{name} has vectors of another model in field {key!r}: {difference}"
    for what, mine, theirs in (
        ("field", stored.fields, asked.fields),
        ("filterable field", stored.filterable, asked.filterable),
    ):
        for key in {**mine, **theirs}:
            if mine.get(key) != theirs.get(key):
                return (
                    f"{name} has {_describe(what, key, mine)}, and the schema {_describe(what, key, theirs)}; "
                    f"use the stored schema, or {_how_to_change(stored, asked)}"
                )
    return None


def _how_to_change(stored: Schema, requested: Schema) -> str:
    """Return what leads from a stored schema to another one, for a message."""
    changed = alterations(stored, requested)
    if "schema" in changed:
        return "create the collection under another name"
    options = [f"--{each}" for each in sorted(changed & {"filterable", "quantization"})]
    return f"change the collection with Index.alter (st-connectors alter {' '.join(options)})"


def alterations(stored: Schema, requested: Schema) -> frozenset[str]:
    """Return what differs between two schemas of one collection, in the words of ``Capabilities.alterable``.

    The word "schema" stands for every difference that requires another collection: another name, version or field, and
    a filterable field that is missing or of another kind.
    """
    changed = {name for name in ("models", "fusion", "migration") if getattr(stored, name) != getattr(requested, name)}
    if requested.filterable != stored.filterable:
        changed.add("filterable" if stored.filterable.items() <= requested.filterable.items() else "schema")
    if requested.fields != stored.fields:
        is_same = _unquantized(stored) == _unquantized(requested)
        changed.add("quantization" if is_same else "schema")
    if (stored.collection, stored.version) != (requested.collection, requested.version):
        changed.add("schema")
    return frozenset(changed)


def _unquantized(schema: Schema) -> list[tuple[str, Field]]:
    """Return the fields in order, without their quantization."""
    return [
        (name, replace(value, quantization=Quantization.NONE) if isinstance(value, DenseField) else value)
        for name, value in schema.fields.items()
    ]


def _describe(what: str, key: str, fields: Mapping[str, object]) -> str:
    return f"the {what} {key!r} as {_describe_field(fields[key])}" if key in fields else f"no {what} {key!r}"


def _describe_field(value: object) -> str:
    """Return a field with its options, or a filterable kind, for a message."""
    if not isinstance(value, DenseField | SparseField | TextField):
        return str(value)
    kind, *options = _field_to_json(value).items()
    return f"{kind[1]} ({', '.join(f'{name} {option}' for name, option in options)})"


def _model_difference(stored: ModelRef, requested: ModelRef) -> str | None:
    if (stored.kind, stored.dimension) != (requested.kind, requested.dimension):
        return (
            f"{stored.name} ({stored.kind}, {stored.dimension} dimensions), "
            f"not {requested.name} ({requested.kind}, {requested.dimension} dimensions)"
        )
    for part in sorted(stored.fingerprint.keys() & requested.fingerprint.keys()):
        if stored.fingerprint[part] != requested.fingerprint[part]:
            types = f", {stored.precision} and not {requested.precision}" if part == "precision" else ""
            return f"{stored.name}, which differs from {requested.name} in its {part}{types}"
    return None


def fusion_to_json(value: Fusion | None) -> dict[str, Any] | None:
    """Convert a fusion to plain values."""
    match value:
        case None:
            return None
        case Rrf(k, weights):
            return {"method": "rrf", "k": k, "weights": None if weights is None else list(weights)}
        case Weighted(weights, normalise):
            return {"method": "weighted", "weights": list(weights), "normalise": normalise}


def fusion_from_json(value: Mapping[str, Any] | None) -> Fusion | None:
    """Return the fusion for the values that ``fusion_to_json`` returned."""
    if value is None:
        return None
    if value["method"] == "rrf":
        return Rrf(value["k"], None if value["weights"] is None else tuple(value["weights"]))
    return Weighted(tuple(value["weights"]), value["normalise"])

"""Map records to a collection's columns, for own collections and for those created by someone else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from st_connectors._matching import INT64
from st_connectors.filters import Filter
from st_connectors.milvus import columns
from st_connectors.milvus.columns import PrimaryKey, Scalar, decode_vector, encode_vector
from st_connectors.milvus.filters import ALWAYS, AdoptedFilters, Expression, ids_expression, to_expression
from st_connectors.schema import FieldKind, Schema, TextField, kind_of
from st_connectors.store import Capabilities, Parts, Precision, Record, Vector, is_empty_vector

__all__ = ["AdoptedLayout", "Layout", "OwnLayout", "StorageOptions"]


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """Options of an own collection: the index of dense vectors, FLAT or HNSW, and whether lists are packed text."""

    index: str = "HNSW"
    packed: bool = False


class Layout(Protocol):
    """The mapping between records and rows of one collection."""

    @property
    def schema(self) -> Schema:
        """The collection's schema."""
        ...

    @property
    def collection(self) -> str:
        """Milvus's name of the collection."""
        ...

    @property
    def key(self) -> str:
        """The column of the primary key."""
        ...

    def capabilities(self, upper: Capabilities) -> Capabilities:
        """Return what the store can do with this layout, at most ``upper``."""
        ...

    def row(self, record: Record) -> dict[str, Any]:
        """Convert a record to a row; raise ValueError for values that a row cannot store."""
        ...

    def record(self, row: Mapping[str, Any]) -> Record:
        """Convert the columns present in a row to a record."""
        ...

    def outputs(self, parts: Parts) -> list[str]:
        """Return the columns to request for some parts of a record."""
        ...

    def ids(self, ids: Sequence[str]) -> Expression:
        """Return the expression for the rows with these ids."""
        ...

    def everything(self) -> Expression:
        """Return the expression for every row."""
        ...

    def where(self, where: Filter) -> Expression:
        """Return the expression for the rows that pass a filter."""
        ...

    def vector_column(self, field: str) -> str:
        """Return the column that a leg on the field searches."""
        ...

    def presence_column(self, field: str) -> str | None:
        """Return the column that tells whether a row has the field's vector; None where every row has it."""
        ...

    def index(self, field: str) -> str:
        """Return the type of a dense field's index."""
        ...


@dataclass(frozen=True, slots=True)
class OwnLayout:
    """The columns of a collection created by this package."""

    schema: Schema
    options: StorageOptions

    @property
    def collection(self) -> str:
        """Milvus's name of the collection."""
        return columns.collection_name(self.schema.collection)

    @property
    def key(self) -> str:
        """The column of the primary key."""
        return columns.ID

    def capabilities(self, upper: Capabilities) -> Capabilities:
        """Return what the index can do: a flat one is exact, a graph accepts a number of candidates.

        Where records may lack a vector, filtering them costs Milvus Lite 5 % of a search among 6,600 rows, so that
        speculation pays.
        """
        is_flat = self.options.index == "FLAT"
        efforts = frozenset({"exact", "default"} if is_flat else {"default", "candidates"})
        precision = {
            name: Precision(
                is_flat or kind_of(spec) is not FieldKind.DENSE, upper.fields[kind_of(spec).value].score_rtol
            )
            for name, spec in self.schema.fields.items()
        }
        speculative = any(self.presence_column(name) is not None for name in self.schema.fields)
        return replace(upper, efforts=efforts, fields=precision, speculative_search=speculative)

    def row(self, record: Record) -> dict[str, Any]:
        """Convert a record to a row with every column, since Milvus Lite keeps the old value of a column left out.

        A vector that the record lacks is filled in, and the presence column beside it is false. Raises ValueError for
        values that Milvus cannot store.
        """
        row: dict[str, Any] = {columns.ID: record.id, columns.PAYLOAD: columns.split_payload(record.payload)}
        if len(row[columns.PAYLOAD]) > columns.MAX_ELEMENTS:
            raise ValueError(f"the payload has more than {columns.MAX_ELEMENTS * columns.MAX_TEXT_BYTES} bytes")
        for name, spec in self.schema.fields.items():
            if isinstance(spec, TextField):
                row[columns.text_column(name)] = _text(name, record.payload.get(spec.source))
                continue
            vector = record.vectors.get(name)
            is_missing = vector is None or is_empty_vector(vector)
            if spec.optional:
                row[columns.presence_column(name)] = not is_missing
            elif is_missing:
                raise ValueError(f"the vector of field {name!r} is missing, and the field is not optional")
            row[columns.vector_column(name)] = (
                columns.placeholder_vector(spec) if vector is None or is_missing else encode_vector(vector)
            )
        if not self.schema.fields:
            row[columns.FILLER] = [0.0, 0.0]
        return row | columns.filter_values(self.schema, record.payload, packed=self.options.packed)

    def record(self, row: Mapping[str, Any]) -> Record:
        """Convert the columns present in a row to a record."""
        pieces = row.get(columns.PAYLOAD)
        vectors: dict[str, Vector] = {}
        for name, spec in self.schema.fields.items():
            value = row.get(columns.vector_column(name))
            if value is None or isinstance(spec, TextField) or not row.get(columns.presence_column(name), True):
                continue
            vectors[name] = decode_vector(spec, value)
        return Record(row[columns.ID], vectors, {} if pieces is None else columns.join_payload(pieces))

    def outputs(self, parts: Parts) -> list[str]:
        """Return the columns to request for some parts of a record."""
        names = [columns.ID]
        if Parts.PAYLOAD in parts:
            names.append(columns.PAYLOAD)
        if Parts.VECTORS in parts:
            for name, spec in self.schema.fields.items():
                if not isinstance(spec, TextField):
                    names.append(columns.vector_column(name))
                    names += [columns.presence_column(name)] if spec.optional else []
        return names

    def ids(self, ids: Sequence[str]) -> Expression:
        """Return the expression for the rows with these ids."""
        return ids_expression(ids)

    def everything(self) -> Expression:
        """Return the expression for every row."""
        return Expression(ALWAYS)

    def where(self, where: Filter) -> Expression:
        """Return the expression on the filter columns."""
        return to_expression(where, self.schema.filterable, packed=self.options.packed)

    def vector_column(self, field: str) -> str:
        """Return the column that a leg on the field searches."""
        return columns.vector_column(field)

    def presence_column(self, field: str) -> str | None:
        """Return the column that tells whether a row has the field's vector; None where every row has it."""
        spec = self.schema.fields[field]
        return None if isinstance(spec, TextField) or not spec.optional else columns.presence_column(field)

    def index(self, field: str) -> str:
        """Return the type of a dense field's index, the same for all."""
        del field
        return self.options.index


def _text(name: str, value: object) -> str:
    text = value if isinstance(value, str) else ""
    size = len(text.encode())
    if size > columns.MAX_TEXT_BYTES:
        raise ValueError(
            f"the text of field {name!r} has {size} bytes, and Milvus searches at most "
            f"{columns.MAX_TEXT_BYTES}: split it"
        )
    return text


_INTEGER = re.compile(r"0|-?[1-9][0-9]*")


@dataclass(frozen=True, slots=True)
class AdoptedLayout:
    """The columns of a collection created by someone else.

    Primary keys are ids, scalar columns and the dynamic field are the payload. ``indexes`` is the index type of each
    dense field.
    """

    schema: Schema
    primary: PrimaryKey
    scalars: Mapping[str, Scalar]
    dynamic: bool
    indexes: Mapping[str, str]

    @property
    def collection(self) -> str:
        """The collection's name, unchanged."""
        return self.schema.collection

    @property
    def key(self) -> str:
        """The column of the primary key."""
        return self.primary.name

    def capabilities(self, upper: Capabilities) -> Capabilities:
        """Return the efforts that every dense index supports; Milvus 2.5 stores no row without each of its vectors."""
        kinds = set(self.indexes.values())
        efforts = {"default"}
        efforts |= {"exact"} if kinds <= {"FLAT"} else set()
        efforts |= {"candidates"} if all(kind.startswith("HNSW") for kind in kinds) and kinds else set()
        precision = {
            name: Precision(self.index(name) == "FLAT", upper.fields[kind_of(spec).value].score_rtol)
            for name, spec in self.schema.fields.items()
        }
        return replace(
            upper,
            optional_vectors=False,
            efforts=frozenset(efforts),
            fields=precision,
            speculative_search=False,
        )

    def row(self, record: Record) -> dict[str, Any]:
        """Convert a record to a row; raise ValueError for values that its columns cannot store."""
        if self.primary.is_generated:
            raise ValueError("Milvus generates the ids of this collection, so records cannot be stored; only search it")
        payload = record.payload
        row: dict[str, Any] = {self.key: self._encode_id(record.id)}
        for name, scalar in self.scalars.items():
            row[name] = payload.get(name)
            if row[name] is None and not scalar.nullable:
                raise ValueError(f"payload[{name!r}] is missing, and its column is not nullable")
        others = payload.keys() - self.scalars.keys()
        if others and not self.dynamic:
            raise ValueError(f"the collection has no column {min(others)!r} and no dynamic field")
        if reserved := others & {self.key, *self.schema.fields}:
            raise ValueError(f"payload[{min(reserved)!r}] has the name of a column that is not payload")
        row |= {name: payload[name] for name in payload if name in others}
        return row | {name: encode_vector(vector) for name, vector in record.vectors.items()}

    def _encode_id(self, record_id: str) -> int | str:
        if not self.primary.is_integer:
            return record_id
        if not _is_int64(record_id):
            raise ValueError(f"an adopted collection with integer keys expects integer ids, got {record_id!r}")
        return int(record_id)

    def record(self, row: Mapping[str, Any]) -> Record:
        """Convert the columns present in a row to a record; null columns are null in the payload."""
        vectors: dict[str, Vector] = {}
        for name, spec in self.schema.fields.items():
            if row.get(name) is not None and not isinstance(spec, TextField):
                vectors[name] = decode_vector(spec, row[name])
        payload = {
            name: list(value) if name in self.scalars and self.scalars[name].is_array and value is not None else value
            for name, value in row.items()
            if name != self.key and name not in self.schema.fields
        }
        return Record(str(row[self.key]), vectors, payload)

    def outputs(self, parts: Parts) -> list[str]:
        """Return the columns to request for some parts of a record."""
        payload = [*self.scalars, *(["$meta"] if self.dynamic else [])] if Parts.PAYLOAD in parts else []
        vectors = [name for name, spec in self.schema.fields.items() if not isinstance(spec, TextField)]
        return [self.key, *payload, *(vectors if Parts.VECTORS in parts else [])]

    def ids(self, ids: Sequence[str]) -> Expression:
        """Return the expression for the rows with these ids, without ids that no row can have."""
        keys: list[Any] = list(ids)
        if self.primary.is_integer:
            keys = [int(each) for each in ids if _is_int64(each)]
        return ids_expression(keys, self.key) if keys else Expression(self.primary.never, self.primary.values)

    def everything(self) -> Expression:
        """Return the expression for every row."""
        return Expression(self.primary.always, self.primary.values)

    def where(self, where: Filter) -> Expression:
        """Return the expression on the scalar columns and the dynamic field."""
        return AdoptedFilters(self.primary, self.scalars, self.schema.filterable).to_expression(where)

    def vector_column(self, field: str) -> str:
        """Return the column that a leg on the field searches, its own name."""
        return field

    def presence_column(self, field: str) -> None:
        """Return None, since every row has every vector."""
        del field

    def index(self, field: str) -> str:
        """Return the type of a dense field's index."""
        return self.indexes.get(field, "FLAT")


def _is_int64(text: str) -> bool:
    return _INTEGER.fullmatch(text) is not None and int(text) in INT64

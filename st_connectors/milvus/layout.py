"""Map records to a collection's columns, for own collections and for those created by someone else."""

from __future__ import annotations

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
    """How a collection of this package is stored: the index of dense vectors, and the form of lists.

    ``index`` is FLAT or HNSW. ``packed`` stores lists as packed text instead of arrays.
    """

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
        """Return the capabilities for this collection.

        ``upper`` contains the capabilities of the adapter; the result restricts them to those that this collection's
        columns and indexes support.
        """
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
        """Return the column that states whether a row has the field's vector; None if every row has it."""
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
        """Return the capabilities for this collection: ``upper``, restricted to those that its index supports.

        ``upper`` contains the capabilities of the adapter. A flat index is exact; an HNSW index accepts a number of
        candidates. Speculative search is available where records may lack a vector: the filter that excludes such
        records takes 5 % of the time of a search among 6,600 rows on Milvus Lite. The number of filter values is
        limited where lists are stored as text, because each value is then compared with every row.
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
        values = columns.MAX_PACKED_VALUES if self.options.packed else upper.max_filter_values
        return replace(
            upper, efforts=efforts, fields=precision, speculative_search=speculative, max_filter_values=values
        )

    def row(self, record: Record) -> dict[str, Any]:
        """Convert a record to a row with every column, because Milvus Lite keeps the old value of an omitted column.

        A missing vector is replaced by a placeholder, and its presence column is false. Raises ValueError for values
        that Milvus cannot store.
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
        """Return the column that states whether a row has the field's vector; None if every row has it."""
        spec = self.schema.fields[field]
        return None if isinstance(spec, TextField) or not spec.optional else columns.presence_column(field)

    def index(self, field: str) -> str:
        """Return the type of a dense field's index; all dense fields have the same type."""
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


@dataclass(frozen=True, slots=True)
class AdoptedLayout:
    """The columns of a collection created by someone else.

    The primary key is the id; the scalar columns and the dynamic field form the payload. ``dynamic`` states whether
    the collection has a dynamic field. ``indexes`` contains the index type of each dense field.
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
        """Return the capabilities for this collection: ``upper``, restricted to the efforts of every dense index.

        ``upper`` contains the capabilities of the adapter. On Milvus 2.5 a record must have a vector for every field.
        """
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
            alterable=frozenset(),
        )

    def row(self, record: Record) -> dict[str, Any]:
        """Convert a record to a row; raise ValueError for values that the columns cannot store."""
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
        if (number := _parse_key(record_id)) is None:
            raise ValueError(f"an adopted collection with integer keys expects integer ids, got {record_id!r}")
        return number

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
        """Return the expression for the rows with these ids; ids that the key column cannot contain are skipped.

        Raises ValueError for a whole number in another spelling, such as 07 for 7.
        """
        keys: list[Any] = list(ids)
        if self.primary.is_integer:
            keys = [key for each in ids if (key := _parse_key(each)) is not None]
        return ids_expression(keys, self.key) if keys else Expression(self.primary.never, self.primary.values)

    def everything(self) -> Expression:
        """Return the expression for every row."""
        return Expression(self.primary.always, self.primary.values)

    def where(self, where: Filter) -> Expression:
        """Return the expression on the scalar columns and the dynamic field."""
        return AdoptedFilters(self.primary, self.scalars, self.schema.filterable).to_expression(where)

    def vector_column(self, field: str) -> str:
        """Return the column that a leg on the field searches, which has the field's name."""
        return field

    def presence_column(self, field: str) -> None:
        """Return None, because every row has every vector."""
        del field

    def index(self, field: str) -> str:
        """Return the type of a dense field's index."""
        return self.indexes.get(field, "FLAT")


def _parse_key(text: str) -> int | None:
    """Return an id as an integer of 64 bits, or None; raise ValueError for one in another spelling than Milvus's."""
    try:
        number = int(text)
    except ValueError:
        return None
    if str(number) != text:
        raise ValueError(f"the id {text!r} is another spelling of {str(number)!r}: write that")
    return number if number in INT64 else None

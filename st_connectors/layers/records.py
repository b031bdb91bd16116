"""What a record must be before a store sees it; pure. Each function gives the clean value or raises ValueError or TypeError with a sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from st_connectors.filters import parse_date
from st_connectors.schema import DenseField, FilterKind, Metric, Schema, SparseField, TextField
from st_connectors.store import MAX_ID_BYTES, Record, Vector
from st_core.vectors import SparseVector

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "INT64",
    "checked_id",
    "checked_record",
    "dense_vector",
    "encoded",
    "is_of_kind",
    "names",
    "size_of",
    "sparse_vector",
]

INT64 = range(-(2**63), 2**63)
_JSON = json.JSONEncoder(ensure_ascii=False)
_DEPTH = 64
"""How deep payloads nest: half of what serde_json, and with it Qdrant, reads."""
_UNIT = 1e-7
"""A float32 vector once brought to unit length is within 2**-24 of it, and is left as it is the second time."""


def checked_id(value: object) -> str:
    """An id of 1 to 512 bytes of UTF-8."""
    if not isinstance(value, str):
        raise TypeError(f"an id is a string, not {type(value).__name__}: {value!r}")
    if not value:
        raise ValueError("an id has at least one character; this one is empty")
    size = len(encoded(value, "the id"))
    if size > MAX_ID_BYTES:
        raise ValueError(f"an id has at most {MAX_ID_BYTES} bytes of UTF-8; {value[:40]!r}… has {size}")
    return value[:]


def checked_record(record: Record, schema: Schema, *, optional_vectors: bool) -> Record:
    """The record as a store gets it: float32 vectors in their normal form, unit length for cosine, vectors that say nothing left out, a copied payload."""
    key = checked_id(record.id)
    unknown = record.vectors.keys() - schema.fields.keys()
    if unknown:
        raise ValueError(f"there is no field {min(unknown)!r}; the collection has {names(schema.fields)}")
    vectors: dict[str, Vector] = {}
    for name, spec in schema.fields.items():
        if isinstance(spec, TextField):
            if name in record.vectors:
                raise ValueError(
                    f"field {name!r} is text: it is read from the payload's {spec.source!r}, and takes no vector"
                )
            continue
        vector = None
        if name in record.vectors:
            given = record.vectors[name]
            vector = dense_vector(given, spec, name) if isinstance(spec, DenseField) else sparse_vector(given, name)
        if vector is not None and _says_something(vector):
            vectors[name] = vector
        elif not (optional_vectors and spec.optional):
            _missing(name, spec, given=vector is not None, optional_vectors=optional_vectors)
    return Record(key, vectors, _checked_payload(record.payload, schema))


def _missing(name: str, spec: DenseField | SparseField, *, given: bool, optional_vectors: bool) -> None:
    what = (
        "is all zeros, which counts as none"
        if given and isinstance(spec, DenseField)
        else "is empty"
        if given
        else "is missing"
    )
    why = "the field is not optional" if optional_vectors else "this store needs every vector of every record"
    raise ValueError(f"the vector of field {name!r} {what}, and {why}")


def _says_something(vector: Vector) -> bool:
    return vector.indices.size > 0 if isinstance(vector, SparseVector) else bool(np.count_nonzero(vector))


def dense_vector(value: object, spec: DenseField, name: str) -> NDArray[np.float32]:
    """Float32 [dimension] of anything like an array; brought to unit length, measured in float64, where the metric is cosine."""
    expected = f"field {name!r} is dense and takes {spec.dimension} numbers"
    if isinstance(value, SparseVector):
        raise TypeError(f"{expected}, not a sparse vector")
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise TypeError(f"{expected}, not {type(value).__name__}") from error
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{expected}, not {type(value).__name__} of {array.dtype}")
    if array.shape != (spec.dimension,):
        raise ValueError(f"{expected}, not an array of shape {array.shape}")
    if array.dtype == np.float32:
        vector = np.ascontiguousarray(array)
    else:
        with np.errstate(over="ignore"):
            vector = np.ascontiguousarray(array, dtype=np.float32)
    wide = vector.astype(np.float64)
    square = float(wide.dot(wide))  # which squares of float32 numbers do not overflow
    if not math.isfinite(square):
        raise ValueError(f"{expected} that are finite in float32; this one holds NaN or infinity")
    length = math.sqrt(square)
    if spec.metric is not Metric.COSINE or length == 0.0 or abs(length - 1.0) <= _UNIT:
        return vector
    return (wide / length).astype(np.float32)


def sparse_vector(value: object, name: str) -> SparseVector:
    """A sparse vector, which is in its normal form by construction."""
    if not isinstance(value, SparseVector):
        raise TypeError(
            f"field {name!r} is sparse and takes a SparseVector, not {type(value).__name__}: make one with SparseVector.from_mapping or from_arrays"
        )
    return value


def _checked_payload(payload: object, schema: Schema) -> dict[str, Any]:
    if not isinstance(payload, Mapping):
        raise TypeError(f"a payload is a mapping, not {type(payload).__name__}")
    plain = _object(payload, "payload", 0)
    for name, kind in schema.filterable.items():
        if name in plain:
            _check_filterable(plain[name], kind, name)
    for spec in schema.fields.values():
        if isinstance(spec, TextField) and not isinstance(plain.get(spec.source, ""), str | None):
            raise TypeError(
                f"payload[{spec.source!r}] is searched as text and must be a string, not {type(plain[spec.source]).__name__}"
            )
    return plain


def _object(value: Mapping[Any, Any], where: str, depth: int) -> dict[str, Any]:
    if depth > _DEPTH:
        raise ValueError(f"{where[:60]}… nests deeper than {_DEPTH} levels")
    plain: dict[str, Any] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise TypeError(f"the keys of {where} are strings, not {type(key).__name__}: {key!r}")
        if not key.isascii():
            encoded(key, f"a key of {where}")
        # Most values are such strings, and need no name for a message.
        plain_string = isinstance(item, str) and item.isascii()
        plain[key[:]] = item[:] if plain_string else _plain(item, f"{where}[{key!r}]", depth + 1)
    return plain


def _plain(value: object, where: str, depth: int) -> Any:
    """A JSON value in Python's own types, copied."""
    match value:
        case None | bool():
            return value
        case str():
            encoded(value, where)
            return value[:]
        case int():
            if value not in INT64:
                raise ValueError(f"{where} is {value}, beyond 64 bits: give it as a string")
            return int(value)
        case float():
            if not math.isfinite(value):
                raise ValueError(f"{where} is {value}, which JSON does not know: leave it out or give null")
            return float(value)
        case list():
            if depth > _DEPTH:
                raise ValueError(f"{where[:60]}… nests deeper than {_DEPTH} levels")
            return [_plain(item, f"{where}[{at}]", depth + 1) for at, item in enumerate(value)]
        case Mapping():
            return _object(value, where, depth)
        case _:
            raise TypeError(
                f"{where} is {type(value).__name__}, which is not JSON: give a string, number, boolean, null, list or object"
            )


def _check_filterable(value: object, kind: FilterKind, name: str) -> None:
    """Raise unless a value, or each element of a list, is of the declared kind; null alone is fine."""
    if value is None:
        return
    for one in value if isinstance(value, list) else [value]:
        if not is_of_kind(one, kind):
            hint = "; null cannot stand inside a list" if one is None else ""
            raise ValueError(f"payload[{name!r}] is filterable as {kind.value}, and {one!r} is not{hint}")


def is_of_kind(value: object, kind: FilterKind) -> bool:
    """Whether a payload value may stand under a filterable field: an int field takes no 1.0, a float field takes 1."""
    match kind:
        case FilterKind.KEYWORD:
            return isinstance(value, str)
        case FilterKind.BOOL:
            return isinstance(value, bool)
        case FilterKind.INT:
            return isinstance(value, int) and not isinstance(value, bool)
        case FilterKind.FLOAT:
            return isinstance(value, int | float) and not isinstance(value, bool)
        case FilterKind.DATE:
            return isinstance(value, str) and _is_date(value)


def _is_date(text: str) -> bool:
    try:
        parse_date(text)
    except ValueError:
        return False
    return True


def encoded(text: str, what: str) -> bytes:
    """UTF-8; raises ValueError for lone surrogates."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{what} holds half of a surrogate pair, {text[error.start]!a}, which UTF-8 cannot write"
        ) from error


def names(fields: Mapping[str, object]) -> str:
    """Names for a message."""
    return ", ".join(repr(name) for name in fields) or "no fields"


def size_of(record: Record) -> int:
    """The most bytes that a record takes in a JSON request.

    24 a dense number and 36 a sparse weight, the longest that a float32 is written with as a double; the payload as it is written; 64 around.
    """
    vectors = sum(
        36 * each.indices.size if isinstance(each, SparseVector) else 24 * each.size for each in record.vectors.values()
    )
    payload = _JSON.encode(record.payload)
    return 64 + len(record.id.encode()) + vectors + (len(payload) if payload.isascii() else len(payload.encode()))

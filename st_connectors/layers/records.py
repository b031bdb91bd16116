"""Validate and normalise records before they are sent; the functions raise ValueError or TypeError."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from st_connectors._matching import INT64, to_int64, values_at
from st_connectors.filters import parse_date
from st_connectors.schema import DenseField, FilterKind, Metric, Schema, TextField
from st_connectors.store import MAX_ID_BYTES, Record, Vector, is_empty_vector
from st_core.vectors import SparseVector

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "INT64",
    "check_dense",
    "check_filterable",
    "check_id",
    "check_payload",
    "check_record",
    "check_sparse",
    "encode_text",
    "is_of_kind",
    "list_names",
    "size_of",
]

_JSON = json.JSONEncoder(ensure_ascii=False)
_DEPTH = 64
"""The maximum depth of nesting in payloads: half the maximum of serde_json, which Qdrant uses."""
_UNIT = 1e-7
"""The tolerance within which a length counts as 1. The length of a scaled float32 vector is within 2**-24 of 1, so that
such a vector is not scaled again."""


def check_id(value: object) -> str:
    """Return an id of 1 to 512 bytes of UTF-8 as a plain string."""
    if not isinstance(value, str):
        raise TypeError(f"an id must be a string, not {type(value).__name__}: {value!r}")
    if not value:
        raise ValueError("an id must have at least one character; this one is empty")
    size = len(encode_text(value, "the id"))
    if size > MAX_ID_BYTES:
        raise ValueError(f"an id must have at most {MAX_ID_BYTES} bytes of UTF-8; {value[:40]!r}… has {size}")
    return value[:]


def check_record(record: Record, schema: Schema, *, optional_vectors: bool) -> Record:
    """Return the record in the form in which it is sent to a store.

    Vectors are float32 and have unit length in cosine fields; empty vectors are omitted. The payload is a copy.
    """
    key = check_id(record.id)
    unknown = record.vectors.keys() - schema.fields.keys()
    if unknown:
        raise ValueError(f"unknown field {min(unknown)!r}; the collection has {list_names(schema.fields)}")
    vectors: dict[str, Vector] = {}
    for name, spec in schema.fields.items():
        if isinstance(spec, TextField):
            if name in record.vectors:
                raise ValueError(
                    f"field {name!r} is text, read from the payload's {spec.source!r}: leave out its vector"
                )
            continue
        vector = None
        if name in record.vectors:
            value = record.vectors[name]
            vector = check_dense(value, spec, name) if isinstance(spec, DenseField) else check_sparse(value, name)
        if vector is not None and not is_empty_vector(vector):
            vectors[name] = vector
        elif not (optional_vectors and spec.optional):
            raise ValueError(_lacking(name, vector, optional_vectors=optional_vectors))
    return Record(key, vectors, check_payload(record.payload, schema))


def _lacking(name: str, vector: Vector | None, *, optional_vectors: bool) -> str:
    """Return the message for a missing or empty vector of a field that requires it."""
    match vector:
        case None:
            state = "is missing"
        case SparseVector():
            state = "is empty"
        case _:
            state = "is all zeros, which counts as absent"
    why = "the field is not optional" if optional_vectors else "this store needs every vector of every record"
    return f"the vector of field {name!r} {state}, and {why}"


def check_dense(value: object, spec: DenseField, name: str) -> NDArray[np.float32]:
    """Convert an array-like to float32 [dimension], scaled to unit length (measured in float64) for cosine fields."""
    expected = f"dense field {name!r} expects {spec.dimension} numbers"
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
    square = float(wide.dot(wide))  # squares of float32 numbers do not overflow float64
    if not math.isfinite(square):
        raise ValueError(f"{expected} that are finite in float32, not NaN or infinity")
    length = math.sqrt(square)
    if spec.metric is not Metric.COSINE or length == 0.0 or abs(length - 1.0) <= _UNIT:
        return vector
    return (wide / length).astype(np.float32)


def check_sparse(value: object, name: str) -> SparseVector:
    """Return a SparseVector unchanged, because its constructor has normalised it; raise TypeError for other values."""
    if not isinstance(value, SparseVector):
        raise TypeError(
            f"sparse field {name!r} expects a SparseVector, not {type(value).__name__}: "
            "create one with SparseVector.from_mapping or from_arrays"
        )
    return value


def check_payload(payload: object, schema: Schema) -> dict[str, Any]:
    """Return a copy of a payload in the form in which it is sent to a store."""
    if not isinstance(payload, Mapping):
        raise TypeError(f"a payload must be a mapping, not {type(payload).__name__}")
    plain = _copy_object(payload, "payload", 0)
    check_filterable(plain, schema.filterable)
    for name, kind in schema.filterable.items():
        if kind is FilterKind.INT and name in plain:
            plain[name] = _as_whole(plain[name])
    for spec in schema.fields.values():
        if isinstance(spec, TextField) and not isinstance(plain.get(spec.source, ""), str | None):
            raise TypeError(
                f"payload[{spec.source!r}] is the text of a field and must be a string, "
                f"not {type(plain[spec.source]).__name__}"
            )
    return plain


def _copy_object(value: Mapping[Any, Any], where: str, depth: int) -> dict[str, Any]:
    """Return a copy of a JSON object; ``where`` is its path in the payload, used in messages."""
    if depth > _DEPTH:
        raise ValueError(f"{where[:60]}… nests deeper than {_DEPTH} levels")
    plain: dict[str, Any] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise TypeError(f"the keys of {where} must be strings, not {type(key).__name__}: {key!r}")
        if not key.isascii():
            encode_text(key, f"a key of {where}")
        # Most values are ASCII strings. This fast path does not build the path of a value for a message.
        is_ascii = isinstance(item, str) and item.isascii()
        plain[key[:]] = item[:] if is_ascii else _copy_json(item, f"{where}[{key!r}]", depth + 1)
    return plain


def _copy_json(value: object, where: str, depth: int) -> Any:
    """Return a copy of a JSON value that consists of built-in Python types."""
    match value:
        case None | bool():
            return value
        case str():
            encode_text(value, where)
            return value[:]
        case int():
            if value not in INT64:
                raise ValueError(f"{where} is {value}, beyond 64 bits: use a string")
            return int(value)
        case float():
            if not math.isfinite(value):
                raise ValueError(f"{where} is {value}, which JSON does not allow: leave it out or use null")
            return float(value)
        case list():
            if depth > _DEPTH:
                raise ValueError(f"{where[:60]}… nests deeper than {_DEPTH} levels")
            return [_copy_json(item, f"{where}[{at}]", depth + 1) for at, item in enumerate(value)]
        case Mapping():
            return _copy_object(value, where, depth)
        case _:
            raise TypeError(
                f"{where} is {type(value).__name__}, not JSON: use a string, number, boolean, null, list or object"
            )


def check_filterable(payload: Mapping[str, Any], filterable: Mapping[str, FilterKind]) -> None:
    """Raise ValueError unless the values of filterable fields are of the declared kinds; null values are allowed.

    A float without a fraction is a whole number: pandas writes 2020.0 for integers in a column with empty cells.
    """
    for name, kind in filterable.items():
        for one in values_at(payload, name):
            if not is_of_kind(_as_whole(one) if kind is FilterKind.INT else one, kind):
                hint = "; lists must not contain null" if one is None else ""
                raise ValueError(f"payload[{name!r}] is filterable as {kind.value}, and {one!r} is not{hint}")


def _as_whole(value: object) -> object:
    """Return the integer that equals a float, if it has 64 bits, also in a list; other values unchanged."""
    if isinstance(value, list):
        return [_as_whole(one) for one in value]
    whole = to_int64(value) if isinstance(value, float) else None
    return value if whole is None else whole


def is_of_kind(value: object, kind: FilterKind) -> bool:
    """Return whether a payload value is of a filterable kind: 1.0 is not an int, but 1 is a float."""
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


def encode_text(text: str, what: str) -> bytes:
    """Encode a text as UTF-8; raise ValueError for lone surrogates, with ``what`` as the description of the text."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{what} contains half of a surrogate pair, {text[error.start]!a}, which UTF-8 cannot encode"
        ) from error


def list_names(fields: Mapping[str, object]) -> str:
    """Return the names of fields as a list for a message."""
    return ", ".join(repr(name) for name in fields) or "no fields"


def size_of(record: Record) -> int:
    """Return an upper bound of the number of bytes of a record in a JSON request.

    The bound consists of 24 bytes for each number of a dense vector and 36 for each weight of a sparse vector, which
    are the longest forms of a float32 written as a double; the bytes of the payload's JSON; and 64 bytes for the rest.
    """
    vectors = sum(
        36 * each.indices.size if isinstance(each, SparseVector) else 24 * each.size for each in record.vectors.values()
    )
    payload = _JSON.encode(record.payload)
    return 64 + len(record.id.encode()) + vectors + (len(payload) if payload.isascii() else len(payload.encode()))

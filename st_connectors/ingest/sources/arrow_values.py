"""Convert columns of Arrow tables to JSON values by their types, alike with and without pandas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from st_connectors.ingest.sources.plain_values import READ_ERRORS, Unreadable, plain_value, unreadable

__all__ = ["values_of"]


def values_of(column: Any, name: str, *, is_uuid: bool = False) -> list[Any]:
    """Return the values of a column as JSON values, with None for null and Unreadable for those that have none.

    Dates and times become ISO 8601 with microseconds, durations seconds, decimals numbers (whole ones without
    fraction digits), UUIDs and bytes of UTF-8 strings, and maps objects.
    """
    plain = _cast(column)
    convert = _converter(column.type, is_uuid=is_uuid)
    try:
        values = plain.to_pylist()
    except READ_ERRORS:
        values = [_as_python(scalar, name) for scalar in plain]
    return list(values) if convert is None else [_converted(value, convert, name) for value in values]


def _as_python(scalar: Any, name: str) -> Any:
    try:
        return scalar.as_py()
    except READ_ERRORS as error:
        return unreadable(name, error)


def _converted(value: Any, convert: Callable[[Any], Any], name: str) -> Any:
    if value is None or isinstance(value, Unreadable):
        return value
    try:
        return convert(value)
    except READ_ERRORS as error:
        return unreadable(name, error)


def _cast(column: Any) -> Any:
    """Return a column in types that Python has; nanoseconds are cut to microseconds."""
    wanted = _plain_type(column.type)
    if wanted == column.type:
        return column
    try:
        return column.cast(wanted, safe=False)
    except READ_ERRORS:
        return column


def _plain_type(kind: Any) -> Any:
    """Return the type to which a column is cast before its values are read."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_nested(kind):
        return _plain_nested(kind)
    if types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    return pa.float32() if types.is_float16(kind) else _in_microseconds(kind)


def _plain_nested(kind: Any) -> Any:
    import pyarrow as pa
    from pyarrow import types

    if types.is_map(kind):
        return pa.map_(_plain_type(kind.key_type), _plain_type(kind.item_type))
    if types.is_struct(kind):
        return pa.struct([each.with_type(_plain_type(each.type)) for each in kind])
    if types.is_fixed_size_list(kind):
        return pa.list_(_plain_type(kind.value_type), kind.list_size)
    if types.is_list(kind) or types.is_large_list(kind):
        make = pa.list_ if types.is_list(kind) else pa.large_list
        return make(kind.value_field.with_type(_plain_type(kind.value_type)))
    return kind


def _in_microseconds(kind: Any) -> Any:
    """Return a type of times with microseconds instead of nanoseconds; others unchanged."""
    import pyarrow as pa
    from pyarrow import types

    if getattr(kind, "unit", None) != "ns":
        return kind
    if types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    return pa.time64("us") if types.is_time64(kind) else pa.duration("us")


def _converter(kind: Any, *, is_uuid: bool = False) -> Callable[[Any], Any] | None:
    """Return the function that converts values of a type to JSON values; None if they are JSON values already."""
    from pyarrow import types

    if is_uuid:
        return _uuid
    if types.is_dictionary(kind):
        return _converter(kind.value_type)
    if types.is_map(kind):
        return _map_converter(_converter(kind.key_type), _converter(kind.item_type))
    if types.is_struct(kind):
        return _struct_converter({each.name: _converter(each.type) for each in kind})
    if types.is_nested(kind) and hasattr(kind, "value_type"):
        return _list_converter(_converter(kind.value_type))
    is_json = types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_null(kind)
    return None if is_json or types.is_string(kind) or types.is_large_string(kind) else plain_value


def _uuid(value: Any) -> str:
    return str(value if isinstance(value, UUID) else UUID(bytes=value))


def _list_converter(convert: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    return lambda values: [_optional(value, convert) for value in values]


def _struct_converter(converters: dict[str, Callable[[Any], Any] | None]) -> Callable[[Any], Any]:
    return lambda values: {name: _optional(values[name], convert) for name, convert in converters.items()}


def _map_converter(
    convert_key: Callable[[Any], Any] | None, convert: Callable[[Any], Any] | None
) -> Callable[[Any], Any]:
    def to_object(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
        result = {str(_optional(key, convert_key)): _optional(value, convert) for key, value in pairs}
        if len(result) != len(pairs):
            raise ValueError("the map has a key twice")
        return result

    return to_object


def _optional(value: Any, convert: Callable[[Any], Any] | None) -> Any:
    return value if value is None or convert is None else convert(value)

"""Write payloads as ordinary fields that other tools read, and read them back exactly.

Most entries of a payload become fields of the document. An entry that no field can hold stays hidden, as JSON in a
string. The engines preserve every number and string of a document, but OpenSearch sorts the keys of objects anew when
it leaves out vectors; so the order of keys is stored too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

__all__ = ["arrange", "is_field_name", "is_plain", "object_tree", "order_of", "restore", "split_payload"]

ROOT = "st_connectors"
"""The field that contains everything but the payload."""

_LONGEST_NAME = 512
_LONGEST_STRING = 4_000
"""The maximum number of characters of a string inside an object: such a string is one term with its path, and Lucene
accepts at most 32,766 bytes."""
_DEPTH = 16
"""The maximum depth of an object; the engines accept 20 by default."""


def is_field_name(key: str) -> bool:
    """Return whether both engines accept a payload key as the name of a field.

    A dot would start a path. Names that start with an underscore are those of the engines.
    """
    is_ours = key == ROOT or key.startswith("_")
    return bool(key.strip()) and not is_ours and not {".", "\0"} & set(key) and len(key.encode()) <= _LONGEST_NAME


def object_tree(names: Iterable[str]) -> dict[str, Any]:
    """Return the objects on the paths of filterable fields as nested dictionaries: ``{"meta": {}}`` for meta.year."""
    tree: dict[str, Any] = {}
    for name in names:
        inner = tree
        for step in name.split(".")[:-1]:
            inner = inner.setdefault(step, {})
    return tree


def is_plain(key: str, value: object, objects: Mapping[str, Any]) -> bool:
    """Return whether a payload entry can be a field.

    ``objects`` contains the keys that are objects with typed fields, as ``object_tree`` returns them. Every other
    object is one field, whose keys are arbitrary. A list needs elements of one JSON type.
    """
    if not is_field_name(key):
        return False
    leaves = [leaf for leaf in _leaves(value) if leaf is not None]
    if key in objects:
        return all(
            isinstance(leaf, Mapping) and all(is_plain(name, item, objects[key]) for name, item in leaf.items())
            for leaf in leaves
        )
    return len({_json_type(leaf) for leaf in leaves}) <= 1 and all(
        _fits_in_object(leaf, _DEPTH) for leaf in leaves if isinstance(leaf, Mapping)
    )


def _leaves(value: object) -> Iterator[object]:
    """Yield the elements of a list and of the lists inside it, or the value itself."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _json_type(value: object) -> str:
    match value:
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case _:
            return "object"


def _fits_in_object(value: object, depth: int) -> bool:
    """Return whether a value can be inside an object of at most ``depth`` levels that is one field."""
    match value:
        case str():
            return len(value) <= _LONGEST_STRING
        case Mapping():
            return depth > 0 and all(
                "\0" not in key and len(key.encode()) <= _LONGEST_NAME and _fits_in_object(item, depth - 1)
                for key, item in value.items()
            )
        case list() | tuple():
            return depth > 0 and all(_fits_in_object(item, depth - 1) for item in value)
        case _:
            return True


def split_payload(payload: Mapping[str, Any], objects: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the entries that become fields, and those that stay hidden."""
    plain = {key: value for key, value in payload.items() if is_plain(key, value, objects)}
    return plain, {key: value for key, value in payload.items() if key not in plain}


def order_of(value: object) -> Any:
    """Return the keys of a JSON value in order: nested objects without their values, and lists that contain objects.

    Returns None for a value without objects.
    """
    if isinstance(value, Mapping):
        return {key: order_of(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        orders = [order_of(item) for item in value]
        return orders if any(order is not None for order in orders) else None
    return None


def arrange(value: Any, order: Any) -> Any:
    """Return a JSON value with the keys of its objects in the order that ``order_of`` returned.

    Keys that another program added come last. A list whose length has changed keeps its order.
    """
    if isinstance(value, dict) and isinstance(order, dict):
        known = {key: arrange(value[key], inner) for key, inner in order.items() if key in value}
        return known | {key: item for key, item in value.items() if key not in known}
    if isinstance(value, list) and isinstance(order, list) and len(value) == len(order):
        return [arrange(item, inner) for item, inner in zip(value, order, strict=True)]
    return value


def restore(plain: Mapping[str, Any], hidden: Mapping[str, Any], order: Any) -> dict[str, Any]:
    """Return the payload of which ``split_payload`` and ``order_of`` returned the parts."""
    return dict(arrange({**plain, **hidden}, order))

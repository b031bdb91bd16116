"""Documents whose payload is ordinary fields, for collections that other tools read: the option ``payload=fields``.

Everything else of a document is inside one object::

    {"text": "…", "year": 1999, "day": "2020-01-31",
     "st_connectors": {"id": "a", "exact": "{…}", "filter": {"year": [1999], "day": [1580428800000000]},
                       "vector": {"dense": [0.6, 0.8]}}}

Filters of this package use the copies, because the types that other tools expect compare differently: dates have
milliseconds, and long keywords are not indexed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from st_connectors._lucene.encoding import decode_json, encode_json
from st_connectors._lucene.layout import FILTER, ID, STANDARD, VECTOR, Body, OwnLayout, filter_properties
from st_connectors._lucene.names import escape_field
from st_connectors._lucene.plain import ROOT, is_field_name, object_tree, order_of, restore, split_payload
from st_connectors.schema import FilterKind, Schema, TextField
from st_connectors.store import Parts, Record

__all__ = ["FieldsLayout", "fields_mapping", "text_problem"]

EXACT = "exact"

_DATE_FORMAT = (
    "strict_date_optional_time||uuuu-MM-dd HH:mm[:ss][.SSSSSS][.SSSSS][.SSSS][.SSS][.SS][.S][XXX]"  # with a space
)
_TYPES: Mapping[FilterKind, Body] = {
    FilterKind.KEYWORD: {"type": "keyword", "ignore_above": 8191},  # Lucene accepts 32,766 bytes
    FilterKind.INT: {"type": "long"},
    FilterKind.FLOAT: {"type": "double"},
    FilterKind.BOOL: {"type": "boolean"},
    FilterKind.DATE: {"type": "date", "format": _DATE_FORMAT},
}


@dataclass(frozen=True, slots=True)
class FieldsLayout(OwnLayout):
    """The documents of collections with ``payload=fields``."""

    is_private: ClassVar[bool] = False

    @property
    def refusal_hint(self) -> str:
        """What to do if the server refuses a document."""
        return (
            "payload=fields gives each key the type of its first value: use one type for each key, "
            "and one object instead of many keys"
        )

    def path(self, *steps: str) -> str:
        """Return the path of one of the package's own fields."""
        return ".".join((ROOT, *steps))

    def text(self, field: str) -> str:
        """Return the path of a text field, which is the payload key of its texts."""
        spec = self.schema.fields[field]
        return spec.source if isinstance(spec, TextField) else field

    def to_source(self, record: Record) -> Body:
        """Return the document of a record."""
        plain, hidden = split_payload(record.payload, object_tree(_mapped(self.schema)))
        system: Body = {ID: record.id}
        if record.payload:
            system[EXACT] = encode_json({"order": _order(record.payload, hidden), "hidden": hidden}).decode()
        if copies := self.copies(record.payload):
            system[FILTER] = copies
        if record.vectors:
            system[VECTOR] = self.vectors_body(record)
        return {**plain, ROOT: system}

    def selector(self, parts: Parts) -> list[str] | bool | Body:
        """Return the ``_source`` option for the requested parts."""
        if Parts.PAYLOAD not in parts:
            return [self.path(VECTOR)] if Parts.VECTORS in parts else False
        if Parts.VECTORS in parts:
            return ["*", self.path(VECTOR)]
        return {"excludes": [self.path(name) for name in (ID, FILTER, VECTOR)]}

    def from_source(self, record_id: str, source: Mapping[str, Any] | None, parts: Parts) -> Record:
        """Return the record of a document with the requested parts; another tool may have changed its fields."""
        document = dict(source or {})
        system = document.pop(ROOT, None) or {}
        vectors = self.read_vectors(system) if Parts.VECTORS in parts else {}
        if Parts.PAYLOAD not in parts:
            return Record(record_id, vectors)
        exact = decode_json(system[EXACT]) if EXACT in system else {"order": None, "hidden": {}}
        return Record(record_id, vectors, restore(document, exact["hidden"], exact["order"]))


def _order(payload: Mapping[str, Any], hidden: Mapping[str, Any]) -> Any:
    """Return the order of keys; hidden entries contain their own."""
    return {key: None if key in hidden else order_of(value) for key, value in payload.items()}


def _mapped(schema: Schema) -> dict[str, FilterKind]:
    """Return the filterable fields that can be fields of the index."""
    texts = {spec.source for spec in schema.fields.values() if isinstance(spec, TextField)}
    return {
        name: kind
        for name, kind in schema.filterable.items()
        if all(map(is_field_name, name.split("."))) and name.partition(".")[0] not in texts
    }


def text_problem(schema: Schema) -> str | None:
    """Return a sentence about a text field whose texts cannot be in an ordinary field; None if all can."""
    for name, spec in schema.fields.items():
        if isinstance(spec, TextField) and not is_field_name(spec.source):
            return (
                f"the texts of field {name!r} are under the key {spec.source!r}, which cannot be the name of a text "
                "field of the index: use another key, or leave payload out of the address"
            )
    return None


def fields_mapping(schema: Schema, vectors: Mapping[str, Body], analysers: Mapping[str, str], objects: str) -> Body:
    """Return the properties and dynamic templates of a collection with ``payload=fields``.

    Texts and filterable fields have the types that they declare; any other key gets the type of its first value.
    ``objects`` is the type of other objects, which are one field each, so that their keys are not counted as fields.
    """
    system: Body = {
        ID: {"type": "keyword", "index": False},
        EXACT: {"type": "keyword", "index": False, "doc_values": False},
    }
    copies = {FILTER: filter_properties(schema), VECTOR: {escape_field(name): body for name, body in vectors.items()}}
    system |= {name: {"properties": inner} for name, inner in copies.items() if inner}
    return {
        "dynamic": True,
        "date_detection": False,  # a first text that looks like a date would make a field refuse all other texts
        "dynamic_templates": [
            {"objects": {"match_mapping_type": "object", "mapping": {"type": objects}}},
            # A field of type long would cut the fractions of later values.
            {"integers": {"match_mapping_type": "long", "mapping": {"type": "double"}}},
            {"floats": {"match_mapping_type": "double", "mapping": {"type": "double"}}},
        ],
        "properties": {
            **_declared(schema, analysers),
            ROOT: {"dynamic": "strict", "properties": system},
        },
    }


def _declared(schema: Schema, analysers: Mapping[str, str]) -> Body:
    """Return the properties of texts and of filterable fields; an object with typed fields has no type itself."""
    tree: Body = {
        spec.source: {"type": "text", "analyzer": analysers.get(name, STANDARD)}
        for name, spec in schema.fields.items()
        if isinstance(spec, TextField)
    }
    for name, kind in sorted(_mapped(schema).items(), key=lambda item: -item[0].count(".")):
        *steps, last = name.split(".")
        inner = tree
        for step in steps:
            inner = inner.setdefault(step, {"properties": {}})["properties"]
        inner.setdefault(last, dict(_TYPES[kind]))
    return tree

"""The form of a collection's vectors, and the mapping that stores the form and the schema."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from st_connectors._lucene.fields import FieldsLayout, fields_mapping, text_problem
from st_connectors._lucene.keys import Keys
from st_connectors._lucene.layout import FILTER, STANDARD, Body, OwnLayout, filter_properties, properties
from st_connectors._lucene.names import METADATA
from st_connectors._lucene.options import check_choice
from st_connectors._lucene.vocabulary import Vocabulary
from st_connectors.schema import (
    DenseField,
    Field,
    FieldKind,
    FilterKind,
    Quantization,
    Schema,
    SparseField,
    TextField,
)

__all__ = [
    "PAYLOADS",
    "STRING",
    "Form",
    "VectorField",
    "adopted_schema",
    "analysers",
    "check_payload",
    "form_difference",
    "keys_of",
    "layout_of",
    "metadata_change",
    "options_of",
    "own_mapping",
    "property_change",
    "stored_name",
    "stored_schema",
    "token_difference",
    "with_tokens",
]


STRING = "string"
FIELDS = "fields"
PAYLOADS = (STRING, FIELDS)
"""How payloads are stored: as one hidden string, or as ordinary fields."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a collection stores its vectors and payloads.

    ``sparse`` maps sparse fields to their types, and ``dense`` maps dense fields to their index kinds or engines.
    ``text`` maps text fields to their analysers; those that are absent have the standard analyser.
    ``tokens`` is the digest of the vocabulary whose tokens are the keys of sparse fields; None if the keys are indices.
    ``payload`` is one of ``PAYLOADS``.
    """

    sparse: Mapping[str, str] = field(default_factory=dict)
    dense: Mapping[str, str] = field(default_factory=dict)
    tokens: str | None = None
    text: Mapping[str, str] = field(default_factory=dict)
    payload: str = STRING


def check_payload(schema: Schema, payload: str) -> str:
    """Return how a new collection stores payloads; raise ValueError if it is unknown or does not suit the schema."""
    check_choice("payload", payload, PAYLOADS)
    if payload == FIELDS and (problem := text_problem(schema)):
        raise ValueError(problem)
    return payload


def analysers(schema: Schema, analyzer: str) -> dict[str, str]:
    """Return the analyser of each text field of a new collection; raise ValueError unless it is a name.

    Only the server knows which analysers it has. The result is empty for the standard analyser.
    """
    if not re.fullmatch("[A-Za-z0-9_]+", analyzer):
        raise ValueError(f"analyzer must be the name of an analyser, such as english, not {analyzer!r}")
    return {} if analyzer == STANDARD else dict.fromkeys(schema.of_kind(FieldKind.TEXT), analyzer)


def with_tokens(form: Form, vocabulary: Vocabulary | None) -> Form:
    """Return the form with the digest of a vocabulary if there is one and the form has sparse fields."""
    return form if vocabulary is None or not form.sparse else replace(form, tokens=vocabulary.digest)


def keys_of(form: Form, vocabulary: Vocabulary | None) -> Keys:
    """Return the keys of sparse fields in a collection of this form."""
    return Keys(vocabulary, frozenset(name for name, kind in form.sparse.items() if kind == "rank_features"))


def layout_of(schema: Schema, form: Form, vocabulary: Vocabulary | None) -> OwnLayout:
    """Return the layout of the documents of a collection of this form."""
    kind = FieldsLayout if form.payload == FIELDS else OwnLayout
    return kind(schema, keys_of(form, vocabulary))


def options_of(schema: Schema, form: Form, dense: str) -> dict[str, str]:
    """Return the address options that lead to a form; ``dense`` is the option that selects the form of dense fields.

    A dense form that follows from the quantization of its field needs no option, except for graph or flat.
    """
    pairs = [("sparse", kind) for kind in form.sparse.values()] + [("analyzer", name) for name in form.text.values()]
    options = {"payload": form.payload, **dict(pairs)}
    for name, kind in form.dense.items():
        spec = schema.fields[name]
        is_plain = isinstance(spec, DenseField) and spec.quantization is Quantization.NONE
        if is_plain:
            options[dense] = kind
        elif dense == "dense_index":
            options.setdefault(dense, kind.rpartition("_")[2])
    return options


def own_mapping(schema: Schema, form: Form, vectors: Mapping[str, Body], *, objects: str = "flattened") -> Body:
    """Return the mapping of a collection of this package; ``vectors`` contains the properties of each vector field.

    ``objects`` is the type in which the engine stores an object as one field.
    """
    if form.payload == FIELDS:
        return {**metadata_change(schema, form), **fields_mapping(schema, vectors, form.text, objects)}
    return {
        "dynamic": "strict",
        **metadata_change(schema, form),
        "properties": properties(schema, vectors, form.text),
    }


def metadata_change(schema: Schema, form: Form) -> Body:
    """Return the part of a mapping that stores the schema and the form."""
    metadata: Body = {"schema": schema.to_json(), "sparse": dict(form.sparse), "dense": dict(form.dense)}
    if form.tokens is not None:
        metadata["tokens"] = form.tokens
    if form.text:
        metadata["text"] = dict(form.text)
    if form.payload != STRING:
        metadata["payload"] = form.payload
    # A string, because servers return the keys of an object in _meta in another order.
    return {"_meta": {METADATA: json.dumps(metadata, ensure_ascii=False)}}


def property_change(layout: OwnLayout) -> Body:
    """Return the part of a mapping that declares the typed copies of filterable fields."""
    change: Body = {"properties": filter_properties(layout.schema)}
    for step in reversed(layout.path(FILTER).split(".")):
        change = {"properties": {step: change}}
    return change


def stored_name(mapping: Mapping[str, Any]) -> str | None:
    """Return the name of a collection, whatever the version of its format; None for an index of another program."""
    metadata = (mapping.get("_meta") or {}).get(METADATA)
    return str(json.loads(metadata)["schema"]["collection"]) if isinstance(metadata, str) else None


def stored_schema(mapping: Mapping[str, Any]) -> tuple[Schema, Form] | None:
    """Return the schema and form that ``own_mapping`` stored; None for an index that another program created."""
    metadata = (mapping.get("_meta") or {}).get(METADATA)
    if not isinstance(metadata, str):
        return None
    value = json.loads(metadata)
    form = Form(
        value["sparse"], value["dense"], value.get("tokens"), value.get("text", {}), value.get("payload", STRING)
    )
    return Schema.from_json(value["schema"]), form


def form_difference(stored: Form, requested: Form, options: Collection[str], *, dense: str) -> str | None:
    """Return a sentence about the first difference between two forms; None if they agree.

    ``options`` contains the names of the options that the address sets. Sparse fields are compared only if ``sparse``
    is among them, and dense fields only if the option ``dense`` is.
    """
    if "analyzer" in options and stored.text != requested.text:
        names = (", ".join(sorted(set(form.text.values()))) or STANDARD for form in (stored, requested))
        return "the collection analyses its texts by {}, not by {}: {}".format(*names, _how_to_agree("analyzer"))
    if "payload" in options and stored.payload != requested.payload:
        return (
            f"the collection stores payloads as {stored.payload}, not as {requested.payload}: "
            f"{_how_to_agree('payload')}"
        )
    for option, mine, theirs in (("sparse", stored.sparse, requested.sparse), (dense, stored.dense, requested.dense)):
        for name in mine if option in options else ():
            if mine[name] != theirs.get(name):
                return (
                    f"the collection stores its field {name!r} as {mine[name]}, not as {theirs.get(name)}: "
                    f"{_how_to_agree(option)}"
                )
    return None


def _how_to_agree(option: str) -> str:
    return f"leave {option} out of the address, or change the collection by it (st-connectors alter --by-copy)"


def token_difference(stored: Form, vocabulary: Vocabulary | None) -> str | None:
    """Return a sentence about how ``vocabulary`` differs from that of the stored form; None if they agree."""
    requested = None if vocabulary is None else vocabulary.digest
    if not stored.sparse or stored.tokens == requested:
        return None
    if stored.tokens is None:
        return "the collection's sparse keys are indices, not tokens: leave vocabulary out of the address"
    keys = f"the collection's sparse keys are the tokens of a vocabulary (SHA-256 {stored.tokens[:12]}…)"
    if requested is None:
        return f"{keys}: name it in the address, as in ?vocabulary=tokenizer.json"
    return (
        f"{keys}, and the address names another ({requested[:12]}…): "
        "name that of the model that the collection was created for"
    )


VectorField: TypeAlias = Callable[[Mapping[str, Any]], tuple[Field, str] | None]
"""A function from a property of a mapping to its dense or sparse field and the form; None for other properties."""


def adopted_schema(
    collection: str, mapping: Mapping[str, Any], filterable: Mapping[str, FilterKind], vector_field: VectorField
) -> tuple[Schema, Form]:
    """Return the schema and form of an adopted collection from its mapping.

    Vectors, texts and filterable fields are named by their paths. ``filterable`` adds filterable fields to those of the
    mapping. ``vector_field`` reads vector properties.
    """
    fields: dict[str, Field] = {}
    kinds: dict[str, FilterKind] = {}
    sparse: dict[str, str] = {}
    dense: dict[str, str] = {}
    for path, body in _leaves(mapping.get("properties") or {}):
        kind = body.get("type")
        if vector := vector_field(body):
            fields[path], form = vector
            (sparse if isinstance(fields[path], SparseField) else dense)[path] = form
        elif kind == "text":
            fields[path] = TextField(path)
        elif kind in _KINDS:
            kinds[path] = _KINDS[kind]
    return Schema(collection, fields, {**kinds, **filterable}), Form(sparse, dense)


_KINDS = {
    **dict.fromkeys(("long", "integer", "short", "byte"), FilterKind.INT),
    "keyword": FilterKind.KEYWORD,
    "double": FilterKind.FLOAT,
    "boolean": FilterKind.BOOL,
    "date": FilterKind.DATE,
}


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Mapping[str, Any]]]:
    """Return the path and body of each property; those of nested documents are skipped, as they need nested queries."""
    leaves: list[tuple[str, Mapping[str, Any]]] = []
    for name, body in tree.items():
        if "properties" in body:
            leaves += [] if body.get("type") == "nested" else _leaves(body["properties"], f"{prefix}{name}.")
        else:
            leaves.append((f"{prefix}{name}", body))
    return leaves

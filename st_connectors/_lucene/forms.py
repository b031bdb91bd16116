"""How a collection keeps its vectors, and how its mapping tells that and the schema."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from st_connectors._lucene.keys import Keys
from st_connectors._lucene.layout import Body, properties
from st_connectors._lucene.names import METADATA
from st_connectors._lucene.vocabulary import Vocabulary
from st_connectors.schema import Field, FilterKind, Schema, SparseField, TextField

__all__ = [
    "Form",
    "adopted_schema",
    "keys_of",
    "mapping_body",
    "other_form",
    "other_tokens",
    "own_mapping",
    "stored",
    "with_tokens",
]


@dataclass(frozen=True, slots=True)
class Form:
    """How the vectors of a collection are kept: sparse fields as which type, dense ones in which index or by which engine, by field name.

    ``tokens`` is the digest of the vocabulary whose tokens are the keys of sparse fields; None where those are indices.
    """

    sparse: Mapping[str, str] = field(default_factory=dict)
    dense: Mapping[str, str] = field(default_factory=dict)
    tokens: str | None = None


def with_tokens(form: Form, vocabulary: Vocabulary | None) -> Form:
    """The form with a vocabulary's tokens as keys, where there are sparse fields."""
    return form if vocabulary is None or not form.sparse else replace(form, tokens=vocabulary.digest)


def keys_of(form: Form, vocabulary: Vocabulary | None) -> Keys:
    """How the keys of sparse fields are written in a collection of this form."""
    return Keys(vocabulary, frozenset(name for name, kind in form.sparse.items() if kind == "rank_features"))


def own_mapping(schema: Schema, form: Form, vectors: Mapping[str, Body]) -> Body:
    """The mapping of a collection of ours; ``vectors`` are the engine's own properties of dense and sparse fields, by field name."""
    kept: Body = {"schema": schema.to_json(), "sparse": dict(form.sparse), "dense": dict(form.dense)}
    if form.tokens is not None:
        kept["tokens"] = form.tokens
    return {
        "dynamic": "strict",
        # A string, because objects in _meta come back with their keys in another order.
        "_meta": {METADATA: json.dumps(kept, ensure_ascii=False)},
        "properties": properties(schema, vectors),
    }


def stored(mappings: Mapping[str, Any]) -> tuple[Schema, Form] | None:
    """What a mapping says of a collection; None where the index is not one of ours."""
    kept = (mappings.get("_meta") or {}).get(METADATA)
    if not isinstance(kept, str):
        return None
    value = json.loads(kept)
    return Schema.from_json(value["schema"]), Form(value["sparse"], value["dense"], value.get("tokens"))


def other_form(kept: Form, asked: Form, named: Collection[str], *, dense: str) -> str | None:
    """What differs, in the options that the address names, between how a collection keeps its vectors and what is asked for; None where nothing does.

    ``dense`` is the name of the option for dense fields; the one for sparse fields is ``sparse``.
    """
    for option, mine, theirs in (("sparse", kept.sparse, asked.sparse), (dense, kept.dense, asked.dense)):
        for name in mine if option in named else ():
            if mine[name] != theirs.get(name):
                return f"the collection keeps its field {name!r} as {mine[name]}, not as {theirs.get(name)}: leave {option} out of the address"
    return None


def other_tokens(kept: Form, asked: Vocabulary | None) -> str | None:
    """What differs between the keys that a collection's sparse fields have and those that the address asks for; None where nothing does."""
    wanted = None if asked is None else asked.digest
    if not kept.sparse or kept.tokens == wanted:
        return None
    if kept.tokens is None:
        return "the collection's sparse keys are indices, not tokens: leave vocabulary out of the address"
    held = f"the collection's sparse keys are the tokens of a vocabulary (SHA-256 {kept.tokens[:12]}…)"
    if wanted is None:
        return f"{held}: name it in the address, as in ?vocabulary=tokenizer.json"
    return f"{held}, and the address names another ({wanted[:12]}…): name that of the model that the collection was made for"


VectorField: TypeAlias = Callable[[Mapping[str, Any]], tuple[Field, str] | None]
"""Reads the property of a mapping as a dense or sparse field and the form it is kept in; None where it is neither."""


def adopted_schema(
    collection: str, mappings: Mapping[str, Any], asked: Mapping[str, FilterKind], vector_field: VectorField
) -> tuple[Schema, Form]:
    """The schema of an index that somebody else made, from its mapping: vectors and texts by their paths, and what can be filtered on."""
    fields: dict[str, Field] = {}
    kinds: dict[str, FilterKind] = {}
    sparse: dict[str, str] = {}
    dense: dict[str, str] = {}
    for path, body in _leaves(mappings.get("properties") or {}):
        kind = body.get("type")
        if found := vector_field(body):
            fields[path], kept = found
            (sparse if isinstance(fields[path], SparseField) else dense)[path] = kept
        elif kind == "text":
            fields[path] = TextField(path)
        elif kind in _KINDS:
            kinds[path] = _KINDS[kind]
    return Schema(collection, fields, {**kinds, **asked}), Form(sparse, dense)


def mapping_body(fields: Mapping[str, Field], vectors: Mapping[str, Body]) -> Body:
    """A plain mapping for other people's indices: vectors as the engine has them, texts by the standard analyser."""
    texts = {name: {"type": "text"} for name, spec in fields.items() if isinstance(spec, TextField)}
    return {"properties": {**vectors, **texts}}


_KINDS = {
    **dict.fromkeys(("long", "integer", "short", "byte"), FilterKind.INT),
    "keyword": FilterKind.KEYWORD,
    "double": FilterKind.FLOAT,
    "boolean": FilterKind.BOOL,
    "date": FilterKind.DATE,
}


def _leaves(inner: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Mapping[str, Any]]]:
    found: list[tuple[str, Mapping[str, Any]]] = []
    for name, body in inner.items():
        if "properties" in body:
            found += [] if body.get("type") == "nested" else _leaves(body["properties"], f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", body))
    return found

"""Build schemas from models, and find the models of a schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path

from st_connectors.chunks import CHUNK_KEY, SYNC_KEY
from st_connectors.errors import SchemaMismatch
from st_connectors.fusion import check_fusion, check_weights
from st_connectors.models import (
    LazyModel,
    ModelOptions,
    check_same,
    has_name,
    settings_of,
    stored_model,
    warn_of_other_running,
)
from st_connectors.schema import (
    DenseField,
    Field,
    FilterKind,
    Fusion,
    Metric,
    Quantization,
    Schema,
    SparseField,
    TextField,
    Weighted,
    kind_of,
)
from st_core import builtin
from st_core.home import expand_home
from st_core.protocols import ModelKind, ModelRef, Reranker, TextEncoder

__all__ = [
    "adopted_models",
    "adopted_text",
    "altered_schema",
    "build_schema",
    "lazy_models",
    "lazy_reranker",
    "parse_kinds",
    "relocated_models",
    "stored_models",
    "stored_reranker",
    "text_key_of",
]

RERANKER = "reranker"
"""The key of the reranker's reference in ``Schema.models``."""


def lazy_models(
    dense: str | PathLike[str] | TextEncoder | None,
    sparse: str | PathLike[str] | TextEncoder | None,
    options: ModelOptions,
    stored: Mapping[str, ModelRef] | None = None,
) -> dict[str, LazyModel]:
    """Return the models that a caller passed, by field name; ``stored`` contains the references that they replace."""
    refs = stored or {}
    pairs = {"dense": (ModelKind.DENSE, dense), "sparse": (ModelKind.SPARSE, sparse)}
    return {
        name: LazyModel(
            kind,
            model,
            options=options.matching(refs.get(name)),
            settings=settings_of(refs[name]) if name in refs else None,
        )
        for name, (kind, model) in pairs.items()
        if model is not None
    }


def build_schema(
    collection: str,
    models: Mapping[str, LazyModel],
    reranker: LazyModel | None,
    *,
    text: bool,
    filterable: Mapping[str, FilterKind | str],
    fusion: Fusion | None,
) -> Schema:
    """Build the schema of a new collection; loads the models for their dimensions and references."""
    if fusion is not None:
        fusion = check_fusion(fusion)
        check_weights(fusion, [*models, *(["text"] if text else [])])
    kinds = parse_kinds(filterable)
    check_can_match(kinds, TextField().source)
    refs = {name: _with_absolute_path(model.ref()) for name, model in models.items()}
    fields: dict[str, Field] = {}
    for name, ref in refs.items():
        fields[name] = (
            DenseField(ref.dimension, metric_of(models[name])) if ref.kind is ModelKind.DENSE else SparseField()
        )
    if text:
        fields["text"] = TextField()
    if fusion is None:
        fusion = builtin_fusion({name: ref.name for name, ref in refs.items()}, fields)
    if reranker is not None:
        refs[RERANKER] = _with_absolute_path(reranker.ref())
    return Schema(collection, fields, kinds, refs, fusion)


def _with_absolute_path(ref: ModelRef) -> ModelRef:
    """Return the reference with the absolute path of a model's folder, valid from any working directory."""
    folder = Path(expand_home(ref.name))
    return replace(ref, name=str(folder.absolute())) if folder.is_dir() else ref


def parse_kinds(filterable: Mapping[str, FilterKind | str]) -> dict[str, FilterKind]:
    """Convert names of kinds to kinds; raise ValueError for unknown ones."""
    if not isinstance(filterable, Mapping):
        raise TypeError(f'filterable must be a mapping such as {{"year": "int"}}, not {type(filterable).__name__}')
    known = {kind.value for kind in FilterKind}
    for name, kind in filterable.items():
        if kind not in known:
            raise ValueError(f"unknown kind {kind!r} of filterable {name!r}; expected one of {', '.join(FilterKind)}")
    return {name: FilterKind(kind) for name, kind in filterable.items()}


def check_can_match(kinds: Mapping[str, FilterKind], text_key: str) -> None:
    """Raise ValueError for a filterable field in which no document can have a value."""
    if "id" in kinds:
        raise ValueError(
            "'id' cannot be filterable: the id of a document is not in its payload. Select documents by get and "
            "delete, or repeat the id under another key"
        )
    if CHUNK_KEY in kinds:
        raise ValueError(
            f"{CHUNK_KEY!r} cannot be filterable: it is an object, written for windows of split documents. Its keys "
            f"can, such as '{CHUNK_KEY}.parent'"
        )
    if SYNC_KEY in kinds:
        raise ValueError(f"{SYNC_KEY!r} cannot be filterable: it is an object with the hashes of a sync")
    if kinds.get(text_key, FilterKind.KEYWORD) not in {FilterKind.KEYWORD, FilterKind.DATE}:
        raise ValueError(
            f"{text_key!r} cannot be filterable as {kinds[text_key]}: it is the text of a document, a string"
        )


def metric_of(model: LazyModel) -> Metric:
    """Return the metric that the model declares, or cosine if it declares none."""
    declared = getattr(model.load(), "similarity_fn_name", None)
    if declared is None:
        return Metric.COSINE
    name = str(getattr(declared, "value", declared))
    if name not in {metric.value for metric in Metric}:
        raise ValueError(f"the model compares vectors by {name!r}; stores compare by {', '.join(Metric)}")
    return Metric(name)


def builtin_fusion(names: Mapping[str, str], fields: Mapping[str, Field]) -> Fusion | None:
    """Return a fusion with measured weights for ``builtin:dense`` with ``builtin:sparse``, None for other models."""
    if names != {"dense": builtin.DENSE, "sparse": builtin.SPARSE} or list(fields) != ["dense", "sparse"]:
        return None
    return Weighted(builtin.HYBRID_WEIGHTS)


def stored_models(
    schema: Schema, passed: Mapping[str, LazyModel], options: ModelOptions, *, trust: bool
) -> dict[str, LazyModel]:
    """Return the models of fields: those a caller passed, compared with the stored references, else the stored ones."""
    unknown = passed.keys() - schema.fields.keys()
    if unknown:
        raise ValueError(
            f"unknown field {', '.join(sorted(unknown))}; "
            f"collection {schema.collection!r} has {', '.join(schema.fields)}"
        )
    recorded = {name: ref for name, ref in schema.models.items() if name in schema.fields}
    refs = {name: ref for name, ref in recorded.items() if name not in passed or passed[name].is_named}
    warn_of_other_running(refs, options, schema.collection)
    models = {}
    for name, ref in recorded.items():
        if name in passed:
            check_same(ref, passed[name].ref(), field=name, collection=schema.collection, trust=trust)
            models[name] = passed[name]
        else:
            models[name] = stored_model(ref, name, schema.collection, options=options, trust=trust)
    return models


def adopted_models(
    schema: Schema,
    dense: tuple[str, str | PathLike[str] | TextEncoder] | None,
    sparse: tuple[str, str | PathLike[str] | TextEncoder] | None,
    options: ModelOptions,
) -> dict[str, LazyModel]:
    """Return the encoders of an adopted collection by field; they are loaded when first used.

    ``dense`` and ``sparse`` are pairs of a field's name and the name of a model or an encoder. Raises SchemaMismatch
    for a field that does not exist, holds the other kind of vector, or has another dimension than the model.
    """
    pairs = [(ModelKind.DENSE, dense), (ModelKind.SPARSE, sparse)]
    for kind, pair in pairs:
        if pair is not None and not (isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], str)):
            raise TypeError(f'{kind} must be a pair ("their_vector", model), not {pair!r}')
    models = {pair[0]: LazyModel(kind, pair[1], options=options) for kind, pair in pairs if pair is not None}
    for name, model in models.items():
        field = schema.fields.get(name)
        ref = model.ref()
        if field is None or kind_of(field).value != ref.kind.value:
            have = ", ".join(f"{key!r} ({kind_of(value)})" for key, value in schema.fields.items()) or "none"
            message = f"{schema.collection!r} has no {ref.kind} vector {name!r}; its vectors: {have}"
            raise SchemaMismatch(message, store="index", operation="adopt")
        if isinstance(field, DenseField) and field.dimension != ref.dimension:
            message = (
                f"the vector {name!r} has {field.dimension} dimensions and those of {ref.name!r} have {ref.dimension}: "
                "pass the model that made it"
            )
            raise SchemaMismatch(message, store="index", operation="adopt")
    return models


def adopted_text(schema: Schema, text: str) -> tuple[str | None, str]:
    """Return the text field of an adopted collection with this name or source, and the payload key of its texts.

    The field is None if the store has no full-text index of these texts; ``text`` is then their key.
    """
    for name, field in schema.fields.items():
        if isinstance(field, TextField) and text in {name, field.source}:
            return name, field.source
    return None, text


def lazy_reranker(reranker: str | PathLike[str] | Reranker | None, options: ModelOptions) -> LazyModel | None:
    """Return the reranker that a caller passed, if any."""
    return None if reranker is None else LazyModel(ModelKind.RERANKER, reranker, options=options)


def stored_reranker(
    schema: Schema, reranker: str | PathLike[str] | Reranker | None, options: ModelOptions
) -> LazyModel | None:
    """Return the reranker that a caller passed, else the stored one, if it can be loaded by name.

    The reranker is not compared with the stored reference, because a collection contains no scores of a reranker.
    """
    ref = schema.models.get(RERANKER)
    if reranker is not None or ref is None or not has_name(ref):
        return lazy_reranker(reranker, options)
    return LazyModel(ModelKind.RERANKER, ref.name, ref.revision, options=options.matching(ref))


def text_key_of(schema: Schema) -> str:
    """Return the payload key of texts, which is the source of the text field if there is one."""
    sources = [value.source for value in schema.fields.values() if isinstance(value, TextField)]
    return sources[0] if sources else "text"


def altered_schema(
    schema: Schema,
    *,
    filterable: Mapping[str, FilterKind | str] | None = None,
    reranker: LazyModel | None = None,
    fusion: Fusion | None = None,
    quantization: Quantization | str | None = None,
) -> Schema:
    """Return the schema with further filterable fields and other settings; None leaves a setting as it is.

    Raises ValueError for a filterable field that has another kind, and for weights that do not fit the fields.
    """
    kinds = parse_kinds(filterable or {})
    for name, kind in kinds.items():
        stored = schema.filterable.get(name, kind)
        if stored is not kind:
            raise ValueError(
                f"{schema.collection!r} has the filterable field {name!r} of kind {stored}, and records with values of "
                f"this kind: create another collection to have it as {kind}"
            )
    check_can_match(kinds, text_key_of(schema))
    if fusion is not None:
        check_weights(check_fusion(fusion), list(schema.fields))
    models = {} if reranker is None else {RERANKER: _with_absolute_path(reranker.ref())}
    return replace(
        schema,
        fields=schema.fields if quantization is None else _quantized(schema, quantization),
        filterable={**schema.filterable, **kinds},
        models={**schema.models, **models},
        fusion=schema.fusion if fusion is None else fusion,
    )


def _quantized(schema: Schema, quantization: Quantization | str) -> dict[str, Field]:
    """Return the fields with another quantization of dense vectors."""
    if quantization not in {each.value for each in Quantization}:
        raise ValueError(f"unknown quantization {quantization!r}; expected one of {', '.join(Quantization)}")
    return {
        name: replace(field, quantization=Quantization(quantization)) if isinstance(field, DenseField) else field
        for name, field in schema.fields.items()
    }


def relocated_models(schema: Schema, places: Mapping[str, str | None], options: ModelOptions) -> dict[str, ModelRef]:
    """Return the references of models that have moved, with their new places; loads the models.

    ``places`` maps fields, or "reranker", to names of models; None leaves a model where it is. Raises ValueError if no
    model has moved, and SchemaMismatch unless the fingerprints are equal.
    """
    if not any(place is not None for place in places.values()):
        raise ValueError(f"nothing to record: pass the new place of a model as {', '.join(places)}")
    moved = {}
    for name, place in places.items():
        if place is None:
            continue
        stored = schema.models.get(name)
        if stored is None:
            known = ", ".join(schema.models) or "no model"
            raise ValueError(f"the collection {schema.collection!r} records no {name} model; it records {known}")
        model = LazyModel(stored.kind, place, options=options.matching(stored), settings=settings_of(stored))
        ref = _with_absolute_path(model.ref())
        # A precision that was not requested depends on the machine. Without a fingerprint, check_same warns.
        parts = stored.fingerprint.keys() - ({"precision"} if options.dtype is None else set())
        check_same(stored, ref, field=name, collection=schema.collection, trust=False, parts=parts or None)
        moved[name] = replace(stored, name=ref.name, revision=ref.revision)
    return moved

"""The schema that models ask for, and the models that a schema asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from st_connectors.errors import SchemaMismatch
from st_connectors.fusion import check_fusion, check_weights
from st_connectors.models import LazyModel, Running, by_reference, check_same, has_name
from st_connectors.schema import (
    DenseField,
    Field,
    FilterKind,
    Fusion,
    Metric,
    Schema,
    SparseField,
    TextField,
    Weighted,
    kind_of,
)
from st_core import builtin
from st_core.protocols import ModelKind, ModelRef, Reranker, TextEncoder

__all__ = ["adopted", "given", "kinds_of", "remembered", "reranker_given", "reranker_of", "schema_for", "text_key_of"]

RERANKER = "reranker"
"""The key of the reranker's reference beside those of the fields."""


def given(
    dense: str | TextEncoder | None,
    sparse: str | TextEncoder | None,
    running: Running,
    stored: Mapping[str, ModelRef] | None = None,
) -> dict[str, LazyModel]:
    """The models that were given, by the names of their fields; ``stored`` are those in whose place they come."""
    pairs = {"dense": (ModelKind.DENSE, dense), "sparse": (ModelKind.SPARSE, sparse)}
    return {
        name: LazyModel(kind, model, running=running.again((stored or {}).get(name)))
        for name, (kind, model) in pairs.items()
        if model is not None
    }


def schema_for(
    collection: str,
    models: Mapping[str, LazyModel],
    reranker: LazyModel | None,
    *,
    text: bool,
    filterable: Mapping[str, FilterKind | str],
    fusion: Fusion | None,
) -> Schema:
    """The schema of a new collection; loads the models, to know their widths and what to remember of them."""
    if fusion is not None:
        check_weights(check_fusion(fusion), [*models, *(["text"] if text else [])])
    refs = {name: _found_again(model.ref()) for name, model in models.items()}
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
        refs[RERANKER] = _found_again(reranker.ref())
    return Schema(collection, fields, kinds_of(filterable), refs, fusion)


def _found_again(ref: ModelRef) -> ModelRef:
    """The reference with the whole path of a model's folder, which also leads there from other folders."""
    return replace(ref, name=str(Path(ref.name).absolute())) if Path(ref.name).is_dir() else ref


def kinds_of(filterable: Mapping[str, FilterKind | str]) -> dict[str, FilterKind]:
    """Filterable fields with their kinds by name made kinds; raises ValueError for one that is none."""
    if not isinstance(filterable, Mapping):
        raise TypeError(f'filterable is a mapping such as {{"year": "int"}}, not {type(filterable).__name__}')
    known = {kind.value for kind in FilterKind}
    for name, kind in filterable.items():
        if kind not in known:
            raise ValueError(f"filterable {name!r} is one of {', '.join(FilterKind)}, not {kind!r}")
    return {name: FilterKind(kind) for name, kind in filterable.items()}


def metric_of(model: LazyModel) -> Metric:
    """How the model's own makers compare its vectors; cosine where they do not say."""
    said = getattr(model.load(), "similarity_fn_name", None)
    if said is None:
        return Metric.COSINE
    name = str(getattr(said, "value", said))
    if name not in {metric.value for metric in Metric}:
        raise ValueError(f"the model compares vectors by {name!r}; stores can compare by {', '.join(Metric)}")
    return Metric(name)


def builtin_fusion(names: Mapping[str, str], fields: Mapping[str, Field]) -> Fusion | None:
    """The measured weights where the two built-in models are fused with each other."""
    if names != {"dense": builtin.DENSE, "sparse": builtin.SPARSE} or list(fields) != ["dense", "sparse"]:
        return None
    return Weighted(builtin.HYBRID_WEIGHTS)


def remembered(
    schema: Schema, given: Mapping[str, LazyModel], running: Running, *, trust: bool
) -> dict[str, LazyModel]:
    """The models of a collection's fields: those given, once compared with what is stored, else those it remembers."""
    unknown = given.keys() - schema.fields.keys()
    if unknown:
        raise ValueError(
            f"collection {schema.collection!r} has no field {', '.join(sorted(unknown))}: it has {', '.join(schema.fields)}"
        )
    models = {}
    for name, ref in schema.models.items():
        if name not in schema.fields:
            continue
        if name in given:
            check_same(ref, given[name].ref(), field=name, collection=schema.collection, trust=trust)
            models[name] = given[name]
        else:
            models[name] = by_reference(ref, name, schema.collection, running=running, trust=trust)
    return models


def adopted(
    schema: Schema,
    dense: tuple[str, str | TextEncoder] | None,
    sparse: tuple[str, str | TextEncoder] | None,
    running: Running,
) -> dict[str, LazyModel]:
    """The models of a foreign collection's fields, once they are seen to fit."""
    given = [(ModelKind.DENSE, dense), (ModelKind.SPARSE, sparse)]
    for kind, pair in given:
        if pair is not None and not (isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], str)):
            raise TypeError(f'{kind} is a pair ("their_vector", model), not {pair!r}')
    models = {pair[0]: LazyModel(kind, pair[1], running=running) for kind, pair in given if pair is not None}
    if not models:
        raise ValueError('nothing to search by: give dense=("their_vector", model) or sparse=(…)')
    for name, model in models.items():
        field = schema.fields.get(name)
        ref = model.ref()
        if field is None or kind_of(field).value != ref.kind.value:
            have = ", ".join(f"{key!r} ({kind_of(value)})" for key, value in schema.fields.items()) or "none"
            message = f"{schema.collection!r} has no {ref.kind} vector {name!r}; its vectors: {have}"
            raise SchemaMismatch(message, store="index", operation="adopt")
        if isinstance(field, DenseField) and field.dimension != ref.dimension:
            message = f"the vector {name!r} has {field.dimension} dimensions and {ref.name!r} gives {ref.dimension}: name the model that made it"
            raise SchemaMismatch(message, store="index", operation="adopt")
    return models


def reranker_given(given: str | Reranker | None, running: Running) -> LazyModel | None:
    """The reranker that was given, if any."""
    return None if given is None else LazyModel(ModelKind.RERANKER, given, running=running)


def reranker_of(schema: Schema, given: str | Reranker | None, running: Running) -> LazyModel | None:
    """The reranker given, else the one remembered, if it can be loaded by name.

    Neither is compared with the one remembered, nor its type: a collection holds no scores of it that others could disagree with.
    """
    ref = schema.models.get(RERANKER)
    if given is not None or ref is None or not has_name(ref):
        return reranker_given(given, running)
    return LazyModel(ModelKind.RERANKER, ref.name, ref.revision, running=running.again(ref))


def text_key_of(schema: Schema) -> str:
    """The payload key of the text: that of the text field, where there is one."""
    sources = [value.source for value in schema.fields.values() if isinstance(value, TextField)]
    return sources[0] if sources else "text"

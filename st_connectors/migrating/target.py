"""The schema and the models of the new collection of a migration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from st_connectors.index import Index
from st_connectors.models import LazyModel, ModelOptions, stored_model
from st_connectors.schema import DenseField, Field, FieldKind, Metric, Schema, SparseField, TextField
from st_connectors.schemas import metric_of
from st_connectors.store import Store
from st_core.protocols import ModelRef

__all__ = ["is_copied", "model_of", "vector_fields", "with_models"]


def with_models(
    schema: Schema, models: Mapping[str, LazyModel], passed: Iterable[str], metric: Metric | str | None
) -> Schema:
    """Return the schema with the references and dimensions of passed models, and another metric of dense vectors."""
    if metric is not None and metric not in set(Metric):
        raise ValueError(f"unknown metric {metric!r}; expected one of {', '.join(Metric)}")
    refs: dict[str, ModelRef] = {name: models[name].ref() for name in passed}
    fields: dict[str, Field] = dict(schema.fields)
    for name, ref in refs.items():
        if FieldKind(ref.kind.value) is FieldKind.SPARSE:
            fields.setdefault(name, SparseField())
            continue
        before = fields.get(name, DenseField(ref.dimension))
        if isinstance(before, DenseField):
            fields[name] = replace(before, dimension=ref.dimension, metric=metric_of(models[name]))
    if metric is not None:
        fields = {
            name: replace(field, metric=Metric(metric)) if isinstance(field, DenseField) else field
            for name, field in fields.items()
        }
    return replace(schema, fields=fields, models={**schema.models, **refs})


def is_copied(before: Schema, after: Schema, name: str) -> bool:
    """Return whether the vectors of a field stay as they are, whatever their quantization."""
    one, other = before.fields.get(name), after.fields[name]
    if isinstance(one, DenseField) and isinstance(other, DenseField):
        one = replace(one, quantization=other.quantization)
    return one == other and not isinstance(other, TextField) and before.models.get(name) == after.models.get(name)


def vector_fields(store: Store) -> list[str]:
    """Return the names of the fields with vectors."""
    return [name for name, field in store.schema.fields.items() if not isinstance(field, TextField)]


def model_of(
    schema: Schema, name: str, index: Index, passed: Mapping[str, LazyModel], options: ModelOptions
) -> LazyModel:
    """Return the model of a field of another collection: that of the index if it is the same one."""
    if name in passed:
        return passed[name]
    if name in index.models and index.schema.models.get(name) == schema.models[name]:
        return index.models[name]
    return stored_model(schema.models[name], name, schema.collection, options=options, trust=False)

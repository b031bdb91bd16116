"""``st-connectors create``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from st_connectors.cli.options import (
    Address,
    AsJson,
    Backend,
    Collection,
    CollectionOptions,
    DenseModel,
    Dtype,
    Filterable,
    FusionMethod,
    RerankerModel,
    SparseModel,
    TextField,
    parse_filterable,
    parse_fusion,
    parse_size,
)
from st_connectors.cli.output import print_json, print_line

if TYPE_CHECKING:
    from st_connectors.advice import Advice
    from st_connectors.models import ModelOptions
    from st_connectors.schema import Schema

__all__ = ["create"]

DEFAULT_TERMS = 100
"""The number of entries of a sparse vector that a proposal assumes by default."""


def create(
    *,
    address: Address,
    collection: Collection,
    dense: DenseModel = None,
    sparse: SparseModel = None,
    reranker: RerankerModel = None,
    text: TextField = False,
    filterable: Filterable = None,
    fusion: FusionMethod = None,
    backend: Backend = "torch",
    dtype: Dtype = None,
    count: Annotated[
        int | None,
        typer.Option("--for", metavar="N", help="Propose a layout for N records instead of creating the collection."),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option("--memory", metavar="SIZE", help="With --for: available memory, such as 2GB or 512MiB."),
    ] = None,
    terms: Annotated[
        int | None,
        typer.Option("--terms", metavar="N", help=f"With --for: entries per sparse vector (default: {DEFAULT_TERMS})."),
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="With --for: create the collection as proposed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Create an empty collection, or propose a layout for it.

    With --for, print a proposal instead: quantization, index options and shards, with sizes in bytes and the reasons;
    --apply creates the collection that way. Sizes are those of vectors and their index by the store's published
    figures, without payloads, texts and replicas.

    Example: st-connectors create --in elasticsearch://localhost:9200 --collection books --for 5000000 --memory 2GB

    Example: st-connectors create --in qdrant+edge:library --collection books --dense ./minilm-int8 --backend openvino
    --dtype int8
    """
    from st_connectors.models import ModelOptions
    from st_connectors.registry import parse_address

    parsed = parse_address(address)
    if count is None:
        proposal_options = {"--memory": memory, "--terms": terms, "--apply": apply or None}
        if without_for := [name for name, value in proposal_options.items() if value is not None]:
            raise ValueError(f"{', '.join(without_for)} needs --for N, the expected number of records")
    elif count < 1:
        raise ValueError(f"--for: expected at least 1 record, got {count}")
    if terms is not None and terms < 1:
        raise ValueError(f"--terms: expected at least 1 entry, got {terms}")
    memory_bytes = None if memory is None else parse_size("--memory", memory)
    options = CollectionOptions(dense, sparse, reranker, text, tuple(filterable or ()), fusion)
    schema = _build_schema(collection, options, ModelOptions(backend, dtype))
    if count is None:
        _create_collection(str(parsed), schema)
        _print_created(schema, as_json=as_json)
        return
    advice = _propose(address, schema, count, memory_bytes, terms or DEFAULT_TERMS)
    if apply:
        if advice.fits is False:
            raise ValueError(f"not created: {_memory_verdict(advice)}")
        _create_collection(str(advice.address(parsed)), advice.schema(schema))
    if as_json:
        print_json({"collection": collection, **advice.to_json(), "made": apply})
    else:
        _print_proposal(advice, str(advice.address(parsed)), is_created=apply)


def _build_schema(collection: str, options: CollectionOptions, model_options: ModelOptions) -> Schema:
    """Return the schema that the options describe; loads the models."""
    from st_connectors.schemas import build_schema, lazy_models, lazy_reranker

    models = lazy_models(options.dense_model, options.sparse_model, model_options)
    if not models and not options.text:
        raise ValueError("a collection needs at least one field; pass --dense, --sparse or --text")
    return build_schema(
        collection,
        models,
        lazy_reranker(options.reranker, model_options),
        text=options.text,
        filterable=parse_filterable(options.filterable),
        fusion=parse_fusion(options.fusion),
    )


def _create_collection(address: str, schema: Schema) -> None:
    from st_connectors.registry import open_store

    store = open_store(address, schema.collection, schema)
    try:
        store.create()
    finally:
        store.close()


def _propose(address: str, schema: Schema, count: int, memory: int | None, terms: int) -> Advice:
    from st_connectors.advice import advise, sizing_for
    from st_connectors.registry import parse_address, plugins
    from st_connectors.schema import DenseField, FieldKind

    parsed = parse_address(address)
    dimensions = [spec.dimension for spec in schema.fields.values() if isinstance(spec, DenseField)]
    return advise(
        sizing_for(plugins()[parsed.name], parsed),
        count=count,
        dimension=dimensions[0] if dimensions else None,
        terms=terms if schema.of_kind(FieldKind.SPARSE) else None,
        memory=memory,
        given=parsed.options,
    )


def _print_created(schema: Schema, *, as_json: bool) -> None:
    if as_json:
        print_json(schema.to_json())
        return
    from st_connectors.schema import kind_of

    fields = ", ".join(f"{name} ({kind_of(spec)})" for name, spec in schema.fields.items())
    print_line(f"collection {schema.collection!r} exists with fields {fields}")


def _print_proposal(advice: Advice, address: str, *, is_created: bool) -> None:
    from st_connectors.advice import human

    rows = [("address", address)]
    if advice.index:
        rows += [("index", advice.index), ("quantization", advice.quantization.value)]
    if advice.shards is not None:
        rows.append(("shards", str(advice.shards)))
    rows += [(name, human(size)) for name, size in advice.parts.items()]
    rows.append(("in memory", human(advice.total)))
    for name, value in rows:
        print_line(f"{name:<12}  {value}")
    if advice.fits is not None:
        print_line(f"{'':<12}  {_memory_verdict(advice)}")
    for reason in advice.reasons:
        print_line(f"- {reason}")
    for step in advice.by_hand:
        print_line(f"- manual step: {step}")
    print_line(
        "created as proposed" if is_created else "nothing was created; add --apply to create the collection as proposed"
    )


def _memory_verdict(advice: Advice) -> str:
    from st_connectors.advice import human

    available = human(advice.memory or 0)
    if advice.fits:
        return f"fits into {available}"
    needed = human(advice.total)
    return f"the smallest layout needs {needed} of memory for {advice.count:,} records; only {available} is available"

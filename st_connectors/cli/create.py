"""``st-connectors create``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from st_connectors.cli.options import (
    Address,
    AsJson,
    Backend,
    Collection,
    DenseModel,
    Dtype,
    Filterable,
    FusionMethod,
    Making,
    RerankerModel,
    SparseModel,
    TextLeg,
    parse_filterable,
    parse_fusion,
)
from st_connectors.cli.output import print_json, say

if TYPE_CHECKING:
    from st_connectors.advice import Advice
    from st_connectors.models import Running
    from st_connectors.schema import Schema

__all__ = ["create"]

TERMS = 100
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def create(
    *,
    address: Address,
    collection: Collection,
    dense: DenseModel = None,
    sparse: SparseModel = None,
    reranker: RerankerModel = None,
    text: TextLeg = False,
    filterable: Filterable = None,
    fusion: FusionMethod = None,
    backend: Backend = "torch",
    dtype: Dtype = None,
    count: Annotated[
        int | None, typer.Option("--for", metavar="N", help="Make nothing; propose how to lay out N records.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", metavar="SIZE", help="With --for: what there is, such as 2GB or 512MiB.")
    ] = None,
    terms: Annotated[
        int | None,
        typer.Option("--terms", metavar="N", help=f"With --for: entries of a sparse vector; {TERMS} if not given."),
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="With --for: make the collection as proposed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a collection, or with --for propose how: quantization, index options and shards, with bytes and reasons.

    The bytes are of vectors and their index by the store's published figures; payloads, texts and replicas are not counted.

    Example: st-connectors create --in elasticsearch://localhost:9200 --collection books --for 5000000 --memory 2GB

    Example: st-connectors create --in qdrant+edge:library --collection books --dense ./minilm-int8 --backend openvino --dtype int8
    """
    from st_connectors.models import Running
    from st_connectors.registry import parse_address

    parsed = parse_address(address)
    if count is None:
        given = {"--memory": memory, "--terms": terms, "--apply": apply or None}
        if alone := [name for name, value in given.items() if value is not None]:
            raise ValueError(f"{', '.join(alone)} is about a proposal: add --for N, how many records there will be")
    elif count < 1:
        raise ValueError(f"--for is at least 1 record, not {count}")
    if terms is not None and terms < 1:
        raise ValueError(f"--terms is at least 1 entry, not {terms}")
    size = None if memory is None else _bytes(memory)
    making = Making(dense, sparse, reranker, text, tuple(filterable or ()), fusion)
    schema = _schema(collection, making, Running(backend, dtype))
    if count is None:
        _make(str(parsed), schema)
        _tell_made(schema, as_json=as_json)
        return
    advice = _advice(address, schema, count, size, terms or TERMS)
    if apply:
        if advice.fits is False:
            raise ValueError(f"not made: {_short(advice)}")
        _make(str(advice.address(parsed)), advice.schema(schema))
    if as_json:
        print_json({"collection": collection, **advice.to_json(), "made": apply})
    else:
        _tell(advice, str(advice.address(parsed)), made=apply)


def _bytes(text: str) -> int:
    """``2GB`` or ``512MiB`` in bytes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kmgt]i?|)b", text.strip().lower())
    size = int(float(found[1]) * UNITS[found[2]]) if found else 0
    if size < 1:
        raise ValueError(f"--memory {text!r}: write a size above 0 such as 2GB, 512MB or 4GiB")
    return size


def _schema(collection: str, making: Making, running: Running) -> Schema:
    """The schema that the options ask for; loads the models."""
    from st_connectors.schemas import given, reranker_given, schema_for

    models = given(making.dense_model, making.sparse_model, running)
    if not models and not making.text:
        raise ValueError("nothing to search by: give --dense, --sparse or --text")
    return schema_for(
        collection,
        models,
        reranker_given(making.reranker, running),
        text=making.text,
        filterable=parse_filterable(making.filterable),
        fusion=parse_fusion(making.fusion),
    )


def _make(address: str, schema: Schema) -> None:
    from st_connectors.registry import open_store

    store = open_store(address, schema.collection, schema)
    try:
        store.create()
    finally:
        store.close()


def _advice(address: str, schema: Schema, count: int, memory: int | None, terms: int) -> Advice:
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


def _tell_made(schema: Schema, *, as_json: bool) -> None:
    if as_json:
        print_json(schema.to_json())
        return
    from st_connectors.schema import kind_of

    fields = ", ".join(f"{name} ({kind_of(spec)})" for name, spec in schema.fields.items())
    say(f"{schema.collection!r} is there, with {fields}")


def _tell(advice: Advice, address: str, *, made: bool) -> None:
    """Print a proposal for people."""
    from st_connectors.advice import human

    rows = [("address", address)]
    if advice.index:
        rows += [("index", advice.index), ("quantization", advice.quantization.value)]
    if advice.shards is not None:
        rows.append(("shards", str(advice.shards)))
    rows += [(name, human(size)) for name, size in advice.parts.items()]
    rows.append(("in memory", human(advice.total)))
    for name, value in rows:
        say(f"{name:<12}  {value}")
    if advice.fits is not None:
        say(f"{'':<12}  {_short(advice)}")
    for reason in advice.reasons:
        say(f"- {reason}")
    for step in advice.by_hand:
        say(f"- by hand: {step}")
    say("made as proposed" if made else "nothing was made; add --apply to make it so")


def _short(advice: Advice) -> str:
    from st_connectors.advice import human

    have = human(advice.memory or 0)
    if advice.fits:
        return f"fits into {have}"
    return f"even the smallest needs {human(advice.total)} of memory for {advice.count:,} records, and there is {have}"

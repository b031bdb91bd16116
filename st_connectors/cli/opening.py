"""Open the collection of a command: one of this package, or with ``--adopt`` one that another program created."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from st_connectors.cli.options import parse_filterable

if TYPE_CHECKING:
    from st_connectors.index import Index
    from st_connectors.models import ModelOptions
    from st_connectors.store import Store

__all__ = ["Adoption", "Models", "open_collection", "open_index", "parse_adopt"]

KINDS = ("dense", "sparse", "text")


@dataclass(frozen=True, slots=True)
class Adoption:
    """The fields of a collection that another program created: its vectors, and the payload key of its texts."""

    dense: str | None = None
    sparse: str | None = None
    text: str | None = None


def parse_adopt(text: str) -> Adoption:
    """Parse ``dense=FIELD,sparse=FIELD,text=FIELD``, of which each part may be absent; a vector may have no name."""
    fields: dict[str, str] = {}
    for part in text.split(","):
        kind, sign, name = part.strip().partition("=")
        if not sign or kind not in KINDS or kind in fields or (kind == "text" and not name):
            raise ValueError(f"--adopt {text!r}: expected dense=FIELD, sparse=FIELD or text=FIELD, separated by commas")
        fields[kind] = name
    return Adoption(**fields)


def open_collection(address: str, collection: str, adopt: str | None, filterable: Sequence[str]) -> Store:
    """Open the store of a collection, without models; raise ValueError for ``filterable`` without ``adopt``."""
    from st_connectors.registry import adopt_store, open_store
    from st_connectors.schemas import parse_kinds

    if adopt is None:
        _check_alone(filterable)
        return open_store(address, collection)
    parse_adopt(adopt)
    return adopt_store(address, collection, filterable=parse_kinds(parse_filterable(filterable)))


def _check_alone(filterable: Sequence[str]) -> None:
    if filterable:
        raise ValueError("--filterable is for --adopt: a collection of st-connectors knows its filterable fields")


@dataclass(frozen=True, slots=True)
class Models:
    """The names of the models of a command, None for those that the collection records, and how they run."""

    dense: str | None
    sparse: str | None
    reranker: str | None
    options: ModelOptions


def open_index(
    address: str, collection: str, models: Models, adopt: str | None, filterable: Sequence[str], *, trust: bool
) -> Index:
    """Open a collection with its models; ``adopt`` names the fields of one that another program created."""
    from st_connectors.index import Index
    from st_connectors.models import DEFAULT_BACKEND

    backend, dtype = models.options.backend, models.options.dtype
    if adopt is None:
        _check_alone(filterable)
        return Index.open(
            address,
            collection=collection,
            dense=models.dense,
            sparse=models.sparse,
            reranker=models.reranker,
            trust_model=trust,
            backend=backend,
            dtype=dtype,
        )
    adoption = parse_adopt(adopt)
    return Index.adopt(
        address,
        collection=collection,
        dense=_pair("dense", adoption.dense, models.dense),
        sparse=_pair("sparse", adoption.sparse, models.sparse),
        text=adoption.text,
        reranker=models.reranker,
        filterable=parse_filterable(filterable),
        backend=DEFAULT_BACKEND if backend is None else backend,
        dtype=dtype,
    )


def _pair(kind: str, field: str | None, model: str | None) -> tuple[str, str] | None:
    """Return a vector with its model; raise ValueError if only one of them is named."""
    if field is None and model is None:
        return None
    if field is None or model is None:
        raise ValueError(f"--adopt {kind}=FIELD and --{kind} MODEL belong together: name the vector and its model")
    return field, model

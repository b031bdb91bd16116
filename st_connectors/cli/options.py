"""The options that several commands share, and what their texts mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from st_core import builtin

if TYPE_CHECKING:
    from st_connectors.schema import Fusion

__all__ = [
    "DEFAULT_DENSE",
    "DEFAULT_SPARSE",
    "FUSIONS",
    "Address",
    "AsJson",
    "Backend",
    "Collection",
    "CollectionDtype",
    "DenseModel",
    "Dtype",
    "Filterable",
    "FusionMethod",
    "Making",
    "RerankerModel",
    "SparseModel",
    "TextLeg",
    "TrustModel",
    "Where",
    "parse_filterable",
    "parse_fusion",
    "quietly",
]

DEFAULT_DENSE = builtin.DENSE
DEFAULT_SPARSE = builtin.SPARSE
NONE = "none"
FUSIONS = "rrf, rrf:60 (its constant), rrf:60:1,2 (a weight per leg) or weighted:0.25,0.75"


def quietly(address: str) -> str:
    """The same address; from here on repeated calls are not logged, for the error after the last one is what people read."""
    from stamina.instrumentation import set_on_retry_hooks

    set_on_retry_hooks(())
    return address


Address = Annotated[
    str,
    typer.Option(
        "--in",
        metavar="URL",
        callback=quietly,
        help="The store: qdrant+edge:PATH, qdrant://HOST:6333, memory:, …",
    ),
]
Collection = Annotated[str, typer.Option("--collection", metavar="NAME", help="The collection in that store.")]
Where = Annotated[
    str | None,
    typer.Option("--where", metavar="FILTER", help='Only records like this: \'year >= 2020 and tag in ["a", "b"]\'.'),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]

Backend = Annotated[
    str,
    typer.Option("--backend", help="What runs transformers: torch, openvino, onnx, or auto, the fastest here."),
]
TYPES = "What they compute in: float32, float16, bfloat16, or int8 (openvino and onnx)"
Dtype = Annotated[
    str | None,
    typer.Option("--dtype", help=f"{TYPES}; by default float32, on a GPU the model's own."),
]
CollectionDtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        help=f"{TYPES}; by default on openvino and onnx what the collection was made in, else float32, on a GPU the model's own.",
    ),
]

TrustModel = Annotated[bool, typer.Option("--trust-model", help="Allow a model that has changed.")]

DenseModel = Annotated[
    str | None,
    typer.Option(
        "--dense", metavar="MODEL", help=f"Of a new collection; {DEFAULT_DENSE} if not given, {NONE} for none."
    ),
]
SparseModel = Annotated[
    str | None,
    typer.Option(
        "--sparse", metavar="MODEL", help=f"Of a new collection; {DEFAULT_SPARSE} if not given, {NONE} for none."
    ),
]
RerankerModel = Annotated[
    str | None, typer.Option("--reranker", metavar="MODEL", help="The reranker that a new collection remembers.")
]
TextLeg = Annotated[bool, typer.Option("--text", help="Give a new collection a leg by the store's own BM25.")]
Filterable = Annotated[
    list[str] | None,
    typer.Option(
        "--filterable",
        metavar="FIELD[:KIND]",
        help="A field of a new collection to filter by, such as year:int; a keyword if no KIND (int, float, bool, date) is given.",
    ),
]
FusionMethod = Annotated[
    str | None,
    typer.Option("--fusion", metavar="METHOD", help=f"Of a new collection: {FUSIONS}."),
]


@dataclass(frozen=True, slots=True)
class Making:
    """The options that say how a collection is made."""

    dense: str | None
    sparse: str | None
    reranker: str | None
    text: bool
    filterable: tuple[str, ...]
    fusion: str | None

    @property
    def dense_model(self) -> str | None:
        """The dense model's name, None for none."""
        return None if self.dense == NONE else self.dense or DEFAULT_DENSE

    @property
    def sparse_model(self) -> str | None:
        """The sparse model's name, None for none."""
        return None if self.sparse == NONE else self.sparse or DEFAULT_SPARSE


def parse_filterable(items: Sequence[str]) -> dict[str, str]:
    """``year:int`` as a field and the kind of its values; a field alone is a keyword."""
    from st_connectors.schema import FilterKind

    kinds = {}
    for item in items:
        name, colon, kind = item.rpartition(":")
        name, kind = (name, kind) if colon else (item, FilterKind.KEYWORD.value)
        if not name or kind not in {known.value for known in FilterKind}:
            raise ValueError(f"--filterable {item!r}: write FIELD:KIND, KIND one of {', '.join(FilterKind)}")
        kinds[name] = kind
    return kinds


def parse_fusion(text: str | None) -> Fusion | None:
    """``rrf``, ``rrf:60``, ``rrf:60:1,2`` or ``weighted:0.25,0.75``."""
    if text is None:
        return None
    from st_connectors.schema import Rrf, Weighted

    name, *rest = text.split(":")
    try:
        match name, rest:
            case "rrf", []:
                return Rrf()
            case "rrf", [k]:
                return Rrf(int(k))
            case "rrf", [k, weights]:
                return Rrf(int(k), _numbers(weights))
            case "weighted", [weights]:
                return Weighted(_numbers(weights))
            case _:
                pass
    except ValueError:
        pass
    raise ValueError(f"--fusion {text!r}: write rrf, rrf:60, rrf:60:1,2 or weighted:0.25,0.75")


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in text.split(","))

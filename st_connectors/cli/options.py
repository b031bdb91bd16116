"""Options that several commands share: their types and help texts, and the parsers of their values."""

from __future__ import annotations

import logging
import re
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
    "NONE",
    "Address",
    "Adopt",
    "AdoptedFilterable",
    "AsJson",
    "Backend",
    "BeirFolder",
    "Collection",
    "CollectionBackend",
    "CollectionDtype",
    "CollectionOptions",
    "DenseModel",
    "Dtype",
    "Filterable",
    "FusionMethod",
    "MovedDense",
    "MovedSparse",
    "NewOrMovedDense",
    "NewOrMovedSparse",
    "Queries",
    "RerankerModel",
    "SparseModel",
    "TextField",
    "TrustModel",
    "Where",
    "parse_filterable",
    "parse_fusion",
    "parse_size",
    "silence_retry_logging",
]

DEFAULT_DENSE = builtin.DENSE
DEFAULT_SPARSE = builtin.SPARSE
NONE = "none"
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
FUSIONS = "rrf, rrf:60 (rank constant), rrf:60:1,2 (and a weight per leg) or weighted:0.25,0.75"


def silence_retry_logging(address: str) -> str:
    """Return the address unchanged, and stop logging retries, because the error after the last attempt suffices."""
    logging.getLogger("st_connectors.layers.retry").setLevel(logging.ERROR)
    return address


Address = Annotated[
    str,
    typer.Option(
        "--in",
        metavar="URL",
        callback=silence_retry_logging,
        help="Address of the store, such as qdrant+edge:PATH, qdrant://HOST:6333 or memory:",
    ),
]
Collection = Annotated[str, typer.Option("--collection", metavar="NAME", help="Name of the collection.")]
Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="FILTER",
        help='Filter on filterable fields, such as \'year >= 2020 and tag in ["a", "b"]\'.',
    ),
]
Queries = Annotated[
    str | None,
    typer.Option("--queries", metavar="FILE", help="Queries: JSON lines with _id and text, or a table."),
]
BeirFolder = Annotated[
    str | None,
    typer.Option("--data", metavar="FOLDER", help="A folder in the format of BEIR, in place of --queries and --qrels."),
]

Adopt = Annotated[
    str | None,
    typer.Option(
        "--adopt",
        metavar="KIND=FIELD,...",
        help="Open a collection that another program created, by its vectors and the key of its texts, such as "
        "dense=meaning,sparse=terms,text=body.",
    ),
]
AdoptedFilterable = Annotated[
    list[str] | None,
    typer.Option(
        "--filterable",
        metavar="FIELD[:KIND]",
        help="With --adopt: a further filterable field. Repeat for several fields.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")]

Backend = Annotated[
    str,
    typer.Option(
        "--backend",
        help="Backend that runs transformer models: torch, openvino, onnx, or auto (the fastest on this machine).",
    ),
]
CollectionBackend = Annotated[
    str | None,
    typer.Option(
        "--backend",
        help="Backend that runs transformer models: torch, openvino, onnx, or auto (the fastest on this machine). "
        "Default: the backend recorded in the collection; torch for a new collection.",
    ),
]
_DTYPES = "Type that weights are computed in: float32, float16, bfloat16, or int8 (openvino and onnx)"
Dtype = Annotated[
    str | None,
    typer.Option("--dtype", help=f"{_DTYPES}. Default: float32, or the model's own type on a GPU."),
]
CollectionDtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        help=f"{_DTYPES}. Default: on the recorded backend, and on openvino and onnx, the type recorded in the "
        "collection; otherwise float32, or the model's own type on a GPU.",
    ),
]

_MOVED = "the place of the recorded model, if it has moved; fingerprints are compared"
MovedDense = Annotated[
    str | None, typer.Option("--dense", metavar="MODEL", help=f"Dense model: {_MOVED}; or with --adopt, its model.")
]
MovedSparse = Annotated[
    str | None, typer.Option("--sparse", metavar="MODEL", help=f"Sparse model: {_MOVED}; or with --adopt, its model.")
]
TrustModel = Annotated[
    bool, typer.Option("--trust-model", help="Accept a model that differs from the one recorded in the collection.")
]

DenseModel = Annotated[
    str | None,
    typer.Option(
        "--dense",
        metavar="MODEL",
        help=f"Dense model for a new collection, or {NONE} (default: {DEFAULT_DENSE}).",
    ),
]
SparseModel = Annotated[
    str | None,
    typer.Option(
        "--sparse",
        metavar="MODEL",
        help=f"Sparse model for a new collection, or {NONE} (default: {DEFAULT_SPARSE}).",
    ),
]
NewOrMovedDense = Annotated[
    str | None,
    typer.Option(
        "--dense",
        metavar="MODEL",
        help=f"With --create, the dense model or {NONE} (default: {DEFAULT_DENSE}); otherwise {_MOVED}.",
    ),
]
NewOrMovedSparse = Annotated[
    str | None,
    typer.Option(
        "--sparse",
        metavar="MODEL",
        help=f"With --create, the sparse model or {NONE} (default: {DEFAULT_SPARSE}); otherwise {_MOVED}.",
    ),
]
RerankerModel = Annotated[
    str | None,
    typer.Option("--reranker", metavar="MODEL", help="Reranker to record in a new collection (default: no reranker)."),
]
TextField = Annotated[
    bool,
    typer.Option("--text", help="Add a text field to a new collection, searched with the store's own BM25."),
]
Filterable = Annotated[
    list[str] | None,
    typer.Option(
        "--filterable",
        metavar="FIELD[:KIND]",
        help="Filterable field of a new collection, such as year:int. KIND is keyword, int, float, bool or date "
        "(default: keyword). Repeat for several fields.",
    ),
]
FusionMethod = Annotated[
    str | None,
    typer.Option(
        "--fusion",
        metavar="METHOD",
        help=f"Fusion of the legs of a new collection: {FUSIONS}.",
    ),
]


@dataclass(frozen=True, slots=True)
class CollectionOptions:
    """The options that describe a new collection."""

    dense: str | None
    sparse: str | None
    reranker: str | None
    text: bool
    filterable: tuple[str, ...]
    fusion: str | None

    @property
    def dense_model(self) -> str | None:
        """The name of the dense model; ``None`` if the collection has no dense field."""
        return None if self.dense == NONE else self.dense or DEFAULT_DENSE

    @property
    def sparse_model(self) -> str | None:
        """The name of the sparse model; ``None`` if the collection has no sparse field."""
        return None if self.sparse == NONE else self.sparse or DEFAULT_SPARSE


def parse_filterable(items: Sequence[str]) -> dict[str, str]:
    """Parse ``FIELD:KIND`` items into kinds by field name; a field without a kind is a keyword."""
    from st_connectors.schema import FilterKind

    kinds = {}
    for item in items:
        name, colon, kind = item.rpartition(":")
        name, kind = (name, kind) if colon else (item, FilterKind.KEYWORD.value)
        if not name or kind not in {each.value for each in FilterKind}:
            raise ValueError(
                f"--filterable {item!r}: expected FIELD or FIELD:KIND with KIND one of {', '.join(FilterKind)}"
            )
        kinds[name] = kind
    return kinds


def parse_fusion(text: str | None) -> Fusion | None:
    """Parse ``rrf``, ``rrf:60``, ``rrf:60:1,2`` or ``weighted:0.25,0.75``."""
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
                return Rrf(int(k), _parse_numbers(weights))
            case "weighted", [weights]:
                return Weighted(_parse_numbers(weights))
            case _:
                pass
    except ValueError:
        pass
    raise ValueError(f"--fusion {text!r}: expected rrf, rrf:60, rrf:60:1,2 or weighted:0.25,0.75")


def parse_size(option: str, text: str) -> int:
    """Return the bytes of a size such as ``2GB`` or ``512MiB``; ``option`` is its name in messages."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kmgt]i?|)b", text.strip().lower())
    size = int(float(match[1]) * UNITS[match[2]]) if match else 0
    if size < 1:
        raise ValueError(f"{option} {text!r}: expected a size above 0 such as 2GB, 512MB or 4GiB")
    return size


def _parse_numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in text.split(","))

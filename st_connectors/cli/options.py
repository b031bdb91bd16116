"""The options that several commands share, and what their texts mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from st_connectors.store import Fusion

__all__ = [
    "DEFAULT_DENSE",
    "DEFAULT_SPARSE",
    "Address",
    "AsJson",
    "Collection",
    "Where",
    "parse_filterable",
    "parse_fusion",
    "quietly",
]

DEFAULT_DENSE = "builtin:dense"
DEFAULT_SPARSE = "builtin:sparse"


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


def parse_filterable(items: Sequence[str]) -> dict[str, str]:
    """``year:int`` as a field and the kind of its values; a field alone is a keyword."""
    from st_connectors.store import FilterKind

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
    from st_connectors.store import Rrf, Weighted

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

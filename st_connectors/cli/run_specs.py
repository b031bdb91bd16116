"""Ways of searching, as ``evaluate --run`` describes them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from st_connectors.cli.opening import Models, open_index
from st_connectors.cli.options import parse_fusion

if TYPE_CHECKING:
    from st_connectors.evaluation import Variant
    from st_connectors.index import Index
    from st_connectors.store import Effort

__all__ = ["Places", "RunSpec", "default_variants", "parse_run", "variants_of"]

KEYS = ("mode", "fusion", "depth", "effort", "rerank", "where", "min_score", "in", "collection", "dense", "sparse")


@dataclass(frozen=True, slots=True)
class RunSpec:
    """A name, and the values of some keys as text."""

    name: str
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Places:
    """Where and how a collection is opened, unless a run says otherwise."""

    address: str
    collection: str
    models: Models
    adopt: str | None
    filterable: Sequence[str]
    trust: bool


def parse_run(text: str) -> RunSpec:
    """Parse ``NAME: key=value key=value``; values with spaces are quoted. Raises ValueError for another form."""
    name, colon, rest = text.partition(":")
    try:
        parts = [part.partition("=") for part in shlex.split(rest)]
    except ValueError as error:
        raise ValueError(f"--run {text!r}: {error}") from error
    values = {key: value for key, _, value in parts}
    if len(values) < len(parts) or not all(sign and key in KEYS for key, sign, _ in parts):
        raise ValueError(f"--run {text!r}: expected each of {', '.join(KEYS)} at most once, as key=value")
    if not colon or not name.strip():
        raise ValueError(f"--run {text!r}: expected NAME: key=value …, such as 'exact: mode=dense effort=exact'")
    return RunSpec(name.strip(), values)


def default_variants(index: Index) -> list[Variant]:
    """Return the search of a collection as it is, and each of its legs if there are several."""
    from st_connectors.evaluation import Variant
    from st_connectors.evaluation.worst import leg_variants

    legs = leg_variants(index)
    return [Variant("hybrid", index), *legs] if len(legs) > 1 else legs


def variants_of(specs: Sequence[RunSpec], index: Index, places: Places, stack: ExitStack) -> list[Variant]:
    """Return the variants of runs; further collections are opened, and closed with the stack."""
    opened: dict[tuple[str, str, str | None, str | None], Index] = {_place(places): index}
    return [_variant(spec, _moved(spec, places), opened, stack) for spec in specs]


def _place(places: Places) -> tuple[str, str, str | None, str | None]:
    return places.address, places.collection, places.models.dense, places.models.sparse


def _moved(spec: RunSpec, places: Places) -> Places:
    """Return where the collection of a run is."""
    own = spec.values
    models = replace(
        places.models,
        dense=own.get("dense", places.models.dense),
        sparse=own.get("sparse", places.models.sparse),
    )
    return replace(
        places,
        address=own.get("in", places.address),
        collection=own.get("collection", places.collection),
        models=models,
    )


def _variant(
    spec: RunSpec, places: Places, opened: dict[tuple[str, str, str | None, str | None], Index], stack: ExitStack
) -> Variant:
    from st_connectors.evaluation import Variant

    if _place(places) not in opened:
        opened[_place(places)] = stack.enter_context(
            open_index(
                places.address, places.collection, places.models, places.adopt, places.filterable, trust=places.trust
            )
        )
    own = {key: value for key, value in spec.values.items() if key not in ("in", "collection", "dense", "sparse")}
    options = {key: _converted(spec.name, key, value, places) for key, value in own.items()}
    return Variant(spec.name, opened[_place(places)], options)


def _converted(name: str, key: str, value: str, places: Places) -> Any:
    convert: Mapping[str, Callable[[str], Any]] = {
        "fusion": parse_fusion,
        "depth": int,
        "min_score": float,
        "effort": _effort,
        "rerank": lambda text: _reranker(text, places),
    }
    try:
        return convert.get(key, str)(value)
    except ValueError as error:
        raise ValueError(f"--run {name}: {key}={value}: {error}") from error


def _effort(text: str) -> Effort:
    """Parse ``exact``, ``default`` or ``candidates:100``."""
    from st_connectors.store import Candidates, Default, Exact

    name, colon, number = text.partition(":")
    if name in ("exact", "default") and not colon:
        return Exact() if name == "exact" else Default()
    if name == "candidates" and number.isdigit():
        return Candidates(int(number))
    raise ValueError("expected exact, default or candidates:NUMBER")


def _reranker(text: str, places: Places) -> Any:
    """Return True for ``yes``, the reranker of the collection, else the model of the name."""
    if text == "yes":
        return True
    from st_connectors.models import DEFAULT_BACKEND, ModelOptions
    from st_connectors.schemas import lazy_reranker

    own = places.models.options
    lazy = lazy_reranker(text, ModelOptions(own.backend or DEFAULT_BACKEND, own.dtype))
    return None if lazy is None else lazy.load()

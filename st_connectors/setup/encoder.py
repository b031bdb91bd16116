"""The encoder server and the models on it that a store is to call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from st_core.protocols import ModelKind
from st_core.remote.connections import Connections, Retries

__all__ = ["NONE", "Encoder", "Model", "choose_models", "read_encoder"]

NONE = "none"
"""The name of no model."""


@dataclass(frozen=True, slots=True)
class Model:
    """A served model: its name in requests, and what decides the layout of its vectors.

    ``origin`` is the name by which the server loaded it. ``similarity`` is None for models that name none. ``prompts``
    are texts in front of queries and documents, by name.
    """

    name: str
    kind: ModelKind
    dimension: int
    similarity: str | None = None
    origin: str = ""
    prompts: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_unit_length(self) -> bool:
        """Whether vectors are compared by cosine, so that they are stored with unit length."""
        return self.similarity in (None, "cosine")


@dataclass(frozen=True, slots=True)
class Encoder:
    """A server by the address under which the store reaches it, with at most one model of each kind."""

    address: str
    dense: Model | None = None
    sparse: Model | None = None
    reranker: Model | None = None
    has_key: bool = False

    def url(self, path: str, model: Model, **options: str) -> str:
        """Return the address of a route for a model, which is named in the query string."""
        return f"{self.address}{path}?{urlencode({'model': model.name, **options})}"


def read_encoder(address: str, key: str | None, chosen: Mapping[ModelKind, str | None], seen_as: str = "") -> Encoder:
    """Ask a server for its models and return those that are chosen.

    ``chosen`` has the name of a model, ``none``, or None for the only one of its kind. ``seen_as`` is the address under
    which the store reaches the server, if it is another one. Raises ModelUnavailable if it does not answer, and
    ValueError for another address, a model that is not served and a kind that is not chosen among several.
    """
    url = address.rstrip("/")
    connections = Connections(url, key, timeout_s=20.0, retries=Retries(2, 0.2))
    try:
        models = _read_models(connections, url)
    finally:
        connections.close()
    found = choose_models(models, chosen, url)
    dense, sparse, reranker = (found[kind] for kind in _KINDS)
    return Encoder(seen_as.rstrip("/") or url, dense, sparse, reranker, key is not None)


_KINDS = (ModelKind.DENSE, ModelKind.SPARSE, ModelKind.RERANKER)
_OPTIONS = {ModelKind.DENSE: "--dense", ModelKind.SPARSE: "--sparse", ModelKind.RERANKER: "--reranker"}


def _read_models(connections: Connections, url: str) -> list[Model]:
    info = connections.get("/info")
    names = info.get("models") if isinstance(info, Mapping) else None
    if not isinstance(names, Mapping):
        raise ValueError(  # noqa: TRY004  # an address that the user can correct
            f"{url} is not a server of st-connectors: start one with `st-connectors serve`"
        )
    return [_model(name, connections.get(f"/v1/models/{quote(name, safe='')}")["st_connectors"]) for name in names]


def _model(name: str, described: Mapping[str, Any]) -> Model:
    ref = described["ref"]
    kind, dimension, similarity = ModelKind(ref["kind"]), ref["dimension"], described["similarity"]
    return Model(name, kind, dimension, similarity, ref["name"], ref["prompts"])


def choose_models(
    models: list[Model], chosen: Mapping[ModelKind, str | None], url: str
) -> dict[ModelKind, Model | None]:
    """Return the model of each kind, None for no model; raise ValueError as ``read_encoder`` does."""
    found = {kind: _choose(models, kind, chosen.get(kind), url) for kind in _KINDS}
    if found[ModelKind.DENSE] is None and found[ModelKind.SPARSE] is None:
        raise ValueError(f"{url}: expected a dense or a sparse model; serve one, or choose it with --dense or --sparse")
    return found


def _choose(models: list[Model], kind: ModelKind, name: str | None, url: str) -> Model | None:
    of_kind = {model.name: model for model in models if model.kind is kind}
    if name == NONE or (name is None and not of_kind):
        return None
    if name is None and len(of_kind) > 1:
        raise ValueError(f"{url} serves several {kind} models: choose one with {_OPTIONS[kind]}: {', '.join(of_kind)}")
    if name is not None and name not in of_kind:
        raise ValueError(
            f"{_OPTIONS[kind]} {name!r}: {url} serves {', '.join(of_kind) or 'no model'} of the kind {kind}; "
            "name one of them, or none"
        )
    return next(iter(of_kind.values())) if name is None else of_kind[name]

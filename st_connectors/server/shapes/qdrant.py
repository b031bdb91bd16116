"""Qdrant's inference: what a server sends to ``inference.address`` for the documents of an upsert or a query.

One request contains inputs for several models, dense and sparse, in no order of points.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from st_connectors.server.calls import Call, Embed, EmbedSparse, Reading, Result, Role, SparseVectors
from st_connectors.server.faults import Fault, FaultKind
from st_connectors.server.json_text import shortest
from st_connectors.server.shapes import errors
from st_connectors.server.shapes.fields import Fields
from st_connectors.server.shapes.routes import ApiRequest, Route, Translation, always
from st_connectors.server.shapes.writing import dense
from st_core.protocols import ModelKind

__all__ = ["ROUTES"]

_ROLES = {"search": Role.QUERY, "update": Role.DOCUMENT}


class _Input(NamedTuple):
    """One input: what decides which inputs are encoded together, and the text."""

    model: str
    dimensions: int | None
    text: str


def read_inference(request: ApiRequest) -> Translation:
    """Read ``/qdrant/inference``."""
    fields = request.fields
    role = _ROLES.get(fields.text("inference") or "")
    inputs = [_input(each, position) for position, each in enumerate(fields.items("inputs"))]
    groups: dict[tuple[str, int | None], list[int]] = {}
    for position, each in enumerate(inputs):
        groups.setdefault((each.model, each.dimensions), []).append(position)
    calls = tuple(
        _call(request, model, dimensions, tuple(inputs[position].text for position in positions), role)
        for (model, dimensions), positions in groups.items()
    )
    return Translation(calls, partial(_write_embeddings, list(groups.values())))


def _input(value: Any, position: int) -> _Input:
    fields = Fields(value, place=f"inputs[{position}]")
    if fields.text("data_type") not in (None, "text"):
        name = fields.name("data_type")
        raise Fault(FaultKind.INVALID, f"{name}: expected text; the served models read texts only", field=name)
    options = fields.fields("options") or Fields({})
    return _Input(fields.required_text("model"), options.whole("dimensions"), fields.required_text("data"))


def _call(request: ApiRequest, model: str, dimensions: int | None, texts: tuple[str, ...], role: Role | None) -> Call:
    kind = request.kind(model)
    if kind is ModelKind.RERANKER:
        raise Fault(FaultKind.WRONG_KIND, f"the model {model!r} is a reranker; expected a dense or a sparse one")
    if kind is ModelKind.SPARSE:
        return EmbedSparse(model, texts, Reading(role=role))
    return Embed(model, texts, Reading(role=role), normalize=False, dimensions=dimensions)


def _write_embeddings(groups: Sequence[Sequence[int]], results: Sequence[Result]) -> dict[str, Any]:
    embeddings: dict[int, Any] = {}
    for positions, result in zip(groups, results, strict=True):
        embeddings.update(zip(positions, _rows(result), strict=True))
    tokens: dict[str, int] = {}
    for result in results:
        tokens[result.usage.model] = tokens.get(result.usage.model, 0) + result.usage.total
    return {
        "embeddings": [embeddings[position] for position in range(len(embeddings))],
        "usage": {"models": {model: {"tokens": count} for model, count in tokens.items()}},
    }


def _rows(result: Result) -> list[Any]:
    if isinstance(result, SparseVectors):
        return [{"indices": row.indices.tolist(), "values": shortest(row.values)} for row in result.matrix.rows()]
    return list(dense(result))


ROUTES = (
    Route(
        "/qdrant/inference",
        read_inference,
        always(errors.PLAIN),
        "Vectors of several models",
        {"inputs": [{"data": "a text", "data_type": "text", "model": "dense"}], "inference": "update", "token": None},
        "Qdrant",
        key_field="token",
    ),
)

"""Ollama's ``/api/embed``, and ``/api/embeddings`` of its older clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from st_connectors.server.calls import Embed, Reading, Result
from st_connectors.server.shapes import errors
from st_connectors.server.shapes.routes import ApiRequest, Route, Translation, always
from st_connectors.server.shapes.writing import dense, one, total_tokens

__all__ = ["ROUTES"]


def _model(request: ApiRequest) -> str | None:
    """Return the model; Ollama's clients add ``:latest`` to a name without a tag."""
    name = request.model()
    return name if name is None or name in request.catalog else name.removesuffix(":latest")


def read_embed(request: ApiRequest) -> Translation:
    """Read ``/api/embed``; a request without ``input`` loads the model, which it is already."""
    fields = request.fields
    texts = fields.texts("input") if "input" in fields else ()
    reading = Reading(role=request.role(), truncate=fields.flag("truncate", True))
    call = Embed(_model(request), texts, reading, dimensions=fields.whole("dimensions"))
    return Translation((call,), _write_embeddings)


def _write_embeddings(results: Sequence[Result]) -> dict[str, Any]:
    usage = one(results).usage
    return {
        "model": usage.model,
        "embeddings": list(dense(one(results))),
        "total_duration": round((usage.tokenize_s + usage.queue_s + usage.compute_s) * 1e9),
        "load_duration": 0,
        "prompt_eval_count": total_tokens(results),
    }


def read_embeddings(request: ApiRequest) -> Translation:
    """Read ``/api/embeddings``, whose vectors are not normalised."""
    call = Embed(
        _model(request), (request.fields.required_text("prompt"),), Reading(role=request.role()), normalize=False
    )
    return Translation((call,), lambda results: {"embedding": dense(one(results))[0]})


ROUTES = (
    Route(
        "/api/embed",
        read_embed,
        always(errors.PLAIN),
        "Dense vectors",
        {"model": "dense", "input": ["a text"]},
        "Ollama",
    ),
    Route(
        "/api/embeddings",
        read_embeddings,
        always(errors.PLAIN),
        "One dense vector",
        {"model": "dense", "prompt": "a text"},
        "Ollama",
    ),
)

"""Ollama's ``/api/embed``, and ``/api/embeddings`` of its older clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from st_connectors.server.calls import Embed, Reading, Result
from st_connectors.server.shapes import errors
from st_connectors.server.shapes.routes import Asked, Asking, Route, always
from st_connectors.server.shapes.writing import dense, one, total_tokens

__all__ = ["ROUTES"]


def _model(asking: Asking) -> str | None:
    """Return the model; Ollama's clients add ``:latest`` to a name without a tag."""
    name = asking.model()
    return name if name is None or name in asking.catalog else name.removesuffix(":latest")


def read_embed(asking: Asking) -> Asked:
    """Read ``/api/embed``; a request without ``input`` loads the model, which it is already."""
    fields = asking.fields
    texts = fields.texts("input") if "input" in fields else ()
    reading = Reading(role=asking.role(), truncate=fields.flag("truncate", True))
    call = Embed(_model(asking), texts, reading, dimensions=fields.whole("dimensions"))
    return Asked((call,), _write_embeddings)


def _write_embeddings(results: Sequence[Result]) -> dict[str, Any]:
    spent = one(results).spent
    return {
        "model": spent.model,
        "embeddings": list(dense(one(results))),
        "total_duration": round((spent.tokenize_s + spent.queue_s + spent.compute_s) * 1e9),
        "load_duration": 0,
        "prompt_eval_count": total_tokens(results),
    }


def read_embeddings(asking: Asking) -> Asked:
    """Read ``/api/embeddings``, whose vectors are not normalised."""
    call = Embed(_model(asking), (asking.fields.required_text("prompt"),), Reading(role=asking.role()), normalize=False)
    return Asked((call,), lambda results: {"embedding": dense(one(results))[0]})


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

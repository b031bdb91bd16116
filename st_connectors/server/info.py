"""What the server says about itself and its models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from st_connectors.server.models import ServedModel
from st_connectors.server.service import Service
from st_connectors.server.shapes import openai
from st_core import __version__
from st_core.protocols import ModelKind

__all__ = ["information", "model_information"]


def information(service: Service, query: Mapping[str, str]) -> dict[str, Any]:
    """Return TEI's ``/info`` of one model, ``?model=`` or the first, with a list of all models.

    Raises Fault for an unknown model.
    """
    name = query.get("model")
    served = next(iter(service.models.values())) if name is None else service.model(name)
    settings = service.settings
    return {
        "model_id": served.ref.name,
        "model_sha": served.ref.revision,
        "model_dtype": served.ref.precision,
        "served_model_name": served.name,
        "model_type": _type(served),
        "max_concurrent_requests": settings.queue.jobs,
        "max_input_length": served.ref.max_tokens,
        "max_batch_tokens": settings.queue.batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": settings.limits.texts,
        "auto_truncate": settings.limits.auto_truncate,
        "tokenization_workers": 1,
        "version": __version__,
        "sha": None,
        "docker_label": None,
        "models": {each.name: _summary(each) for each in service.models.values()},
    }


def _type(served: ServedModel) -> dict[str, Any]:
    """Return the type of a model as TEI describes it."""
    if served.kind is ModelKind.RERANKER:
        named = {str(index): label for index, label in enumerate(served.labels)}
        labels = {"id2label": named, "label2id": {label: int(index) for index, label in named.items()}}
        return {"reranker": labels} if served.ref.dimension == 1 else {"classifier": labels}
    return {"embedding": {"pooling": "splade" if served.kind is ModelKind.SPARSE else _pooling(served)}}


def _pooling(served: ServedModel) -> str:
    """Return the pooling mode of a dense model; a model without the module, such as a static one, takes the mean."""
    modes = [str(module.pooling_mode) for module in served.model if hasattr(module, "pooling_mode")]
    return modes[0] if modes else "mean"


def _summary(served: ServedModel) -> dict[str, Any]:
    return {
        "kind": served.kind.value,
        "aliases": list(served.aliases),
        "dimension": served.ref.dimension,
        "max_tokens": served.ref.max_tokens,
        "prompts": sorted(served.ref.prompts),
        "backend": served.ref.backend or "numpy",
        "devices": len(served.computes),
    }


def model_information(served: ServedModel, created: int) -> dict[str, Any]:
    """Return the entry of a model in ``/v1/models``, with the description that is stored with collections."""
    return openai.model(served.name, created) | {
        "st_connectors": {"ref": served.ref.to_json(), "similarity": _similarity(served), "labels": list(served.labels)}
        if served.kind is ModelKind.RERANKER
        else {"ref": served.ref.to_json(), "similarity": _similarity(served)}
    }


def _similarity(served: ServedModel) -> str | None:
    name: str | None = getattr(served.model, "similarity_fn_name", None)
    return name

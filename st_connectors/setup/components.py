"""Configuration for the files of stores that call an encoder server but are not set up by requests."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from st_connectors.setup.encoder import Encoder, Model

__all__ = ["COMPONENTS", "Component"]


@dataclass(frozen=True, slots=True)
class Component:
    """Texts for files, by the names of the files."""

    files: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"# {name}\n{text}" for name, text in self.files.items()]
        return "\n\n".join([*parts, *(f"# {note}" for note in self.notes)])

    def to_json(self) -> dict[str, Any]:
        """Return the texts as values that can be written as JSON."""
        return {"files": dict(self.files), "notes": list(self.notes)}


def vespa(encoder: Encoder) -> Component:
    """Return the components of ``services.xml`` and the fields of a schema; raise ValueError without a dense model."""
    dense = _dense(encoder, "Vespa")
    key = f"\n  <api-key-secret-ref>{_SECRET}</api-key-secret-ref>" if encoder.has_key else ""
    roles = [role for role in ("query", "document") if dense.prompts.get(role)]
    prompts = "".join(f"\n  <{role}-prompt-name>{role}</{role}-prompt-name>" for role in roles)
    services = f"""<component id="dense" type="hugging-face-tei-embedder">
  <endpoint>{_escaped(encoder.url("/embed", dense))}</endpoint>{key}
  <dimensions>{dense.dimension}</dimensions>{prompts}
</component>"""
    distance = {None: "angular", "cosine": "angular", "dot": "dotproduct", "euclidean": "euclidean"}
    schema = f"""field dense type tensor<float>(x[{dense.dimension}]) {{
  indexing: input text | embed dense | attribute | index
  attribute {{
    distance-metric: {distance.get(dense.similarity, "angular")}
  }}
}}"""
    notes = [
        "Queries: input.query(q)=embed(dense, @text)",
        "Vespa asks no server for sparse vectors",
    ]
    return Component({"services.xml": services, "schemas/NAME.sd": schema}, tuple(notes))


_SECRET = "st_encoder_key"  # noqa: S105  # the name of a secret


def weaviate(encoder: Encoder) -> Component:
    """Return the environment of a server, and the vectorizer of a collection; raise ValueError as ``vespa``."""
    similarity = _dense(encoder, "Weaviate").similarity or "cosine"
    distance = {"euclidean": "l2-squared"}.get(similarity, similarity)
    environment = {"ENABLE_MODULES": "text2vec-transformers", "TRANSFORMERS_INFERENCE_API": encoder.address}
    collection: dict[str, Any] = {"vectorizer": "text2vec-transformers", "vectorIndexConfig": {"distance": distance}}
    if encoder.reranker is not None:
        environment["ENABLE_MODULES"] += ",reranker-transformers"
        environment["RERANKER_INFERENCE_API"] = encoder.address
        collection["moduleConfig"] = {"reranker-transformers": {}}
    notes = ["Weaviate names no model: the encoder server must serve one dense model, and at most one reranker"]
    if encoder.has_key:
        notes.append("Weaviate sends no key: serve without keys on a network that only Weaviate reaches")
    lines = "\n".join(f"{name}={value}" for name, value in environment.items())
    return Component({"environment": lines, "collection.json": json.dumps(collection, indent=2)}, tuple(notes))


def _dense(encoder: Encoder, store: str) -> Model:
    if encoder.dense is None:
        raise ValueError(f"{store} needs a dense model: serve one, or leave --dense none out")
    return encoder.dense


def _escaped(url: str) -> str:
    return url.replace("&", "&amp;")


COMPONENTS: Mapping[str, Callable[[Encoder], Component]] = {"vespa": vespa, "weaviate": weaviate}
"""Functions that return the configuration of a store."""

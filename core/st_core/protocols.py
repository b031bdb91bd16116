"""The interface of models for ingest and search, which objects of sentence-transformers meet as they are."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

__all__ = ["ModelKind", "ModelRef", "Reranker", "TextEncoder"]


@runtime_checkable
class TextEncoder(Protocol):
    """An encoder of queries and documents: dense [n, d], or a SparseMatrix, scipy or torch sparse matrix [n, V]."""

    def encode_query(self, inputs: list[str], /) -> object:
        """Return the vectors of queries, in order."""
        ...

    def encode_document(self, inputs: list[str], /) -> object:
        """Return the vectors of documents, in order."""
        ...


@runtime_checkable
class Reranker(Protocol):
    """A model that scores pairs of query and document."""

    def predict(self, inputs: list[tuple[str, str]], /) -> ArrayLike:
        """Return one score per pair [n], in order; higher is better."""
        ...


class ModelKind(StrEnum):
    """The kind of a model's results."""

    DENSE = "dense"
    SPARSE = "sparse"
    RERANKER = "reranker"


@dataclass(frozen=True, slots=True)
class ModelRef:
    """The model of a field's vectors, as stored beside a collection.

    ``dimension`` is the width of the vectors, the vocabulary's for sparse ones. ``fingerprint`` maps components
    ("weights", "tokenizer", "configuration", "prompts", "precision") to hashes, so that a message can name the
    difference; it is empty for foreign objects.
    """

    name: str
    kind: ModelKind
    dimension: int
    revision: str | None = None
    max_tokens: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    precision: str = "float32"
    fingerprint: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {
            "kind": self.kind.value,
            "prompts": dict(self.prompts),
            "fingerprint": dict(self.fingerprint),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ModelRef:
        """Return the reference that ``to_json`` wrote; unknown keys of newer versions are ignored."""
        known = {key: value[key] for key in cls.__dataclass_fields__ if key in value}
        return cls(**known | {"kind": ModelKind(known["kind"])})

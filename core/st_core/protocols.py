"""The interface of models for ingest and search, which models of sentence-transformers satisfy without adaptation."""

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
    """A model that encodes queries and documents.

    Dense vectors are an array [n, d]. Sparse vectors are a SparseMatrix, or a sparse matrix of scipy or torch, [n, V].
    """

    def encode_query(self, inputs: list[str], /) -> object:
        """Return the vectors of queries, in order."""
        ...

    def encode_document(self, inputs: list[str], /) -> object:
        """Return the vectors of documents, in order."""
        ...


@runtime_checkable
class Reranker(Protocol):
    """A model that scores pairs of a query and a document."""

    def predict(self, inputs: list[tuple[str, str]], /) -> ArrayLike:
        """Return one score for each pair [n], in order; a higher score is better."""
        ...


class ModelKind(StrEnum):
    """The kind of a model's results."""

    DENSE = "dense"
    SPARSE = "sparse"
    RERANKER = "reranker"


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A description of the model of a field's vectors, which is stored with the collection.

    ``dimension`` is the width of the vectors, which is the size of the vocabulary for sparse vectors. ``max_tokens`` is
    the maximum number of tokens of a text, None for no limit. ``fingerprint`` maps components ("weights", "tokenizer",
    "configuration", "prompts", "precision", and "max_active_dims" of sparse models) to hashes, so that a message can
    name the components that differ; it is empty for models of other libraries.

    ``backend`` is what computed a transformer; None for models that numpy runs, for models of other libraries and in
    descriptions that an earlier version stored. ``truncate_dim`` and ``max_active_dims`` are the settings of these
    names, None if they are not set. Loaded by its name with these three and ``precision``, the model computes the same
    vectors.
    """

    name: str
    kind: ModelKind
    dimension: int
    revision: str | None = None
    max_tokens: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    precision: str = "float32"
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    backend: str | None = None
    truncate_dim: int | None = None
    max_active_dims: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the description as values that can be written as JSON."""
        return asdict(self) | {
            "kind": self.kind.value,
            "prompts": dict(self.prompts),
            "fingerprint": dict(self.fingerprint),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ModelRef:
        """Return the description that ``to_json`` wrote; unknown keys, which newer versions may write, are ignored."""
        known = {key: value[key] for key in cls.__dataclass_fields__ if key in value}
        return cls(**known | {"kind": ModelKind(known["kind"])})

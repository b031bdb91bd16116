"""The part that dense and sparse encoders share: queries and documents, streams, and similarities."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from st_core.engine.inputs import UNSET
from st_core.errors import ModelUnsupported
from st_core.model import Model

if TYPE_CHECKING:
    from st_core.similarity import SimilarityFunction

__all__ = ["Encoder", "windows"]

Item = TypeVar("Item")

DOCUMENT_PROMPTS = ("document", "passage", "corpus")
"""Names of the prompt of ``encode_document``; the first one that the model has is used."""

WINDOW = 4096
"""Inputs of a stream that are encoded together."""


def windows(inputs: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield a stream in lists of ``size``; raise ValueError for a size below 1, TypeError for a single text."""
    if isinstance(inputs, str):
        raise TypeError("expected a stream of texts, got one text; put it into a list")
    if size < 1:
        raise ValueError(f"window must be a positive integer, got {size}")
    remaining = iter(inputs)
    return iter(lambda: list(islice(remaining, size)), [])


class Encoder(Model):
    """A model that encodes each text as a vector."""

    default_prompts = MappingProxyType({"query": None, "document": None})
    default_similarity: str

    @abstractmethod
    def encode(self, *args: Any, **kwargs: Any) -> Any:
        """Return the vectors of texts."""

    def encode_query(
        self,
        inputs: object = UNSET,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *args: object,
        **kwargs: object,
    ) -> Any:
        """Call :meth:`encode` for queries: with the prompt named "query" unless another is set, and the task "query".

        Takes all arguments of :meth:`encode`, in its order.
        """
        if prompt_name is None and prompt is None and "query" in self.prompts:
            prompt_name = "query"
        if not args and not kwargs:  # unpacking them costs a twentieth of an inference-free query
            return self.encode(inputs, prompt_name, prompt, task="query")
        return self.encode(inputs, prompt_name, prompt, *args, **{"task": "query"} | kwargs)

    def encode_document(
        self,
        inputs: object = UNSET,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *args: object,
        **kwargs: object,
    ) -> Any:
        """Call :meth:`encode` for documents: with the prompt "document", "passage" or "corpus", the task "document".

        Takes all arguments of :meth:`encode`, in its order.
        """
        if prompt_name is None and prompt is None:
            prompt_name = next((name for name in DOCUMENT_PROMPTS if name in self.prompts), None)
        return self.encode(inputs, prompt_name, prompt, *args, **{"task": "document"} | kwargs)

    def encode_iter(self, inputs: Iterable[str], *, window: int = WINDOW, **kwargs: object) -> Iterator[Any]:
        """Yield the vector of each text of a stream, in order, with ``window`` texts in memory at a time.

        The other arguments are those of :meth:`encode`. Within a window texts are sorted by length, so a larger one
        runs a little faster.
        """
        return (vector for listed in windows(inputs, window) for vector in self.encode(listed, **kwargs))

    def get_sentence_embedding_dimension(self) -> int | None:
        """Return ``get_embedding_dimension()``, under its old name."""
        return self.get_embedding_dimension()

    @abstractmethod
    def get_embedding_dimension(self) -> int | None:
        """Return the width of the vectors."""

    @property
    def similarity_fn_name(self) -> str:
        """The function that :meth:`similarity` computes: cosine, dot, euclidean or manhattan."""
        return self._similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: str | SimilarityFunction | None) -> None:
        from st_core.similarity import SimilarityFunction

        self._similarity_fn_name = str(SimilarityFunction(value or self.default_similarity).value)

    def _now_saved(self) -> dict[str, object]:
        return super()._now_saved() | {"similarity_fn_name": self.similarity_fn_name}

    def _set_similarity(self, requested: str | SimilarityFunction | None) -> None:
        """Set the similarity to the caller's, else the checkpoint's, else the family's."""
        saved = self._settings.get("similarity_fn_name")
        try:
            self.similarity_fn_name = requested or saved
        except ValueError as error:
            if requested:
                raise
            raise ModelUnsupported(f"{self.checkpoint.name}: {error}") from error

    def similarity(self, embeddings1: object, embeddings2: object) -> Any:
        """Return the similarities [a, b] of two sets of vectors: a tensor for a model on torch, else an array."""
        from st_core.similarity import SimilarityFunction

        return self._as_tensor(SimilarityFunction.to_similarity_fn(self.similarity_fn_name)(embeddings1, embeddings2))

    def similarity_pairwise(self, embeddings1: object, embeddings2: object) -> Any:
        """Return the similarity of row i of both sets [n]."""
        from st_core.similarity import SimilarityFunction

        compute = SimilarityFunction.to_similarity_pairwise_fn(self.similarity_fn_name)
        return self._as_tensor(compute(embeddings1, embeddings2))

    def _as_tensor(self, scores: object) -> object:
        """Return scores as a tensor where the model runs on torch."""
        if not (self._engine.uses_torch and isinstance(scores, np.ndarray)):
            return scores
        import torch

        return torch.from_numpy(scores)

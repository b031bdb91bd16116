"""What dense and sparse encoders share: queries and documents, streams, and similarities."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from itertools import islice
from types import MappingProxyType
from typing import Any

import numpy as np

from st_core.engine.inputs import UNSET
from st_core.errors import ModelUnsupported
from st_core.model import Model

__all__ = ["Encoder", "windows"]

DOCUMENT_PROMPTS = ("document", "passage", "corpus")
"""The first of these names that the prompts have is ``encode_document``'s."""

WINDOW = 4096
"""Inputs of a stream that are looked at together."""


def windows(inputs: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """A stream in lists of ``size``; raises ValueError where that is no number of inputs, TypeError for a lone text."""
    if isinstance(inputs, str):
        raise TypeError("a stream of texts was expected, and one text came: put it into a list")
    if size < 1:
        raise ValueError(f"window must be a positive integer, got {size}")
    waiting = iter(inputs)
    return iter(lambda: list(islice(waiting, size)), [])


class Encoder(Model):
    """A model that gives a vector for each text."""

    default_prompts = MappingProxyType({"query": None, "document": None})
    default_similarity: str

    @abstractmethod
    def encode(self, *args: Any, **kwargs: Any) -> Any:
        """Return the vectors of texts."""

    def encode_query(
        self, inputs: Any = UNSET, prompt_name: str | None = None, prompt: str | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """:meth:`encode` for queries: with the prompt named "query" where no other is given, and the task "query".

        Takes all arguments of :meth:`encode`, in its order.
        """
        if prompt_name is None and prompt is None and "query" in self.prompts:
            prompt_name = "query"
        if not args and not kwargs:  # unpacking them costs a twentieth of an inference-free query
            return self.encode(inputs, prompt_name, prompt, task="query")
        return self.encode(inputs, prompt_name, prompt, *args, **{"task": "query"} | kwargs)

    def encode_document(
        self, inputs: Any = UNSET, prompt_name: str | None = None, prompt: str | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """:meth:`encode` for documents: with the first prompt named "document", "passage" or "corpus", and the task "document".

        Takes all arguments of :meth:`encode`, in its order.
        """
        if prompt_name is None and prompt is None:
            prompt_name = next((name for name in DOCUMENT_PROMPTS if name in self.prompts), None)
        return self.encode(inputs, prompt_name, prompt, *args, **{"task": "document"} | kwargs)

    def encode_iter(self, inputs: Iterable[str], *, window: int = WINDOW, **kwargs: Any) -> Iterator[Any]:
        """The vector of each text of a stream, in order, holding ``window`` texts and their vectors at a time.

        The other arguments are :meth:`encode`'s. Within a window texts are sorted by length, so a larger one runs a little faster.
        """
        return (vector for listed in windows(inputs, window) for vector in self.encode(listed, **kwargs))

    def get_sentence_embedding_dimension(self) -> int | None:
        """The old name of ``get_embedding_dimension``."""
        return self.get_embedding_dimension()

    @abstractmethod
    def get_embedding_dimension(self) -> int | None:
        """The width of the vectors."""

    @property
    def similarity_fn_name(self) -> str:
        """What :meth:`similarity` computes: cosine, dot, euclidean or manhattan."""
        return self._similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: Any) -> None:
        from st_core.similarity import SimilarityFunction

        self._similarity_fn_name = str(SimilarityFunction(value or self.default_similarity).value)

    def _now_saved(self) -> dict[str, Any]:
        return super()._now_saved() | {"similarity_fn_name": self.similarity_fn_name}

    def _set_similarity(self, given: Any) -> None:
        """What the caller says, else the checkpoint, else the family's."""
        saved = self._settings.get("similarity_fn_name")
        try:
            self.similarity_fn_name = given or saved
        except ValueError as error:
            if given:
                raise
            raise ModelUnsupported(f"{self.checkpoint.name}: {error}") from error

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """The similarities [a, b] of two sets of vectors: a tensor for a model that runs on torch, else an array."""
        from st_core.similarity import SimilarityFunction

        return self._shown(SimilarityFunction.to_similarity_fn(self.similarity_fn_name)(embeddings1, embeddings2))

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """The similarity of row i of both sets [n]."""
        from st_core.similarity import SimilarityFunction

        compute = SimilarityFunction.to_similarity_pairwise_fn(self.similarity_fn_name)
        return self._shown(compute(embeddings1, embeddings2))

    def _shown(self, scores: Any) -> Any:
        if not (self._engine.uses_torch and isinstance(scores, np.ndarray)):
            return scores
        import torch

        return torch.from_numpy(scores)

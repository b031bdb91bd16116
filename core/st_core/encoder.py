"""The base of dense and sparse encoders: encoding of queries, documents and streams, and similarities."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from st_core.engine.inputs import is_singular
from st_core.errors import ModelUnsupported
from st_core.model import Model

if TYPE_CHECKING:
    from st_core.engine.prepared import Prepared
    from st_core.similarity import SimilarityFunction

__all__ = ["Encoder", "windows"]

Item = TypeVar("Item")

DOCUMENT_PROMPTS = ("document", "passage", "corpus")
"""Names of prompts for ``encode_document``; the first of these that the model has is used."""

WINDOW = 4096
"""The default number of inputs of a stream that are encoded together."""


def windows(inputs: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield the items of a stream in lists of ``size``; the last list may be shorter.

    Raises ValueError for a size below 1, and TypeError for a single text.
    """
    if isinstance(inputs, str):
        raise TypeError("expected a stream of texts, got one text; put it into a list")
    if size < 1:
        raise ValueError(f"window must be a positive integer, got {size}")
    remaining = iter(inputs)
    return iter(lambda: list(islice(remaining, size)), [])


class Encoder(Model):
    """A model that encodes each text as a vector."""

    SUPPORTED_SIMILARITY_FN_NAMES: ClassVar[tuple[str, ...]] = ("cosine", "dot", "euclidean", "manhattan")
    """The names of functions that :attr:`similarity_fn_name` can be set to."""

    default_prompts = MappingProxyType({"query": None, "document": None})
    default_similarity: str

    @abstractmethod
    def encode(self, *args: Any, **kwargs: Any) -> Any:
        """Return the vectors of texts."""

    @abstractmethod
    def prepare(self, inputs: object, *args: Any, **kwargs: Any) -> Prepared:
        """Tokenize the texts of a request, as the first of the three steps of encoding."""

    def prepare_query(
        self, inputs: object, prompt_name: str | None = None, prompt: str | None = None, **kwargs: Any
    ) -> Prepared:
        """Call :meth:`prepare` for queries, with the task and the prompt of ``encode_query``."""
        kwargs.setdefault("task", "query")
        return self.prepare(inputs, self._query_prompt(prompt_name, prompt), prompt, **kwargs)

    def prepare_document(
        self, inputs: object, prompt_name: str | None = None, prompt: str | None = None, **kwargs: Any
    ) -> Prepared:
        """Call :meth:`prepare` for documents, with the task and the prompt of ``encode_document``."""
        kwargs.setdefault("task", "document")
        return self.prepare(inputs, self._document_prompt(prompt_name, prompt), prompt, **kwargs)

    def _query_prompt(self, prompt_name: str | None, prompt: str | None) -> str | None:
        """Return the name of the prompt for queries: "query" if the model has it and no other prompt is passed."""
        return "query" if prompt_name is None and prompt is None and "query" in self.prompts else prompt_name

    def _document_prompt(self, prompt_name: str | None, prompt: str | None) -> str | None:
        """Return the name of the prompt for documents: the first of ``DOCUMENT_PROMPTS`` unless another is passed."""
        if prompt_name is not None or prompt is not None:
            return prompt_name
        return next((name for name in DOCUMENT_PROMPTS if name in self.prompts), None)

    def encode_iter(self, inputs: Iterable[str], *, window: int = WINDOW, **kwargs: object) -> Iterator[Any]:
        """Yield the vector of each text of a stream, in order, with ``window`` texts in memory at a time.

        The other arguments are those of :meth:`encode`. Texts are sorted by length within a window, so that a larger
        window is slightly faster.
        """
        return (vector for listed in windows(inputs, window) for vector in self.encode(listed, **kwargs))

    def is_singular_input(self, inputs: object) -> bool:
        """Return whether inputs are one input and not a batch, also for inputs that :meth:`encode` refuses.

        A list of chat messages is one input.
        """
        return is_singular(inputs)

    def get_sentence_embedding_dimension(self) -> int | None:
        """Call :meth:`get_embedding_dimension`, under its old name."""
        return self.get_embedding_dimension()

    @abstractmethod
    def get_embedding_dimension(self) -> int | None:
        """Return the width of the vectors."""

    @property
    def similarity_fn_name(self) -> str:
        """The name of the function that :meth:`similarity` computes: cosine, dot, euclidean or manhattan."""
        return self._similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: str | SimilarityFunction | None) -> None:
        name = str(value or self.default_similarity)
        if name not in self.SUPPORTED_SIMILARITY_FN_NAMES:
            known = ", ".join(self.SUPPORTED_SIMILARITY_FN_NAMES)
            tokens = " (a MultiVectorEncoder compares vectors of tokens)" if "maxsim" in name else ""
            raise ValueError(
                f"unknown similarity function {name!r} of vectors of texts; expected one of {known}{tokens}"
            )
        self._similarity_fn_name = name

    def _now_saved(self) -> dict[str, object]:
        return super()._now_saved() | {"similarity_fn_name": self.similarity_fn_name}

    def _set_similarity(self, requested: str | SimilarityFunction | None) -> None:
        """Set the similarity to ``requested``, else to that of the checkpoint, else to the default of the class."""
        saved = self._settings.get("similarity_fn_name")
        try:
            self.similarity_fn_name = requested or saved
        except ValueError as error:
            if requested:
                raise
            raise ModelUnsupported(f"{self.checkpoint.name}: {error}") from error

    def similarity(self, embeddings1: object, embeddings2: object) -> Any:
        """Return the similarity of each vector of one set to each vector of another [a, b].

        The result is a tensor for a model on torch, and for tensors; otherwise it is an array.
        """
        from st_core.similarity import SimilarityFunction

        return self._as_tensor(SimilarityFunction.to_similarity_fn(self.similarity_fn_name)(embeddings1, embeddings2))

    def similarity_pairwise(self, embeddings1: object, embeddings2: object) -> Any:
        """Return the similarity of the two vectors at each position of both sets [n]."""
        from st_core.similarity import SimilarityFunction

        compute = SimilarityFunction.to_similarity_pairwise_fn(self.similarity_fn_name)
        return self._as_tensor(compute(embeddings1, embeddings2))

    def _as_tensor(self, scores: object) -> object:
        """Return scores as a tensor if the model runs on torch, otherwise unchanged."""
        if not (self._engine.uses_torch and isinstance(scores, np.ndarray)):
            return scores
        import torch

        return torch.from_numpy(scores)
